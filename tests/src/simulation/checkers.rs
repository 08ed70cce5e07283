//! What must be so after every step, and at rest.
//!
//! They know the truth that the engine cannot know: every version of every file that was ever visible, and which pages
//! each job was answered. None of them asks the engine anything; they read what is stored and what is delivered.

use std::collections::{BTreeMap, BTreeSet};

use b2sync_core::engine::Reconcile;
use b2sync_core::engine::limit::DeletionLimit;
use b2sync_core::engine::state::node_name;
use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::job::{JobCost, JobStatus, Trigger};
use b2sync_core::sink::{Change, ChangeKind, change_id};
use b2sync_core::snapshot::changes::{self, Noted};
use b2sync_core::snapshot::index::{self, Level, SegmentRef};
use b2sync_core::snapshot::root::{self, Root, SnapshotDocument};
use b2sync_core::snapshot::{EtagTag, Known, packed, segment};
use b2sync_core::source_path::SourcePath;
use b2sync_service::catalogue::ObjectRecord;
use b2sync_service::coordinator;
use b2sync_service::cost;
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
    /// The root's generation never goes back, and each root has another.
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
    /// Each change of a key follows from the one before it: what is created is not there, what is updated was another
    /// version, and what is deleted is the version that is there.
    ChangesFollow,
    /// Deletions only of what a complete listing has shown to be gone.
    DeletesOnlyAfterCompleteCoverage,
    /// Only who holds the lease delivers.
    OneStepAtATime,
    /// At most one job runs.
    OneJobAtATime,
    /// No page is asked for beyond the budget, and no step spends more than that and what one page may cost.
    WithinTheBudget,
    /// A job delivers no more files of its own than `max_objects_per_run` says.
    WithinTheObjects,
    /// A job notes no more deletions than `deletion_limit` says, for each time it lists, unless its user has confirmed them.
    WithinTheDeletionLimit,
    /// Polls begin no earlier than `max_class_c_per_day` lets them.
    WithinTheCap,
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
    from: Option<String>,
    to: Option<String>,
}

/// The pages that a job was answered under one scope: under another, it lists from the beginning.
#[derive(Clone, Debug)]
struct ListingSeen {
    scope: usize,
    pages: Vec<PageSeen>,
    complete: bool,
}

#[derive(Clone, Debug)]
struct Scope {
    from: u64,
    source: SourcePath,
    filter: Filter,
    fingerprint: String,
}

/// A version of a key, to be looked up: its key, ETag tag, size and time.
type Place = (String, EtagTag, u64, i64);

/// What the sink was offered of a key last.
#[derive(Clone, Debug)]
struct Offered {
    id: String,
    /// The file that is there by then; `None`: it is deleted.
    version: Option<Known>,
}

/// A job that began by itself.
#[derive(Clone, Debug)]
struct PollSeen {
    began_ms: i64,
    class_c: u64,
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
    /// By job and fingerprint of the scope.
    listings: BTreeMap<(String, String), ListingSeen>,
    reconcile: Reconcile,
    objects_max: Option<u64>,
    deletion_limit: DeletionLimit,
    /// Class C calls a day, and how far clocks are off, in milliseconds.
    class_c_max: Option<(u64, i64)>,
    ids: BTreeMap<(String, ChangeKind, EtagTag, u64, i64), String>,
    /// The ids under which full syncs handed files over once more.
    resynced: BTreeSet<String>,
    delivered: BTreeSet<Place>,
    delivered_segments: BTreeSet<String>,
    /// Of each key, the latest change that the sink was offered.
    offered: BTreeMap<String, Offered>,
    /// When the sink was first offered a key as it is there: no page before that tells that it is gone.
    appeared: BTreeMap<String, u64>,
    /// Keys whose deletion was right, and when they had appeared: to deliver it again is right as well.
    deletable: BTreeMap<String, u64>,
    /// The blobs that root and checkpoint name.
    named: BTreeSet<String>,
    /// What the document notes as about to be delivered.
    in_doubt: (Option<String>, Option<String>),
    /// Of that, the deletions.
    in_doubt_deletions: BTreeSet<Place>,
    /// What each job was the first to note as gone, by job and root: under other filters it lists anew, beside another root.
    found_gone: BTreeMap<(String, u64), BTreeSet<Place>>,
    /// Jobs whose deletions were confirmed.
    confirmed_jobs: BTreeSet<String>,
    /// What each job was the first to note.
    found: BTreeMap<String, BTreeSet<(ChangeKind, Place)>>,
    polls: BTreeMap<String, PollSeen>,
    /// As it was stored last.
    root: Root,
    lease: Option<u64>,
    job: Option<String>,
    confirmed: bool,
}

/// What a coordinator's document says.
#[derive(Clone, Debug, Default)]
pub struct CoordinatorSeen {
    /// The step that has the lease.
    pub lease: Option<u64>,
    /// The job that runs.
    pub job: Option<String>,
    /// Whether a cap puts the next poll off.
    pub stretched: bool,
    /// Whether the latest job that ended delivered as much as it may.
    pub limited: bool,
    /// Whether it keeps a bookmark.
    pub bookmark: bool,
}

/// Which parts of a snapshot's document are in blobs, since they are too long for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct SnapshotSeen {
    /// The open segment.
    pub pending: bool,
    /// Leaves of the next snapshot.
    pub leaves: bool,
    /// Deletions.
    pub deletions: bool,
    /// What is about to be delivered.
    pub in_doubt: bool,
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
    #[serde(default)]
    bookmark: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
struct StoredStatus {
    #[serde(default)]
    current_job: Option<StoredJob>,
    #[serde(default)]
    stretched: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct StoredJob {
    job_id: String,
    status: JobStatus,
    trigger: Trigger,
    cost: JobCost,
    #[serde(default)]
    limited: bool,
}

#[derive(Debug, Deserialize)]
struct StoredLease {
    step: u64,
}

fn place(known: &Known) -> Place {
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
            listings: BTreeMap::new(),
            reconcile,
            objects_max: None,
            deletion_limit: DeletionLimit::default(),
            class_c_max: None,
            ids: BTreeMap::new(),
            resynced: BTreeSet::new(),
            delivered: BTreeSet::new(),
            delivered_segments: BTreeSet::new(),
            offered: BTreeMap::new(),
            appeared: BTreeMap::new(),
            deletable: BTreeMap::new(),
            named: BTreeSet::new(),
            in_doubt: (None, None),
            in_doubt_deletions: BTreeSet::new(),
            found_gone: BTreeMap::new(),
            confirmed_jobs: BTreeSet::new(),
            found: BTreeMap::new(),
            polls: BTreeMap::new(),
            root: Root::default(),
            lease: None,
            job: None,
            confirmed: false,
        };
        checks.scoped(0, source, filters);
        checks
    }

    /// A job delivers so many files of its own at most.
    pub fn limit_objects(&mut self, objects_max: Option<u64>) {
        self.objects_max = objects_max;
    }

    /// A job delivers so many deletions at most, unless they are confirmed.
    pub fn limit_deletions(&mut self, deletion_limit: DeletionLimit) {
        self.deletion_limit = deletion_limit;
    }

    /// Polls come to so many class C calls a day at most, by clocks that are off by so much. With `None`, they do not count.
    pub fn limit_class_c(&mut self, class_c_max: Option<u64>, skew_ms_max: u64) {
        self.class_c_max = class_c_max.map(|most| (most, i64::try_from(skew_ms_max).unwrap_or(i64::MAX)));
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
            let fingerprint = format!("{source} {}", filters.fingerprint());
            self.scopes.push(Scope { from: at, source, filter, fingerprint });
        }
    }

    /// What the sync takes now.
    pub fn takes(&self, entry: &Entry) -> bool {
        self.scopes.last().is_some_and(|scope| scope.takes(entry))
    }

    // ---- documents -----------------------------------------------------------------------------------------------

    /// The coordinator's document was written. Answers what it says.
    pub fn coordinator_stored(&mut self, now_ms: i64, bytes: &[u8]) -> Result<CoordinatorSeen, Violation> {
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
        for ended in &stored.jobs {
            if let Some(poll) = self.polls.get_mut(&ended.job_id) {
                poll.class_c = ended.cost.class_c;
            }
        }
        if let Some(job) = job.as_ref().filter(|job| self.job.as_ref() != Some(&job.job_id)) {
            self.began(now_ms, job)?;
        }
        self.confirmed = stored.confirm_deletes;
        self.confirmed_jobs.extend(job.as_ref().filter(|_| stored.confirm_deletes).map(|job| job.job_id.clone()));
        self.lease = stored.lease.map(|lease| lease.step);
        self.job = job.map(|job| job.job_id);
        Ok(CoordinatorSeen {
            lease: self.lease,
            job: self.job.clone(),
            stretched: stored.status.stretched.is_some(),
            limited: stored.jobs.first().is_some_and(|job| job.limited),
            bookmark: stored.bookmark.is_some(),
        })
    }

    /// A job begins. By itself none does before the calls of those before it have had their share of a day.
    fn began(&mut self, now_ms: i64, job: &StoredJob) -> Result<(), Violation> {
        if job.trigger != Trigger::Scheduled {
            return Ok(());
        }
        if let Some((most, skew_ms)) = self.class_c_max {
            // Each of two clocks is off.
            let day_ms = i64::try_from(cost::DAY_S * 1_000).unwrap_or(i64::MAX) - 4 * skew_ms;
            let today = self.polls.values().filter(|poll| now_ms - poll.began_ms < day_ms);
            let made: u64 = today.map(|poll| poll.class_c).sum();
            if made > most {
                let message =
                    format!("{} begins by itself after {made} class C calls within a day of {most}", job.job_id);
                return Err(Violation::new(Rule::WithinTheCap, message));
            }
        }
        let poll = PollSeen { began_ms: now_ms, class_c: 0 };
        self.polls.insert(job.job_id.clone(), poll);
        Ok(())
    }

    /// Whether the user has confirmed that the running job may delete everything.
    pub const fn deletes_are_confirmed(&self) -> bool {
        self.confirmed
    }

    /// The snapshot's document was written.
    pub fn snapshot_stored(
        &mut self,
        bytes: &[u8],
        kv: &StaleKv,
        exempt: &BTreeSet<String>,
    ) -> Result<SnapshotSeen, Violation> {
        let document = decode_snapshot(bytes)?;
        // Within a generation only garbage goes.
        let root = Root { garbage: self.root.garbage.clone(), ..document.root.clone() };
        if root.generation < self.root.generation || (root.generation == self.root.generation && root != self.root) {
            let message = format!("generation {} comes after {}", root.generation, self.root.generation);
            return Err(Violation::new(Rule::RootNeverRegresses, message));
        }
        self.root = document.root.clone();
        // What the document notes counts as delivered, and whoever takes the document up delivers it first.
        let in_doubt = noted(&document, kv)?;
        self.noted_now(&document, &in_doubt)?;
        let noted: Vec<_> = in_doubt.into_iter().map(|noted| place(&known_of(noted))).collect();
        self.named = document.in_doubt_blob.iter().cloned().collect();
        for known in root_entries(&document, kv, Some(&mut self.delivered_segments), &mut self.named)? {
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
        self.named.extend(document.scratch_named().map(str::to_owned));
        let in_doubt = document.in_doubt_blob.is_some();
        let Some(checkpoint) = &document.checkpoint else { return Ok(SnapshotSeen { in_doubt, ..Default::default() }) };
        let mut named: Vec<String> = checkpoint.leaves.iter().chain(&checkpoint.pending).cloned().collect();
        let mut leaves = root::decode_node(checkpoint.leaves_tail.as_deref()).map_err(unreadable)?;
        for blob in &checkpoint.leaves {
            leaves.extend(read_node(kv, "the checkpoint", blob)?.1);
        }
        let mut segments = root::decode_node(checkpoint.segments.as_deref()).map_err(unreadable)?;
        for leaf in leaves {
            let name = node_name(leaf.hash);
            segments.extend(read_node(kv, "the checkpoint", &name)?.1);
            named.push(name);
        }
        named.extend(segments.iter().map(segment_name));
        if let Some(name) = named.iter().find(|name| kv.truth(name).is_none()) {
            return Err(missing("the checkpoint", name));
        }
        self.named.extend(named);
        Ok(SnapshotSeen {
            pending: checkpoint.pending.is_some(),
            leaves: !checkpoint.leaves.is_empty(),
            deletions: !checkpoint.deletions.is_empty(),
            in_doubt,
        })
    }

    /// Counts the files that a job notes for the first time.
    fn noted_now(&mut self, document: &SnapshotDocument, in_doubt: &[Noted]) -> Result<(), Violation> {
        let before = (document.in_doubt.clone(), document.in_doubt_blob.clone());
        let is_new = std::mem::replace(&mut self.in_doubt, before.clone()) != before;
        let vanished = in_doubt.iter().filter_map(|noted| match noted {
            Noted::Vanished(known) => Some(place(known)),
            Noted::Appeared(..) | Noted::Resynced { .. } => None,
        });
        let deletions_before = std::mem::replace(&mut self.in_doubt_deletions, vanished.collect());
        let Some(checkpoint) = document.checkpoint.as_ref().filter(|_| is_new) else { return Ok(()) };
        // What is left of what another job noted is not of this one.
        let listing = (checkpoint.job_id.clone(), document.root.generation);
        let is_confirmed = self.confirmed_jobs.contains(&checkpoint.job_id);
        let gone = self.found_gone.entry(listing).or_default();
        gone.extend(self.in_doubt_deletions.difference(&deletions_before).cloned());
        let (gone, known, limit) = (gone.len() as u64, document.root.entries, self.deletion_limit);
        let is_within_part = gone * 100 <= known * u64::from(limit.percent);
        if gone > u64::from(limit.files) && !is_within_part && limit.percent < 100 && !is_confirmed {
            let message = format!("{} deletes {gone} of {known} files within {limit:?}", checkpoint.job_id);
            return Err(Violation::new(Rule::WithinTheDeletionLimit, message));
        }
        let found = self.found.entry(checkpoint.job_id.clone()).or_default();
        found.extend(in_doubt.iter().filter_map(|noted| match noted {
            Noted::Appeared(kind, entry) => Some((*kind, place(&Known::from(entry)))),
            Noted::Vanished(_) | Noted::Resynced { .. } => None,
        }));
        match self.objects_max.filter(|most| found.len() as u64 > *most) {
            Some(most) => {
                let message = format!("{} delivers {} files of at most {most}", checkpoint.job_id, found.len());
                Err(Violation::new(Rule::WithinTheObjects, message))
            }
            None => Ok(()),
        }
    }

    /// A blob is deleted: nothing that is stored may name it, also if what is stored is about to be replaced.
    pub fn blob_deleted(&self, name: &str) -> Result<(), Violation> {
        if self.named.contains(name) {
            let message = format!("{name} is deleted, and the root or the checkpoint that is stored names it");
            return Err(Violation::new(Rule::NothingNamedIsMissing, message));
        }
        Ok(())
    }

    // ---- listing and delivering ----------------------------------------------------------------------------------

    /// The place of the scope that holds at a moment.
    fn scope_at(&self, at: u64) -> usize {
        self.scopes.iter().rposition(|scope| scope.from <= at).unwrap_or(0)
    }

    /// A job was answered a page, by a step that had read its sync's configuration at that moment.
    pub fn paged(&mut self, at: u64, job: &str, configured_at: u64, from: Option<String>, to: Option<String>) {
        let scope = self.scope_at(configured_at);
        let fingerprint = self.scopes.get(scope).map_or_else(String::new, |scope| scope.fingerprint.clone());
        let listing = self.listings.entry((job.to_owned(), fingerprint));
        let listing = listing.or_insert_with(|| ListingSeen { scope, pages: Vec::new(), complete: false });
        listing.pages.push(PageSeen { at, from, to });
        listing.complete = listing.complete || coverage(&listing.pages, self.order) == Coverage::Everything;
    }

    /// Changes are offered to the sink, which may refuse some of them.
    pub fn offered(&mut self, now: u64, changes: &[Change]) -> Result<(), Violation> {
        for change in changes {
            if change.kind == ChangeKind::Deleted {
                self.deletion_offered(now, change)?;
            }
            let key = &change.entry.key;
            let before = self.offered.get(key);
            if before.is_some_and(|before| before.id == change.id) {
                continue;
            }
            if let Some(why) = self.does_not_follow(before, change) {
                return Err(Violation::new(Rule::ChangesFollow, format!("{change:?} {why}: {before:?}")));
            }
            let version = (change.kind != ChangeKind::Deleted).then(|| Known::from(&change.entry));
            if version.is_some() {
                self.appeared.insert(key.clone(), now);
            }
            self.offered.insert(key.clone(), Offered { id: change.id.clone(), version });
        }
        Ok(())
    }

    /// A deletion is offered: the file was there, a listing has shown that it is gone, and that it is to be told.
    fn deletion_offered(&mut self, now: u64, change: &Change) -> Result<(), Violation> {
        let key = &change.entry.key;
        let versions = self.history.get(key).map_or(&[][..], Vec::as_slice);
        let mut shown = versions.iter().filter_map(|(_, file)| file.as_ref());
        if !shown.any(|entry| change_id(&self.sync_id, change.kind, &Known::from(entry)) == change.id) {
            return Err(Violation::new(Rule::NothingInvented, format!("{change:?} deletes what was never visible")));
        }
        let since = self.appeared.get(key).copied().unwrap_or(0);
        if self.deletable.get(key) == Some(&since) {
            return Ok(());
        }
        if !self.is_gone(since, key) {
            let message = format!("no complete listing has shown that {key:?} is gone, since it was delivered");
            return Err(Violation::new(Rule::DeletesOnlyAfterCompleteCoverage, message));
        }
        if !self.is_deletion_asked_for(now, key) {
            let message = format!("{change:?} is delivered under {:?}", self.reconcile);
            return Err(Violation::new(Rule::OnlyWhatIsAskedFor, message));
        }
        self.deletable.insert(key.clone(), since);
        Ok(())
    }

    /// Why a change cannot come after the one before it.
    fn does_not_follow(&self, before: Option<&Offered>, change: &Change) -> Option<&'static str> {
        let Reconcile { on_delete, on_update, on_filter_drift } = self.reconcile;
        let version = before.and_then(|before| before.version.as_ref());
        let known = Known::from(&change.entry);
        let is_ordinary = change.id == change_id(&self.sync_id, change.kind, &known);
        match (change.kind, version) {
            (ChangeKind::Created, Some(_)) if on_delete && on_filter_drift => Some("creates what is there"),
            (ChangeKind::Updated, Some(version)) if is_ordinary && *version == known => Some("changes nothing"),
            (ChangeKind::Deleted, Some(version))
                if on_update && change.id != change_id(&self.sync_id, change.kind, version) =>
            {
                Some("deletes another version than is there")
            }
            (ChangeKind::Updated | ChangeKind::Deleted, None) => Some("is of what is not there"),
            _ => None,
        }
    }

    /// Changes reached the sink, delivered by a step.
    pub fn delivered(&mut self, step: Option<u64>, changes: &[Change]) -> Result<(), Violation> {
        if step.is_none() || step != self.lease {
            let message = format!("step {step:?} delivers, and the lease is that of {:?}", self.lease);
            return Err(Violation::new(Rule::OneStepAtATime, message));
        }
        for change in changes {
            let versions = self.history.get(&change.entry.key).map_or(&[][..], Vec::as_slice);
            let mut shown = versions.iter().filter_map(|(_, file)| file.as_ref());
            if change.kind == ChangeKind::Deleted {
                // Judged when it was offered: refused and sent back, it is delivered later, whatever is so by then.
                continue;
            }
            if !shown.any(|entry| *entry == change.entry) {
                let message = format!("{change:?} was never visible");
                return Err(Violation::new(Rule::NothingInvented, message));
            }
            let known = Known::from(&change.entry);
            // A later job delivers what an earlier one noted.
            let mut jobs = self.listings.keys();
            let is_again =
                |(job, _): &(String, String)| Change::resynced(&self.sync_id, job, change.entry.clone()) == *change;
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
        let complete = self.listings.values().filter(|listing| listing.complete);
        let began = complete.filter_map(|listing| Some(listing.pages.first()?.at)).max().unwrap_or(now);
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

    /// Whether some job listed everything, or all that it was to deliver, and the key was not there, or not taken, when
    /// its page was answered after `since`.
    fn is_gone(&self, since: u64, key: &str) -> bool {
        let at = |at: u64| {
            let history = self.history.get(key)?;
            history.iter().rev().find(|(from, _)| *from <= at).and_then(|(_, file)| file.as_ref())
        };
        let covers = |page: &PageSeen| {
            page.from.as_ref().is_none_or(|from| self.order.compare(from, key).is_lt())
                && page.to.as_ref().is_none_or(|to| self.order.compare(key, to).is_le())
        };
        self.listings.values().any(|listing| {
            let takes = |file: &Entry| self.scopes.get(listing.scope).is_some_and(|scope| scope.takes(file));
            let is_absent = |page: &PageSeen| at(page.at).is_none_or(|file| !takes(file));
            listing.pages.iter().any(|page| page.at > since && covers(page) && is_absent(page))
                && (listing.complete || (self.objects_max.is_some() && self.reaches(&listing.pages, key)))
        })
    }

    /// Whether the pages leave no gap up to a key.
    fn reaches(&self, pages: &[PageSeen], key: &str) -> bool {
        match coverage(pages, self.order) {
            Coverage::Everything => true,
            Coverage::UpTo(to) => to.is_some_and(|to| self.order.compare(key, to).is_le()),
        }
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
        let not_exempt = |(key, ..): &Place| !exempt.contains(key);
        let known: BTreeSet<_> = root_entries(&document, kv, None, &mut BTreeSet::new())?
            .iter()
            .map(place)
            .filter(|place| not_exempt(place))
            .collect();
        let held: BTreeSet<_> = catalogue
            .iter()
            .map(|row| (row.key.clone(), EtagTag::of(&row.etag), row.size, row.last_modified.as_millis()))
            .filter(|place| not_exempt(place))
            .collect();
        let Reconcile { on_delete, on_update, on_filter_drift } = self.reconcile;
        let held_keys: BTreeSet<&String> = held.iter().map(|(key, ..)| key).collect();
        let known_keys: BTreeSet<&String> = known.iter().map(|(key, ..)| key).collect();
        let differ = |(key, ..): &&Place| match (held_keys.contains(key), known_keys.contains(key)) {
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

/// What pages cover without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coverage<'a> {
    Everything,
    UpTo(Option<&'a str>),
}

/// What the pages, in whatever order they came, cover from the first key on without a gap.
fn coverage(pages: &[PageSeen], order: KeyOrder) -> Coverage<'_> {
    let mut covered: Option<&str> = None;
    loop {
        let follows = |page: &&PageSeen| match (&page.from, covered) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(from), Some(covered)) => order.compare(from, covered).is_le(),
        };
        let mut farthest = covered;
        for page in pages.iter().filter(follows) {
            let Some(to) = page.to.as_deref() else { return Coverage::Everything };
            if farthest.is_none_or(|far| order.compare(to, far).is_gt()) {
                farthest = Some(to);
            }
        }
        if farthest == covered {
            return Coverage::UpTo(covered);
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
fn noted(document: &SnapshotDocument, kv: &StaleKv) -> Result<Vec<Noted>, Violation> {
    match &document.in_doubt_blob {
        Some(name) => {
            changes::decode(&kv.truth(name).ok_or_else(|| missing("the document", name))?).map_err(unreadable)
        }
        None => root::decode_changes(document.in_doubt.as_deref()).map_err(unreadable),
    }
}

fn known_of(noted: Noted) -> Known {
    match noted {
        Noted::Appeared(_, entry) | Noted::Resynced { entry, .. } => Known::from(&entry),
        Noted::Vanished(known) => known,
    }
}

/// All that the root names must be there, and is added to `named`. Answers its entries; of segments that are in `passed`
/// already, none.
fn root_entries(
    document: &SnapshotDocument,
    kv: &StaleKv,
    mut passed: Option<&mut BTreeSet<String>>,
    named: &mut BTreeSet<String>,
) -> Result<Vec<Known>, Violation> {
    let mut entries = Vec::new();
    let Some(name) = &document.root.index else { return Ok(entries) };
    let (level, items) = read_node(kv, "the root", name)?;
    named.insert(name.clone());
    let mut segments = Vec::new();
    for item in items {
        match level {
            Level::Leaf => segments.push(item),
            Level::Top => {
                let name = node_name(item.hash);
                segments.extend(read_node(kv, "the root", &name)?.1);
                named.insert(name);
            }
        }
    }
    for reference in segments {
        let name = segment_name(&reference);
        let bytes = kv.truth(&name).ok_or_else(|| missing("the root", &name))?;
        named.insert(name.clone());
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
        PageSeen { at: 0, from: from.map(str::to_owned), to: to.map(str::to_owned) }
    }

    #[test]
    fn pages_are_complete_without_a_gap_and_in_any_order() {
        let complete = |pages: &[PageSeen]| coverage(pages, KeyOrder::Utf8) == Coverage::Everything;
        assert!(complete(&[page(None, None)]));
        assert!(complete(&[page(Some("m"), None), page(None, Some("m"))]));
        assert!(complete(&[page(None, Some("m")), page(Some("k"), None)]), "overlapping is no gap");
        assert!(!complete(&[page(None, Some("k")), page(Some("m"), None)]));
        assert!(!complete(&[page(None, Some("m"))]));
        assert!(!complete(&[page(Some("m"), None)]));
        assert!(!complete(&[]));
        let to_the_gap = [page(None, Some("k")), page(Some("m"), None)];
        assert_eq!(coverage(&to_the_gap, KeyOrder::Utf8), Coverage::UpTo(Some("k")));
    }
}
