//! The cron's tick in workerd: how long it takes to poke the coordinators of many syncs that are due in the same
//! minute, as after alarms were lost.
//!
//! The syncs are put into the registry, and no coordinator knows them yet: each poke wakes a Durable Object, which
//! reads the registry, plans its next poll and stores that. No poll is due, so B2 is not asked.

use std::time::Instant;

use b2sync_core::error_wire::ErrorWire;
use b2sync_core::time::Timestamp;
use b2sync_service::conformance::registry::sync;
use b2sync_service::registry::{DueSync, RegistryCall};
use b2sync_tests::service::{Service, ServiceConfig, now_ms};
use serde::de::DeserializeOwned;

use crate::report::{Bar, Report};
use crate::workerd::cpu_s;
use crate::{Options, Result};

/// What this group measures.
pub(crate) const FIGURES: [&str; 3] = ["cron_pokes_per_s", "cron_cpu_ms_per_poke", "cron_syncs_left"];

/// Enough for 10,000 syncs in the minute in which they are due.
const POKES_PER_S_MIN: f64 = 10_000.0 / 60.0;
/// Syncs of one target bucket.
const BUCKET_SYNCS: usize = 500;

pub(crate) fn run(report: &mut Report, options: &Options) {
    // One workerd keeps four files open for each coordinator that was busy in the last 10 seconds, and a process may
    // have some 20,000: enough for 500 pokes a second.
    let syncs = if options.quick { 1_000 } else { 10_000 };
    report.section(
        "The cron's tick",
        &format!(
            "{syncs} syncs that are due in the same minute, and whose coordinators are not running: the tick pokes\n\
             each of them. CPU time is that of the whole process of workerd: tick, registry and coordinators."
        ),
    );
    if let Err(why) = options.tool("worker") {
        for name in FIGURES {
            report.not_run(name, &why);
        }
        return;
    }
    if let Err(error) = measure(report, syncs) {
        report.failed(FIGURES[0], error);
    }
}

fn measure(report: &mut Report, syncs: usize) -> Result<()> {
    let mut service = Service::start(ServiceConfig::default())?;
    let now = Timestamp::from_millis(now_ms());
    for i in 0..syncs {
        let record =
            sync(&format!("sync_{i:020}"), &format!("bkt_{}", i / BUCKET_SYNCS), "conn_bench", now.as_millis())?;
        ask::<serde::de::IgnoredAny>(&mut service, &RegistryCall::InsertSync { record: Box::new(record) })?;
    }
    let process = service.workerd().process_id();
    let cpu = || process.and_then(cpu_s);
    let (before, started) = (cpu(), Instant::now());
    service.cron(now.as_millis())?;
    let wall_s = started.elapsed().as_secs_f64();
    let bar = Bar::AtLeast(POKES_PER_S_MIN);
    report.figure("cron_pokes_per_s", syncs as f64 / wall_s, "pokes/s", bar);
    match before.zip(cpu()) {
        Some((before, after)) => {
            report.figure("cron_cpu_ms_per_poke", (after - before) * 1e3 / syncs as f64, "ms", Bar::None);
        }
        None => report.not_run("cron_cpu_ms_per_poke", "there is no /proc on this system"),
    }
    let left: Vec<DueSync> = ask(&mut service, &RegistryCall::Due { at: now.plus_millis(60_000), limit: syncs })?;
    report.figure("cron_syncs_left", left.len() as f64, "syncs", Bar::AtMost(0.0));
    Ok(())
}

fn ask<T: DeserializeOwned>(service: &mut Service, call: &RegistryCall) -> Result<T> {
    let text = service.workerd().object("REGISTRY", "registry", &serde_json::to_string(call)?)?;
    let answer: Result<T, ErrorWire> = serde_json::from_str(&text)?;
    Ok(answer.map_err(b2sync_core::error::Error::from)?)
}
