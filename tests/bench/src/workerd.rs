//! The deployed Worker in workerd: how fast it delivers into its catalogue, and what a poll costs it.

use std::fs;
use std::time::{Duration, Instant};

use b2sync_poll_path::listing::Encoding;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, text};
use serde_json::json;

use crate::clients::{APPLICATION_KEY, KEY_ID};
use crate::report::{Bar, Report};
use crate::server::{ListingServer, bucket};
use crate::{Options, Result};

const CATALOGUE_CHANGES_PER_S_MIN: f64 = 10_000.0;
/// How long a job may take.
const JOB_LIMIT: Duration = Duration::from_secs(300);
/// What the kernel counts a process's time in, a second. Linux shows user programs this one on every machine.
const TICKS_PER_S: f64 = 100.0;

pub(crate) fn run(report: &mut Report, options: &Options) {
    let (keys, polls) = if options.quick { (50_000, 3) } else { (100_000, 10) };
    report.section(
        "In workerd",
        "The Worker as it is deployed, through its API: a first sync that delivers every key into the catalogue, and\n\
         polls of the same bucket with nothing changed. A job's seconds are from its trigger to its end, with all that\n\
         the service does around it.",
    );
    if let Err(why) = options.tool("worker") {
        for name in ["catalogue_changes_per_s", "cpu_s_per_million_keys/b2sync_workerd"] {
            report.not_run(name, &why);
        }
        return;
    }
    let server = match ListingServer::start() {
        Ok(server) => server,
        Err(error) => return report.failed("catalogue_changes_per_s", error),
    };
    server.warm(keys, &[Encoding::Url]);
    let mut synced = match Synced::first(&server, keys) {
        Ok(synced) => synced,
        Err(error) => return report.failed("catalogue_changes_per_s", error),
    };
    let bar = Bar::AtLeast(CATALOGUE_CHANGES_PER_S_MIN);
    report.figure("catalogue_changes_per_s", keys as f64 / synced.first_s, "changes/s", bar);
    match synced.polls(keys, polls) {
        Ok((cpu_s, wall_s)) => {
            match cpu_s {
                Some(cpu_s) => report.figure("cpu_s_per_million_keys/b2sync_workerd", cpu_s, "s", Bar::None),
                None => report.not_run("cpu_s_per_million_keys/b2sync_workerd", "there is no /proc on this system"),
            }
            report.figure("wall_s_per_million_keys/b2sync_workerd", wall_s, "s", Bar::None);
        }
        Err(error) => report.failed("cpu_s_per_million_keys/b2sync_workerd", error),
    }
}

struct Synced {
    service: Service,
    sync: SyncRef,
    first_s: f64,
}

impl Synced {
    fn first(server: &ListingServer, keys: u64) -> Result<Self> {
        let config = ServiceConfig { real_b2: Some(server.url().to_owned()), ..ServiceConfig::default() };
        let service = Service::start(config)?;
        let connection = service.create_connection("bench", KEY_ID, APPLICATION_KEY)?;
        let body = json!({
            "connection_id": text(&connection, "connection_id")?,
            "source_path": format!("b2://{}", bucket(keys)),
            "sync_mode": "continuous",
            "polling_interval_seconds": 86_400,
        });
        let sync = SyncRef::of(&service.create_sync("bkt_bench", &body)?)?;
        let mut synced = Self { service, sync, first_s: 0.0 };
        synced.first_s = synced.job((keys, 0, 0))?;
        Ok(synced)
    }

    /// Runs a job to its end; its seconds.
    fn job(&self, expected: (u64, u64, u64)) -> Result<f64> {
        let started = Instant::now();
        let job = self.service.run_job(&self.sync, JOB_LIMIT)?;
        let seconds = started.elapsed().as_secs_f64();
        if job["status"] != "completed" || changes(&job) != expected {
            return Err(format!("a job was to deliver {expected:?}: {job}").into());
        }
        Ok(seconds)
    }

    /// CPU and wall seconds per million keys of so many polls.
    fn polls(&mut self, keys: u64, polls: u32) -> Result<(Option<f64>, f64)> {
        let process = self.service.workerd().process_id();
        let cpu = || process.and_then(cpu_s);
        // One that is not measured: the first one compiles what the first sync did not need.
        self.job((0, 0, 0))?;
        let before = cpu();
        let mut wall_s = 0.0;
        for _ in 0..polls {
            wall_s += self.job((0, 0, 0))?;
        }
        let millions = keys as f64 * f64::from(polls) / 1e6;
        Ok((before.zip(cpu()).map(|(before, after)| (after - before) / millions), wall_s / millions))
    }
}

/// User and system time of a running process, in seconds.
fn cpu_s(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything, in parentheses: state, …, utime (12th), stime (13th).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|field| field.parse::<f64>().ok());
    Some((times.next()? + times.next()?) / TICKS_PER_S)
}
