//! The routes: one table, from which come matching, `Allow`, 404 and 405, what `GET /` answers, and the table in
//! `docs/reference/http-api.md`.
//!
//! **Invariants.** No method of a path has two routes. `HEAD` works where `GET` does, and is matched as `GET`.

use percent_encoding::percent_decode_str;

use super::errors::ApiError;
use b2sync_core::error::{Error, ErrorKind};

/// The longest part of a path between two slashes, in bytes, decoded.
pub(super) const SEGMENT_BYTES_MAX: usize = 512;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Root,
    Health,
    Description,
    Page,
    ConnectionCreate,
    ConnectionList,
    ConnectionGet,
    ConnectionUpdate,
    ConnectionDelete,
    ConnectionTest,
    SyncListAll,
    SyncCreate,
    SyncPreview,
    SyncList,
    SyncGet,
    SyncUpdate,
    SyncDelete,
    SyncTrigger,
    SyncPause,
    SyncResume,
    SyncUnlock,
    SyncMetrics,
    ChangeList,
    KeyExplain,
    JobList,
    JobGet,
    DeadLetterList,
    DeadLetterRequeue,
    DeadLetterMarkFailed,
    ObjectList,
    ObjectGet,
    ObjectDelete,
    ObjectsDelete,
}

impl Operation {
    /// Whether it reads parameters of the query, and refuses those that it does not know.
    pub(super) const fn reads_query(self) -> bool {
        use Operation::{
            ChangeList, ConnectionList, DeadLetterList, JobGet, JobList, KeyExplain, ObjectGet, ObjectList,
            ObjectsDelete, SyncDelete, SyncList, SyncListAll, SyncTrigger,
        };
        matches!(
            self,
            ConnectionList
                | SyncListAll
                | SyncList
                | SyncDelete
                | SyncTrigger
                | ChangeList
                | KeyExplain
                | JobList
                | JobGet
                | DeadLetterList
                | ObjectList
                | ObjectGet
                | ObjectsDelete
        )
    }

    /// Whether it answers one record that has an `etag`.
    pub(super) const fn answers_record(self) -> bool {
        use Operation::{
            ConnectionCreate, ConnectionGet, ConnectionUpdate, SyncCreate, SyncGet, SyncPause, SyncResume, SyncUpdate,
        };
        matches!(
            self,
            ConnectionCreate
                | ConnectionGet
                | ConnectionUpdate
                | SyncCreate
                | SyncGet
                | SyncPause
                | SyncResume
                | SyncUpdate
        )
    }

    /// Whether it changes a record only if that is as `If-Match` says.
    pub(super) const fn reads_if_match(self) -> bool {
        use Operation::{ConnectionDelete, ConnectionUpdate, SyncDelete, SyncPause, SyncResume, SyncUpdate};
        matches!(self, ConnectionDelete | ConnectionUpdate | SyncDelete | SyncPause | SyncResume | SyncUpdate)
    }

    /// Whether it reads the body, and refuses fields that it does not know.
    pub(super) const fn reads_body(self) -> bool {
        use Operation::{
            ConnectionCreate, ConnectionList, ConnectionUpdate, DeadLetterList, DeadLetterMarkFailed,
            DeadLetterRequeue, JobList, ObjectList, SyncCreate, SyncList, SyncListAll, SyncPause, SyncPreview,
            SyncUpdate,
        };
        matches!(
            self,
            ConnectionCreate
                | ConnectionList
                | ConnectionUpdate
                | SyncCreate
                | SyncPreview
                | SyncListAll
                | SyncList
                | SyncUpdate
                | SyncPause
                | JobList
                | DeadLetterList
                | DeadLetterRequeue
                | DeadLetterMarkFailed
                | ObjectList
        )
    }
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Route {
    /// Without `HEAD`.
    pub(super) methods: &'static [&'static str],
    /// `{…}` stands for one part of the path, and names a field of [`PathParameters`].
    pub(super) path: &'static str,
    pub(super) operation: Operation,
    /// What it does, for the documentation.
    #[cfg_attr(not(test), expect(dead_code, reason = "docs/reference/http-api.md shows it"))]
    pub(super) summary: &'static str,
    /// Whether it answers without an API key.
    pub(super) is_public: bool,
}

/// A route that needs the API key.
const fn route(
    methods: &'static [&'static str],
    path: &'static str,
    operation: Operation,
    summary: &'static str,
) -> Route {
    Route { methods, path, operation, summary, is_public: false }
}

const fn public(path: &'static str, operation: Operation, summary: &'static str) -> Route {
    Route { methods: &["GET"], path, operation, summary, is_public: true }
}

const CONNECTIONS: &str = "/v1/organizations/connections";
const CONNECTION_LIST: &str = "/v1/organizations/connections/list";
const CONNECTION: &str = "/v1/organizations/connections/{connection_id}";
const CONNECTION_TEST: &str = "/v1/organizations/connections/{connection_id}/test";
const ALL_SYNCS: &str = "/v1/syncs";
const ALL_SYNC_LIST: &str = "/v1/syncs/list";
const SYNCS: &str = "/v1/buckets/{bucket_id}/syncs";
const SYNC_PREVIEW: &str = "/v1/buckets/{bucket_id}/syncs/preview";
const SYNC_LIST: &str = "/v1/buckets/{bucket_id}/syncs/list";
const SYNC: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}";
const TRIGGER: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/trigger";
const PAUSE: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/pause";
const RESUME: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/resume";
const UNLOCK: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/unlock";
const METRICS: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/metrics";
const CHANGES: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/changes";
const EXPLAIN: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/explain";
const JOBS: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/jobs";
const JOB: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/jobs/{sync_job_id}";
const DLQ: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/dlq";
const REQUEUE: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/dlq/requeue";
const MARK_FAILED: &str = "/v1/buckets/{bucket_id}/syncs/{sync_config_id}/dlq/bulk-mark-failed";
const OBJECTS: &str = "/v1/buckets/{bucket_id}/objects";
const OBJECT_LIST: &str = "/v1/buckets/{bucket_id}/objects/list";
const OBJECT: &str = "/v1/buckets/{bucket_id}/objects/{object_id}";

/// Every route there is.
#[rustfmt::skip] // One row a route.
pub(super) static ROUTES: [Route; 37] = [
    public("/", Operation::Root, "say what this service is"),
    public("/healthz", Operation::Health, r#"`{"service": "b2sync", "status": "ok", "version": "…"}`"#),
    public("/openapi.json", Operation::Description, "this API, as OpenAPI 3.1"),
    public("/docs", Operation::Page, "this API as a page to read"),
    route(&["POST"], CONNECTIONS, Operation::ConnectionCreate, "create a connection"),
    route(&["GET"], CONNECTIONS, Operation::ConnectionList, "list connections"),
    route(&["POST"], CONNECTION_LIST, Operation::ConnectionList, "list connections, with filters in the body"),
    route(&["GET"], CONNECTION, Operation::ConnectionGet, "read a connection"),
    route(&["PATCH"], CONNECTION, Operation::ConnectionUpdate, "change a connection"),
    route(&["DELETE"], CONNECTION, Operation::ConnectionDelete, "archive a connection and erase its key"),
    route(&["POST"], CONNECTION_TEST, Operation::ConnectionTest, "test a connection"),
    route(&["GET"], ALL_SYNCS, Operation::SyncListAll, "list the syncs of all buckets of the namespace"),
    route(&["POST"], ALL_SYNC_LIST, Operation::SyncListAll,
          "list the syncs of all buckets of the namespace, with filters in the body"),
    route(&["POST"], SYNCS, Operation::SyncCreate, "create a sync"),
    route(&["POST"], SYNC_PREVIEW, Operation::SyncPreview, "say what a new sync would take; creates nothing"),
    route(&["GET"], SYNCS, Operation::SyncList, "list syncs"),
    route(&["POST"], SYNC_LIST, Operation::SyncList, "list syncs, with filters in the body"),
    route(&["GET"], SYNC, Operation::SyncGet, "read a sync and how it stands"),
    route(&["PATCH"], SYNC, Operation::SyncUpdate, "change a sync"),
    route(&["DELETE"], SYNC, Operation::SyncDelete,
          "delete a sync; `?delete_objects=true` deletes its objects too"),
    route(&["POST"], TRIGGER, Operation::SyncTrigger, "start a job; `?confirm_deletes=true`, `?full_sync=true`"),
    route(&["POST"], PAUSE, Operation::SyncPause, "stop polling; a running job becomes `interrupted`"),
    route(&["POST"], RESUME, Operation::SyncResume, "poll again, and start a job"),
    route(&["POST"], UNLOCK, Operation::SyncUnlock, "abort a running job; polling continues"),
    route(&["GET"], METRICS, Operation::SyncMetrics, "whether the sync is healthy, and what it costs"),
    route(&["GET"], CHANGES, Operation::ChangeList, "read the feed"),
    route(&["GET"], EXPLAIN, Operation::KeyExplain, "say what happened to one file: `?key=…`"),
    route(&["GET", "POST"], JOBS, Operation::JobList, "list jobs, newest first"),
    route(&["GET"], JOB, Operation::JobGet, "read a job; `?wait=25` waits for its end"),
    route(&["GET", "POST"], DLQ, Operation::DeadLetterList, "list the dead letters of the catalogue, newest first"),
    route(&["POST"], REQUEUE, Operation::DeadLetterRequeue, "offer dead letters to the catalogue again"),
    route(&["POST"], MARK_FAILED, Operation::DeadLetterMarkFailed, "give dead letters up"),
    route(&["GET"], OBJECTS, Operation::ObjectList, "list objects, in the order of their keys"),
    route(&["POST"], OBJECT_LIST, Operation::ObjectList, "list objects, with filters in the body"),
    route(&["DELETE"], OBJECTS, Operation::ObjectsDelete, "remove the objects of one sync: `?sync_id=…`"),
    route(&["GET"], OBJECT, Operation::ObjectGet, "read an object"),
    route(&["DELETE"], OBJECT, Operation::ObjectDelete, "remove an object; answers 204, without a body"),
];

/// Where to begin, as `GET /` answers it: the first route of each of these.
const START: [Operation; 6] = [
    Operation::ConnectionCreate,
    Operation::SyncCreate,
    Operation::SyncTrigger,
    Operation::ChangeList,
    Operation::JobList,
    Operation::ObjectList,
];

/// `POST /v1/…`, for each route to begin with.
pub(super) fn start() -> Vec<String> {
    let first = |operation| ROUTES.iter().find(|route| route.operation == operation);
    let routes = START.into_iter().filter_map(first);
    routes.map(|route| format!("{} {}", route.methods.first().unwrap_or(&"GET"), route.path)).collect()
}

/// The parts of a path that its route names, decoded; those that it does not name are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PathParameters {
    /// Id or name.
    pub(super) connection_id: String,
    pub(super) bucket_id: String,
    pub(super) sync_config_id: String,
    pub(super) sync_job_id: String,
    pub(super) object_id: String,
}

impl PathParameters {
    fn field(&mut self, name: &str) -> Option<&mut String> {
        match name {
            "connection_id" => Some(&mut self.connection_id),
            "bucket_id" => Some(&mut self.bucket_id),
            "sync_config_id" => Some(&mut self.sync_config_id),
            "sync_job_id" => Some(&mut self.sync_job_id),
            "object_id" => Some(&mut self.object_id),
            _ => None,
        }
    }
}

/// Finds the route. A slash at the end does not matter, except to `DELETE` and `PATCH`.
///
/// # Errors
/// No route has this path; the routes that have it have other methods.
pub(super) fn find(method: &str, path: &str) -> Result<(&'static Route, PathParameters), ApiError> {
    let path = path.strip_prefix('/').unwrap_or(path);
    // URL parsers turn `…/jobs/%2e%2e` into `…/`: what changes or deletes must not act on the path above.
    if path.ends_with('/') && matches!(method, "DELETE" | "PATCH") {
        return Err(no_route());
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments: Option<Vec<String>> = match path {
        "" => Some(Vec::new()),
        path => path.split('/').map(decode).collect(),
    };
    let segments = segments.ok_or_else(no_name)?;
    let method = if method == "HEAD" { "GET" } else { method };
    let mut allowed = Vec::new();
    for route in &ROUTES {
        let Some(parameters) = parameters(route.path, &segments) else { continue };
        if route.methods.contains(&method) {
            return Ok((route, parameters));
        }
        allowed.extend_from_slice(route.methods);
    }
    if allowed.is_empty() {
        return Err(no_route());
    }
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    allowed.sort_unstable();
    allowed.dedup();
    Err(ApiError::MethodNotAllowed { allow: allowed.join(", ") })
}

/// The parts that a template names; `None` if the path is another.
fn parameters(template: &str, segments: &[String]) -> Option<PathParameters> {
    let mut parameters = PathParameters::default();
    let mut segments = segments.iter();
    for part in template.split('/').filter(|part| !part.is_empty()) {
        let segment = segments.next()?;
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => parameters.field(name)?.clone_from(segment),
            None if part == segment => {}
            None => return None,
        }
    }
    segments.next().is_none().then_some(parameters)
}

fn no_route() -> ApiError {
    Error::new(
        ErrorKind::NotFound,
        "No such endpoint.",
        "The API begins with /v1/organizations/connections and /v1/buckets/{bucket_id}/syncs; GET / says more.",
    )
    .into()
}

/// A part of the path is no name, whatever route it was for.
fn no_name() -> ApiError {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "A part of the path is empty, . or .., longer than {SEGMENT_BYTES_MAX} bytes, not UTF-8, or holds a \
             control character."
        ),
        "Percent-encode each part, and choose shorter names. GET / says what the paths are.",
    )
    .into()
}

/// One part of a path; `None` when it is empty, too long, no UTF-8 or holds a control character.
fn decode(segment: &str) -> Option<String> {
    let text = percent_decode_str(segment).decode_utf8().ok()?;
    let is_dots = text == "." || text == "..";
    let fits = !text.is_empty() && !is_dots && text.len() <= SEGMENT_BYTES_MAX && !text.chars().any(char::is_control);
    fits.then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `…/syncs/s/jobs/%2e%2e` is `…/syncs/s/` behind a URL parser.
    #[test]
    fn what_a_url_parser_leaves_of_two_dots_deletes_nothing() {
        for path in ["/v1/buckets/b/syncs/s/", "/v1/organizations/connections/c/"] {
            for method in ["DELETE", "PATCH"] {
                assert!(find(method, path).is_err(), "{method} {path}");
                assert!(find(method, path.trim_end_matches('/')).is_ok(), "{method} {path}");
            }
            assert!(find("GET", path).is_ok());
        }
        for segment in [".", "..", "%2e%2e", "%2E."] {
            assert!(find("DELETE", &format!("/v1/buckets/b/syncs/{segment}")).is_err(), "{segment}");
        }
    }

    const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PATCH", "DELETE", "PUT"];

    #[test]
    fn paths() {
        let ok = |method: &str, path: &str| {
            let (route, parameters) = find(method, path).unwrap();
            (route.operation, parameters)
        };
        let none = PathParameters::default();
        assert_eq!(ok("GET", "/"), (Operation::Root, none.clone()));
        assert_eq!(ok("HEAD", "/healthz/"), (Operation::Health, none.clone()));
        assert_eq!(ok("POST", "/v1/organizations/connections/"), (Operation::ConnectionCreate, none.clone()));
        assert_eq!(ok("POST", "/v1/organizations/connections/list"), (Operation::ConnectionList, none));
        let connection = |id: &str| PathParameters { connection_id: id.to_owned(), ..PathParameters::default() };
        assert_eq!(ok("GET", "/v1/organizations/connections/list"), (Operation::ConnectionGet, connection("list")));
        assert_eq!(
            ok("GET", "/v1/organizations/connections/a%2Fb%20%C3%BC"),
            (Operation::ConnectionGet, connection("a/b ü"))
        );
        assert_eq!(ok("POST", "/v1/organizations/connections/a/test"), (Operation::ConnectionTest, connection("a")));
        let bucket = PathParameters { bucket_id: "b".into(), ..PathParameters::default() };
        assert_eq!(ok("POST", "/v1/buckets/b/syncs"), (Operation::SyncCreate, bucket.clone()));
        assert_eq!(ok("GET", "/v1/buckets/b/objects"), (Operation::ObjectList, bucket.clone()));
        let sync = PathParameters { sync_config_id: "s".into(), ..bucket.clone() };
        assert_eq!(ok("POST", "/v1/buckets/b/syncs/s/trigger"), (Operation::SyncTrigger, sync.clone()));
        let job = PathParameters { sync_job_id: "j".into(), ..sync };
        assert_eq!(ok("GET", "/v1/buckets/b/syncs/s/jobs/j"), (Operation::JobGet, job));
        let object = PathParameters { object_id: "o".into(), ..bucket };
        assert_eq!(ok("GET", "/v1/buckets/b/objects/o"), (Operation::ObjectGet, object));
    }

    #[test]
    fn nothing_else_is_there_and_what_is_no_name_is_told() {
        for path in ["/v1", "/v2/buckets/b/syncs", "/healthz/x", "/v1/buckets/b/syncs/s/pause/x"] {
            for method in METHODS {
                assert_eq!(find(method, path).unwrap_err(), no_route(), "{method} {path}");
            }
        }
        let long = format!("/v1/buckets/{}/syncs", "x".repeat(SEGMENT_BYTES_MAX + 1));
        let no_names =
            ["/v1//buckets", "/v1/buckets//syncs", "/v1/buckets/%FF/syncs", "/v1/buckets/%0A/syncs", "/v1/../x", &long];
        for path in no_names {
            for method in METHODS {
                assert_eq!(find(method, path).unwrap_err(), no_name(), "{method} {path}");
            }
        }
    }

    fn allow(path: &str) -> String {
        match find("PUT", path) {
            Err(ApiError::MethodNotAllowed { allow }) => allow,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// `Allow` names exactly the methods that work, in the order of their names, also where two routes share a path.
    #[test]
    fn allow_is_true() {
        let shared = ["/v1/organizations/connections/list", "/v1/buckets/b/syncs/list", "/v1/buckets/b/objects/list"];
        for path in ROUTES.iter().map(|route| route.path).chain(shared) {
            let allow = allow(path);
            for method in METHODS {
                let allowed = allow.split(", ").any(|name| name == method);
                assert_eq!(find(method, path).is_ok(), allowed, "{method} {path}");
            }
        }
        for (path, expected) in [
            ("/", "GET, HEAD"),
            ("/v1/organizations/connections", "GET, HEAD, POST"),
            ("/v1/organizations/connections/c", "DELETE, GET, HEAD, PATCH"),
            ("/v1/organizations/connections/list", "DELETE, GET, HEAD, PATCH, POST"),
            ("/v1/organizations/connections/c/test", "POST"),
            ("/v1/buckets/b/syncs/list", "DELETE, GET, HEAD, PATCH, POST"),
            ("/v1/buckets/b/syncs/s/dlq", "GET, HEAD, POST"),
            ("/v1/buckets/b/objects/list", "DELETE, GET, HEAD, POST"),
            ("/v1/buckets/b/objects", "DELETE, GET, HEAD"),
            ("/v1/buckets/b/objects/o", "DELETE, GET, HEAD"),
        ] {
            assert_eq!(allow(path), expected, "{path}");
        }
    }

    #[test]
    fn every_route_is_found_by_its_own_path() {
        for route in &ROUTES {
            let parts: Vec<String> =
                route.path.split('/').skip(1).filter(|it| !it.is_empty()).map(Into::into).collect();
            assert!(parameters(route.path, &parts).is_some(), "{} names a parameter that is not there", route.path);
            for method in route.methods {
                let (found, parameters) = find(method, &route.path.replace('{', "%7B").replace('}', "%7D")).unwrap();
                assert!(std::ptr::eq(found, route), "{method} {} leads to {}", route.path, found.path);
                // Each parameter takes the part that stands where it is named.
                let taken = [
                    (parameters.connection_id, "{connection_id}"),
                    (parameters.bucket_id, "{bucket_id}"),
                    (parameters.sync_config_id, "{sync_config_id}"),
                    (parameters.sync_job_id, "{sync_job_id}"),
                    (parameters.object_id, "{object_id}"),
                ];
                for (value, name) in taken {
                    assert_eq!(value, if route.path.contains(name) { name } else { "" }, "{}", route.path);
                }
            }
            assert_eq!(route.is_public, !route.path.starts_with("/v1"), "{}", route.path);
        }
    }

    #[test]
    fn no_method_of_a_path_has_two_routes() {
        let parts = |route: &'static Route| route.path.split('/').collect::<Vec<_>>();
        for (n, one) in ROUTES.iter().enumerate() {
            for other in ROUTES.iter().skip(n + 1) {
                let (a, b) = (parts(one), parts(other));
                let may_be_same = |(a, b): (&&str, &&str)| a == b || a.starts_with('{') || b.starts_with('{');
                let collide = a.len() == b.len() && a.iter().zip(&b).all(may_be_same);
                let shared = one.methods.iter().any(|method| other.methods.contains(method));
                assert!(!(collide && shared), "{} and {}", one.path, other.path);
            }
        }
    }

    #[test]
    fn every_operation_to_begin_with_has_a_route() {
        assert_eq!(start().len(), START.len());
        assert!(start().contains(&"POST /v1/buckets/{bucket_id}/syncs".to_owned()));
    }
}
