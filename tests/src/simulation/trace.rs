//! What happened in a world, line by line, for people to read.

use std::cell::RefCell;

/// Lines, where a caller wants them: otherwise none is even made.
#[derive(Debug)]
pub(super) struct Trace(Option<RefCell<Vec<String>>>);

impl Trace {
    pub(super) fn new(wanted: bool) -> Self {
        Self(wanted.then(RefCell::default))
    }

    pub(super) fn note(&self, at_ms: i64, line: impl FnOnce() -> String) {
        if let Some(lines) = &self.0 {
            let (seconds, millis) = (at_ms.div_euclid(1_000), at_ms.rem_euclid(1_000));
            lines.borrow_mut().push(format!("{seconds:>7}.{millis:03} {}", line()));
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0.as_ref().map(|lines| lines.borrow().clone()).unwrap_or_default()
    }
}
