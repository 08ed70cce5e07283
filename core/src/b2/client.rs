//! The two calls to B2 that a listing needs, with retries.
//!
//! The only file here that awaits: it joins request, signature, exchange, classification and parsing, and decides
//! nothing. Each attempt is signed anew with the time it is made at. Everything that costs money or budget is counted
//! in [`SourceCost`], failed attempts included, because B2 bills them and the platform counts them.

use std::cell::Cell;

use super::{
    account::{Account, Credentials, authorize_request, parse_authorize},
    classify::{Call, classify_response, classify_transport},
    list::{ListPage, ListQuery, list_request, parse_list_page},
    sign::sign,
};
use crate::{
    cost::SourceCost,
    entropy::Entropy,
    error::{Error, ErrorKind, Retry},
    http::{ExchangeLimits, HttpClient, Request, Response},
    retry::{RetryPolicy, with_retry},
    time::{Clock, Timestamp},
};

/// Calls B2 through a home's [`HttpClient`].
///
/// ```
/// use b2sync_core::{
///     b2::{account::Credentials, client::B2Client},
///     http::*,
///     retry::RetryPolicy,
///     time::{Clock, Timestamp},
/// };
/// # struct Refusing;
/// # impl HttpClient for Refusing {
/// #     async fn send(&self, _: Request, _: ExchangeLimits) -> Result<Response, TransportError> {
/// #         let mut response = Response::new(r#"{"code":"bad_auth_token","message":"","status":401}"#.into());
/// #         *response.status_mut() = StatusCode::UNAUTHORIZED;
/// #         Ok(response)
/// #     }
/// # }
/// # struct Home;
/// # impl Clock for Home {
/// #     fn now(&self) -> Timestamp { Timestamp::from_millis(0) }
/// #     async fn sleep(&self, _: u64) {}
/// # }
/// # impl b2sync_core::entropy::Entropy for Home { fn fill(&self, bytes: &mut [u8]) { bytes.fill(0) } }
/// let client = B2Client::new(&Refusing, &Home, &Home, RetryPolicy::DEFAULT);
/// let credentials = Credentials::new("005870eff85b6c60000000001", "K005wrong")?;
/// let error = pollster::block_on(client.authorize("https://api.backblazeb2.com", &credentials)).unwrap_err();
/// assert_eq!(error.kind(), b2sync_core::ErrorKind::BadCredentials);
/// assert_eq!(client.cost().class_c, 1);
/// # Ok::<(), b2sync_core::Error>(())
/// ```
#[derive(Debug)]
pub struct B2Client<'a, H, C, E> {
    http: &'a H,
    clock: &'a C,
    entropy: &'a E,
    policy: RetryPolicy,
    cost: Cell<SourceCost>,
}

impl<'a, H: HttpClient, C: Clock, E: Entropy> B2Client<'a, H, C, E> {
    /// A client that has called nothing yet.
    pub fn new(http: &'a H, clock: &'a C, entropy: &'a E, policy: RetryPolicy) -> Self {
        Self { http, clock, entropy, policy, cost: Cell::default() }
    }

    /// What its calls have cost so far.
    pub fn cost(&self) -> SourceCost {
        self.cost.get()
    }

    /// The time, as its requests are signed with.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks B2 where the account lives and what the key may do. One class C transaction an attempt.
    ///
    /// # Errors
    /// What [`classify_response`] and [`parse_authorize`] say, after the retries.
    pub async fn authorize(&self, api_url: &str, credentials: &Credentials) -> Result<Account, Error> {
        with_retry(&self.policy, self.clock, self.entropy, async |_| {
            let request = authorize_request(api_url, credentials)?;
            let response = self.exchange(Call::Authorize, request, ExchangeLimits::SMALL).await?;
            parse_authorize(response.body()).map_err(worth_another_try)
        })
        .await
    }

    /// Lists one page. One class C transaction an attempt.
    ///
    /// # Errors
    /// What [`classify_response`] and [`parse_list_page`] say, after the retries. A page that cannot be read is asked
    /// for again: a cut or garbled body is mostly an accident of the way.
    pub async fn list_page(
        &self,
        account: &Account,
        credentials: &Credentials,
        query: &ListQuery,
    ) -> Result<ListPage, Error> {
        with_retry(&self.policy, self.clock, self.entropy, async |_| {
            let mut request = list_request(&account.s3_endpoint, query)?;
            sign(&mut request, credentials, &account.region, self.clock.now())?;
            let call = Call::List { bucket: &query.bucket };
            let response = self.exchange(call, request, ExchangeLimits::LIST_PAGE).await?;
            parse_list_page(response.body()).map_err(worth_another_try)
        })
        .await
    }

    fn spend(&self, add: impl FnOnce(&mut SourceCost)) {
        let mut cost = self.cost.get();
        add(&mut cost);
        self.cost.set(cost);
    }

    /// One exchange, counted; anything but a 2xx is an error.
    async fn exchange(&self, call: Call<'_>, request: Request, limits: ExchangeLimits) -> Result<Response, Error> {
        self.spend(|cost| {
            cost.requests += 1;
            match call {
                Call::Authorize | Call::List { .. } => cost.class_c += 1,
                Call::Object { .. } => cost.class_b += 1,
            }
        });
        let response = self.http.send(request, limits).await.map_err(|error| classify_transport(call, &error))?;
        self.spend(|cost| cost.bytes_received += response.body().len() as u64);
        if response.status().is_success() {
            return Ok(response);
        }
        Err(classify_response(call, &response, self.clock.now()))
    }
}

fn worth_another_try(error: Error) -> Error {
    if error.kind() == ErrorKind::MalformedResponse { error.with_retry(Retry::Temporary) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        http::{StatusCode, TransportError, TransportFault},
        secret::ExposeSecret,
        testing::{Seeded, VirtualClock},
    };
    use std::cell::RefCell;

    type Answer = Result<(u16, &'static str), TransportFault>;

    /// Answers from a script and remembers what it was asked.
    struct Script {
        answers: RefCell<std::vec::IntoIter<Answer>>,
        requests: RefCell<Vec<Request>>,
    }

    impl HttpClient for Script {
        async fn send(&self, request: Request, _: ExchangeLimits) -> Result<Response, TransportError> {
            self.requests.borrow_mut().push(request);
            let (status, body) = self
                .answers
                .borrow_mut()
                .next()
                .expect("no more answers")
                .map_err(|fault| TransportError { fault, message: "scripted".into() })?;
            let mut response = Response::new(body.into());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok(response)
        }
    }

    const EMPTY: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    const SLOW: &str = "<Error><Code>SlowDown</Code></Error>";
    const ACCOUNT: &str = r#"{"accountId":"a","apiInfo":{"storageApi":{"allowed":{"buckets":null,
        "capabilities":["listFiles","readFiles"],"namePrefix":null},
        "s3ApiUrl":"https://s3.us-west-004.backblazeb2.com"}},
        "applicationKeyExpirationTimestamp":null}"#;

    fn credentials() -> Credentials {
        Credentials::new("key-id", "K005secret").unwrap()
    }

    /// Authorizes by the first answer, then lists one page by the others.
    fn list(answers: Vec<Answer>) -> (Result<ListPage, Error>, SourceCost, Vec<Request>) {
        let answers = [vec![Ok((200, ACCOUNT))], answers].concat();
        let http = Script { answers: RefCell::new(answers.into_iter()), requests: RefCell::default() };
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        let entropy = Seeded(Cell::new(7));
        let client =
            B2Client::new(&http, &clock, &entropy, RetryPolicy { backoff_base_ms: 9_000, ..RetryPolicy::DEFAULT });
        let result = pollster::block_on(async {
            let account = client.authorize("https://api.backblazeb2.com", &credentials()).await?;
            client.list_page(&account, &credentials(), &ListQuery::first("my-videos", "")).await
        });
        let counts = client.cost();
        (result, counts, http.requests.into_inner())
    }

    #[test]
    fn every_temporary_fault_is_tried_again() {
        let (result, counts, requests) =
            list(vec![Ok((503, SLOW)), Err(TransportFault::TimedOut), Ok((200, "<ListBucketRes")), Ok((200, EMPTY))]);
        assert_eq!(result, Ok(ListPage::default()));
        assert_eq!((counts.class_c, counts.class_b, counts.requests), (5, 0, 5));
        assert_eq!(counts.bytes_received as usize, ACCOUNT.len() + SLOW.len() + 14 + EMPTY.len());
        let dates: Vec<_> = requests[1..].iter().map(|request| request.headers()["x-amz-date"].clone()).collect();
        assert!(dates.is_sorted() && dates.first() < dates.last(), "each attempt is signed anew: {dates:?}");
    }

    #[test]
    fn a_permanent_error_costs_one_call() {
        let (result, counts, _) = list(vec![Ok((404, "<Error><Code>NoSuchBucket</Code></Error>"))]);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BucketNotFound);
        assert_eq!(counts.class_c, 2);
    }

    #[test]
    fn garbage_that_stays_is_exhausted() {
        let (result, counts, _) = list(vec![Ok((200, "<html>")); 5]);
        let error = result.unwrap_err();
        assert_eq!(
            (error.kind(), error.retry(), error.attempts()),
            (ErrorKind::MalformedResponse, Retry::Exhausted, 5)
        );
        assert_eq!(counts.requests, 6);
    }

    #[test]
    fn the_application_key_is_in_no_request_after_authorization() {
        let (_, _, requests) = list(vec![Ok((200, EMPTY))]);
        let secret = credentials().application_key().expose_secret().to_owned();
        for request in &requests {
            assert!(!format!("{request:?}").contains(&secret));
        }
        assert!(requests[1].headers().values().all(|value| !value.to_str().unwrap().contains(&secret)));
    }
}
