//! For tests: what the parsers ask of bodies and queries, written down while they parse. The description of the API is
//! made of that, so that there is no second list of fields.

use std::cell::{Cell, RefCell};

use serde_json::Value;

/// One field that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Note {
    /// `["body", "file_filters", "extensions"]`
    pub(super) location: Vec<String>,
    /// A JSON Schema; `None`: the field is required.
    pub(super) schema: Option<Value>,
}

thread_local! {
    static NOTES: RefCell<Option<Vec<Note>>> = const { RefCell::new(None) };
    static OPENS: Cell<bool> = const { Cell::new(false) };
}

/// Runs `parse` twice, and answers what was asked for meanwhile: once with all objects looked into, also those that are
/// not there, and once without, which tells those that are required.
pub(super) fn record(parse: impl Fn()) -> Vec<Note> {
    let mut all = Vec::new();
    for opens in [true, false] {
        OPENS.set(opens);
        NOTES.set(Some(Vec::new()));
        parse();
        all.extend(NOTES.take().unwrap_or_default());
    }
    all
}

/// Whether objects are looked into that are not there.
pub(super) fn opens() -> bool {
    NOTES.with_borrow(Option::is_some) && OPENS.get()
}

/// Writes a field down; without a schema, that it is required.
pub(super) fn note(location: &[String], name: &str, schema: Option<Value>) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            let location = location.iter().cloned().chain([name.to_owned()]).collect();
            notes.push(Note { location, schema });
        }
    });
}
