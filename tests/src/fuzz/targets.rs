//! The decoders, and what must hold for each on any bytes.

mod documents;
mod filter;
mod listing;
mod pieces;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use b2sync_core::b2::list::{ListPage, parse_list_page, parse_list_page_by_events, scan_list_page};
use b2sync_core::change::{Change, ChangeKind, Found, Previous, change_id};
use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::feed::batch::{self, BATCH_CHANGES_MAX};
use b2sync_core::filter::{
    Filter, FilterSpec, ITEM_BYTES_MAX, LIST_ITEMS_MAX, SeenRecord, Verdict, WILDCARD_PATTERNS_BYTES_MAX,
};
use b2sync_core::job::{ErrorRecord, JobCost, JobCounts, JobRecord, JobStatus, Phase, Trigger};
use b2sync_core::snapshot::codec::{
    DecodeError, KEY_BYTES_MAX, KEYS_BYTES_MAX, LEAF_KEYS_BYTES_MAX, LIST_KEYS_BYTES_MAX,
};
use b2sync_core::snapshot::cut::{Begins, LEAF_SEGMENTS_MAX, SEGMENT_ENTRIES_MAX};
use b2sync_core::snapshot::index::{Level, SegmentRef};
use b2sync_core::snapshot::names::BlobName;
use b2sync_core::snapshot::{ContentHash, Known, index, packed, segment};
use b2sync_core::source_path::{PREFIX_BYTES_MAX, SourcePath};
use b2sync_core::state::document::{self, Checkpoint, KnownPart, NameList, Resync, Root, RootJob, SnapshotDocument};
use b2sync_core::state::feed::{BatchRef, Feed, ListRef, decode_list, encode_list};
use b2sync_core::time::Timestamp;
use b2sync_core::warning::{Warning, WarningCode};
use b2sync_core::{
    b2::account::{Account, parse_authorize},
    state::embedded,
};
use b2sync_service::coordinator::protocol::SyncStatus;
use b2sync_service::coordinator::{self, document_read_and_written};
use b2sync_service::documents::Stored;
use b2sync_service::sinks::SinkRecord;
use b2sync_service::sinks::dead_letters::DEAD_LETTERS_MAX;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Meter, Outcome, Target, refused, taken};

pub use self::filter::heaviest_filter_bytes;
use self::{documents::*, filter::*, listing::*, pieces::*};

/// What any decoder may take besides: error messages and the like.
const BASE_BYTES: usize = 64 << 10;

/// All of them.
pub static TARGETS: [Target; 13] = [
    Target {
        name: "list-xml",
        about: "a page of a listing, as B2 sends it",
        seeds: list_seeds,
        odd: list_odd,
        words: &[
            b"<Contents>",
            b"</Contents>",
            b"<Contents/>",
            b"<Key>",
            b"</Key>",
            b"<Key/>",
            b"<ETag>",
            b"</ETag>",
            b"<Size>",
            b"</Size>",
            b"<LastModified>",
            b"</LastModified>",
            b"<CommonPrefixes>",
            b"</CommonPrefixes>",
            b"<Prefix>",
            b"</Prefix>",
            b"<IsTruncated>",
            b"</IsTruncated>",
            b"<NextContinuationToken>",
            b"<EncodingType>url</EncodingType>",
            b"<![CDATA[",
            b"]]>",
            b"<!--",
            b"-->",
            b"<?x ?>",
            b"<!DOCTYPE x>",
            b"&amp;",
            b"&quot;",
            b"&#0;",
            b"&#x10FFFF;",
            b"&#13;",
            b"\r\n",
            b"%2B",
            b"%",
            b"+",
            b"\"",
            b" xmlns:a=\"b\"",
            b"<a:",
            b"<",
            b"/>",
            b"2024-01-01T00:00:00.000Z",
            b"9999-12-31T23:59:59-23:59",
        ],
        input_bytes_max: 16 << 10,
        check: list_xml,
    },
    Target {
        name: "authorize",
        about: "B2's answer to b2_authorize_account",
        seeds: authorize_seeds,
        odd: Vec::new,
        words: &[
            b"null",
            b"[]",
            b"{}",
            b"\"\"",
            b"\"allowed\":",
            b"\"buckets\":",
            b"\"name\":",
            b"\"namePrefix\":",
            b"\"capabilities\":",
            b"\"bucketName\":",
            b"\"s3ApiUrl\":",
            b"https://s3.us-west-004.backblazeb2.com",
            b"http://[::1]:1/",
            b"\\u0000",
            b"\\ud800",
            b"1e999",
            b"[[",
        ],
        input_bytes_max: 8 << 10,
        check: authorize,
    },
    Target {
        name: "source-path",
        about: "a source path, as a user writes it",
        seeds: || {
            ["b2://my-videos/2024/", "S3://a.b.c", "my-videos/a?b=c/d", "my-videos/日本/ //+%20#"].map(bytes).to_vec()
        },
        odd: || ["", "gs://my-videos/", "b2://My_Videos/"].map(bytes).to_vec(),
        words: &[
            b"b2://",
            b"s3://",
            b"gs://",
            b"://",
            b"/",
            b"..",
            b"?a=b",
            b"#",
            b" ",
            b"\n",
            "é".as_bytes(),
            b"\x7f",
        ],
        input_bytes_max: 2 << 10,
        check: source_path,
    },
    Target {
        name: "filter",
        about: "the filters of a sync, one a line: + include, - exclude, . extension, m MIME type, k a key",
        seeds: filter_seeds,
        odd: filter_odd,
        words: &[
            b"\n+",
            b"\n-",
            b"\n.",
            b"\nm",
            b"\nk",
            b"**",
            b"**/",
            b"/**",
            b"{a,b}",
            b"{,}",
            b"{",
            b"}",
            b"[!a-z]",
            b"[",
            b"]",
            b"\\",
            b"?",
            b"*",
            b"/",
            b",",
            "[é]".as_bytes(),
            b"image/*",
            b"*/*",
            b"{a,{b,{c,d}}}",
            b"./",
        ],
        input_bytes_max: 8 << 10,
        check: filter,
    },
    Target {
        name: "segment",
        about: "a stored segment",
        seeds: || {
            entry_lists().iter().map(|entries| encode_known(&known(entries))).chain([bomb(b'S', 8, 100)]).collect()
        },
        odd: || vec![bomb(b'S', 8, TOO_MANY)],
        words: &[b"b2S\x01", b"b2S\x02", b"b2I\x01"],
        input_bytes_max: 32 << 10,
        check: segment_bytes,
    },
    Target {
        name: "packed",
        about: "a segment as it is stored: deflated",
        seeds: packed_seeds,
        odd: packed_odd,
        words: &[b"b2P\x01", b"b2P\x02", b"b2S\x01"],
        input_bytes_max: 8 << 10,
        check: packed_bytes,
    },
    Target {
        name: "entries",
        about: "the entries of a checkpoint's open segment",
        seeds: || {
            entry_lists().iter().map(|entries| segment::encode_entries(entries)).chain([bomb(b'E', 1, 100)]).collect()
        },
        odd: || vec![bomb(b'E', 1, TOO_MANY)],
        words: &[b"b2E\x01", b"b2E\x02", b"b2S\x01"],
        input_bytes_max: 32 << 10,
        check: entries_bytes,
    },
    Target {
        name: "index",
        about: "a stored index",
        seeds: || {
            let lists = [(Level::Leaf, 0), (Level::Leaf, 1), (Level::Leaf, 3), (Level::Top, 2), (Level::Top, 100)];
            let nodes = lists.map(|(level, count)| index::encode(level, &segment_refs(count)));
            nodes.into_iter().chain([bomb(b'I', 32, LEAF_SEGMENTS_MAX as u64)]).collect()
        },
        odd: || vec![bomb(b'I', 32, LEAF_SEGMENTS_MAX as u64 + 1), bomb(b'I', 32, TOO_MANY)],
        words: &[b"b2I\x01", b"b2I\x02", b"b2S\x01", b"b2I\x01\x00\x00", b"b2I\x01\x01"],
        input_bytes_max: 32 << 10,
        check: index_bytes,
    },
    Target {
        name: "batch",
        about: "a batch of the feed",
        seeds: || entry_lists().iter().map(|entries| batch_of(&found(entries))).chain([bomb_of_changes()]).collect(),
        odd: Vec::new,
        words: &[b"b2F\x01", b"b2F\x02", b"b2S\x01", b"\x01", b"\x02", b"\x03", b"\x04", b"\x11", b"\x05job_1"],
        input_bytes_max: 32 << 10,
        check: batch_bytes,
    },
    Target {
        name: "batches",
        about: "a list of batches of the feed",
        seeds: || [0, 1, 3, 100].map(|count| encode_list(&batch_refs(count))).to_vec(),
        odd: Vec::new,
        words: &[b"b2L\x01", b"b2L\x02", b"b2F\x01", b"\x00", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"],
        input_bytes_max: 32 << 10,
        check: batches_bytes,
    },
    Target {
        name: "checkpoint",
        about: "the stored document of root and checkpoint, and the pieces in it",
        seeds: checkpoint_seeds,
        odd: || {
            let wrong_piece = full_document(&["looked_into"]);
            [r#"{"v":1,"root":{}}"#, "{}", "", &String::from_utf8_lossy(&wrong_piece)].map(bytes).to_vec()
        },
        words: &[
            b"null",
            b"{}",
            b"[]",
            b"\"v\":1",
            b"\"v\":2",
            b"\"root\":",
            b"\"checkpoint\":",
            b"\"retired\":[",
            b"\"counts\":{",
            b"\"order\":\"utf16\"",
            b"\"feed\":{\"next\":2,\"lists\":[{\"blob\":\"",
            b"\"segments\":\"",
            b"YjJTAQ",
            b"YjJFAQ",
            b"YjJJAQ",
            b"YjJMAQ",
            b"////",
            b"AAAA",
            b"\"\",\"\",",
            b"18446744073709551615",
            b"\\u0000",
            b"\\ud800",
            b"[[",
        ],
        input_bytes_max: 16 << 10,
        check: checkpoint,
    },
    Target {
        name: "coordinator",
        about: "the stored document of a sync's coordinator",
        seeds: coordinator_seeds,
        odd: || [r#"{"v":2,"sync_id":""}"#, "{}", ""].map(bytes).to_vec(),
        words: &[
            b"null",
            b"{}",
            b"[]",
            b"\"v\":1",
            b"\"v\":2",
            b"\"jobs\":[",
            b"\"unpublished\":[",
            b"\"status\":{",
            b"\"lease\":{\"holder\":\"\",\"until\":1}",
            b"\"error\":{",
            b"\"running\"",
            b"18446744073709551615",
            b"-9223372036854775808",
            b"\\ud800",
            b"[[",
        ],
        input_bytes_max: 16 << 10,
        check: coordinator_document,
    },
    Target {
        name: "sink",
        about: "the stored document of a sink, with its dead letters",
        seeds: sink_seeds,
        odd: || [r#"{"v":2}"#, "{}", ""].map(bytes).to_vec(),
        words: &[
            b"null",
            b"{}",
            b"[]",
            b"\"v\":1",
            b"\"v\":2",
            b"\"cursor\":1",
            b"\"state\":\"disabled\"",
            b"\"dead_letters\":[",
            b"\"kind\":\"deleted\"",
            b"\"requeued\":true",
            b"18446744073709551615",
            b"-9223372036854775808",
            b"\\ud800",
            b"[[",
        ],
        input_bytes_max: 16 << 10,
        check: sink_document,
    },
];

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// `decoded` came from foreign bytes and was encoded by us: decoding that gives the same.
fn same<T: PartialEq + std::fmt::Debug, E: std::fmt::Display>(decoded: &T, again: Result<T, E>) -> Result<(), String> {
    match again {
        Ok(again) if again == *decoded => Ok(()),
        Ok(again) => Err(format!("what was decoded and encoded decodes differently: {decoded:?}, then {again:?}")),
        Err(error) => Err(format!("what was decoded and encoded does not decode: {error}, from {decoded:?}")),
    }
}

// --- the listing ---
