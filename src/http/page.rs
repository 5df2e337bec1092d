//! The endpoints under `/page`: pages, an example of a guarded resource.

mod examples;

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::IF_MATCH;
use actix_web::{FromRequest, HttpRequest};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DataType, DefaultOperationRaw, Either, Parameter, ParameterIn};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Timestamp;
use crate::domain::id::PageId;
use crate::domain::page::{ListedPage, Page};
use crate::domain::scope::Scope;
use crate::domain::text;
use crate::error::{AppError, FieldError};
use crate::http::guard::permit::{Permit, permissions};
use crate::http::resource::{NO_NUL, Resource};
use crate::http::wire::body::{self, Json, Query};
use crate::http::wire::error::HttpError;
use crate::http::wire::header::{EntityTag, EntityTags};
use crate::http::wire::list;
use crate::http::wire::path::PathId;
use crate::http::wire::reply::{NoContent, Reply};
use crate::service::Service;
use crate::service::lists::ANSWER_BYTES;
use crate::service::page::{self, ExpectedVersions, ListRange, ListStart, NewPage, PageEdit, PageList, VERSION_MAX};

permissions! {
    /// `pages:read`.
    ReadPages: Some(Scope::PagesRead), |_| Ok(());
    /// `pages:write`.
    WritePages: Some(Scope::PagesWrite), |_| Ok(());
}

/// The entries of pages in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let title = json!({ "minLength": 1, "maxLength": page::TITLE_MAX, "pattern": text::pattern(false) });
    let body = json!({ "maxLength": page::BODY_MAX, "pattern": NO_NUL });
    let version = json!({ "minimum": 1, "maximum": VERSION_MAX, "example": 1 });
    // Without a default, which generated clients would send beside `after`.
    let number = json!({ "minimum": 1, "maximum": page::OFFSET_MAX + 1, "example": 1 });
    let size = json!({
        "minimum": 1, "maximum": page::SIZE_MAX, "default": page::SIZE_DEFAULT, "example": page::SIZE_DEFAULT,
    });
    Resource {
        tag: ("Pages", "Texts with versions and a history: an example of a resource behind the guard"),
        bodies: vec![
            ("PageCreateRequest", json!({ "title": title, "body": body })),
            ("PageRequest", json!({ "title": title, "body": body, "version": version })),
            ("PagePatch", json!({ "title": title, "body": body, "version": version })),
        ],
        patches: vec!["PagePatch"],
        parameters: vec![
            ("deletePage", "version", version),
            ("listPages", "page", number),
            ("listPages", "size", size),
        ],
        lists: vec![("PageListResponse", "PageListItemResponse"), ("PageHistoryResponse", "PageChangeResponse")],
        examples: examples::examples(),
    }
}

/// A new page.
#[derive(Deserialize, Apiv2Schema)]
pub struct PageCreateRequest {
    /// Title
    title: String,
    /// Text, at most 65,536 bytes in UTF-8
    body: String,
}

/// The new content of a page.
#[derive(Deserialize, Apiv2Schema)]
pub struct PageRequest {
    /// Title
    title: String,
    /// Text, at most 65,536 bytes in UTF-8
    body: String,
    /// Replace the page only if it has this version, like `If-Match`
    version: Option<i64>,
}

/// Changes to a page. Absent fields do not change.
#[derive(Deserialize, Apiv2Schema)]
pub struct PagePatch {
    /// Title
    title: Option<String>,
    /// Text, at most 65,536 bytes in UTF-8
    body: Option<String>,
    /// Change the page only if it has this version, like `If-Match`
    version: Option<i64>,
}

/// The version to delete.
#[derive(Deserialize, Apiv2Schema)]
pub struct DeleteQuery {
    /// Delete the page only if it has this version, like `If-Match`
    version: Option<i64>,
}

/// The part of the list.
#[derive(Deserialize, Apiv2Schema)]
pub struct ListQuery {
    /// Number of the part, from 1; it reaches only the first 10,000 pages
    page: Option<i64>,
    /// The `next` of the previous response, instead of a number; 0 for the beginning
    after: Option<i64>,
    /// Maximum number of items in the response
    size: Option<i64>,
}

/// A page.
#[derive(Serialize, Apiv2Schema)]
pub struct PageResponse {
    /// Id of the page, never reused
    id: i64,
    /// Title
    title: String,
    /// Text
    body: String,
    /// Id of the user who created the page; only this user can change it
    owner: i64,
    /// Time of creation
    created_at: Timestamp,
    /// Time of the last change
    updated_at: Timestamp,
    /// Id of the user who made the last change
    updated_by: i64,
    /// Version: 1 at creation, incremented by each change; also the `ETag`
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

/// A page in a list.
#[derive(Serialize, Apiv2Schema)]
pub struct PageListItemResponse {
    /// Id of the page, never reused
    id: i64,
    /// Title
    title: String,
    /// Text; null if it does not fit into the 256 KiB of a numbered part: get the page by its id
    body: Option<String>,
    /// Id of the user who created the page; only this user can change it
    owner: i64,
    /// Time of creation
    created_at: Timestamp,
    /// Time of the last change
    updated_at: Timestamp,
    /// Id of the user who made the last change
    updated_by: i64,
    /// Version: 1 at creation, incremented by each change
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

/// A part of the list of pages.
#[derive(Serialize, Apiv2Schema)]
pub struct PageListResponse {
    /// Number of the part; null with `after`
    page: Option<i64>,
    /// Maximum number of items in the response
    size: i64,
    /// Number of all pages, counted up to 10,000
    total: i64,
    /// Whether `total` is exact
    total_is_exact: bool,
    /// Pages, by id
    items: Vec<PageListItemResponse>,
    /// Pass it as `after` to get the following part; null at the end
    next: Option<i64>,
}

impl PageListResponse {
    fn new(range: ListRange, list: PageList) -> Self {
        let PageList { total, items, next } = list;
        let mut items: Vec<_> = items.into_iter().map(PageListItemResponse::from).collect();
        let mut next = next.map(|id| id.0);
        let page = match range.start {
            ListStart::After(_) => {
                next = list::truncate(&mut items, next, |item| item.id);
                None
            }
            ListStart::Number(number) => {
                omit_excess_bodies(&mut items);
                Some(number)
            }
        };
        Self { page, size: range.size, total: total.count, total_is_exact: total.is_exact, items, next }
    }
}

/// Omits the texts that do not fit into the [`ANSWER_BYTES`] of a response.
fn omit_excess_bodies(items: &mut [PageListItemResponse]) {
    let bodies: Vec<_> = items.iter_mut().map(|item| item.body.take()).collect();
    let mut remaining = ANSWER_BYTES.saturating_sub(items.iter().map(list::json_length).sum());
    for (item, body) in items.iter_mut().zip(bodies) {
        let length = list::json_length(&body);
        if length <= remaining {
            remaining -= length;
            item.body = body;
        }
    }
}

/// The versions that `If-Match` allows (RFC 9110, section 13.1.1).
pub struct ExpectedVersion(ExpectedVersions);

impl ExpectedVersion {
    /// Restricts the versions to `version`, which the request can contain outside of the header.
    ///
    /// Errors: `version` out of range.
    fn and(self, version: Option<i64>) -> Result<ExpectedVersions, AppError> {
        let Some(version) = version else {
            return Ok(self.0);
        };
        if !(1..=VERSION_MAX).contains(&version) {
            return Err(FieldError::new("version", "range", format!("Use 1 to {VERSION_MAX}.")).into());
        }
        let expected = self.0.unwrap_or_else(|| vec![version]);
        Ok(Some(expected.into_iter().filter(|allowed| *allowed == version).collect()))
    }
}

impl FromRequest for ExpectedVersion {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(match EntityTags::of(request.headers(), &IF_MATCH) {
            Ok(None | Some(EntityTags::Any)) => Ok(Self(None)),
            Ok(Some(EntityTags::List(tags))) if tags.iter().all(|tag| tag.is_weak) => Err(HttpError::WeakIfMatch),
            Ok(Some(EntityTags::List(tags))) => Ok(Self(Some(tags.iter().filter_map(version).collect()))),
            Err(()) => {
                let detail = "If-Match is malformed. Send the ETag of the version that you read, in quotation marks.";
                Err(HttpError::Malformed { code: "malformed_if_match", detail: detail.into() })
            }
        })
    }
}

/// The version in a tag. `None` for a weak tag, which never matches because `If-Match` compares strongly, and for a tag
/// that Latchkey cannot have sent.
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
            description: Some("Change the page only if it has this version: the `ETag` that you read".to_owned()),
            data_type: Some(DataType::String),
            ..Parameter::default()
        }));
    }
}

/// List pages
///
/// Returns pages by id; requires the scope `pages:read`.
///
/// Continue with `next` as `after`, so that pages deleted in the meantime do not cause others to be skipped. A response
/// has at most about 256 KiB.
#[api_v2_operation(operation_id = "listPages", tags("Pages"))]
pub async fn list(
    service: web::Data<Service>,
    _permit: Permit<ReadPages>,
    query: Query<ListQuery>,
) -> Result<Reply<PageListResponse>, HttpError> {
    let range = ListRange::new(query.0.page, query.0.after, query.0.size)?;
    Ok(Reply::new(PageListResponse::new(range, service.pages(range).await?)))
}

/// Create a page
///
/// Creates a page on your account; requires the scope `pages:write`.
///
/// Get it with `GET /page/{id}`.
#[api_v2_operation(operation_id = "createPage", tags("Pages"))]
pub async fn create(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    body: Json<PageCreateRequest, { body::PAGE }>,
) -> Result<Reply<PageResponse, 201>, HttpError> {
    let page = service.create_page(permit.0, NewPage { title: body.0.title, body: body.0.body }).await?;
    let location = format!("/page/{}", page.id);
    Ok(reply(page).location(location))
}

/// Get a page
///
/// Returns one page; requires the scope `pages:read`.
///
/// Send its `ETag` as `If-Match` with your next change.
#[api_v2_operation(operation_id = "readPage", tags("Pages"))]
pub async fn read(
    service: web::Data<Service>,
    _permit: Permit<ReadPages>,
    id: PathId<PageId>,
) -> Result<Reply<PageResponse>, HttpError> {
    Ok(reply(service.page(id.0).await?))
}

/// Replace a page
///
/// Sets the title and the text of one of your pages; requires the scope `pages:write`.
///
/// `GET /page/{id}/history` shows the change.
#[api_v2_operation(operation_id = "replacePage", tags("Pages"))]
pub async fn replace(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    id: PathId<PageId>,
    expected: ExpectedVersion,
    body: Json<PageRequest, { body::PAGE }>,
) -> Result<Reply<PageResponse>, HttpError> {
    let expected = expected.and(body.0.version)?;
    let edit = PageEdit { title: Some(body.0.title), body: Some(body.0.body) };
    Ok(reply(service.edit_page(permit.0, id.0, edit, expected).await?))
}

/// Change a page
///
/// Sets the title or the text of one of your pages, or both; requires the scope `pages:write`.
///
/// `GET /page/{id}/history` shows the change.
#[api_v2_operation(operation_id = "editPage", tags("Pages"))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    id: PathId<PageId>,
    expected: ExpectedVersion,
    body: Json<PagePatch, { body::PAGE }>,
) -> Result<Reply<PageResponse>, HttpError> {
    let expected = expected.and(body.0.version)?;
    let edit = PageEdit { title: body.0.title, body: body.0.body };
    Ok(reply(service.edit_page(permit.0, id.0, edit, expected).await?))
}

/// Delete a page
///
/// Deletes one of your pages; requires the scope `pages:write`.
///
/// `GET /page/{id}/history` still shows who changed it.
#[api_v2_operation(operation_id = "deletePage", tags("Pages"))]
pub async fn delete(
    service: web::Data<Service>,
    permit: Permit<WritePages>,
    id: PathId<PageId>,
    expected: ExpectedVersion,
    query: Query<DeleteQuery>,
) -> Result<NoContent, HttpError> {
    service.delete_page(permit.0, id.0, expected.and(query.0.version)?).await?;
    Ok(NoContent)
}
