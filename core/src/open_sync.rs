//! Opening the bucket of a sync: the account, and whether it allows the job. Each home begins a step here.

use crate::{
    b2::{
        account::{Account, Credentials},
        client::B2Client,
        source::B2Source,
    },
    cost::SourceCost,
    engine::{listing::source::Source, spec::Opening},
    entropy::Entropy,
    error::Error,
    http::HttpClient,
    source_path::SourcePath,
    time::Clock,
};

/// What opens the bucket of a sync.
#[derive(Debug)]
pub struct OpenSync<'a> {
    /// [`crate::b2::account::API_URL`] except in tests.
    pub api_url: &'a str,
    /// The key of the connection.
    pub credentials: &'a Credentials,
    /// What the sync reads.
    pub path: &'a SourcePath,
    /// The account as B2 described it earlier, if that is recent enough to be used.
    pub cached: Option<Account>,
}

/// Why a bucket could not be opened.
#[derive(Debug)]
pub struct Unopened {
    /// What B2 or the account said.
    pub error: Error,
    /// What the calls cost.
    pub cost: SourceCost,
    /// The account, if B2 described it in this attempt.
    pub account: Option<Account>,
}

impl<'a> OpenSync<'a> {
    /// Asks B2 for the account, unless the cached one allows the job. Answers the bucket and, for
    /// [`crate::engine::JobSpec::opening`], what opening it took.
    ///
    /// # Errors
    /// Of [`B2Client::authorize`] and [`Account::check`].
    pub async fn open<H: HttpClient, C: Clock, E: Entropy>(
        self,
        client: B2Client<'a, H, C, E>,
    ) -> Result<(B2Source<'a, H, C, E>, Opening), Unopened> {
        let Self { api_url, credentials, path, cached } = self;
        let began = client.now();
        let cached = cached.filter(|account| account.check(path, began).is_ok());
        let source = match cached {
            Some(account) => B2Source::new(client, api_url, credentials, path, account),
            None => {
                let account = match client.authorize(api_url, credentials).await {
                    Ok(account) => account,
                    Err(error) => return Err(Unopened { error, cost: client.cost(), account: None }),
                };
                if let Err(error) = account.check(path, client.now()) {
                    return Err(Unopened { error, cost: client.cost(), account: Some(account) });
                }
                B2Source::new(client, api_url, credentials, path, account).just_authorized()
            }
        };
        let opening = Opening { cost: source.cost(), began };
        Ok((source, opening))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::listing::source::PageStart,
        error::ErrorKind,
        http::{ExchangeLimits, Request, Response, TransportError},
        retry::RetryPolicy,
        testing::{Seeded, VirtualClock},
    };
    use std::cell::{Cell, RefCell};

    /// Describes an account whose key may read `bucket`, and lists nothing in it.
    struct OneBucket {
        bucket: &'static str,
        paths: RefCell<Vec<String>>,
    }

    impl HttpClient for OneBucket {
        async fn send(&self, request: Request, _: ExchangeLimits) -> Result<Response, TransportError> {
            self.paths.borrow_mut().push(request.uri().path().to_owned());
            let body = if request.uri().path().contains("authorize") { account(self.bucket) } else { EMPTY.to_owned() };
            Ok(Response::new(body.into()))
        }
    }

    const EMPTY: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

    fn account(bucket: &str) -> String {
        format!(
            r#"{{"accountId":"a","apiInfo":{{"storageApi":{{"allowed":{{"buckets":[{{"id":"1","name":"{bucket}"}}],
            "capabilities":["listFiles","readFiles"],"namePrefix":null}},
            "s3ApiUrl":"https://s3.us-west-004.backblazeb2.com"}}}},
            "applicationKeyExpirationTimestamp":null}}"#
        )
    }

    /// What opening took, what it all cost, and whether B2 described the account.
    type Seen = (Opening, SourceCost, bool);

    /// Opens `b2://videos` with what is cached of an account, and lists a page.
    fn open(cached: Option<&str>, now: &'static str) -> (Result<Seen, Unopened>, Vec<String>) {
        let http = OneBucket { bucket: now, paths: RefCell::default() };
        let (clock, entropy) = (VirtualClock::at("2024-01-01T00:00:00Z"), Seeded(Cell::new(7)));
        let credentials = Credentials::new("key-id", "K005secret").unwrap();
        let path = SourcePath::parse("b2://videos").unwrap();
        let cached = cached.map(|bucket| crate::b2::account::parse_authorize(account(bucket).as_bytes()).unwrap());
        let opening =
            OpenSync { api_url: "https://api.backblazeb2.com", credentials: &credentials, path: &path, cached };
        let result = pollster::block_on(async {
            let (source, opening) = opening.open(B2Client::new(&http, &clock, &entropy, RetryPolicy::NONE)).await?;
            source.page(PageStart::First).await.unwrap();
            Ok((opening, source.cost(), source.learned().is_some()))
        });
        (result, http.paths.into_inner())
    }

    #[test]
    fn an_account_that_allows_the_job_is_not_asked_for_again() {
        let (result, paths) = open(Some("videos"), "videos");
        let (opening, cost, learned) = result.unwrap();
        assert_eq!((opening.cost.class_c, cost.class_c, learned, paths.len()), (0, 1, false, 1));
    }

    #[test]
    fn without_one_that_does_b2_is_asked_and_the_cost_is_told() {
        for cached in [None, Some("another")] {
            let (result, paths) = open(cached, "videos");
            let (opening, cost, learned) = result.unwrap();
            assert_eq!((opening.cost.class_c, cost.class_c, learned, paths.len()), (1, 2, true, 2));
        }
    }

    #[test]
    fn an_account_that_forbids_the_job_is_told_with_what_it_cost() {
        let (result, paths) = open(Some("another"), "another");
        let refused = result.unwrap_err();
        assert_eq!((refused.error.kind(), refused.cost.class_c), (ErrorKind::BucketNotAllowed, 1));
        assert!(refused.account.is_some());
        assert_eq!(paths.len(), 1);
    }
}
