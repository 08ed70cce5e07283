//! From which size on a step stores what it has.

/// From which size on something is stored or appended and no longer kept in memory. What comes of a job does not depend
/// on these, so tests make them small: few files then go through all that many files go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// From this many changes on that no swap has appended, they are appended before more is compared.
    pub flush_changes_min: usize,
    /// From this many bytes on, to be stored, they are stored before more is compared.
    pub flush_bytes_min: usize,
    /// How many deletions are held in memory; more go into a blob.
    pub deletions_held_max: usize,
    /// Items of a list (of leaves, deletions or batches of the feed) that the document itself holds; more go into a
    /// blob.
    pub tail_items_max: usize,
    /// Bytes of keys in such a list.
    pub list_bytes_max: usize,
    /// Bytes that the document itself holds of a segment that is not complete; more go into a blob. Together with the
    /// lists that is less than the 2 MB that a Durable Object stores as one value.
    pub tail_bytes_max: usize,
    /// A step whose job has found nothing answers a bookmark if it came past this many leaves: where the job is not
    /// held, what was read behind the last of them is read again.
    pub bookmark_leaves_min: usize,
    /// A job whose readers hold more bytes than this is not held in memory between two steps.
    pub held_bytes_max: usize,
}

impl Thresholds {
    /// Those of every home.
    pub const USUAL: Self = Self {
        flush_changes_min: 8_192,
        flush_bytes_min: 4 << 20,
        deletions_held_max: 16_384,
        tail_items_max: 256,
        list_bytes_max: 64 << 10,
        tail_bytes_max: 512 << 10,
        bookmark_leaves_min: 8,
        held_bytes_max: 8 << 20,
    };
    /// So small that a few files pass each of them: for tests.
    pub const TINY: Self = Self {
        flush_changes_min: 2,
        flush_bytes_min: 200,
        deletions_held_max: 2,
        tail_items_max: 1,
        list_bytes_max: 64 << 10,
        tail_bytes_max: 40,
        bookmark_leaves_min: 1,
        held_bytes_max: 400,
    };
}

impl Default for Thresholds {
    fn default() -> Self {
        Self::USUAL
    }
}
