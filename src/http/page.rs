//! The page scope: a resource behind the guard.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{EntityTag, HeaderValue, IF_MATCH};
use actix_web::{FromRequest, HttpRequest};
use chrono::{DateTime, Utc};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DataType, DefaultOperationRaw, Either, Parameter, ParameterIn};
use serde::{Deserialize, Serialize};

use super::body::{self, Json, Query};
use super::list;
use super::path::PathId;
use super::principal::{Permit, ReadPages, WritePages};
use super::problem::Fault;
use super::reply::{NoContent, Reply};
use crate::domain::id::PageId;
use crate::domain::page::{ListedPage, Page};
use crate::service::page::{ExpectedVersions, ListRange, ListStart, NewPage, PageEdit, PageList};
use crate::service::{ANSWER_BYTES, Service};

/// A whole page.
#[derive(Deserialize, Apiv2Schema)]
pub struct PageRequest {
    /// Title
    title: String,
    /// Text, at most 65,536 bytes in UTF-8
    body: String,
}

/// Parts of a page; what is absent stays as it is.
#[derive(Deserialize, Apiv2Schema)]
pub struct PagePatch {
    /// Title
    title: Option<String>,
    /// Text, at most 65,536 bytes in UTF-8
    body: Option<String>,
}

/// Which part of the list.
#[derive(Deserialize, Apiv2Schema)]
pub struct ListQuery {
    /// Page number, from 1; for the first 10,000 pages
    page: Option<i64>,
    /// The `next` of the answer before, in place of a page number; 0 for the beginning
    after: Option<i64>,
    /// Items in the answer at most
    size: Option<i64>,
}

/// A page and its history in brief.
#[derive(Serialize, Apiv2Schema)]
pub struct PageResponse {
    /// Never reused
    id: i64,
    /// Title
    title: String,
    /// Text
    body: String,
    /// The id of the user who created it and alone may change it
    owner: i64,
    /// When it was created
    created_at: DateTime<Utc>,
    /// When it last changed
    updated_at: DateTime<Utc>,
    /// The id of the user who changed it last
    updated_by: i64,
    /// 1 at first, one more with each change; also the `ETag`
    version: i64,
}

impl From<Page> for PageResponse {
    fn from(page: Page) -> Self {
        Self {
            id: page.id.0,
            title: page.title,
            body: page.body,
            owner: page.owner.0,
            created_at: page.created_at.utc(),
            updated_at: page.updated_at.utc(),
            updated_by: page.updated_by.0,
            version: page.version,
        }
    }
}

fn reply<const STATUS: u16>(page: Page) -> Reply<PageResponse, STATUS> {
    let version = page.version;
    Reply::new(PageResponse::from(page)).version(version)
}

/// A page as the list shows it.
#[derive(Serialize, Apiv2Schema)]
pub struct PageListItemResponse {
    /// Never reused
    id: i64,
    /// Title
    title: String,
    /// Text; null on a numbered page whose texts take more than 256 KiB: read the page by itself
    body: Option<String>,
    /// The id of the user who created it and alone may change it
    owner: i64,
    /// When it was created
    created_at: DateTime<Utc>,
    /// When it last changed
    updated_at: DateTime<Utc>,
    /// The id of the user who changed it last
    updated_by: i64,
    /// 1 at first, one more with each change
    version: i64,
}

impl From<ListedPage> for PageListItemResponse {
    fn from(page: ListedPage) -> Self {
        Self {
            id: page.id.0,
            title: page.title,
            body: page.body,
            owner: page.owner.0,
            created_at: page.created_at.utc(),
            updated_at: page.updated_at.utc(),
            updated_by: page.updated_by.0,
            version: page.version,
        }
    }
}

/// One part of the list.
#[derive(Serialize, Apiv2Schema)]
pub struct PageListResponse {
    /// The page number that was asked for; null with `after`
    page: Option<i64>,
    /// Items in the answer at most
    size: i64,
    /// How many pages there are in all, counted up to 10,000
    total: i64,
    /// Whether `total` is all there are
    total_is_exact: bool,
    /// These, by id
    items: Vec<PageListItemResponse>,
    /// Send it as `after` for what follows; null at the end
    next: Option<i64>,
}

impl PageListResponse {
    fn new(range: ListRange, list: PageList) -> Self {
        let PageList { total, items, next } = list;
        let mut items: Vec<_> = items.into_iter().map(PageListItemResponse::from).collect();
        let mut next = next.map(|id| id.0);
        let page = match range.start {
            ListStart::After(_) => {
                next = list::end_early(&mut items, next, |item| item.id);
                None
            }
            ListStart::Number(number) => {
                leave_out_bodies(&mut items);
                Some(number)
            }
        };
        Self { page, size: range.size, total: total.count, total_is_exact: total.is_exact, items, next }
    }
}

/// Leaves out the texts for which an answer has no room.
fn leave_out_bodies(items: &mut [PageListItemResponse]) {
    let bodies: Vec<_> = items.iter_mut().map(|item| item.body.take()).collect();
    let mut room = ANSWER_BYTES.saturating_sub(items.iter().map(list::json_length).sum());
    for (item, body) in items.iter_mut().zip(bodies) {
        let length = list::json_length(&body);
        if length <= room {
            room -= length;
            item.body = body;
        }
    }
}

/// The versions that `If-Match` allows (RFC 9110, section 13.1.1).
pub struct ExpectedVersion(ExpectedVersions);

impl FromRequest for ExpectedVersion {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let versions = request.headers().get_all(IF_MATCH).map(versions).collect::<Option<Vec<_>>>();
        ready(match versions {
            Some(lines) if lines.is_empty() || lines.contains(&AllowedVersions::Any) => Ok(Self(None)),
            Some(lines) => Ok(Self(Some(lines.into_iter().flat_map(AllowedVersions::listed).collect()))),
            None => {
                let detail = "Send If-Match as the ETag of the version that you read, in quotation marks.";
                Err(Fault::Malformed { code: "malformed_if_match", detail: detail.into() })
            }
        })
    }
}

#[derive(PartialEq)]
enum AllowedVersions {
    Any,
    These(Vec<i64>),
}

impl AllowedVersions {
    fn listed(self) -> Vec<i64> {
        match self {
            Self::Any => Vec::new(),
            Self::These(versions) => versions,
        }
    }
}

/// One line of `If-Match`; `None` if it is malformed. actix would drop the tags that it cannot read.
fn versions(line: &HeaderValue) -> Option<AllowedVersions> {
    let line = line.to_str().ok()?.trim();
    if line == "*" {
        return Some(AllowedVersions::Any);
    }
    let tags: Vec<EntityTag> = line.split(',').map(|tag| tag.trim().parse().ok()).collect::<Option<_>>()?;
    Some(AllowedVersions::These(tags.iter().filter_map(version).collect()))
}

/// The version that a tag names. If-Match compares strongly, so a weak tag matches nothing; nor does one that we never
/// gave.
fn version(tag: &EntityTag) -> Option<i64> {
    tag.tag().parse::<i64>().ok().filter(|version| !tag.weak && version.to_string() == tag.tag())
}

impl paperclip::v2::schema::Apiv2Schema for ExpectedVersion {}

impl OperationModifier for ExpectedVersion {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        operation.parameters.push(Either::Right(Parameter {
            name: "If-Match".to_owned(),
            in_: ParameterIn::Header,
            description: Some("Change only this version: the `ETag` that you read".to_owned()),
            data_type: Some(DataType::String),
            ..Parameter::default()
        }));
    }
}

/// List pages
///
/// By id. An answer holds about 256 KiB at most. Begin without parameters, and continue with `after`: nothing is
/// skipped then, whatever is deleted meanwhile.
#[api_v2_operation(operation_id = "listPages", tags(page))]
pub async fn list(
    service: web::Data<Service>,
    _permit: Permit<ReadPages>,
    query: Query<ListQuery>,
) -> Result<Reply<PageListResponse>, Fault> {
    let range = ListRange::new(query.0.page, query.0.after, query.0.size)?;
    Ok(Reply::new(PageListResponse::new(range, service.pages(range).await?)))
}

/// Create a page
#[api_v2_operation(operation_id = "createPage", tags(page))]
pub async fn create(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    body: Json<PageRequest, { body::PAGE }>,
) -> Result<Reply<PageResponse, 201>, Fault> {
    let page = service.create_page(permit.0, NewPage { title: body.0.title, body: body.0.body }).await?;
    let location = format!("/page/{}", page.id);
    Ok(reply(page).location(location))
}

/// Read a page
#[api_v2_operation(operation_id = "readPage", tags(page))]
pub async fn read(
    service: web::Data<Service>,
    _permit: Permit<ReadPages>,
    id: PathId<PageId>,
) -> Result<Reply<PageResponse>, Fault> {
    Ok(reply(service.page(id.0).await?))
}

/// Replace a page
///
/// Only the owner may.
#[api_v2_operation(operation_id = "replacePage", tags(page))]
pub async fn replace(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    id: PathId<PageId>,
    expected: ExpectedVersion,
    body: Json<PageRequest, { body::PAGE }>,
) -> Result<Reply<PageResponse>, Fault> {
    let edit = PageEdit { title: Some(body.0.title), body: Some(body.0.body) };
    Ok(reply(service.edit_page(permit.0, id.0, edit, expected.0).await?))
}

/// Change a page
///
/// Only the owner may.
#[api_v2_operation(operation_id = "editPage", tags(page))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    id: PathId<PageId>,
    expected: ExpectedVersion,
    body: Json<PagePatch, { body::PAGE }>,
) -> Result<Reply<PageResponse>, Fault> {
    let edit = PageEdit { title: body.0.title, body: body.0.body };
    Ok(reply(service.edit_page(permit.0, id.0, edit, expected.0).await?))
}

/// Delete a page
///
/// Only the owner may.
#[api_v2_operation(operation_id = "deletePage", tags(page))]
pub async fn delete(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    id: PathId<PageId>,
    expected: ExpectedVersion,
) -> Result<NoContent, Fault> {
    service.delete_page(permit.0, id.0, expected.0).await?;
    Ok(NoContent)
}
