//! Sinks and the feed that they read, as stories: the real coordinator, engine and pumps in virtual time.

use b2sync_core::engine::meter::Budget;
use b2sync_core::mutation::{self, Mutation};
use b2sync_service::sinks::pump::DELIVERY_MS_MAX;
use b2sync_tests::simulation::faults::Break;
use b2sync_tests::simulation::history::{Age, Call};
use b2sync_tests::simulation::{Event, Options, Plan, Rule, Sim, SinkOptions, run};
use fake_b2::content::Content;

/// A world with these keys in it, in which nothing goes wrong by itself.
fn told(keys: u16, options: Options, events: Vec<Event>) -> Plan {
    let keys = (0..keys).map(|number| format!("f{number:04}")).collect();
    Plan { seed: 1, options, keys, events, last: None }
}

fn put(key: u16, version: u32) -> Event {
    Event::Put { key, size: 1, version, age: Age::Now }
}

fn burst(count: u16, version: u32) -> Event {
    Event::Burst { first: 0, count, stride: 1, version, at_once: false }
}

/// A job, and what happens before the next.
fn job(ms: u32) -> [Event; 2] {
    [Event::Call(Call::Trigger { confirm: false, full: false }), Event::Run { ms, seed: 1 }]
}

fn two_sinks(catalogue: SinkOptions, other: SinkOptions) -> Options {
    Options { sinks: vec![catalogue, other], ..Options::calm() }
}

fn assert_clean(plan: &Plan) {
    if let Err(violation) = run(plan, false).result {
        panic!("{violation}\n{}", run(plan, true).trace.join("\n"));
    }
}

fn assert_caught(plan: &Plan, defect: Mutation, rule: Rule) {
    assert_clean(plan);
    let caught = mutation::with(defect, || run(plan, false).result);
    assert_eq!(caught.map_err(|violation| violation.rule), Err(rule), "{defect:?}");
}

/// A sink that takes nine seconds for each of sixty changes: polls begin in time, and the other sink has everything.
#[test]
fn a_slow_sink_holds_neither_polls_nor_others() -> Result<(), Box<dyn std::error::Error>> {
    let slow = SinkOptions { slow_ms_max: 9_000, ..SinkOptions::other(1) };
    let options = Options { interval_s: 60, ..two_sinks(SinkOptions::catalogue(500), slow) };
    let mut sim = Sim::new(options, 1, true);
    let put = |sim: &Sim, key: u32| {
        sim.put(&format!("f{key:03}"), Content::Generated { seed: 1, size: 1 }, sim.time());
    };
    (0..60).for_each(|key| put(&sim, key));
    for poll in 1..10 {
        sim.pass(60_000).map_err(|violation| violation.to_string())?;
        // What was put before the latest poll is in the catalogue.
        let rows = sim.inner.rows().len();
        assert!(poll == 1 || rows >= 58 + poll as usize, "poll {poll}: {rows} rows");
        put(&sim, 59 + poll);
    }
    let polls = sim.inner.polls();
    assert!(polls.len() >= 8, "{polls:?}");
    for (number, poll) in polls.iter().enumerate().skip(1) {
        let before = polls[number - 1];
        let late_ms = poll.millis_since(before).saturating_sub(60_000);
        assert!(late_ms <= DELIVERY_MS_MAX, "poll {number} began {late_ms} ms late: {polls:?}");
    }
    sim.come_to_rest().map_err(|violation| violation.to_string())?;
    Ok(())
}

/// A poll a minute, and a sink that takes up to nine seconds for each of sixty changes.
#[test]
fn a_poll_that_waits_for_a_sink_is_caught() {
    let slow = SinkOptions { slow_ms_max: 9_000, ..SinkOptions::other(1) };
    let options = Options { interval_s: 60, ..two_sinks(SinkOptions::catalogue(500), slow) };
    let mut events = vec![burst(60, 1)];
    events.extend(job(300_000));
    assert_caught(&told(60, options, events), Mutation::HoldPolls, Rule::NobodyWaitsForASink);
}

/// Four hundred polls find a change each while a sink is down. Once it is up, no step reads more batches than its
/// budget lets it.
#[test]
fn a_sink_that_was_down_for_long_is_fed_within_the_budget() {
    let calm = two_sinks(SinkOptions::catalogue(500), SinkOptions::other(500));
    let budget = Budget { internal_requests_max: 120, ..calm.budget };
    let mut events = vec![Event::SinkBreaks { sink: 1, times: 40, how: Break::Before }];
    for version in 0..400 {
        events.push(put(u16::try_from(version % 8).unwrap_or(0), version));
        events.extend(job(10_000));
    }
    assert_clean(&told(8, Options { budget, ..calm }, events));
}

/// A version that is refused for a while, and behind it in the same delivery another one of the same key that is taken:
/// the older one does not come after it.
#[test]
fn a_refused_change_does_not_come_behind_a_newer_one_of_its_key() {
    for times in 1..6 {
        let mut events = vec![burst(4, 1), Event::SinkBreaks { sink: 1, times: 2, how: Break::Before }];
        events.extend(job(500));
        events.push(put(2, 2));
        events.extend(job(500));
        events.push(Event::Refuse { key: 2, times });
        events.extend(job(30_000));
        assert_clean(&told(4, two_sinks(SinkOptions::catalogue(500), SinkOptions::other(500)), events));
    }
}

/// Cursors are moved back and letters sent back again and again, while jobs find changes and the feed keeps nothing
/// longer than its sinks need it.
#[test]
fn replays_while_everything_runs() {
    for seed in 0..60 {
        let slow = SinkOptions { slow_ms_max: 700, ..SinkOptions::other(2) };
        let calm = two_sinks(SinkOptions::catalogue(3), slow);
        let options = Options { retention_hours: 0, dead_letters: true, latency_ms_max: 900, interval_s: 60, ..calm };
        let mut events = vec![burst(8, 1), Event::RefuseForEver(3)];
        for round in 0..30_u8 {
            events.push(put(u16::from(round % 8), u32::from(round) + 2));
            if round % 3 == 0 {
                events.extend(job(u32::from(round) * 70));
            }
            events.push(Event::Call(Call::Replay { sink: round % 2, part: 255 - round % 5 * 10 }));
            events.push(Event::Call(Call::Requeue));
            events.push(Event::Turns { turns: round, seed });
            events.push(Event::Run { ms: 1_500, seed });
        }
        assert_clean(&Plan { seed, ..told(8, options, events) });
    }
}

/// One sink is down, and all that is older than nothing may go: what it needs stays.
#[test]
fn what_a_sink_needs_stays_in_the_feed() {
    let options = Options { retention_hours: 0, ..two_sinks(SinkOptions::catalogue(500), SinkOptions::other(500)) };
    let mut events = vec![burst(8, 1), Event::SinkBreaks { sink: 1, times: 5, how: Break::Before }];
    for version in 2..6 {
        events.extend(job(1_000));
        events.push(put(3, version));
    }
    events.extend(job(200_000));
    events.push(put(4, 9));
    events.extend(job(5_000));
    let plan = told(8, options, events);
    assert!(run(&plan, false).tally.dropped > 0, "nothing is ever dropped");
    assert_caught(&plan, Mutation::CollectEarly, Rule::RetentionWaitsForSinks);
}

/// An answer that is lost, and an instance that dies: the changes come again, the catalogue passes over them, and no
/// cursor moves before the answer.
#[test]
fn what_was_not_answered_comes_again() {
    for how in Break::ALL {
        let mut events = vec![burst(8, 1), Event::SinkBreaks { sink: 0, times: 1, how }];
        events.extend(job(30_000));
        let plan = told(8, two_sinks(SinkOptions::catalogue(3), SinkOptions::other(3)), events);
        assert_caught(&plan, Mutation::MoveCursorEarly, Rule::CursorsFollowAnswers);
        if matches!(how, Break::After | Break::DieAfter) {
            assert!(run(&plan, false).tally.repeated > 0, "{how:?}");
            assert_caught(&plan, Mutation::ApplyTwice, Rule::CatalogueAppliesOnce);
        }
    }
}
