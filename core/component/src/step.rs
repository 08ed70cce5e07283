//! One step of a job: the core's engine over the adapters.

use b2sync_core::{
    Error, ErrorKind,
    b2::{
        account::{API_URL, Account, Credentials, StoredAccount},
        client::B2Client,
    },
    cost::SourceCost,
    engine::{Engine, JobSpec, StepReport, meter::Budget},
    feed::Feed,
    filter::{Filter, FilterSpec},
    job::JobCost,
    open_sync::{OpenSync, Unopened},
    retry::RetryPolicy,
    snapshot::cut::Cut,
    source_path::SourcePath,
};

use crate::{bindings::exports::b2sync::embed::sync as wit, host::Host, wasi::Wasi};

type Client<'a> = B2Client<'a, Wasi, Wasi, Wasi>;

/// Does one step of `job`.
pub(crate) async fn run(job: wit::JobOrder) -> wit::StepResult {
    let client = Client::new(&Wasi, &Wasi, &Wasi, RetryPolicy::DEFAULT);
    match Job::parse(job) {
        Ok(job) => job.run(client).await,
        Err(error) => answer(StepReport::not_begun(error, &SourceCost::default()), None),
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
        let opening = OpenSync {
            api_url: &self.api_url,
            credentials: &self.credentials,
            path: &self.path,
            cached: self.cached.clone(),
        };
        let (source, opening) = match opening.open(client).await {
            Ok(opened) => opened,
            Err(Unopened { error, cost, account }) => {
                return answer(StepReport::not_begun(error, &cost), account.as_ref());
            }
        };
        let host = Host { sync_id: &self.order.sync_id };
        let engine = Engine { source: &source, blobs: &host, documents: &host, clock: &Wasi };
        let spec = JobSpec {
            reconcile: self.order.reconcile.into(),
            deletion_limit: self.order.deletion_limit.map(Into::into).unwrap_or_default(),
            confirm_deletes: self.order.confirm_deletes,
            opening: Some(opening),
            ..JobSpec::new(&self.order.job_id, self.cut, &self.filter)
        };
        let report = engine.step(&spec, &self.budget).await;
        answer(report, Some(&source.account()))
    }
}

fn answer(report: StepReport, account: Option<&Account>) -> wit::StepResult {
    let JobCost { class_b, class_c, bytes_received, state_reads, state_writes, .. } = report.cost;
    let requests = report.spent.external_requests;
    wit::StepResult {
        outcome: report.outcome.map(Into::into).map_err(Into::into),
        counts: report.counts.into(),
        cost: wit::Cost { class_b, class_c, requests, bytes_received, state_reads, state_writes },
        files_known: report.files_known,
        bytes_known: report.bytes_known,
        deletions_held: report.held_back.as_ref().map_or(0, |held| held.count),
        warnings: report.warnings.into_iter().map(Into::into).collect(),
        feed_first: report.feed.as_ref().and_then(|feed| feed.first().ok()),
        feed_last: report.feed.as_ref().map(Feed::last),
        account_cache: account.and_then(|account| serde_json::to_string(&StoredAccount::from(account)).ok()),
    }
}
