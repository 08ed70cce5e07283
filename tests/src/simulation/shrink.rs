//! The shortest plan that still breaks the same rule.

use super::checkers::Rule;
use super::history::Plan;
use super::run::run;

/// Leaves out as many events as it can while the same rule is broken: halves, quarters, and so on down to single
/// events (delta debugging).
pub fn shrink(plan: &Plan, rule: Rule) -> Plan {
    let breaks = |plan: &Plan| run(plan, false).result.is_err_and(|violation| violation.rule == rule);
    let mut best = plan.clone();
    let mut size = best.events.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        let mut shorter = false;
        while start < best.events.len() {
            let mut tried = best.clone();
            tried.events.drain(start..(start + size).min(best.events.len()));
            if breaks(&tried) {
                best = tried;
                shorter = true;
            } else {
                start += size;
            }
        }
        // Once single events have gone, others may have become unnecessary.
        size = if size == 1 && shorter { 1 } else { size / 2 };
    }
    best
}
