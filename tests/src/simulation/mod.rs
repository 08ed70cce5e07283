//! Whole worlds in virtual time: the coordinator and its engine against the embedded B2's model, one seed a world.
//!
//! A seed gives a [`Plan`]: what kind of world it is, and a list of [`Event`]s. Files come, change, hide, move and go;
//! users, cron and alarm call; requests, stores and sinks fail; instances die before and after any effect, and their
//! clocks disagree. [`run`] lets that happen, one effect of one task at a time, with the rules of [`checkers`] looked
//! at after each, and then lets the world come to rest and compares the feed with the bucket and each sink with the
//! feed. The same seed gives the same trace, line by line; a plan that breaks a rule is shortened by [`shrink`] and
//! told by [`Failure`].
//!
//! Nothing here reads a clock, sleeps or draws randomness.
//!
//! **Assumed of a home**, because no check in the core could replace it: a step that its lease has outlived is ended,
//! and what a dead instance had sent and not heard of has arrived by then or never does.

mod budget;
pub mod checkers;
mod events;
pub mod faults;
pub mod history;
mod home;
pub mod kv;
mod options;
mod rest;
mod run;
mod seam;
mod shrink;
mod sink_state;
mod sinks;
mod tally;
mod task;
mod trace;
mod world;

use std::fmt;

pub use checkers::{Rule, Violation};
pub use history::{Event, Plan};
pub use options::{Limits, Options, SinkOptions};
pub use run::{Outcome, Sim, run};
pub use shrink::shrink;
pub use tally::Tally;
pub use world::{BUCKET, Inner, SYNC};

/// Runs the world of a seed. Of one that breaks a rule, [`Failure::of`] tells more.
pub fn run_seed(seed: u64, limits: Limits) -> Outcome {
    run(&Plan::of(seed, limits), false)
}

/// A world that broke a rule, as short as it could be made.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was left of its plan.
    pub plan: Plan,
    /// What was excluded.
    pub limits: Limits,
    /// How many events it had.
    pub events: usize,
    /// Which rule the short plan breaks, and how.
    pub violation: Violation,
    /// What happens in the short plan.
    pub trace: Vec<String>,
}

impl Failure {
    /// Shortens the plan of a seed; `None`: it breaks no rule.
    pub fn of(seed: u64, limits: Limits) -> Option<Self> {
        let whole = Plan::of(seed, limits);
        let rule = run(&whole, false).result.err()?.rule;
        let plan = shrink(&whole, rule);
        let Outcome { result, trace, .. } = run(&plan, true);
        Some(Self { violation: result.err()?, events: whole.events.len(), plan, limits, trace })
    }
}

/// How much of a trace is shown, in lines, from its end.
const TRACE_LINES_MAX: usize = 400;

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, limits, events, violation, trace } = self;
        writeln!(f, "Seed {} breaks a rule.\n\n{violation}\n", plan.seed)?;
        writeln!(f, "{:?}\n", plan.options)?;
        writeln!(f, "{} of its {events} events are enough:", plan.events.len())?;
        for event in &plan.events {
            writeln!(f, "  {event:?}")?;
        }
        let hidden = trace.len().saturating_sub(TRACE_LINES_MAX);
        writeln!(f, "\nWhat happens (virtual seconds; {hidden} earlier lines left out):")?;
        for line in trace.iter().skip(hidden) {
            writeln!(f, "{line}")?;
        }
        write!(f, "\nRepeat it: cargo xtask sim --seed {}{limits}", plan.seed)
    }
}
