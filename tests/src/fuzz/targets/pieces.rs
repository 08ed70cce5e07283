//! Pieces of snapshot and feed.

use super::*;

/// What a piece may take: its keys, each at most [`KEY_BYTES_MAX`] and all of them `keys_bytes_max`, and a multiple of
/// its own bytes, of which an item takes at least that many.
pub(super) fn piece_bound(input: &[u8], item_bytes_min: usize, keys_bytes_max: usize) -> usize {
    let keys_bytes = (KEY_BYTES_MAX * (input.len() / item_bytes_min + 1)).min(keys_bytes_max);
    BASE_BYTES + keys_bytes + 20 * input.len()
}

/// What decoding a segment may take, whatever its bytes are.
pub(super) fn segment_bound(input: &[u8]) -> usize {
    let entries = BASE_BYTES + KEYS_BYTES_MAX + size_of::<Known>() * SEGMENT_ENTRIES_MAX;
    piece_bound(input, 12, KEYS_BYTES_MAX).min(entries)
}

pub(super) fn entry_lists() -> Vec<Vec<Entry>> {
    let entry = |key: String, etag: &str, size, millis| Entry {
        key,
        etag: etag.to_owned(),
        size,
        last_modified: Timestamp::from_millis(millis),
    };
    let md5 = "d41d8cd98f00b204e9800998ecf8427e";
    vec![
        vec![],
        vec![entry("a/1.mp4".into(), md5, 0, 1_704_067_200_000)],
        (0..20).map(|n| entry(format!("videos/2024/{n:04}.mp4"), md5, n << 40, 1_704_067_200_000 + n as i64)).collect(),
        vec![
            entry("\u{e000}".into(), "", u64::MAX, i64::MIN),
            entry("🎬".into(), "x-1", 1, i64::MAX),
            entry("a".repeat(1_000), "é", 2, -1),
        ],
    ]
}

pub(super) fn known(entries: &[Entry]) -> Vec<Known> {
    entries.iter().map(Known::from).collect()
}

pub(super) fn encode_known(known: &[Known]) -> Vec<u8> {
    segment::encode(known.iter())
}

pub(super) fn segment_refs(count: u64) -> Vec<SegmentRef> {
    (0..count)
        .map(|n| SegmentRef {
            first_key: format!("videos/{n}"),
            hash: ContentHash::of(&n.to_le_bytes()),
            entries: n,
            bytes: u64::MAX - n,
        })
        .collect()
}

/// This many of the longest keys are more than any segment has.
pub(super) const TOO_MANY: u64 = (KEYS_BYTES_MAX / KEY_BYTES_MAX) as u64 + 1;

/// A long key, and items that repeat it whole, `count` in all: the most memory that few bytes can ask for. `fixed` is
/// how many bytes of an item follow its key before two numbers.
pub(super) fn bomb(kind: u8, fixed: usize, count: u64) -> Vec<u8> {
    let number = |value: u64| [(value & 0x7f) as u8 | 0x80, (value >> 7) as u8];
    let key_length = number(KEY_BYTES_MAX as u64);
    let mut bytes = vec![b'b', b'2', kind, 1];
    if kind == b'I' {
        bytes.push(0);
    }
    bytes.extend(number(count));
    let tail = vec![0; fixed + 2];
    bytes.extend([[0].as_slice(), &key_length, &vec![b'k'; KEY_BYTES_MAX], &tail].concat());
    for _ in 1..count {
        bytes.extend([&key_length, [0].as_slice(), &tail].concat());
    }
    bytes
}

/// The same of changes: deletions, whose 8 bytes of tag follow size and time.
pub(super) fn bomb_of_changes() -> Vec<u8> {
    let known = Known::from(&Entry {
        key: "k".repeat(KEY_BYTES_MAX),
        etag: "e".to_owned(),
        size: 0,
        last_modified: Timestamp::default(),
    });
    let mut builder = batch::Builder::default();
    while !builder.is_full() {
        builder.push(&Found::Vanished(known.clone()));
    }
    finish(builder)
}

pub(super) fn batch_of(found: &[Found]) -> Vec<u8> {
    let mut builder = batch::Builder::default();
    found.iter().for_each(|found| builder.push(found));
    finish(builder)
}

pub(super) fn finish(builder: batch::Builder) -> Vec<u8> {
    builder.finish(7, Timestamp::from_millis(1_704_067_200_000), "job_1")
}

pub(super) fn found(entries: &[Entry]) -> Vec<Found> {
    let previous = |entry: &Entry| Some(Previous::from(&Known::from(entry)));
    let change = |(n, entry): (usize, &Entry)| match n % 4 {
        0 => Found::Appeared { entry: entry.clone(), previous: None },
        1 => Found::Vanished(Known::from(entry)),
        2 => Found::Again(entry.clone()),
        _ => Found::Appeared { entry: entry.clone(), previous: previous(entry) },
    };
    entries.iter().enumerate().map(change).collect()
}

/// What a change is made of.
pub(super) fn found_again(change: &Change) -> Found {
    let entry = change.entry.clone();
    match (change.kind, change.previous) {
        (ChangeKind::Deleted, Some(Previous { tag, size, last_modified })) => {
            Found::Vanished(Known { key: entry.key, tag, size, last_modified })
        }
        _ if change.again => Found::Again(entry),
        (_, previous) => Found::Appeared { entry, previous },
    }
}

pub(super) fn batch_refs(count: u64) -> Vec<BatchRef> {
    let batch = |n: u64| BatchRef {
        hash: ContentHash::of(&n.to_le_bytes()),
        first: 1 + n * 5,
        count: 5,
        found_at: Timestamp::from_millis(1_704_067_200_000 + n as i64),
    };
    (0..count).map(batch).collect()
}

/// A piece decodes within `bound` bytes, and is the same when it is encoded again; `none` and `some` say what it holds.
pub(super) fn piece<T: PartialEq + std::fmt::Debug>(
    meter: &Meter,
    input: &[u8],
    bound: usize,
    decode: impl Fn(&[u8]) -> Result<T, DecodeError>,
    encode: impl Fn(&T) -> Vec<u8>,
    [none, some]: [&'static str; 2],
    is_empty: impl Fn(&T) -> bool,
) -> Outcome {
    let decoded = match meter.measured(bound, || decode(input))? {
        Ok(decoded) => decoded,
        Err(error) => return refused(error),
    };
    same(&decoded, decode(&encode(&decoded)))?;
    taken(if is_empty(&decoded) { none } else { some })
}

pub(super) fn batch_bytes(input: &[u8], meter: &Meter) -> Outcome {
    // A change has some 250 bytes beside its key and its ETag, and its own copy of the job's id.
    let bound = piece_bound(input, 6, KEYS_BYTES_MAX) + (BATCH_CHANGES_MAX.min(input.len() / 6) + 1) * 640;
    let decode = |input: &[u8]| batch::decode(input, "sync_1");
    let changes = match meter.measured(bound, || decode(input))? {
        Ok(changes) => changes,
        Err(error) => return refused(error),
    };
    let Some(first) = changes.first() else { return taken("no changes") };
    let mut builder = batch::Builder::default();
    for (nth, change) in changes.iter().enumerate() {
        if change.position != first.position + nth as u64 || change.id != change_id("sync_1", change.position) {
            return Err(format!("the change numbered {nth} has another place: {change:?}"));
        }
        builder.push(&found_again(change));
    }
    same(&changes, decode(&builder.finish(first.position, first.found_at, &first.job_id)))?;
    taken("changes")
}

pub(super) fn batches_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let encode = |list: &Vec<BatchRef>| encode_list(list);
    let bound = BASE_BYTES + 4 * input.len();
    piece(meter, input, bound, decode_list, encode, ["no batches", "batches"], Vec::is_empty)
}

pub(super) fn segment_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let encode = |entries: &Vec<Known>| encode_known(entries);
    piece(meter, input, segment_bound(input), segment::decode, encode, ["no entries", "entries"], Vec::is_empty)
}

pub(super) fn entries_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let bound = piece_bound(input, 5, KEYS_BYTES_MAX);
    let encode = |entries: &Vec<Entry>| segment::encode_entries(entries);
    piece(meter, input, bound, segment::decode_entries, encode, ["no entries", "entries"], Vec::is_empty)
}

pub(super) fn index_bytes(input: &[u8], meter: &Meter) -> Outcome {
    let top = input.get(4) == Some(&1);
    let keys_bytes_max = if top { LIST_KEYS_BYTES_MAX } else { LEAF_KEYS_BYTES_MAX };
    let bound = piece_bound(input, 36, keys_bytes_max);
    let encode = |(level, segments): &(Level, Vec<SegmentRef>)| index::encode(*level, segments);
    piece(meter, input, bound, index::decode, encode, ["no segments", "segments"], |(_, segments)| segments.is_empty())
}

pub(super) fn packed_seeds() -> Vec<Vec<u8>> {
    let many: Vec<Entry> = (0..1_000)
        .map(|n| Entry {
            key: format!("videos/2024/clip {n:04} of a thousand.mp4"),
            etag: format!("{:032x}", n * 0x1234_5678_9abc_u128),
            size: n as u64,
            last_modified: Timestamp::from_millis(1_704_067_200_000),
        })
        .collect();
    let plain = entry_lists().into_iter().chain([many]).map(|entries| encode_known(&known(&entries)));
    plain.chain([bomb(b'S', 8, 100)]).map(packed::pack).collect()
}

/// What unpacks to too much; what unpacks and is no segment; and one with keys that are too long together.
pub(super) fn packed_odd() -> Vec<Vec<u8>> {
    let zeros = |count: usize| packed::pack(vec![0; count]);
    vec![zeros(packed::PLAIN_BYTES_MAX + 1), zeros(packed::PLAIN_BYTES_MAX), packed::pack(bomb(b'S', 8, TOO_MANY))]
}

pub(super) fn packed_bytes(input: &[u8], meter: &Meter) -> Outcome {
    // DEFLATE makes at most 1,032 bytes of one; twice, because what has grown too small is copied.
    let bound = 2 * BASE_BYTES + (2 * 1_032 * input.len()).min(2 * packed::PLAIN_BYTES_MAX);
    let unpacked = match meter.measured(bound, || packed::unpack(input))? {
        Ok(unpacked) => unpacked,
        Err(error) => return refused(format!("packed: {error}")),
    };
    let how = if unpacked.is_some() { "deflated" } else { "as it is" };
    let plain = unpacked.unwrap_or_else(|| input.to_vec());
    if plain.len() > packed::PLAIN_BYTES_MAX && how == "deflated" {
        return Err(format!("it unpacks to {} bytes", plain.len()));
    }
    let entries = match meter.measured(segment_bound(&plain), || segment::decode(&plain))? {
        Ok(entries) => entries,
        Err(error) => return refused(format!("{how}: {error}")),
    };
    let stored = packed::pack(encode_known(&entries));
    let again = packed::unpack(&stored).and_then(|plain| segment::decode(plain.as_deref().unwrap_or(&stored)));
    same(&entries, again)?;
    taken(how)
}
