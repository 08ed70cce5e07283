//! The comparison itself: two sorted runs of the same range in, changes out.

use std::cmp::Ordering;

use crate::{entry::Entry, snapshot::Known};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference<'a> {
    /// The listing shows a key that was not known, or another version of one that was.
    Appeared {
        /// As listed.
        entry: &'a Entry,
        /// What was known of it.
        previous: Option<Known>,
    },
    /// A key that was known is not listed.
    Vanished(Known),
}

/// Compares what is listed with what was known of the same range, both in the order that `compare` judges by.
pub fn diff(
    listed: &[Entry],
    known: impl IntoIterator<Item = Known>,
    mut compare: impl FnMut(&str, &str) -> Ordering,
) -> Vec<Difference<'_>> {
    let mut differences = Vec::new();
    let mut known = known.into_iter().peekable();
    for entry in listed {
        while let Some(old) = known.next_if(|old| compare(&old.key, &entry.key).is_lt()) {
            differences.push(Difference::Vanished(old));
        }
        let previous = known.next_if(|old| old.key == entry.key);
        if previous.as_ref().is_none_or(|old| !old.is_version(entry)) {
            differences.push(Difference::Appeared { entry, previous });
        }
    }
    differences.extend(known.map(Difference::Vanished));
    differences
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::time::Timestamp;

    fn entries(map: &BTreeMap<String, u64>) -> Vec<Entry> {
        map.iter()
            .map(|(key, version)| Entry {
                key: key.clone(),
                etag: format!("{version:032x}"),
                size: version % 3,
                last_modified: Timestamp::from_millis(0),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn applying_the_differences_to_what_was_known_gives_what_is_listed(
            before in proptest::collection::btree_map("[ab]{1,3}", 0u64..4, 0..12),
            after in proptest::collection::btree_map("[ab]{1,3}", 0u64..4, 0..12),
        ) {
            let known: Vec<Known> = entries(&before).iter().map(Known::from).collect();
            let mut result: BTreeMap<String, Known> = known.iter().map(|k| (k.key.clone(), k.clone())).collect();
            for difference in diff(&entries(&after), known, str::cmp) {
                match difference {
                    Difference::Appeared { entry, previous } => {
                        let old = result.insert(entry.key.clone(), Known::from(entry));
                        prop_assert_ne!(&old, &Some(Known::from(entry)));
                        prop_assert_eq!(old, previous);
                    }
                    Difference::Vanished(old) => prop_assert_eq!(result.remove(&old.key), Some(old)),
                }
            }
            let expected: BTreeMap<String, Known> =
                entries(&after).iter().map(|entry| (entry.key.clone(), Known::from(entry))).collect();
            prop_assert_eq!(result, expected);
        }
    }
}
