//! What must be so at rest.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use b2sync_core::entry::Entry;
use b2sync_core::policy::Reconcile;
use b2sync_core::snapshot::names;
use b2sync_core::state::document::decode_names;
use b2sync_core::state::feed::BatchRef;

use super::feed::named_batches;
use super::snapshot::{missing, unreadable};
use super::{Checks, Rule, StaleKv, Violation, snapshot};

impl Checks {
    /// What the feed tells is the bucket under the filters, as far as that is to be told, except for `held` deletions
    /// that wait to be confirmed.
    pub fn feed_equals_bucket(&self, bucket: &[Entry], held: u64) -> Result<(), Violation> {
        let mut waiting = 0;
        let of = |entry: &Entry| (entry.key.clone(), entry.clone());
        let wanted: BTreeMap<String, Entry> = bucket.iter().filter(|entry| self.takes(entry)).map(of).collect();
        let told = self.feed.files();
        // What was not to be told makes the two differ.
        let Reconcile { on_delete, on_update: updates, on_filter_drift } = self.feed.reconcile;
        let deletions = on_delete && on_filter_drift;
        let keys: BTreeSet<&String> = wanted.keys().chain(told.keys()).collect();
        for key in keys {
            let message = match (wanted.get(key), told.get(key)) {
                (Some(wanted), None) => format!("{wanted:?} is lost"),
                (None, Some(_)) if deletions && waiting < held => {
                    waiting += 1;
                    continue;
                }
                (None, Some(told)) if deletions => format!("{told:?} is told of, and should not be there"),
                (Some(wanted), Some(told)) if wanted != told && updates => {
                    format!("{told:?} is told of instead of {wanted:?}")
                }
                _ => continue,
            };
            return Err(Violation::new(Rule::FeedEqualsBucket, message));
        }
        Ok(())
    }

    /// A sink holds what the feed tells, but for `exempt` keys, and has got all of it.
    pub fn sink_equals_feed(
        &self,
        sink: usize,
        held: &BTreeMap<String, Entry>,
        exempt: &BTreeSet<String>,
    ) -> Result<(), Violation> {
        let sink_id = self.sink_id(sink);
        if let Some(seen) = self.sinks.get(sink) {
            seen.check_rest(sink_id, &self.feed)?;
        }
        let told = self.feed.files();
        let keys: BTreeSet<&String> = told.keys().chain(held.keys()).filter(|key| !exempt.contains(*key)).collect();
        match keys.into_iter().find(|key| told.get(*key) != held.get(*key)) {
            Some(key) => {
                let (told, held) = (told.get(key), held.get(key));
                let message = format!("{sink_id} holds {held:?}, and the feed tells of {told:?}");
                Err(Violation::new(Rule::SinksEqualFeed, message))
            }
            None => Ok(()),
        }
    }

    /// What a sink that refuses a key should hold of it.
    pub fn told_of(&self, key: &str) -> Option<Entry> {
        self.feed.files().remove(key)
    }

    /// Every batch of the feed that is stored is named.
    pub fn no_orphans(&self, document: &[u8], kv: &StaleKv) -> Result<(), Violation> {
        let document = snapshot::decode(document)?;
        let mut named = HashSet::new();
        let batches = named_batches(&document.feed, kv, &mut named)?;
        named.extend(batches.iter().map(BatchRef::name));
        for list in [&document.root.retired, &document.root.garbage] {
            let tail = decode_names(list.tail.as_deref()).map_err(unreadable)?;
            named.extend(tail.iter().map(ToString::to_string));
            for blob in &list.blobs {
                let bytes = kv.truth(blob).ok_or_else(|| missing("a list of names", blob))?;
                named.extend(names::decode(&bytes).map_err(unreadable)?.iter().map(ToString::to_string));
            }
        }
        let is_orphan = |name: &String| name.starts_with("feed/") && !named.contains(name);
        match kv.all().into_iter().map(|(name, _)| name).find(is_orphan) {
            Some(name) => Err(Violation::new(Rule::NoOrphans, format!("{name} is stored, and nothing names it"))),
            None => Ok(()),
        }
    }

    /// No checkpoint is left.
    pub fn no_checkpoint_is_left(&self, document: &[u8]) -> Result<(), Violation> {
        match snapshot::decode(document)?.checkpoint {
            Some(checkpoint) => {
                let message = format!("a checkpoint of {} is left", checkpoint.job_id);
                Err(Violation::new(Rule::NoCheckpointIsLeft, message))
            }
            None => Ok(()),
        }
    }
}
