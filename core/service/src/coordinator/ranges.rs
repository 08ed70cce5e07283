//! Ranges of a listing that are read elsewhere: by *shards*, which have connections of their own.
//!
//! The coordinator of a sync remains its only writer. A shard keeps nothing: it is handed a range that was begun
//! or is to begin, reads pages of it, and hands back what became of it, to be merged in the order of keys as if it had
//! been read here. A shard that cannot be asked costs nothing but time: the range is read here then.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use super::{Config, Home, opening::cut};
use crate::registry::{ConnectionRecord, SyncRecord};
use b2sync_core::{
    b2::{
        account::{Account, StoredAccount},
        client::B2Client,
        source::B2Source,
    },
    cost::SourceCost,
    engine::{
        listing::{RangeReader, Rules, source::Source, wire::ReaderWire},
        meter::STREAMS_HERE_MAX,
    },
    entropy::Entropy,
    error::Error,
    error_wire::ErrorWire,
    filter::{Filter, Seen, SeenRecord},
    http::HttpClient,
    time::Clock,
};

/// Pages that a shard reads in one call, at most.
pub(crate) const PAGES_MAX: u32 = 64;
/// A shard hands back what it has from this many bytes on: many answers are on their way at once.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 << 10;
/// What is held back, and becomes a reference where nothing changed, may be longer: else a long leaf would go to and
/// fro with each of its pages.
const HELD_BYTES_MAX: usize = 4 << 20;
/// With no more than that in hand, in bytes, a leaf has just begun: the best place to hand back, once half of the pages
/// are read.
const BEGUN_BYTES_MAX: usize = 96 << 10;
/// A shard begins no page later than this after it was asked, in milliseconds.
pub(crate) const CALL_MS_MAX: u64 = 20_000;

/// What a shard is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RangeCall {
    sync: SyncRecord,
    /// Its application key is sealed.
    connection: ConnectionRecord,
    account: StoredAccount,
    pages_max: u32,
    seen: SeenRecord,
    reader: ReaderWire,
}

impl RangeCall {
    /// Whose range it is.
    pub fn sync_id(&self) -> &str {
        &self.sync.sync_id
    }
}

/// What a shard answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RangeAnswer {
    reader: ReaderWire,
    read: Result<(), ErrorWire>,
    seen: SeenRecord,
    class_b: u64,
    class_c: u64,
    bytes_received: u64,
}

/// The shard's side: reads on in a range.
///
/// # Errors
/// Where nothing could be read at all. What B2 answered is in the answer.
pub async fn read_range<H: HttpClient, C: Clock, E: Entropy>(
    http: &H,
    clock: &C,
    entropy: &E,
    config: &Config,
    call: RangeCall,
) -> Result<RangeAnswer, Error> {
    let RangeCall { sync, connection, account, pages_max, seen: seen_before, reader } = call;
    let mut reader = reader.into_reader()?;
    let filters = sync.effective_filters();
    let filter = Filter::compile(&filters, &sync.source)?;
    let credentials = connection.credentials(&config.master_keys)?;
    let client = B2Client::new(http, clock, entropy, config.retry).with_pace(connection.pace);
    let source = B2Source::new(client, &config.b2_api_url, &credentials, &sync.source, Account::try_from(account)?);
    let seen = Seen::default();
    seen.join(&seen_before);
    let rules = Rules { cut: cut(config, &sync)?, filter: &filter, seen: &seen };
    let began = clock.now();
    let mut read = Ok(());
    let pages_max = pages_max.clamp(1, PAGES_MAX);
    for page in 1..=pages_max {
        read = reader.read(&source, &rules).await.map_err(ErrorWire::from);
        let long = reader.complete_weight() >= ANSWER_BYTES_MAX || reader.weight() >= HELD_BYTES_MAX;
        let full = long || clock.now().millis_since(began) >= CALL_MS_MAX;
        let little = page >= pages_max.div_ceil(2) && pages_max > 1 && reader.weight() <= BEGUN_BYTES_MAX;
        if reader.is_done() || read.is_err() || full || little {
            break;
        }
    }
    let SourceCost { class_b, class_c, bytes_received, .. } = source.cost();
    let (reader, seen) = (ReaderWire::of(&reader)?, seen.record());
    Ok(RangeAnswer { reader, read, seen, class_b, class_c, bytes_received })
}

/// Who reads the ranges of one step, and what it costs.
pub(super) struct Ranges<'a, H> {
    home: &'a H,
    sync: &'a SyncRecord,
    connection: &'a ConnectionRecord,
    account: StoredAccount,
    /// Ranges being read here.
    here: Cell<usize>,
    /// Ranges being read by each shard.
    shards: Vec<Cell<usize>>,
    elsewhere: Cell<SourceCost>,
}

/// One range more is being read, until this is dropped.
struct Reading<'a>(&'a Cell<usize>);

impl<'a> Reading<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl<'a, H: Home> Ranges<'a, H> {
    pub(super) fn new(
        home: &'a H,
        sync: &'a SyncRecord,
        connection: &'a ConnectionRecord,
        account: StoredAccount,
    ) -> Self {
        // Where B2 wants fewer calls, one place keeps the distance between them.
        let shards_max = if connection.pace.is_some_and(|pace| pace.interval_ms > 0) { 0 } else { home.shards_max() };
        let shards = vec![Cell::new(0); shards_max];
        Self { home, sync, connection, account, here: Cell::new(0), shards, elsewhere: Cell::default() }
    }

    /// What the shards have cost, added to what was spent here.
    pub(super) fn cost(&self, here: SourceCost) -> SourceCost {
        let there = self.elsewhere.get();
        SourceCost {
            class_b: here.class_b + there.class_b,
            class_c: here.class_c + there.class_c,
            bytes_received: here.bytes_received + there.bytes_elsewhere,
            bytes_elsewhere: there.bytes_elsewhere,
            calls: there.calls,
            ..here
        }
    }

    /// Reads on in a range of `source`, where there is a connection free.
    pub(super) async fn read<S: Source>(
        &self,
        source: &S,
        reader: &mut RangeReader,
        rules: &Rules<'_>,
    ) -> Result<(), Error> {
        if self.here.get() >= STREAMS_HERE_MAX
            && let Some((shard, count)) = self.free_shard()
        {
            let _reading = Reading::begin(count);
            source.still_wanted().await?;
            if let Some(read) = self.read_elsewhere(shard, reader, rules.seen).await {
                return read;
            }
        }
        let _reading = Reading::begin(&self.here);
        reader.read(source, rules).await
    }

    /// The shard that reads the fewest ranges, if it can read one more.
    fn free_shard(&self) -> Option<(usize, &Cell<usize>)> {
        let shards = self.shards.iter().enumerate();
        shards.min_by_key(|(_, count)| count.get()).filter(|(_, count)| count.get() < STREAMS_HERE_MAX)
    }

    /// `None`: the shard could not be asked, and the range is as it was.
    async fn read_elsewhere(&self, shard: usize, reader: &mut RangeReader, seen: &Seen) -> Option<Result<(), Error>> {
        let call = RangeCall {
            sync: self.sync.clone(),
            connection: self.connection.clone(),
            account: self.account.clone(),
            pages_max: reader.pages_at_once(PAGES_MAX),
            seen: seen.record(),
            reader: ReaderWire::rest_of(reader).ok()?,
        };
        // As if it read all it may: should the step end before the answer comes, that is what it may have cost.
        let pages_max = u64::from(call.pages_max);
        self.spend(|cost| {
            cost.calls += 1;
            cost.class_c += pages_max;
        });
        let answer = self.home.read_range(shard, call).await.ok()?;
        self.spend(|cost| {
            cost.class_b += answer.class_b;
            cost.class_c = (cost.class_c + answer.class_c).saturating_sub(pages_max);
            cost.bytes_elsewhere += answer.bytes_received;
        });
        seen.join(&answer.seen);
        reader.go_on_as(answer.reader.into_reader().ok()?);
        Some(answer.read.map_err(Error::from))
    }

    fn spend(&self, add: impl FnOnce(&mut SourceCost)) {
        let mut cost = self.elsewhere.get();
        add(&mut cost);
        self.elsewhere.set(cost);
    }
}
