//! Extractors for the caller: the argument type of a handler states the required permission.
//!
//! They read the `Principal` that the guard stored in the request. On a route outside the guard there is none, and
//! [`Permit`] rejects every request.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DefaultOperationRaw, SecurityScheme};
use paperclip::v2::schema::Apiv2Schema;

use crate::domain::audit::{Caller, ClientInfo, RequestContext};
use crate::domain::principal::Principal;
use crate::domain::scope::Scope;
use crate::error::{AppError, Denial, Reason};
use crate::http::wire::cookie::SESSION_COOKIE;
use crate::http::wire::error::{AccessDenied, HttpError};
use crate::service::Service;

/// The OpenAPI name of the `Token` header scheme.
pub const TOKEN_SCHEME: &str = "token";
/// The OpenAPI name of the password flow, whose tokens go into `Authorization: Bearer`.
pub const PASSWORD_SCHEME: &str = "password";

/// The OpenAPI name of the cookie of a browser session.
pub const SESSION_SCHEME: &str = "session";

/// What to enter in the dialog of the page.
const PASSWORD_DESCRIPTION: &str = "Enter your e-mail address and your password. Leave all scopes unselected: the token then \
    holds all scopes of your role. A scope that your role does not hold fails with `invalid_scope`, so *select all* works \
    only if your role holds every listed scope. A token with selected scopes cannot manage your account.";

/// A permission that a handler requires of its caller.
pub trait Permission: 'static {
    /// The required scope of the credential, if any.
    const SCOPE: Option<Scope>;
    /// Checks the kind of credential. Errors: why it is not accepted.
    const ACCEPTS: fn(&Principal) -> Result<(), Denial>;
}

/// Defines permissions. A resource defines its own.
macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident: $scope:expr, $accepts:expr;)*) => {
        $(
            $(#[$doc])*
            pub struct $name;

            impl $crate::http::guard::permit::Permission for $name {
                const SCOPE: Option<$crate::domain::scope::Scope> = $scope;
                const ACCEPTS: fn(&$crate::domain::principal::Principal) -> Result<(), $crate::error::Denial> = $accepts;
            }
        )*
    };
}
pub(crate) use permissions;

permissions! {
    /// Any valid credential, including the static key.
    Authenticated: None, |_| Ok(());
    /// A user: a sign-in token, a session, or a key of the user's own.
    IsUser: None, Principal::is_user;
    /// A sign-in token or a session.
    IsSignedIn: None, Principal::is_signed_in;
    /// A session, or a sign-in token with all scopes of the user's role.
    ManageAccount: None, Principal::is_fully_signed_in;
    /// A session.
    UsesSession: None, Principal::is_in_session;
    /// `keys:read`, for the caller's own keys.
    ReadKeys: Some(Scope::KeysRead), Principal::is_user;
    /// `keys:write`, for the caller's own keys.
    WriteKeys: Some(Scope::KeysWrite), Principal::is_user;
    /// `keys:issue`.
    IssueKeys: Some(Scope::KeysIssue), |_| Ok(());
    /// `users:read`.
    ReadUsers: Some(Scope::UsersRead), |_| Ok(());
    /// `users:write`.
    WriteUsers: Some(Scope::UsersWrite), |_| Ok(());
    /// `audit:read`.
    ReadAudit: Some(Scope::AuditRead), |_| Ok(());
    /// `tokens:introspect`.
    IntrospectTokens: Some(Scope::TokensIntrospect), |_| Ok(());
}

/// The context of a request whose caller has the permission `P`.
pub struct Permit<P: Permission>(pub RequestContext, PhantomData<P>);

/// The context of a request from any caller. The caller is anonymous, unless [`super::client_or_anonymous`] has
/// authenticated it.
pub struct AnyCaller(pub RequestContext);

/// The context of a request with an open session; `None` for a request without one. On a route with
/// [`super::session_or_anonymous`].
pub struct OpenSessionOrNone(pub Option<RequestContext>);

/// The context of a request from any caller, if registration is open.
pub struct Registrant(pub RequestContext);

/// The context of a request for a mail from any caller, if the server sends mails.
pub struct MailRequester(pub RequestContext);

/// Whether the server sends mails. Rejects every request otherwise.
pub struct RequiresMail;

impl<P: Permission> FromRequest for Permit<P> {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    /// Completes at once, and therefore before the other extractors of a handler, which actix-web polls together: the
    /// response to a caller without permission must not depend on the rest of the request.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let check = || {
            let principal = request.extensions().get::<Principal>().cloned();
            let principal = principal.ok_or(AppError::Unauthenticated(Reason::Missing))?;
            let checked = match P::SCOPE {
                Some(scope) if !principal.has(scope) => Err(Denial::scope(scope)),
                _ => (P::ACCEPTS)(&principal),
            };
            let context = RequestContext {
                caller: Caller::Principal(principal),
                required_scope: P::SCOPE,
                client_info: client_info(request),
            };
            match checked {
                Ok(()) => Ok(Self(context, PhantomData)),
                Err(denial) => Err(HttpError::AccessDenied(Box::new(AccessDenied { context, denial }))),
            }
        };
        let checked = check();
        if let Some(service) = request.app_data::<web::Data<Service>>() {
            super::count_decision(service, checked.as_ref().err());
        }
        ready(checked)
    }
}

impl FromRequest for AnyCaller {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let principal = request.extensions().get::<Principal>().cloned();
        let caller = principal.map_or(Caller::Anonymous, Caller::Principal);
        ready(Ok(Self(RequestContext { caller, required_scope: None, client_info: client_info(request) })))
    }
}

impl FromRequest for OpenSessionOrNone {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    /// Errors: another credential, like [`Permit`].
    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if request.extensions().contains::<Principal>() {
            let permit = Permit::<UsesSession>::from_request(request, payload).into_inner();
            return ready(permit.map(|permit| Self(Some(permit.0))));
        }
        ready(Ok(Self(None)))
    }
}

impl FromRequest for Registrant {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    /// Completes at once, like [`Permit`]: the response of a closed registration does not depend on the body.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let service = request.app_data::<web::Data<Service>>();
        let service = service.ok_or_else(|| AppError::Internal("there is no service for registrations".into()));
        ready(match service.and_then(|service| service.require_open_registration()) {
            Ok(()) => Ok(Self(RequestContext::anonymous(client_info(request)))),
            Err(error) => Err(error.into()),
        })
    }
}

impl FromRequest for MailRequester {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    /// Completes at once, like [`Permit`]: without an SMTP server, the response does not depend on the body.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(require_mail(request).map(|()| Self(RequestContext::anonymous(client_info(request)))))
    }
}

impl FromRequest for RequiresMail {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(require_mail(request).map(|()| Self))
    }
}

/// Errors: [`HttpError::NotConfigured`] if the server sends no mails.
fn require_mail(request: &HttpRequest) -> Result<(), HttpError> {
    let service = request.app_data::<web::Data<Service>>();
    let sends_mail = service.is_some_and(|service| service.sends_mail());
    if sends_mail { Ok(()) } else { Err(HttpError::NotConfigured("mail.url")) }
}

/// The client of the request, which the edge has determined.
fn client_info(request: &HttpRequest) -> ClientInfo {
    request.extensions().get::<ClientInfo>().cloned().unwrap_or_default()
}

impl Apiv2Schema for AnyCaller {}

impl OperationModifier for AnyCaller {}

impl Apiv2Schema for OpenSessionOrNone {}

impl OperationModifier for OpenSessionOrNone {}

impl Apiv2Schema for Registrant {}

impl OperationModifier for Registrant {}

impl Apiv2Schema for MailRequester {}

impl OperationModifier for MailRequester {}

impl Apiv2Schema for RequiresMail {}

impl OperationModifier for RequiresMail {}

impl<P: Permission> Apiv2Schema for Permit<P> {}

/// Marks the operation as guarded: any scheme is accepted. `openapi` removes those that a route ignores.
impl<P: Permission> OperationModifier for Permit<P> {
    fn update_security(operation: &mut DefaultOperationRaw) {
        let scope = P::SCOPE.map(|scope| scope.name().to_owned());
        operation.security.push([(TOKEN_SCHEME.to_owned(), Default::default())].into());
        operation.security.push([(PASSWORD_SCHEME.to_owned(), scope.into_iter().collect())].into());
        operation.security.push([(SESSION_SCHEME.to_owned(), Default::default())].into());
    }

    fn update_security_definitions(map: &mut BTreeMap<String, SecurityScheme>) {
        map.insert(TOKEN_SCHEME.to_owned(), token_scheme());
        map.insert(PASSWORD_SCHEME.to_owned(), password_scheme());
        map.insert(SESSION_SCHEME.to_owned(), session_scheme());
    }
}

fn token_scheme() -> SecurityScheme {
    SecurityScheme {
        type_: "apiKey".to_owned(),
        in_: Some("header".to_owned()),
        name: Some("Token".to_owned()),
        description: Some(
            "Or enter a token from `POST /token`, or an API key, without a prefix such as `Bearer`.".to_owned(),
        ),
        ..SecurityScheme::default()
    }
}

/// paperclip writes an `apiKey` scheme of Swagger 2, which has no cookies; `openapi` sets the place.
fn session_scheme() -> SecurityScheme {
    SecurityScheme {
        type_: "apiKey".to_owned(),
        in_: Some("cookie".to_owned()),
        name: Some(SESSION_COOKIE.to_owned()),
        description: Some("`POST /session` sets this cookie, and the browser sends it by itself.".to_owned()),
        ..SecurityScheme::default()
    }
}

fn password_scheme() -> SecurityScheme {
    let scopes = Scope::ALL.iter().map(|scope| (scope.name().to_owned(), scope.description().to_owned()));
    SecurityScheme {
        type_: "oauth2".to_owned(),
        flow: Some("password".to_owned()),
        token_url: Some("/token".to_owned()),
        scopes: scopes.collect(),
        description: Some(PASSWORD_DESCRIPTION.to_owned()),
        ..SecurityScheme::default()
    }
}
