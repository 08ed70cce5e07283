//! Objects: what requests say, and what answers show.

use serde_json::{Value, json};

use super::{
    body::{Fields, parse_object},
    errors::{ApiError, Problem},
    render,
};
use crate::catalogue::ObjectRecord;
use b2sync_core::mime;

/// The longest prefix, in characters.
const PREFIX_CHARS_MAX: usize = 1_024;

/// What a list of objects asks for in its body.
#[derive(Default)]
pub(super) struct ObjectFilter {
    pub(super) prefix: Option<String>,
    pub(super) include_total: Option<bool>,
    pub(super) return_presigned_urls: bool,
}

impl ObjectFilter {
    /// Reads the body of a list; problems go with those of the query.
    pub(super) fn parse(body: &[u8], problems: &mut Vec<Problem>) -> Result<Self, ApiError> {
        let mut fields = Fields::of_body(parse_object(body)?, problems);
        let filter = Self {
            prefix: fields.text("prefix", 0, PREFIX_CHARS_MAX),
            include_total: fields.flag("include_total"),
            return_presigned_urls: fields.flag("return_presigned_urls").unwrap_or(false),
        };
        for name in ["filters", "sort", "search", "select"] {
            let asked = match fields.value(name) {
                None => false,
                Some(Value::Array(list)) => !list.is_empty(),
                Some(Value::Object(map)) => !map.is_empty(),
                Some(Value::String(text)) => !text.is_empty(),
                Some(_) => true,
            };
            if asked {
                let message =
                    format!("`{name}` is not offered here. Objects come in the order of their keys; use `prefix`.");
                fields.problem(name, "value_error", message);
            }
        }
        fields.done();
        Ok(filter)
    }
}

/// The type of a blob, of those that the client knows. What has none of them is the string that its URL is.
fn blob_type(mime: &str) -> &'static str {
    match mime.split_once('/') {
        Some(("image", _)) => "image",
        Some(("video", _)) => "video",
        Some(("audio", _)) => "audio",
        Some(("text", _)) => "text",
        Some(("application", "pdf")) => "pdf",
        Some(("application", kind)) if kind.contains("excel") || kind.contains("spreadsheet") => "excel",
        _ => "string",
    }
}

/// An object, as the client reads it.
pub(super) fn render(record: &ObjectRecord, presigned_url: Option<&str>) -> Value {
    let mime = mime::guess(&record.key);
    let url = format!("b2://{}/{}", record.source_bucket, record.key);
    let file_name = record.key.rsplit_once('/').map_or(record.key.as_str(), |(_, name)| name);
    let digits = record.object_id.strip_prefix("obj_").unwrap_or(&record.object_id);
    json!({
        "object_id": record.object_id,
        "bucket_id": record.bucket_id,
        "key_prefix": record.key,
        "blobs": [{
            "blob_id": format!("blob_{digits}"),
            "property": "content",
            "key_prefix": record.key,
            "type": blob_type(mime),
            "properties": {"url": url},
            "presigned_url": presigned_url,
            "details": {
                "filename": file_name,
                "size_bytes": render::integer(record.size),
                "mime_type": mime,
                "hash": record.etag,
            },
        }],
        "source_details": [{"type": "bucket", "source_id": record.source_bucket}],
        // It is in the catalogue, and nothing here processes it further.
        "status": "ACTIVE",
        "created_at": render::time(record.created_at),
        "updated_at": render::time(record.updated_at),
        "source_bucket": record.source_bucket,
        "source_key": record.key,
        "source_url": url,
        "etag": record.etag,
        "size_bytes": render::integer(record.size),
        "last_modified": render::time(record.last_modified),
        "sync_config_id": record.sync_id,
        "connection_id": record.connection_id,
        "version": record.version,
        "change_id": record.change_id,
    })
}
