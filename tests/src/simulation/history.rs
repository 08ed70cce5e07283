//! What happens in a world, as a list that its seed gives: so that it can be printed, repeated and shortened.

use b2sync_core::entropy::Entropy as _;
use b2sync_core::filter::FilterSpec;
use b2sync_core::time::Timestamp;

use super::faults::{Break, Trouble};
use super::options::{Limits, Options, pick};
use crate::virtual_world::SeededEntropy;

/// When every world begins: 2024-01-01T00:00:00Z.
pub const START_MS: i64 = 1_704_067_200_000;
/// The folders that keys lie in.
pub const FOLDERS: [&str; 4] = ["a/", "b/", "b/c/", ""];
/// The source prefixes that a sync is set to.
pub const PREFIXES: [&str; 3] = ["", "b/", "a"];

/// How old an upload says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// It begins and ends now.
    Now,
    /// This many milliseconds.
    Back(u32),
    /// As old as the version that is visible: nothing but its content differs.
    AsVisible,
}

/// One thing that happens. Keys are places in [`Plan::keys`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A file is uploaded; the version decides its content.
    Put {
        /// Which.
        key: u16,
        /// Bytes.
        size: u16,
        /// Seed of the content.
        version: u32,
        /// Its time.
        age: Age,
    },
    /// Files are uploaded one after the other.
    Burst {
        /// The first key.
        first: u16,
        /// How many, each the next key but `stride - 1`.
        count: u16,
        /// Distance.
        stride: u16,
        /// Seed of the contents.
        version: u32,
        /// All in the same millisecond.
        at_once: bool,
    },
    /// A file is hidden.
    Hide(u16),
    /// A key goes, with all its versions.
    Delete(u16),
    /// The newest version goes (a file or a hide marker), and what is behind it shows.
    DeleteNewest(u16),
    /// Many keys go.
    DeleteMany {
        /// The first key.
        first: u16,
        /// How many.
        count: u16,
    },
    /// All of a folder moves to another: new files, and the old ones go.
    Rename {
        /// Place in [`FOLDERS`].
        from: u8,
        /// Place in [`FOLDERS`].
        to: u8,
    },
    /// A large upload begins.
    StartLarge {
        /// Which key.
        key: u16,
        /// Where its id is kept.
        slot: u8,
    },
    /// The large upload in that slot ends: the file appears, as old as its beginning.
    FinishLarge {
        /// Where its id is kept.
        slot: u8,
        /// Bytes.
        size: u16,
    },
    /// A caller calls the coordinator.
    Call(Call),
    /// The sync's filters become these (see [`filters`]).
    Filters(u8),
    /// The sync's source prefix becomes this one of [`PREFIXES`].
    Source(u8),
    /// The platform runs everything for this long.
    Run {
        /// In virtual milliseconds.
        ms: u32,
        /// Decides who goes first.
        seed: u64,
    },
    /// This many single turns.
    Turns {
        /// How many.
        turns: u8,
        /// Decides whose.
        seed: u64,
    },
    /// Time passes and no task gets anything done.
    Freeze {
        /// In virtual milliseconds.
        ms: u32,
    },
    /// An instance dies with all that it does; the next is there at once.
    Die {
        /// Which of those that live.
        instance: u8,
    },
    /// A task of an instance is dropped; the instance lives on.
    Cancel {
        /// Which of those that run.
        task: u8,
    },
    /// The n-th effect from now breaks.
    Break {
        /// From 1.
        after: u16,
        /// How.
        how: Break,
    },
    /// Requests to B2 fail.
    Trouble {
        /// How many such requests pass unharmed first.
        skip: u8,
        /// How many then fail.
        times: u8,
        /// How.
        what: Trouble,
    },
    /// The sinks that refuse anything refuse this key this often (fewer than it is offered).
    Refuse {
        /// Which.
        key: u16,
        /// How often.
        times: u8,
    },
    /// The sinks that refuse anything refuse this key for ever.
    RefuseForEver(u16),
    /// Sinks take half of each of this many deliveries, and then fail.
    Halve(u8),
    /// This many deliveries to a sink break off.
    SinkBreaks {
        /// Which.
        sink: u8,
        /// How many.
        times: u8,
        /// How.
        how: Break,
    },
    /// Its user switches the connection off.
    Suspend,
    /// The application key is deleted.
    RevokeKey,
    /// The connection gets a new application key.
    RotateKey {
        /// Whether the old one still works.
        keep_old: bool,
    },
    /// An instance's clock is off by this much from here on.
    Skew {
        /// Which of those that live.
        instance: u8,
        /// In milliseconds.
        ms: i32,
    },
    /// The platform forgets the alarm.
    LoseAlarm,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The alarm, whether it is due or not.
    Drive,
    /// The cron, with the time that it was due at: this much before now.
    Cron {
        /// In milliseconds.
        late_ms: u32,
    },
    /// A user.
    Trigger {
        /// Deletions are confirmed.
        confirm: bool,
        /// Everything is handed over once more.
        full: bool,
    },
    /// A user.
    Pause,
    /// A user.
    Resume,
    /// A user.
    Unlock,
    /// The API, after the sync was changed.
    Configured,
    /// A user moves the cursor of a sink back.
    Replay {
        /// Which.
        sink: u8,
        /// To which part of the feed, of 255.
        part: u8,
    },
    /// A user sends the dead letters back.
    Requeue,
    /// A user gives the dead letters up.
    MarkFailed,
    /// A user switches the connection on again.
    Lift,
}

/// A world: what it is, and what happens in it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Of which it is made.
    pub seed: u64,
    /// What it is.
    pub options: Options,
    /// The keys that events speak of.
    pub keys: Vec<String>,
    /// What happens.
    pub events: Vec<Event>,
    /// What happens at the end, as the sync is deleted.
    pub last: Option<Event>,
}

impl Plan {
    /// The plan of a seed.
    pub fn of(seed: u64, limits: Limits) -> Self {
        let rng = SeededEntropy::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5eed);
        let mut options = Options::draw(&rng, limits);
        // A sequence of its own: seeds are known by what else happens in their worlds.
        let deliveries = SeededEntropy::new(seed ^ 0xde11_7e4e);
        options.draw_deliveries(&deliveries);
        options.draw_thresholds(&SeededEntropy::new(seed ^ 0x7e35_401d));
        options.memory = SeededEntropy::new(seed ^ 0x3e30_5eed).chance(0.6);
        let keys = keys(&rng, &options);
        let mut events = vec![Event::Burst {
            first: 0,
            count: low(rng.below(options.keys as u64)),
            stride: 1 + low(rng.below(2)),
            version: 1,
            at_once: rng.chance(0.3),
        }];
        for number in 0..options.events {
            let number = u32::try_from(number).unwrap_or(0) + 2;
            events.push(event(&rng, &options, number));
        }
        // And another for what was added later.
        let limits = SeededEntropy::new(seed ^ 0x11_1117);
        options.draw_limits(&limits);
        options.draw_deletion_limit(&SeededEntropy::new(seed ^ 0xde1e_7ed0));
        let sinks = SeededEntropy::new(seed ^ 0x51_4e45);
        options.draw_sinks(&sinks);
        insert_events(&limits, &options, &mut events);
        insert_sink_events(&sinks, &options, &mut events);
        insert_unreadable(&SeededEntropy::new(seed ^ 0x0bad_512e), &options, &mut events);
        for event in &mut events {
            if let Event::Call(Call::Trigger { full, .. }) = event {
                *full = options.full_syncs && deliveries.chance(0.3);
            }
        }
        Self { seed, options, keys, events, last: None }
    }
}

/// What users of some worlds do, and how sinks of some fail, here and there in between.
fn insert_events(rng: &SeededEntropy, options: &Options, events: &mut Vec<Event>) {
    let mut insert = |event: Event| {
        let place = usize::try_from(rng.below(events.len() as u64)).unwrap_or(0);
        // Not before there is anything.
        events.insert(1 + place, event);
    };
    if options.requeues {
        insert(Event::RefuseForEver(low(rng.below(options.keys as u64))));
        (0..rng.below(4)).for_each(|_| insert(Event::Call(Call::Requeue)));
        (0..rng.below(2)).for_each(|_| insert(Event::Call(Call::MarkFailed)));
    }
    if options.suspends {
        (0..rng.below(3)).for_each(|_| insert(Event::Suspend));
        (0..1 + rng.below(3)).for_each(|_| insert(Event::Call(Call::Lift)));
    }
    if options.halves {
        (0..1 + rng.below(3)).for_each(|_| insert(Event::Halve(1 + byte(rng.below(3)))));
    }
}

/// Pages in some worlds on which not every entry can be read, here and there in between.
fn insert_unreadable(rng: &SeededEntropy, options: &Options, events: &mut Vec<Event>) {
    if !options.troubled || rng.chance(0.7) {
        return;
    }
    for _ in 0..1 + rng.below(4) {
        let place = usize::try_from(rng.below(events.len() as u64)).unwrap_or(0);
        let (skip, times) = (byte(rng.below(6)), 1 + byte(rng.below(20)));
        events.insert(1 + place, Event::Trouble { skip, times, what: Trouble::UnreadableEntries });
    }
}

/// What becomes of sinks and of the feed that they read, here and there in between.
fn insert_sink_events(rng: &SeededEntropy, options: &Options, events: &mut Vec<Event>) {
    let mut insert = |event: Event| {
        let place = usize::try_from(rng.below(events.len() as u64)).unwrap_or(0);
        events.insert(1 + place, event);
    };
    let sink = || byte(rng.below(options.sinks.len() as u64));
    if options.replays {
        (0..1 + rng.below(4))
            .for_each(|_| insert(Event::Call(Call::Replay { sink: sink(), part: byte(rng.below(256)) })));
    }
    if options.troubled {
        for _ in 0..rng.below(4) {
            let times = 1 + byte(rng.below(if rng.chance(0.7) { 3 } else { 30 }));
            // Each instance that dies takes all that it does with it.
            let how = if rng.chance(0.6) { pick(rng, &[Break::Before, Break::After]) } else { pick(rng, &Break::ALL) };
            insert(Event::SinkBreaks { sink: sink(), times, how });
        }
    }
    if options.retention_hours <= 1 {
        // What is old by then.
        (0..rng.below(3)).for_each(|_| insert(Event::Freeze { ms: 3_000_000 + low_ms(rng, 4_000_000) }));
    }
}

fn low(number: u64) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

fn byte(number: u64) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX)
}

fn event(rng: &SeededEntropy, options: &Options, version: u32) -> Event {
    // What is drawn and may not be is time that passes instead.
    let run = |ms| Event::Run { ms, seed: rng.next_u64() };
    let key = || low(rng.below(options.keys as u64));
    let size = || low(rng.below(5));
    let undo = |event| if options.undo { event } else { run(10_000) };
    let trouble = |event| if options.troubled { event } else { run(10_000) };
    let roll = if options.stormy && rng.chance(0.4) { 83 + rng.below(17) } else { rng.below(100) };
    match roll {
        0..10 => Event::Put { key: key(), size: size(), version, age: Age::Now },
        10..13 => Event::Put { key: key(), size: size(), version, age: Age::Back(10 + low_ms(rng, 90_000_000)) },
        13..16 => Event::Put { key: key(), size: size(), version, age: Age::AsVisible },
        16..20 => Event::Burst {
            first: key(),
            count: 1 + low(rng.below(12)),
            stride: 1 + low(rng.below(4)),
            version,
            at_once: rng.chance(0.5),
        },
        20..22 => undo(Event::Hide(key())),
        22..26 => undo(Event::Delete(key())),
        26..30 => undo(Event::DeleteNewest(key())),
        30..31 => undo(Event::DeleteMany { first: key(), count: low(rng.below(options.keys as u64)) }),
        31..33 => undo(Event::Rename { from: byte(rng.below(4)), to: byte(rng.below(4)) }),
        33..35 => Event::StartLarge { key: key(), slot: byte(rng.below(3)) },
        35..37 => Event::FinishLarge { slot: byte(rng.below(3)), size: size() },
        37..41 => Event::Call(Call::Drive),
        41..43 => Event::Call(Call::Cron { late_ms: low_ms(rng, 200_000) }),
        43..50 => Event::Call(Call::Trigger { confirm: rng.chance(0.5), full: false }),
        50..52 => Event::Call(Call::Pause),
        52..55 => Event::Call(Call::Resume),
        55..56 => Event::Call(Call::Unlock),
        56..57 => Event::Call(Call::Configured),
        57..59 => undo(Event::Filters(byte(rng.below(FILTERS)))),
        59..60 => undo(Event::Source(byte(rng.below(PREFIXES.len() as u64)))),
        60..68 => Event::Turns { turns: byte(rng.below(60)), seed: rng.next_u64() },
        68..74 => run(1 + low_ms(rng, 2_000)),
        74..80 => run(1 + low_ms(rng, 100_000)),
        80..82 => run(1 + low_ms(rng, 2_000_000)),
        82..83 => Event::Freeze { ms: 1 + low_ms(rng, 400_000) },
        83..85 => trouble(Event::Die { instance: byte(rng.below(2)) }),
        85..86 => trouble(Event::Cancel { task: byte(rng.below(4)) }),
        86..92 => trouble(Event::Break {
            after: 1 + low(rng.below(if rng.chance(0.5) { 8 } else { 60 })),
            how: pick(rng, &Break::ALL),
        }),
        92..97 => trouble(Event::Trouble {
            skip: byte(rng.below(4)),
            times: 1 + byte(rng.below(if rng.chance(0.7) { 2 } else { 12 })),
            what: pick(rng, &Trouble::ALL),
        }),
        97 if options.dead_letters && rng.chance(0.5) => Event::RefuseForEver(key()),
        97 => trouble(Event::Refuse { key: key(), times: 1 + byte(rng.below(2)) }),
        98 if rng.chance(0.5) => trouble(Event::LoseAlarm),
        98 => {
            let ms = i32::try_from(rng.below(2 * options.skew_ms_max + 1)).unwrap_or(0);
            let ms = ms - i32::try_from(options.skew_ms_max).unwrap_or(0);
            Event::Skew { instance: byte(rng.below(2)), ms }
        }
        _ if rng.chance(0.4) => trouble(Event::RevokeKey),
        _ => trouble(Event::RotateKey { keep_old: rng.chance(0.5) }),
    }
}

fn low_ms(rng: &SeededEntropy, below: u64) -> u32 {
    u32::try_from(rng.below(below)).unwrap_or(0)
}

/// How many [`filters`] there are.
const FILTERS: u64 = 7;

/// The filters of that number.
pub fn filters(number: u8) -> FilterSpec {
    let spec = FilterSpec::default();
    match number {
        1 => FilterSpec { exclude_patterns: vec!["*5*".to_owned()], ..spec },
        2 => FilterSpec { extensions: vec!["mp4".to_owned()], ..spec },
        3 => FilterSpec { min_size_bytes: Some(2), ..spec },
        4 => FilterSpec { modified_after: Some(Timestamp::from_millis(START_MS + 1)), ..spec },
        5 => FilterSpec { include_patterns: vec!["**/c/**".to_owned(), "*1*".to_owned()], ..spec },
        6 => FilterSpec { modified_before: Some(Timestamp::from_millis(START_MS + 600_000)), ..spec },
        _ => spec,
    }
}

/// Names that have broken a program.
const HOSTILE: [&str; 24] = [
    " ",
    "+",
    "%",
    "%2F",
    "a b+c%20d",
    "&amp;",
    "<Key>",
    "]]>",
    "\"'",
    "//",
    "/",
    "..",
    "a/../b",
    "?x=1",
    "#",
    "\u{1}",
    "\n",
    "ünïcode",
    "\u{feff}bom",
    "日本/語",
    "\u{ffff}",
    "\u{ff5e}x",
    "😀",
    "😀\u{ff5e}",
];

fn keys(rng: &SeededEntropy, options: &Options) -> Vec<String> {
    let key = |number: usize| {
        let folder = pick(rng, &FOLDERS);
        let extension = pick(rng, &[".mp4", ".mov", ""]);
        let name = match rng.below(6) {
            // Both kinds of order meet in these.
            0 | 1 if options.hostile_keys => format!("{}{number}", pick(rng, &["😀", "\u{ff5e}", "\u{e000}", "z"])),
            2 if options.hostile_keys => format!("{}{number}", pick(rng, &HOSTILE)),
            3 if options.hostile_keys => format!("{number}{}", pick(rng, &HOSTILE)),
            4 if options.hostile_keys && rng.chance(0.1) => format!("{number:0>900}"),
            _ => format!("f{number:03}"),
        };
        format!("{folder}{name}{extension}")
    };
    (0..options.keys).map(key).collect()
}
