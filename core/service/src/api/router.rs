//! Paths and methods.

use percent_encoding::percent_decode_str;

use super::errors::ApiError;
use b2sync_core::error::{Error, ErrorKind};

/// The longest part of a path between two slashes, in bytes, decoded.
const SEGMENT_BYTES_MAX: usize = 512;

/// What a request asks for. Names and ids are decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Root,
    Health,
    ConnectionCreate,
    ConnectionList,
    ConnectionGet(String),
    ConnectionUpdate(String),
    ConnectionDelete(String),
    ConnectionTest(String),
    SyncCreate { bucket: String },
    SyncList { bucket: String },
    Sync { bucket: String, sync: String, action: SyncAction },
    ObjectList { bucket: String },
    ObjectGet { bucket: String, object: String },
}

/// What to do with one sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SyncAction {
    Get,
    Update,
    Delete,
    Pause,
    Resume,
    Trigger,
    Unlock,
    Metrics,
    Changes,
    JobList,
    JobGet(String),
    DeadLetterList,
    DeadLetterRequeue,
    DeadLetterMarkFailed,
}

impl Route {
    /// Whether it answers without an API key.
    pub(crate) fn is_public(&self) -> bool {
        matches!(self, Self::Root | Self::Health)
    }
}

/// Finds the route. A slash at the end does not matter; `HEAD` is `GET`.
pub(crate) fn parse_route(method: &str, path: &str) -> Result<Route, ApiError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments: Option<Vec<String>> = match path {
        "" => Some(Vec::new()),
        path => path.split('/').map(decode).collect(),
    };
    let segments = segments.ok_or_else(no_route)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let method = if method == "HEAD" { "GET" } else { method };
    let allow = |allow| Err(ApiError::MethodNotAllowed { allow });
    match segments.as_slice() {
        [] => match method {
            "GET" => Ok(Route::Root),
            _ => allow("GET, HEAD"),
        },
        ["healthz"] => match method {
            "GET" => Ok(Route::Health),
            _ => allow("GET, HEAD"),
        },
        ["v1", "organizations", "connections", rest @ ..] => match (rest, method) {
            ([], "POST") => Ok(Route::ConnectionCreate),
            ([], "GET") | (["list"], "POST") => Ok(Route::ConnectionList),
            ([], _) => allow("GET, HEAD, POST"),
            ([id], "GET") => Ok(Route::ConnectionGet((*id).to_owned())),
            ([id], "PATCH") => Ok(Route::ConnectionUpdate((*id).to_owned())),
            ([id], "DELETE") => Ok(Route::ConnectionDelete((*id).to_owned())),
            (["list"], _) => allow("DELETE, GET, HEAD, PATCH, POST"),
            ([_], _) => allow("DELETE, GET, HEAD, PATCH"),
            ([id, "test"], "POST") => Ok(Route::ConnectionTest((*id).to_owned())),
            ([_, "test"], _) => allow("POST"),
            _ => Err(no_route()),
        },
        ["v1", "buckets", bucket, "syncs", rest @ ..] => parse_sync_route(method, bucket, rest),
        ["v1", "buckets", bucket, "objects", rest @ ..] => {
            let bucket = (*bucket).to_owned();
            match (rest, method) {
                ([], "GET") | (["list"], "POST") => Ok(Route::ObjectList { bucket }),
                ([], _) => allow("GET, HEAD"),
                ([object], "GET") => Ok(Route::ObjectGet { bucket, object: (*object).to_owned() }),
                (["list"], _) => allow("GET, HEAD, POST"),
                ([_], _) => allow("GET, HEAD"),
                _ => Err(no_route()),
            }
        }
        _ => Err(no_route()),
    }
}

fn parse_sync_route(method: &str, bucket: &str, rest: &[&str]) -> Result<Route, ApiError> {
    let bucket = bucket.to_owned();
    let allow = |allow| Err(ApiError::MethodNotAllowed { allow });
    let action = match (rest, method) {
        ([], "POST") => return Ok(Route::SyncCreate { bucket }),
        ([], "GET") | (["list"], "POST") => return Ok(Route::SyncList { bucket }),
        ([], _) => return allow("GET, HEAD, POST"),
        ([_], "GET") => SyncAction::Get,
        ([_], "PATCH") => SyncAction::Update,
        ([_], "DELETE") => SyncAction::Delete,
        (["list"], _) => return allow("DELETE, GET, HEAD, PATCH, POST"),
        ([_], _) => return allow("DELETE, GET, HEAD, PATCH"),
        ([_, "pause"], "POST") => SyncAction::Pause,
        ([_, "resume"], "POST") => SyncAction::Resume,
        ([_, "trigger"], "POST") => SyncAction::Trigger,
        ([_, "unlock"], "POST") => SyncAction::Unlock,
        ([_, "pause" | "resume" | "trigger" | "unlock"], _) => return allow("POST"),
        ([_, "metrics"], "GET") => SyncAction::Metrics,
        ([_, "metrics"], _) => return allow("GET, HEAD"),
        ([_, "changes"], "GET") => SyncAction::Changes,
        ([_, "changes"], _) => return allow("GET, HEAD"),
        ([_, "jobs"], "GET" | "POST") => SyncAction::JobList,
        ([_, "jobs"], _) => return allow("GET, HEAD, POST"),
        ([_, "jobs", job], "GET") => SyncAction::JobGet((*job).to_owned()),
        ([_, "jobs", _], _) => return allow("GET, HEAD"),
        ([_, "dlq"], "GET" | "POST") => SyncAction::DeadLetterList,
        ([_, "dlq"], _) => return allow("GET, HEAD, POST"),
        ([_, "dlq", "requeue"], "POST") => SyncAction::DeadLetterRequeue,
        ([_, "dlq", "bulk-mark-failed"], "POST") => SyncAction::DeadLetterMarkFailed,
        ([_, "dlq", "requeue" | "bulk-mark-failed"], _) => return allow("POST"),
        _ => return Err(no_route()),
    };
    match rest {
        [sync, ..] => Ok(Route::Sync { bucket, sync: (*sync).to_owned(), action }),
        [] => Err(no_route()),
    }
}

fn no_route() -> ApiError {
    Error::new(
        ErrorKind::NotFound,
        "There is nothing at this path.",
        "The API begins with /v1/organizations/connections and /v1/buckets/{bucket_id}/syncs; GET / says more.",
    )
    .into()
}

/// One part of a path; `None` when it is empty, too long, no UTF-8 or holds a control character.
fn decode(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    let fits = !text.is_empty() && text.len() <= SEGMENT_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT"];

    #[test]
    fn paths() {
        let ok = |method: &str, path: &str| parse_route(method, path).unwrap();
        assert_eq!(ok("GET", "/"), Route::Root);
        assert_eq!(ok("HEAD", "/healthz/"), Route::Health);
        assert_eq!(ok("POST", "/v1/organizations/connections/"), Route::ConnectionCreate);
        assert_eq!(ok("POST", "/v1/organizations/connections/list"), Route::ConnectionList);
        assert_eq!(ok("GET", "/v1/organizations/connections/list"), Route::ConnectionGet("list".into()));
        assert_eq!(ok("GET", "/v1/organizations/connections/a%2Fb%20%C3%BC"), Route::ConnectionGet("a/b ü".into()));
        assert_eq!(ok("POST", "/v1/organizations/connections/a/test"), Route::ConnectionTest("a".into()));
        assert_eq!(ok("POST", "/v1/buckets/b/syncs"), Route::SyncCreate { bucket: "b".into() });
        let sync = |action| Route::Sync { bucket: "b".into(), sync: "s".into(), action };
        assert_eq!(ok("POST", "/v1/buckets/b/syncs/s/trigger"), sync(SyncAction::Trigger));
        assert_eq!(ok("GET", "/v1/buckets/b/syncs/s/jobs/j"), sync(SyncAction::JobGet("j".into())));
        assert_eq!(ok("GET", "/v1/buckets/b/objects"), Route::ObjectList { bucket: "b".into() });
        assert_eq!(ok("GET", "/v1/buckets/b/objects/o"), Route::ObjectGet { bucket: "b".into(), object: "o".into() });
    }

    #[test]
    fn nothing_else_is_there() {
        let long = format!("/v1/buckets/{}/syncs", "x".repeat(SEGMENT_BYTES_MAX + 1));
        for path in [
            "/v1",
            "/v2/buckets/b/syncs",
            "/v1//buckets",
            "/v1/buckets//syncs",
            "/v1/buckets/%FF/syncs",
            "/healthz/x",
            &long,
            "/v1/buckets/b/syncs/s/pause/x",
            "/v1/buckets/%0A/syncs",
        ] {
            for method in METHODS {
                assert_eq!(parse_route(method, path).unwrap_err(), no_route(), "{method} {path}");
            }
        }
    }

    /// `Allow` names exactly the methods that work.
    #[test]
    fn allow_is_true() {
        for path in [
            "/",
            "/healthz",
            "/v1/organizations/connections",
            "/v1/organizations/connections/list",
            "/v1/organizations/connections/c",
            "/v1/organizations/connections/c/test",
            "/v1/buckets/b/syncs",
            "/v1/buckets/b/syncs/list",
            "/v1/buckets/b/syncs/s",
            "/v1/buckets/b/syncs/s/pause",
            "/v1/buckets/b/syncs/s/metrics",
            "/v1/buckets/b/syncs/s/changes",
            "/v1/buckets/b/syncs/s/jobs",
            "/v1/buckets/b/syncs/s/jobs/j",
            "/v1/buckets/b/syncs/s/dlq",
            "/v1/buckets/b/syncs/s/dlq/requeue",
            "/v1/buckets/b/syncs/s/dlq/bulk-mark-failed",
            "/v1/buckets/b/objects",
            "/v1/buckets/b/objects/list",
            "/v1/buckets/b/objects/o",
        ] {
            let Err(ApiError::MethodNotAllowed { allow }) = parse_route("PUT", path) else { panic!("{path}") };
            for method in METHODS {
                let allowed = allow.split(", ").any(|name| name == method);
                assert_eq!(parse_route(method, path).is_ok(), allowed, "{method} {path}");
            }
        }
    }
}
