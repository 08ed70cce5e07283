//! A bucket of B2 as the engine lists it.

use std::cell::{Cell, RefCell};

use super::{
    account::{Account, Credentials},
    classify::{Call, suggests_stale_account},
    client::B2Client,
    list::{ListPage, ListQuery},
};
use crate::{
    cost::SourceCost,
    engine::listing::source::{Page, PageStart, Source},
    entropy::Entropy,
    error::Error,
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

    /// Lists `path` with the account as `client` has just been told it.
    pub fn authorized(
        client: B2Client<'a, H, C, E>,
        api_url: &'a str,
        credentials: &'a Credentials,
        path: &'a SourcePath,
        account: Account,
    ) -> Self {
        Self { learned: Cell::new(true), ..Self::new(client, api_url, credentials, path, account) }
    }

    /// The account, if B2 described it for this source; `None`: what was cached is still right.
    pub fn learned(&self) -> Option<Account> {
        self.learned.get().then(|| self.account.borrow().clone())
    }

    /// The account that the source lists with.
    pub fn account(&self) -> Account {
        self.account.borrow().clone()
    }

    /// Lists one key at most: whether the source can be read at all. One class C transaction an attempt.
    ///
    /// # Errors
    /// As [`Source::page`].
    pub async fn probe(&self) -> Result<(), Error> {
        let query = ListQuery { max_keys: 1, ..self.first_page() };
        self.list(&query).await.map(|_| ())
    }

    fn first_page(&self) -> ListQuery {
        ListQuery::first(self.path.bucket().as_str(), self.path.prefix())
    }

    /// Lists a page; once, an answer that suggests that the account is stale makes it ask for the account again.
    async fn list(&self, query: &ListQuery) -> Result<ListPage, Error> {
        let account = self.account();
        match self.client.list_page(&account, self.credentials, query).await {
            Err(error)
                if self.may_refresh.get() && suggests_stale_account(Call::List { bucket: &query.bucket }, &error) => {}
            result => return result,
        }
        let account = self.client.authorize(self.api_url, self.credentials).await?;
        self.may_refresh.set(false);
        self.learned.set(true);
        *self.account.borrow_mut() = account.clone();
        account.check(self.path, self.client.now())?;
        self.client.list_page(&account, self.credentials, query).await
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
