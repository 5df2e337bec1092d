//! Users: registration, and administration.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};

use super::body::{Json, Query};
use super::path::PathId;
use super::principal::{Anybody, Permit, ReadUsers, WriteUsers};
use super::problem::Fault;
use super::reply::{NoContent, Reply};
use super::{fields, list};
use crate::clock::Timestamp;
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::domain::role::Role;
use crate::domain::user::User;
use crate::service::Service;
use crate::service::user::{Administration, LIMIT_DEFAULT, Registration, UserQuery};

/// What it takes to register.
#[derive(Deserialize, Apiv2Schema)]
pub struct RegisterRequest {
    /// First name
    name: String,
    /// Family name; may be empty
    surname: String,
    /// E-mail address; unique in any spelling. Blanks around it do not count
    email: String,
    /// One line of text
    website: Option<String>,
    /// Password, taken exactly as it is
    password: String,
}

impl From<RegisterRequest> for Registration {
    fn from(request: RegisterRequest) -> Self {
        Self {
            name: request.name,
            surname: request.surname,
            email: request.email,
            website: request.website.unwrap_or_default(),
            password: Password::new(request.password),
        }
    }
}

/// A user, as they and those who administer them may see them.
#[derive(Serialize, Apiv2Schema)]
pub struct UserResponse {
    /// Never reused
    id: i64,
    /// First name
    name: String,
    /// Family name
    surname: String,
    /// As the user wrote it
    email: String,
    /// Any text
    website: String,
    /// What the user may do
    role: &'static str,
    /// Whether the user may not sign in
    disabled: bool,
    /// When the user registered
    created_at: Timestamp,
    /// When the user last changed
    updated_at: Timestamp,
}

impl From<User> for UserResponse {
    fn from(user: User) -> Self {
        Self {
            id: user.id.0,
            name: user.name,
            surname: user.surname,
            email: user.email,
            website: user.website,
            role: user.role.name(),
            disabled: user.disabled_at.is_some(),
            created_at: user.created_at,
            updated_at: user.updated_at,
        }
    }
}

/// Which users.
#[derive(Deserialize, Apiv2Schema)]
pub struct UserListQuery {
    /// A whole e-mail address, or part of an e-mail, a name or a surname, in any case; blanks around it do not count
    search: Option<String>,
    /// What `next` said
    after: Option<i64>,
    /// Items in the answer
    limit: Option<i64>,
    /// Whether to count them, up to 10,000
    total: Option<bool>,
}

/// Some users.
#[derive(Serialize, Apiv2Schema)]
pub struct UserListResponse {
    /// By id
    items: Vec<UserResponse>,
    /// Send it as `after` for what follows; null at the end
    next: Option<i64>,
    /// How many there are in all, counted up to 10,000, if that was asked
    total: Option<i64>,
    /// Whether `total` is all there are, if that was asked
    total_is_exact: Option<bool>,
}

/// What an administrator sets; what is absent stays as it is.
#[derive(Deserialize, Apiv2Schema)]
pub struct UserPatch {
    /// What the user may do
    role: Option<String>,
    /// Whether the user may not sign in
    disabled: Option<bool>,
}

/// Register
///
/// Stores a new user. An e-mail that is already known in any spelling (case, Unicode form, IDNA domain) is a conflict.
#[api_v2_operation(operation_id = "register", tags(user))]
pub async fn register(
    service: web::Data<Service>,
    anybody: Anybody,
    body: Json<RegisterRequest>,
) -> Result<Reply<UserResponse, 201>, Fault> {
    let user = service.register(anybody.0, body.0.into(), Role::Member).await?;
    Ok(Reply::new(UserResponse::from(user)).location("/me".to_owned()))
}

/// List users
#[api_v2_operation(operation_id = "listUsers", tags(user))]
pub async fn list(
    service: web::Data<Service>,
    _permit: Permit<ReadUsers>,
    query: Query<UserListQuery>,
) -> Result<Reply<UserListResponse>, Fault> {
    let UserListQuery { search, after, limit, total } = query.0;
    let query = UserQuery {
        search: search.unwrap_or_default().trim_ascii().to_owned(),
        after: after.unwrap_or(0),
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        with_total: total.unwrap_or(false),
    };
    let list = service.users(query).await?;
    let mut items: Vec<_> = list.items.into_iter().map(UserResponse::from).collect();
    let next = list::end_early(&mut items, list.next.map(|id| id.0), |item| item.id);
    let (total, total_is_exact) = (list.total.map(|total| total.count), list.total.map(|total| total.is_exact));
    Ok(Reply::new(UserListResponse { items, next, total, total_is_exact }))
}

/// See a user
#[api_v2_operation(operation_id = "readUser", tags(user))]
pub async fn read(
    service: web::Data<Service>,
    _permit: Permit<ReadUsers>,
    id: PathId<UserId>,
) -> Result<Reply<UserResponse>, Fault> {
    Ok(Reply::new(service.user(id.0).await?.into()))
}

/// Change role or state of a user
///
/// To disable a user ends their token and all their keys at once, and to enable them again does not revive these. To
/// enable also forgets failed sign-ins, of a user who was not disabled, too.
/// Somebody must stay an admin.
#[api_v2_operation(operation_id = "editUser", tags(user))]
pub async fn edit(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    id: PathId<UserId>,
    body: Json<UserPatch>,
) -> Result<Reply<UserResponse>, Fault> {
    let UserPatch { role, disabled } = body.0;
    let role = role.map(|name| fields::one_of("role", &name, Role::ALL, Role::name)).transpose()?;
    let user = service.administer_user(permit.0, id.0, Administration { role, disabled }).await?;
    Ok(Reply::new(user.into()))
}

/// Delete a user
///
/// With all that belongs to them. Their id stays in the audit trail. Somebody must stay an admin.
#[api_v2_operation(operation_id = "deleteUser", tags(user))]
pub async fn delete(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    id: PathId<UserId>,
) -> Result<NoContent, Fault> {
    service.delete_user(permit.0, id.0).await?;
    Ok(NoContent)
}

/// End the sign-in token of a user
#[api_v2_operation(operation_id = "revokeUserToken", tags(user))]
pub async fn revoke_token(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    id: PathId<UserId>,
) -> Result<NoContent, Fault> {
    service.revoke_token(permit.0, id.0).await?;
    Ok(NoContent)
}
