//! The endpoints of invitations.

use paperclip::actix::{Apiv2Schema, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Timestamp;
use crate::domain::email;
use crate::domain::id::InvitationId;
use crate::http::guard::permit::{Permit, ReadUsers, RequiresMail, WriteUsers};
use crate::http::resource::{EXAMPLE_PASSWORD, EXAMPLE_TIME, NO_NUL, Resource, example, example_secret};
use crate::http::wire::body::{self, Json, Query};
use crate::http::wire::error::HttpError;
use crate::http::wire::list;
use crate::http::wire::path::PathId;
use crate::http::wire::reply::{NoContent, Reply};
use crate::service::Service;
use crate::service::account::invitations::{Invitation, InvitationDelivery, LIMIT_DEFAULT, LIMIT_MAX};

/// The entries of invitations in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let invitation = json!({
        "id": 1, "email": "dorothy@example.org", "role": "member", "invited_by": 1, "created_at": EXAMPLE_TIME,
        "expires_at": "2026-11-28T20:00:00.000000Z",
    });
    let limit = json!({ "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT, "example": LIMIT_DEFAULT });
    Resource {
        tag: ("Invitations", "Invite people to create an account"),
        bodies: vec![
            ("InvitationRequest", json!({ "email": { "maxLength": email::MAX_LENGTH, "format": "email" } })),
            (
                "AccountFromLinkRequest",
                json!({ "secret": { "maxLength": body::SMALL, "pattern": NO_NUL, "format": "password" } }),
            ),
        ],
        parameters: vec![
            ("listInvitations", "limit", limit),
            ("resendInvitation", "id", example(1)),
            ("revokeInvitation", "id", example(1)),
        ],
        lists: vec![("InvitationListResponse", "InvitationResponse")],
        examples: vec![
            ("InvitationRequest", json!({ "email": "dorothy@example.org", "role": "member" })),
            (
                "AccountFromLinkRequest",
                json!({
                    "secret": example_secret("lkm"), "name": "Dorothy", "surname": "Vaughan", "website": "",
                    "password": EXAMPLE_PASSWORD,
                }),
            ),
            ("InvitationListResponse", json!({ "items": [invitation], "next": null })),
            ("InvitationResponse", invitation),
        ],
        ..Resource::default()
    }
}

/// An address to invite.
#[derive(Deserialize, Apiv2Schema)]
pub struct InvitationRequest {
    /// E-mail address; surrounding blanks are ignored
    email: String,
    /// Role of the new user; `member` if absent
    role: Option<String>,
    /// Language of the mail; that of the settings (`mail.language`) if absent
    language: Option<String>,
}

/// An invitation that was not accepted.
#[derive(Serialize, Apiv2Schema)]
pub struct InvitationResponse {
    /// Id of the invitation, never reused
    id: i64,
    /// Invited e-mail address
    email: String,
    /// Role that the user will have
    role: String,
    /// Id of the user who sent it last; null for the command line
    invited_by: Option<i64>,
    /// Time of the invitation
    created_at: Timestamp,
    /// Time at which the invitation ends; it can be sent again after that
    expires_at: Timestamp,
}

impl From<Invitation> for InvitationResponse {
    fn from(invitation: Invitation) -> Self {
        let Invitation { id, email, role, invited_by, created_at, expires_at } = invitation;
        Self { id: id.0, email, role, invited_by: invited_by.map(|user| user.0), created_at, expires_at }
    }
}

/// The part of the list of invitations.
#[derive(Deserialize, Apiv2Schema)]
pub struct InvitationListQuery {
    /// The `next` of the previous response
    after: Option<i64>,
    /// Maximum number of items in the response
    limit: Option<i64>,
}

/// A part of the list of invitations.
#[derive(Serialize, Apiv2Schema)]
pub struct InvitationListResponse {
    /// Invitations, by id
    items: Vec<InvitationResponse>,
    /// Pass it as `after` to get the following part; null at the end
    next: Option<i64>,
}

/// Invite a person
///
/// Sends a link with which its receiver creates an account; requires the scope `users:write`.
///
/// Send it again with `POST /users/invitations/{id}/resend`, or revoke it with `DELETE /users/invitations/{id}`.
///
/// An address that has an account or an invitation returns 409. You can assign a role only if your credential holds its
/// scopes. An address gets at most 5 invitations in an hour and 20 in a day; beyond that, the response is 429. Without an
/// SMTP server (`mail.url`), the response is 404 `not_configured`; `latchkey user invite` prints links.
#[api_v2_operation(operation_id = "createInvitation", tags("Invitations"))]
pub async fn create(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    _mail: RequiresMail,
    body: Json<InvitationRequest>,
) -> Result<Reply<InvitationResponse, 201>, HttpError> {
    let InvitationRequest { email, role, language } = body.0;
    let (role, language) = (role.as_deref(), language.as_deref());
    let (invitation, _) = service.invite(permit.0, &email, role, language, InvitationDelivery::Mail).await?;
    let path = format!("/users/invitations/{}", invitation.id);
    Ok(Reply::new(InvitationResponse::from(invitation)).location(path))
}

/// List invitations
///
/// Returns the invitations that were not accepted; requires the scope `users:read`.
///
/// Get the following part with `after`.
///
/// Invitations that cannot be accepted are left out: their inviter was deleted or disabled, or has lost the right to
/// assign the role. A part can therefore have fewer items than `limit`.
#[api_v2_operation(operation_id = "listInvitations", tags("Invitations"))]
pub async fn list(
    service: web::Data<Service>,
    _permit: Permit<ReadUsers>,
    query: Query<InvitationListQuery>,
) -> Result<Reply<InvitationListResponse>, HttpError> {
    let InvitationListQuery { after, limit } = query.0;
    let (found, next) = service.invitations(after.unwrap_or(0), limit.unwrap_or(LIMIT_DEFAULT)).await?;
    let mut items: Vec<_> = found.into_iter().map(InvitationResponse::from).collect();
    let next = list::truncate(&mut items, next.map(|id| id.0), |item| item.id);
    Ok(Reply::new(InvitationListResponse { items, next }))
}

/// Send an invitation again
///
/// Sends another link and extends the invitation; requires the scope `users:write`.
///
/// Earlier links stay valid until one of them is used. You become the inviter, and must be able to assign the role.
///
/// An address gets at most 5 such mails in an hour and 20 in a day. Beyond that, the response is 429.
#[api_v2_operation(operation_id = "resendInvitation", tags("Invitations"))]
pub async fn resend(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    _mail: RequiresMail,
    id: PathId<InvitationId>,
) -> Result<Reply<InvitationResponse>, HttpError> {
    let (invitation, _) = service.resend_invitation(permit.0, id.0, InvitationDelivery::Mail).await?;
    Ok(Reply::new(invitation.into()))
}

/// Revoke an invitation
///
/// Ends an invitation with its links; requires the scope `users:write`.
///
/// Invite the address again with `POST /users/invitations`.
#[api_v2_operation(operation_id = "revokeInvitation", tags("Invitations"))]
pub async fn revoke(
    service: web::Data<Service>,
    permit: Permit<WriteUsers>,
    id: PathId<InvitationId>,
) -> Result<NoContent, HttpError> {
    service.revoke_invitation(permit.0, id.0).await?;
    Ok(NoContent)
}
