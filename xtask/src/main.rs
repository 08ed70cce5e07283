//! Developer tasks of b2sync: `cargo xtask <command>`. See [`HELP`].
//!
//! It depends on nothing but the standard library, so that it compiles in a second, and it does nothing twice: each
//! command first makes sure of what it needs, and what is there already costs a few file reads.

#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a command line tool.

mod bench;
mod build;
mod check;
mod command;
mod run;
mod setup;
mod tidy;
mod versions;
mod workspace;

use std::process::ExitCode;
use workspace::Workspace;

const HELP: &str = "\
Developer tasks of b2sync.

Usage: cargo xtask <command> [options]

  demo [options]   Build the Worker and watch it sync a bucket on this machine
      --once           end after the last check: exit code 0 only if every count was right
      --objects <n>    how many files the embedded B2 has
      --source <path>  sync a real bucket instead: b2://bucket/prefix
  test             Everything that continuous integration runs: format, lints, tidy, builds, all tests
  fuzz [TARGET]    Try inputs on every decoder, or on one, until something does not hold
      --iterations <n> how many inputs for each
      --seed <s>       what decides them: the same seed, the same inputs
      --input <file>   try only this one: how a failure is repeated
  sim [options]    Worlds of the simulation, one a seed: the whole engine in virtual time, with faults and crashes
      --seeds <n>      how many (2,000)
      --from <seed>    the first (0)
      --seed <seed>    this one alone, told step by step
      --survey         go on after a world that breaks a rule
  bench [options]  Measure b2sync beside its peers on this machine; figures also go to target/bench.json
      --quick          fewer keys and repetitions: about 3 minutes
      <group>…         only poll_path, end_to_end, memory, workerd, cron, api, parallel
  build [options]  Build the Worker (into worker/build) and the WASI component; what is fresh is not built again
      --worker         only the Worker
      --component      only the component
      --conformance    only the Worker with the conformance suites in it, for the tests
      --dev            the Worker without optimisation: quicker to build, larger to run
  setup            Install what the other commands need; they also do so by themselves
  tidy             Check what compilers do not: panics, import circles, which package depends on which, how long lines,
                   functions and files are, pinned versions, paths of one machine, docs
  help             Show this text

What is built goes to target/, or to CARGO_TARGET_DIR where that is set.";

/// What went wrong and what to do next, as the user reads it.
type Error = String;
type Result<T, E = Error> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(args: &[String]) -> Result<()> {
    let Some((command, rest)) = args.split_first() else {
        println!("{HELP}");
        return Ok(());
    };
    if matches!(command.as_str(), "help" | "--help" | "-h") || rest.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{HELP}");
        return Ok(());
    }
    let workspace = Workspace::find()?;
    match command.as_str() {
        "setup" => {
            no_options(command, rest)?;
            setup::all(&workspace)?;
            println!("Everything is installed. Try `cargo xtask demo`.");
            Ok(())
        }
        "bench" => bench::bench(&workspace, rest),
        "build" => build::run(&workspace, &build::Options::parse(rest)?),
        "demo" => run::demo(&workspace, rest),
        "fuzz" => run::fuzz(&workspace, rest),
        "sim" => run::sim(&workspace, rest),
        "test" => {
            no_options(command, rest)?;
            check::run_steps(&workspace)
        }
        "tidy" => {
            no_options(command, rest)?;
            tidy::run(&workspace)
        }
        unknown => Err(format!("There is no command `{unknown}`. `cargo xtask help` lists the commands.")),
    }
}

fn no_options(command: &str, rest: &[String]) -> Result<()> {
    match rest.first() {
        None => Ok(()),
        Some(unknown) => Err(format!("`cargo xtask {command}` takes no options, but got `{unknown}`.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(args: &[&str]) -> String {
        dispatch(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()).err().unwrap_or_default()
    }

    #[test]
    fn mistakes_get_a_clear_error() {
        assert_eq!(error_of(&["tset"]), "There is no command `tset`. `cargo xtask help` lists the commands.");
        assert_eq!(error_of(&["tidy", "--fast"]), "`cargo xtask tidy` takes no options, but got `--fast`.");
        assert_eq!(
            error_of(&["build", "--wroker"]),
            "`cargo xtask build` knows --worker, --component, --conformance and --dev, but got `--wroker`."
        );
    }

    #[test]
    fn help_is_shown_for_no_command_and_for_any_command() {
        assert_eq!(error_of(&[]), "");
        assert_eq!(error_of(&["build", "--help"]), "");
    }
}
