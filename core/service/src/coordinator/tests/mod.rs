//! The coordinator in a home in memory: commands that cross a step, steps that fail, sinks of any manner, instances
//! that die.

mod check;
mod collecting;
mod continuing;
mod crashes;
mod failures;
mod interruptions;
mod jobs;
mod lease;
mod letters;
mod mutations;
mod pumping;
mod reading;
mod scheduling;
mod simulation;
mod test_sink;
mod turns;
mod world;

use std::task::{Context, Waker};

use bytes::Bytes;

use self::{test_sink::*, world::*};
use super::{
    protocol::{Answer, Command, SyncState, SyncStatus},
    *,
};
use crate::{
    cost,
    registry::{CONNECTION_FAILURES_MAX, ConnectionRecord, ConnectionStatus, SyncMode},
    sinks::{self, SinkRecord, SinkState},
};
use b2sync_core::{
    change::{Change, ChangeKind},
    engine::meter::EXTERNAL_REQUESTS_RESERVED,
    error::{ErrorKind, Retry},
    feed::read::PAGE_READS_MAX,
    filter::{Filter, FilterSpec},
    job::{JobStatus, Phase, Trigger},
    snapshot::cut::Cut,
};

const INTERVAL_MS: i64 = 300_000;

fn pause() -> Command {
    Command::Pause { reason: None }
}
