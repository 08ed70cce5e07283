//! Documents: JSON with pieces in it.

use super::*;

fn piece_of(wrong: &[&str], name: &str, right: Option<String>) -> Option<String> {
    if wrong.contains(&name) { Some(embedded::encode_bytes(b"b2X\x01\x00")) } else { right }
}

fn counts() -> JobCounts {
    JobCounts { listed: 1, matched: 2, created: 3, delivered_bytes: u64::MAX, ..JobCounts::default() }
}

fn names(folder: &str, count: u64) -> Vec<String> {
    (0..count).map(|n| format!("{folder}/{}", ContentHash::of(&n.to_le_bytes()))).collect()
}

fn part(wrong: &[&str], name: &str) -> KnownPart {
    let right = document::encode_known(&known(&entry_lists()[2])).unwrap_or_default();
    KnownPart { tail: piece_of(wrong, name, right.tail.clone()), ..right }
}

fn blob_part() -> KnownPart {
    KnownPart { first_key: "a".into(), count: 4_096, skip: 3, blob: names("scratch", 1).pop(), tail: None }
}

fn name_list() -> Option<String> {
    let names = names("segment", 3);
    document::encode_names(9, &names.iter().filter_map(|name| BlobName::parse(name)).collect::<Vec<_>>())
}

fn full_root(wrong: &[&str]) -> Root {
    Root {
        generation: 7,
        index: names("index", 1).pop(),
        entries: 12,
        bytes: 99,
        entries_listed: Some(11),
        order: KeyOrder::Utf8,
        undeleted: vec![part(wrong, "undeleted"), blob_part()],
        resync: Some(Resync { job_id: "job_0".into(), from: Some("b".into()) }),
        retired: NameList { blobs: names("scratch", 2), tail: piece_of(wrong, "retired", name_list()) },
        garbage: NameList { blobs: names("scratch", 1), tail: piece_of(wrong, "garbage", name_list()) },
        job: Some(RootJob {
            job_id: "job_1".into(),
            fingerprint: "f".into(),
            counts: counts(),
            objects_found: 3,
            known_before: 2,
            limited: true,
            deletions_held: 4,
            seen: SeenRecord::default(),
        }),
    }
}

fn full_checkpoint(wrong: &[&str]) -> Checkpoint {
    Checkpoint {
        job_id: "job_2".into(),
        listing_id: "job_1".into(),
        fingerprint: "f".into(),
        listed: true,
        limited: true,
        start_after: Some("a/b".into()),
        covered_to: Some("c".into()),
        pending_tail: piece_of(
            wrong,
            "pending_tail",
            Some(embedded::encode_bytes(&segment::encode_entries(&entry_lists()[2]))),
        ),
        pending: names("scratch", 1).pop(),
        pending_begins: Some(Begins::Segment),
        unfinished: true,
        leaves: names("scratch", 1),
        leaves_tail: piece_of(wrong, "leaves_tail", document::encode_node(Level::Top, &segment_refs(3))),
        segments: piece_of(wrong, "segments", document::encode_node(Level::Leaf, &segment_refs(2))),
        deletions: vec![blob_part(), part(wrong, "deletions")],
        undeleted: vec![blob_part()],
        resync: Some(Resync { job_id: "job_2".into(), from: None }),
        looked_into: NameList { blobs: names("scratch", 1), tail: piece_of(wrong, "looked_into", name_list()) },
        deletions_found: 8_212,
        deletions_done: 5,
        deletions_checked: 6,
        deletions_due: 7,
        deletions_appended: 1,
        objects_found: 8,
        seen: SeenRecord::default(),
        counts: counts(),
        order: KeyOrder::Utf16,
        scratch: names("scratch", 3),
    }
}

/// A document in the midst of a job, every field filled; those named hold a piece of another kind.
pub(super) fn full_document(wrong: &[&str]) -> Vec<u8> {
    let document = SnapshotDocument {
        root: full_root(wrong),
        checkpoint: Some(full_checkpoint(wrong)),
        feed: Feed {
            next: 12,
            lists: vec![ListRef { blob: "feed/x".into(), first: 1, next: 7, found_at: Timestamp::default() }],
            tail: piece_of(wrong, "tail", Some(embedded::encode_bytes(&encode_list(&batch_refs(1))))),
        },
        ..SnapshotDocument::default()
    };
    document.encode().unwrap_or_default()
}

pub(super) fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let default = SnapshotDocument::default().encode().unwrap_or_default();
    vec![default, full_document(&[]), bytes(r#"{"v":4,"root":{}}"#), bytes(r#"{"v":4,"root":{},"checkpoint":{}}"#)]
}

/// A piece that a document holds: it decodes, within memory, and is the same when it is encoded again.
pub(super) fn embedded<T: PartialEq + std::fmt::Debug>(
    meter: &Meter,
    text: &Option<String>,
    decode: impl Fn(Option<&str>) -> Result<T, DecodeError>,
    encode: impl Fn(&T) -> Option<String>,
) -> Result<Result<(), DecodeError>, String> {
    let length = text.as_ref().map_or(0, String::len);
    // The bytes themselves, and the longest of the pieces: an item of 5 bytes, seven characters.
    let bound = BASE_BYTES + length + (KEY_BYTES_MAX * (length / 6 + 1)).min(LIST_KEYS_BYTES_MAX) + 20 * length;
    match meter.measured(bound, || decode(text.as_deref()))? {
        Ok(decoded) => same(&decoded, decode(encode(&decoded).as_deref())).map(Ok),
        Err(error) => Ok(Err(error)),
    }
}

pub(super) fn checkpoint(input: &[u8], meter: &Meter) -> Outcome {
    // An empty text of three bytes, `"",`, becomes one of 24, in a list that may have doubled.
    let document = match meter.measured(BASE_BYTES + 64 * input.len(), || SnapshotDocument::decode(input))? {
        Ok(document) => document,
        Err(error) => return refused(error.message()),
    };
    let encoded = document.encode().map_err(|error| error.to_string())?;
    same(&document, SnapshotDocument::decode(&encoded))?;
    let encode_part = |it: &Vec<Known>| document::encode_known(it).and_then(|part| part.tail);
    let encode_names = |it: &Vec<BlobName>| document::encode_names(0, it);
    let batches = |text: Option<&str>| match text {
        Some(text) => decode_list(&embedded::decode_bytes(text)?),
        None => Ok(Vec::new()),
    };
    let encode_batches = |it: &Vec<BatchRef>| (!it.is_empty()).then(|| embedded::encode_bytes(&encode_list(it)));
    let mut pieces = vec![("feed", embedded(meter, &document.feed.tail, batches, encode_batches)?)];
    if let Some(checkpoint) = &document.checkpoint {
        let entries = |text: Option<&str>| match text {
            Some(text) => segment::decode_entries(&embedded::decode_bytes(text)?),
            None => Ok(Vec::new()),
        };
        let encode_entries =
            |it: &Vec<Entry>| (!it.is_empty()).then(|| embedded::encode_bytes(&segment::encode_entries(it)));
        let top = |it: &Vec<SegmentRef>| document::encode_node(Level::Top, it);
        pieces.extend([
            ("pending_tail", embedded(meter, &checkpoint.pending_tail, entries, encode_entries)?),
            ("leaves_tail", embedded(meter, &checkpoint.leaves_tail, document::decode_node, top)?),
            ("segments", embedded(meter, &checkpoint.segments, document::decode_node, top)?),
            ("looked_into", embedded(meter, &checkpoint.looked_into.tail, document::decode_names, encode_names)?),
        ]);
        for part in checkpoint.deletions.iter().chain(&checkpoint.undeleted) {
            pieces.push(("deletions", embedded(meter, &part.tail, document::decode_known, encode_part)?));
        }
    }
    let root = &document.root;
    for part in &root.undeleted {
        pieces.push(("undeleted", embedded(meter, &part.tail, document::decode_known, encode_part)?));
    }
    for (name, list) in [("retired", &root.retired), ("garbage", &root.garbage)] {
        pieces.push((name, embedded(meter, &list.tail, document::decode_names, encode_names)?));
    }
    match pieces.into_iter().find_map(|(name, piece)| piece.err().map(|error| (name, error))) {
        Some((name, error)) => refused(format!("{name}: {error}")),
        None => taken(if document.checkpoint.is_some() { "a checkpoint" } else { "a root" }),
    }
}

pub(super) fn job(job_id: &str, status: JobStatus) -> JobRecord {
    let at = Timestamp::from_millis(1_704_067_200_000);
    JobRecord {
        job_id: job_id.to_owned(),
        sync_id: "sync_1".to_owned(),
        trigger: Trigger::Manual,
        status,
        phase: Phase::Delivering,
        created_at: at,
        started_at: Some(at),
        updated_at: at,
        completed_at: Some(at),
        counts: JobCounts { listed: 5, created: 1, ..JobCounts::default() },
        cost: JobCost { class_c: 2, steps: 1, ..JobCost::default() },
        known_before: 4,
        error: Some(ErrorRecord { kind: "sink".into(), message: "No. \"x\"".into(), transient: true }),
        warnings: vec![Warning { code: WarningCode::NoFiles, message: "No. \"x\"".into(), advice: "Look.".into() }],
        limited: true,
        continued: true,
        list_interval_ms: 3_000,
        deletions_held: 4,
        held_keys: vec!["k".to_owned()],
    }
}

pub(super) fn coordinator_seeds() -> Vec<Vec<u8>> {
    let at = Timestamp::from_millis(1_704_067_200_000);
    let ended = job("job_1", JobStatus::Failed);
    let status = SyncStatus {
        current_job: Some(job("job_2", JobStatus::Running)),
        last_job: Some(ended.clone()),
        runs: 2,
        last_sync_at: Some(at),
        next_sync_at: Some(at),
        last_error: ended.error.clone(),
        completed_cost: Some(ended.cost),
        ..SyncStatus::default()
    };
    let full = serde_json::json!({
        "v": coordinator::VERSION, "sync_id": "sync_1", "status": status, "jobs": [ended], "unpublished": [ended],
        "lease": {"holder": "i_1", "until": at, "step": u64::MAX}, "step_failures": 1, "step_not_before": at,
        "confirm_deletes": true, "resync": true, "forgotten": true,
        "pumps": {"up_to": 3, "due_at": at, "sink_ids": ["catalogue"]},
    });
    let bookmark = serde_json::json!({
        "v": coordinator::VERSION, "sync_id": "sync_1",
        "bookmark": {"listing_id": "job_2", "generation": 3, "leaves": 9, "covered_to": "k", "start_after": "j"},
    });
    vec![bytes(&full.to_string()), bytes(&bookmark.to_string()), bytes(r#"{"v":1,"sync_id":"sync_1"}"#)]
}

pub(super) fn coordinator_document(input: &[u8], meter: &Meter) -> Outcome {
    // A job takes some 500 bytes, in a list that may have doubled, and at least half as many to be written.
    let written = match meter.measured(BASE_BYTES + 64 * input.len(), || document_read_and_written(input))? {
        Ok(written) => written,
        Err(error) => return refused(error.message()),
    };
    same(&written, document_read_and_written(&written))?;
    taken("a document")
}

pub(super) fn sink_seeds() -> Vec<Vec<u8>> {
    let mut full = SinkRecord { cursor: 9, taken: 8, ..SinkRecord::default() };
    let now = Timestamp::from_millis(1_704_067_200_000);
    let entries: Vec<Entry> = entry_lists().into_iter().flatten().collect();
    for (position, found) in (1..).zip(found(&entries)) {
        let change = found.at(position, change_id("sync_1", position), now, "job_1");
        let _ = full.dead_letters.refuse(&change, "no \"room\"", 3, now);
    }
    full.dead_letters.requeue(&[], now);
    [full, SinkRecord::default()].iter().filter_map(|it| Some(it.encode().ok()?.to_vec())).collect()
}

pub(super) fn sink_document(input: &[u8], meter: &Meter) -> Outcome {
    // A letter has some 350 bytes beside its texts, whose names alone take half as many when it is stored.
    let record = match meter.measured(BASE_BYTES + 48 * input.len(), || SinkRecord::decode(input))? {
        Ok(record) => record,
        Err(error) => return refused(error.message()),
    };
    let encoded = record.encode().map_err(|error| error.to_string())?;
    same(&record, SinkRecord::decode(&encoded))?;
    taken(match record.dead_letters.len() {
        0 => "no letters",
        1..=DEAD_LETTERS_MAX => "letters",
        _ => "too many letters",
    })
}
