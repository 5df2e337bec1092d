//! The endpoints for user administration.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::domain::user::User;
use crate::http::guard::permit::{Permit, ReadUsers, WriteUsers};
use crate::http::resource::{EXAMPLE_EMAIL, EXAMPLE_PASSWORD, EXAMPLE_TIME, Resource, example};
use crate::http::wire::body::{Json, Query};
use crate::http::wire::error::HttpError;
use crate::http::wire::list;
use crate::http::wire::path::PathId;
use crate::http::wire::reply::{NoContent, Reply};
use crate::service::Service;
use crate::service::account::creation::Person;
use crate::service::account::registration::Registration;
use crate::service::account::user_search::{LIMIT_DEFAULT, UserQuery};
use crate::service::account::users::Administration;

/// The entries of the administration of users in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let user = example_user();
    Resource {
        tag: ("Users", "The administration of all users, for auditors and admins"),
        parameters: vec![
            ("listUsers", "search", example("grace")),
            ("listUsers", "total", example(true)),
            ("readUser", "id", example(3)),
            ("editUser", "id", example(3)),
            ("revokeUserToken", "id", example(3)),
            // The page does not fill it in, so that one click cannot delete another user's account.
            ("deleteUser", "id", json!({ "example": 3, "x-prefill": false })),
        ],
        lists: vec![("UserListResponse", "UserResponse")],
        examples: vec![
            (
                "UserCreateRequest",
                json!({
                    "name": "Katherine", "surname": "Johnson", "email": "katherine@example.org",
                    "website": "https://katherine.example.org", "password": EXAMPLE_PASSWORD, "role": "member",
                }),
            ),
            ("UserPatch", json!({ "role": "auditor" })),
            ("UserListResponse", json!({ "items": [user], "next": null, "total": null, "total_is_exact": null })),
            ("UserResponse", user),
        ],
        ..Resource::default()
    }
}

/// The user of all examples, as responses show it.
pub(crate) fn example_user() -> Value {
    json!({
        "id": 3, "name": "Grace", "surname": "Hopper", "email": EXAMPLE_EMAIL,
        "email_verified": false, "pending_email": null, "website": "https://grace.example.org",
        "language": "en", "sign_in_notices": true, "role": "member", "role_is_defined": true, "disabled": false,
        "sign_in_stopped": false, "created_at": EXAMPLE_TIME, "updated_at": EXAMPLE_TIME,
    })
}

/// A user that an admin creates.
#[derive(Deserialize, Apiv2Schema)]
pub struct UserCreateRequest {
    /// First name
    name: String,
    /// Family name; may be empty
    surname: String,
    /// E-mail address, unique in any spelling; surrounding blanks are ignored
    email: String,
    /// One line of text
    website: Option<String>,
    /// Password, used exactly as sent
    password: String,
    /// Role; `member` if absent
    role: Option<String>,
}

/// A user account.
#[derive(Serialize, Apiv2Schema)]
pub struct UserResponse {
    /// Id of the user, never reused
    id: i64,
    /// First name
    name: String,
    /// Family name
    surname: String,
    /// E-mail address, in the user's spelling
    email: String,
    /// Whether the user proved to receive mails at this address
    email_verified: bool,
    /// Address to which the user asked to change; null if there is none
    pending_email: Option<String>,
    /// Text, usually the address of a website
    website: String,
    /// Language of mails to the user
    language: &'static str,
    /// Whether the user gets mails about sign-ins after failed ones and from new networks
    sign_in_notices: bool,
    /// Role of the user, such as `member`
    role: String,
    /// Whether the settings define the role; if not, the user holds no scopes
    role_is_defined: bool,
    /// Whether the account is disabled: the user cannot sign in
    disabled: bool,
    /// Whether sign-ins are stopped after too many failed ones, from unknown networks or from a known one
    sign_in_stopped: bool,
    /// Time of the registration
    created_at: Timestamp,
    /// Time of the last change
    updated_at: Timestamp,
}

impl From<User> for UserResponse {
    fn from(user: User) -> Self {
        Self {
            id: user.id.0,
            name: user.name,
            surname: user.surname,
            email: user.email,
            email_verified: user.email_verified,
            pending_email: user.pending_email,
            website: user.website,
            language: user.language.code(),
            sign_in_notices: user.sign_in_notices,
            role: user.role.name().to_string(),
            role_is_defined: user.role.is_defined(),
            disabled: user.disabled_at.is_some(),
            sign_in_stopped: user.sign_in_stopped,
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// The filter and the part of the list of users.
#[derive(Deserialize, Apiv2Schema)]
pub struct UserListQuery {
    /// A whole e-mail address, or part of an e-mail, name or surname, in any case; surrounding blanks are ignored
    search: Option<String>,
    /// The `next` of the previous response
    after: Option<i64>,
    /// Maximum number of items in the response
    limit: Option<i64>,
    /// Whether to count the matching users, up to 10,000
    total: Option<bool>,
}

/// A part of the list of users.
#[derive(Serialize, Apiv2Schema)]
pub struct UserListResponse {
    /// Users, by id
    items: Vec<UserResponse>,
    /// Pass it as `after` to get the following part; null at the end
    next: Option<i64>,
    /// Number of matching users, counted up to 10,000; null unless requested
    total: Option<i64>,
    /// Whether `total` is exact; null unless requested
    total_is_exact: Option<bool>,
}

/// Changes to a user by an administrator. Absent fields do not change.
#[derive(Deserialize, Apiv2Schema)]
pub struct UserPatch {
    /// New role
    role: Option<String>,
    /// Whether to disable the account
    disabled: Option<bool>,
}

/// Create a user
///
/// Creates a user; requires the scope `users:write`.
///
/// Next, give the user the password, to be changed with `PUT /me/password`.
///
/// Works also if registration is closed. A role cannot give the user scopes that neither a member nor your credential
/// holds.
#[api_v2_operation(operation_id = "createUser", tags("Users"))]
pub async fn create(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    body: Json<UserCreateRequest>,
) -> Result<Reply<UserResponse, 201>, HttpError> {
    let UserCreateRequest { name, surname, email, website, password, role } = body.0;
    let (website, password) = (website.unwrap_or_default(), Password::new(password));
    let registration = Registration { person: Person { name, surname, website, password }, email };
    let user = service.create_user(permit.0, registration, role.as_deref()).await?;
    let location = format!("/users/{}", user.id);
    Ok(Reply::new(UserResponse::from(user)).location(location))
}

/// List users
///
/// Returns users by id, or those that match a search; requires the scope `users:read`.
///
/// Continue with `next` as `after`.
#[api_v2_operation(operation_id = "listUsers", tags("Users"))]
pub async fn list(
    service: web::Data<Service>,
    _permit: Permit<ReadUsers>,
    query: Query<UserListQuery>,
) -> Result<Reply<UserListResponse>, HttpError> {
    let UserListQuery { search, after, limit, total } = query.0;
    let query = UserQuery {
        search: search.unwrap_or_default().trim_ascii().to_owned(),
        after: after.unwrap_or(0),
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        with_total: total.unwrap_or(false),
    };
    let list = service.users(query).await?;
    let mut items: Vec<_> = list.items.into_iter().map(UserResponse::from).collect();
    let next = list::truncate(&mut items, list.next.map(|id| id.0), |item| item.id);
    let (total, total_is_exact) = (list.total.map(|total| total.count), list.total.map(|total| total.is_exact));
    Ok(Reply::new(UserListResponse { items, next, total, total_is_exact }))
}

/// Get a user
///
/// Returns one user; requires the scope `users:read`.
///
/// Change the role with `PATCH /users/{id}`.
#[api_v2_operation(operation_id = "readUser", tags("Users"))]
pub async fn read(
    service: web::Data<Service>,
    _permit: Permit<ReadUsers>,
    id: PathId<UserId>,
) -> Result<Reply<UserResponse>, HttpError> {
    Ok(Reply::new(service.user(id.0).await?.into()))
}

/// Change the role or state of a user
///
/// Sets the role of a user, or disables or enables them; requires the scope `users:write`.
///
/// The audit trail, `GET /audit`, shows the change.
///
/// Your own account requires a session or a full sign-in token. Disabling revokes the user's token, sessions and keys
/// at once, and enabling does not restore these. A new role ends the sessions. Enabling also clears failed sign-ins,
/// even of a user who was not disabled, and so ends `sign_in_stopped`. One enabled admin must remain.
#[api_v2_operation(operation_id = "editUser", tags("Users"))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    id: PathId<UserId>,
    body: Json<UserPatch>,
) -> Result<Reply<UserResponse>, HttpError> {
    let UserPatch { role, disabled } = body.0;
    let user = service.administer_user(permit.0, id.0, Administration { role, disabled }).await?;
    Ok(Reply::new(user.into()))
}

/// Delete a user
///
/// Deletes a user with their token, sessions, keys and pages; requires the scope `users:write`.
///
/// The audit trail, `GET /audit`, keeps the id of the user. Your own account requires a session or a full sign-in
/// token. One enabled admin must remain.
#[api_v2_operation(operation_id = "deleteUser", tags("Users"))]
pub async fn delete(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    id: PathId<UserId>,
) -> Result<NoContent, HttpError> {
    service.delete_user(permit.0, id.0).await?;
    Ok(NoContent)
}

/// Revoke a user's sign-in token
///
/// Revokes the sign-in token of a user, if there is one, and ends their sessions; requires the scope `users:write`.
///
/// To prevent the next sign-in, disable the user with `PATCH /users/{id}`.
#[api_v2_operation(operation_id = "revokeUserToken", tags("Users"))]
pub async fn revoke_token(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    id: PathId<UserId>,
) -> Result<NoContent, HttpError> {
    service.revoke_token(permit.0, id.0).await?;
    Ok(NoContent)
}
