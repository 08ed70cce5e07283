//! The two calls to B2 that a listing needs, with retries.
//!
//! The only file here that awaits: it joins request, signature, exchange, classification and parsing, and decides
//! nothing. Each attempt is signed with the time at which it is made. Everything that costs money or budget is counted
//! in [`SourceCost`], failed attempts included, because B2 bills them and the platform counts them.

use std::cell::Cell;

use super::{
    account::{Account, Credentials, authorize_request, parse_authorize},
    classify::{Call, WAIT, classify_response, classify_transport, is_error_document},
    list::{ListPage, ListQuery, list_request, parse_list_page},
    sign::sign,
};
use crate::{
    b2::pace::{Pace, Pacer},
    cost::SourceCost,
    entropy::Entropy,
    error::{Error, ErrorKind, Retry},
    http::{ExchangeLimits, HttpClient, Request, Response, TransportFault},
    retry::{RetryPlan, RetryPolicy, plan_retry, with_retry},
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
    pacer: Pacer,
    /// How often a page did not come in time: an index of [`PATIENCE`], or beyond it.
    slow_pages: Cell<usize>,
    /// No call has succeeded yet, and until one does each is made once.
    is_probing: Cell<bool>,
}

/// A page that comes within this, in milliseconds, lets the next one be larger again.
const QUICK_PAGE_MS: u64 = 5_000;
/// No attempt at a page begins later than this, in milliseconds: with the time for a page, it is less than the five
/// minutes that a lease outlasts its step.
const LIST_MS_MAX: i64 = 180_000;
/// The most keys of a page and the time for it, in milliseconds: the usual ones, and those after pages that did not
/// come in time. Five attempts stay within the five minutes that a lease outlasts its step.
const PATIENCE: [(u16, u64); 3] = [(1_000, ExchangeLimits::LIST_PAGE.timeout_ms), (250, 45_000), (50, 60_000)];

impl<'a, H: HttpClient, C: Clock, E: Entropy> B2Client<'a, H, C, E> {
    /// A client that has called nothing yet.
    pub fn new(http: &'a H, clock: &'a C, entropy: &'a E, policy: RetryPolicy) -> Self {
        let pacer = Pacer::default();
        Self {
            http,
            clock,
            entropy,
            policy,
            cost: Cell::default(),
            pacer,
            slow_pages: Cell::default(),
            is_probing: Cell::default(),
        }
    }

    /// Keeps the distance between list calls that was learned earlier.
    #[must_use]
    pub fn with_pace(self, pace: Option<Pace>) -> Self {
        Self { pacer: Pacer::new(pace, self.clock.now()), ..self }
    }

    /// Makes each call once until one succeeds: for a caller that has just seen B2 fail.
    #[must_use]
    pub fn probing(self, is_probing: bool) -> Self {
        Self { is_probing: Cell::new(is_probing), ..self }
    }

    fn policy(&self) -> RetryPolicy {
        if self.is_probing.get() { RetryPolicy { attempts_max: 1, ..self.policy } } else { self.policy }
    }

    /// The distance between list calls as it was learned, where it is to be stored in place of `before`.
    pub fn learned_pace(&self, before: Option<Pace>) -> Option<Pace> {
        self.pacer.learned(before, self.clock.now())
    }

    /// The distance that list calls keep now, in milliseconds; 0: none.
    pub fn list_interval_ms(&self) -> u64 {
        self.pacer.interval_ms()
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
        self.authorize_by(&self.policy(), api_url, credentials).await
    }

    /// [`Self::authorize`] in one attempt.
    ///
    /// # Errors
    /// As [`Self::authorize`].
    pub async fn authorize_once(&self, api_url: &str, credentials: &Credentials) -> Result<Account, Error> {
        let policy = RetryPolicy { attempts_max: 1, ..self.policy };
        self.authorize_by(&policy, api_url, credentials).await
    }

    async fn authorize_by(
        &self,
        policy: &RetryPolicy,
        api_url: &str,
        credentials: &Credentials,
    ) -> Result<Account, Error> {
        with_retry(policy, self.clock, self.entropy, async |_| {
            let request = authorize_request(api_url, credentials)?;
            let response = self.exchange(Call::Authorize, request, ExchangeLimits::SMALL).await?;
            parse_authorize(response.body()).map_err(worth_another_try)
        })
        .await
    }

    /// Lists one page. One class C transaction an attempt. A page that does not come in time is asked for again with
    /// fewer keys and more time, and so are those after it. After a refusal as too many, calls keep a distance.
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
        let policy = self.policy();
        let deadline = self.clock.now().plus_millis(LIST_MS_MAX);
        let policy = policy.until(policy.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        with_retry(&policy, self.clock, self.entropy, async |attempt| {
            let wait_ms = self.pacer.reserve(self.clock.now());
            if !policy.is_in_time(self.clock.now(), wait_ms) {
                return Err(too_slow(wait_ms));
            }
            if wait_ms > 0 {
                self.clock.sleep(wait_ms).await;
            }
            let result = self.list_once(account, credentials, query).await;
            let now = self.clock.now();
            match &result {
                Ok(_) => self.pacer.granted(now),
                Err(error) if error.kind() == ErrorKind::RateLimited => {
                    let wait_ms = match plan_retry(&policy, attempt, error, self.entropy) {
                        RetryPlan::Wait(wait_ms) => wait_ms,
                        RetryPlan::GiveUp(_) => 0,
                    };
                    self.pacer.refused(now, wait_ms);
                }
                Err(_) => {}
            }
            result
        })
        .await
    }

    async fn list_once(
        &self,
        account: &Account,
        credentials: &Credentials,
        query: &ListQuery,
    ) -> Result<ListPage, Error> {
        let slow_pages = self.slow_pages.get();
        let (keys_max, timeout_ms) = PATIENCE.get(slow_pages).or(PATIENCE.last()).copied().unwrap_or(PATIENCE[0]);
        let query = &ListQuery { max_keys: query.max_keys.min(keys_max), ..query.clone() };
        let mut request = list_request(&account.s3_endpoint, query)?;
        sign(&mut request, credentials, &account.region, self.clock.now())?;
        let call = Call::List { bucket: &query.bucket };
        let limits = ExchangeLimits { timeout_ms, ..ExchangeLimits::LIST_PAGE };
        let began = self.clock.now();
        let response = self.exchange(call, request, limits).await?;
        if self.clock.now().millis_since(began) < QUICK_PAGE_MS {
            // It was one page that did not come, and not the store that is slow.
            self.slow_pages.set(slow_pages.saturating_sub(1));
        }
        parse_list_page(response.body()).map_err(worth_another_try)
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
        let limits = match self.policy.deadline {
            Some(deadline) => {
                let left_ms = deadline.millis_since(self.clock.now()).max(1);
                ExchangeLimits { timeout_ms: limits.timeout_ms.min(left_ms), ..limits }
            }
            None => limits,
        };
        let response = self.http.send(request, limits).await.map_err(|error| {
            if error.fault == TransportFault::TimedOut && matches!(call, Call::List { .. }) {
                self.slow_pages.set(self.slow_pages.get().saturating_add(1));
            }
            classify_transport(call, &error)
        })?;
        self.spend(|cost| cost.bytes_received += response.body().len() as u64);
        if response.status().is_success() && !is_error_document(&response) {
            self.is_probing.set(false);
            return Ok(response);
        }
        Err(classify_response(call, &response, self.clock.now()))
    }
}

fn too_slow(wait_ms: u64) -> Error {
    let message = format!("B2 allows so few calls that the next one has to wait {} s.", wait_ms / 1_000);
    Error::new(ErrorKind::RateLimited, message, WAIT).with_retry(Retry::Temporary)
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
        assert!(
            dates.is_sorted() && dates.first() < dates.last(),
            "each attempt has a signature of its own: {dates:?}"
        );
    }

    #[test]
    fn a_permanent_error_costs_one_call() {
        let (result, counts, _) = list(vec![Ok((404, "<Error><Code>NoSuchBucket</Code></Error>"))]);
        assert_eq!(result.unwrap_err().kind(), ErrorKind::BucketNotFound);
        assert_eq!(counts.class_c, 2);
    }

    /// Answers each list call as `answer` says, which is told the time, the keys that are asked for and the limits.
    struct Listing<'a, F> {
        clock: &'a VirtualClock,
        answer: F,
        asked: RefCell<Vec<(u64, String, u64)>>,
    }

    impl<F: Fn(u64, &Request) -> Answer> HttpClient for Listing<'_, F> {
        async fn send(&self, request: Request, limits: ExchangeLimits) -> Result<Response, TransportError> {
            let at = self.clock.now().millis_since(Timestamp::from_millis(1_704_067_200_000));
            let query = request.uri().query().unwrap_or_default();
            let keys = query.split('&').find_map(|pair| pair.strip_prefix("max-keys=")).unwrap_or_default().to_owned();
            self.asked.borrow_mut().push((at, keys, limits.timeout_ms));
            match (self.answer)(limits.timeout_ms, &request) {
                Ok((status, body)) => {
                    let mut response = Response::new(body.into());
                    *response.status_mut() = StatusCode::from_u16(status).unwrap();
                    Ok(response)
                }
                Err(fault) => {
                    self.clock.sleep(limits.timeout_ms).await;
                    Err(TransportError { fault, message: "scripted".into() })
                }
            }
        }
    }

    /// Asks for the first page twice, by one client.
    fn list_two_pages(http: &impl HttpClient, clock: &VirtualClock) {
        let entropy = Seeded(Cell::new(7));
        let client = B2Client::new(http, clock, &entropy, RetryPolicy::DEFAULT);
        for _ in 0..2 {
            let query = ListQuery::first("my-videos", "");
            pollster::block_on(client.list_page(&account(), &credentials(), &query)).unwrap();
        }
    }

    /// A store that never answers.
    fn hanging(clock: &VirtualClock) -> Listing<'_, impl Fn(u64, &Request) -> Answer> {
        Listing { clock, answer: |_, _: &Request| Err(TransportFault::TimedOut), asked: RefCell::default() }
    }

    fn account() -> Account {
        parse_authorize(ACCOUNT.as_bytes()).unwrap()
    }

    #[test]
    fn a_page_that_does_not_come_in_time_is_asked_for_smaller_and_with_more_time() {
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        // The store takes 35 s for a page.
        let answer = |timeout_ms, _: &Request| match timeout_ms {
            ..35_000 => Err(TransportFault::TimedOut),
            _ => {
                pollster::block_on(clock.sleep(35_000));
                Ok((200, EMPTY))
            }
        };
        let http = Listing { clock: &clock, answer, asked: RefCell::default() };
        list_two_pages(&http, &clock);
        let asked: Vec<_> = http.asked.take().into_iter().map(|(_, keys, timeout)| (keys, timeout)).collect();
        // The second page is not tried in vain again.
        assert_eq!(asked, [("1000", 30_000), ("250", 45_000), ("250", 45_000)].map(|it| (it.0.to_owned(), it.1)));
    }

    #[test]
    fn one_page_that_does_not_come_makes_only_the_next_one_smaller() {
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        let hung = Cell::new(false);
        let answer = |_, _: &Request| if hung.replace(true) { Ok((200, EMPTY)) } else { Err(TransportFault::TimedOut) };
        let http = Listing { clock: &clock, answer, asked: RefCell::default() };
        list_two_pages(&http, &clock);
        let asked: Vec<_> = http.asked.take().into_iter().map(|(_, keys, _)| keys).collect();
        assert_eq!(asked, ["1000", "250", "1000"]);
    }

    #[test]
    fn a_page_that_never_comes_ends_within_the_lease() {
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        let http = hanging(&clock);
        let entropy = Seeded(Cell::new(7));
        let client = B2Client::new(&http, &clock, &entropy, RetryPolicy::DEFAULT);
        let began = clock.now();
        let query = ListQuery::first("my-videos", "");
        pollster::block_on(client.list_page(&account(), &credentials(), &query)).unwrap_err();
        assert!(clock.now().millis_since(began) < 300_000);
        assert_eq!(http.asked.borrow().len(), 4);
    }

    #[test]
    fn an_interactive_call_ends_at_its_deadline() {
        let clock = VirtualClock::at("2024-01-01T00:00:00Z");
        let http = hanging(&clock);
        let entropy = Seeded(Cell::new(7));
        let began = clock.now();
        let policy = RetryPolicy::DEFAULT.until(began.plus_millis(9_000));
        let client = B2Client::new(&http, &clock, &entropy, policy);
        let error = pollster::block_on(client.authorize("https://api.backblazeb2.com", &credentials())).unwrap_err();
        assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Transport, true));
        assert!(clock.now().millis_since(began) <= 9_000);
    }

    #[test]
    fn a_store_that_allows_twenty_calls_a_minute_is_listed_at_that_pace() {
        for (status, body) in
            [(429, ""), (503, SLOW), (200, "<?xml version=\"1.0\"?>\n<Error><Code>SlowDown</Code></Error>")]
        {
            let clock = VirtualClock::at("2024-01-01T00:00:00Z");
            let window = Cell::new((0, 0));
            let answer = |_, _: &Request| {
                let minute = clock.now().as_millis() / 60_000;
                let (at, calls) = window.get();
                let calls = if at == minute { calls + 1 } else { 1 };
                window.set((minute, calls));
                Ok(if calls > 20 { (status, body) } else { (200, EMPTY) })
            };
            let http = Listing { clock: &clock, answer, asked: RefCell::default() };
            let entropy = Seeded(Cell::new(7));
            let client = B2Client::new(&http, &clock, &entropy, RetryPolicy::DEFAULT);
            let began = clock.now();
            for page in 0..100 {
                let query = ListQuery::first("my-videos", "");
                let listed = pollster::block_on(client.list_page(&account(), &credentials(), &query));
                assert_eq!(listed, Ok(ListPage::default()), "page {page}");
            }
            let minutes = clock.now().millis_since(began) / 60_000;
            assert!(
                minutes <= 9 && http.asked.borrow().len() < 150,
                "{minutes} minutes, {} calls",
                http.asked.borrow().len()
            );
            let pace = client.learned_pace(None).unwrap();
            assert!((500..9_000).contains(&pace.interval_ms), "{pace:?}");
        }
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
