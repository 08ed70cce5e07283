//! Changing a coordinator's document: each change that may move what is due sets the alarm.

use super::{Coordinator, DOCUMENT, Home, State, answer::being_deleted};
use crate::documents::{Decoded, Loaded, Slot};
use b2sync_core::{error::Error, time::Clock};

/// How soon the rest of a deleted sync is deleted, in milliseconds: a store may go on listing what is gone for a while.
pub const WIPE_AGAIN_MS: i64 = 65_000;
/// The wait before a store that failed is asked once more, in milliseconds.
const STORE_AGAIN_MS: u64 = 500;

/// What an instance remembers of its coordinator's document from one call to the next, so that it is not decoded each
/// time.
#[derive(Debug, Default)]
pub struct Cache(Decoded<State>);

impl<H: Home> Coordinator<'_, H> {
    /// How things stand; `None`: nothing is stored.
    pub(super) async fn stored(&self) -> Result<Option<State>, Error> {
        let document = self.load_document("").await?;
        Ok((document.revision > 0).then_some(document.value))
    }

    /// How things stand; as for a new sync if nothing is stored.
    pub(super) async fn load(&self, sync_id: &str) -> Result<State, Error> {
        Ok(self.load_document(sync_id).await?.value)
    }

    async fn load_document(&self, sync_id: &str) -> Result<Loaded<State>, Error> {
        let fresh = State::new(sync_id);
        self.slot(&fresh, &Cache::default()).load().await
    }

    /// The coordinator's document; `otherwise` is the cache of a home that keeps none.
    fn slot<'s>(&'s self, fresh: &'s State, otherwise: &'s Cache) -> Slot<'s, H::Documents, State> {
        let Cache(decoded) = self.home.cache().unwrap_or(otherwise);
        Slot { documents: self.home.documents(), name: DOCUMENT, fresh, decoded }
    }

    /// Reads the coordinator's document, lets `decide` change it, stores what changed, and sets the alarm. `decide` is
    /// called again when another call moved the document first.
    pub(super) async fn update<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut answer = None;
        let mut note = |state: &mut State| decide(state).map(|it| answer = Some(it));
        self.update_by(sync_id, &mut note).await?;
        answer.ok_or_else(|| Error::internal("A change of the coordinator's document decided nothing."))
    }

    /// [`Self::update`] for a decision of any type: compiled once, and not for each of them.
    pub(super) async fn update_by(
        &self,
        sync_id: &str,
        decide: &mut dyn FnMut(&mut State) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let (home, fresh, otherwise) = (self.home, State::new(sync_id), Cache::default());
        let slot = self.slot(&fresh, &otherwise);
        let mut document = slot.load().await?;
        // The sync may be deleted already: what is stored first is looked at, whatever breaks off behind it.
        let before_first = async || home.set_alarm(Some(home.clock().now().plus_millis(WIPE_AGAIN_MS))).await;
        let updated = slot.update_loaded(&mut document, decide, before_first).await?;
        let now = home.clock().now();
        let alarm = document.value.next_alarm(now, self.held_until(&document.value, now));
        if alarm.is_none() && !updated.is_changed {
            // A call that changes nothing clears no alarm: another may have set it since this was read.
            return Ok(());
        }
        home.set_alarm(alarm).await
    }

    /// [`Self::update`] of a sync that was not deleted.
    pub(super) async fn update_live<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        self.update(sync_id, |state| if state.forgotten { Err(being_deleted(sync_id)) } else { decide(state) }).await
    }

    /// [`Self::update_live`] for what may take the lease, and answers which: where it fails all the same, the lease is
    /// given back, since nothing will use it.
    pub(super) async fn update_taking_lease<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<(T, Option<u64>), Error>,
    ) -> Result<T, Error> {
        let mut taken = None;
        let result = self
            .update_live(sync_id, |state| {
                taken = None;
                let (answer, step) = decide(state)?;
                taken = step;
                Ok(answer)
            })
            .await;
        if let (Err(_), Some(step)) = (&result, taken) {
            let _ = self
                .update_persistently(sync_id, |state| {
                    if state.has_lease(step) {
                        state.lease = None;
                        // No sink was called, so none is to blame.
                        state.pumps.running = false;
                    }
                    Ok(())
                })
                .await;
        }
        result
    }

    /// [`Self::update`], once more if the stores fail: for what gives the lease back, since nothing else of this sync
    /// is done until then.
    pub(super) async fn update_persistently<T>(
        &self,
        sync_id: &str,
        mut decide: impl FnMut(&mut State) -> Result<T, Error>,
    ) -> Result<T, Error> {
        match self.update(sync_id, &mut decide).await {
            Err(error) if error.is_transient() => {
                self.home.clock().sleep(STORE_AGAIN_MS).await;
                self.update(sync_id, decide).await
            }
            result => result,
        }
    }

    /// Publishes the records of jobs that ended. One that cannot be published is tried again by the next call: what
    /// was asked for is done all the same.
    pub(super) async fn publish_jobs(&self, sync_id: &str) -> Result<(), Error> {
        let state = self.load(sync_id).await?;
        let mut published = Vec::new();
        for job in &state.unpublished {
            if self.home.publish_job(job).await.is_err() {
                break;
            }
            published.push(job);
        }
        if published.is_empty() {
            return Ok(());
        }
        let forget = |state: &mut State| {
            // One that was changed meanwhile is published once more.
            state.unpublished.retain(|job| !published.contains(&job));
            Ok(())
        };
        self.slot(&State::new(sync_id), &Cache::default()).update(forget).await
    }
}
