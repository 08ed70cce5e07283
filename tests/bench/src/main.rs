//! The bench: `cargo xtask bench` builds what it needs and starts it. See [`HELP`].
//!
//! Everything is measured on this machine in this run, b2sync and its peers alike. A bar that is missed is shown and is
//! no failure, since timings are not tests; what does not run at all is one.

#![forbid(unsafe_code)]

mod clients;
mod end_to_end;
mod home;
mod machine;
mod memory;
mod parallel;
mod poll_path;
mod report;
mod server;
mod workerd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use report::{Report, say};

const HELP: &str = "\
Usage: b2sync-bench [--quick] [--json <file>] [--tool <name>=<path>]… [--missing <name>=<why>]… [group…]

Groups: poll_path, end_to_end, memory, workerd, parallel; all without a name.
Tools: node, wasm (the poll path as WebAssembly), rclone, boto3 (a folder of Python packages), worker.";

/// Measures, and reports what it found.
type Group = fn(&mut Report, &Options);

/// The groups, in the order in which they run.
const GROUPS: [(&str, Group); 5] = [
    ("poll_path", poll_path::run),
    ("end_to_end", end_to_end::run),
    ("memory", memory::run),
    ("workerd", workerd::run),
    ("parallel", parallel::run),
];

type Error = Box<dyn std::error::Error>;
type Result<T, E = Error> = std::result::Result<T, E>;

/// What was asked for, and what there is to do it with.
#[derive(Debug, Default)]
struct Options {
    quick: bool,
    json: Option<PathBuf>,
    groups: Vec<String>,
    tools: BTreeMap<String, PathBuf>,
    missing: BTreeMap<String, String>,
}

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut options = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().cloned().ok_or_else(|| format!("{arg} needs a value.\n\n{HELP}"));
            let pair = |text: String| -> Result<(String, String)> {
                let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not <name>=<value>."))?;
                Ok((name.to_owned(), value.to_owned()))
            };
            match arg.as_str() {
                "--quick" => options.quick = true,
                "--json" => options.json = Some(value()?.into()),
                "--tool" => {
                    let (name, path) = pair(value()?)?;
                    options.tools.insert(name, path.into());
                }
                "--missing" => {
                    let (name, why) = pair(value()?)?;
                    options.missing.insert(name, why);
                }
                group if GROUPS.iter().any(|(name, _)| *name == group) => options.groups.push(group.to_owned()),
                unknown => return Err(format!("`{unknown}` is neither an option nor a group.\n\n{HELP}").into()),
            }
        }
        Ok(options)
    }

    /// A tool, or why there is none.
    fn tool(&self, name: &str) -> Result<&PathBuf, String> {
        let why = || self.missing.get(name).cloned().unwrap_or_else(|| format!("no {name} was given"));
        self.tools.get(name).ok_or_else(why)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match args.split_first() {
        Some((first, rest)) if first == "client" => clients::run(rest).map(|answer| say(&answer.to_string())),
        Some((first, _)) if first == "--help" || first == "-h" => {
            say(HELP);
            Ok(())
        }
        _ => Options::parse(&args).and_then(|options| bench(&options)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    machine::heading(options);
    let mut report = Report::default();
    for (name, run) in GROUPS {
        if options.groups.is_empty() || options.groups.iter().any(|group| group == name) {
            run(&mut report, options);
        }
    }
    report.finish(options.json.as_deref().unwrap_or_else(|| "bench.json".as_ref()))
}
