//! A field that stands twice in one object of a JSON text: of the two values, parsers keep one and drop the other
//! without a word. It looks at names only.

use std::{collections::BTreeSet, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// The name of the first field that stands twice in one object, at any depth. `None` also for what is no JSON.
pub(super) fn find_repeated(text: &[u8]) -> Option<String> {
    serde_json::from_slice::<Repeated>(text).ok()?.0
}

/// Of a JSON value.
struct Repeated(Option<String>);

impl<'de> Deserialize<'de> for Repeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Names)
    }
}

struct Names;

impl<'de> Visitor<'de> for Names {
    type Value = Repeated;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Repeated, E> {
        Ok(Repeated(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Repeated, A::Error> {
        let mut found = None;
        while let Some(Repeated(inside)) = items.next_element()? {
            found = found.or(inside);
        }
        Ok(Repeated(found))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Repeated, A::Error> {
        let (mut names, mut found) = (BTreeSet::new(), None);
        while let Some((name, Repeated(inside))) = fields.next_entry::<String, Repeated>()? {
            found = found.or(inside);
            if let Some(twice) = names.replace(name) {
                found = found.or(Some(twice));
            }
        }
        Ok(Repeated(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_stands_twice_is_named() {
        for (text, name) in [
            (r#"{"a": 1, "b": [1.5, -2, null, true, "x"], "c": {"a": 1}}"#, None),
            (r#"{"a": 1, "b": 2, "a": 3, "b": 4}"#, Some("a")),
            (r#"{"a": 1, "\u0061": 1}"#, Some("a")),
            (r#"{"x": {"y": [{"z": 1}, {"z": 1, "z": 2}]}}"#, Some("z")),
            (r#"[{"a": 1}, {"a": 1}]"#, None),
            (r#"{"a": 1, "a": 2"#, None),
            ("", None),
        ] {
            assert_eq!(find_repeated(text.as_bytes()).as_deref(), name, "{text}");
        }
    }
}
