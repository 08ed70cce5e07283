//! What a sync would do, before there is one: which of the first files its filters take, and why not the others.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::settings;
use crate::{
    api::{
        errors::Answered,
        render,
        service::{Coordinators, Service, nothing_stored},
    },
    catalogue::Objects,
    cost::{b2_nanodollars, forecast_per_day},
    registry::{Registry, SyncMode, SyncRecord},
};
use b2sync_core::{
    engine::listing::source::{Page, PageStart, Source},
    entropy::Entropy,
    filter::{Filter, Seen, Verdict},
    http::HttpClient,
    ids,
    job::JobCost,
    time::Clock,
    warning::{self, Done, Warning},
};

/// Files that are shown one by one.
pub(in crate::api) const FILES_SHOWN_MAX: usize = 100;

impl<R: Registry, C: Coordinators, O: Objects, H: HttpClient, K: Clock, E: Entropy> Service<'_, R, C, O, H, K, E> {
    /// Reads the body of a create, and creates nothing.
    pub(in crate::api) async fn preview_sync(&self, place: (String, String), body: &[u8]) -> Answered {
        let new = settings::parse_create(body)?;
        let (connection, record) = self.plan_sync(ids::sync_id(self.entropy), place, new).await?;
        let filter = Filter::compile(&record.effective_filters(), &record.source)?;
        let looked = self
            .look(connection, &record.source, async |source| {
                let first_look = source.first_look().await?;
                Ok((source.page(PageStart::First).await?, first_look))
            })
            .await?;
        let (page, first_look) = looked.map_err(nothing_stored)?;
        let sample = Sample::of(&page, &filter);
        let mut warnings = warning::of_first_look(&record.source, &first_look.found, first_look.is_all);
        warnings.extend(warning::of_filters(&record.filters, &record.source));
        warnings.extend(self.overlaps(&record).await?);
        warnings.extend(sample.warnings(&filter));
        // What a look at the folder says, and what the files say, may be the same.
        let mut said = BTreeSet::new();
        warnings.retain(|warning| said.insert((warning.code.as_str(), warning.message.clone())));
        Ok(render(&record, &sample, &warnings))
    }
}

/// What the first page of a listing says.
struct Sample {
    files: Vec<Value>,
    listed: u64,
    matched: u64,
    matched_bytes: u64,
    unreadable: u64,
    /// By the field that decides.
    left_out: BTreeMap<&'static str, u64>,
    seen: Seen,
    is_all: bool,
}

impl Sample {
    fn of(page: &Page, filter: &Filter) -> Self {
        let mut sample = Self {
            files: Vec::new(),
            listed: page.entries.len() as u64,
            matched: 0,
            matched_bytes: 0,
            unreadable: 0,
            left_out: BTreeMap::new(),
            seen: Seen::default(),
            is_all: !page.truncated,
        };
        for entry in page.entries.iter() {
            let verdict = filter.explain(entry);
            let is_unreadable = entry.is_unreadable();
            if filter.takes(entry, &sample.seen) {
                if is_unreadable {
                    sample.unreadable += 1;
                    sample.seen.note_unreadable(entry.key, entry.etag);
                } else {
                    sample.matched += 1;
                    sample.matched_bytes = sample.matched_bytes.saturating_add(entry.size);
                }
            }
            if let Some(field) = verdict.field() {
                *sample.left_out.entry(field).or_default() += 1;
            }
            if sample.files.len() < FILES_SHOWN_MAX {
                let known = |value: Value| if is_unreadable { Value::Null } else { value };
                sample.files.push(json!({
                    "key": entry.key,
                    "takes": verdict == Verdict::Accepted && !is_unreadable,
                    "decided_by": verdict.field(),
                    "reason": if is_unreadable { format!("{} cannot be read: {}", entry.key, entry.etag) }
                              else { format!("{} {verdict}.", entry.key) },
                    "size": known(render::integer(entry.size)),
                    "last_modified": known(render::time(entry.last_modified)),
                }));
            }
        }
        sample
    }

    /// What a job would say of the filters, if these are all files.
    fn warnings(&self, filter: &Filter) -> Vec<Warning> {
        if !self.is_all {
            return Vec::new();
        }
        let done =
            Done { listed: self.listed, matched: self.matched, unreadable: self.unreadable, stopped_after: None };
        warning::of_job(filter, &self.seen.record(), done)
    }
}

fn render(record: &SyncRecord, sample: &Sample, warnings: &[Warning]) -> Value {
    json!({
        "source_path": record.source.to_string(),
        "files": sample.files,
        "counts": {
            "listed": render::integer(sample.listed),
            "matched": render::integer(sample.matched),
            "matched_bytes": render::integer(sample.matched_bytes),
            "unreadable": render::integer(sample.unreadable),
            "left_out": sample.left_out,
            "is_all": sample.is_all,
        },
        "warnings": render::warnings(warnings),
        "cost": sample.is_all.then(|| render_cost(record)),
    })
}

/// What B2 charges, where one page is the whole listing.
fn render_cost(record: &SyncRecord) -> Value {
    let job = JobCost { class_c: 1, ..JobCost::default() };
    let polls = (record.mode != SyncMode::OneTime).then(|| {
        let day = forecast_per_day(&job, u64::from(record.polling_interval_s));
        json!({
            "class_c_calls": render::integer(day.cost.class_c),
            "dollars": render::dollars(day.b2_nanodollars),
        })
    });
    json!({
        "first_sync": {"class_c_calls": job.class_c, "dollars": render::dollars(b2_nanodollars(&job))},
        "polls_per_day": polls,
    })
}
