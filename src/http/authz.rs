//! Forward-auth: proxies ask whether a request may pass, and who sends it.

use std::future::{Ready, ready};

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::header::HeaderName;
use actix_web::{FromRequest, HttpRequest, HttpResponse, Responder};
use paperclip::actix::{OperationModifier, api_v2_operation, web};
use paperclip::v2::models::{DataType, DefaultOperationRaw, Either, Parameter, ParameterIn};
use paperclip::v2::schema::Apiv2Schema;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::guard::{self, Schemes};
use super::original::original;
use super::principal::{Anybody, Known, Permit};
use super::problem::Fault;
use super::reply::Empty;
use super::url_encoded::pairs;
use crate::domain::audit::{Call, Caller};
use crate::domain::forward::scope_list;
use crate::domain::principal::Principal;
use crate::error::{AppError, FieldError, Reason};
use crate::service::Service;
use crate::service::auth::Purpose;
use crate::service::authz::Ask;

/// What may not stand in a header as it is. The escape itself is among them, so that names can be read back.
const NOT_PLAIN: &AsciiSet = &CONTROLS.add(b'%');

/// What a proxy asks: its query, and the headers about the request that it holds back.
pub struct Question(Ask);

impl FromRequest for Question {
    type Error = Fault;
    type Future = Ready<Result<Self, Fault>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let scopes = scopes(request.query_string());
        ready(scopes.map(|scopes| Self(Ask { original: original(request), scopes })))
    }
}

/// The scopes that the query demands. Whatever else stands in it may be a slip of the pen, and would demand nothing.
fn scopes(query: &str) -> Result<Vec<String>, Fault> {
    let mut scopes = Vec::new();
    for (name, value) in pairs(query.as_bytes())? {
        if name != "scope" {
            return Err(AppError::from(FieldError::new(name, "unknown", "The only parameter is scope.")).into());
        }
        let wrong = || FieldError::new(name, "scope", "Name scopes, separated by single spaces.");
        scopes.extend(scope_list(&value).ok_or_else(wrong).map_err(AppError::from)?);
    }
    Ok(scopes)
}

/// Ask whether a request may pass
///
/// For `auth_request` of nginx, `forward_auth` of Caddy, ForwardAuth of Traefik and the like, with any method. The answer
/// is 200 without a body and names the caller in `Remote-User`, `Remote-Email`, `Remote-Name`, `Remote-Scopes` and `Remote-Key`, as
/// far as they apply. Rules in the settings may demand more, or let everybody pass.
#[api_v2_operation(operation_id = "authorize", tags(oauth))]
pub async fn authorize(
    service: web::Data<Service>,
    request: HttpRequest,
    stranger: Anybody,
    question: Question,
) -> Result<Admitted, Fault> {
    let (call, ask) = (stranger.0, question.0);
    if service.is_public(&ask) {
        service.forward(&call, None, &ask).await?;
        return Ok(Admitted(None));
    }
    let found = match guard::identify(&request, Schemes::TokenOrBearer, Purpose::Read).await {
        Ok(found) => found.ok_or(AppError::Unauthenticated(Reason::Missing)),
        Err(Fault::App(error)) => Err(error),
        Err(fault) => return Err(fault),
    };
    let principal = match found {
        Ok(principal) => principal,
        Err(error) => return Err(service.turn_away(&call, &ask, error).await.into()),
    };
    let call = Call { caller: Caller::Principal(principal.clone()), ..call };
    service.forward(&call, Some(&principal), &ask).await?;
    Ok(Admitted(Some(principal)))
}

/// The request may pass; by whom, unless nobody asked.
pub struct Admitted(Option<Principal>);

impl Responder for Admitted {
    type Body = BoxBody;

    fn respond_to(self, _: &HttpRequest) -> HttpResponse<BoxBody> {
        let mut answer = HttpResponse::Ok();
        let mut tell = |name, value: &str| {
            let value = utf8_percent_encode(value, NOT_PLAIN).to_string();
            answer.insert_header((HeaderName::from_static(name), value));
        };
        if let Some(principal) = &self.0 {
            tell("remote-name", principal.display_name());
        }
        if let Some(Principal::User(identity, _)) = &self.0 {
            // Whoever bought a key is not the user who sold it.
            if let Some(email) = &identity.email {
                tell("remote-user", &identity.user_id.to_string());
                tell("remote-email", email);
            }
            if let Some(key) = identity.key() {
                tell("remote-key", &key.to_string());
            }
            tell("remote-scopes", &identity.scope_names());
        }
        answer.finish()
    }
}

impl Apiv2Schema for Admitted {}

impl OperationModifier for Admitted {
    fn update_response(operation: &mut DefaultOperationRaw) {
        Empty::update_response(operation);
    }
}

impl Apiv2Schema for Question {}

/// Locked, although rules may open it: without them it takes a credential.
impl OperationModifier for Question {
    fn update_parameter(operation: &mut DefaultOperationRaw) {
        operation.parameters.push(Either::Right(Parameter {
            name: "scope".to_owned(),
            in_: ParameterIn::Query,
            description: Some("Scopes that the request takes, separated by spaces; may stand several times".to_owned()),
            data_type: Some(DataType::String),
            ..Parameter::default()
        }));
    }

    fn update_security(operation: &mut DefaultOperationRaw) {
        Permit::<Known>::update_security(operation);
    }
}
