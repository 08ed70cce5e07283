//! The bench: `cargo xtask bench` builds what it needs and starts it. See [`HELP`].
//!
//! Everything is measured on this machine in this run, b2sync and its peers alike. A bar that is missed is shown and is
//! no failure, since timings are not tests; what does not run at all is one.
//!
//! Functions of this process are measured by criterion, by CPU time, which other processes on the machine disturb far
//! less than wall time. Clients in processes of their own (some of them are no Rust) and WebAssembly in Node and
//! workerd are out of its reach: those the bench measures itself.

#![forbid(unsafe_code)]

mod api;
mod clients;
mod coordinated;
mod cron;
mod end_to_end;
mod home;
mod machine;
mod memory;
mod parallel;
mod poll_path;
mod report;
mod server;
mod timer;
mod workerd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use report::{Report, say};

const HELP: &str = "\
Usage: b2sync-bench [--quick] [--json <file>] [--tool <name>=<path>]… [--missing <name>=<why>]… [group…]

Groups: poll_path, end_to_end, memory, workerd, cron, api, parallel; all without a name.
Tools: node, wasm (the poll path as WebAssembly), rclone, boto3 (a folder of Python packages), worker.";

/// What is measured together.
struct Group {
    name: &'static str,
    /// The names of its figures, or what stands before the slash in them. None is another group's.
    figures: &'static [&'static str],
    /// Measures, and reports what it found.
    run: fn(&mut Report, &Options),
}

/// The groups, in the order in which they run.
const GROUPS: [Group; 7] = [
    Group { name: "poll_path", figures: &poll_path::FIGURES, run: poll_path::run },
    Group { name: "end_to_end", figures: &end_to_end::FIGURES, run: end_to_end::run },
    Group { name: "memory", figures: &memory::FIGURES, run: memory::run },
    Group { name: "workerd", figures: &workerd::FIGURES, run: workerd::run },
    Group { name: "cron", figures: &cron::FIGURES, run: cron::run },
    Group { name: "api", figures: &api::FIGURES, run: api::run },
    Group { name: "parallel", figures: &parallel::FIGURES, run: parallel::run },
];

/// The group that a figure belongs to; of those that no group measures any more, none.
fn group_of(figure: &str) -> Option<&'static Group> {
    let named = |name: &str| GROUPS.iter().find(|group| group.figures.contains(&name));
    // The whole name first: what one group calls its own may begin as another's do.
    named(figure).or_else(|| named(figure.split_once('/')?.0))
}

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
                group if GROUPS.iter().any(|it| it.name == group) => options.groups.push(group.to_owned()),
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
    let runs = |group: &Group| options.groups.is_empty() || options.groups.iter().any(|name| name == group.name);
    for group in GROUPS.iter().filter(|group| runs(group)) {
        let before = report.names().count();
        (group.run)(&mut report, options);
        let belongs = |figure: &&str| group_of(figure).is_some_and(|it| it.name == group.name);
        let strange: Vec<String> = report.names().skip(before).filter(|it| !belongs(it)).map(str::to_owned).collect();
        for figure in strange {
            report.failed(figure, format!("it is not among the figures of {}", group.name));
        }
    }
    let json = options.json.as_deref().unwrap_or_else(|| "bench.json".as_ref());
    report.finish(json, |figure| group_of(figure).is_some_and(|group| !runs(group)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_of_one_group() {
        let name = |figure| group_of(figure).map(|group| group.name);
        assert_eq!(name("cpu_s_per_million_keys/b2sync"), Some("end_to_end"));
        assert_eq!(name("cpu_s_per_million_keys/b2sync_workerd"), Some("workerd"));
        assert_eq!(name("snapshot_bytes_per_key"), Some("memory"));
        assert_eq!(name("measured_once/long_ago"), None);
        for (index, group) in GROUPS.iter().enumerate() {
            for other in &GROUPS[index + 1..] {
                assert!(group.figures.iter().all(|figure| !other.figures.contains(figure)), "{}", other.name);
            }
        }
    }
}
