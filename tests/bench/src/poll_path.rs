//! The whole poll path in memory, natively on one core and as WebAssembly in V8, beside other readers of the pages.

use std::hint::black_box;
use std::process::Command;

use b2sync_core::b2::list::parse_list_page;
use b2sync_core::filter::FilterSpec;
use b2sync_poll_path::path::{PollBench, filters};
use instant_xml::FromXml;
use quick_xml::events::Event;
use rusty_s3::actions::ListObjectsV2;
use serde::Deserialize;

use crate::report::{Bar, Report};
use crate::timer::Timer;
use crate::{Options, Result};

/// What this group measures.
pub(crate) const FIGURES: [&str; 5] = [
    "poll_path_native_keys_per_s",
    "poll_path_native_all_match_keys_per_s",
    "poll_path_v8_keys_per_s",
    "rusty_s3_parse_keys_per_s",
    "page_us",
];

/// Pages that are cycled through: several segments, and more than the inner caches hold.
const PAGES: u32 = 40;
const NATIVE_KEYS_PER_S_MIN: f64 = 6e6;
const V8_KEYS_PER_S_MIN: f64 = 3e6;

/// Tags that an entry has. The head of a page has some more.
const TAGS_A_KEY: usize = 12;

const V8_SCRIPT: &str = include_str!("poll_path_v8.mjs");

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SerdePage {
    #[expect(dead_code, reason = "it is read, which is what is measured")]
    is_truncated: bool,
    contents: Vec<SerdeEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
#[expect(dead_code, reason = "they are read, which is what is measured")]
struct SerdeEntry {
    key: String,
    last_modified: String,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
}

#[derive(FromXml)]
#[xml(rename = "ListBucketResult", ns("http://s3.amazonaws.com/doc/2006-03-01/"))]
struct InstantPage {
    contents: Vec<InstantEntry>,
}

#[derive(FromXml)]
#[xml(rename = "Contents", ns("http://s3.amazonaws.com/doc/2006-03-01/"))]
#[expect(dead_code, reason = "they are read, which is what is measured")]
struct InstantEntry {
    #[xml(rename = "Key")]
    key: String,
    #[xml(rename = "LastModified")]
    last_modified: String,
    #[xml(rename = "ETag")]
    etag: String,
    #[xml(rename = "Size")]
    size: u64,
}

/// Reads a page, and answers how many entries it saw.
type Reader = fn(&str) -> usize;

const READERS: [(&str, Reader); 6] = [
    ("parse_list_page", |page| parse_list_page(page.as_bytes()).map_or(0, |page| black_box(page).entries.len())),
    ("rusty_s3", |page| ListObjectsV2::parse_response(page).map_or(0, |page| black_box(page).contents.len())),
    ("instant_xml", |page| instant_xml::from_str::<InstantPage>(page).map_or(0, |page| black_box(page).contents.len())),
    ("quick_xml_serde", |page| {
        quick_xml::de::from_str::<SerdePage>(page).map_or(0, |page| black_box(page).contents.len())
    }),
    ("quick_xml_events", quick_xml_events),
    ("memchr_scan", |page| (memchr::memchr_iter(b'<', page.as_bytes()).count() / TAGS_A_KEY).min(1_000)),
];

pub(crate) fn run(report: &mut Report, options: &Options) {
    report.section(
        "The poll path",
        "Pages of 1,000 keys, in memory, nothing changed since the last poll. One core, CPU time, medians;\n\
         `page_us` is the time that a page takes. All keys are read and filtered; those that pass are hashed and\n\
         compared. `all_match` is a poll without filters. Lines with `time:` are criterion's: the mean of a page,\n\
         between the bounds of 95 % confidence. An iteration is all pages.",
    );
    let prepared = || -> Result<(PollBench, PollBench, Timer)> {
        let bench = PollBench::prepare(PAGES, &filters())?;
        let timer = Timer::new(options, bench.pages().len())?;
        Ok((bench, PollBench::prepare(PAGES, &FilterSpec::default())?, timer))
    };
    let (bench, all_match, mut timer) = match prepared() {
        Ok(prepared) => prepared,
        Err(error) => return report.failed("poll_path_native_keys_per_s", error),
    };
    let pages = bench.pages();
    let bytes: usize = pages.iter().map(String::len).sum();
    let keys = f64::from(PAGES) * 1_000.0;
    report.note(&format!(
        "  A page has {:.1} KB. Of its keys {:.0} % pass the filters, which are the README's.",
        bytes as f64 / 1e3 / pages.len() as f64,
        bench.matched() as f64 * 100.0 / keys,
    ));

    // All of them first: criterion prints lines of its own, and the table stands below those in one piece.
    let natives = [
        ("poll_path_native", &bench, Bar::AtLeast(NATIVE_KEYS_PER_S_MIN)),
        ("poll_path_native_all_match", &all_match, Bar::None),
    ]
    .map(|(name, bench, bar)| {
        (name, bar, timer.page_us(name, || bench.poll().is_ok_and(|polled| polled as f64 == keys)))
    });
    let readers = READERS
        .map(|(name, read)| (name, timer.page_us(name, || pages.iter().all(|page| read(black_box(page)) == 1_000))));

    for (name, bar, measured) in natives {
        match measured {
            Ok(page_us) => {
                report.figure(format!("{name}_keys_per_s"), 1e9 / page_us, "keys/s", bar);
                report.figure(format!("page_us/{name}"), page_us, "us", Bar::None);
            }
            Err(error) => report.failed(format!("{name}_keys_per_s"), error),
        }
    }
    show_v8(report, options);
    for (name, measured) in readers {
        match measured {
            Ok(page_us) => {
                if name == "rusty_s3" {
                    report.figure("rusty_s3_parse_keys_per_s", 1e9 / page_us, "keys/s", Bar::None);
                }
                report.figure(format!("page_us/{name}"), page_us, "us", Bar::None);
            }
            Err(error) => report.failed(format!("page_us/{name}"), error),
        }
    }
}

fn show_v8(report: &mut Report, options: &Options) {
    match options.tool("wasm").and_then(|wasm| options.tool("node").map(|node| (node, wasm))) {
        Err(why) => report.not_run("poll_path_v8_keys_per_s", why),
        Ok((node, wasm)) => match in_v8(node, wasm, options.quick) {
            Ok(keys_per_s) => {
                report.figure("poll_path_v8_keys_per_s", keys_per_s, "keys/s", Bar::AtLeast(V8_KEYS_PER_S_MIN));
                report.figure("page_us/poll_path_v8", 1e9 / keys_per_s, "us", Bar::None);
            }
            Err(error) => report.failed("poll_path_v8_keys_per_s", error),
        },
    }
}

/// Reads every event and looks at nothing but the names.
fn quick_xml_events(page: &str) -> usize {
    let mut reader = quick_xml::Reader::from_str(page);
    let mut entries = 0;
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => entries += usize::from(start.local_name().as_ref() == "Contents"),
            Ok(Event::Eof) => return entries,
            Ok(event) => drop(black_box(event)),
            Err(_) => return 0,
        }
    }
}

/// The middle one; 0 of none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Keys a second in the V8 of Node.
fn in_v8(node: &std::path::Path, wasm: &std::path::Path, quick: bool) -> Result<f64> {
    let (samples, sample_ms) = if quick { (5, 100) } else { (15, 300) };
    let output = Command::new(node)
        .args(["--input-type=module", "-e", V8_SCRIPT])
        .arg(wasm)
        .args([PAGES, samples, sample_ms].map(|number| number.to_string()))
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned().into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}
