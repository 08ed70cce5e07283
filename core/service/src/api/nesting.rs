//! How deep a JSON text is nested: found on its bytes, before anything is parsed that deep. It checks nothing else, and
//! any bytes have an answer.

/// The most levels of lists and objects in a body; the body itself is the first.
pub(super) const NESTING_MAX: usize = 32;

/// Where a text is nested too deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TooDeep {
    /// The field of the body, if the body is an object.
    pub(super) field: Option<String>,
}

/// Fails where `text` has more than [`NESTING_MAX`] levels.
pub(super) fn check_nesting(text: &[u8]) -> Result<(), TooDeep> {
    let mut depth = 0_usize;
    let mut field = None;
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' => {
                let (string, behind) = split_string(rest);
                // The last string before a value of the body is its name.
                if depth == 1 {
                    field = Some(string);
                }
                rest = behind;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > NESTING_MAX {
            let field = field.filter(|_| text.trim_ascii_start().starts_with(b"{"));
            return Err(TooDeep { field: field.map(|name| String::from_utf8_lossy(name).into_owned()) });
        }
    }
    Ok(())
}

/// A string, as it is written, and what is behind its closing quote.
fn split_string(text: &[u8]) -> (&[u8], &[u8]) {
    let mut escaped = false;
    let end = text.iter().position(|&byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    });
    match end {
        Some(end) => {
            let (string, rest) = text.split_at(end);
            (string, rest.get(1..).unwrap_or_default())
        }
        None => (text, &[]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |value, level| if level % 2 == 0 { json!([value]) } else { json!({"a": value}) })
    }

    fn check(value: &Value) -> Result<(), TooDeep> {
        check_nesting(value.to_string().as_bytes())
    }

    #[test]
    fn the_field_is_named() {
        let field = |name: &str| Err(TooDeep { field: Some(name.to_owned()) });
        assert_eq!(check(&json!({"x": nested(NESTING_MAX - 1), "y": [[]]})), Ok(()));
        assert_eq!(check(&json!({"a": "b", "x\"[": 1, "y": nested(NESTING_MAX), "z": 1})), field("y"));
        assert_eq!(check(&nested(NESTING_MAX)), Ok(()));
        assert_eq!(check(&json!([nested(NESTING_MAX)])), Err(TooDeep { field: None }));
        assert_eq!(check_nesting("[".repeat(100_000).as_bytes()), Err(TooDeep { field: None }));
        assert_eq!(check_nesting(format!("{{\"a\": {}", "[".repeat(100_000)).as_bytes()), field("a"));
    }

    #[test]
    fn brackets_in_strings_do_not_count() {
        let brackets = "[{\"\\".repeat(100);
        assert_eq!(check(&json!({"a": brackets, "b": [brackets]})), Ok(()));
        assert_eq!(check_nesting(br#"{"a": "\\", "b": "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["#), Ok(()));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = check_nesting(&text);
        }
    }
}
