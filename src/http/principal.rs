//! Extractors for the caller: the argument type of a handler is its permission.
//!
//! They take what the guard left. Outside the guard there is nothing, and they refuse.

use std::collections::BTreeMap;
use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use paperclip::actix::OperationModifier;
use paperclip::v2::models::{DefaultOperationRaw, SecurityScheme};
use paperclip::v2::schema::Apiv2Schema;

use super::problem::Fault;
use crate::domain::audit::{Call, Caller, Origin};
use crate::domain::principal::Principal;
use crate::domain::scope::Scope;
use crate::error::{AppError, Denial, Reason};

/// The OpenAPI name of the `Token` header scheme.
pub const TOKEN_SCHEME: &str = "token";
/// The OpenAPI name of the password flow, whose tokens go into `Authorization: Bearer`.
pub const PASSWORD_SCHEME: &str = "password";

/// What a handler demands of its caller.
pub trait Permission: 'static {
    /// The scope that the credential must hold, if any.
    const SCOPE: Option<Scope>;
    /// Which kinds of credential will do.
    const ACCEPTS: fn(&Principal) -> Result<(), Denial>;
}

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident: $scope:expr, $accepts:expr;)*) => {
        $(
            $(#[$doc])*
            pub struct $name;

            impl Permission for $name {
                const SCOPE: Option<Scope> = $scope;
                const ACCEPTS: fn(&Principal) -> Result<(), Denial> = $accepts;
            }
        )*
    };
}

permissions! {
    /// Nothing beyond being known, if only as the holder of the constant key.
    Known: None, |_| Ok(());
    /// Being a user: by a sign-in token or by one's own key.
    BeUser: None, Principal::is_user;
    /// Being signed in.
    BeSignedIn: None, Principal::is_signed_in;
    /// Being signed in with all that one's role holds.
    ManageAccount: None, Principal::is_fully_signed_in;
    /// `pages:read`.
    ReadPages: Some(Scope::PagesRead), |_| Ok(());
    /// `pages:write`.
    WritePages: Some(Scope::PagesWrite), |_| Ok(());
    /// `keys:read`, on one's own keys.
    ReadKeys: Some(Scope::KeysRead), Principal::is_user;
    /// `keys:write`, on one's own keys.
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

/// A call of somebody who holds `P`.
pub struct Permit<P: Permission>(pub Call, PhantomData<P>);

/// A call of anybody at all: of nobody known, unless a guard that lets strangers pass has found out who it is.
pub struct Anybody(pub Call);

impl<P: Permission> FromRequest for Permit<P> {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    /// At once, so that of all the arguments of a handler this one answers first: actix asks them together, and what a
    /// caller gets who may not pass must not depend on what else they sent.
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let admit = || {
            let principal = request.extensions().get::<Principal>().cloned();
            let principal = principal.ok_or(AppError::Unauthenticated(Reason::Missing))?;
            let denied = match P::SCOPE {
                Some(scope) if !principal.has(scope) => Err(Denial::scope(scope)),
                _ => (P::ACCEPTS)(&principal),
            };
            let call = Call { caller: Caller::Principal(principal), demands: P::SCOPE, origin: origin(request) };
            match denied {
                Ok(()) => Ok(Self(call, PhantomData)),
                Err(denial) => Err(Fault::KeptOut(Box::new(KeptOut { call, denial }))),
            }
        };
        ready(admit())
    }
}

/// A known caller who may not pass. The edge records it.
#[derive(Clone, Debug)]
pub struct KeptOut {
    /// What they asked.
    pub call: Call,
    /// Why they may not.
    pub denial: Denial,
}

impl FromRequest for Anybody {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let principal = request.extensions().get::<Principal>().cloned();
        let caller = principal.map_or(Caller::Anonymous, Caller::Principal);
        ready(Ok(Self(Call { caller, demands: None, origin: origin(request) })))
    }
}

/// Where the request came from, as the edge found it.
fn origin(request: &HttpRequest) -> Origin {
    request.extensions().get::<Origin>().cloned().unwrap_or_default()
}

impl Apiv2Schema for Anybody {}

impl OperationModifier for Anybody {}

impl<P: Permission> Apiv2Schema for Permit<P> {}

/// Locks the operation: either scheme opens it.
impl<P: Permission> OperationModifier for Permit<P> {
    fn update_security(operation: &mut DefaultOperationRaw) {
        let scope = P::SCOPE.map(|scope| scope.name().to_owned());
        operation.security.push([(TOKEN_SCHEME.to_owned(), Default::default())].into());
        operation.security.push([(PASSWORD_SCHEME.to_owned(), scope.into_iter().collect())].into());
    }

    fn update_security_definitions(map: &mut BTreeMap<String, SecurityScheme>) {
        map.insert(TOKEN_SCHEME.to_owned(), token_scheme());
        map.insert(PASSWORD_SCHEME.to_owned(), password_scheme());
    }
}

fn token_scheme() -> SecurityScheme {
    SecurityScheme {
        type_: "apiKey".to_owned(),
        in_: Some("header".to_owned()),
        name: Some("Token".to_owned()),
        description: Some("A token from POST /token, or an API key, as it is.".to_owned()),
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
        description: Some("E-mail and password; the token goes into Authorization: Bearer.".to_owned()),
        ..SecurityScheme::default()
    }
}
