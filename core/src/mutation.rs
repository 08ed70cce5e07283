//! Deliberate defects, one at a time, to show that those who check b2sync would see them.
//!
//! Only the feature `mutations`, which tests alone turn on, compiles them in; without it [`is_on`] is `false`, and what
//! depends on it is not compiled into either home.

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A step begins though another one holds the lease.
    SkipLease,
    /// The root moves before deletions are appended to the feed.
    MoveRootEarly,
    /// Only files modified since the newest one that is known are looked at.
    Watermark,
    /// Two versions with the same time of last modification count as one.
    TrustLastModified,
    /// A listing that breaks off counts as complete.
    AdvanceOnError,
    /// Deletions are appended to the feed as they are found.
    DeleteEarly,
    /// Lanes that all rest are not woken.
    RestUnwoken,
    /// The swap that appends a batch comes before the batch is stored.
    AppendEarly,
    /// The first change of a batch gets the position of the last one before it.
    ReusePosition,
    /// Batches are dropped from the feed though a sink still needs them.
    CollectEarly,
    /// The snapshot moves in one swap, and the feed in the next.
    SplitSwap,
    /// The cursor of a sink is moved before the sink has answered.
    MoveCursorEarly,
    /// The catalogue applies changes whatever it has applied before.
    ApplyTwice,
    /// A step goes on whatever it has spent.
    IgnoreBudget,
    /// What the next root names no more is deleted before that root is there.
    DeleteNamed,
    /// An error of B2 quotes the application key.
    LeakSecret,
    /// Any number of deletions is appended unasked.
    IgnoreDeletionLimit,
    /// A job appends as many files as it finds.
    IgnoreObjectsMax,
    /// Polls begin at their interval, whatever they cost.
    IgnoreCap,
    /// Updates are appended whether or not they are asked for.
    IgnoreReconcile,
    /// Whatever appears is called created.
    AlwaysCreated,
    /// What the sink refuses for good is forgotten.
    DropLetters,
    /// A blob is given a name that does not depend on what is in it.
    OneName,
    /// Each job writes the root, though nothing changed.
    AlwaysMoveRoot,
    /// The root does not count its generations.
    SameGeneration,
    /// A known file whose entry in the listing cannot be read counts as gone.
    TakeUnreadableAsGone,
    /// Deletions that are held back are forgotten.
    ForgetHeld,
    /// A job goes on with the listing of an earlier one, and counts what that one appended as its own.
    CountTwice,
    /// Batches that a dead step stored stay.
    KeepOrphans,
    /// What is left of a deleted sync stays.
    KeepForgotten,
    /// A listing passes over empty files.
    PassOverEmpty,
    /// A change says the last modification in whole seconds.
    RoundTimes,
    /// The ids of changes are counted within their batch.
    CountIdsInBatch,
    /// A pump delivers the newest change first.
    DeliverBackwards,
    /// A pump goes on though a poll is due.
    HoldPolls,
    /// A trigger starts a job though one is running.
    StartBeside,
    /// The catalogue keeps the size of the version before.
    KeepOldSize,
    /// The swap that moves the root keeps the checkpoint.
    KeepCheckpoint,
    /// The alarm fails with the error of its step.
    FailAlarm,
}

#[cfg(feature = "mutations")]
thread_local! {
    static ON: std::cell::Cell<Option<Mutation>> = const { std::cell::Cell::new(None) };
}

/// Whether this thread is to do that wrong.
#[cfg(feature = "mutations")]
pub fn is_on(mutation: Mutation) -> bool {
    ON.get() == Some(mutation)
}

/// Whether this thread is to do that wrong: never, without the feature.
#[cfg(not(feature = "mutations"))]
pub const fn is_on(_: Mutation) -> bool {
    false
}

#[cfg(feature = "mutations")]
thread_local! {
    static WATERMARK: std::cell::Cell<i64> = const { std::cell::Cell::new(i64::MIN) };
}

/// What a watermark would keep of a file that was appended.
#[cfg(feature = "mutations")]
pub(crate) fn raise_watermark(last_modified: crate::time::Timestamp) {
    WATERMARK.set(WATERMARK.get().max(last_modified.as_millis()));
}

/// Whether a watermark would leave a file out.
#[cfg(feature = "mutations")]
pub(crate) fn is_below_watermark(last_modified: crate::time::Timestamp) -> bool {
    is_on(Mutation::Watermark) && last_modified.as_millis() < WATERMARK.get()
}

/// See the other.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn raise_watermark(_: crate::time::Timestamp) {}

/// See the other: never, without the feature.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is_below_watermark(_: crate::time::Timestamp) -> bool {
    is_on(Mutation::Watermark)
}

/// Does that wrong on this thread while `run` runs.
#[cfg(feature = "mutations")]
pub fn with<T>(mutation: Mutation, run: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ON.set(None);
        }
    }
    ON.set(Some(mutation));
    WATERMARK.set(i64::MIN);
    let _reset = Reset;
    run()
}
