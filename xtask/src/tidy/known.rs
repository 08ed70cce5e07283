//! Where today's code breaks the rules on sizes and circles. These lists only ever get shorter.

use super::ratchet::List;

/// Files, and how many lines with too many columns they have.
pub(super) const LONG_LINES: List = List {
    name: "LONG_LINES",
    entries: &[
        ("core/service/src/api/tests/everything.rs", "", 1),
        ("core/service/src/sinks/dead_letters.rs", "", 1),
        ("core/src/engine/compare/mod.rs", "", 1),
        ("core/src/feed/read.rs", "", 2),
        ("tests/bench/peers/src/main.rs", "", 1),
        ("tests/bench/poll_path/src/listing.rs", "", 1),
        ("tests/bench/src/coordinated.rs", "", 2),
        ("tests/bench/src/end_to_end.rs", "", 2),
        ("tests/bench/src/home.rs", "", 1),
        ("tests/bench/src/main.rs", "", 2),
        ("tests/bench/src/memory.rs", "", 2),
        ("tests/bench/src/parallel.rs", "", 7),
        ("tests/bench/src/poll_path.rs", "", 2),
        ("tests/bench/src/server.rs", "", 1),
        ("tests/bench/src/workerd.rs", "", 5),
        ("tests/src/bin/demo.rs", "", 5),
        ("tests/src/bin/sim.rs", "", 2),
        ("tests/src/fuzz/mod.rs", "", 1),
        ("tests/src/fuzz/targets.rs", "", 4),
        ("tests/src/service.rs", "", 1),
        ("tests/src/simulation/budget.rs", "", 9),
        ("tests/src/simulation/checkers/feed.rs", "", 2),
        ("tests/src/simulation/checkers/mod.rs", "", 2),
        ("tests/src/simulation/checkers/sinks.rs", "", 2),
        ("tests/src/simulation/checkers/violation.rs", "", 3),
        ("tests/src/simulation/faults.rs", "", 1),
        ("tests/src/simulation/mod.rs", "", 3),
        ("tests/src/simulation/options.rs", "", 5),
        ("tests/src/simulation/rest.rs", "", 2),
        ("tests/src/simulation/seam.rs", "", 1),
        ("tests/src/simulation/sinks.rs", "", 1),
        ("tests/src/simulation/world.rs", "", 9),
        ("tests/src/workerd.rs", "", 1),
        ("tests/tests/e2e/main.rs", "", 1),
        ("tests/tests/e2e/poll.rs", "", 1),
        ("tests/tests/peer_failures.rs", "", 7),
        ("tests/tests/simulation.rs", "", 8),
        ("tests/tests/sinks.rs", "", 4),
        ("tests/tests/state_traffic.rs", "", 1),
        ("tests/worker-conformance/src/lib.rs", "", 1),
        ("worker/src/catalogue.rs", "", 2),
        ("worker/src/coordinator.rs", "", 1),
        ("worker/src/fetch.rs", "", 2),
        ("worker/src/kv.rs", "", 1),
        ("worker/src/lib.rs", "", 3),
        ("worker/src/registry.rs", "", 3),
    ],
};

/// Functions, and how many lines they have.
pub(super) const LONG_FUNCTIONS: List = List {
    name: "LONG_FUNCTIONS",
    entries: &[
        ("core/src/engine/listing/lanes.rs", "poll_next", 103),
        ("tests/bench/src/end_to_end.rs", "run", 90),
        ("tests/bench/src/poll_path.rs", "run", 82),
        ("tests/bench/src/server.rs", "list", 73),
        ("tests/src/bin/demo.rs", "run_embedded", 84),
        ("tests/src/fuzz/targets.rs", "full_document", 79),
        ("tests/src/simulation/world.rs", "new", 79),
    ],
};

/// Files, and how many lines they have without their tests.
pub(super) const LONG_FILES: List = List {
    name: "LONG_FILES",
    entries: &[
        ("core/service/src/api/service.rs", "", 1078),
        ("core/service/src/registry.rs", "", 990),
        ("tests/src/fuzz/targets.rs", "", 1100),
    ],
};

/// Crates, and the modules that import each other in a circle.
pub(super) const CIRCLES: &[(&str, &[&str])] = &[];
