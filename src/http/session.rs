//! The endpoints of browser sessions: sign-in, sign-out, and the list of a user's sessions.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::http::header::{HeaderName, HeaderValue, SET_COOKIE, USER_AGENT};
use actix_web::{FromRequest, HttpRequest};
use paperclip::actix::{Apiv2Schema, OperationModifier, api_v2_operation, web};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::clock::Timestamp;
use crate::domain::id::SessionId;
use crate::domain::password::Password;
use crate::domain::role::BuiltInRole;
use crate::domain::secret::Digest;
use crate::domain::session::Session;
use crate::http::account::users::{UserResponse, example_user};
use crate::http::guard::permit::{AnyCaller, ManageAccount, OpenSessionOrNone, Permit, UsesSession};
use crate::http::guard::same_origin;
use crate::http::resource::{EXAMPLE_EMAIL, EXAMPLE_PASSWORD, EXAMPLE_TIME, NO_NUL, Resource, example};
use crate::http::wire::body::Json;
use crate::http::wire::cookie;
use crate::http::wire::error::HttpError;
use crate::http::wire::path::PathId;
use crate::http::wire::reply::{NoContent, NoContentWith, Reply};
use crate::service::Service;
use crate::service::session::{BrowserSignIn, EMAIL_MAX, OpenSession, PASSWORD_MAX};

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
/// What a browser removes after a sign-out (ASVS 5.0, 14.3.1). Not `"cookies"`, which would also remove those of other
/// hosts of the same domain; the response expires the session cookie.
const CLEARED: &str = "\"cache\", \"storage\"";

/// The entries of sessions in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    let scopes: Vec<String> = BuiltInRole::Member.scopes().to_string().split(' ').map(str::to_owned).collect();
    let item = json!({
        "id": 2, "created_at": EXAMPLE_TIME, "last_used_at": EXAMPLE_TIME, "expires_at": EXAMPLE_TIME,
        "client": "192.0.2.7", "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        "current": true,
    });
    Resource {
        tag: ("Sessions", "Sign in with a browser: a cookie instead of a token"),
        bodies: vec![(
            "SessionRequest",
            json!({
                "email": { "minLength": 1, "maxLength": EMAIL_MAX, "pattern": NO_NUL },
                "password": {
                    "minLength": 1, "maxLength": PASSWORD_MAX, "pattern": NO_NUL, "format": "password",
                },
            }),
        )],
        parameters: vec![("endSessionById", "id", example(2))],
        lists: vec![("SessionListResponse", "SessionItemResponse")],
        examples: vec![
            ("SessionRequest", json!({ "email": EXAMPLE_EMAIL, "password": EXAMPLE_PASSWORD })),
            (
                "SessionResponse",
                json!({
                    "id": 2, "user": example_user(), "scopes": scopes, "created_at": EXAMPLE_TIME, "expires_at": EXAMPLE_TIME,
                    "idle_seconds": 3600,
                }),
            ),
            ("SessionListResponse", json!({ "items": [item], "total": 1 })),
        ],
        ..Resource::default()
    }
}

/// A sign-in with a browser.
#[derive(Deserialize, Apiv2Schema)]
pub struct SessionRequest {
    /// The e-mail address; surrounding blanks are ignored
    email: String,
    /// The password
    password: String,
}

/// The session of the browser, and its user.
#[derive(Serialize, Apiv2Schema)]
pub struct SessionResponse {
    /// Id of the session, never reused
    id: i64,
    /// The user, as in `GET /me`
    user: UserResponse,
    /// Scopes of the session: all scopes of the user's role
    scopes: Vec<String>,
    /// Time of the sign-in
    created_at: Timestamp,
    /// Time at which the session ends, however much it is used
    expires_at: Timestamp,
    /// Seconds without a request after which the session ends
    idle_seconds: i64,
}

impl From<OpenSession> for SessionResponse {
    fn from(session: OpenSession) -> Self {
        Self {
            id: session.id.0,
            user: session.user.into(),
            scopes: session.scopes.names().into_iter().map(str::to_owned).collect(),
            created_at: session.created_at,
            expires_at: session.expires_at,
            idle_seconds: session.idle_seconds,
        }
    }
}

/// An open session of the caller.
#[derive(Serialize, Apiv2Schema)]
pub struct SessionItemResponse {
    /// Id of the session, never reused
    id: i64,
    /// Time of the sign-in
    created_at: Timestamp,
    /// Time of the last request, accurate to a minute
    last_used_at: Timestamp,
    /// Time at which the session ends, however much it is used
    expires_at: Timestamp,
    /// Client address of the sign-in
    client: Option<String>,
    /// `User-Agent` of the sign-in, at most 255 characters
    user_agent: Option<String>,
    /// Whether this request used the session
    current: bool,
}

impl SessionItemResponse {
    fn new(session: Session, current: Option<SessionId>) -> Self {
        Self {
            id: session.id.0,
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            expires_at: session.expires_at,
            client: session.client,
            user_agent: session.user_agent,
            current: current == Some(session.id),
        }
    }
}

/// The open sessions of the caller.
#[derive(Serialize, Apiv2Schema)]
pub struct SessionListResponse {
    /// All open sessions, the last used one first
    items: Vec<SessionItemResponse>,
    /// Number of sessions
    total: usize,
}

/// What a browser sends with a sign-in. Rejects the request of another site's page, which could sign a user in to an
/// account of its own choice.
pub struct OwnPageSignIn(BrowserSignIn);

impl FromRequest for OwnPageSignIn {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    /// Completes at once: the response to another site does not depend on the body.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let read = || {
            let earlier = cookie::session_secret(request.headers())?.map(Digest::of);
            // A program sends neither the headers of browsers nor the cookie.
            if earlier.is_some() || same_origin::is_stated(request) {
                same_origin::check(request)?;
            }
            let user_agent = request.headers().get(USER_AGENT).map(HeaderValue::as_bytes);
            let user_agent = user_agent.map(|text| String::from_utf8_lossy(text).into_owned());
            Ok(Self(BrowserSignIn { earlier, user_agent }))
        };
        ready(read())
    }
}

impl paperclip::v2::schema::Apiv2Schema for OwnPageSignIn {}

impl OperationModifier for OwnPageSignIn {}

/// Sign in with a browser
///
/// Sets the cookie of a new session; requires the e-mail address and the password of a user.
///
/// Next, send requests from pages of this server; the browser sends the cookie with them.
///
/// The session holds all scopes of the user's role. It does not change the sign-in token of the user. It ends after some
/// time without a request, and in any case at `expires_at`. If the request sends the cookie of an earlier session, that
/// session ends.
#[api_v2_operation(operation_id = "createSession", tags("Sessions"))]
pub async fn create(
    service: web::Data<Service>,
    caller: AnyCaller,
    browser: OwnPageSignIn,
    body: Json<SessionRequest>,
) -> Result<Reply<SessionResponse, 201>, HttpError> {
    let SessionRequest { email, password } = body.0;
    let (session, secret) = service.create_session(caller.0, &email, Password::new(password), browser.0).await?;
    Ok(Reply::new(session.into()).location("/session".to_owned()).cookie(cookie::with_secret(secret)))
}

/// Get my session
///
/// Returns the session of the browser and its user; requires the cookie of the session.
///
/// List all of your sessions with `GET /me/sessions`.
#[api_v2_operation(operation_id = "readSession", tags("Sessions"))]
pub async fn read(
    service: web::Data<Service>,
    permit: Permit<UsesSession>,
) -> Result<Reply<SessionResponse>, HttpError> {
    Ok(Reply::new(service.session(&permit.0).await?.into()))
}

/// Sign out with a browser
///
/// Ends the session of the browser and removes its cookie; requires no credential.
///
/// Sign in again with `POST /session` when you need a session.
///
/// The response is the same if there is no session any more. `Clear-Site-Data` makes the browser remove what it has
/// stored for this server.
#[api_v2_operation(operation_id = "endSession", tags("Sign-out"))]
pub async fn sign_out(service: web::Data<Service>, session: OpenSessionOrNone) -> Result<NoContentWith, HttpError> {
    if let Some(context) = session.0 {
        service.sign_out_of_session(context).await?;
    }
    Ok(NoContentWith(vec![(SET_COOKIE, cookie::removed()), (CLEAR_SITE_DATA, CLEARED.to_owned())]))
}

/// List my sessions
///
/// Returns your open browser sessions; requires a session or a full sign-in token.
///
/// End one with `DELETE /me/sessions/{id}`.
#[api_v2_operation(operation_id = "listSessions", tags("Sessions"))]
pub async fn list(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
) -> Result<Reply<SessionListResponse>, HttpError> {
    let current = permit.0.user()?.session();
    let found = service.sessions(&permit.0).await?;
    let items: Vec<_> = found.into_iter().map(|session| SessionItemResponse::new(session, current)).collect();
    Ok(Reply::new(SessionListResponse { total: items.len(), items }))
}

/// End one of my sessions
///
/// Ends one of your browser sessions at once; requires a session or a full sign-in token.
///
/// Change your password with `PUT /me/password` if you do not know the session.
#[api_v2_operation(operation_id = "endSessionById", tags("Sessions"))]
pub async fn end(
    service: web::Data<Service>,
    permit: Permit<ManageAccount>,
    id: PathId<SessionId>,
) -> Result<NoContent, HttpError> {
    service.end_session(permit.0, id.0).await?;
    Ok(NoContent)
}
