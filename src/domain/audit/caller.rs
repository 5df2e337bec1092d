//! Who makes a request, and where it came from.

use std::net::IpAddr;
use std::sync::Arc;

use crate::domain::principal::{Identity, Principal};
use crate::domain::scope::Scope;
use crate::error::{AppError, Denial, Reason};

/// The caller of a use case, the scope that the use case requires, and where the request came from.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The caller.
    pub caller: Caller,
    /// The scope that the operation requires. It is checked again within the transaction of a change.
    pub required_scope: Option<Scope>,
    /// The client address and the request id.
    pub client_info: ClientInfo,
}

/// The caller of a use case.
#[derive(Clone, Debug)]
pub enum Caller {
    /// A caller without a credential, for example one who registers or signs in.
    Anonymous,
    /// An operator who runs the program.
    CommandLine,
    /// A caller whom the guard authenticated.
    Principal(Principal),
}

/// Origin and id of a request.
#[derive(Clone, Debug, Default)]
pub struct ClientInfo {
    /// The client address, as trusted proxies report it. `None` on the command line.
    pub client: Option<IpAddr>,
    /// The id of the request in its response (`X-Request-Id`) and in the log. `None` on the command line.
    pub request_id: Option<Arc<str>>,
}

impl RequestContext {
    /// The context of an anonymous request.
    pub fn anonymous(client_info: ClientInfo) -> Self {
        Self { caller: Caller::Anonymous, required_scope: None, client_info }
    }

    /// The context of a command.
    pub fn command_line() -> Self {
        Self { caller: Caller::CommandLine, required_scope: None, client_info: ClientInfo::default() }
    }

    /// The identity of the caller: a user or an API key.
    ///
    /// Errors: [`AppError::Forbidden`] with [`Denial::NeedsUser`] if there is none.
    pub fn user(&self) -> Result<&Identity, AppError> {
        self.identity().ok_or(AppError::Forbidden(Denial::NeedsUser))
    }

    /// The error for a caller whose credential was revoked or expired while the request was in progress.
    pub fn credential_ended(&self) -> AppError {
        match &self.caller {
            Caller::Principal(Principal::User(_, header)) => AppError::Unauthenticated(Reason::BadCredential(*header)),
            _ => AppError::Unauthenticated(Reason::Missing),
        }
    }

    /// The identity of the caller: a user or an API key. `None` for all other callers.
    pub fn identity(&self) -> Option<&Identity> {
        match &self.caller {
            Caller::Principal(Principal::User(identity, _)) => Some(identity),
            _ => None,
        }
    }
}
