//! From a presented credential to a [`Principal`].

use super::Service;
use crate::db::{Conn, access_tokens};
use crate::domain::principal::{Principal, SignedIn};
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::error::{AppError, Carrier, Reason};

/// The longest credential that is looked at, in bytes (standards: G7).
const MAX_LENGTH: usize = 512;

impl Service {
    /// Who presents `credential`. What cannot be one of our tokens is refused without a query.
    ///
    /// Errors: [`AppError::Unauthenticated`] for a credential that is malformed, unknown, expired or revoked, without
    /// saying which; [`AppError::Busy`] when the database cannot tell.
    pub async fn authenticate(&self, credential: &str, carrier: Carrier) -> Result<Principal, AppError> {
        let refused = AppError::Unauthenticated(Reason::BadCredential(carrier));
        if credential.len() > MAX_LENGTH {
            return Err(refused);
        }
        if self.constant_key.is_some_and(|key| key == Digest::of(credential)) {
            return Ok(Principal::ConstantKey);
        }
        match Secret::parse(credential) {
            None => Err(refused),
            Some((SecretKind::SignIn, secret)) => self.resolve(secret.digest(), carrier).await?.ok_or(refused),
        }
    }

    async fn resolve(&self, token: Digest, carrier: Carrier) -> Result<Option<Principal>, AppError> {
        let found = self.db.read(move |conn| access_tokens::resolve(conn, token)).await?;
        Ok(found.filter(|found| self.clock.now() < found.expiration_date).map(|found| {
            Principal::User(SignedIn { user_id: found.user_id, name: found.name, token, carrier, scopes: found.scopes })
        }))
    }
}

/// Checks inside a transaction that changes something that the caller's token still lives: the guard let the request
/// in before its body arrived, and a token may be revoked meanwhile.
pub(super) fn confirm(conn: &mut Conn, caller: &SignedIn) -> Result<(), AppError> {
    if access_tokens::lock(conn, caller.token)? {
        return Ok(());
    }
    Err(AppError::Unauthenticated(Reason::BadCredential(caller.carrier)))
}
