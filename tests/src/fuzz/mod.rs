//! Fuzzing on stable Rust: every decoder of foreign or stored bytes against inputs made from real ones.
//!
//! [`TARGETS`] are the decoders, each with the properties that hold on *any* bytes; [`run`] mutates a target's seeds
//! ([`Mutator`]) and keeps an input that brings an outcome not seen before, so that later ones begin from there. A run
//! is a pure function of (target, seed, iterations): nothing reads a clock, so a failure is repeated by its numbers, or
//! by the input itself, which is cut down before it is told.
//!
//! Why neither `cargo fuzz` nor bolero: the first needs a nightly compiler, and the second, on stable, draws random
//! bytes, which no XML parser lets past its first line. A target is a function of bytes, so that either can call it.
//!
//! `cargo xtask fuzz` runs it for long; the tests of `bin/fuzz.rs` run it briefly, memory included.

mod mutate;
mod targets;

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use mutate::Mutator;
pub use targets::{TARGETS, heaviest_filter_bytes};

/// The most inputs that are kept to begin from, the seeds among them.
const CORPUS_MAX: usize = 512;
/// How many shorter inputs are tried before a failure is told.
const SHRINK_TRIES: usize = 10_000;

/// What a decoder made of an input, in a few words, the same for inputs of the same kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It decodes.
    Taken(String),
    /// It does not, and why.
    Refused(String),
}

impl Seen {
    fn words(&self) -> &str {
        match self {
            Self::Taken(words) | Self::Refused(words) => words,
        }
    }
}

fn taken(words: &str) -> Outcome {
    Ok(Seen::Taken(words.to_owned()))
}

fn refused(why: impl fmt::Display) -> Outcome {
    Ok(Seen::Refused(why.to_string()))
}

/// What an input did. `Err`: the property that does not hold.
pub type Outcome = Result<Seen, String>;

/// One decoder, and what must hold for it on any bytes.
pub struct Target {
    /// `list-xml`: its name on the command line.
    pub name: &'static str,
    /// What is decoded.
    pub about: &'static str,
    /// Real inputs to begin from: the decoder takes each of them.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// More to begin from, which the decoder refuses: what is made to take much memory, or is something else.
    pub odd: fn() -> Vec<Vec<u8>>,
    /// Pieces of real inputs, which mutations insert.
    pub words: &'static [&'static [u8]],
    /// The longest input that is made, in bytes.
    pub input_bytes_max: usize,
    /// Decodes an input and checks what must hold. What decodes foreign bytes in it runs inside [`Meter::measured`].
    pub check: fn(&[u8], &Meter) -> Outcome,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Measures memory on the thread that asks. Only a binary can count allocations, so it is given as two functions.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    /// Begins to measure.
    pub start: fn(),
    /// The most bytes that were allocated at one time since then, beyond those that were at its beginning.
    pub peak_bytes: fn() -> usize,
}

impl Meter {
    /// Measures nothing.
    pub const NONE: Self = Self { start: || (), peak_bytes: || 0 };

    /// Runs `decode`.
    ///
    /// # Errors
    /// It held more than `bound_bytes` at one time.
    pub fn measured<T>(&self, bound_bytes: usize, decode: impl FnOnce() -> T) -> Result<T, String> {
        (self.start)();
        let decoded = decode();
        match (self.peak_bytes)() {
            peak if peak <= bound_bytes => Ok(decoded),
            peak => Err(format!("it took {peak} bytes of memory, and at most {bound_bytes} are allowed")),
        }
    }
}

/// What a run saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// How many inputs were tried.
    pub inputs: u64,
    /// The kinds of outcomes.
    pub outcomes: BTreeSet<String>,
}

/// An input for which something does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The target.
    pub target: &'static str,
    /// The input, cut down.
    pub input: Vec<u8>,
    /// What does not hold.
    pub what: String,
}

/// Tries one input; a panic is a failure like any other.
///
/// # Errors
/// What does not hold.
pub fn check(target: &Target, input: &[u8], meter: &Meter) -> Outcome {
    catch_unwind(AssertUnwindSafe(|| (target.check)(input, meter))).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("it panics: {}", message.unwrap_or("without a message")))
    })
}

/// Tries the target's seeds, odd ones too, and then `iterations` inputs made from them. `about_to` is told each input
/// before it is tried: should one never end, that is the one.
///
/// # Errors
/// The first input for which something does not hold.
pub fn run(
    target: &Target,
    seed: u64,
    iterations: u64,
    meter: &Meter,
    mut about_to: impl FnMut(&[u8]),
) -> Result<Report, Box<Failure>> {
    let mut corpus = (target.seeds)();
    corpus.extend((target.odd)());
    let mut report = Report { inputs: 0, outcomes: BTreeSet::new() };
    let mut attempt = |input: &[u8]| {
        about_to(input);
        report.inputs += 1;
        match check(target, input, meter) {
            Ok(seen) => Ok(report.outcomes.insert(kind_of(seen.words()))),
            Err(what) => Err(shrunk(target, input, what, meter)),
        }
    };
    for input in &corpus {
        attempt(input)?;
    }
    let mut mutator = Mutator::new(seed, target.words, target.input_bytes_max);
    for _ in 0..iterations {
        let input = mutator.next(&corpus);
        if attempt(&input)? && corpus.len() < CORPUS_MAX {
            corpus.push(input);
        }
    }
    Ok(report)
}

/// The outcome without what differs from input to input: only letters, and of those none that stand between the first
/// sign of a quotation and the last. What is quoted may hold such signs itself.
fn kind_of(outcome: &str) -> String {
    let quotation = |c| matches!(c, '"' | '\'' | '`' | '<' | '>');
    let (before, rest) = outcome.split_once(quotation).unwrap_or((outcome, ""));
    let behind = rest.rsplit_once(quotation).map_or("", |(_, behind)| behind);
    let letters =
        |text: &str| text.chars().filter(|c| c.is_ascii_alphabetic() || *c == ' ').take(80).collect::<String>();
    letters(before) + &letters(behind)
}

/// Removes what the failure does not need, in ever smaller pieces.
fn shrunk(target: &Target, input: &[u8], what: String, meter: &Meter) -> Box<Failure> {
    let mut failure = Failure { target: target.name, input: input.to_vec(), what };
    let mut tries = 0;
    let mut piece = input.len().div_ceil(2);
    while piece > 0 && tries < SHRINK_TRIES {
        let mut at = 0;
        while at < failure.input.len() && tries < SHRINK_TRIES {
            let mut shorter = failure.input.clone();
            shorter.drain(at..(at + piece).min(failure.input.len()));
            tries += 1;
            match check(target, &shorter, meter) {
                Err(what) => (failure.input, failure.what) = (shorter, what),
                Ok(_) => at += piece,
            }
        }
        piece /= 2;
    }
    Box::new(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFECTIVE: Target = Target {
        name: "defective",
        about: "panics at a word that only a mutation can bring",
        seeds: || vec![b"some long text before, and some behind".to_vec()],
        odd: Vec::new,
        words: &[b"<boom>"],
        input_bytes_max: 200,
        check: |input, _| {
            assert!(!input.windows(6).any(|part| part == b"<boom>"), "boom");
            taken(if input.len() < 10 { "short" } else { "long" })
        },
    };

    #[test]
    fn a_failure_is_found_cut_down_and_repeated() {
        let run = || run(&DEFECTIVE, 1, 10_000, &Meter::NONE, |_| ()).expect_err("it panics");
        let failure = run();
        assert_eq!((&*failure.input, &*failure.what), (&b"<boom>"[..], "it panics: boom"));
        assert_eq!(run(), failure);
    }

    #[test]
    fn what_real_inputs_begin_with_is_taken() {
        let mut wrong = Vec::new();
        for target in &TARGETS {
            let all = [((target.seeds)(), true), ((target.odd)(), false)];
            for (nth, (seeds, to_be_taken)) in all.into_iter().enumerate() {
                let seen = seeds.iter().map(|seed| check(target, seed, &Meter::NONE)).enumerate();
                let other = seen.filter(|(_, seen)| matches!(seen, Ok(Seen::Taken(_))) != to_be_taken);
                wrong.extend(other.map(|(seed, seen)| format!("{target:?}, list {nth}, seed {seed}: {seen:?}")));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn too_much_memory_is_a_failure() {
        let meter = Meter { start: || (), peak_bytes: || 11 };
        assert_eq!(meter.measured(11, || 1), Ok(1));
        assert!(meter.measured(10, || 1).is_err());
    }

    #[test]
    fn kinds_leave_out_what_differs() {
        assert_eq!(kind_of("at byte 17: \"a \\\"b\" is not 'c' at all"), "at byte   at all");
    }
}
