//! What the implementations of a seam must have in common, as suites that any home's tests can run: each answers
//! `Err` with the first rule that is broken, so that it runs where nothing may panic.

pub mod registry;

use std::fmt::Debug;

use crate::error::{Error, ErrorKind};

/// `Err`: the rule that is broken, and how.
pub type Outcome = Result<(), String>;

fn check<T: Debug + PartialEq>(rule: &str, got: Result<T, Error>, wanted: T) -> Outcome {
    match got {
        Ok(got) if got == wanted => Ok(()),
        got => Err(format!("{rule}: got {got:?}, wanted {wanted:?}")),
    }
}

fn check_kind<T: Debug>(rule: &str, got: Result<T, Error>, wanted: ErrorKind) -> Outcome {
    match got {
        Err(error) if error.kind() == wanted => Ok(()),
        got => Err(format!("{rule}: got {got:?}, wanted {wanted:?}")),
    }
}
