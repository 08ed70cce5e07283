//! The rules, and how they are broken.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::VariantArray)]
pub enum Rule {
    /// The root's generation never goes back, and each root has another.
    RootNeverRegresses,
    /// What root, checkpoint and feed name is stored.
    NothingNamedIsMissing,
    /// A blob's name is never given a second value.
    BlobsAreImmutable,
    /// Replaying the feed from position 1 over nothing gives what root and checkpoint count.
    FeedIsSnapshot,
    /// Positions are 1, 2, 3 … without gaps, and none is given twice.
    PositionsAreDense,
    /// A batch is stored before the swap that names it, and never changes: at each position there is one change for
    /// ever.
    BatchesStay,
    /// Each change of a key follows from the one before it: what is created is not there, what is updated was another
    /// version, what is deleted is there, and what was known before is what was replayed before.
    ChangesFollow,
    /// Only versions that were visible are in the feed.
    NothingInvented,
    /// The id of a change names its sync and its position.
    OneIdAPosition,
    /// Deletions only of what a complete listing has shown to be gone.
    DeletesOnlyAfterCompleteCoverage,
    /// A batch is dropped from the feed only when it is older than the retention and every active sink is beyond it.
    RetentionWaitsForSinks,
    /// A sink gets every change, in order, always the one that the feed has at that position.
    SinksGetEveryChangeInOrder,
    /// The cursor of a sink moves only behind changes that the sink took, or that are its dead letters.
    CursorsFollowAnswers,
    /// The catalogue applies each change once.
    CatalogueAppliesOnce,
    /// While a poll is due, no delivery begins: except behind a step after which one is due at once.
    NobodyWaitsForASink,
    /// Only the step that holds the lease moves the snapshot and delivers.
    OneStepAtATime,
    /// At most one job runs, and it ends before another one begins.
    OneJobAtATime,
    /// No page is asked for beyond the budget, and no step spends more than that and what one page and one delivery of
    /// each sink may cost.
    WithinTheBudget,
    /// A job appends no more files than `max_objects_per_run` says.
    WithinTheObjects,
    /// A job appends no more deletions than `deletion_limit` says, for each time it lists, unless its user has
    /// confirmed them.
    WithinTheDeletionLimit,
    /// Polls begin no earlier than `max_class_c_per_day` lets them.
    WithinTheCap,
    /// Only changes that the sync's `reconcile` asks for are in the feed.
    OnlyWhatIsAskedFor,
    /// No secret in anything that is stored or said.
    NoSecrets,
    /// At rest what the feed tells is the bucket under the filters.
    FeedEqualsBucket,
    /// At rest each sink holds what the feed tells.
    SinksEqualFeed,
    /// What a sink refuses for good is among its dead letters.
    RefusedAreDeadLetters,
    /// At rest no checkpoint is left.
    NoCheckpointIsLeft,
    /// At rest another poll appends nothing, delivers nothing and stores nothing.
    QuietPoll,
    /// Of a sync that was deleted nothing is left.
    NothingIsLeft,
    /// A job counts more changes than it has appended.
    CountsItsOwn,
    /// A batch of the feed is stored, and neither the document nor a list of what is to be deleted names it.
    NoOrphans,
    /// Left alone, a sync comes to rest.
    ComesToRest,
    /// A call never goes wrong in a way that its contract does not name.
    CallsKeepTheirContract,
}
