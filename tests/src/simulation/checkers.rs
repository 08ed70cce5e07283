//! What must be so after every step, and at rest.
//!
//! They know the truth that the engine cannot know: every version of every file that was ever visible, and which pages
//! each job was answered. None of them asks the engine anything; they read what is stored and what is delivered.

use std::collections::{BTreeMap, BTreeSet};

use b2sync_core::catalogue::ObjectRecord;
use b2sync_core::coordinator;
use b2sync_core::engine::Reconcile;
use b2sync_core::engine::state::node_name;
use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::job::JobStatus;
use b2sync_core::sink::{Change, ChangeKind, change_id};
use b2sync_core::snapshot::changes::{self, Noted};
use b2sync_core::snapshot::index::{self, Level, SegmentRef};
use b2sync_core::snapshot::root::{self, SnapshotDocument};
use b2sync_core::snapshot::{EtagTag, Known, packed, segment};
use b2sync_core::source_path::SourcePath;
use serde::Deserialize;

use super::kv::StaleKv;

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// How.
    pub message: String,
}

impl Violation {
    /// That rule, in those words.
    pub fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self { rule, message: message.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}: {}", self.rule, self.message)
    }
}

/// What must be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// The root's generation never goes back.
    RootNeverRegresses,
    /// What root and checkpoint name is stored.
    NothingNamedIsMissing,
    /// The root stands for nothing that was not delivered.
    RootOnlyDelivered,
    /// A blob's name is never given a second value.
    BlobsAreImmutable,
    /// Only versions that were visible are delivered.
    NothingInvented,
    /// One (key, kind, version), one id.
    OneIdAChange,
    /// Deletions only of what a complete listing has shown to be gone.
    DeletesOnlyAfterCompleteCoverage,
    /// Only who holds the lease delivers.
    OneStepAtATime,
    /// At most one job runs.
    OneJobAtATime,
    /// No page is asked for beyond the budget.
    WithinTheBudget,
    /// Only changes that the sync's `reconcile` asks for are delivered.
    OnlyWhatIsAskedFor,
    /// No secret in anything that is stored or said.
    NoSecrets,
    /// At rest the catalogue is the bucket under the filters.
    CatalogueEqualsBucket,
    /// What the sink refuses for ever is among the dead letters.
    RefusedAreDeadLetters,
    /// At rest the snapshot is the catalogue.
    SnapshotEqualsCatalogue,
    /// At rest another poll delivers nothing and stores nothing.
    QuietPoll,
    /// Of a sync that was deleted nothing is left.
    NothingIsLeft,
    /// Left alone, a sync comes to rest.
    ComesToRest,
    /// A call never goes wrong in a way that its contract does not name.
    CallsKeepTheirContract,
}

/// A page that a job was answered: all keys from `from` (exclusively) to `to` (inclusively).
#[derive(Clone, Debug)]
struct PageSeen {
    at: u64,
    prefix: String,
    from: Option<String>,
    to: Option<String>,
}

#[derive(Clone, Debug, Default)]
struct JobSeen {
    pages: Vec<PageSeen>,
    complete: bool,
}

#[derive(Clone, Debug)]
struct Scope {
    from: u64,
    source: SourcePath,
    filter: Filter,
}

/// What the checkers remember.
#[derive(Debug)]
pub struct Checks {
    sync_id: String,
    order: KeyOrder,
    secrets: Vec<String>,
    /// Of each key, when it showed what.
    history: BTreeMap<String, Vec<(u64, Option<Entry>)>>,
    scopes: Vec<Scope>,
    jobs: BTreeMap<String, JobSeen>,
    reconcile: Reconcile,
    ids: BTreeMap<(String, ChangeKind, EtagTag, u64, i64), String>,
    /// The ids under which full syncs handed files over once more.
    resynced: BTreeSet<String>,
    delivered: BTreeSet<(String, EtagTag, u64, i64)>,
    delivered_segments: BTreeSet<String>,
    generation: u64,
    lease: Option<u64>,
    job: Option<String>,
    confirmed: bool,
}

/// Of the coordinator's document, what the checkers look at.
#[derive(Debug, Deserialize)]
struct Stored {
    #[serde(default)]
    status: StoredStatus,
    #[serde(default)]
    jobs: Vec<StoredJob>,
    #[serde(default)]
    lease: Option<StoredLease>,
    #[serde(default)]
    confirm_deletes: bool,
}

#[derive(Debug, Default, Deserialize)]
struct StoredStatus {
    #[serde(default)]
    current_job: Option<StoredJob>,
}

#[derive(Debug, Deserialize)]
struct StoredJob {
    job_id: String,
    status: JobStatus,
}

#[derive(Debug, Deserialize)]
struct StoredLease {
    step: u64,
}

fn place(known: &Known) -> (String, EtagTag, u64, i64) {
    (known.key.clone(), known.tag, known.size, known.last_modified.as_millis())
}

impl Checks {
    /// Nothing has happened yet.
    pub fn new(sync_id: &str, order: KeyOrder, source: SourcePath, filters: &FilterSpec, reconcile: Reconcile) -> Self {
        let mut checks = Self {
            sync_id: sync_id.to_owned(),
            order,
            secrets: Vec::new(),
            history: BTreeMap::new(),
            scopes: Vec::new(),
            jobs: BTreeMap::new(),
            reconcile,
            ids: BTreeMap::new(),
            resynced: BTreeSet::new(),
            delivered: BTreeSet::new(),
            delivered_segments: BTreeSet::new(),
            generation: 0,
            lease: None,
            job: None,
            confirmed: false,
        };
        checks.scoped(0, source, filters);
        checks
    }

    /// From here on this must not be seen anywhere.
    pub fn add_secret(&mut self, secret: String) {
        self.secrets.push(secret);
    }

    /// The key shows this from here on.
    pub fn showed(&mut self, at: u64, key: &str, file: Option<Entry>) {
        let history = self.history.entry(key.to_owned()).or_default();
        if history.last().map(|(_, file)| file) != Some(&file) {
            history.push((at, file));
        }
    }

    /// The sync takes this from here on.
    pub fn scoped(&mut self, at: u64, source: SourcePath, filters: &FilterSpec) {
        if let Ok(filter) = Filter::compile(filters, &source) {
            self.scopes.push(Scope { from: at, source, filter });
        }
    }

    /// What the sync takes now.
    pub fn takes(&self, entry: &Entry) -> bool {
        self.scopes.last().is_some_and(|scope| scope.takes(entry))
    }

    // ---- documents -----------------------------------------------------------------------------------------------

    /// The coordinator's document was written. Answers (step of the lease, job that runs).
    pub fn coordinator_stored(&mut self, bytes: &[u8]) -> Result<(Option<u64>, Option<String>), Violation> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| {
            let message = format!("{} does not read: {error}", coordinator::DOCUMENT);
            Violation::new(Rule::CallsKeepTheirContract, message)
        })?;
        let running = stored.jobs.iter().find(|job| job.status == JobStatus::Running);
        if let Some(job) = running {
            let message = format!("{} runs and is among those that ended", job.job_id);
            return Err(Violation::new(Rule::OneJobAtATime, message));
        }
        let job = stored.status.current_job;
        if let Some(job) = job.as_ref().filter(|job| job.status != JobStatus::Running) {
            return Err(Violation::new(Rule::OneJobAtATime, format!("{} is current and has ended", job.job_id)));
        }
        self.confirmed = stored.confirm_deletes;
        self.lease = stored.lease.map(|lease| lease.step);
        self.job = job.map(|job| job.job_id);
        Ok((self.lease, self.job.clone()))
    }

    /// Whether the user has confirmed that the running job may delete everything.
    pub const fn deletes_are_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The snapshot's document was written.
    pub fn snapshot_stored(&mut self, bytes: &[u8], kv: &StaleKv, exempt: &BTreeSet<String>) -> Result<(), Violation> {
        let document = decode_snapshot(bytes)?;
        if document.root.generation < self.generation {
            let message = format!("generation {} comes after {}", document.root.generation, self.generation);
            return Err(Violation::new(Rule::RootNeverRegresses, message));
        }
        self.generation = document.root.generation;
        // What the document notes counts as delivered, and whoever takes the document up delivers it first.
        let noted: Vec<_> = noted(&document, kv)?.into_iter().map(|known| place(&known)).collect();
        for known in root_entries(&document, kv, Some(&mut self.delivered_segments))? {
            if noted.contains(&place(&known)) {
                continue;
            }
            let another = || self.delivered.iter().any(|(key, ..)| *key == known.key);
            let passed = self.delivered.contains(&place(&known)) || (!self.reconcile.on_update && another());
            if !passed && !exempt.contains(&known.key) {
                let message = format!("the root holds {known:?}, which was never delivered");
                return Err(Violation::new(Rule::RootOnlyDelivered, message));
            }
        }
        if let Some(name) = document.scratch_named().find(|name| kv.truth(name).is_none()) {
            return Err(missing("the document", name));
        }
        let Some(checkpoint) = &document.checkpoint else { return Ok(()) };
        let mut named: Vec<String> = checkpoint.leaves.iter().chain(&checkpoint.pending).cloned().collect();
        let mut leaves = root::decode_node(checkpoint.leaves_tail.as_deref()).map_err(unreadable)?;
        for blob in &checkpoint.leaves {
            leaves.extend(read_node(kv, "the checkpoint", blob)?.1);
        }
        let mut segments = root::decode_node(checkpoint.segments.as_deref()).map_err(unreadable)?;
        for leaf in leaves {
            segments.extend(read_node(kv, "the checkpoint", &node_name(leaf.hash))?.1);
        }
        named.extend(segments.iter().map(segment_name));
        match named.iter().find(|name| kv.truth(name).is_none()) {
            Some(name) => Err(missing("the checkpoint", name)),
            None => Ok(()),
        }
    }

    // ---- listing and delivering ----------------------------------------------------------------------------------

    /// A job was answered a page.
    pub fn paged(&mut self, at: u64, job: &str, prefix: &str, from: Option<String>, to: Option<String>) {
        let job = self.jobs.entry(job.to_owned()).or_default();
        job.pages.push(PageSeen { at, prefix: prefix.to_owned(), from, to });
        job.complete = job.complete || is_complete(&job.pages, prefix, self.order);
    }

    /// Changes reached the sink, delivered by a step.
    pub fn delivered(&mut self, now: u64, step: Option<u64>, changes: &[Change]) -> Result<(), Violation> {
        if step.is_none() || step != self.lease {
            let message = format!("step {step:?} delivers, and the lease is that of {:?}", self.lease);
            return Err(Violation::new(Rule::OneStepAtATime, message));
        }
        for change in changes {
            let versions = self.history.get(&change.entry.key).map_or(&[][..], Vec::as_slice);
            let mut shown = versions.iter().filter_map(|(_, file)| file.as_ref());
            if change.kind == ChangeKind::Deleted {
                let of = |entry: &Entry| change_id(&self.sync_id, change.kind, &Known::from(entry)) == change.id;
                if !shown.any(of) {
                    let message = format!("{change:?} deletes what was never visible");
                    return Err(Violation::new(Rule::NothingInvented, message));
                }
                if !self.is_gone(now, &change.entry.key) {
                    let message = format!("no complete listing has shown that {:?} is gone", change.entry.key);
                    return Err(Violation::new(Rule::DeletesOnlyAfterCompleteCoverage, message));
                }
                if !self.is_deletion_asked_for(now, &change.entry.key) {
                    let message = format!("{change:?} is delivered under {:?}", self.reconcile);
                    return Err(Violation::new(Rule::OnlyWhatIsAskedFor, message));
                }
                continue;
            }
            if !shown.any(|entry| *entry == change.entry) {
                let message = format!("{change:?} was never visible");
                return Err(Violation::new(Rule::NothingInvented, message));
            }
            let known = Known::from(&change.entry);
            // A later job delivers what an earlier one noted.
            let mut jobs = self.jobs.keys();
            let is_again = |job: &String| Change::resynced(&self.sync_id, job, change.entry.clone()) == *change;
            let is_ordinary = change.id == change_id(&self.sync_id, change.kind, &known);
            if !is_ordinary && (self.resynced.contains(&change.id) || jobs.any(is_again)) {
                self.resynced.insert(change.id.clone());
                self.delivered.insert(place(&known));
                continue;
            }
            if change.kind == ChangeKind::Updated && !self.reconcile.on_update {
                let message = format!("{change:?} is delivered under {:?}", self.reconcile);
                return Err(Violation::new(Rule::OnlyWhatIsAskedFor, message));
            }
            let (key, tag, size, modified) = place(&known);
            let id = self.ids.entry((key, change.kind, tag, size, modified)).or_insert_with(|| change.id.clone());
            if *id != change.id || *id != change_id(&self.sync_id, change.kind, &known) {
                let message = format!("{change:?} was delivered as {id} before");
                return Err(Violation::new(Rule::OneIdAChange, message));
            }
            self.delivered.insert(place(&known));
        }
        Ok(())
    }

    /// Whether the deletion of a key may be delivered, for what became of it since the first page of the
    /// latest job that listed everything.
    fn is_deletion_asked_for(&self, now: u64, key: &str) -> bool {
        let Reconcile { on_delete, on_filter_drift, .. } = self.reconcile;
        if on_delete == on_filter_drift {
            return on_delete;
        }
        // A job that is cut off leaves deletions to the next one, which delivers them before it lists.
        let complete = self.jobs.values().filter(|job| job.complete);
        let began = complete.filter_map(|job| Some(job.pages.first()?.at)).max().unwrap_or(now);
        let history = self.history.get(key).map_or(&[][..], Vec::as_slice);
        let until = |place: usize| history.get(place + 1).map_or(now, |(next, _)| *next);
        let shown =
            || history.iter().enumerate().filter(|(place, _)| until(*place) >= began).map(|(_, (_, file))| file);
        // What the source leaves out since it was changed is nothing that a listing would tell of.
        let is_outside = || {
            let ended = |place: usize| self.scopes.get(place + 1).map_or(now, |next| next.from);
            let mut scopes = self.scopes.iter().enumerate().filter(|(place, _)| ended(*place) >= began);
            scopes.any(|(_, scope)| !key.starts_with(scope.source.prefix()))
        };
        if on_delete { shown().any(Option::is_none) } else { shown().any(Option::is_some) || is_outside() }
    }

    /// Whether some job listed everything, and the key was not there, or not taken, when its page was answered.
    fn is_gone(&self, now: u64, key: &str) -> bool {
        let at = |at: u64| {
            let history = self.history.get(key)?;
            history.iter().rev().find(|(from, _)| *from <= at).and_then(|(_, file)| file.as_ref())
        };
        let covers = |page: &&PageSeen| {
            page.from.as_ref().is_none_or(|from| self.order.compare(from, key).is_lt())
                && page.to.as_ref().is_none_or(|to| self.order.compare(key, to).is_le())
        };
        self.jobs.values().filter(|job| job.complete).any(|job| {
            let began = job.pages.first().map_or(0, |page| page.at);
            let scopes = || {
                let until = |place: usize| self.scopes.get(place + 1).map_or(now, |next| next.from);
                let all = self.scopes.iter().enumerate();
                all.filter(move |(place, _)| until(*place) >= began).map(|(_, scope)| scope)
            };
            job.pages
                .iter()
                .filter(covers)
                .any(|page| at(page.at).is_none_or(|file| scopes().any(|scope| !scope.takes(file))))
        })
    }

    /// What is stored or said holds no secret.
    pub fn secret_in(&self, place: &str, bytes: &[u8]) -> Result<(), Violation> {
        let text = String::from_utf8_lossy(bytes);
        if self.secrets.iter().any(|secret| text.contains(secret.as_str())) {
            return Err(Violation::new(Rule::NoSecrets, format!("{place} holds a secret")));
        }
        Ok(())
    }

    // ---- at rest -------------------------------------------------------------------------------------------------

    /// The catalogue is the bucket under the filters, but for `exempt` keys.
    pub fn catalogue_equals_bucket(
        &self,
        catalogue: &[ObjectRecord],
        bucket: &[Entry],
        exempt: &BTreeSet<String>,
    ) -> Result<(), Violation> {
        let of = |entry: &Entry| (entry.key.clone(), entry.clone());
        let wanted: BTreeMap<String, Entry> = bucket.iter().filter(|entry| self.takes(entry)).map(of).collect();
        let held: BTreeMap<String, Entry> = catalogue
            .iter()
            .map(|row| Entry {
                key: row.key.clone(),
                etag: row.etag.clone(),
                size: row.size,
                last_modified: row.last_modified,
            })
            .map(|entry| of(&entry))
            .collect();
        // What was not to be delivered makes the two differ.
        let Reconcile { on_delete, on_update: updates, on_filter_drift } = self.reconcile;
        let deletions = on_delete && on_filter_drift;
        let keys: BTreeSet<&String> = wanted.keys().chain(held.keys()).filter(|key| !exempt.contains(*key)).collect();
        for key in keys {
            let message = match (wanted.get(key), held.get(key)) {
                (Some(wanted), None) => format!("{wanted:?} is lost"),
                (None, Some(held)) if deletions => format!("{held:?} is there, and should not be"),
                (Some(wanted), Some(held)) if wanted != held && updates => {
                    format!("{held:?} is there instead of {wanted:?}")
                }
                _ => continue,
            };
            return Err(Violation::new(Rule::CatalogueEqualsBucket, message));
        }
        Ok(())
    }

    /// The snapshot is the catalogue, and no checkpoint is left.
    pub fn snapshot_equals_catalogue(
        &self,
        snapshot: &[u8],
        kv: &StaleKv,
        catalogue: &[ObjectRecord],
        exempt: &BTreeSet<String>,
    ) -> Result<(), Violation> {
        let document = decode_snapshot(snapshot)?;
        if document.checkpoint.is_some() {
            return Err(Violation::new(Rule::SnapshotEqualsCatalogue, "a checkpoint is left"));
        }
        let not_exempt = |(key, ..): &(String, EtagTag, u64, i64)| !exempt.contains(key);
        let known: BTreeSet<_> =
            root_entries(&document, kv, None)?.iter().map(place).filter(|place| not_exempt(place)).collect();
        let held: BTreeSet<_> = catalogue
            .iter()
            .map(|row| (row.key.clone(), EtagTag::of(&row.etag), row.size, row.last_modified.as_millis()))
            .filter(|place| not_exempt(place))
            .collect();
        let Reconcile { on_delete, on_update, on_filter_drift } = self.reconcile;
        let held_keys: BTreeSet<&String> = held.iter().map(|(key, ..)| key).collect();
        let known_keys: BTreeSet<&String> = known.iter().map(|(key, ..)| key).collect();
        let differ =
            |(key, ..): &&(String, EtagTag, u64, i64)| match (held_keys.contains(key), known_keys.contains(key)) {
                (true, true) => on_update,
                (true, false) => on_delete && on_filter_drift,
                (false, _) => true,
            };
        match known.symmetric_difference(&held).find(differ) {
            Some(other) => {
                let message = format!("only one of catalogue and snapshot holds {other:?}");
                Err(Violation::new(Rule::SnapshotEqualsCatalogue, message))
            }
            None => Ok(()),
        }
    }
}

impl Scope {
    fn takes(&self, entry: &Entry) -> bool {
        entry.key.starts_with(self.source.prefix()) && self.filter.matches(entry)
    }
}

/// Whether the pages, in whatever order they came, leave no gap.
fn is_complete(pages: &[PageSeen], prefix: &str, order: KeyOrder) -> bool {
    let mut covered: Option<&str> = None;
    loop {
        let follows = |page: &&PageSeen| {
            page.prefix == prefix
                && match (&page.from, covered) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(from), Some(covered)) => order.compare(from, covered).is_le(),
                }
        };
        let mut farthest = covered;
        for page in pages.iter().filter(follows) {
            let Some(to) = page.to.as_deref() else { return true };
            if farthest.is_none_or(|far| order.compare(to, far).is_gt()) {
                farthest = Some(to);
            }
        }
        if farthest == covered {
            return false;
        }
        covered = farthest;
    }
}

fn segment_name(segment: &SegmentRef) -> String {
    format!("segment/{}", segment.hash)
}

fn unreadable(error: impl std::fmt::Debug) -> Violation {
    Violation::new(Rule::NothingNamedIsMissing, format!("a stored piece does not decode: {error:?}"))
}

fn missing(who: &str, name: &str) -> Violation {
    Violation::new(Rule::NothingNamedIsMissing, format!("{who} names {name}, which is not stored"))
}

fn decode_snapshot(bytes: &[u8]) -> Result<SnapshotDocument, Violation> {
    SnapshotDocument::decode(bytes).map_err(unreadable)
}

fn read_node(kv: &StaleKv, who: &str, name: &str) -> Result<(Level, Vec<SegmentRef>), Violation> {
    let bytes = kv.truth(name).ok_or_else(|| missing(who, name))?;
    index::decode(&bytes).map_err(unreadable)
}

/// What the document notes as about to be delivered, and as delivered.
fn noted(document: &SnapshotDocument, kv: &StaleKv) -> Result<Vec<Known>, Violation> {
    let noted = match &document.in_doubt_blob {
        Some(name) => {
            changes::decode(&kv.truth(name).ok_or_else(|| missing("the document", name))?).map_err(unreadable)?
        }
        None => root::decode_changes(document.in_doubt.as_deref()).map_err(unreadable)?,
    };
    Ok(noted
        .into_iter()
        .map(|noted| match noted {
            Noted::Appeared(_, entry) | Noted::Resynced { entry, .. } => Known::from(&entry),
            Noted::Vanished(known) => known,
        })
        .collect())
}

/// All that the root names must be there. Answers its entries; of segments that are in `passed` already, none.
fn root_entries(
    document: &SnapshotDocument,
    kv: &StaleKv,
    mut passed: Option<&mut BTreeSet<String>>,
) -> Result<Vec<Known>, Violation> {
    let mut entries = Vec::new();
    let Some(name) = &document.root.index else { return Ok(entries) };
    let (level, items) = read_node(kv, "the root", name)?;
    let mut segments = Vec::new();
    for item in items {
        match level {
            Level::Leaf => segments.push(item),
            Level::Top => segments.extend(read_node(kv, "the root", &node_name(item.hash))?.1),
        }
    }
    for reference in segments {
        let name = segment_name(&reference);
        let bytes = kv.truth(&name).ok_or_else(|| missing("the root", &name))?;
        if passed.as_mut().is_none_or(|passed| passed.insert(name)) {
            let plain = packed::unpack(&bytes).map_err(unreadable)?;
            entries.extend(segment::decode(plain.as_deref().unwrap_or(&bytes)).map_err(unreadable)?);
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(from: Option<&str>, to: Option<&str>) -> PageSeen {
        PageSeen { at: 0, prefix: String::new(), from: from.map(str::to_owned), to: to.map(str::to_owned) }
    }

    #[test]
    fn pages_are_complete_without_a_gap_and_in_any_order() {
        let complete = |pages: &[PageSeen]| is_complete(pages, "", KeyOrder::Utf8);
        assert!(complete(&[page(None, None)]));
        assert!(complete(&[page(Some("m"), None), page(None, Some("m"))]));
        assert!(complete(&[page(None, Some("m")), page(Some("k"), None)]), "overlapping is no gap");
        assert!(!complete(&[page(None, Some("k")), page(Some("m"), None)]));
        assert!(!complete(&[page(None, Some("m"))]));
        assert!(!complete(&[page(Some("m"), None)]));
        assert!(!complete(&[]));
    }
}
