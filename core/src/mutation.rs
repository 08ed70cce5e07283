//! Deliberate defects, one at a time, to show that those who check b2sync would see them.
//!
//! Only the feature `mutations`, which tests alone turn on, compiles them in; without it [`is_on`] is `false`, and what
//! depends on it is not compiled into either home.

/// What is done wrong.
#[cfg_attr(not(feature = "mutations"), expect(unreachable_pub, reason = "the module is public only with the feature"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// A step begins though another one holds the lease.
    SkipLease,
    /// The root moves before what it stands for was delivered.
    MoveRootEarly,
    /// Only files modified since the newest one that is known are looked at.
    Watermark,
    /// Two versions with the same time of last modification count as one.
    TrustLastModified,
    /// A listing that breaks off counts as complete.
    AdvanceOnError,
    /// What is about to be delivered is not noted first.
    SkipWriteAhead,
    /// Deletions are delivered as they are found.
    DeleteEarly,
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
pub(crate) const fn is_on(_: Mutation) -> bool {
    false
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
    let _reset = Reset;
    run()
}
