//! What the bucket showed, and what jobs were answered of it.

use std::collections::BTreeMap;

use b2sync_core::entry::{Entry, KeyOrder};
use b2sync_core::filter::{Filter, FilterSpec};
use b2sync_core::policy::Reconcile;
use b2sync_core::source_path::SourcePath;

/// A page that a job was answered: all keys from `from` (exclusively) to `to` (inclusively).
#[derive(Clone, Debug)]
struct PageSeen {
    at: u64,
    from: Option<String>,
    to: Option<String>,
}

/// The pages that a job was answered under one scope: under another, it lists from the beginning. A job that goes on
/// with the listing of one that broke off adds to that one's.
#[derive(Clone, Debug)]
struct ListingSeen {
    scope: usize,
    /// The latest.
    job: String,
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

/// The truth that the engine cannot know.
#[derive(Debug)]
pub(super) struct BucketSeen {
    pub(super) order: KeyOrder,
    pub(super) objects_max: Option<u64>,
    /// Of each key, when it showed what.
    history: BTreeMap<String, Vec<(u64, Option<Entry>)>>,
    scopes: Vec<Scope>,
    /// By the first job and the fingerprint of the scope.
    listings: BTreeMap<(String, String), ListingSeen>,
}

impl BucketSeen {
    /// Nothing has happened yet.
    pub(super) fn new(order: KeyOrder, source: SourcePath, filters: &FilterSpec) -> Self {
        let mut seen =
            Self { order, objects_max: None, history: BTreeMap::new(), scopes: Vec::new(), listings: BTreeMap::new() };
        seen.scoped(0, source, filters);
        seen
    }

    /// The key shows this from here on.
    pub(super) fn showed(&mut self, at: u64, key: &str, file: Option<Entry>) {
        let history = self.history.entry(key.to_owned()).or_default();
        if history.last().map(|(_, file)| file) != Some(&file) {
            history.push((at, file));
        }
    }

    /// The sync takes this from here on.
    pub(super) fn scoped(&mut self, at: u64, source: SourcePath, filters: &FilterSpec) {
        if let Ok(filter) = Filter::compile(filters, &source) {
            let fingerprint = format!("{source} {}", filters.fingerprint());
            self.scopes.push(Scope { from: at, source, filter, fingerprint });
        }
    }

    /// What the sync takes now.
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        self.scopes.last().is_some_and(|scope| scope.takes(entry))
    }

    /// How many scopes there have been.
    pub(super) fn scopes(&self) -> usize {
        self.scopes.len()
    }

    /// The versions that a key ever showed.
    pub(super) fn shown(&self, key: &str) -> impl Iterator<Item = &Entry> {
        self.history.get(key).into_iter().flatten().filter_map(|(_, file)| file.as_ref())
    }

    /// The place of the scope that holds at a moment.
    fn scope_at(&self, at: u64) -> usize {
        self.scopes.iter().rposition(|scope| scope.from <= at).unwrap_or(0)
    }

    /// A job was answered a page, by a step that had read its sync's configuration at that moment.
    pub(super) fn paged(
        &mut self,
        (job, listing): (&str, &str),
        (at, configured_at): (u64, u64),
        from: Option<String>,
        to: Option<String>,
    ) {
        let scope = self.scope_at(configured_at);
        let fingerprint = self.scopes.get(scope).map_or_else(String::new, |scope| scope.fingerprint.clone());
        let listing = self.listings.entry((listing.to_owned(), fingerprint)).or_insert_with(|| ListingSeen {
            scope,
            job: job.to_owned(),
            pages: Vec::new(),
            complete: false,
        });
        if from.is_none() && listing.job != job {
            // It begins at the first key, and goes on with nothing.
            listing.pages.clear();
        }
        job.clone_into(&mut listing.job);
        listing.pages.push(PageSeen { at, from, to });
        listing.complete = listing.complete || coverage(&listing.pages, self.order) == Coverage::Everything;
    }

    /// Whether the deletion of a key may be delivered, for what became of it since the first page of the
    /// latest job that listed everything.
    pub(super) fn is_deletion_asked_for(&self, now: u64, key: &str, reconcile: Reconcile) -> bool {
        let Reconcile { on_delete, on_filter_drift, .. } = reconcile;
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
    pub(super) fn is_gone(&self, since: u64, key: &str) -> bool {
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
