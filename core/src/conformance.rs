//! What the implementations of a seam must have in common, as suites that any home's tests can run: each answers
//! `Err` with the first rule that is broken, so that it runs where nothing may panic.
//!
//! A suite is given a function that makes a fresh, empty implementation, and asks for one for each of its checks. It
//! judges only what the trait promises; what an implementation can do beyond that is for its own tests.

pub mod blobs;
pub mod documents;
pub mod sink;
#[cfg(test)]
mod tests;

use std::{
    fmt::Debug,
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind},
    snapshot::ContentHash,
};

/// `Err`: the rule that is broken, and how.
pub type Outcome = Result<(), String>;

/// How many bytes of a value a broken rule shows.
const SHOWN_BYTES_MAX: usize = 64;

/// The store answered exactly that.
///
/// # Errors
/// The rule, and what was answered instead.
pub fn check<T: Debug + PartialEq>(rule: &str, got: Result<T, Error>, wanted: T) -> Outcome {
    match got {
        Ok(got) if got == wanted => Ok(()),
        got => Err(format!("{rule}: got {got:?}, wanted {wanted:?}")),
    }
}

/// The store refused it, with that kind of error.
///
/// # Errors
/// The rule, and what was answered instead.
pub fn check_kind<T: Debug>(rule: &str, got: Result<T, Error>, wanted: ErrorKind) -> Outcome {
    match got {
        Err(error) if error.kind() == wanted => Ok(()),
        got => Err(format!("{rule}: got {got:?}, wanted {wanted:?}")),
    }
}

/// As [`check`], for values of megabytes: a large one is shown as its size and hash.
fn check_value(rule: &str, got: Result<Option<Bytes>, Error>, wanted: Option<&[u8]>) -> Outcome {
    match got {
        Ok(got) if got.as_deref() == wanted => Ok(()),
        Ok(got) => Err(format!("{rule}: got {}, wanted {}", shown(got.as_deref()), shown(wanted))),
        Err(error) => Err(format!("{rule}: got {error:?}, wanted {}", shown(wanted))),
    }
}

fn shown(value: Option<&[u8]>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) if value.len() <= SHOWN_BYTES_MAX => format!("{value:?}"),
        Some(value) => format!("{} bytes with the hash {}", value.len(), ContentHash::of(value)),
    }
}

/// Runs one named check; what it finds broken is told with its name.
async fn named(name: &str, check: impl Future<Output = Outcome>) -> Outcome {
    check.await.map_err(|broken| format!("{name}: {broken}"))
}

/// `length` bytes that look random, compress badly and are the same in every run.
fn noise(length: usize) -> Bytes {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(b"b2sync conformance").finalize_xof().fill(&mut bytes);
    bytes.into()
}

type Racer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Polls all of them in turn until each has answered: wherever one waits, the others go on.
async fn race<T>(racers: Vec<Racer<'_, T>>) -> Vec<T> {
    let mut racers: Vec<_> = racers.into_iter().map(|racer| (racer, None)).collect();
    poll_fn(|context| {
        for (racer, answer) in &mut racers {
            if answer.is_none()
                && let Poll::Ready(ready) = racer.as_mut().poll(context)
            {
                *answer = Some(ready);
            }
        }
        if racers.iter().all(|(_, answer)| answer.is_some()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    racers.into_iter().filter_map(|(_, answer)| answer).collect()
}
