//! The catalogue in memory: what is applied once, how pages follow each other, and calls as JSON.

use pollster::block_on;

use super::*;

struct At(i64);
impl Clock for At {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
    async fn sleep(&self, _: u64) {}
}

fn target(sync_id: &str) -> CatalogueTarget {
    CatalogueTarget {
        bucket_id: "bkt".into(),
        sync_id: sync_id.into(),
        connection_id: "conn_a".into(),
        source_bucket: "media".into(),
    }
}

/// The change with the id `chg_7` has the position 7.
fn change(kind: ChangeKind, id: &str, key: &str) -> Change {
    let at = Timestamp::from_millis(5);
    let entry = Entry { key: key.into(), etag: id.into(), size: 1, last_modified: at };
    let position = id.trim_start_matches("chg_").parse().unwrap();
    Change { position, id: id.into(), kind, entry, previous: None, again: false, found_at: at, job_id: "job_1".into() }
}

fn query() -> ObjectQuery {
    ObjectQuery {
        namespace_id: "ns".into(),
        bucket_id: "bkt".into(),
        limit: 10,
        offset: 0,
        cursor: None,
        prefix: None,
        include_total: true,
    }
}

fn deliver(catalogue: &MemoryCatalogue, sync_id: &str, at: i64, changes: &[Change]) {
    let answers = block_on(catalogue.sink("ns", target(sync_id), At(at)).deliver(changes)).unwrap();
    assert_eq!(answers, vec![Delivery::Delivered; changes.len()]);
}

#[test]
fn a_change_that_comes_twice_is_one_change() {
    let catalogue = MemoryCatalogue::new();
    deliver(&catalogue, "sync_a", 10, &[change(ChangeKind::Created, "chg_1", "k")]);
    deliver(&catalogue, "sync_a", 20, &[change(ChangeKind::Created, "chg_1", "k")]);
    let id = ids::object_id("sync_a", "k");
    let object = block_on(catalogue.get("ns", "bkt", &id)).unwrap().unwrap();
    assert_eq!((object.version, object.updated_at), (1, Timestamp::from_millis(10)));

    deliver(&catalogue, "sync_a", 30, &[change(ChangeKind::Updated, "chg_2", "k")]);
    let object = block_on(catalogue.get("ns", "bkt", &id)).unwrap().unwrap();
    assert_eq!((object.version, object.etag.as_str()), (2, "chg_2"));
    assert_eq!((object.created_at, object.updated_at), (Timestamp::from_millis(10), Timestamp::from_millis(30)));

    let deletion = change(ChangeKind::Deleted, "chg_3", "k");
    deliver(&catalogue, "sync_a", 40, &[deletion.clone(), deletion]);
    assert_eq!(block_on(catalogue.get("ns", "bkt", &id)).unwrap(), None);
}

#[test]
fn what_is_replayed_is_not_applied_again() {
    let catalogue = MemoryCatalogue::new();
    let all = [
        change(ChangeKind::Created, "chg_1", "k"),
        change(ChangeKind::Created, "chg_2", "gone"),
        change(ChangeKind::Deleted, "chg_3", "gone"),
        change(ChangeKind::Updated, "chg_4", "k"),
    ];
    let page = |catalogue: &MemoryCatalogue| block_on(catalogue.list(&query())).unwrap();
    deliver(&catalogue, "sync_a", 10, &all);
    let once = page(&catalogue);
    assert_eq!((once.objects.len(), once.objects[0].version), (1, 2));
    // From the beginning, from the middle, and what was delivered alone, as a letter that was sent back is.
    for again in [&all[..], &all[1..3], &all[..1], &all[3..]] {
        deliver(&catalogue, "sync_a", 20, again);
        assert_eq!(page(&catalogue), once, "{again:?}");
    }
    // A batch that is partly behind the position: only the rest of it counts.
    let next = [all[3].clone(), change(ChangeKind::Updated, "chg_5", "k")];
    deliver(&catalogue, "sync_a", 30, &next);
    assert_eq!(page(&catalogue).objects[0].version, 3);
    // Each sync has a position of its own. Of one that was removed, a delivery that comes late is passed over.
    deliver(&catalogue, "sync_b", 40, &all[..1]);
    assert_eq!(page(&catalogue).objects.len(), 2);
    block_on(catalogue.drop_sync("ns", "bkt", "sync_a")).unwrap();
    deliver(&catalogue, "sync_a", 50, &all);
    deliver(&catalogue, "sync_a", 60, &[change(ChangeKind::Created, "chg_6", "new")]);
    assert_eq!(page(&catalogue).objects.len(), 1);
}

#[test]
fn pages_follow_each_other_without_gap_or_repetition() {
    let catalogue = MemoryCatalogue::new();
    let changes: Vec<_> =
        (0..7).map(|i| change(ChangeKind::Created, &format!("chg_{}", i + 1), &format!("k{i}"))).collect();
    deliver(&catalogue, "sync_a", 10, &changes);
    deliver(&catalogue, "sync_b", 10, &changes); // the same keys, other objects
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = block_on(catalogue.list(&ObjectQuery { limit: 3, cursor, ..query() })).unwrap();
        assert_eq!(page.total, Some(14));
        seen.extend(page.objects.into_iter().map(|object| (object.key, object.object_id)));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 14);
    assert!(seen.is_sorted());
    let page = block_on(catalogue.list(&ObjectQuery { prefix: Some("k3".into()), ..query() })).unwrap();
    assert_eq!((page.objects.len(), page.total, page.next), (2, Some(2), None));
    let page = block_on(catalogue.list(&ObjectQuery { offset: 13, ..query() })).unwrap();
    assert_eq!(page.objects.len(), 1);
}

#[test]
fn buckets_and_namespaces_do_not_see_each_other() {
    let catalogue = MemoryCatalogue::new();
    deliver(&catalogue, "sync_a", 10, &[change(ChangeKind::Created, "chg_1", "k")]);
    let other = ObjectQuery { namespace_id: "other".into(), ..query() };
    assert!(block_on(catalogue.list(&other)).unwrap().objects.is_empty());
    assert_eq!(block_on(catalogue.drop_sync("other", "bkt", "sync_a")).unwrap(), 0);
    assert_eq!(block_on(catalogue.drop_sync("ns", "bkt", "sync_a")).unwrap(), 1);
    assert!(block_on(catalogue.list(&query())).unwrap().objects.is_empty());
}

#[test]
fn calls_and_answers_cross_as_json() {
    let catalogue = MemoryCatalogue::new();
    deliver(&catalogue, "sync_a", 10, &[change(ChangeKind::Created, "chg_1", "k")]);
    let calls = [
        CatalogueCall::Apply(CatalogueApply {
            bucket_id: "bkt".into(),
            sync_id: "sync_a".into(),
            connection_id: "conn_a".into(),
            source_bucket: "media".into(),
            at: Timestamp::from_millis(1),
            changes: vec![ChangeWire::from(&change(ChangeKind::Updated, "chg_2", "k"))],
        }),
        CatalogueCall::Get { object_id: ids::object_id("sync_a", "k") },
        CatalogueCall::Get { object_id: "obj_none".into() },
        CatalogueCall::List { query: query() },
        CatalogueCall::Count { sync_id: None },
        CatalogueCall::Remove { object_id: "obj_none".into() },
        CatalogueCall::ClearSync { sync_id: "sync_a".into() },
        CatalogueCall::DropSync { sync_id: "sync_a".into() },
    ];
    for call in calls {
        let json = serde_json::to_string(&call).unwrap();
        assert_eq!(serde_json::from_str::<CatalogueCall>(&json).unwrap(), call);
        let answer = catalogue.call("ns", "bkt", call).unwrap();
        let json = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<CatalogueAnswer>(&json).unwrap(), answer);
    }
}

#[test]
fn an_answer_that_does_not_fit_is_no_delivery() {
    let error = deliveries(CatalogueAnswer::Applied { refusals: vec![None] }, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Sink);
    assert!(error.is_transient());
    assert!(deliveries(CatalogueAnswer::Count { count: 2 }, 2).is_err());
    let refused = deliveries(CatalogueAnswer::Applied { refusals: vec![None, Some("no".into())] }, 2).unwrap();
    assert_eq!(refused, vec![Delivery::Delivered, Delivery::Refused("no".into())]);
}
