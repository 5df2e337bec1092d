//! Sign-in tokens: made by a password, ended by signing out or by an operator.

use super::Service;
use super::cleanup::{self, Begun};
use super::failures::{self, Attempt, AttemptedAccount};
use super::key::end_own_keys;
use super::throttle::Act;
use super::trail::Change;
use crate::db::access_tokens::{self, AccessToken};
use crate::db::account_cleanups::Kind;
use crate::db::{Conn, users};
use crate::domain::audit::{Action, By, Call, Event, Target};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::principal::Level;
use crate::domain::scope::ScopeSet;
use crate::domain::secret::{Secret, SecretKind};
use crate::error::{AppError, Denial, FieldError, Reason};

/// Tokens that one transaction ends.
const TOKENS_AT_ONCE: i64 = 500;
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
    /// Makes a new token the user's only one. `scope` narrows it; without, it may do all that its user's role may, also
    /// when that changes.
    ///
    /// Errors: [`AppError::Invalid`] for a scope that is unknown or beyond the role, [`AppError::Unauthenticated`] for
    /// an unknown e-mail as for a wrong password and a disabled user, after the same time.
    pub async fn sign_in(
        &self,
        call: Call,
        username: &str,
        password: Password,
        scope: Option<&str>,
    ) -> Result<IssuedToken, AppError> {
        let asked = match scope {
            None => None,
            Some(names) => Some(ScopeSet::parse(names).ok_or_else(|| {
                invalid_scope("Name known scopes, each once, separated by single spaces.".to_owned())
            })?),
        };
        let mut answer = Err(AppError::Busy("the password keeps changing during sign-in".into()));
        for _ in 0..ATTEMPTS {
            if let Some(decided) = self.try_sign_in(call.clone(), username, password.clone(), asked).await.transpose() {
                answer = decided;
                break;
            }
        }
        self.metrics.sign_in(match &answer {
            Ok(_) => "success",
            Err(AppError::TooMany { .. }) => "throttled",
            Err(AppError::Busy(_) | AppError::NotReady(_) | AppError::OutcomeUnknown(_) | AppError::Internal(_)) => {
                "unavailable"
            }
            Err(_) => "failure",
        });
        answer
    }

    /// One attempt; `None` if the stored hash was replaced while this one was being compared.
    async fn try_sign_in(
        &self,
        call: Call,
        username: &str,
        password: Password,
        asked: Option<ScopeSet>,
    ) -> Result<Option<IssuedToken>, AppError> {
        let (client, lockout) = (call.origin.client, self.lockout);
        self.throttle.check(Act::FailedSignIn, client)?;
        self.hasher.admit(client).await?;
        let _of_client = self.begin_of_client(client).await?;
        let email = EmailAddress::parse(username);
        let find =
            move |conn: &mut Conn| email.map_or(Ok(None), |email| users::find_by_email_evenly(conn, email.key()));
        let user = self.db.read(find).await?;
        let attempted = AttemptedAccount::named(username, user.as_ref().map(|user| user.id), client);
        let attempt = self.begin_attempt(attempted).await?;
        let stored = user.as_ref().map(|user| user.hashed_password.clone());
        let matches = self.hasher.verify(client, stored, password.clone()).await?;
        let event = Event::of(Action::SignIn);
        let event = match &user {
            Some(user) if matches && user.disabled_at.is_some() => event.on(Target::User(user.id)).detail("disabled"),
            Some(user) => event.on(Target::User(user.id)),
            None => event.detail("unknown_email"),
        };
        let opens = matches && attempt.reason().is_none();
        let Some(user) = user.filter(|user| opens && user.disabled_at.is_none()) else {
            let event = attempt.reason().map_or(event.clone(), |reason| event.detail(reason.name()));
            let error = AppError::Unauthenticated(Reason::BadPassword);
            return Err(self.failed_sign_in(&call, attempt, event, error).await);
        };
        let renewed = match self.hasher.is_outdated(&user.hashed_password) {
            // If there is no room for a second hash, the next sign-in renews it.
            true => self.hasher.create(client, password).await.ok(),
            false => None,
        };

        let secret = generate(SecretKind::SignIn)?;
        let (digest, expires_in) = (secret.digest(), self.settings.token_ttl);
        let stored = self.change(call, event, move |change| {
            // Hashing held no connection, so the user may have changed or gone meanwhile, and others may have failed: to
            // guess in parallel gains nothing.
            let current = users::lock(change.conn, user.id)?;
            let standing = failures::standing(change.conn, lockout, attempted, change.now)?;
            if let Some(reason) = standing.reason {
                change.adds(reason.name());
                return Err(AppError::Unauthenticated(Reason::BadPassword));
            }
            let level = match current {
                Some(current) if current.hashed_password != user.hashed_password => {
                    change.leave_as_is();
                    return Ok(None);
                }
                Some(current) if current.disabled_at.is_none() => {
                    narrowed(current.role().scopes(), asked).map(|granted| Level::new(current.role(), granted))?
                }
                found => {
                    change.adds(if found.is_some() { "disabled" } else { "deleted" });
                    return Err(AppError::Unauthenticated(Reason::BadPassword));
                }
            };
            if lockout.is_some() {
                failures::succeeded(change.conn, user.id, attempted, standing, change.now)?;
            }
            change.is_by(By::password(user.id, level));
            let renews = if renewed.is_some() { vec!["hashed_password"] } else { Vec::new() };
            let sign_in = change.record(|event| {
                let event = event.changed(renews);
                let failed = standing.failures;
                if failed > 0 { event.detail(format!("after {failed} failures")) } else { event }
            })?;
            if let Some(hash) = &renewed {
                users::renew_hash(change.conn, user.id, hash)?;
            }
            let token = AccessToken {
                user_id: user.id.0,
                access_token: digest.to_hex(),
                scopes: access_tokens::stored_scopes(asked),
                created_at: change.now.naive(),
                expiration_date: change.now.plus_seconds(expires_in).naive(),
                sign_in_id: sign_in.0,
            };
            access_tokens::replace(change.conn, &token)?;
            Ok(Some(level.scopes))
        });
        let stored = stored.await?;
        // The next attempt looks at what has become of the failures.
        drop(attempt);
        Ok(stored.map(|scopes| IssuedToken { secret, expires_in, scopes }))
    }

    /// Ends the token that the caller presented. The next request with it is refused.
    pub async fn sign_out(&self, call: Call) -> Result<(), AppError> {
        let user = call.user()?.user_id;
        let attempt = Event::of(Action::SignOut).on(Target::Token(user));
        self.change(call, attempt, move |change| {
            access_tokens::delete_of(change.conn, user)?;
            change.record(|event| event).map(drop)
        })
        .await
    }

    /// Ends the token of a user; whether there was one.
    pub async fn revoke_token(&self, call: Call, user: UserId) -> Result<bool, AppError> {
        let attempt = Event::of(Action::RevokeToken).on(Target::Token(user));
        self.administer(call, attempt, user, move |change, _, _| {
            let ended = access_tokens::delete_of(change.conn, user)?;
            change.record(|event| event.detail(if ended { "1 token" } else { "no token" }))?;
            Ok(ended)
        })
        .await
    }

    /// Ends the tokens of some users with higher ids than `after`; how many, and after which user to go on, if there are
    /// more. Each part has an entry of its own.
    pub async fn revoke_tokens_after(&self, call: Call, after: UserId) -> Result<(usize, Option<UserId>), AppError> {
        let attempt = Event::of(Action::RevokeToken).on(Target::AllTokens);
        self.change(call, attempt, move |change| {
            let (ended, last) = access_tokens::delete_some(change.conn, after, TOKENS_AT_ONCE)?;
            change.record(|event| event.detail(format!("{ended} tokens")))?;
            Ok((ended, last))
        })
        .await
    }

    /// The caller's confirmation by `password`. A wrong one counts as a failed sign-in.
    pub(super) async fn confirm_password(
        &self,
        call: &Call,
        user: UserId,
        password: Password,
    ) -> Result<Confirmed, AppError> {
        let client = call.origin.client;
        self.throttle.check(Act::FailedSignIn, client)?;
        self.hasher.admit(client).await?;
        let _of_client = self.begin_of_client(client).await?;
        let found = self.db.read(move |conn| users::find(conn, user)).await?;
        let found = found.ok_or_else(|| call.no_longer_known())?;
        let attempted = AttemptedAccount::of(&found, client);
        let attempt = self.begin_attempt(attempted).await?;
        let hash = found.hashed_password.clone();
        if self.hasher.verify(client, Some(hash.clone()), password).await? && attempt.reason().is_none() {
            return Ok(Confirmed { hash, attempted, _attempt: attempt });
        }
        let event = Event::of(Action::SignIn).on(Target::User(user));
        let event = attempt.reason().map_or(event.clone(), |reason| event.detail(reason.name()));
        Err(self.failed_sign_in(call, attempt, event, wrong_password()).await)
    }
}

/// That a caller has confirmed a change by their password. Drop it when the change is stored.
pub(super) struct Confirmed {
    hash: PasswordHash,
    attempted: AttemptedAccount,
    _attempt: Attempt,
}

impl Confirmed {
    /// The stored hash that the password matched, and the account, whose failures are looked at once more.
    pub(super) fn what(&self) -> (PasswordHash, AttemptedAccount) {
        (self.hash.clone(), self.attempted)
    }
}

/// What was ended of what a user can act by.
pub(super) struct Ended {
    token: bool,
    own_keys: usize,
    rest: Begun,
}

impl Ended {
    /// Records the change with what it ended.
    pub(super) fn record(self, change: &mut Change<'_>, tell: impl FnOnce(Event) -> Event) -> Result<(), AppError> {
        let token = if self.token { "1 token" } else { "no token" };
        let detail = format!("{token}, {} own keys, {}", self.own_keys, self.rest.counts());
        let entry = change.record(|event| tell(event).detail(detail))?;
        self.rest.store(change, entry)
    }
}

/// Ends what a user can act by, whose row is locked: the token, the keys that they made for themselves, and what else
/// `kind` says.
pub(super) fn end_credentials(change: &mut Change<'_>, user: UserId, kind: Kind) -> Result<Ended, AppError> {
    let token = access_tokens::delete_of(change.conn, user)?;
    let own_keys = end_own_keys(change, user)?;
    Ok(Ended { token, own_keys, rest: cleanup::begin(change, user, kind)? })
}

/// A new secret; only the operating system's random source can fail.
pub(super) fn generate(kind: SecretKind) -> Result<Secret, AppError> {
    Secret::generate(kind).map_err(|error| AppError::Internal(error.into()))
}

pub(super) fn wrong_password() -> AppError {
    AppError::Forbidden(Denial::WrongPassword)
}

/// What was asked for, if the role holds it.
fn narrowed(role: ScopeSet, asked: Option<ScopeSet>) -> Result<ScopeSet, AppError> {
    let beyond = asked.unwrap_or_default().without(role);
    if beyond.is_empty() {
        Ok(asked.unwrap_or(role))
    } else {
        Err(invalid_scope(format!("Your role does not hold: {beyond}.")).into())
    }
}

fn invalid_scope(message: String) -> FieldError {
    FieldError::new("scope", "invalid_scope", message)
}
