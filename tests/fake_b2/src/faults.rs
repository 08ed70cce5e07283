//! What goes wrong on purpose: a queue of rules, each for one kind of operation, and a background of chance.

use b2sync_core::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use serde::Deserialize;

use super::ledger::Operation;
use super::refusal::{Refusal, respond};
use crate::virtual_world::SeededEntropy;
use b2sync_core::entropy::Entropy as _;
use b2sync_core::time::Timestamp;

/// One thing that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An error answer instead of the effect. Without code and message, it carries B2's for that status.
    Status {
        /// 429, 500, 503, …
        status: u16,
        /// `Retry-After`, in seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
        /// The error code.
        #[serde(default)]
        code: Option<String>,
        /// The error message.
        #[serde(default)]
        message: Option<String>,
    },
    /// No answer, ever, and no effect.
    Hang,
    /// The connection is dropped without an answer, and without an effect.
    Reset,
    /// The connection is closed after this many bytes of a longer body.
    CutBody {
        /// Bytes of the body that still arrive.
        after_bytes: usize,
    },
    /// The right answer, late.
    Delay {
        /// In milliseconds.
        millis: u64,
    },
    /// 200 with a body that is no XML and no JSON.
    Garbage,
    /// 200 with a complete exchange, but only the first half of the document.
    Truncated,
    /// A listing that shows nothing and claims to be complete. Other operations answer normally.
    EmptyListing,
    /// A listing page that is truncated and has no token. Other operations answer normally.
    NoToken,
    /// A listing page whose next token leads to the same page again. Other operations answer normally.
    SameToken,
    /// A listing page on which the size or the time of some entries cannot be read. Other operations answer normally.
    UnreadableEntries {
        /// Of these keys; empty for every second entry of the page.
        #[serde(default)]
        keys: Vec<String>,
    },
}

impl Fault {
    /// 503 with `Retry-After`.
    pub const fn slow_down(retry_after_s: u64) -> Self {
        Self::Status { status: 503, retry_after_s: Some(retry_after_s), code: None, message: None }
    }

    /// An error status with B2's own words.
    pub const fn status(status: u16) -> Self {
        Self::Status { status, retry_after_s: None, code: None, message: None }
    }

    /// The word for it in the log.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Hang => "hang",
            Self::Reset => "reset",
            Self::CutBody { .. } => "cut_body",
            Self::Delay { .. } => "delay",
            Self::Garbage => "garbage",
            Self::Truncated => "truncated",
            Self::EmptyListing => "empty_listing",
            Self::NoToken => "no_token",
            Self::SameToken => "same_token",
            Self::UnreadableEntries { .. } => "unreadable_entries",
        }
    }
}

/// Which requests a fault is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// All of them.
    #[default]
    Any,
    /// `b2_authorize_account`.
    Authorize,
    /// `ListObjectsV2`.
    List,
    /// `HeadObject`.
    Head,
    /// `GetObject`.
    Get,
}

impl Target {
    fn fits(self, operation: Operation) -> bool {
        match self {
            Self::Any => true,
            Self::Authorize => operation == Operation::Authorize,
            Self::List => operation == Operation::List,
            Self::Head => operation == Operation::Head,
            Self::Get => operation == Operation::Get,
        }
    }
}

/// A fault, for which requests, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests.
    #[serde(default)]
    pub target: Target,
    /// How many of them pass unharmed first.
    #[serde(default)]
    pub skip: u32,
    /// How many are then struck; [`Rule::ALWAYS`] for all.
    #[serde(default = "once")]
    pub times: u32,
    /// What happens to them.
    pub fault: Fault,
}

const fn once() -> u32 {
    1
}

impl Rule {
    /// As [`Rule::times`]: until the rules are cleared.
    pub const ALWAYS: u32 = u32::MAX;

    /// The next request of that kind, once.
    pub const fn next(target: Target, fault: Fault) -> Self {
        Self { target, skip: 0, times: 1, fault }
    }

    /// After `skip` requests that pass unharmed.
    #[must_use]
    pub const fn after(mut self, skip: u32) -> Self {
        self.skip = skip;
        self
    }

    /// For this many requests.
    #[must_use]
    pub const fn times(mut self, times: u32) -> Self {
        self.times = times;
        self
    }
}

/// Faults by chance, in the background of the rules.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chance {
    /// Which requests.
    #[serde(default)]
    pub target: Target,
    /// Of each of them being struck: 0 never, 1 always.
    pub probability: f64,
    /// Decides which are struck, and by what.
    pub seed: u64,
    /// One of them is drawn.
    pub faults: Vec<Fault>,
}

/// Serves a number of requests in each stretch of time, and strikes the others.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Which requests.
    #[serde(default)]
    pub target: Target,
    /// How many are served.
    pub calls: u32,
    /// In how many milliseconds. Stretches begin at multiples of it.
    pub window_ms: u64,
    /// What happens to the others.
    pub fault: Fault,
}

/// The quota, rules in order, and chance behind them.
#[derive(Debug, Default)]
pub(super) struct FaultPlan {
    quota: Option<Quota>,
    /// The stretch of the latest request, and how many were served in it.
    served: (u64, u32),
    rules: Vec<Rule>,
    chance: Option<(Chance, SeededEntropy)>,
}

impl FaultPlan {
    pub(super) fn push(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn set_quota(&mut self, quota: Option<Quota>) {
        self.quota = quota;
    }

    fn exceeds_quota(&mut self, operation: Operation, now: Timestamp) -> Option<Fault> {
        let quota = self.quota.as_ref().filter(|quota| quota.target.fits(operation))?;
        let window = now.millis_since(Timestamp::from_millis(0)) / quota.window_ms.max(1);
        let served = if self.served.0 == window { self.served.1 } else { 0 };
        if served >= quota.calls {
            return Some(quota.fault.clone());
        }
        self.served = (window, served + 1);
        None
    }

    pub(super) fn set_chance(&mut self, chance: Option<Chance>) {
        self.chance = chance.map(|chance| {
            let entropy = SeededEntropy::new(chance.seed);
            (chance, entropy)
        });
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The fault for the next request of that kind: of the first rule that fits and has nothing left to skip.
    pub(super) fn take(&mut self, operation: Operation, now: Timestamp) -> Option<Fault> {
        if let Some(fault) = self.exceeds_quota(operation, now) {
            return Some(fault);
        }
        for place in 0..self.rules.len() {
            let Some(rule) = self.rules.get_mut(place) else { break };
            if !rule.target.fits(operation) || rule.times == 0 {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.times != Rule::ALWAYS {
                rule.times -= 1;
            }
            let fault = rule.fault.clone();
            self.rules.retain(|rule| rule.times > 0);
            return Some(fault);
        }
        let (chance, entropy) = self.chance.as_ref()?;
        if !chance.target.fits(operation) || !entropy.chance(chance.probability) {
            return None;
        }
        let drawn = entropy.below(chance.faults.len() as u64);
        chance.faults.get(usize::try_from(drawn).ok()?).cloned()
    }
}

/// The answer of [`Fault::Status`], as either API words it.
pub(super) fn status_response(
    request: &Request,
    status: u16,
    retry_after_s: Option<u64>,
    code: Option<String>,
    message: Option<String>,
) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let native = request.uri().path().starts_with("/b2api/");
    let (usual_code, usual_message) = match (status.as_u16(), native) {
        (429, true) => ("too_many_requests", "too many requests"),
        (429, false) => ("TooManyRequests", "Too many requests"),
        (503, true) => ("service_unavailable", "no tomes available"),
        (503, false) => ("SlowDown", "Please reduce your request rate."),
        (_, true) => ("internal_error", "internal error"),
        (_, false) => ("InternalError", "An internal error occurred.  Please retry your upload."),
    };
    let refusal = Refusal {
        status,
        code: code.unwrap_or_else(|| usual_code.to_owned()),
        message: message.unwrap_or_else(|| usual_message.to_owned()),
    };
    let mut response = if native { refusal.into_json() } else { refusal.into_xml(request.method()) };
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert("retry-after", HeaderValue::from(seconds));
    }
    response
}

/// The answer of [`Fault::Garbage`].
pub(super) fn garbage(method: &Method) -> Response {
    let body = if method == Method::HEAD { &b""[..] } else { b"<<<\xff\xfe not a document \0 ]]>" };
    respond(StatusCode::OK, "application/xml", Bytes::from_static(body))
}

/// The answer of [`Fault::Truncated`]: the length that is declared is the length that is sent.
pub(super) fn truncated(mut response: Response) -> Response {
    let half = response.body().slice(..response.body().len() / 2);
    response.headers_mut().insert("content-length", HeaderValue::from(half.len()));
    *response.body_mut() = half;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(0);

    #[test]
    fn a_quota_strikes_what_is_too_much_in_each_stretch_of_time() {
        let mut plan = FaultPlan::default();
        plan.set_quota(Some(Quota { target: Target::List, calls: 2, window_ms: 1_000, fault: Fault::status(429) }));
        let mut at = |ms| plan.take(Operation::List, Timestamp::from_millis(ms)).is_some();
        assert_eq!(
            [100, 200, 999, 1_000, 1_001, 1_500, 2_500].map(&mut at),
            [false, false, true, false, false, true, false]
        );
        assert_eq!(plan.take(Operation::Get, NOW), None);
    }

    #[test]
    fn rules_skip_strike_and_wear_off() {
        let mut plan = FaultPlan::default();
        plan.push(Rule::next(Target::List, Fault::Hang).after(1).times(2));
        plan.push(Rule::next(Target::Any, Fault::Reset).after(3));
        assert_eq!(plan.take(Operation::List, NOW), None);
        assert_eq!(plan.take(Operation::Head, NOW), None);
        assert_eq!(plan.take(Operation::List, NOW), Some(Fault::Hang));
        assert_eq!(plan.take(Operation::List, NOW), Some(Fault::Hang));
        assert_eq!(plan.take(Operation::List, NOW), None);
        assert_eq!(plan.take(Operation::Get, NOW), Some(Fault::Reset));
        assert_eq!(plan.take(Operation::Get, NOW), None);
        assert!(plan.rules.is_empty());
    }

    #[test]
    fn chance_repeats_with_its_seed() {
        let draw = |seed| {
            let mut plan = FaultPlan::default();
            let faults = vec![Fault::Hang, Fault::status(500)];
            plan.set_chance(Some(Chance { target: Target::List, probability: 0.25, seed, faults }));
            (0..400).map(|_| plan.take(Operation::List, NOW)).collect::<Vec<_>>()
        };
        let drawn = draw(1);
        assert_eq!(drawn, draw(1));
        assert_ne!(drawn, draw(2));
        let struck = drawn.iter().flatten().count();
        assert!((60..140).contains(&struck), "{struck}");
        assert!(drawn.contains(&Some(Fault::Hang)) && drawn.contains(&Some(Fault::status(500))));
    }

    #[test]
    fn rules_are_read_from_json() {
        let rule: Rule =
            serde_json::from_str(r#"{"target":"list","skip":2,"fault":{"kind":"status","status":503}}"#).unwrap();
        assert_eq!(rule, Rule::next(Target::List, Fault::status(503)).after(2));
    }
}
