//! What was asked: counts by operation and by the class B2 bills, and a log of requests without secrets.

use std::collections::VecDeque;

use b2sync_core::http::{Method, Request};
use b2sync_core::time::Timestamp;
use serde::Serialize;

use super::sigv4::query_pairs;

/// The most entries the log keeps; older ones are dropped.
const LOG_ENTRIES_MAX: usize = 100_000;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `b2_authorize_account`.
    Authorize,
    /// `ListObjectsV2`.
    List,
    /// `HeadObject`.
    Head,
    /// `GetObject`.
    Get,
    /// Anything else.
    Other,
}

impl Operation {
    /// Decides by method and path alone.
    pub fn of(request: &Request) -> Self {
        let path = request.uri().path();
        if path.starts_with("/b2api/") {
            return if path.ends_with("/b2_authorize_account") { Self::Authorize } else { Self::Other };
        }
        let (bucket, key) = split_path(path);
        match *request.method() {
            Method::GET if bucket.is_empty() => Self::Other,
            Method::GET if key.is_empty() => Self::List,
            Method::GET => Self::Get,
            Method::HEAD if !key.is_empty() => Self::Head,
            _ => Self::Other,
        }
    }
}

/// The bucket and the key of a path-style path, both still encoded.
pub(super) fn split_path(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

/// How many requests arrived, whatever became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// `b2_authorize_account`, class C.
    pub authorize: u64,
    /// `ListObjectsV2`, class C.
    pub list: u64,
    /// `HeadObject`, class B.
    pub head: u64,
    /// `GetObject`, class B.
    pub get: u64,
    /// Anything else, class A.
    pub other: u64,
    /// Free of charge.
    pub class_a: u64,
    /// 2,500 a day free, then $0.004 per 10,000.
    pub class_b: u64,
    /// 2,500 a day free, then $0.004 per 1,000.
    pub class_c: u64,
}

impl Counts {
    /// All requests.
    pub const fn total(&self) -> u64 {
        self.class_a + self.class_b + self.class_c
    }

    fn add(&mut self, operation: Operation) {
        let (count, class) = match operation {
            Operation::Authorize => (&mut self.authorize, &mut self.class_c),
            Operation::List => (&mut self.list, &mut self.class_c),
            Operation::Head => (&mut self.head, &mut self.class_b),
            Operation::Get => (&mut self.get, &mut self.class_b),
            Operation::Other => (&mut self.other, &mut self.class_a),
        };
        *count += 1;
        *class += 1;
    }
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// When it arrived, in milliseconds since 1970.
    pub at_ms: i64,
    /// `GET`.
    pub method: String,
    /// As sent, percent-encoding and all.
    pub path: String,
    /// As sent, without `X-Amz-*` parameters: they hold a credential and a signature.
    pub query: String,
    /// What it is for.
    pub operation: Operation,
    /// The status that was answered; `None` when there was no answer.
    pub status: Option<u16>,
    /// The fault that was injected.
    pub fault: Option<&'static str>,
}

/// Counts and log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) counts: Counts,
    log: VecDeque<LogEntry>,
}

impl Ledger {
    pub(super) fn record(
        &mut self,
        request: &Request,
        now: Timestamp,
        status: Option<u16>,
        fault: Option<&'static str>,
    ) {
        let operation = Operation::of(request);
        self.counts.add(operation);
        if self.log.len() == LOG_ENTRIES_MAX {
            self.log.pop_front();
        }
        self.log.push_back(LogEntry {
            at_ms: now.as_millis(),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            query: without_secrets(request.uri().query().unwrap_or_default()),
            operation,
            status,
            fault,
        });
    }

    pub(super) fn log(&self) -> Vec<LogEntry> {
        self.log.iter().cloned().collect()
    }
}

fn without_secrets(query: &str) -> String {
    let harmless = |pair: &&str| !query_pairs(pair).any(|(name, _)| name.starts_with(b"X-Amz-"));
    query.split('&').filter(harmless).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn operation(method: Method, uri: &str) -> Operation {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        Operation::of(&request)
    }

    #[test]
    fn operations_are_told_by_method_and_path() {
        assert_eq!(operation(Method::GET, "/b2api/v4/b2_authorize_account"), Operation::Authorize);
        assert_eq!(operation(Method::GET, "/b2api/v4/b2_list_buckets"), Operation::Other);
        assert_eq!(operation(Method::GET, "https://h/my-bucket?list-type=2"), Operation::List);
        assert_eq!(operation(Method::GET, "/my-bucket/?list-type=2"), Operation::List);
        assert_eq!(operation(Method::GET, "/my-bucket//"), Operation::Get);
        assert_eq!(operation(Method::HEAD, "/my-bucket/a/b"), Operation::Head);
        assert_eq!(operation(Method::HEAD, "/my-bucket"), Operation::Other);
        assert_eq!(operation(Method::PUT, "/my-bucket/a"), Operation::Other);
        assert_eq!(operation(Method::GET, "/"), Operation::Other);
    }

    #[test]
    fn the_log_holds_no_signature() {
        assert_eq!(without_secrets("a=1&X-Amz-Signature=abc&X%2DAmz-Credential=k&b"), "a=1&b");
    }
}
