//! What a step, or several of a job that is held between them, has in memory.

use super::listing::{Mark, Open, lanes::PausedLanes, source::ListingWatch};
use crate::{
    engine::{assembly::Assembly, bookmark::Bookmark, previous::Base},
    feed::outbox::{Batch, Outbox},
    filter::SeenRecord,
    job::{JobCounts, Phase},
    policy::{DeletionLimit, HeldBack},
    snapshot::{
        Known,
        cut::{Begins, Cut},
    },
    state::{
        document::{KnownPart, NameList, Resync, Root, SnapshotDocument},
        names::Names,
    },
};

/// Where a job would go on, were it cut off now: behind the latest segment that was closed.
#[derive(Clone, Debug)]
pub(super) struct ResumePoint {
    pub(super) start_after: Option<String>,
    pub(super) listed: u64,
    pub(super) matched: u64,
    pub(super) matched_bytes: u64,
    pub(super) unreadable: u64,
}

/// At most one segment of the listing and one of the snapshot, one leaf, what is about to be stored and appended, and
/// the list of leaves.
#[derive(Debug)]
pub(super) struct JobState {
    pub(super) stored: Stored,
    pub(super) place: Place,
    pub(super) next: NextSnapshot,
    pub(super) deletions: Deletions,
    pub(super) quiet: Quiet,
    /// Changes that no swap has appended yet.
    pub(super) outbox: Outbox,
    /// Batches that this step appended, the first of them.
    pub(super) appended: Vec<Batch>,
    /// Created and updated files that the job found, and those that it hands over again.
    pub(super) objects_found: u64,
    /// Which files are handed over again.
    pub(super) resync: Option<Resync>,
    /// What the job found and appended.
    pub(super) counts: JobCounts,
    pub(super) phase: Phase,
    /// What it has seen of the filters, while it is held: else [`super::JobSpec::seen`] has it.
    pub(super) seen: SeenRecord,
}

/// The document as it is stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) document: SnapshotDocument,
    pub(super) revision: u64,
    /// Whether this step read it, or wrote it.
    pub(super) is_known: bool,
    /// Files in the snapshot before the job.
    pub(super) known_before: u64,
    /// The position of the newest change when it was read.
    pub(super) last_before: u64,
}

/// How far the listing is compared.
#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) watch: ListingWatch,
    /// Whether the listing was read to its end, or as far as the job may go.
    pub(super) listed: bool,
    /// Whether the job ended its listing early, because it has found as many files as it may.
    pub(super) limited: bool,
    pub(super) covered_to: Option<String>,
    /// Whether the latest piece was at the end of the listing: `covered_to` is `None` then, as before the first one.
    pub(super) at_end: bool,
    pub(super) resume_point: Option<ResumePoint>,
    /// Behind the latest piece, also where no segment was closed there.
    pub(super) mark: Option<ResumePoint>,
    /// What was read behind the last segment, where the step ends in it; and what its first key begins, if that
    /// matters.
    pub(super) pending: Option<(Open, Mark, Option<Begins>)>,
    /// The same of the checkpoint that was taken up, and how many entries there are.
    pub(super) pending_begins: Option<Begins>,
    pub(super) pending_entries: usize,
    /// Whether the last segment goes on behind `covered_to`.
    pub(super) unfinished: bool,
    /// Segments are cut elsewhere than the listing's pieces are, until one begins at a key that says so.
    pub(super) realign: bool,
}

/// The snapshot that comes next, and what it replaces.
#[derive(Debug)]
pub(super) struct NextSnapshot {
    pub(super) assembly: Assembly,
    /// Of the leaves, how many are in `leaf_blobs`.
    pub(super) leaves_stored: usize,
    pub(super) leaf_blobs: Vec<String>,
    /// The top of the next index, once it is stored.
    pub(super) top_stored: Option<String>,
    /// Leaves that were read, closed or taken apart.
    pub(super) looked_into: Names,
    /// What stands beside the snapshot and the job did not get to: the next root keeps it.
    pub(super) undeleted: Vec<KnownPart>,
    /// Blobs that only checkpoints of this job name.
    pub(super) scratch: Vec<String>,
    /// What is left of the root's garbage, where some was deleted.
    pub(super) garbage: Option<NameList>,
}

/// Files that are gone.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// Found, and not in `parts`.
    pub(super) held: Vec<Known>,
    pub(super) held_key_bytes: usize,
    pub(super) parts: Vec<KnownPart>,
    pub(super) found: u64,
    /// Dealt with: appended, or not asked for.
    pub(super) done: u64,
    /// Where it matters why files vanished, and many did: how many were looked for, and of these are to be appended.
    pub(super) checked: u64,
    pub(super) due: u64,
    /// How many of those that were looked for again were appended.
    pub(super) appended: u64,
    /// More than the limit allows: the next root keeps them.
    pub(super) held_back: Option<HeldBack>,
}

/// What keeps a poll that finds nothing from writing.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    /// Behind the latest leaf that is as before.
    pub(super) bookmark: Option<Bookmark>,
    /// The bookmark that the caller is to keep.
    pub(super) bookmark_to_keep: Option<Bookmark>,
    /// Leaves passed at the latest bookmark that the caller knows.
    pub(super) leaves_passed: usize,
    /// Where the previous step, or this one, stopped with nothing stored, to be resumed.
    pub(super) paused: Option<Box<Paused>>,
}

impl JobState {
    pub(super) fn new(cut: Cut) -> Self {
        Self {
            stored: Stored::default(),
            place: Place::default(),
            next: NextSnapshot::new(Assembly::new(cut, Vec::new(), Vec::new())),
            deletions: Deletions::default(),
            quiet: Quiet::default(),
            outbox: Outbox::default(),
            appended: Vec::new(),
            objects_found: 0,
            resync: None,
            counts: JobCounts::default(),
            phase: Phase::Queued,
            seen: SeenRecord::default(),
        }
    }

    /// Where the job would go on behind all that was taken so far, the last key listed being `start_after`.
    pub(super) fn mark_behind(&self, start_after: Option<String>) -> ResumePoint {
        let JobCounts { listed, matched, matched_bytes, unreadable, .. } = self.counts;
        ResumePoint { start_after, listed, matched, matched_bytes, unreadable }
    }

    /// Makes the end of the latest piece a point to resume at, though a segment is open there: it is closed, and the
    /// next step opens it again.
    pub(super) fn break_segment(&mut self) {
        if !self.next.assembly.is_between_segments() {
            self.place.unfinished = true;
            self.next.assembly.close_segment();
            self.place.resume_point.clone_from(&self.place.mark);
        }
    }

    /// Whether that many deletions need confirmation.
    pub(super) fn are_many_deletions(&self, limit: DeletionLimit, count: u64) -> bool {
        !limit.allows(count, self.stored.document.root.entries_to_guard())
            && !crate::mutation::is_on(crate::mutation::Mutation::IgnoreDeletionLimit)
    }
}

impl NextSnapshot {
    pub(super) fn new(assembly: Assembly) -> Self {
        Self {
            assembly,
            leaves_stored: 0,
            leaf_blobs: Vec::new(),
            top_stored: None,
            looked_into: Names::default(),
            undeleted: Vec::new(),
            scratch: Vec::new(),
            garbage: None,
        }
    }

    /// `root` without the garbage that was deleted.
    pub(super) fn without_swept(&self, root: &Root) -> Root {
        let mut root = root.clone();
        if let Some(garbage) = &self.garbage {
            root.garbage.clone_from(garbage);
        }
        root
    }
}

/// Where a job stands in its comparison.
#[derive(Debug)]
pub(in crate::engine) struct Paused {
    pub(in crate::engine) base: Base,
    pub(in crate::engine) lanes: PausedLanes,
}
