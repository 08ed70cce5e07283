//! Bytes that stand in a JSON document itself, base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::snapshot::codec::DecodeError;

/// Encodes bytes to stand in the document itself.
pub fn encode_bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Decodes what [`encode_bytes`] wrote.
///
/// # Errors
/// [`DecodeError`] on any other text.
pub fn decode_bytes(text: &str) -> Result<Vec<u8>, DecodeError> {
    STANDARD.decode(text).map_err(|_| DecodeError::Text)
}
