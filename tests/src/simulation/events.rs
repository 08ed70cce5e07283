//! What happens in a world.

use b2sync_core::time::Timestamp;

use super::checkers::Violation;
use super::faults;
use super::history::{Age, Event, FOLDERS, PREFIXES, filters};
use super::run::Sim;
use super::sink_state::SinkState;
use super::world::BUCKET;
use crate::virtual_world::SeededEntropy;
use fake_b2::content::Content;
use fake_b2::model::NewFile;

impl Sim {
    fn key(&self, key: u16) -> String {
        self.keep_keys[usize::from(key) % self.keep_keys.len()].clone()
    }

    /// Uploads a file.
    pub fn put(&self, key: &str, content: Content, at: Timestamp) {
        let file = match content {
            Content::Held(bytes) => NewFile::bytes(bytes),
            Content::Generated { seed, size } => NewFile::generated(seed, size),
        };
        self.inner.edit(&[key.to_owned()], |model| {
            // The bucket is there, and names that are too long are a history of nothing.
            let _ = model.put(BUCKET, key, file, at);
        });
    }

    /// Deletes a key with all its versions.
    pub fn delete(&self, key: &str) {
        self.inner.edit(&[key.to_owned()], |model| {
            // It may be gone already.
            let _ = model.delete_key(BUCKET, key);
        });
    }

    /// Something happens in the bucket, or to the home.
    pub(super) fn happen(&mut self, event: &Event) -> Result<(), Violation> {
        let now = Timestamp::from_millis(self.now());
        match *event {
            Event::Put { key, size, version, age } => {
                let key = self.key(key);
                let visible = self.inner.fake.inspect(|model| model.find(BUCKET, &key));
                let at = match age {
                    Age::Now => now,
                    Age::Back(ms) => now.plus_millis(-i64::from(ms)),
                    Age::AsVisible => visible.map_or(now, |version| version.uploaded_at),
                };
                self.put(&key, Content::Generated { seed: version.into(), size: size.into() }, at);
            }
            Event::Burst { first, count, stride, version, at_once } => {
                for number in 0..count {
                    let key = self.key(first.wrapping_add(number.wrapping_mul(stride)));
                    let at = now.plus_millis(if at_once { 0 } else { i64::from(number) });
                    let size = u64::from(number % 4);
                    self.put(&key, Content::Generated { seed: version.into(), size }, at);
                }
            }
            Event::Hide(key) => {
                let key = self.key(key);
                self.inner.edit(std::slice::from_ref(&key), |model| {
                    let _ = model.hide(BUCKET, &key, now);
                });
            }
            Event::Delete(key) => self.delete(&self.key(key)),
            Event::DeleteNewest(key) => {
                let key = self.key(key);
                self.inner.edit(std::slice::from_ref(&key), |model| {
                    if let Some(id) = model.versions(BUCKET, &key).first().map(|version| version.id()) {
                        let _ = model.delete_version(BUCKET, &key, &id);
                    }
                });
            }
            Event::DeleteMany { first, count } => {
                (0..count).for_each(|number| self.delete(&self.key(first.wrapping_add(number))));
            }
            Event::Rename { from, to } => self.rename(FOLDERS[usize::from(from) % 4], FOLDERS[usize::from(to) % 4]),
            Event::StartLarge { key, slot } => {
                let key = self.key(key);
                let id = self.inner.fake.edit(|model| model.start_large(BUCKET, &key, NewFile::generated(0, 0), now));
                self.uploads[usize::from(slot) % 3] = id.ok().map(|id| (id, key));
            }
            Event::FinishLarge { slot, size } => {
                if let Some((id, key)) = self.uploads[usize::from(slot) % 3].take() {
                    let content = Content::Generated { seed: u64::from(slot) + 100, size: size.into() };
                    self.inner.edit(&[key], |model| {
                        let _ = model.finish_large(BUCKET, &id, content);
                    });
                }
            }
            _ => self.happen_to_home(event)?,
        }
        Ok(())
    }

    /// A caller calls, time passes, or something breaks.
    fn happen_to_home(&mut self, event: &Event) -> Result<(), Violation> {
        match *event {
            Event::Call(call) => {
                // Which instance is asked depends on how many have been asked before.
                let slot = usize::try_from(self.begun).unwrap_or(0);
                self.call(call, slot);
            }
            Event::Filters(number) => self.inner.change_sync(|sync| sync.filters = filters(number)),
            Event::Source(number) => {
                let prefix = PREFIXES[usize::from(number) % PREFIXES.len()];
                self.inner.change_sync(|sync| {
                    if let Ok(source) = format!("b2://{BUCKET}/{prefix}").parse() {
                        sync.source = source;
                    }
                });
            }
            Event::Run { ms, seed } => self.run_for(ms.into(), &SeededEntropy::new(seed), false)?,
            Event::Turns { turns, seed } => self.turns(turns.into(), &SeededEntropy::new(seed))?,
            Event::Freeze { ms } => {
                self.inner.frozen_ms.set(self.inner.frozen_ms.get() + i64::from(ms));
                self.advance(self.now() + i64::from(ms));
            }
            Event::Die { instance } => self.die(usize::from(instance) % self.instances.len()),
            Event::Cancel { task } => {
                let victim = self.tasks.get(usize::from(task) % self.tasks.len().max(1)).map(|task| task.id);
                self.drop_tasks(|task| Some(task.id) == victim);
            }
            Event::Break { after, how } => {
                let at = self.inner.effects.get() + u64::from(after);
                self.inner.breaks.borrow_mut().insert(at, how);
            }
            Event::Trouble { skip, times, what } => {
                self.inner.troubles.borrow_mut().push(faults::Rule { skip, times, what });
            }
            Event::Suspend => self.inner.suspend_connection(),
            Event::RevokeKey => self.inner.revoke_key(),
            Event::RotateKey { keep_old } => self.inner.rotate_key(keep_old),
            Event::Skew { instance, ms } => {
                let instance = &self.instances[usize::from(instance) % self.instances.len()];
                instance.offset_ms.set(ms.into());
            }
            Event::LoseAlarm => self.inner.alarm.set(None),
            _ => self.happen_to_sinks(event),
        }
        Ok(())
    }

    fn happen_to_sinks(&self, event: &Event) {
        let refusing = || self.inner.sinks.iter().filter(|sink| sink.options.refuses);
        match *event {
            Event::Refuse { key, times } => refusing().for_each(|sink| {
                sink.refusals.borrow_mut().insert(self.key(key), times);
            }),
            Event::RefuseForEver(key) => refusing().for_each(|sink| {
                sink.refused_for_ever.borrow_mut().insert(self.key(key));
                sink.exempt.borrow_mut().insert(self.key(key));
            }),
            Event::Halve(times) => self.inner.halves.set(times),
            Event::SinkBreaks { sink, times, how } => {
                let sink: &SinkState = &self.inner.sinks[usize::from(sink) % self.inner.sinks.len()];
                sink.breaks.borrow_mut().extend(std::iter::repeat_n(how, times.into()));
            }
            _ => {}
        }
    }

    fn rename(&self, from: &str, to: &str) {
        if from == to {
            return;
        }
        let now = Timestamp::from_millis(self.now());
        let files = self.inner.fake.visible(BUCKET);
        let moved = files.iter().filter_map(|file| Some((&file.key, file.key.strip_prefix(from)?)));
        // The empty folder is a prefix of all: there, only what lies in no folder moves.
        for (old, rest) in moved.filter(|(_, rest)| !rest.is_empty() && (!from.is_empty() || !rest.contains('/'))) {
            let new = format!("{to}{rest}");
            let version = self.inner.fake.inspect(|model| model.find(BUCKET, old));
            let Some(stored) = version.as_ref().and_then(|version| version.stored.as_ref()) else { continue };
            self.inner.edit(&[old.clone(), new.clone()], |model| {
                let _ = model.put(BUCKET, &new, stored.file.clone(), now);
                let _ = model.delete_key(BUCKET, old);
            });
        }
    }
}
