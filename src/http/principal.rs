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
use crate::domain::principal::{Principal, SignedIn};
use crate::domain::scope::Scope;
use crate::error::{AppError, Denial, Reason};

/// The OpenAPI name of the `Token` header scheme.
pub const TOKEN_SCHEME: &str = "token";
/// The OpenAPI name of the password flow, whose tokens go into `Authorization: Bearer`.
pub const PASSWORD_SCHEME: &str = "password";

/// What a handler demands of its caller's credential.
pub trait Permission {
    /// The scope that it must hold, if any.
    const SCOPE: Option<Scope>;
}

/// Nothing beyond being known.
pub struct AnyScope;

impl Permission for AnyScope {
    const SCOPE: Option<Scope> = None;
}

/// `pages:read`.
pub struct ReadPages;

impl Permission for ReadPages {
    const SCOPE: Option<Scope> = Some(Scope::PagesRead);
}

/// `pages:write`.
pub struct WritePages;

impl Permission for WritePages {
    const SCOPE: Option<Scope> = Some(Scope::PagesWrite);
}

/// Any caller whose credential allows `P`.
pub struct Caller<P: Permission = AnyScope>(pub Principal, PhantomData<P>);

/// A user whose credential allows `P`.
pub struct User<P: Permission = AnyScope>(pub SignedIn, PhantomData<P>);

fn principal<P: Permission>(request: &HttpRequest) -> Result<Principal, AppError> {
    let principal = request.extensions().get::<Principal>().cloned();
    let principal = principal.ok_or(AppError::Unauthenticated(Reason::Missing))?;
    match P::SCOPE {
        Some(scope) if !principal.has(scope) => Err(AppError::Forbidden(Denial::Scope(scope))),
        _ => Ok(principal),
    }
}

impl<P: Permission> FromRequest for Caller<P> {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(principal::<P>(request).map(|principal| Self(principal, PhantomData)).map_err(Fault::from))
    }
}

impl<P: Permission> FromRequest for User<P> {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let user = principal::<P>(request).and_then(|principal| match principal {
            Principal::User(user) => Ok(Self(user, PhantomData)),
            Principal::ConstantKey => Err(AppError::Forbidden(Denial::NeedsUser)),
        });
        ready(user.map_err(Fault::from))
    }
}

/// Locks the operation: either scheme opens it.
macro_rules! locked {
    ($($extractor:ident),*) => {
        $(
            impl<P: Permission> Apiv2Schema for $extractor<P> {}

            impl<P: Permission> OperationModifier for $extractor<P> {
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
        )*
    };
}

locked!(Caller, User);

fn token_scheme() -> SecurityScheme {
    SecurityScheme {
        type_: "apiKey".to_owned(),
        in_: Some("header".to_owned()),
        name: Some("Token".to_owned()),
        description: Some("A token from POST /token, as it is.".to_owned()),
        ..SecurityScheme::default()
    }
}

fn password_scheme() -> SecurityScheme {
    let scopes = Scope::ALL.map(|scope| (scope.name().to_owned(), scope.description().to_owned()));
    SecurityScheme {
        type_: "oauth2".to_owned(),
        flow: Some("password".to_owned()),
        token_url: Some("/token".to_owned()),
        scopes: scopes.into(),
        description: Some("E-mail and password; the token goes into Authorization: Bearer.".to_owned()),
        ..SecurityScheme::default()
    }
}
