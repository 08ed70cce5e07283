//! A bucket of B2 as the engine lists it.

use std::cell::{Cell, RefCell};

use super::{
    account::{Account, Credentials},
    classify::{Call, suggests_stale_account},
    client::B2Client,
    list::{ListPage, ListQuery},
};
use crate::{
    b2::pace::Pace,
    cost::SourceCost,
    engine::listing::source::{Page, PageStart, Source},
    entropy::Entropy,
    entry::Entry,
    error::{Error, ErrorKind},
    http::HttpClient,
    source_path::SourcePath,
    time::Clock,
};

/// Lists a source path. What was cached of the account is asked for once more when a call says that it is stale.
#[derive(Debug)]
pub struct B2Source<'a, H, C, E> {
    client: B2Client<'a, H, C, E>,
    api_url: &'a str,
    credentials: &'a Credentials,
    path: &'a SourcePath,
    account: RefCell<Account>,
    may_refresh: Cell<bool>,
    /// B2 described the account for this source: what is cached elsewhere is older.
    learned: Cell<bool>,
}

/// A look at what is below a source path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstLook {
    /// Keys, and folders with their `/`, sorted.
    pub found: Vec<String>,
    /// Whether there is no more.
    pub is_all: bool,
}

impl<'a, H: HttpClient, C: Clock, E: Entropy> B2Source<'a, H, C, E> {
    /// Lists `path` with what is cached of the account.
    pub fn new(
        client: B2Client<'a, H, C, E>,
        api_url: &'a str,
        credentials: &'a Credentials,
        path: &'a SourcePath,
        account: Account,
    ) -> Self {
        let account = RefCell::new(account);
        Self { client, api_url, credentials, path, account, may_refresh: Cell::new(true), learned: Cell::new(false) }
    }

    /// The same source, whose account the client was told a moment ago: what is cached elsewhere is older.
    #[must_use]
    pub fn just_authorized(self) -> Self {
        Self { learned: Cell::new(true), ..self }
    }

    /// The account, if B2 described it for this source; `None`: what was cached is still right.
    pub fn learned(&self) -> Option<Account> {
        self.learned.get().then(|| self.account.borrow().clone())
    }

    /// As [`B2Client::learned_pace`].
    pub fn learned_pace(&self, before: Option<Pace>) -> Option<Pace> {
        self.client.learned_pace(before)
    }

    /// As [`B2Client::list_interval_ms`].
    pub fn list_interval_ms(&self) -> u64 {
        self.client.list_interval_ms()
    }

    /// The account that the source lists with.
    pub fn account(&self) -> Account {
        self.account.borrow().clone()
    }

    /// Looks whether the source can be read at all, and what is below it: the first key, or, where the prefix does not
    /// end with a folder, what lies in this folder and the next ones. One class C transaction an attempt.
    ///
    /// # Errors
    /// As [`Source::page`].
    pub async fn first_look(&self) -> Result<FirstLook, Error> {
        let prefix = self.path.prefix();
        let query = if prefix.is_empty() || prefix.ends_with('/') {
            ListQuery { max_keys: 1, ..self.first_page() }
        } else {
            ListQuery { delimiter: Some("/".to_owned()), ..self.first_page() }
        };
        let page = self.list(&query).await?;
        let mut found: Vec<String> = page.entries.iter().map(|entry| entry.key.to_owned()).collect();
        found.extend(page.common_prefixes);
        found.sort_unstable();
        Ok(FirstLook { found, is_all: !page.truncated })
    }

    /// The current version of one file, if there is one. One class C transaction an attempt.
    ///
    /// # Errors
    /// As [`Source::page`].
    pub async fn look_at(&self, key: &str) -> Result<Option<Entry>, Error> {
        // Of the keys that begin with this one, it is the first.
        let query = ListQuery { max_keys: 1, ..ListQuery::first(self.path.bucket().as_str(), key) };
        let page = self.list(&query).await?;
        Ok(page.entries.iter().find(|entry| entry.key == key).map(|entry| entry.to_entry()))
    }

    fn first_page(&self) -> ListQuery {
        ListQuery::first(self.path.bucket().as_str(), self.path.prefix())
    }

    /// Lists a page; once, an answer that suggests that the account is stale makes it ask for the account again.
    async fn list(&self, query: &ListQuery) -> Result<ListPage, Error> {
        let account = self.account();
        let error = match self.client.list_page(&account, self.credentials, query).await {
            Err(error) if self.may_refresh.get() => error,
            result => return result,
        };
        let authorized = if suggests_stale_account(Call::List { bucket: &query.bucket }, &error) {
            self.client.authorize(self.api_url, self.credentials).await?
        } else if error.kind() == ErrorKind::Transport {
            // The account may live elsewhere by now. If B2 as a whole cannot be reached, one more call is enough.
            match self.client.authorize_once(self.api_url, self.credentials).await {
                Ok(authorized) if authorized.s3_endpoint != account.s3_endpoint => authorized,
                _ => return Err(error),
            }
        } else {
            return Err(error);
        };
        self.may_refresh.set(false);
        self.learned.set(true);
        *self.account.borrow_mut() = authorized.clone();
        authorized.check(self.path, self.client.now())?;
        self.client.list_page(&authorized, self.credentials, query).await
    }
}

impl<H: HttpClient, C: Clock, E: Entropy> Source for B2Source<'_, H, C, E> {
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error> {
        let mut query = self.first_page();
        match start {
            PageStart::First => {}
            PageStart::After(key) => query.start_after = Some(key.to_owned()),
            PageStart::Token(token) => query.continuation_token = Some(token.to_owned()),
        }
        let page = self.list(&query).await?;
        Ok(Page { entries: page.entries, truncated: page.truncated, next_token: page.next_token })
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn cost(&self) -> SourceCost {
        self.client.cost()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        b2::account::parse_authorize,
        http::{ExchangeLimits, Request, Response, TransportError, TransportFault},
        retry::RetryPolicy,
        testing::{Seeded, VirtualClock},
    };

    const EMPTY: &str = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";

    fn account(endpoint: &str) -> String {
        format!(
            r#"{{"accountId":"a","apiInfo":{{"storageApi":{{"allowed":{{"buckets":null,
            "capabilities":["listFiles","readFiles"],"namePrefix":null}},"s3ApiUrl":"{endpoint}"}}}},
            "applicationKeyExpirationTimestamp":null}}"#
        )
    }

    /// A B2 whose account lives at `lives_at`; nothing else can be reached.
    struct Moved {
        lives_at: Option<&'static str>,
        authorized: Cell<u32>,
    }

    impl HttpClient for Moved {
        async fn send(&self, request: Request, _: ExchangeLimits) -> Result<Response, TransportError> {
            let gone = TransportError { fault: TransportFault::Unreachable, message: "refused".into() };
            let Some(lives_at) = self.lives_at else { return Err(gone) };
            let uri = request.uri().to_string();
            if uri.contains("authorize") {
                self.authorized.set(self.authorized.get() + 1);
                return Ok(Response::new(account(lives_at).into()));
            }
            if uri.starts_with(lives_at) { Ok(Response::new(EMPTY.into())) } else { Err(gone) }
        }
    }

    fn list(lives_at: Option<&'static str>) -> (Result<Page, Error>, Option<String>, u32) {
        let http = Moved { lives_at, authorized: Cell::default() };
        let (clock, entropy) = (VirtualClock::at("2024-01-01T00:00:00Z"), Seeded(Cell::new(7)));
        let credentials = Credentials::new("key-id", "K005secret").unwrap();
        let path = SourcePath::parse("b2://videos").unwrap();
        let cached = parse_authorize(account("https://s3.us-west-001.backblazeb2.com").as_bytes()).unwrap();
        let client = B2Client::new(&http, &clock, &entropy, RetryPolicy::DEFAULT);
        let source = B2Source::new(client, "https://api.backblazeb2.com", &credentials, &path, cached);
        let page = pollster::block_on(source.page(PageStart::First));
        (page, source.learned().map(|account| account.s3_endpoint), http.authorized.get())
    }

    #[test]
    fn an_account_that_moved_is_found_again_by_the_same_job() {
        let moved = "https://s3.us-west-004.backblazeb2.com";
        let (page, learned, authorized) = list(Some(moved));
        assert_eq!((page, learned.as_deref(), authorized), (Ok(Page::default()), Some(moved), 1));
    }

    #[test]
    fn an_endpoint_that_cannot_be_reached_and_has_not_moved_is_told_as_it_is() {
        let (page, learned, authorized) = list(None);
        assert_eq!((page.unwrap_err().kind(), learned, authorized), (ErrorKind::Transport, None, 0));
    }
}
