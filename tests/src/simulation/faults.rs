//! What goes wrong: effects that break, and B2 that fails.

use b2sync_core::http::Request;

use fake_b2::faults::Fault;
use fake_b2::ledger::Operation;

/// What becomes of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// It fails before it happened.
    Before,
    /// It happens, and its answer is lost.
    After,
    /// The instance dies before it happened.
    DieBefore,
    /// The instance dies after it happened.
    DieAfter,
}

impl Break {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Before, Self::After, Self::DieBefore, Self::DieAfter];
}

/// How B2, or the way to it, fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// 429.
    TooManyRequests,
    /// 500.
    Internal,
    /// 503 with a `Retry-After` of this many seconds.
    SlowDown(u8),
    /// No answer, and no effect.
    Hang,
    /// The answer comes after its caller has stopped waiting.
    TooLate,
    /// No answer, and a closed connection.
    Reset,
    /// A body that breaks off.
    CutBody(u8),
    /// 200 and no document.
    Garbage,
    /// 200 and half a document.
    Truncated,
    /// A first page that shows nothing and says that this is all.
    EmptyFirstPage,
    /// More follow, but not where.
    NoToken,
    /// The next page is this page.
    SameToken,
    /// The continuation token is not known any more.
    ExpiredToken,
    /// The credentials are refused, though they are right.
    Refused,
    /// Half of the entries of a page cannot be read. Not one of [`Self::ALL`]: the listing goes on, and shows less than
    /// there is.
    UnreadableEntries,
}

impl Trouble {
    /// One of each that breaks a call.
    pub const ALL: [Self; 16] = [
        Self::TooManyRequests,
        Self::Internal,
        Self::SlowDown(1),
        Self::SlowDown(30),
        Self::Hang,
        Self::TooLate,
        Self::Reset,
        Self::CutBody(0),
        Self::CutBody(200),
        Self::Garbage,
        Self::Truncated,
        Self::EmptyFirstPage,
        Self::NoToken,
        Self::SameToken,
        Self::ExpiredToken,
        Self::Refused,
    ];

    /// Whether that can happen to this request at all. No client can tell an empty bucket from a listing that lies,
    /// once the user has confirmed that it is empty.
    pub(super) fn fits(self, request: &Request, confirmed: bool) -> bool {
        let query = request.uri().query().unwrap_or_default();
        let list = Operation::of(request) == Operation::List;
        match self {
            Self::EmptyFirstPage => {
                list && !confirmed && !query.contains("continuation-token=") && !query.contains("start-after=")
            }
            Self::ExpiredToken => list && query.contains("continuation-token="),
            Self::NoToken | Self::SameToken | Self::UnreadableEntries => list,
            _ => true,
        }
    }

    /// As the embedded B2 knows it.
    pub(super) fn fault(self) -> Fault {
        let refusal = |status, code: &str| Fault::Status {
            status,
            retry_after_s: None,
            code: Some(code.to_owned()),
            message: Some("refused by the simulation".to_owned()),
        };
        match self {
            Self::TooManyRequests => Fault::status(429),
            Self::Internal => Fault::status(500),
            Self::SlowDown(seconds) => Fault::slow_down(seconds.into()),
            Self::Hang => Fault::Hang,
            Self::TooLate => Fault::Delay { millis: 3_600_000 },
            Self::Reset => Fault::Reset,
            Self::CutBody(after_bytes) => Fault::CutBody { after_bytes: after_bytes.into() },
            Self::Garbage => Fault::Garbage,
            Self::Truncated => Fault::Truncated,
            Self::EmptyFirstPage => Fault::EmptyListing,
            Self::NoToken => Fault::NoToken,
            Self::SameToken => Fault::SameToken,
            Self::ExpiredToken => refusal(400, "InvalidArgument"),
            Self::Refused => refusal(403, "InvalidAccessKeyId"),
            Self::UnreadableEntries => Fault::UnreadableEntries { keys: Vec::new() },
        }
    }
}

/// Trouble that waits for its requests.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) skip: u8,
    pub(super) times: u8,
    pub(super) what: Trouble,
}

/// The trouble that the next request meets; rules wear off.
pub(super) fn take(rules: &mut Vec<Rule>, request: &Request, confirmed: bool) -> Option<Trouble> {
    let mut met = None;
    for rule in rules.iter_mut().filter(|rule| rule.what.fits(request, confirmed)) {
        if rule.skip > 0 {
            rule.skip -= 1;
        } else if met.is_none() {
            rule.times -= 1;
            met = Some(rule.what);
        }
    }
    rules.retain(|rule| rule.times > 0);
    met
}
