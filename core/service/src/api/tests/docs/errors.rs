//! `errors.md` has the codes, statuses and types of all errors, and the codes of warnings.

use strum::VariantArray;

use super::page::{check_block, merge};
use crate::{
    api::{ApiError, ApiResponse},
    registry::refusals::name_taken,
};
use b2sync_core::{
    error::{Error, ErrorKind},
    warning::WarningCode,
};
use serde_json::Value;

/// Code, status and type of an answer.
fn shown(error: ApiError) -> (String, u16, String) {
    let ApiResponse { status, body, .. } = error.into_response();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let text = |name: &str| body["error"][name].as_str().unwrap().to_owned();
    (text("code"), status, text("type"))
}

#[test]
fn the_codes() {
    let kinds = ErrorKind::VARIANTS.iter().copied().map(|kind| ApiError::from(Error::new(kind, "What.", "Do.")));
    let changed = ApiError::PreconditionFailed { etag: "a".to_owned() };
    let method = ApiError::MethodNotAllowed { allow: "GET".to_owned() };
    let row = |error: ApiError| {
        let (code, status, name) = shown(error);
        let mut name = format!("`{name}`");
        if code == ErrorKind::Conflict.as_str() {
            name += &format!("; `{}` for a name", shown(name_taken("A").into()).2);
        }
        vec![format!("`{code}`"), status.to_string(), name]
    };
    let rows: Vec<Vec<String>> = kinds.chain([changed, method]).map(row).collect();
    check_block("errors.md", "codes", |old| merge(old, &["code", "status", "type", "what to do"], &rows));
}

#[test]
fn the_warnings() {
    let rows: Vec<Vec<String>> =
        WarningCode::VARIANTS.iter().map(|code| vec![format!("`{}`", code.as_str())]).collect();
    check_block("errors.md", "warnings", |old| merge(old, &["code", "when"], &rows));
}
