//! The endpoint of statistics.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Timestamp;
use crate::domain::stats::Counts;
use crate::http::guard::permit::{Permit, ReadAudit};
use crate::http::resource::Resource;
use crate::http::wire::body::Query;
use crate::http::wire::error::HttpError;
use crate::http::wire::fields;
use crate::http::wire::reply::Reply;
use crate::service::Service;
use crate::service::stats::Stats;
use crate::service::stats::period::Step;

/// The entries of statistics in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let (hour, from, to) = (Step::Hour.name(), "2026-11-25T20:00:00.000000Z", "2026-11-25T21:00:00.000000Z");
    let item = json!({
        "at": from, "sign_ins_succeeded": 12, "sign_ins_failed": 3, "sign_ins_throttled": 0, "registrations": 2,
        "requests_authorized": 4096, "requests_refused": 7, "keys_used": 5, "hash_queue_max": 1,
    });
    let time = |example: &str| json!({ "format": "date-time", "example": example });
    Resource {
        tag: ("Statistics", "How often users signed in and registered, and requests were allowed or refused"),
        parameters: vec![
            ("readStats", "from", time(from)),
            ("readStats", "to", time(to)),
            ("readStats", "step", json!({ "enum": Step::ALL.map(Step::name), "default": hour, "example": hour })),
        ],
        lists: vec![("StatsResponse", "StatsItemResponse")],
        examples: vec![
            ("StatsResponse", json!({ "step": hour, "from": from, "to": to, "items": [item] })),
            ("StatsItemResponse", item),
        ],
        ..Resource::default()
    }
}

/// The period and its steps.
#[derive(Deserialize, Apiv2Schema)]
pub struct StatsQuery {
    /// Start of the period, by default 24 hours or 30 days before `to`
    from: Option<String>,
    /// End of the period, by default now; at most 31 days after `from` by hour, and 400 days by day
    to: Option<String>,
    /// Length of a step; days are in UTC
    step: Option<String>,
}

/// The counts of each step of a period.
#[derive(Serialize, Apiv2Schema)]
pub struct StatsResponse {
    /// Length of a step: `hour` or `day`
    step: String,
    /// Start of the first step
    from: Timestamp,
    /// End of the period, which does not belong to it
    to: Timestamp,
    /// Every step that the period contains in part, oldest first
    items: Vec<StatsItemResponse>,
}

/// The counts of an hour or of a day.
#[derive(Serialize, Apiv2Schema)]
pub struct StatsItemResponse {
    /// Start of the step
    at: Timestamp,
    /// Sign-ins that returned a token
    sign_ins_succeeded: i64,
    /// Sign-ins that were rejected, such as for a wrong password or a stopped account
    sign_ins_failed: i64,
    /// Sign-ins that a limit refused (429)
    sign_ins_throttled: i64,
    /// Users who registered themselves
    registrations: i64,
    /// Requests to guarded routes and to `/authz` whose credential allowed them
    requests_authorized: i64,
    /// Requests to guarded routes and to `/authz` that were refused for their credential
    requests_refused: i64,
    /// Distinct API keys that were used
    keys_used: i64,
    /// Largest number of password hashes that waited for a thread at the same time, in one process
    hash_queue_max: i64,
}

impl From<(Timestamp, Counts)> for StatsItemResponse {
    fn from((at, counts): (Timestamp, Counts)) -> Self {
        Self {
            at,
            sign_ins_succeeded: counts.sign_ins_succeeded,
            sign_ins_failed: counts.sign_ins_failed,
            sign_ins_throttled: counts.sign_ins_throttled,
            registrations: counts.registrations,
            requests_authorized: counts.requests_authorized,
            requests_refused: counts.requests_refused,
            keys_used: counts.keys_used,
            hash_queue_max: counts.hash_queue_max,
        }
    }
}

/// Read statistics
///
/// Returns how often users signed in and registered, and requests were allowed or refused, by hour or by day; requires
/// the scope `audit:read`.
///
/// Set `step=day` for a period of more than 31 days. The counts of the last 10 seconds may be missing.
#[api_v2_operation(operation_id = "readStats", tags("Statistics"))]
pub async fn read(
    service: web::Data<Service>,
    _permit: Permit<ReadAudit>,
    query: Query<StatsQuery>,
) -> Result<Reply<StatsResponse>, HttpError> {
    let StatsQuery { from, to, step } = query.0;
    let step = step.map(|name| fields::one_of("step", &name, Step::ALL, Step::name)).transpose()?;
    let from = from.map(|text| fields::timestamp("from", &text)).transpose()?;
    let to = to.map(|text| fields::timestamp("to", &text)).transpose()?;
    let Stats { period, items } = service.stats(step.unwrap_or(Step::Hour), from, to).await?;
    Ok(Reply::new(StatsResponse {
        step: period.step.name().to_owned(),
        from: period.from,
        to: period.to,
        items: items.into_iter().map(StatsItemResponse::from).collect(),
    }))
}
