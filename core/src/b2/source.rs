//! A bucket of B2 as the engine lists it.

use std::cell::{Cell, RefCell};

use super::{
    account::{Account, Credentials},
    classify::{Call, suggests_stale_account},
    client::B2Client,
    list::{ListPage, ListQuery},
};
use crate::{
    engine::listing::source::{Page, PageStart, Source, SourceCost},
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
        Self { client, api_url, credentials, path, account: RefCell::new(account), may_refresh: Cell::new(true) }
    }

    /// The account as it was asked for anew; `None`: what was cached held good.
    pub fn refreshed(&self) -> Option<Account> {
        (!self.may_refresh.get()).then(|| self.account.borrow().clone())
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, Error> {
        let account = self.account.borrow().clone();
        self.client.list_page(&account, self.credentials, query).await
    }
}

impl<H: HttpClient, C: Clock, E: Entropy> Source for B2Source<'_, H, C, E> {
    async fn page(&self, start: PageStart<'_>) -> Result<Page, Error> {
        let mut query = ListQuery::first(self.path.bucket().as_str(), self.path.prefix());
        match start {
            PageStart::First => {}
            PageStart::After(key) => query.start_after = Some(key.to_owned()),
            PageStart::Token(token) => query.continuation_token = Some(token.to_owned()),
        }
        let page = match self.list(&query).await {
            Err(error)
                if self.may_refresh.get() && suggests_stale_account(Call::List { bucket: &query.bucket }, &error) =>
            {
                let account = self.client.authorize(self.api_url, self.credentials).await?;
                self.may_refresh.set(false);
                *self.account.borrow_mut() = account;
                self.account.borrow().check(self.path, self.client.now())?;
                self.list(&query).await
            }
            result => result,
        }?;
        Ok(Page { entries: page.entries, truncated: page.truncated, next_token: page.next_token })
    }

    fn prefix(&self) -> &str {
        self.path.prefix()
    }

    fn cost(&self) -> SourceCost {
        let counts = self.client.counts();
        SourceCost {
            class_b: counts.class_b,
            class_c: counts.class_c,
            requests: counts.subrequests,
            bytes_received: counts.bytes_received,
            ..SourceCost::default()
        }
    }
}
