//! Token introspection (RFC 7662): the account and scopes of a token or key.

use std::sync::Arc;

use crate::domain::principal::Identity;
use crate::domain::secret::{Digest, SecretKind};
use crate::error::AppError;
use crate::service::Service;
use crate::service::identity::authenticate::Purpose;

impl Service {
    /// Returns the identity of a token or key, or `None` if it is unknown or no longer active, or the secret of a
    /// session, which is for browsers only. The call does not update
    /// the last use of a key, but counts as the first use of its secret: the request that created it can no longer be
    /// repeated. Unknown secrets do not count against the limits of the caller.
    pub async fn introspect(&self, secret: &str) -> Result<Option<Arc<Identity>>, AppError> {
        let Some(kind) = SecretKind::of(secret).filter(|kind| *kind != SecretKind::Session) else {
            return Ok(None);
        };
        self.identities.holder(kind, Digest::of(secret), self.clock.now(), Purpose::Read).await
    }
}
