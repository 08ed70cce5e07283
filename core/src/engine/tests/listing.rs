//! Reading the listing: in one stream or several, in either order of keys.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
};

use super::*;
use crate::engine::listing::key_order::find_key_order;

/// Runs a future as a runtime does: it is polled again when it was woken, and not before.
fn run_woken<T>(future: impl Future<Output = T>) -> T {
    struct Flag(AtomicBool);
    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(Arc::clone(&flag));
    let mut future = pin!(future);
    while flag.0.swap(false, Ordering::SeqCst) {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
    }
    panic!("it waits, and nothing will wake it");
}

#[test]
fn an_older_date_and_the_same_second_are_updates() {
    let world = World::new(10);
    let first = entry("a", 1);
    world.bucket.set([first.clone()]);
    world.job(&Budget::UNLIMITED);
    let older = Entry { last_modified: first.last_modified.plus_millis(-86_400_000), ..first.clone() };
    let same_second_and_size = Entry { etag: "f".repeat(32), ..first.clone() };
    for version in [older, same_second_and_size] {
        world.bucket.set([version]);
        assert_eq!(world.job(&Budget::UNLIMITED).counts.updated, 1);
        world.check();
    }
}

#[test]
fn an_expired_token_is_replaced_by_the_last_key() {
    let world = World::new(10);
    world.bucket.set(keys(0..30));
    let expired = Error::new(ErrorKind::InvalidInput, "Token.", "").with_response(400, Some("InvalidArgument"));
    let first = Page { entries: packed(&keys(0..10)), truncated: true, next_token: Some("k00009".into()) };
    *world.bucket.answers.borrow_mut() = vec![Err(expired), Ok(first)];
    assert_eq!(world.job(&Budget::UNLIMITED).counts.created, 30);
    world.check();
}

/// Two jobs in steps of several streams that read `keys_max` keys each, page by page as slowly as `latency` says.
pub(super) fn goes_on_or_ends(streams: usize, keys_max: u64, latency: u32) {
    let world = World::new(100);
    world.streams.set(streams);
    world.bucket.latency.set(latency);
    world.bucket.set((0..10_000u32).map(|n| entry(&format!("{:08x}", n.wrapping_mul(0x9e37_79b9)), 1)));
    for job in ["job_1", "job_2"] {
        let budget = Budget { keys_max, ..Budget::UNLIMITED };
        let mut spec = world.spec(job);
        loop {
            let report = run_woken(world.engine().step(&spec, &budget));
            spec.bookmark = report.bookmark.or(spec.bookmark);
            if report.outcome.unwrap() == Outcome::Done {
                break;
            }
        }
    }
    world.check();
}

#[test]
fn a_step_of_several_streams_always_goes_on_or_ends() {
    // A page on its way counts as a thousand keys.
    for streams in [2, 6] {
        for keys_max in [1_000, 2_100, 3_000, 4_500, 7_000] {
            for latency in [1, 3] {
                goes_on_or_ends(streams, keys_max, latency);
            }
        }
    }
}

#[test]
fn a_first_run_reads_ranges_that_nobody_knew_of() {
    let names: [fn(u32) -> String; 4] = [
        |n| format!("camera-{}/2024/{:02}/{n:06}.jpg", n % 5, n % 12 + 1),
        |n| format!("{:08x}", n.wrapping_mul(0x9e37_79b9)),
        |n| format!("export/part-{n:07}"),
        |n| format!("{n}"),
    ];
    for (nth, name) in names.into_iter().enumerate() {
        for (streams, in_flight, more) in [(1, 1, 0), (2, 2, 70), (6, 5, 70), (12, 6, 70)] {
            let world = World::new(10);
            world.streams.set(streams);
            world.bucket.latency.set(3);
            world.bucket.set((0..3_000).map(|n| entry(&name(n), 1)));
            world.job(&Budget::UNLIMITED);
            world.check();
            let (calls, most) = (world.bucket.calls.get(), world.bucket.in_flight_most.get());
            assert!((in_flight..=streams).contains(&most), "names {nth}: {most} pages at once with {streams} streams");
            // A range ends amid a page, which the next begins again.
            assert!((300..=300 + more).contains(&calls), "names {nth}: {calls} pages with {streams} streams");
        }
    }
}

proptest! {
    #[test]
    fn the_order_of_keys_is_asked_of_the_bucket(
        keys in proptest::collection::btree_set("[a😀\u{e000}\u{fffd}\u{ffff}\u{10fffd}\u{10ffff}]{1,3}", 1..12),
        page_size in 1usize..4,
        utf16: bool,
    ) {
        let world = World::new(page_size).in_order(utf16);
        world.bucket.set(keys.iter().map(|key| entry(key, 1)));
        let order = world.bucket.order.get();
        for key in keys.iter().filter(|key| !crate::entry::has_one_place(key)) {
            world.bucket.calls.set(0);
            match block_on(find_key_order(&world.bucket, key)) {
                Ok(found) => prop_assert_eq!(found, order, "by {:?}", key),
                // Only where names go on with the last characters there are.
                Err(error) => {
                    let is_odd = keys.iter().any(|key| key.contains(['\u{ffff}', '\u{10ffff}']));
                    prop_assert!(error.is_transient() && is_odd, "by {:?}: {}", key, error);
                }
            }
            prop_assert!(world.bucket.calls.get() <= 5);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_number_of_streams_gives_the_same(
        history in big_histories(),
        page_size in 1usize..12,
        streams in 2usize..12,
        utf16: bool,
        tiny: bool,
        elsewhere: bool,
        sizes in prop_oneof![Just((4, 9)), Just((2, 2)), Just((8, 3)), Just((64, 64))],
        pages in prop_oneof![1u64..24, Just(u64::MAX)],
    ) {
        let (mut one, mut many) = (World::new(page_size), World::new(page_size));
        for world in [&mut one, &mut many] {
            world.cut = world.cut.with_sizes(sizes.0, sizes.1);
        }
        let budget = Budget { keys_max: pages.saturating_mul(page_size as u64), ..Budget::UNLIMITED };
        let many = many.with_tiny_thresholds(tiny);
        many.streams.set(streams);
        many.bucket.elsewhere.set(elsewhere);
        for world in [&one, &many] {
            world.bucket.order.set(if utf16 { KeyOrder::Utf16 } else { KeyOrder::Utf8 });
        }
        for state in states(&history) {
            one.bucket.set(state.clone());
            many.bucket.set(state);
            let first = one.job(&Budget::UNLIMITED).counts;
            let second = many.job(&budget).counts;
            many.check();
            prop_assert_eq!(one.changes(), many.changes(), "the same changes at the same positions");
            prop_assert_eq!(&one.document().root.index, &many.document().root.index);
            prop_assert_eq!((first.matched, first.matched_bytes), (second.matched, second.matched_bytes));
        }
    }
}
