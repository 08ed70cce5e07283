//! `cargo xtask fuzz`: runs the fuzz targets for as long as it is told to, and repeats what failed. Its tests run them
//! briefly.
//!
//! It counts allocations, which takes an allocator of its own and so the only unsafe code of these tests.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a command line tool.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use b2sync_tests::fuzz::{self, Failure, Meter, TARGETS, Target};

const HELP: &str = "\
Runs the fuzz targets. The same seed and iterations try the same inputs.

Usage: cargo xtask fuzz [TARGET] [--iterations N] [--seed S] [--input FILE]

  TARGET          only this one; all without
  --iterations N  how many inputs to make (100000)
  --seed S        what decides them (1)
  --input FILE    try only what is in this file: how a failure is repeated

Targets:";

/// How many inputs are made of each target, unless told otherwise.
const ITERATIONS: u64 = 100_000;
/// An input that takes longer than this never ends, as far as a developer cares.
const HANG: Duration = Duration::from_secs(60);

/// The system's allocator, and a count of what the current thread has.
struct Counting;

thread_local! {
    // Neither needs memory to begin nor anything done at the end, so that an allocator may use them at any time.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // As if both were there at once, which they may be.
        count(size as isize);
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static BEGIN: Cell<isize> = const { Cell::new(0) };
}

/// Counts what the current thread allocates.
const METER: Meter = Meter {
    start: || {
        BEGIN.set(LIVE.get());
        PEAK.set(LIVE.get());
    },
    peak_bytes: || (PEAK.get() - BEGIN.get()).max(0) as usize,
};

struct Options {
    targets: Vec<&'static Target>,
    iterations: u64,
    seed: u64,
    input: Option<PathBuf>,
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options { targets: Vec::new(), iterations: ITERATIONS, seed: 1, input: None };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value."));
        let number = |text: &String| text.parse().map_err(|_| format!("{text:?} is not a number."));
        match arg.as_str() {
            "--iterations" => options.iterations = number(value()?)?,
            "--seed" => options.seed = number(value()?)?,
            "--input" => options.input = Some(value()?.into()),
            name => {
                let found = TARGETS.iter().find(|target| target.name == name);
                options.targets.push(found.ok_or_else(|| {
                    let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
                    format!("There is no target `{name}`. There are {}.", names.join(", "))
                })?);
            }
        }
    }
    if options.input.is_some() && options.targets.len() != 1 {
        return Err("--input needs one TARGET.".to_owned());
    }
    if options.targets.is_empty() {
        options.targets = TARGETS.iter().collect();
    }
    Ok(options)
}

/// Keeps the input, and says how to repeat the failure.
fn told(failure: &Failure) -> String {
    // Its own place is in `debug` or `release` of the target folder.
    let exe = env::current_exe().unwrap_or_default();
    let profile = exe.ancestors().find(|folder| folder.ends_with("debug") || folder.ends_with("release"));
    let folder = profile.and_then(Path::parent).map_or_else(env::temp_dir, PathBuf::from).join("fuzz");
    let path = folder.join(format!("{}-{:016x}.bin", failure.target, fnv(&failure.input)));
    let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &failure.input));
    let repeat = match kept {
        Ok(()) => format!("Repeat it: cargo xtask fuzz {} --input {}", failure.target, path.display()),
        Err(error) => format!("The input could not be kept in {}: {error}. It is {:?}", path.display(), failure.input),
    };
    format!("{}, with {} bytes: {}\n{repeat}", failure.target, failure.input.len(), failure.what)
}

/// A short name for an input (FNV-1a).
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The input that is being tried, and since when.
type Current = Arc<Mutex<Option<(Instant, &'static str, Vec<u8>)>>>;

/// Ends the process when an input takes too long, and tells which.
fn watch(current: Current) {
    loop {
        thread::sleep(Duration::from_secs(1));
        let current = current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, target, input)) = &*current
            && since.elapsed() > HANG
        {
            let what = format!("it has not ended after {} s", HANG.as_secs());
            eprintln!("{}", told(&Failure { target, input: input.clone(), what }));
            std::process::exit(1);
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    if let (Some(path), [target]) = (&options.input, &*options.targets) {
        let input = fs::read(path).map_err(|error| format!("{} cannot be read: {error}.", path.display()))?;
        let seen = fuzz::check(target, &input, &METER)?;
        println!("{}: everything holds for these {} bytes: {seen:?}", target.name, input.len());
        return Ok(());
    }
    let current = Current::default();
    let watched = current.clone();
    thread::spawn(move || watch(watched));
    let mut failures = Vec::new();
    for target in &options.targets {
        let started = Instant::now();
        let see = |input: &[u8]| {
            let input = (Instant::now(), target.name, input.to_vec());
            *current.lock().unwrap_or_else(PoisonError::into_inner) = Some(input);
        };
        match fuzz::run(target, options.seed, options.iterations, &METER, see) {
            Ok(report) => println!(
                "{}: {} inputs, {} kinds of outcomes, {:.1} s",
                target.name,
                report.inputs,
                report.outcomes.len(),
                started.elapsed().as_secs_f64()
            ),
            Err(failure) => failures.push(told(&failure)),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        for target in &TARGETS {
            println!("  {:<12}  {}", target.name, target.about);
        }
        return ExitCode::SUCCESS;
    }
    match parse(&args).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many inputs each target gets whenever the tests run. A filter is compiled for each: they are slower.
    const BRIEF: u64 = 3_000;
    const BRIEF_FILTERS: u64 = 300;

    #[track_caller]
    fn brief(name: &str, iterations: u64, kinds_min: usize) {
        let target = TARGETS.iter().find(|target| target.name == name).expect("a target");
        match fuzz::run(target, 1, iterations, &METER, |_| ()) {
            // Fewer kinds would mean that the inputs never get far.
            Ok(report) => assert!(report.outcomes.len() >= kinds_min, "{name}: {:#?}", report.outcomes),
            Err(failure) => panic!("{}", told(&failure)),
        }
    }

    #[test]
    fn list_xml() {
        brief("list-xml", BRIEF, 24);
    }

    #[test]
    fn authorize() {
        brief("authorize", BRIEF, 13);
    }

    #[test]
    fn source_path() {
        brief("source-path", BRIEF, 10);
    }

    #[test]
    fn filter() {
        brief("filter", BRIEF_FILTERS, 20);
    }

    #[test]
    fn segment() {
        brief("segment", BRIEF, 7);
    }

    #[test]
    fn packed() {
        brief("packed", BRIEF, 7);
    }

    #[test]
    fn entries() {
        brief("entries", BRIEF, 7);
    }

    #[test]
    fn index() {
        brief("index", BRIEF, 7);
    }

    #[test]
    fn batch() {
        brief("batch", BRIEF, 7);
    }

    #[test]
    fn batches() {
        brief("batches", BRIEF, 7);
    }

    #[test]
    fn checkpoint() {
        brief("checkpoint", BRIEF, 20);
    }

    #[test]
    fn coordinator() {
        brief("coordinator", BRIEF, 11);
    }

    #[test]
    fn sink() {
        brief("sink", BRIEF, 20);
    }

    #[test]
    fn every_target_runs_briefly() {
        let names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        let tests = [
            "list-xml",
            "authorize",
            "source-path",
            "filter",
            "segment",
            "packed",
            "entries",
            "index",
            "batch",
            "batches",
            "checkpoint",
            "coordinator",
            "sink",
        ];
        assert_eq!(names, tests);
    }

    /// What docs/explanation/known-limits.md says of them.
    #[test]
    fn the_heaviest_filters_take_what_the_documentation_says() {
        let page = include_str!("../../../docs/explanation/known-limits.md");
        let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
        let bytes = fuzz::heaviest_filter_bytes(&METER).expect("both lists are within their limits");
        let said = format!("take up to {} MB while they are compiled", bytes.div_ceil(1_000_000));
        assert!(page.contains(&said), "known-limits.md does not say that they {said}: {bytes} bytes");
    }

    #[test]
    fn memory_is_counted() {
        (METER.start)();
        let kept = vec![0_u8; 1_000];
        drop(vec![0_u8; 5_000]);
        let peak = (METER.peak_bytes)();
        assert!((6_000..6_500).contains(&peak), "{peak}");
        drop(kept);
        assert!(METER.measured(999, || vec![0_u8; 1_000]).is_err());
    }
}
