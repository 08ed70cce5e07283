//! One step of a job: the core's engine over the adapters.

use b2sync_core::{
    Error, ErrorKind,
    b2::{
        account::{API_URL, Account, Credentials, StoredAccount},
        client::B2Client,
        source::B2Source,
    },
    engine::{
        Engine, JobSpec, StepReport,
        listing::source::{Source, SourceCost},
        meter::Budget,
    },
    feed::Feed,
    filter::{Filter, FilterSpec},
    job::JobCounts,
    retry::RetryPolicy,
    snapshot::cut::Cut,
    source_path::SourcePath,
    time::Clock as _,
};

use crate::{bindings::exports::b2sync::embed::sync as wit, host::Host, wasi::Wasi};

type Client<'a> = B2Client<'a, Wasi, Wasi, Wasi>;

/// Does one step of `job`.
pub(crate) async fn run(job: wit::JobOrder) -> wit::StepResult {
    let client = Client::new(&Wasi, &Wasi, &Wasi, RetryPolicy::DEFAULT);
    match Job::parse(job) {
        Ok(job) => job.run(client).await,
        Err(error) => failed(error, SourceCost::default()),
    }
}

/// An order, checked.
struct Job {
    credentials: Credentials,
    api_url: String,
    cached: Option<Account>,
    path: SourcePath,
    filter: Filter,
    cut: Cut,
    budget: Budget,
    order: wit::JobOrder,
}

impl Job {
    fn parse(mut order: wit::JobOrder) -> Result<Self, Error> {
        // Out of the order and into a type that does not show it.
        let credentials = Credentials::new(&order.key_id, &std::mem::take(&mut order.application_key))?;
        let path = SourcePath::parse(&order.source_path)?;
        let spec = FilterSpec::from(order.filters.clone());
        let filter = Filter::compile(&spec, &path)?;
        let cut = Cut::parse(&order.salt).ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidInput,
                "The salt must be 32 hexadecimal digits.",
                "Draw 16 random bytes once for each sync, and keep them with it as hexadecimal digits.",
            )
            .with_field("salt")
        })?;
        let cached = order.account_cache.as_deref().and_then(|text| serde_json::from_str::<StoredAccount>(text).ok());
        Ok(Self {
            credentials,
            api_url: order.b2_api_url.clone().unwrap_or_else(|| API_URL.to_owned()),
            cached: cached.and_then(|stored| Account::try_from(stored).ok()),
            path,
            filter,
            cut,
            budget: order.budget.into(),
            order,
        })
    }

    async fn run(self, client: Client<'_>) -> wit::StepResult {
        let started = Wasi.now();
        let account = match self.account(&client).await {
            Ok(account) => account,
            Err(error) => {
                let counts = client.counts();
                let cost = SourceCost {
                    class_b: counts.class_b,
                    class_c: counts.class_c,
                    requests: counts.subrequests,
                    bytes_received: counts.bytes_received,
                    ..SourceCost::default()
                };
                return failed(error, cost);
            }
        };
        // What authorizing took is not there for the listing.
        let budget = Budget {
            external_requests_max: self.budget.external_requests_max.saturating_sub(client.counts().subrequests),
            wall_ms_max: self.budget.wall_ms_max.saturating_sub(Wasi.now().millis_since(started)),
            ..self.budget
        };
        let host = Host { sync_id: &self.order.sync_id };
        let source = B2Source::new(client, &self.api_url, &self.credentials, &self.path, account.clone());
        let engine = Engine { source: &source, blobs: &host, documents: &host, clock: &Wasi };
        let spec = JobSpec {
            reconcile: self.order.reconcile.into(),
            deletion_limit: self.order.deletion_limit.map(Into::into).unwrap_or_default(),
            confirm_deletes: self.order.confirm_deletes,
            ..JobSpec::new(&self.order.job_id, self.cut, &self.filter)
        };
        let report = engine.step(&spec, &budget).await;
        let account = source.refreshed().unwrap_or(account);
        // The report's own cost begins after authorizing.
        answer(report, source.cost(), &account)
    }

    /// The account as it was cached, if it allows this job; otherwise as B2 knows it now.
    async fn account(&self, client: &Client<'_>) -> Result<Account, Error> {
        if let Some(cached) = self.cached.clone().filter(|cached| cached.check(&self.path, Wasi.now()).is_ok()) {
            return Ok(cached);
        }
        let account = client.authorize(&self.api_url, &self.credentials).await?;
        account.check(&self.path, Wasi.now())?;
        Ok(account)
    }
}

fn answer(report: StepReport, spent: SourceCost, account: &Account) -> wit::StepResult {
    wit::StepResult {
        outcome: report.outcome.map(Into::into).map_err(Into::into),
        counts: report.counts.into(),
        cost: cost(spent, report.cost.state_reads, report.cost.state_writes),
        files_known: report.files_known,
        bytes_known: report.bytes_known,
        feed_first: report.feed.as_ref().and_then(|feed| feed.first().ok()),
        feed_last: report.feed.as_ref().map(Feed::last),
        account_cache: serde_json::to_string(&StoredAccount::from(account)).ok(),
    }
}

/// A step that ended before its listing began.
fn failed(error: Error, spent: SourceCost) -> wit::StepResult {
    wit::StepResult {
        outcome: Err(error.into()),
        counts: JobCounts::default().into(),
        cost: cost(spent, 0, 0),
        files_known: 0,
        bytes_known: 0,
        feed_first: None,
        feed_last: None,
        account_cache: None,
    }
}

fn cost(spent: SourceCost, state_reads: u64, state_writes: u64) -> wit::Cost {
    // The component reads every page itself.
    let SourceCost { class_b, class_c, requests, bytes_received, .. } = spent;
    wit::Cost { class_b, class_c, requests, bytes_received, state_reads, state_writes }
}
