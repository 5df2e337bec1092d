//! The audit trail: all of it, one's own, and that of a page.

use std::sync::Arc;

use actix_web::body::BoxBody;
use actix_web::{FromRequest, HttpRequest, HttpResponse, Responder};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DefaultOperationRaw, DefaultSchemaRaw};
use serde::{Deserialize, Serialize};

use super::body::Query;
use super::path::PathId;
use super::principal::{ManageAccount, Permit, ReadAudit, ReadPages};
use super::problem::Fault;
use super::reply::Reply;
use super::{fields, header, list};
use crate::clock::Timestamp;
use crate::domain::audit::{Entry, Filter, Outcome};
use crate::domain::id::{PageId, UserId};
use crate::error::AppError;
use crate::service::audit::{EntryList, Order, Span};
use crate::service::{self, Service};

/// The media type of one JSON object per line.
pub const NDJSON: &str = "application/x-ndjson";

/// How many entries a stream of lines holds in memory.
const LINES_AT_ONCE: i64 = 100;

/// Which entries.
#[derive(Deserialize, Apiv2Schema)]
pub struct AuditQuery {
    /// Who: `user:<id>`, `key:<id>`, `command-line`, `constant-key` or `anonymous`
    actor: Option<String>,
    /// On whose account: the id of a user, by whatever credential
    user: Option<i64>,
    /// What was done
    action: Option<String>,
    /// To what: `user:<id>`, `key:<id>`, `page:<id>`, …
    target: Option<String>,
    /// How it ended
    outcome: Option<String>,
    /// Not before this time
    since: Option<String>,
    /// Before this time
    until: Option<String>,
    /// Which first
    order: Option<String>,
    /// What `next` said
    after: Option<i64>,
    /// Entries in the answer; all that there are with `application/x-ndjson`
    limit: Option<i64>,
}

/// Which part of a short trail.
#[derive(Deserialize, Apiv2Schema)]
pub struct TrailQuery {
    /// Which first
    order: Option<String>,
    /// What `next` said
    after: Option<i64>,
    /// Entries in the answer
    limit: Option<i64>,
}

/// An entry of the audit trail.
#[derive(Serialize, Apiv2Schema)]
pub struct AuditEntryResponse {
    /// In the order of writing
    id: i64,
    /// When
    at: Timestamp,
    /// Who: `user:<id>`, `key:<id>`, `command-line`, `constant-key` or `anonymous`
    actor: String,
    /// On whose account: the id of the user, or of the key's owner
    user: Option<i64>,
    /// What they showed: `token:<id of its sign-in entry>`, `key:<id>`, `password`, …
    credential: String,
    /// The role in force
    role: Option<String>,
    /// The scopes in force
    scopes: Vec<String>,
    /// What was done
    action: String,
    /// To what
    target: Option<String>,
    /// Whom it concerns: the id of the target's owner
    subject: Option<i64>,
    /// The version of the target before
    version_before: Option<i64>,
    /// And after
    version_after: Option<i64>,
    /// Names of the fields that changed
    changed: Vec<String>,
    /// How it ended
    outcome: String,
    /// What else there is to know, such as the reason of a failure
    detail: Option<String>,
    /// The client's address
    client: Option<String>,
    /// The request, as in the log
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
            scopes: words(&entry.scopes),
            action: entry.action,
            target: entry.target,
            subject: entry.subject.map(|user| user.0),
            version_before: entry.version_before,
            version_after: entry.version_after,
            changed: words(&entry.changed),
            outcome: entry.outcome,
            detail: entry.detail,
            client: entry.client,
            request_id: entry.request_id,
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Some entries.
#[derive(Serialize, Apiv2Schema)]
pub struct AuditListResponse {
    /// In the order that was asked for
    items: Vec<AuditEntryResponse>,
    /// Send it as `after` for what follows; null at the end
    next: Option<i64>,
}

impl From<EntryList> for AuditListResponse {
    fn from(entries: EntryList) -> Self {
        let mut items: Vec<_> = entries.items.into_iter().map(AuditEntryResponse::from).collect();
        let next = list::end_early(&mut items, entries.next.map(|id| id.0), |item| item.id);
        Self { items, next }
    }
}

/// A change of a page.
#[derive(Serialize, Apiv2Schema)]
pub struct PageChangeResponse {
    /// In the order of writing
    id: i64,
    /// When
    at: Timestamp,
    /// Who: `user:<id>` or `key:<id>`
    actor: String,
    /// On whose account: the id of the user, or of the key's owner
    user: Option<i64>,
    /// The role in force
    role: Option<String>,
    /// The scopes in force
    scopes: Vec<String>,
    /// `page.create`, `page.update` or `page.delete`
    action: String,
    /// The version before; null at the beginning
    version_before: Option<i64>,
    /// The version after; null at the end
    version_after: Option<i64>,
    /// Names of the fields that changed
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
            scopes: words(&entry.scopes),
            action: entry.action,
            version_before: entry.version_before,
            version_after: entry.version_after,
            changed: words(&entry.changed),
        }
    }
}

/// What happened to a page.
#[derive(Serialize, Apiv2Schema)]
pub struct PageHistoryResponse {
    /// In the order that was asked for
    items: Vec<PageChangeResponse>,
    /// Send it as `after` for what follows; null at the end
    next: Option<i64>,
}

/// What the caller would like to get.
pub struct Wanted {
    /// One JSON object per line, to the end.
    lines: bool,
}

impl FromRequest for Wanted {
    type Error = Fault;
    type Future = std::future::Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut actix_web::dev::Payload) -> Self::Future {
        // Without a type that is acceptable the answer is JSON, as on every other route.
        let lines = header::preferred(request.headers(), &["application/json", NDJSON]) == Some(NDJSON);
        std::future::ready(Ok(Self { lines }))
    }
}

impl paperclip::v2::schema::Apiv2Schema for Wanted {}

impl OperationModifier for Wanted {}

/// A list, or a stream of lines.
pub enum AuditReply {
    /// In one piece.
    List(Reply<AuditListResponse>),
    /// As they are read.
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

/// Read the audit trail
///
/// Who changed what, when, with which credential and at what level; failed and forbidden attempts, too. With
/// `Accept: application/x-ndjson` all entries that match come as one JSON object per line.
#[api_v2_operation(operation_id = "readAudit", tags(audit))]
pub async fn read(
    service: web::Data<Service>,
    _permit: Permit<ReadAudit>,
    query: Query<AuditQuery>,
    wanted: Wanted,
) -> Result<AuditReply, Fault> {
    let AuditQuery { actor, user, action, target, outcome, since, until, order, after, limit } = query.0;
    let outcome = outcome.map(|name| fields::one_of("outcome", &name, Outcome::ALL, Outcome::name)).transpose()?;
    let filter = Filter {
        actor,
        user: user.map(UserId),
        action,
        target,
        outcome: outcome.map(Outcome::name),
        since: since.map(|text| fields::moment("since", &text)).transpose()?,
        until: until.map(|text| fields::moment("until", &text)).transpose()?,
        ..Filter::default()
    };
    let limit = if wanted.lines { Some(LINES_AT_ONCE) } else { limit };
    let span = span(order, after, limit)?;
    let list = service.audit(filter.clone(), span).await?;
    Ok(if wanted.lines {
        AuditReply::Lines(lines(service.into_inner(), filter, span, list))
    } else {
        AuditReply::List(Reply::new(list.into()))
    })
}

/// `first` and all that follows it, read as the client takes it. A failure under way cuts the connection, so that half
/// a trail is not taken for a whole one.
fn lines(service: Arc<Service>, filter: Filter, span: Span, first: EntryList) -> HttpResponse {
    // The body is read after the request has been answered, and is still its caller's.
    let caller = service::caller();
    let rest = stream::try_unfold((service, filter, first.next), move |(service, filter, next)| async move {
        let Some(next) = next else { return Ok(None) };
        let read = service.audit(filter.clone(), Span { cursor: Some(next), ..span });
        let list = service::for_one_request(caller, read).await?;
        let next = list.next;
        Ok(Some((list, (service, filter, next))))
    });
    let all = stream::once(async { Ok::<_, AppError>(first) }).chain(rest);
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

/// Read my own trail
///
/// What you did, and what others did to what is yours.
#[api_v2_operation(operation_id = "readActivity", tags(account))]
pub async fn activity(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
    query: Query<TrailQuery>,
) -> Result<Reply<AuditListResponse>, Fault> {
    let TrailQuery { order, after, limit } = query.0;
    let list = service.activity(&permit.0, span(order, after, limit)?).await?;
    Ok(Reply::new(list.into()))
}

/// Read the history of a page
///
/// Who changed it, when, at what level, and which fields; also of a page that was deleted.
#[api_v2_operation(operation_id = "readPageHistory", tags(page))]
pub async fn page_history(
    service: web::Data<Service>,
    _permit: Permit<ReadPages>,
    id: PathId<PageId>,
    query: Query<TrailQuery>,
) -> Result<Reply<PageHistoryResponse>, Fault> {
    let TrailQuery { order, after, limit } = query.0;
    let list = service.page_history(id.0, span(order, after, limit)?).await?;
    let mut items: Vec<_> = list.items.into_iter().map(PageChangeResponse::from).collect();
    let next = list::end_early(&mut items, list.next.map(|id| id.0), |item| item.id);
    Ok(Reply::new(PageHistoryResponse { items, next }))
}

fn span(order: Option<String>, after: Option<i64>, limit: Option<i64>) -> Result<Span, Fault> {
    let order = order.map(|name| fields::one_of("order", &name, Order::ALL, Order::name)).transpose()?;
    Ok(Span::new(order.unwrap_or(Order::Newest), after, limit)?)
}
