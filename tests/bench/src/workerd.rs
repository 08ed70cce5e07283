//! The deployed Worker in workerd: how fast it delivers into its catalogue, what polls cost it, and what a step of the
//! free plan's budget does.
//!
//! CPU time is that of the whole process of workerd: of the runtime, the API, the registry and the catalogue as well.
//! So it is more than Cloudflare would count for a coordinator, never less.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use std::{fs, thread};

use b2sync_core::time::Timestamp;
use b2sync_poll_path::listing::Encoding;
use b2sync_tests::service::{Service, ServiceConfig, SyncRef, changes, number, text};
use serde_json::json;

use crate::clients::{APPLICATION_KEY, KEY_ID};
use crate::report::{Bar, Report};
use crate::server::{ListingServer, bucket};
use crate::{Options, Result};

/// What this group measures.
pub(crate) const FIGURES: [&str; 7] = [
    "feed_changes_per_s",
    "catalogue_changes_per_s",
    "cpu_s_per_million_keys/b2sync_workerd",
    "wall_s_per_million_keys/b2sync_workerd",
    "workerd_poll_cpu_ms_beside_keys",
    "workerd_poll_wall_ms_beside_keys",
    "workerd_free_step_cpu_ms",
];

const FEED_CHANGES_PER_S_MIN: f64 = 30_000.0;
const CATALOGUE_CHANGES_PER_S_MIN: f64 = 20_000.0;
const POLL_CPU_S_MAX: f64 = 0.8;
const POLL_CPU_MS_BESIDE_KEYS_MAX: f64 = 10.0;
/// How long a job may take.
const JOB_LIMIT: Duration = Duration::from_secs(300);
/// How often is looked whether a job has ended. Looking costs workerd CPU time, so it is seldom.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What the kernel counts a process's time in, a second. Linux shows user programs this one on every machine.
const TICKS_PER_S: f64 = 100.0;

/// Keys of the two buckets, and how often each is polled.
struct Plan {
    small: u64,
    large: u64,
    polls: u32,
}

pub(crate) fn run(report: &mut Report, options: &Options) {
    let plan = if options.quick {
        Plan { small: 10_000, large: 50_000, polls: 4 }
    } else {
        Plan { small: 20_000, large: 100_000, polls: 10 }
    };
    report.section(
        "In workerd",
        "The Worker as it is deployed, through its API, after a sync and a poll of a smaller bucket that are not\n\
         measured: by then what runs often is compiled. A first sync without sinks, which is a feed and nothing\n\
         else; one through the catalogue, until a look finds that it has taken every change (a look each 250 ms);\n\
         polls of two buckets with nothing changed: their difference is what keys cost, and the rest what a poll\n\
         costs beside its keys, the calls that start it and look at it included. The seconds of a poll and of a\n\
         sync without sinks are the job's own, from its trigger to its end. CPU time is that of the whole process,\n\
         so steps of the free plan's budget (one page each) took at most what is shown.",
    );
    if let Err(why) = options.tool("worker") {
        for name in FIGURES {
            report.not_run(name, &why);
        }
        return;
    }
    let server = match ListingServer::start() {
        Ok(server) => server,
        Err(error) => return report.failed(FIGURES[0], error),
    };
    server.warm(plan.small, &[Encoding::Url]);
    server.warm(plan.large, &[Encoding::Url]);
    deployed(report, &server, &plan);
    match free_steps(&server, &plan) {
        Ok((first, poll)) => {
            for (name, step_ms) in [("first_sync", first), ("poll", poll)] {
                cpu_figure(report, &format!("workerd_free_step_cpu_ms/{name}"), step_ms, "ms", Bar::None);
            }
        }
        Err(error) => report.failed("workerd_free_step_cpu_ms", error),
    }
}

/// With the budget that is deployed.
fn deployed(report: &mut Report, server: &ListingServer, plan: &Plan) {
    let synced = || -> Result<(Synced, f64, f64)> {
        let mut synced = Synced::start(server, None)?;
        synced.warm_up(plan.small)?;
        let feed = synced.feed_only(plan.large)?;
        let first = synced.first(plan.large)?;
        // V8 goes on compiling what a poll of this many keys runs often.
        synced.polls(plan.large, 2)?;
        Ok((synced, feed.wall_s, first.wall_s))
    };
    let synced = match synced() {
        Ok((synced, feed_s, first_s)) => {
            let bar = Bar::AtLeast(FEED_CHANGES_PER_S_MIN);
            report.figure("feed_changes_per_s", plan.large as f64 / feed_s, "changes/s", bar);
            let bar = Bar::AtLeast(CATALOGUE_CHANGES_PER_S_MIN);
            report.figure("catalogue_changes_per_s", plan.large as f64 / first_s, "changes/s", bar);
            synced
        }
        Err(error) => return report.failed("catalogue_changes_per_s", error),
    };
    let polls = || -> Result<(Spent, Spent)> {
        Ok((synced.polls(plan.small, plan.polls)?, synced.polls(plan.large, plan.polls)?))
    };
    let (small, large) = match polls() {
        Ok(polls) => polls,
        Err(error) => return report.failed("cpu_s_per_million_keys/b2sync_workerd", error),
    };
    let per_key = |small: f64, large: f64| (large - small) / (plan.large - plan.small) as f64;
    let beside = |small: f64, large: f64| small - per_key(small, large) * plan.small as f64;
    let cpu = small.cpu_s.zip(large.cpu_s);
    let cpu_of = |of: &dyn Fn(f64, f64) -> f64| cpu.map(|(small, large)| of(small, large));
    let bar = Bar::AtMost(POLL_CPU_S_MAX);
    cpu_figure(report, "cpu_s_per_million_keys/b2sync_workerd", cpu_of(&|s, l| per_key(s, l) * 1e6), "s", bar);
    let wall_s = per_key(small.wall_s, large.wall_s) * 1e6;
    report.figure("wall_s_per_million_keys/b2sync_workerd", wall_s, "s", Bar::None);
    let bar = Bar::AtMost(POLL_CPU_MS_BESIDE_KEYS_MAX);
    cpu_figure(report, "workerd_poll_cpu_ms_beside_keys", cpu_of(&|s, l| beside(s, l) * 1e3), "ms", bar);
    let wall_ms = beside(small.wall_s, large.wall_s) * 1e3;
    report.figure("workerd_poll_wall_ms_beside_keys", wall_ms, "ms", Bar::None);
}

/// CPU milliseconds a step with the budget of the free plan: of a first sync, and of polls.
fn free_steps(server: &ListingServer, plan: &Plan) -> Result<(Option<f64>, Option<f64>)> {
    let mut synced = Synced::start(server, Some("free"))?;
    synced.warm_up(plan.small)?;
    let step_ms = |spent: &Spent| spent.cpu_s.map(|cpu_s| cpu_s * 1e3 / spent.steps);
    let first = synced.first(plan.large)?;
    let poll = synced.polls(plan.large, 2)?;
    Ok((step_ms(&first), step_ms(&poll)))
}

fn cpu_figure(report: &mut Report, name: &str, value: Option<f64>, unit: &str, bar: Bar) {
    match value {
        Some(value) => report.figure(name, value, unit, bar),
        None => report.not_run(name, "there is no /proc on this system"),
    }
}

/// What a job took, or the mean of several.
#[derive(Clone, Copy, Debug)]
struct Spent {
    cpu_s: Option<f64>,
    wall_s: f64,
    steps: f64,
}

/// A service, and its syncs by the number of keys.
struct Synced {
    service: Service,
    process: Option<u32>,
    connection_id: String,
    syncs: BTreeMap<u64, SyncRef>,
}

impl Synced {
    fn start(server: &ListingServer, step_budget: Option<&str>) -> Result<Self> {
        let step_budget = step_budget.map(str::to_owned);
        let config = ServiceConfig { real_b2: Some(server.url().to_owned()), step_budget, ..ServiceConfig::default() };
        let mut service = Service::start(config)?;
        let process = service.workerd().process_id();
        let connection_id = text(&service.create_connection("bench", KEY_ID, APPLICATION_KEY)?, "connection_id")?;
        Ok(Self { service, process, connection_id, syncs: BTreeMap::new() })
    }

    /// Syncs and polls a bucket, so that what runs often is compiled.
    fn warm_up(&mut self, keys: u64) -> Result<()> {
        self.first(keys)?;
        self.polls(keys, 1)?;
        Ok(())
    }

    /// Syncs the bucket of this many keys for the first time, until the catalogue has taken all of it: that is seen up
    /// to [`LOOK_EVERY`] late.
    fn first(&mut self, keys: u64) -> Result<Spent> {
        let sync = self.create(keys, &format!("bkt_{keys}"), &json!(["catalogue"]))?;
        let started = Instant::now();
        let mut spent = self.job(&sync, (keys, 0, 0))?;
        // The job ends with the feed, and the catalogue may still take what is in it.
        while number(&self.service.sync(&sync)?, "/sinks/0/cursor") < keys {
            if started.elapsed() > JOB_LIMIT {
                return Err(format!("the catalogue is not up to date: {}", self.service.sync(&sync)?).into());
            }
            thread::sleep(LOOK_EVERY);
        }
        spent.wall_s = started.elapsed().as_secs_f64();
        self.syncs.insert(keys, sync);
        Ok(spent)
    }

    /// The same without sinks: every change goes into the feed, and nowhere else.
    fn feed_only(&self, keys: u64) -> Result<Spent> {
        let sync = self.create(keys, &format!("bkt_feed_{keys}"), &json!([]))?;
        self.job(&sync, (keys, 0, 0))
    }

    fn create(&self, keys: u64, target: &str, sinks: &serde_json::Value) -> Result<SyncRef> {
        let body = json!({
            "connection_id": self.connection_id,
            "source_path": format!("b2://{}", bucket(keys)),
            "sync_mode": "continuous",
            "polling_interval_seconds": 86_400,
            "sinks": sinks,
        });
        Ok(SyncRef::of(&self.service.create_sync(target, &body)?)?)
    }

    /// Polls it this often; the mean of a poll.
    fn polls(&self, keys: u64, polls: u32) -> Result<Spent> {
        let sync = self.syncs.get(&keys).ok_or("there is no such sync")?;
        let mut all = Vec::new();
        for _ in 0..polls {
            all.push(self.job(sync, (0, 0, 0))?);
        }
        let mean = |of: fn(&Spent) -> Option<f64>| {
            let sum: Option<f64> = all.iter().map(of).sum();
            sum.map(|sum| sum / f64::from(polls))
        };
        let or_none = |mean: Option<f64>| mean.unwrap_or(f64::NAN);
        Ok(Spent {
            cpu_s: mean(|spent| spent.cpu_s),
            wall_s: or_none(mean(|spent| Some(spent.wall_s))),
            steps: or_none(mean(|spent| Some(spent.steps))),
        })
    }

    /// Runs a job to its end.
    fn job(&self, sync: &SyncRef, expected: (u64, u64, u64)) -> Result<Spent> {
        let cpu = || self.process.and_then(cpu_s);
        let before = cpu();
        let answer = self.service.trigger(sync)?;
        let job_id = text(&answer, "sync_job_id")?;
        let deadline = Instant::now() + JOB_LIMIT;
        let job = loop {
            thread::sleep(LOOK_EVERY);
            let job = self.service.job(sync, &job_id)?;
            if job["status"] != "running" {
                break job;
            }
            if Instant::now() > deadline {
                return Err(format!("a job has not ended within {} s: {job}", JOB_LIMIT.as_secs()).into());
            }
        };
        if job["status"] != "completed" || changes(&job) != expected {
            return Err(format!("a job was to deliver {expected:?}: {job}").into());
        }
        let at = |field: &str| -> Result<Timestamp> {
            Timestamp::parse_rfc3339(&text(&job, field)?).map_err(|error| format!("{field}: {error}").into())
        };
        Ok(Spent {
            cpu_s: before.zip(cpu()).map(|(before, after)| after - before),
            wall_s: at("completed_at")?.millis_since(at("created_at")?) as f64 / 1e3,
            steps: number(&job, "/metadata/steps") as f64,
        })
    }
}

/// User and system time of a running process, in seconds.
pub(crate) fn cpu_s(process: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything, in parentheses: state, …, utime (12th), stime (13th).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|field| field.parse::<f64>().ok());
    Some((times.next()? + times.next()?) / TICKS_PER_S)
}
