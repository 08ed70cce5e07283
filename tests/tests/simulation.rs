//! The simulation itself: that its worlds keep every rule, that a seed repeats exactly, and that its checkers bite.
//!
//! `cargo xtask sim` runs many more worlds, optimised.

use std::ops::Range;

use b2sync_core::mutation::{self, Mutation};
use b2sync_tests::simulation::faults::Break;
use b2sync_tests::simulation::history::Age;
use b2sync_tests::simulation::{Event, Failure, Limits, Plan, Rule, Tally, run, run_seed, shrink};

const ALL: Limits = Limits { no_undo: false, no_dead_letters: false };

#[test]
fn worlds_keep_every_rule() {
    let mut total = Tally::default();
    // The last two: a segment of the snapshot before that a job took apart, in a leaf that stayed as it was, was deleted.
    for seed in (0..60).chain([11_428, 29_061]) {
        let outcome = run_seed(seed, ALL);
        total.add(&outcome.tally);
        if outcome.result.is_err() {
            panic!("{}", Failure::of(seed, ALL).map_or_else(String::new, |failure| failure.to_string()));
        }
    }
    // They are not empty worlds.
    assert!(total.jobs > 200 && total.changes > 1_000 && total.crashes > 20 && total.troubles > 20, "{total:?}");
}

#[test]
fn a_seed_repeats_every_line() {
    for seed in [1, 7, 23] {
        let once = run(&Plan::of(seed, ALL), true);
        let again = run(&Plan::of(seed, ALL), true);
        assert!(once.trace.len() > 50, "{}", once.trace.len());
        assert_eq!(once.trace, again.trace);
        assert_eq!(once.tally, again.tally);
    }
    assert_ne!(Plan::of(1, ALL).events, Plan::of(2, ALL).events);
}

/// A small world with everything in it: files that come, change and go, and several jobs of several steps.
fn story() -> Plan {
    let plan = (0..).map(|seed| Plan::of(seed, ALL)).find(|plan| {
        let options = &plan.options;
        options.keys > 10 && options.keys < 30 && options.page_keys == 7 && options.budget.keys_max == 1
    });
    let mut plan = plan.unwrap_or_else(|| Plan::of(0, ALL));
    let put = |key, version| Event::Put { key, size: 1, version, age: Age::Now };
    plan.events = vec![
        Event::Burst { first: 0, count: 16, stride: 1, version: 1, at_once: false },
        Event::Run { ms: 70_000, seed: 1 },
        put(3, 2),
        put(20, 3),
        Event::Delete(5),
        Event::Run { ms: 400_000, seed: 2 },
    ];
    plan
}

/// At every effect in turn, before and after it: whatever breaks or dies there, the world comes to rest as it should.
#[test]
fn a_break_before_and_after_every_effect() {
    let effects = {
        let plan = story();
        let outcome = run(&plan, true);
        assert!(outcome.result.is_ok(), "{:?}", outcome.result);
        outcome.tally.turns
    };
    for how in Break::ALL {
        for after in 1..=u8::try_from(effects.min(250)).unwrap_or(250) {
            let mut plan = story();
            plan.events.insert(usize::from(after % 2), Event::Break { after, how });
            if let Err(violation) = run(&plan, false).result {
                let trace = run(&plan, true).trace;
                panic!("{how:?} at effect {after}: {violation}\n{}", trace.join("\n"));
            }
        }
    }
}

/// Runs worlds with a defect until one breaks one of `rules`, which none of them does without it. A world in which the defect
/// breaks another rule first tells nothing of these.
fn assert_caught_among(defect: Mutation, worlds: Range<u64>, rules: &[Rule]) {
    let breaks = |seed: &u64| run_seed(*seed, ALL).result.is_err_and(|violation| rules.contains(&violation.rule));
    let Some(seed) = mutation::with(defect, || worlds.clone().find(breaks)) else {
        panic!("{defect:?} breaks none of {rules:?} in the worlds {worlds:?}");
    };
    assert!(run_seed(seed, ALL).result.is_ok(), "seed {seed} breaks a rule without {defect:?} as well");
}

fn assert_caught(defect: Mutation, rules: &[Rule]) {
    assert_caught_among(defect, 0..400, rules);
}

#[test]
fn a_step_that_ignores_the_lease_is_caught() {
    // Steps that get into each other's way for ever, or delete what the other one stored, are as bad as two that deliver at
    // the same time.
    assert_caught(
        Mutation::SkipLease,
        &[Rule::OneStepAtATime, Rule::CatalogueEqualsBucket, Rule::ComesToRest, Rule::NothingNamedIsMissing],
    );
}

#[test]
fn a_root_that_moves_early_is_caught() {
    assert_caught(
        Mutation::MoveRootEarly,
        &[Rule::RootOnlyDelivered, Rule::NothingNamedIsMissing, Rule::CatalogueEqualsBucket],
    );
}

#[test]
fn a_watermark_is_caught() {
    assert_caught(Mutation::Watermark, &[Rule::CatalogueEqualsBucket, Rule::RootOnlyDelivered]);
}

#[test]
fn trust_in_last_modified_is_caught() {
    assert_caught(Mutation::TrustLastModified, &[Rule::CatalogueEqualsBucket, Rule::RootOnlyDelivered]);
}

#[test]
fn a_listing_that_broke_off_and_counts_is_caught() {
    assert_caught(Mutation::AdvanceOnError, &[Rule::DeletesOnlyAfterCompleteCoverage, Rule::CatalogueEqualsBucket]);
}

#[test]
fn a_delivery_that_was_not_noted_first_is_caught() {
    // One world in several hundred has a file that changes back at the right moment.
    assert_caught_among(Mutation::SkipWriteAhead, 700..900, &[Rule::CatalogueEqualsBucket]);
}

#[test]
fn lanes_that_nobody_wakes_are_caught() {
    // Rare: every lane must rest at the same moment.
    assert_caught_among(Mutation::RestUnwoken, 300..400, &[Rule::ComesToRest]);
}

#[test]
fn deletions_before_the_listing_is_complete_are_caught() {
    assert_caught(Mutation::DeleteEarly, &[Rule::DeletesOnlyAfterCompleteCoverage]);
}

#[test]
fn a_plan_that_breaks_a_rule_is_shortened_and_told() {
    mutation::with(Mutation::TrustLastModified, || {
        let (seed, rule) = caught_here(400);
        let whole = Plan::of(seed, ALL);
        let short = shrink(&whole, rule);
        assert!(short.events.len() <= 10 && short.events.len() < whole.events.len(), "{:?}", short.events);
        let told = Failure::of(seed, ALL).map(|failure| failure.to_string()).unwrap_or_default();
        assert!(told.contains(&format!("cargo xtask sim --seed {seed}")), "{told}");
        assert!(told.contains("BROKEN: "), "{told}");
    });
}

/// The first world that breaks a rule, and which, with the defect that is on already.
fn caught_here(worlds: u64) -> (u64, Rule) {
    let found = (0..worlds).find_map(|seed| Some((seed, run_seed(seed, ALL).result.err()?.rule)));
    found.unwrap_or_else(|| panic!("no world of {worlds} breaks a rule"))
}
