//! The page scope: a resource behind the guard.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::IF_MATCH;
use actix_web::{FromRequest, HttpRequest};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DataType, DefaultOperationRaw, Either, Parameter, ParameterIn};
use serde::{Deserialize, Serialize};

use super::body::{self, Json, Query};
use super::header::{EntityTag, EntityTags};
use super::list;
use super::path::PathId;
use super::principal::{Permit, ReadPages, WritePages};
use super::problem::Fault;
use super::reply::{NoContent, Reply};
use crate::clock::Timestamp;
use crate::domain::id::PageId;
use crate::domain::page::{ListedPage, Page};
use crate::error::{AppError, FieldError};
use crate::service::page::{ExpectedVersions, ListRange, ListStart, NewPage, PageEdit, PageList, VERSION_MAX};
use crate::service::{ANSWER_BYTES, Service};

/// A page to be created.
#[derive(Deserialize, Apiv2Schema)]
pub struct PageCreateRequest {
    /// Title
    title: String,
    /// Text, at most 65,536 bytes in UTF-8
    body: String,
}

/// A page to replace another one.
#[derive(Deserialize, Apiv2Schema)]
pub struct PageRequest {
    /// Title
    title: String,
    /// Text, at most 65,536 bytes in UTF-8
    body: String,
    /// Replace only this version, like `If-Match`
    version: Option<i64>,
}

/// Parts of a page; what is absent stays as it is.
#[derive(Deserialize, Apiv2Schema)]
pub struct PagePatch {
    /// Title
    title: Option<String>,
    /// Text, at most 65,536 bytes in UTF-8
    body: Option<String>,
    /// Change only this version, like `If-Match`
    version: Option<i64>,
}

/// Which version to delete.
#[derive(Deserialize, Apiv2Schema)]
pub struct DeleteQuery {
    /// Delete only this version, like `If-Match`
    version: Option<i64>,
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
    created_at: Timestamp,
    /// When it last changed
    updated_at: Timestamp,
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
            created_at: page.created_at,
            updated_at: page.updated_at,
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
    created_at: Timestamp,
    /// When it last changed
    updated_at: Timestamp,
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
            created_at: page.created_at,
            updated_at: page.updated_at,
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

impl ExpectedVersion {
    /// Those of them that the request also names outside of the header.
    fn and(self, version: Option<i64>) -> Result<ExpectedVersions, AppError> {
        let Some(version) = version else {
            return Ok(self.0);
        };
        if !(1..=VERSION_MAX).contains(&version) {
            return Err(FieldError::new("version", "range", format!("Use 1 to {VERSION_MAX}.")).into());
        }
        let expected = self.0.unwrap_or_else(|| vec![version]);
        Ok(Some(expected.into_iter().filter(|one| *one == version).collect()))
    }
}

impl FromRequest for ExpectedVersion {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match EntityTags::of(request.headers(), &IF_MATCH) {
            Ok(None | Some(EntityTags::Any)) => Ok(Self(None)),
            Ok(Some(EntityTags::These(tags))) if tags.iter().all(|tag| tag.is_weak) => Err(Fault::WeakIfMatch),
            Ok(Some(EntityTags::These(tags))) => Ok(Self(Some(tags.iter().filter_map(version).collect()))),
            Err(()) => {
                let detail = "Send If-Match as the ETag of the version that you read, in quotation marks.";
                Err(Fault::Malformed { code: "malformed_if_match", detail: detail.into() })
            }
        })
    }
}

/// The version that a tag names. If-Match compares strongly, so a weak tag matches nothing; nor does one that we never
/// gave.
fn version(tag: &EntityTag) -> Option<i64> {
    let text = std::str::from_utf8(&tag.opaque).ok()?;
    text.parse::<i64>().ok().filter(|version| !tag.is_weak && version.to_string() == text)
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
    body: Json<PageCreateRequest, { body::PAGE }>,
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
    let expected = expected.and(body.0.version)?;
    let edit = PageEdit { title: Some(body.0.title), body: Some(body.0.body) };
    Ok(reply(service.edit_page(permit.0, id.0, edit, expected).await?))
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
    let expected = expected.and(body.0.version)?;
    let edit = PageEdit { title: body.0.title, body: body.0.body };
    Ok(reply(service.edit_page(permit.0, id.0, edit, expected).await?))
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
    query: Query<DeleteQuery>,
) -> Result<NoContent, Fault> {
    service.delete_page(permit.0, id.0, expected.and(query.0.version)?).await?;
    Ok(NoContent)
}
