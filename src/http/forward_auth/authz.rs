//! The forward-auth endpoint: returns to a reverse proxy whether a request is allowed, and the identity of its caller.

use std::future::{Ready, ready};

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::header::HeaderName;
use actix_web::{FromRequest, HttpRequest, HttpResponse, Responder};
use paperclip::actix::{OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DataType, DefaultOperationRaw, Either, Parameter, ParameterIn};
use paperclip::v2::schema::Apiv2Schema;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::domain::audit::{Caller, RequestContext};
use crate::domain::forward::scope_list;
use crate::domain::principal::Principal;
use crate::error::{AppError, FieldError, Reason};
use crate::http::forward_auth::original::original;
use crate::http::guard::permit::{AnyCaller, Authenticated, Permit};
use crate::http::guard::{self, CredentialSchemes};
use crate::http::resource::{Resource, example};
use crate::http::wire::error::HttpError;
use crate::http::wire::reply::Empty;
use crate::http::wire::url_encoded::pairs;
use crate::service::Service;
use crate::service::forward_auth::policy::ForwardRequest;
use crate::service::identity::authenticate::Purpose;

/// Characters that are percent-encoded in response headers. `%` is one of them, so that values can be decoded.
const HEADER_ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// The entries of forward auth in the OpenAPI document.
pub(crate) fn resource() -> Resource {
    Resource {
        tag: ("Forward auth", "For services and reverse proxies: whether a request may pass"),
        parameters: vec![("authorize", "scope", example("pages:read"))],
        ..Resource::default()
    }
}

/// The input of the endpoint: the scopes in the query, and the original request from the proxy's headers.
pub struct ForwardQuery(ForwardRequest);

impl FromRequest for ForwardQuery {
    type Error = HttpError;
    type Future = Ready<Result<Self, HttpError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let scopes = scopes(request.query_string());
        ready(scopes.map(|scopes| Self(ForwardRequest { original: original(request), scopes })))
    }
}

/// The scopes that the query requires.
///
/// Errors: another parameter, which could be a misspelled `scope` and would require nothing; a malformed list.
fn scopes(query: &str) -> Result<Vec<String>, HttpError> {
    let mut scopes = Vec::new();
    for (name, value) in pairs(query.as_bytes())? {
        if name != "scope" {
            return Err(AppError::from(FieldError::new(name, "unknown", "Unknown parameter. Send only scope.")).into());
        }
        let invalid = || FieldError::new(name, "scope", "Send scopes, separated by single spaces.");
        scopes.extend(scope_list(&value).ok_or_else(invalid).map_err(AppError::from)?);
    }
    Ok(scopes)
}

/// Authorize a forwarded request
///
/// Returns 200 without a body if the request has a valid credential; let the request pass only then.
///
/// It is for services, and for `auth_request` of nginx, `forward_auth` of Caddy, ForwardAuth of Traefik and similar. It
/// accepts any method. Rules in the settings can require more, or allow anonymous requests. The response identifies the
/// caller in `Remote-User`, `Remote-Email`, `Remote-Email-Verified`, `Remote-Name`, `Remote-Scopes` and `Remote-Key`, as
/// far as they apply.
#[api_v2_operation(operation_id = "authorize", tags("Forward auth"))]
pub async fn authorize(
    service: web::Data<Service>,
    request: HttpRequest,
    caller: AnyCaller,
    query: ForwardQuery,
) -> Result<Authorized, HttpError> {
    let decision = decide(&service, &request, caller.0, query.0).await;
    // A request that rules make public shows no credential.
    if !matches!(decision, Ok(Authorized(None))) {
        guard::count_decision(&service, decision.as_ref().err());
    }
    decision
}

async fn decide(
    service: &Service,
    request: &HttpRequest,
    context: RequestContext,
    forwarded: ForwardRequest,
) -> Result<Authorized, HttpError> {
    if service.is_public(&forwarded) {
        service.forward(&context, None, &forwarded).await?;
        return Ok(Authorized(None));
    }
    let identified = match guard::identify(request, CredentialSchemes::TokenOrBearer, Purpose::Read).await {
        Ok(principal) => principal.ok_or(AppError::Unauthenticated(Reason::Missing)),
        Err(HttpError::App(error)) => Err(error),
        Err(error) => return Err(error),
    };
    let principal = match identified {
        Ok(principal) => principal,
        Err(error) => return Err(service.record_unauthenticated(&context, &forwarded, error).await.into()),
    };
    let context = RequestContext { caller: Caller::Principal(principal.clone()), ..context };
    service.forward(&context, Some(&principal), &forwarded).await?;
    Ok(Authorized(Some(principal)))
}

/// An allowed request, with its caller; `None` for a request that rules make public.
pub struct Authorized(Option<Principal>);

impl Responder for Authorized {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<BoxBody> {
        let mut response = HttpResponse::Ok();
        let mut set_header = |name, value: &str| {
            let value = utf8_percent_encode(value, HEADER_ESCAPED).to_string();
            response.insert_header((HeaderName::from_static(name), value));
        };
        if let Some(principal) = &self.0 {
            set_header("remote-name", principal.display_name());
        }
        if let Some(Principal::User(identity, _)) = &self.0 {
            // An issued key does not stand for its owner as a user.
            if let Some(email) = &identity.email {
                set_header("remote-user", &identity.user_id.to_string());
                set_header("remote-email", email);
                set_header("remote-email-verified", if identity.email_verified { "true" } else { "false" });
            }
            if let Some(key) = identity.key() {
                set_header("remote-key", &key.to_string());
            }
            set_header("remote-scopes", &identity.scope_names());
        }
        response.finish()
    }
}

impl Apiv2Schema for Authorized {}

impl OperationModifier for Authorized {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Empty::update_response(operation);
    }
}

impl Apiv2Schema for ForwardQuery {}

/// Marks the operation as guarded: it requires a credential, unless rules allow anonymous requests.
impl OperationModifier for ForwardQuery {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        operation.parameters.push(Either::Right(Parameter {
            name: "scope".to_owned(),
            in_: ParameterIn::Query,
            description: Some("Scopes that the request requires, separated by spaces; can be repeated".to_owned()),
            data_type: Some(DataType::String),
            ..Parameter::default()
        }));
    }

    fn update_security(operation: &mut DefaultOperationRaw) {
        Permit::<Authenticated>::update_security(operation);
    }
}
