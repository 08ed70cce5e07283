//! What wit-bindgen makes of `wit/`. The documentation is there.

#![allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, rust_2018_idioms, clippy::all)]

wit_bindgen::generate!({ path: "../../wit", world: "embed" });

export!(Component with_types_in self);

use super::Component;
