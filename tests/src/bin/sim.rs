//! `sim [--seeds N] [--from S] [--seed X] [--threads N] [--no-undo] [--no-dead-letters] [--survey]`: worlds of the
//! simulation, one a seed.
//!
//! `--seed X` runs one world, and tells what happens in it; otherwise N worlds from S on run on all cores, up to the
//! first that breaks a rule, or, with `--survey`, all of them. `--no-undo` and `--no-dead-letters` are [`Limits`].

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a command line tool.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use b2sync_tests::simulation::{Failure, Limits, Outcome, Plan, Rule, Tally, run, run_seed};

const USAGE: &str =
    "usage: sim [--seeds N] [--from S] [--seed X] [--threads N] [--no-undo] [--no-dead-letters] [--survey]";
/// How often progress is shown.
const PROGRESS: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Arguments {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    threads: usize,
    limits: Limits,
    /// Go on after a failure, and only name the seeds that fail.
    survey: bool,
}

fn parse_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut parsed = Arguments { seeds: 2_000, from: 0, seed: None, threads, limits: Limits::default(), survey: false };
    while let Some(name) = arguments.next() {
        let mut number = || {
            let value = arguments.next().ok_or_else(|| format!("{name} takes a value"))?;
            value.parse::<u64>().map_err(|_| format!("{value:?} is no value for {name}"))
        };
        match name.as_str() {
            "--seeds" => parsed.seeds = number()?,
            "--from" => parsed.from = number()?,
            "--seed" => parsed.seed = Some(number()?),
            "--threads" => parsed.threads = usize::try_from(number()?).unwrap_or(1).max(1),
            "--no-undo" => parsed.limits.no_undo = true,
            "--no-dead-letters" => parsed.limits.no_dead_letters = true,
            "--survey" => parsed.survey = true,
            _ => return Err(format!("there is no option {name:?}")),
        }
    }
    Ok(parsed)
}

fn shown(tally: &Tally) -> String {
    let counted = [
        (tally.worlds, "worlds"),
        (tally.events, "events"),
        (tally.turns, "turns"),
        (tally.jobs, "jobs"),
        (tally.limited, "of them limited"),
        (tally.stretched, "put off"),
        (tally.steps, "steps"),
        (tally.signals, "short of CPU time"),
        (tally.bookmarks, "from a bookmark"),
        (tally.held, "held"),
        (tally.requests, "requests"),
        (tally.shard_calls, "calls to shards"),
        (tally.troubles, "troubles of B2"),
        (tally.lifted, "suspensions lifted"),
        (tally.faults, "broken effects"),
        (tally.crashes, "crashes"),
        (tally.stale_reads, "stale reads"),
        (tally.appended, "changes appended"),
        (tally.dropped, "batches dropped"),
        (tally.changes, "changes delivered"),
        (tally.repeated, "of them repeated"),
        (tally.halves, "deliveries half taken"),
        (tally.sink_breaks, "broken by a sink"),
        (tally.too_slow, "too slow"),
        (tally.replays, "replays"),
        (tally.letters, "writes with dead letters"),
        (tally.virtual_ms / 3_600_000, "virtual hours"),
    ];
    counted.map(|(count, what)| format!("{count} {what}")).join(", ")
}

fn one(seed: u64, limits: Limits) -> ExitCode {
    if let Some(failure) = Failure::of(seed, limits) {
        println!("{failure}");
        return ExitCode::FAILURE;
    }
    let outcome = run(&Plan::of(seed, limits), true);
    for line in &outcome.trace {
        println!("{line}");
    }
    println!("Seed {seed} breaks no rule: {}.", shown(&outcome.tally));
    ExitCode::SUCCESS
}

fn many(arguments: &Arguments) -> ExitCode {
    let Arguments { seeds, from, threads, limits, survey, .. } = *arguments;
    println!("Simulation: seeds {from} to {}, {threads} threads.", from + seeds.saturating_sub(1));
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let running = AtomicU64::new(threads as u64);
    let total = Mutex::new(Tally::default());
    let failed: Mutex<Vec<(u64, Rule)>> = Mutex::default();
    let lock = |tally: &Tally| total.lock().unwrap_or_else(|error| error.into_inner()).add(tally);
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= seeds {
                break;
            }
            let Outcome { result, tally, .. } = run_seed(from + number, limits);
            lock(&tally);
            match result {
                Ok(()) => {}
                Err(violation) => {
                    failed.lock().unwrap_or_else(|error| error.into_inner()).push((from + number, violation.rule));
                    println!("seed {}: {violation}", from + number);
                    stop.store(!survey, Ordering::Relaxed);
                }
            }
        }
        running.fetch_sub(1, Ordering::Relaxed);
    };
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
        let mut last = Instant::now();
        while running.load(Ordering::Relaxed) > 0 {
            thread::sleep(Duration::from_millis(20));
            if last.elapsed() >= PROGRESS {
                last = Instant::now();
                let tally = *total.lock().unwrap_or_else(|error| error.into_inner());
                println!("{:>5.0} s: {}", started.elapsed().as_secs_f64(), shown(&tally));
            }
        }
    });
    let tally = *total.lock().unwrap_or_else(|error| error.into_inner());
    let seconds = started.elapsed().as_secs_f64();
    println!("{}; {seconds:.1} s, {:.0} worlds/s.", shown(&tally), tally.worlds as f64 / seconds);
    let mut failed = failed.into_inner().unwrap_or_else(|error| error.into_inner());
    failed.sort_unstable();
    let Some((first, _)) = failed.first() else {
        println!("No rule was broken.");
        return ExitCode::SUCCESS;
    };
    if survey {
        println!("{} seeds break a rule: {failed:?}", failed.len());
    }
    if let Some(failure) = Failure::of(*first, limits) {
        println!("\n{failure}");
    }
    ExitCode::FAILURE
}

fn main() -> ExitCode {
    match parse_arguments(std::env::args().skip(1)) {
        Ok(arguments) => match arguments.seed {
            Some(seed) => one(seed, arguments.limits),
            None => many(&arguments),
        },
        Err(error) => {
            eprintln!("sim: {error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}
