//! The endpoints of the audit trail: all entries, the caller's activity, and the history of a page.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::{FromRequest, HttpRequest, HttpResponse, Responder};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Timestamp;
use crate::domain::audit::{Action, Entry, Filter, Outcome};
use crate::domain::id::{PageId, UserId};
use crate::error::AppError;
use crate::http::guard::permit::{ManageAccount, Permit, ReadAudit};
use crate::http::page::ReadPages;
use crate::http::resource::{EXAMPLE_REQUEST_ID, EXAMPLE_TIME, Resource, example};
use crate::http::wire::body::Query;
use crate::http::wire::error::HttpError;
use crate::http::wire::path::PathId;
use crate::http::wire::reply::Reply;
use crate::http::wire::{fields, header, list};
use crate::service::audit::read::{EntryList, Order, Span};
use crate::service::{self, Service};

/// The media type of one JSON object per line.
pub const NDJSON: &str = "application/x-ndjson";

/// Number of entries that a stream of lines reads at once and holds in memory.
const STREAM_BATCH: i64 = 100;

/// The entries of the audit trail in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let entry = json!({
        "id": 3, "at": EXAMPLE_TIME, "actor": "user:2", "user": 2, "credential": "password", "role": "member",
        "scopes": ["pages:read", "pages:write"], "action": Action::SignIn.name(), "target": "user:2", "subject": 2,
        "version_before": null, "version_after": null, "changed": [], "outcome": "success", "detail": null,
        "client": "192.0.2.7", "request_id": EXAMPLE_REQUEST_ID,
    });
    Resource {
        tag: ("Audit", "Who changed what, when, with which credential and at what level"),
        parameters: vec![
            ("readAudit", "actor", example("user:2")),
            ("readAudit", "user", example(2)),
            ("readAudit", "action", example(Action::SignIn.name())),
            ("readAudit", "target", example("user:2")),
            ("readAudit", "outcome", example("success")),
            ("readAudit", "since", example("2026-01-01T00:00:00Z")),
            ("readAudit", "until", example("2100-01-01T00:00:00Z")),
        ],
        lists: vec![("AuditListResponse", "AuditEntryResponse")],
        examples: vec![("AuditListResponse", json!({ "items": [entry], "next": null })), ("AuditEntryResponse", entry)],
        ..Resource::default()
    }
}

/// The filter and the part of the audit trail.
#[derive(Deserialize, Apiv2Schema)]
pub struct AuditQuery {
    /// Actor: `user:<id>`, `key:<id>`, `command-line`, `server`, `static-key` or `anonymous`
    actor: Option<String>,
    /// Id of the user on whose account it was done, with any credential
    user: Option<i64>,
    /// Action, such as `page.update`
    action: Option<String>,
    /// Target: `user:<id>`, `key:<id>`, `page:<id>`, …
    target: Option<String>,
    /// Outcome
    outcome: Option<String>,
    /// Only entries from this time on
    since: Option<String>,
    /// Only entries before this time
    until: Option<String>,
    /// Which entries are first
    order: Option<String>,
    /// The `next` of the previous response
    after: Option<i64>,
    /// Maximum number of entries in the response; ignored with `application/x-ndjson`
    limit: Option<i64>,
}

/// The part of an activity or a history.
#[derive(Deserialize, Apiv2Schema)]
pub struct TrailQuery {
    /// Which entries are first
    order: Option<String>,
    /// The `next` of the previous response
    after: Option<i64>,
    /// Maximum number of entries in the response
    limit: Option<i64>,
}

/// An entry of the audit trail.
#[derive(Serialize, Apiv2Schema)]
pub struct AuditEntryResponse {
    /// Id of the entry, in the order of writing
    id: i64,
    /// Time of the entry
    at: Timestamp,
    /// Actor: `user:<id>`, `key:<id>`, `command-line`, `server`, `static-key` or `anonymous`
    actor: String,
    /// Id of the user, or of the owner of the key, on whose account it was done
    user: Option<i64>,
    /// Credential: `token:<id of its sign-in entry>`, `key:<id>`, `password`, …
    credential: String,
    /// Role in force
    role: Option<String>,
    /// Scopes in force
    scopes: Vec<String>,
    /// Action, such as `page.update`
    action: String,
    /// Target
    target: Option<String>,
    /// Id of the owner of the target
    subject: Option<i64>,
    /// Version of the target before the action
    version_before: Option<i64>,
    /// Version of the target after the action
    version_after: Option<i64>,
    /// Names of the changed fields
    changed: Vec<String>,
    /// Outcome
    outcome: String,
    /// Further information, such as the reason of a failure
    detail: Option<String>,
    /// Address of the client
    client: Option<String>,
    /// Id of the request, as in the log
    request_id: Option<String>,
}

impl From<Entry> for AuditEntryResponse {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id.0,
            at: entry.at,
            actor: entry.actor,
            user: entry.user.map(|user| user.0),
            credential: entry.credential,
            role: entry.role,
            scopes: split_words(&entry.scopes),
            action: entry.action,
            target: entry.target,
            subject: entry.subject.map(|user| user.0),
            version_before: entry.version_before,
            version_after: entry.version_after,
            changed: split_words(&entry.changed),
            outcome: entry.outcome,
            detail: entry.detail,
            client: entry.client,
            request_id: entry.request_id,
        }
    }
}

fn split_words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A part of the audit trail.
#[derive(Serialize, Apiv2Schema)]
pub struct AuditListResponse {
    /// Entries, in the requested order
    items: Vec<AuditEntryResponse>,
    /// Pass it as `after` to get the following part; null at the end
    next: Option<i64>,
}

impl From<EntryList> for AuditListResponse {
    fn from(entries: EntryList) -> Self {
        let mut items: Vec<_> = entries.items.into_iter().map(AuditEntryResponse::from).collect();
        let next = list::truncate(&mut items, entries.next.map(|id| id.0), |item| item.id);
        Self { items, next }
    }
}

/// A change of a page.
#[derive(Serialize, Apiv2Schema)]
pub struct PageChangeResponse {
    /// Id of the entry, in the order of writing
    id: i64,
    /// Time of the entry
    at: Timestamp,
    /// Actor: `user:<id>` or `key:<id>`
    actor: String,
    /// Id of the user, or of the owner of the key, on whose account it was done
    user: Option<i64>,
    /// Role in force
    role: Option<String>,
    /// Scopes in force
    scopes: Vec<String>,
    /// `page.create`, `page.update` or `page.delete`
    action: String,
    /// Version before the change; null for a creation
    version_before: Option<i64>,
    /// Version after the change; null for a deletion
    version_after: Option<i64>,
    /// Names of the changed fields
    changed: Vec<String>,
}

impl From<Entry> for PageChangeResponse {
    fn from(entry: Entry) -> Self {
        Self {
            id: entry.id.0,
            at: entry.at,
            actor: entry.actor,
            user: entry.user.map(|user| user.0),
            role: entry.role,
            scopes: split_words(&entry.scopes),
            action: entry.action,
            version_before: entry.version_before,
            version_after: entry.version_after,
            changed: split_words(&entry.changed),
        }
    }
}

/// A part of the history of a page.
#[derive(Serialize, Apiv2Schema)]
pub struct PageHistoryResponse {
    /// Changes, in the requested order
    items: Vec<PageChangeResponse>,
    /// Pass it as `after` to get the following part; null at the end
    next: Option<i64>,
}

/// The response format that the caller prefers.
pub struct AuditFormat {
    /// Whether it is [`NDJSON`].
    is_ndjson: bool,
}

impl FromRequest for AuditFormat {
    type Error = HttpError;
    type Future = std::future::Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut actix_web::dev::Payload) -> Self::Future {
        // If no type is acceptable, the response is JSON, as on every other route.
        let is_ndjson = header::preferred(request.headers(), &["application/json", NDJSON]) == Some(NDJSON);
        std::future::ready(Ok(Self { is_ndjson }))
    }
}

impl paperclip::v2::schema::Apiv2Schema for AuditFormat {}

impl OperationModifier for AuditFormat {}

/// A list, or a stream of lines.
pub enum AuditReply {
    /// A part of the trail, as one JSON object.
    List(Reply<AuditListResponse>),
    /// All entries, as a stream of lines.
    Lines(HttpResponse),
}

impl Responder for AuditReply {
    type Body = BoxBody;

    fn respond_to(self, request: &HttpRequest) -> HttpResponse {
        match self {
            Self::List(list) => list.respond_to(request),
            Self::Lines(lines) => lines,
        }
    }
}

impl paperclip::v2::schema::Apiv2Schema for AuditReply {
    fn name() -> Option<String> {
        AuditListResponse::name()
    }

    fn raw_schema() -> DefaultSchemaRaw {
        AuditListResponse::raw_schema()
    }
}

impl OperationModifier for AuditReply {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Reply::<AuditListResponse>::update_response(operation);
    }
}

/// List audit entries
///
/// Returns who changed what, when, with which credential and at what level; requires the scope `audit:read`.
///
/// Continue with `next` as `after`.
///
/// The trail includes failed and denied attempts. With `Accept: application/x-ndjson`, the response contains all
/// matching entries, one JSON object per line.
#[api_v2_operation(operation_id = "readAudit", tags("Audit"))]
pub async fn read(
    service: web::Data<Service>,
    _permit: Permit<ReadAudit>,
    query: Query<AuditQuery>,
    format: AuditFormat,
) -> Result<AuditReply, HttpError> {
    let AuditQuery { actor, user, action, target, outcome, since, until, order, after, limit } = query.0;
    let outcome = outcome.map(|name| fields::one_of("outcome", &name, Outcome::ALL, Outcome::name)).transpose()?;
    let filter = Filter {
        actor,
        user: user.map(UserId),
        action,
        target,
        outcome: outcome.map(Outcome::name),
        since: since.map(|text| fields::timestamp("since", &text)).transpose()?,
        until: until.map(|text| fields::timestamp("until", &text)).transpose()?,
        ..Filter::default()
    };
    let limit = if format.is_ndjson { Some(STREAM_BATCH) } else { limit };
    let span = span(order, after, limit)?;
    let list = service.audit(filter.clone(), span).await?;
    Ok(if format.is_ndjson {
        AuditReply::Lines(stream_lines(service.into_inner(), filter, span, list))
    } else {
        AuditReply::List(Reply::new(list.into()))
    })
}

/// Streams `first` and all entries after it, which are read as the client receives them. A later failure cuts the
/// connection, so that the client detects an incomplete trail.
fn stream_lines(service: Arc<Service>, filter: Filter, span: Span, first: EntryList) -> HttpResponse {
    // The body is produced after the handler has returned, but its reads still count for this caller.
    let caller = service::caller();
    let following = stream::try_unfold((service, filter, first.next), move |(service, filter, next)| async move {
        let Some(next) = next else { return Ok(None) };
        let read = service.audit(filter.clone(), Span { cursor: Some(next), ..span });
        let list = service::for_one_request(caller, read).await?;
        let next = list.next;
        Ok(Some((list, (service, filter, next))))
    });
    let all = stream::once(async { Ok::<_, AppError>(first) }).chain(following);
    let text = all.and_then(|list| async {
        let mut text = Vec::new();
        for entry in list.items {
            serde_json::to_writer(&mut text, &AuditEntryResponse::from(entry))
                .map_err(|error| AppError::Internal(error.into()))?;
            text.push(b'\n');
        }
        Ok(web::Bytes::from(text))
    });
    HttpResponse::Ok().content_type(NDJSON).streaming(text)
}

/// List my activity
///
/// Returns the audit entries about what you did, and about what others did to your objects; requires a full sign-in
/// token.
///
/// Continue with `next` as `after`. A sign-in token is full if the sign-in requested no scopes.
#[api_v2_operation(operation_id = "readActivity", tags("My account"))]
pub async fn activity(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
    query: Query<TrailQuery>,
) -> Result<Reply<AuditListResponse>, HttpError> {
    let TrailQuery { order, after, limit } = query.0;
    let list = service.activity(&permit.0, span(order, after, limit)?).await?;
    Ok(Reply::new(list.into()))
}

/// List the changes of a page
///
/// Returns who changed a page, when, at what level, and which fields; requires the scope `pages:read`.
///
/// Continue with `next` as `after`. It also works for a deleted page.
#[api_v2_operation(operation_id = "readPageHistory", tags("Pages"))]
pub async fn page_history(
    service: web::Data<Service>,
    _permit: Permit<ReadPages>,
    id: PathId<PageId>,
    query: Query<TrailQuery>,
) -> Result<Reply<PageHistoryResponse>, HttpError> {
    let TrailQuery { order, after, limit } = query.0;
    let list = service.page_history(id.0, span(order, after, limit)?).await?;
    let mut items: Vec<_> = list.items.into_iter().map(PageChangeResponse::from).collect();
    let next = list::truncate(&mut items, list.next.map(|id| id.0), |item| item.id);
    Ok(Reply::new(PageHistoryResponse { items, next }))
}

fn span(order: Option<String>, after: Option<i64>, limit: Option<i64>) -> Result<Span, HttpError> {
    let order = order.map(|name| fields::one_of("order", &name, Order::ALL, Order::name)).transpose()?;
    Ok(Span::new(order.unwrap_or(Order::Newest), after, limit)?)
}
