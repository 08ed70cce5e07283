//! How much happens.

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Worlds.
    pub worlds: u64,
    /// Events of their plans.
    pub events: u64,
    /// Turns that tasks were given.
    pub turns: u64,
    /// Steps that took a lease.
    pub steps: u64,
    /// Of these, those that took it from another step, which had died or taken too long.
    pub taken_over: u64,
    /// Jobs that began.
    pub jobs: u64,
    /// Requests to B2.
    pub requests: u64,
    /// Requests that met trouble.
    pub troubles: u64,
    /// Calls to shards.
    pub shard_calls: u64,
    /// Effects that broke off, and refusals of sinks.
    pub faults: u64,
    /// Instances and tasks that died.
    pub crashes: u64,
    /// Reads of KV that answered what is not so.
    pub stale_reads: u64,
    /// Changes that the feed was appended.
    pub appended: u64,
    /// Batches that the feed no longer names.
    pub dropped: u64,
    /// Changes that reached a sink.
    pub changes: u64,
    /// Of these, repetitions.
    pub repeated: u64,
    /// Deliveries that broke off, for which a sink was to blame.
    pub sink_breaks: u64,
    /// Deliveries that took longer than a pump waits.
    pub too_slow: u64,
    /// Cursors that were moved back.
    pub replays: u64,
    /// Deliveries of which a sink took a part and then failed.
    pub halves: u64,
    /// How often documents with dead letters were stored.
    pub letters: u64,
    /// Steps that were told that their CPU time runs out.
    pub signals: u64,
    /// Jobs that appended as many files as they may.
    pub limited: u64,
    /// Polls that a cap put off.
    pub stretched: u64,
    /// Steps that are given a bookmark.
    pub bookmarks: u64,
    /// Steps of quiet polls that went on from what the instance held.
    pub held: u64,
    /// Suspensions of the connection that were lifted.
    pub lifted: u64,
    /// Checkpoints whose open segment is in a blob.
    pub pending_blobs: u64,
    /// Checkpoints with leaves in blobs.
    pub leaf_blobs: u64,
    /// Checkpoints with deletions in blobs.
    pub deletion_blobs: u64,
    /// Documents with lists of batches in blobs.
    pub batch_lists: u64,
    /// Virtual time, in milliseconds.
    pub virtual_ms: u64,
}

impl Tally {
    /// Both together.
    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.events += other.events;
        self.turns += other.turns;
        self.steps += other.steps;
        self.taken_over += other.taken_over;
        self.jobs += other.jobs;
        self.requests += other.requests;
        self.troubles += other.troubles;
        self.shard_calls += other.shard_calls;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.stale_reads += other.stale_reads;
        self.appended += other.appended;
        self.dropped += other.dropped;
        self.changes += other.changes;
        self.repeated += other.repeated;
        self.sink_breaks += other.sink_breaks;
        self.too_slow += other.too_slow;
        self.replays += other.replays;
        self.halves += other.halves;
        self.letters += other.letters;
        self.signals += other.signals;
        self.limited += other.limited;
        self.stretched += other.stretched;
        self.bookmarks += other.bookmarks;
        self.held += other.held;
        self.lifted += other.lifted;
        self.pending_blobs += other.pending_blobs;
        self.leaf_blobs += other.leaf_blobs;
        self.deletion_blobs += other.deletion_blobs;
        self.batch_lists += other.batch_lists;
        self.virtual_ms += other.virtual_ms;
    }
}
