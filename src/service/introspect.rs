//! What a secret is good for, told to who may ask (RFC 7662).

use std::sync::Arc;

use super::Service;
use super::auth::Purpose;
use crate::domain::principal::Identity;
use crate::domain::secret::Digest;
use crate::error::AppError;

impl Service {
    /// Whose token or key this is, if it lives. This is not noted as its last use, but the request that made it can be
    /// repeated no more. Wrong ones do not count against the caller.
    pub async fn introspect(&self, secret: &str) -> Result<Option<Arc<Identity>>, AppError> {
        self.holder(secret, Digest::of(secret), self.clock.now(), Purpose::Read).await
    }
}
