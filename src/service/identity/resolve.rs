//! Resolves the digest of a secret to an identity, with a query.

use crate::clock::Timestamp;
use crate::config::SessionSettings;
use crate::db::{Conn, access_tokens, api_keys, sessions};
use crate::domain::principal::{Credential, Identity, Level};
use crate::domain::roles::{Role, Roles};
use crate::domain::scope::Grant;
use crate::domain::secret::{Digest, SecretKind};
use crate::error::AppError;

/// Accepted difference between the clocks of replicas, in seconds.
const MAX_CLOCK_SKEW: i64 = 60;

/// Resolves secrets to identities, by the defined roles and the idle time of sessions.
#[derive(Clone)]
pub(crate) struct Resolver {
    roles: Roles,
    /// Seconds after its last use for which a session is valid.
    session_idle: i64,
}

impl Resolver {
    pub(crate) fn new(roles: Roles, session: SessionSettings) -> Self {
        Self { roles, session_idle: session.idle_seconds() }
    }

    /// The roles that are defined.
    pub(crate) fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The identity of the token, session or key with this digest, expired or not. `None` if it does not exist or is
    /// revoked.
    ///
    /// Resolves the role to its scopes, so that no later check depends on the roles.
    pub(crate) fn identify(
        &self,
        conn: &mut Conn,
        kind: SecretKind,
        digest: Digest,
    ) -> Result<Option<Identity>, AppError> {
        match kind {
            SecretKind::SignIn => {
                let found = access_tokens::resolve(conn, digest)?;
                Ok(found.map(|found| Identity {
                    user_id: found.user_id,
                    name: found.name,
                    email: Some(found.email),
                    email_verified: found.email_verified,
                    credential: Credential::Token(found.sign_in),
                    digest,
                    level: token_level(&self.roles.get(&found.role), found.narrowed_to.as_ref()),
                    narrowed: found.narrowed_to.is_some(),
                    replaced: false,
                    unseen: false,
                    issued_at: found.created_at,
                    expires_at: Some(found.expiration_date),
                    idle_at: None,
                }))
            }
            SecretKind::ApiKey => {
                let found = api_keys::resolve(conn, digest)?;
                Ok(found.map(|found| {
                    // The holder of an issued key must not learn who issued it.
                    let role = self.roles.get(&found.role);
                    let (credential, name, email) = match found.issued {
                        true => (Credential::IssuedKey(found.id), found.key_name, None),
                        false => (Credential::OwnKey(found.id), found.owner_name, Some(found.owner_email)),
                    };
                    let level = match found.issued {
                        true => Level::of_issued_key(&role, found.grant),
                        false => Level::limited(&role, &found.grant),
                    };
                    Identity {
                        user_id: found.owner_id,
                        name,
                        email_verified: email.is_some() && found.owner_email_verified,
                        email,
                        credential,
                        digest,
                        level,
                        narrowed: true,
                        replaced: found.replaced,
                        unseen: found.unseen,
                        issued_at: found.created_at,
                        expires_at: found.expires_at,
                        idle_at: None,
                    }
                }))
            }
            SecretKind::Session => {
                let found = sessions::resolve(conn, digest)?;
                Ok(found.map(|found| Identity {
                    user_id: found.user_id,
                    name: found.name,
                    email: Some(found.email),
                    email_verified: found.email_verified,
                    credential: Credential::Session(found.id),
                    digest,
                    level: Level::of(&self.roles.get(&found.role)),
                    narrowed: false,
                    replaced: false,
                    unseen: false,
                    issued_at: found.created_at,
                    expires_at: Some(found.expires_at),
                    idle_at: Some(found.last_used_at.plus_seconds(self.session_idle)),
                }))
            }
            // Claim codes and the secrets of links are no credentials.
            SecretKind::Claim | SecretKind::Mail => Ok(None),
        }
    }
}

/// The level of a sign-in token.
pub(crate) fn token_level(role: &Role, narrowed_to: Option<&Grant>) -> Level {
    narrowed_to.map_or_else(|| Level::of(role), |granted| Level::limited(role, granted))
}

impl Identity {
    /// Whether the credential is valid at `now`: not expired, and for a token or a session not issued more than 60
    /// seconds in the future. One that was issued by a clock ahead of this one would be valid for too long. A key has an
    /// absolute expiry date.
    pub(crate) fn is_valid_at(&self, now: Timestamp) -> bool {
        let is_issued = self.key().is_some() || self.issued_at <= now.plus_seconds(MAX_CLOCK_SKEW);
        is_issued && !self.is_idle_at(now) && self.expires_at.is_none_or(|end| now < end)
    }

    /// Whether this is a session that has not been used for too long, as far as its identity shows: another process may
    /// have stored a later use since.
    pub(crate) fn is_idle_at(&self, now: Timestamp) -> bool {
        self.idle_at.is_some_and(|end| end <= now)
    }

    /// The kind of the secret that was presented.
    pub(crate) fn kind(&self) -> SecretKind {
        match self.credential {
            Credential::Token(_) => SecretKind::SignIn,
            Credential::Session(_) => SecretKind::Session,
            Credential::OwnKey(_) | Credential::IssuedKey(_) => SecretKind::ApiKey,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::domain::id::{KeyId, SessionId};
    use crate::service::identity::cache::tests::{ADA, identity};

    #[test]
    fn a_credential_is_valid_until_it_expires_and_a_token_only_after_it_was_issued() {
        let now = Clock::default().now();
        let ada =
            Identity { issued_at: now, expires_at: Some(now.plus_seconds(60)), ..Identity::clone(&identity(ADA).1) };
        let valid = |identity: &Identity, seconds: &[i64]| -> Vec<bool> {
            seconds.iter().map(|seconds| identity.is_valid_at(now.plus_seconds(*seconds))).collect()
        };
        assert_eq!(valid(&ada, &[0, 59, 60, 61]), [true, true, false, false]);
        // The clocks of replicas may differ by 60 seconds.
        let early = [-61, -60];
        assert_eq!(valid(&ada, &early), [false, true]);
        for credential in [Credential::OwnKey(KeyId(1)), Credential::IssuedKey(KeyId(1))] {
            let key = Identity { credential, ..ada.clone() };
            assert_eq!(valid(&key, &early), [true, true]);
        }
        assert_eq!(valid(&Identity { expires_at: None, ..ada.clone() }, &[60, 1_000_000_000]), [true, true]);
        let session = Identity { credential: Credential::Session(SessionId(1)), ..ada };
        assert_eq!(valid(&session, &early), [false, true]);
        let idle_at = Some(now.plus_seconds(30));
        assert_eq!(valid(&Identity { idle_at, ..session }, &[29, 30, 59]), [true, false, false]);
    }
}
