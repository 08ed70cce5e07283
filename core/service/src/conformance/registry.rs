//! What every [`Registry`] must do.

use crate::{
    cron::CronSchedule,
    registry::{
        CLAIM_MS, CONNECTIONS_MAX, Claim, ConnectionQuery, ConnectionRecord, ConnectionRow, ConnectionStatus, DueSync,
        Echoed, Poked, RECORD_VERSION, Registry, SYNCS_PER_BUCKET_MAX, Section, SyncMode, SyncQuery, SyncRecord,
        SyncRow, SyncsOf,
    },
};
use b2sync_core::{
    conformance::{Outcome, check, check_kind},
    error::{Error, ErrorKind},
    filter::FilterSpec,
    policy::{DeletionLimit, Reconcile},
    source_path::SourcePath,
    time::Timestamp,
};

/// A connection with that id and name, created at that millisecond.
pub fn connection(connection_id: &str, name: &str, created_at: i64) -> ConnectionRecord {
    ConnectionRecord {
        v: RECORD_VERSION,
        connection_id: connection_id.to_owned(),
        internal_id: "int_conformance".to_owned(),
        name: name.to_owned(),
        description: Some("ünïcode 🎬 \" ' ; --".to_owned()),
        metadata: [("team".to_owned(), serde_json::json!({"a": [1, null, "x"]}))].into_iter().collect(),
        provider_type: "backblaze".to_owned(),
        key_id: "005".to_owned(),
        application_key: None,
        account: None,
        authorized_at: Some(Timestamp::from_millis(created_at)),
        pace: None,
        status: ConnectionStatus::Active,
        is_active: true,
        write_enabled: false,
        last_used_at: None,
        last_error: None,
        consecutive_failures: 0,
        created_at: Timestamp::from_millis(created_at),
        updated_at: Timestamp::from_millis(created_at),
        revision: 0,
        archived: false,
        created_by: "usr_conformance".to_owned(),
    }
}

/// A sync of namespace `ns` with that id, bucket and connection, created at that millisecond.
///
/// # Errors
/// None: its source path is one.
pub fn sync(sync_id: &str, bucket_id: &str, connection_id: &str, created_at: i64) -> Result<SyncRecord, String> {
    Ok(SyncRecord {
        v: RECORD_VERSION,
        sync_id: sync_id.to_owned(),
        internal_id: "int_conformance".to_owned(),
        namespace_id: "ns".to_owned(),
        bucket_id: bucket_id.to_owned(),
        connection_id: connection_id.to_owned(),
        source: SourcePath::parse("b2://conformance/a b+%/日本/").map_err(|error| error.to_string())?,
        mode: SyncMode::Scheduled,
        filters: FilterSpec {
            include_patterns: vec!["*.mp4".to_owned(), "動画/**".to_owned()],
            max_size_bytes: Some(u64::MAX),
            modified_before: Some(Timestamp::from_millis(-5)),
            ..FilterSpec::default()
        },
        polling_interval_s: 300,
        cron: None,
        batch_size: 50,
        reconcile: Reconcile { on_delete: false, ..Reconcile::default() },
        deletion_limit: DeletionLimit { percent: 0, files: 10_000_000 },
        sinks: crate::registry::usual_sinks(),
        feed_retention_hours: crate::registry::FEED_RETENTION_HOURS,
        skip_duplicates: true,
        max_objects_per_run: None,
        max_class_c_per_day: Some(10_000_000),
        sync_concurrency: Some(8),
        description: None,
        first_look: Vec::new(),
        metadata: serde_json::Map::new(),
        echoed: Echoed { ingest_filter: Some(serde_json::json!({"retriever_id": "r"})), ..Echoed::default() },
        salt: "000102030405060708090a0b0c0d0e0f".to_owned().into(),
        is_active: true,
        created_at: Timestamp::from_millis(created_at),
        updated_at: Timestamp::from_millis(created_at),
        revision: 0,
        created_by: "usr_conformance".to_owned(),
    })
}

/// Runs every rule, each against a fresh, empty registry.
///
/// # Errors
/// The first rule that is broken, in words.
pub async fn registry_conformance<R: Registry>(new: impl AsyncFn() -> R) -> Outcome {
    connections_are_kept(&new().await).await?;
    names_are_unique(&new().await).await?;
    there_is_a_limit(&new().await).await?;
    updates_compare_and_swap(&new().await).await?;
    syncs_are_kept(&new().await).await?;
    lists_have_sections(&new().await).await?;
    what_cannot_be_read_hides_nothing(&new().await).await?;
    syncs_are_due(&new().await).await?;
    archived_connections_are_purged(&new().await).await?;
    a_claim_is_kept_for_a_day(&new().await).await
}

async fn connections_are_kept(registry: &impl Registry) -> Outcome {
    check("an empty registry lists nothing", listed(registry, &live()).await, Vec::new())?;
    check("a connection that is not there is none", registry.connection("conn_a").await, None)?;
    let stored = ConnectionRecord { revision: 1, ..connection("conn_a", "A b/ü", 10) };
    check(
        "insert answers revision 1",
        registry.insert_connection(connection("conn_a", "A b/ü", 10)).await,
        stored.clone(),
    )?;
    check("found by id", registry.connection("conn_a").await, Some(stored.clone()))?;
    check("found by name", registry.connection("A b/ü").await, Some(stored.clone()))?;
    check("names are case-sensitive", registry.connection("a b/ü").await, None)?;
    check_kind(
        "an id exists once",
        registry.insert_connection(connection("conn_a", "other", 10)).await,
        ErrorKind::Conflict,
    )?;
    let b = registry.insert_connection(connection("conn_b", "B", 30)).await;
    let b = ok("insert", b)?;
    let c = ok("insert", registry.insert_connection(connection("conn_c", "C", 10)).await)?;
    check("newest first, then by id downwards", listed(registry, &live()).await, vec![b, c, stored])
}

async fn names_are_unique(registry: &impl Registry) -> Outcome {
    let a = ok("insert", registry.insert_connection(connection("conn_a", "A", 10)).await)?;
    let taken = registry.insert_connection(connection("conn_b", "A", 11)).await;
    if let Err(error) = &taken {
        check("the conflict names its field", Ok(error.field()), Some("name"))?;
    }
    check_kind("a name is taken", taken, ErrorKind::Conflict)?;
    check_kind("and is said to be", registry.check_new_connection("A").await, ErrorKind::Conflict)?;
    check("a refused insert leaves nothing", registry.connection("conn_b").await, None)?;
    let b = ok("insert", registry.insert_connection(connection("conn_b", "B", 11)).await)?;
    let renamed = ConnectionRecord { name: "A".to_owned(), ..b.clone() };
    check_kind(
        "a name is taken at an update too",
        registry.update_connection(renamed.clone(), 1).await,
        ErrorKind::Conflict,
    )?;
    check("a refused update changes nothing", registry.connection("conn_b").await, Some(b.clone()))?;
    let archived = ConnectionRecord { archived: true, status: ConnectionStatus::Archived, ..a.clone() };
    let archived = ok("archive", registry.update_connection(archived, a.revision).await)?;
    check("an archived one is not found by name", registry.connection("A").await, None)?;
    check("but by id", registry.connection("conn_a").await, Some(archived.clone()))?;
    let again = ConnectionRecord { archived: false, name: "C".to_owned(), ..archived.clone() };
    check_kind(
        "an archived one does not change",
        registry.update_connection(again, archived.revision).await,
        ErrorKind::Conflict,
    )?;
    let b = ok("an archived one frees its name", registry.update_connection(renamed, b.revision).await)?;
    check("and another has it", registry.connection("A").await, Some(b.clone()))?;
    check("archived ones are not listed", listed(registry, &live()).await, vec![b])?;
    check("unless asked for", listed(registry, &with_status("ARCHIVED")).await, vec![archived])
}

/// Archived connections do not count: a name that is used and given up again and again stays usable.
async fn there_is_a_limit(registry: &impl Registry) -> Outcome {
    let id = |i: usize| format!("conn_{i:04}");
    for i in 0..CONNECTIONS_MAX {
        let record = ok("insert", registry.insert_connection(connection(&id(i), "A", 1)).await)?;
        let archived = ConnectionRecord { archived: true, status: ConnectionStatus::Archived, ..record };
        ok("archive", registry.update_connection(archived, 1).await)?;
    }
    for i in CONNECTIONS_MAX..2 * CONNECTIONS_MAX {
        ok("there is room", registry.check_new_connection(&id(i)).await)?;
        ok("there is room", registry.insert_connection(connection(&id(i), &id(i), 1)).await)?;
    }
    check_kind("there is no room", registry.check_new_connection("B").await, ErrorKind::Conflict)?;
    let one_more = registry.insert_connection(connection("conn_b", "B", 1)).await;
    check_kind("a connection too many", one_more, ErrorKind::Conflict)?;
    for i in 0..SYNCS_PER_BUCKET_MAX {
        ok("a bucket has room", registry.check_new_sync("ns", "bkt").await)?;
        ok("a bucket has room", registry.insert_sync(sync(&format!("sync_{i:04}"), "bkt", "conn_a", 1)?).await)?;
    }
    check_kind("a bucket has no room", registry.check_new_sync("ns", "bkt").await, ErrorKind::Conflict)?;
    let one_more = registry.insert_sync(sync("sync_b", "bkt", "conn_a", 1)?).await;
    check_kind("a sync too many", one_more, ErrorKind::Conflict)?;
    ok("another bucket has room", registry.insert_sync(sync("sync_b", "bkt_2", "conn_a", 1)?).await).map(|_| ())
}

async fn updates_compare_and_swap(registry: &impl Registry) -> Outcome {
    check_kind(
        "no connection to update",
        registry.update_connection(connection("conn_a", "A", 1), 1).await,
        ErrorKind::NotFound,
    )?;
    check_kind(
        "no sync to update",
        registry.update_sync(sync("sync_a", "b", "conn_a", 1)?, 1).await,
        ErrorKind::NotFound,
    )?;
    let a = ok("insert", registry.insert_connection(connection("conn_a", "A", 1)).await)?;
    let changed = ConnectionRecord { description: None, ..a.clone() };
    let second = ok("update", registry.update_connection(changed.clone(), 1).await)?;
    check("an update counts", Ok(second.revision), 2)?;
    check_kind("the first revision is gone", registry.update_connection(a, 1).await, ErrorKind::StateConflict)?;
    check("the loser wrote nothing", registry.connection("conn_a").await, Some(second))?;
    let s = ok("insert", registry.insert_sync(sync("sync_a", "b", "conn_a", 1)?).await)?;
    let changed = SyncRecord { is_active: false, ..s.clone() };
    let second = ok("update", registry.update_sync(changed, 1).await)?;
    check("an update counts", Ok(second.revision), 2)?;
    check_kind("the first revision is gone", registry.update_sync(s, 1).await, ErrorKind::StateConflict)?;
    check("the loser wrote nothing", registry.sync("sync_a").await, Some(second))
}

async fn syncs_are_kept(registry: &impl Registry) -> Outcome {
    check("a sync that is not there is none", registry.sync("sync_a").await, None)?;
    check("nor with its connection", registry.sync_and_connection("sync_a").await, None)?;
    let a = ok("insert", registry.insert_sync(sync("sync_a", "bkt_1", "conn_a", 10)?).await)?;
    check(
        "insert answers revision 1",
        Ok(a.clone()),
        SyncRecord { revision: 1, ..sync("sync_a", "bkt_1", "conn_a", 10)? },
    )?;
    check("found", registry.sync("sync_a").await, Some(a.clone()))?;
    check("without a connection", registry.sync_and_connection("sync_a").await, Some((a.clone(), None)))?;
    let connection = ok("insert", registry.insert_connection(connection("conn_a", "A", 1)).await)?;
    check("and with one", registry.sync_and_connection("sync_a").await, Some((a.clone(), Some(connection))))?;
    check_kind(
        "an id exists once",
        registry.insert_sync(sync("sync_a", "bkt_2", "conn_a", 1)?).await,
        ErrorKind::Conflict,
    )?;
    let b = ok("insert", registry.insert_sync(sync("sync_b", "bkt_1", "conn_b", 20)?).await)?;
    let c = ok("insert", registry.insert_sync(sync("sync_c", "bkt_2", "conn_a", 10)?).await)?;
    let of = |namespace: &str, bucket: &str| all(bucket_of(namespace, bucket, None));
    let both = vec![b.clone(), a.clone()];
    check("those of a bucket, newest first", listed_syncs(registry, &of("ns", "bkt_1")).await, both)?;
    check("buckets belong to a namespace", listed_syncs(registry, &of("other", "bkt_1")).await, Vec::new())?;
    let by_connection = all(bucket_of("ns", "bkt_1", Some("conn_a")));
    check("those of a bucket and a connection", listed_syncs(registry, &by_connection).await, vec![a.clone()])?;
    let of_connection = all(SyncsOf::Connection { connection_id: "conn_a".to_owned() });
    check("those of a connection", listed_syncs(registry, &of_connection).await, vec![c.clone(), a.clone()])?;
    let of_namespace = |namespace: &str, connection: Option<&str>| {
        let (namespace_id, connection_id) = (namespace.to_owned(), connection.map(str::to_owned));
        all(SyncsOf::Namespace { namespace_id, connection_id })
    };
    let cron =
        CronSchedule::new("0 3 * * *", "Europe/Berlin", Timestamp::from_millis(30)).map_err(|it| it.to_string())?;
    let (namespace_id, cron) = ("other".to_owned(), Some(cron));
    let d = SyncRecord { namespace_id, cron, ..sync("sync_d", "bkt_1", "conn_a", 30)? };
    let d = ok("insert", registry.insert_sync(d).await)?;
    let every = vec![b.clone(), c.clone(), a.clone()];
    check("those of all buckets of a namespace", listed_syncs(registry, &of_namespace("ns", None)).await, every)?;
    check("and of another", listed_syncs(registry, &of_namespace("other", None)).await, vec![d])?;
    let through_a = of_namespace("ns", Some("conn_a"));
    check("and of a connection", listed_syncs(registry, &through_a).await, vec![c.clone(), a.clone()])?;
    let second = SyncQuery { section: Section { offset: 1, ..Section::first(1) }, ..of_namespace("ns", None) };
    let page = registry.syncs(&second).await.map(|page| (page.total, page.more, page.rows.len()));
    check("in sections", page, (3, true, 1))?;
    check("delete", registry.delete_sync("sync_d").await, true)?;
    let paused = ok("pause", registry.update_sync(SyncRecord { is_active: false, ..a.clone() }, 1).await)?;
    let active = |wanted| SyncQuery { is_active: Some(wanted), ..of_connection.clone() };
    check("those that are not paused", listed_syncs(registry, &active(true)).await, vec![c])?;
    check("and those that are", listed_syncs(registry, &active(false)).await, vec![paused.clone()])?;
    for query in [through_a, of_namespace("ns", None), of("ns", "bkt_1")] {
        let query = SyncQuery { is_active: Some(false), ..query };
        check("in a namespace and a bucket too", listed_syncs(registry, &query).await, vec![paused.clone()])?;
    }
    check("delete says that there was one", registry.delete_sync("sync_b").await, true)?;
    check("and that there was none", registry.delete_sync("sync_b").await, false)?;
    check("deleted", registry.sync("sync_b").await, None)
}

async fn lists_have_sections(registry: &impl Registry) -> Outcome {
    let (names, times) = (["a", "b", "c", "d", "e"], [3, 1, 2, 3, 1]);
    for (name, at) in names.iter().zip(times) {
        let record = ConnectionRecord { is_active: *name != "c", ..connection(&format!("conn_{name}"), name, at) };
        ok("insert", registry.insert_connection(record).await)?;
        ok("insert", registry.insert_sync(sync(&format!("sync_{name}"), "bkt", "conn_a", at)?).await)?;
    }
    let (mut seen, mut seen_syncs, mut after, mut after_sync) = (Vec::new(), Vec::new(), None, None);
    for (offset, limit, total, more) in [(0, 2, 5, true), (1, 1, 5, true), (0, 2, 5, false)] {
        let section = Section { after: after.clone(), offset, limit };
        let page = ok("list", registry.connections(&ConnectionQuery { section, ..live() }).await)?;
        check("all are counted, and whether more follow is said", Ok((page.total, page.more)), (total, more))?;
        after = page.rows.last().map(|row| (row.created_at, row.connection_id.clone()));
        seen.extend(page.rows.into_iter().map(|row| row.name));
        let section = Section { after: after_sync.clone(), offset, limit };
        let query = SyncQuery { section, ..all(bucket_of("ns", "bkt", None)) };
        let page = ok("list", registry.syncs(&query).await)?;
        check("of syncs as well", Ok((page.total, page.more)), (total, more))?;
        after_sync = page.rows.last().map(|row| (row.created_at, row.sync_id.clone()));
        seen_syncs.extend(page.rows.into_iter().map(|row| row.sync_id));
    }
    check("sections follow each other, with one passed over", Ok(seen), ids(&["d", "a", "e", "b"]))?;
    check("of syncs as well", Ok(seen_syncs), ids(&["sync_d", "sync_a", "sync_e", "sync_b"]))?;
    let query = ConnectionQuery { is_active: Some(false), section: Section::first(1), ..live() };
    let page = ok("list", registry.connections(&query).await)?;
    check("only what matches is counted", Ok((page.total, page.more)), (1, false))?;
    let query = ConnectionQuery { provider_type: Some("other".to_owned()), ..with_status("ACTIVE") };
    check("of a provider", listed(registry, &query).await, Vec::new())?;
    let query = ConnectionQuery { provider_type: Some("backblaze".to_owned()), ..with_status("ACTIVE") };
    check("with a status", registry.connections(&query).await.map(|page| page.total), 5)
}

/// A record that cannot be read is one of a newer version, here: that is what every registry can be given.
async fn what_cannot_be_read_hides_nothing(registry: &impl Registry) -> Outcome {
    let newer = ConnectionRecord { v: RECORD_VERSION + 1, ..connection("conn_b", "B", 2) };
    let newer_sync = SyncRecord { v: RECORD_VERSION + 1, ..sync("sync_b", "bkt", "conn_b", 2)? };
    let mut deep = serde_json::json!(1);
    for _ in 0..100 {
        deep = serde_json::json!([deep]);
    }
    let deep = ConnectionRecord {
        metadata: [("deep".to_owned(), deep)].into_iter().collect(),
        ..connection("conn_c", "C", 3)
    };
    let a = ok("insert", registry.insert_connection(connection("conn_a", "A", 1)).await)?;
    let deep = ok("insert", registry.insert_connection(deep).await)?;
    ok("insert", registry.insert_connection(newer).await)?;
    let page = ok("list", registry.connections(&live()).await)?;
    let read = |row: &ConnectionRow| (row.connection_id.clone(), row.name.clone(), row.read().ok());
    let names = |id: &str, name: &str| (id.to_owned(), name.to_owned());
    let wanted = [(names("conn_c", "C"), Some(deep)), (names("conn_b", "B"), None), (names("conn_a", "A"), Some(a))];
    let wanted: Vec<_> = wanted.into_iter().map(|((id, name), record)| (id, name, record)).collect();
    check("a list has all connections", Ok(page.rows.iter().map(read).collect()), wanted)?;
    check_kind("one alone says why", registry.connection("B").await, ErrorKind::StateCorrupt)?;
    let again = registry.insert_connection(connection("conn_d", "B", 4)).await;
    check_kind("its name stays taken", again, ErrorKind::Conflict)?;
    check("it can be removed", registry.delete_connection("conn_b").await, true)?;
    check("once", registry.delete_connection("conn_b").await, false)?;
    ok("its name is free", registry.insert_connection(connection("conn_d", "B", 4)).await)?;

    let a = ok("insert", registry.insert_sync(sync("sync_a", "bkt", "conn_a", 1)?).await)?;
    ok("insert", registry.insert_sync(newer_sync).await)?;
    let page = ok("list", registry.syncs(&all(bucket_of("ns", "bkt", None))).await)?;
    let read: Vec<_> = page.rows.iter().map(|row| (row.sync_id.clone(), row.read().ok())).collect();
    let wanted = vec![("sync_b".to_owned(), None), ("sync_a".to_owned(), Some(a))];
    check("a list has all syncs", Ok(read), wanted)?;
    check_kind("one alone says why", registry.sync("sync_b").await, ErrorKind::StateCorrupt)?;
    let due = registry.due(Timestamp::from_millis(9), 9).await.map(|due| due.len());
    check("it is due like others", due, 2)?;
    check("it can be removed", registry.delete_sync("sync_b").await, true)
}

async fn archived_connections_are_purged(registry: &impl Registry) -> Outcome {
    let at = Timestamp::from_millis;
    for (name, archived_at) in [("a", Some(10)), ("b", Some(20)), ("c", Some(21)), ("d", None), ("e", Some(10))] {
        let record = ok("insert", registry.insert_connection(connection(&format!("conn_{name}"), name, 1)).await)?;
        if let Some(archived_at) = archived_at {
            let status = ConnectionStatus::Archived;
            let archived = ConnectionRecord { archived: true, status, updated_at: at(archived_at), ..record };
            ok("archive", registry.update_connection(archived, 1).await)?;
        }
    }
    let paused = SyncRecord { is_active: false, ..sync("sync_e", "bkt", "conn_e", 1)? };
    ok("insert", registry.insert_sync(paused).await)?;
    check("none was archived so early", registry.purge(at(9), 9).await, 0)?;
    check("no more than asked for", registry.purge(at(20), 1).await, 1)?;
    check("those archived until then", registry.purge(at(20), 9).await, 1)?;
    check("and no others", registry.purge(at(20), 9).await, 0)?;
    let archived = registry.connections(&with_status("ARCHIVED")).await;
    let archived = archived.map(|page| page.rows.into_iter().map(|row| row.connection_id).collect());
    check("a later one stays, and one that a sync names", archived, ids(&["conn_e", "conn_c"]))?;
    check("gone", registry.connection("conn_a").await, None)?;
    check("one that is not archived stays", registry.connections(&live()).await.map(|page| page.total), 1)?;
    ok("delete", registry.delete_sync("sync_e").await)?;
    check("a sync that is gone keeps none", registry.purge(at(100), 9).await, 2)
}

async fn a_claim_is_kept_for_a_day(registry: &impl Registry) -> Outcome {
    let claim = |key: &str, id: &str, at: i64| Claim {
        key: key.to_owned(),
        fingerprint: format!("of {id}"),
        id: id.to_owned(),
        at: Timestamp::from_millis(at),
    };
    let failed = claim("POST /ü", "sync_a", 1_000);
    check("the first is kept", registry.claim(failed.clone()).await, failed.clone())?;
    let first = Claim { fingerprint: "of sync_b".to_owned(), ..failed };
    let changed = registry.claim(claim("POST /ü", "sync_b", 2_000)).await;
    check("while it has created nothing, it may be changed, and keeps its id", changed, first.clone())?;
    ok("insert", registry.insert_sync(sync("sync_a", "bkt", "conn_a", 1)?).await)?;
    check("and answered to a later one", registry.claim(claim("POST /ü", "sync_c", 2_000)).await, first.clone())?;
    let other = claim("POST /other", "sync_b", CLAIM_MS);
    check("another key is another claim", registry.claim(other.clone()).await, other)?;
    check("after a day less a moment", registry.claim(claim("POST /ü", "sync_c", CLAIM_MS + 1_000)).await, first)?;
    let fresh = claim("POST /ü", "sync_c", CLAIM_MS + 1_001);
    check("after a day it is forgotten", registry.claim(fresh.clone()).await, fresh)?;
    check("a sync that is not there", registry.delete_sync("sync_c").await, false)?;
    let again = claim("POST /ü", "sync_d", CLAIM_MS + 1_002);
    check("no claim outlives its sync", registry.claim(again.clone()).await, again)
}

/// The connections that are not archived.
fn live() -> ConnectionQuery {
    ConnectionQuery { provider_type: None, status: None, is_active: None, section: Section::first(9) }
}

fn with_status(status: &str) -> ConnectionQuery {
    ConnectionQuery { status: Some(status.to_owned()), ..live() }
}

fn bucket_of(namespace_id: &str, bucket_id: &str, connection_id: Option<&str>) -> SyncsOf {
    let (namespace_id, bucket_id) = (namespace_id.to_owned(), bucket_id.to_owned());
    SyncsOf::Bucket { namespace_id, bucket_id, connection_id: connection_id.map(str::to_owned) }
}

fn all(of: SyncsOf) -> SyncQuery {
    SyncQuery { of, is_active: None, section: Section::first(9) }
}

async fn listed(registry: &impl Registry, query: &ConnectionQuery) -> Result<Vec<ConnectionRecord>, Error> {
    registry.connections(query).await?.rows.iter().map(ConnectionRow::read).collect()
}

async fn listed_syncs(registry: &impl Registry, query: &SyncQuery) -> Result<Vec<SyncRecord>, Error> {
    registry.syncs(query).await?.rows.iter().map(SyncRow::read).collect()
}

async fn syncs_are_due(registry: &impl Registry) -> Outcome {
    let at = Timestamp::from_millis;
    for (sync_id, created_at) in [("sync_a", 30), ("sync_b", 10), ("sync_c", 20), ("sync_d", 20)] {
        ok("insert", registry.insert_sync(sync(sync_id, "bkt", "conn_a", created_at)?).await)?;
    }
    let due = async |at, limit| {
        registry.due(at, limit).await.map(|due| due.into_iter().map(|due| due.sync_id).collect::<Vec<_>>())
    };
    check("a new sync is due when it was created, not before", due(at(9), 10).await, ids(&[]))?;
    let since = registry.due(at(30), 2).await.map(|due| due.into_iter().map(|due| due.since).collect());
    check("since when", since, vec![at(10), at(20)])?;
    check("longest overdue first, then by id", due(at(30), 10).await, ids(&["sync_b", "sync_c", "sync_d", "sync_a"]))?;
    check("no more than asked for", due(at(30), 2).await, ids(&["sync_b", "sync_c"]))?;
    ok("never", registry.set_poke_after("sync_b", None).await)?;
    ok("later", registry.set_poke_after("sync_c", Some(at(100))).await)?;
    check("those that remain", due(at(99), 10).await, ids(&["sync_d", "sync_a"]))?;
    check("and later", due(at(100), 10).await, ids(&["sync_d", "sync_a", "sync_c"]))?;
    let record = ok("read", registry.sync("sync_c").await)?.ok_or("a sync that was inserted is gone")?;
    check("poking is no write of the record", Ok(record.revision), 1)?;
    ok("update", registry.update_sync(record, 1).await)?;
    check("and a write is no poking", due(at(99), 10).await, ids(&["sync_d", "sync_a"]))?;
    let poked = DueSync { since: at(30), sync_id: "sync_a".to_owned() };
    let earlier = DueSync { since: at(29), ..poked.clone() };
    let gone = DueSync { since: at(20), sync_id: "sync_none".to_owned() };
    let next = |due: &DueSync, next: Option<i64>| Poked { due: due.clone(), next: next.map(at) };
    ok("poked, and said otherwise since", registry.poked(&[next(&earlier, Some(500))]).await)?;
    check("that is left as it is", due(at(99), 10).await, ids(&["sync_d", "sync_a"]))?;
    ok("poked", registry.poked(&[next(&gone, Some(1)), next(&poked, Some(40)), next(&earlier, None)]).await)?;
    check("due again", due(at(39), 10).await, ids(&["sync_d"]))?;
    ok("poked again", registry.poked(&[next(&DueSync { since: at(40), ..poked.clone() }, None)]).await)?;
    check("and never again", due(at(1_000), 10).await, ids(&["sync_d", "sync_c"]))?;
    ok("poked, and never due", registry.poked(&[next(&poked, Some(1))]).await)?;
    ok("made due", registry.set_poke_after("sync_a", Some(at(30))).await)?;
    ok("delete", registry.delete_sync("sync_d").await)?;
    check("a deleted sync is not due", due(at(99), 10).await, ids(&["sync_a"]))?;
    let gone = DueSync { since: at(20), sync_id: "sync_d".to_owned() };
    ok("that it was poked is no error", registry.poked(&[next(&gone, Some(1))]).await)?;
    check_kind("nor can it be made so", registry.set_poke_after("sync_d", Some(at(1))).await, ErrorKind::NotFound)
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

fn ok<T>(rule: &str, result: Result<T, Error>) -> Result<T, String> {
    result.map_err(|error| format!("{rule}: {error}"))
}
