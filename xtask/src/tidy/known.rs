//! Where today's code breaks the rules on sizes and circles. These lists only ever get shorter.

use super::ratchet::List;

/// Files, and how many lines with too many columns they have.
pub(super) const LONG_LINES: List = List { name: "LONG_LINES", entries: &[] };

/// Functions, and how many lines they have.
pub(super) const LONG_FUNCTIONS: List = List { name: "LONG_FUNCTIONS", entries: &[] };

/// Files, and how many lines they have without their tests.
pub(super) const LONG_FILES: List = List { name: "LONG_FILES", entries: &[] };

/// Crates, and the modules that import each other in a circle.
pub(super) const CIRCLES: &[(&str, &[&str])] = &[];
