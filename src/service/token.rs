//! Sign-in tokens: made by a password, ended by signing out.

use super::Service;
use crate::db::access_tokens::{self, AccessToken};
use crate::db::users;
use crate::domain::email::EmailAddress;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::principal::SignedIn;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::{Secret, SecretKind};
use crate::error::{AppError, FieldError, Reason};

/// How often a sign-in starts again because the user's hash changed under it.
const ATTEMPTS: usize = 3;

/// What signing in delivers, once.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token in clear.
    pub secret: Secret,
    /// Seconds until it dies.
    pub expires_in: i64,
    /// What it may be used for.
    pub scopes: ScopeSet,
}

impl Service {
    /// Makes a new token the user's only one. `scope` narrows it; without, it may do all that its user may.
    ///
    /// Errors: [`AppError::Invalid`] for an unknown scope, [`AppError::Unauthenticated`] for an unknown e-mail as for
    /// a wrong password, after the same time.
    pub async fn sign_in(
        &self,
        username: &str,
        password: Password,
        scope: Option<&str>,
    ) -> Result<IssuedToken, AppError> {
        let scopes = match scope {
            None => ScopeSet::all(),
            Some(names) => ScopeSet::parse(names).ok_or_else(|| {
                FieldError::new("scope", "invalid_scope", "Name known scopes, each once, separated by single spaces.")
            })?,
        };
        for _ in 0..ATTEMPTS {
            if let Some(token) = self.try_sign_in(username, password.clone(), scopes).await? {
                return Ok(token);
            }
        }
        Err(AppError::Busy("the password keeps changing during sign-in".into()))
    }

    /// One attempt; `None` if the stored hash was replaced while this one was being compared.
    async fn try_sign_in(
        &self,
        username: &str,
        password: Password,
        scopes: ScopeSet,
    ) -> Result<Option<IssuedToken>, AppError> {
        let user = match EmailAddress::parse(username) {
            Some(email) => self.db.read(move |conn| users::find_by_email(conn, email.key())).await?,
            None => None,
        };
        let stored = user.as_ref().map(|user| user.hashed_password.clone());
        let matches = self.hasher.verify(stored, password.clone()).await?;
        let (true, Some(user)) = (matches, user) else {
            return Err(AppError::Unauthenticated(Reason::BadPassword));
        };
        let renewed = match self.hasher.is_outdated(&user.hashed_password) {
            true => Some(self.hasher.create(password).await?),
            false => None,
        };

        let secret = Secret::generate(SecretKind::SignIn).map_err(|error| AppError::Internal(error.into()))?;
        let (now, expires_in) = (self.clock.now(), self.settings.token_ttl);
        let token = AccessToken {
            user_id: user.id.0,
            access_token: secret.digest().to_hex(),
            scopes: scopes.to_string(),
            created_at: now.naive(),
            expiration_date: now.plus_seconds(expires_in).naive(),
        };
        let stored = self.db.write(move |conn| {
            // Hashing held no connection, so the user may have changed or gone meanwhile.
            let current: Option<PasswordHash> = users::lock_password(conn, user.id)?;
            match current {
                None => return Err(AppError::Unauthenticated(Reason::BadPassword)),
                Some(current) if current != user.hashed_password => return Ok(false),
                Some(_) => {}
            }
            if let Some(hash) = &renewed {
                users::renew_hash(conn, user.id, hash)?;
            }
            access_tokens::replace(conn, &token)?;
            Ok(true)
        });
        Ok(stored.await?.then_some(IssuedToken { secret, expires_in, scopes }))
    }

    /// Ends the token that the caller presented. The next request with it is refused.
    pub async fn sign_out(&self, caller: &SignedIn) -> Result<(), AppError> {
        let digest = caller.token;
        self.db.write(move |conn| access_tokens::delete(conn, digest)).await
    }
}
