//! Sign-in tokens: issued for a password, revoked by sign-out or by an operator.

use crate::db::access_tokens::{self, AccessToken};
use crate::db::account_cleanups::Kind;
use crate::db::{Conn, users};
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::scope::Grant;
use crate::domain::secret::{Secret, SecretKind};
use crate::error::{AppError, Denial, FieldError, Reason};
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::identity::resolve::token_level;
use crate::service::key::own::end_own_keys;
use crate::service::lifecycle::cleanup::{self, StartedCleanup};
use crate::service::limits::lockout::{self, Attempt, AttemptedAccount};
use crate::service::limits::throttle::RateLimit;

/// Maximum number of tokens that one transaction revokes.
const TOKEN_BATCH: i64 = 500;
/// How many times a sign-in is tried if the stored hash changes during it.
const MAX_ATTEMPTS: usize = 3;

/// A new sign-in token, which is shown only once.
#[derive(Debug)]
pub struct IssuedToken {
    /// The token in plain text.
    pub secret: Secret,
    /// Seconds until the token expires.
    pub expires_in: i64,
    /// The scopes of the token.
    pub scopes: Grant,
}

impl Service {
    /// Records a failed sign-in and counts it, unless a lockout was in force. Returns `error`, or the error of
    /// recording.
    async fn failed_sign_in(
        &self,
        context: &RequestContext,
        attempt: Attempt,
        event: Event,
        error: AppError,
    ) -> AppError {
        // A limit of the client takes effect at the next attempt, so that this response does not depend on it.
        let _ = self.limits.throttle().count(RateLimit::FailedSignIn, context.client_info.client);
        let (policy, state) = (self.limits.lockout(), attempt.state);
        let count = move |conn: &mut Conn, now| match policy {
            None => Ok(None),
            Some(policy) => lockout::count_failure(conn, policy, state, now),
        };
        self.trail.record_account_failure(context, attempt.account, event, error, count).await
    }

    /// Signs a user in and returns a new token, which replaces the user's previous one (C3). `scope` narrows the token.
    /// Without `scope`, the token holds all scopes of the user's current role, even after a change of the role.
    ///
    /// Errors: [`AppError::Invalid`] for a scope that is unknown or that the role does not hold;
    /// [`AppError::Unauthenticated`] for an unknown e-mail, a wrong password and a disabled user alike, after the same
    /// time; [`AppError::TooMany`] for too many failed sign-ins by the client.
    pub async fn sign_in(
        &self,
        context: RequestContext,
        username: &str,
        password: Password,
        scope: Option<&str>,
    ) -> Result<IssuedToken, AppError> {
        let requested = match scope {
            None => None,
            Some(names) => {
                Some(Grant::parse(names).filter(|grant| self.roles.unknown_scope(grant).is_none()).ok_or_else(
                    || invalid_scope("Send known scopes, each once, separated by single spaces.".to_owned()),
                )?)
            }
        };
        let mut result = Err(AppError::Busy("the password keeps changing during sign-in".into()));
        for _ in 0..MAX_ATTEMPTS {
            if let Some(decided) =
                self.try_sign_in(context.clone(), username, password.clone(), requested.clone()).await.transpose()
            {
                result = decided;
                break;
            }
        }
        self.metrics.sign_in(match &result {
            Ok(_) => "success",
            Err(AppError::TooMany { .. }) => "throttled",
            Err(AppError::Busy(_) | AppError::NotReady(_) | AppError::OutcomeUnknown(_) | AppError::Internal(_)) => {
                "unavailable"
            }
            Err(_) => "failure",
        });
        result
    }

    /// Tries to sign in once. Returns `None` if the stored hash was replaced during the comparison.
    async fn try_sign_in(
        &self,
        context: RequestContext,
        username: &str,
        password: Password,
        requested: Option<Grant>,
    ) -> Result<Option<IssuedToken>, AppError> {
        let (client, lockout) = (context.client_info.client, self.limits.lockout());
        self.limits.throttle().check(RateLimit::FailedSignIn, client)?;
        self.passwords.admit(client).await?;
        let _client_attempt = self.limits.begin_client_attempt(client).await?;
        let email = EmailAddress::parse(username);
        let find =
            move |conn: &mut Conn| email.map_or(Ok(None), |email| users::find_by_email_evenly(conn, email.key()));
        let user = self.db.read(find).await?;
        let attempted = AttemptedAccount::named(username, user.as_ref().map(|user| user.id), client);
        let attempt = self.limits.begin_attempt(attempted).await?;
        let stored = user.as_ref().map(|user| user.hashed_password.clone());
        let matches = self.passwords.verify(client, stored, password.clone()).await?;
        let event = Event::of(Action::SignIn);
        let event = match &user {
            Some(user) if matches && user.disabled_at.is_some() => event.on(Target::User(user.id)).detail("disabled"),
            Some(user) => event.on(Target::User(user.id)),
            None => event.detail("unknown_email"),
        };
        let is_accepted = matches && attempt.reason().is_none();
        let Some(user) = user.filter(|user| is_accepted && user.disabled_at.is_none()) else {
            let event = attempt.reason().map_or(event.clone(), |reason| event.detail(reason.name()));
            let error = AppError::Unauthenticated(Reason::BadPassword);
            return Err(self.failed_sign_in(&context, attempt, event, error).await);
        };
        let renewed = match self.passwords.is_outdated(&user.hashed_password) {
            // If the hashing queue is full, the next sign-in renews the hash.
            true => self.passwords.create(client, password).await.ok(),
            false => None,
        };

        let secret = Secret::generate(SecretKind::SignIn)?;
        let (digest, expires_in) = (secret.digest(), self.settings.token_ttl);
        let stored = self.trail.change(context, event, move |change| {
            // No row was locked during hashing: the user may have changed or been deleted, and parallel attempts may
            // have failed. Checking again ensures that parallel requests give no extra password guesses.
            let current = users::lock(change.conn, user.id)?;
            let state = lockout::load_state(change.conn, lockout, attempted, change.now)?;
            if let Some(reason) = state.reason {
                change.set_detail(reason.name());
                return Err(AppError::Unauthenticated(Reason::BadPassword));
            }
            let level = match current {
                Some(current) if current.hashed_password != user.hashed_password => {
                    change.needs_no_entry();
                    return Ok(None);
                }
                Some(current) if current.disabled_at.is_none() => {
                    let role = change.roles.get(&current.role);
                    check_requested_scopes(role.scopes(), requested.as_ref())?;
                    token_level(&role, requested.as_ref())
                }
                found => {
                    change.set_detail(if found.is_some() { "disabled" } else { "deleted" });
                    return Err(AppError::Unauthenticated(Reason::BadPassword));
                }
            };
            if lockout.is_some() {
                lockout::record_success(change.conn, user.id, attempted, state, change.now)?;
            }
            change.set_actor(Actor::password(user.id, level.clone()));
            let changed_fields = if renewed.is_some() { vec!["hashed_password"] } else { Vec::new() };
            let sign_in = change.record(|event| {
                let event = event.changed(changed_fields);
                let failures = state.failures;
                if failures > 0 { event.detail(format!("after {failures} failures")) } else { event }
            })?;
            if let Some(hash) = &renewed {
                users::renew_hash(change.conn, user.id, hash)?;
            }
            let token = AccessToken {
                user_id: user.id.0,
                access_token: digest.to_hex(),
                scopes: access_tokens::stored_scopes(requested.as_ref()),
                created_at: change.now.naive(),
                expiration_date: change.now.plus_seconds(expires_in).naive(),
                sign_in_id: sign_in.0,
            };
            access_tokens::replace(change.conn, &token)?;
            Ok(Some(level.scopes))
        });
        let stored = stored.await?;
        // Dropped after the commit, so that the next attempt reads the committed failures.
        drop(attempt);
        Ok(stored.map(|scopes| IssuedToken { secret, expires_in, scopes }))
    }

    /// Revokes the caller's sign-in token with immediate effect.
    pub async fn sign_out(&self, context: RequestContext) -> Result<(), AppError> {
        let user = context.user()?.user_id;
        let attempt = Event::of(Action::SignOut).on(Target::Token(user));
        self.trail
            .change(context, attempt, move |change| {
                access_tokens::delete_of(change.conn, user)?;
                change.record(|event| event).map(drop)
            })
            .await
    }

    /// Revokes the sign-in token of a user. Returns whether there was one. Errors: [`AppError::NotFound`].
    pub async fn revoke_token(&self, context: RequestContext, user: UserId) -> Result<bool, AppError> {
        let attempt = Event::of(Action::RevokeToken).on(Target::Token(user));
        self.trail
            .administer(context, attempt, user, move |change, _, _| {
                let ended = access_tokens::delete_of(change.conn, user)?;
                change.record(|event| event.detail(if ended { "1 token" } else { "no token" }))?;
                Ok(ended)
            })
            .await
    }

    /// Revokes the tokens of up to 500 users after `after`. Returns how many were revoked, and the user after whom to
    /// continue if there are more. Each batch writes one audit entry.
    pub async fn revoke_tokens_after(
        &self,
        context: RequestContext,
        after: UserId,
    ) -> Result<(usize, Option<UserId>), AppError> {
        let attempt = Event::of(Action::RevokeToken).on(Target::AllTokens);
        self.trail
            .change(context, attempt, move |change| {
                let (ended, last) = access_tokens::delete_some(change.conn, after, TOKEN_BATCH)?;
                change.record(|event| event.detail(format!("{ended} tokens")))?;
                Ok((ended, last))
            })
            .await
    }

    /// Verifies the caller's current password before a change. A wrong one counts as a failed sign-in.
    ///
    /// Errors: [`AppError::Forbidden`] for a wrong password or a lockout.
    pub(crate) async fn confirm_password(
        &self,
        context: &RequestContext,
        user: UserId,
        password: Password,
    ) -> Result<PasswordConfirmation, AppError> {
        let client = context.client_info.client;
        self.limits.throttle().check(RateLimit::FailedSignIn, client)?;
        self.passwords.admit(client).await?;
        let _client_attempt = self.limits.begin_client_attempt(client).await?;
        let found = self.db.read(move |conn| users::find(conn, user)).await?;
        let found = found.ok_or_else(|| context.credential_ended())?;
        let attempted = AttemptedAccount::of(&found, client);
        let attempt = self.limits.begin_attempt(attempted).await?;
        let hash = found.hashed_password.clone();
        if self.passwords.verify(client, Some(hash.clone()), password).await? && attempt.reason().is_none() {
            return Ok(PasswordConfirmation { hash, attempted, _attempt: attempt });
        }
        let event = Event::of(Action::SignIn).on(Target::User(user));
        let event = attempt.reason().map_or(event.clone(), |reason| event.detail(reason.name()));
        Err(self.failed_sign_in(context, attempt, event, wrong_password()).await)
    }
}

/// Proof that a caller has confirmed a change with the current password. Keep it until the change is stored.
pub(crate) struct PasswordConfirmation {
    hash: PasswordHash,
    attempted: AttemptedAccount,
    _attempt: Attempt,
}

impl PasswordConfirmation {
    /// Returns the stored hash that the password matched, and the account, for a second check within the change.
    pub(crate) fn matched(&self) -> (PasswordHash, AttemptedAccount) {
        (self.hash.clone(), self.attempted)
    }
}

/// The credentials of a user that a change has revoked.
pub(crate) struct EndedCredentials {
    token: bool,
    own_keys: usize,
    cleanup: StartedCleanup,
}

impl EndedCredentials {
    /// Records the change, with the numbers of revoked credentials as the detail. `complete` adds the other fields.
    pub(crate) fn record(self, change: &mut Change<'_>, complete: impl FnOnce(Event) -> Event) -> Result<(), AppError> {
        let token = if self.token { "1 token" } else { "no token" };
        let detail = format!("{token}, {} own keys, {}", self.own_keys, self.cleanup.counts());
        let entry = change.record(|event| complete(event).detail(detail))?;
        self.cleanup.store(change, entry)
    }
}

/// Revokes the sign-in token and the own keys of a user, and what `kind` names in addition. The user's row must be
/// locked.
pub(crate) fn end_credentials(change: &mut Change<'_>, user: UserId, kind: Kind) -> Result<EndedCredentials, AppError> {
    let token = access_tokens::delete_of(change.conn, user)?;
    let own_keys = end_own_keys(change, user)?;
    Ok(EndedCredentials { token, own_keys, cleanup: cleanup::begin(change, user, kind)? })
}

pub(crate) fn wrong_password() -> AppError {
    AppError::Forbidden(Denial::WrongPassword)
}

/// Errors: a requested scope that the role does not hold.
fn check_requested_scopes(role: &Grant, requested: Option<&Grant>) -> Result<(), AppError> {
    let beyond = requested.map(|requested| requested.without(role)).unwrap_or_default();
    if beyond.is_empty() { Ok(()) } else { Err(invalid_scope(format!("Your role does not hold: {beyond}.")).into()) }
}

fn invalid_scope(message: String) -> FieldError {
    FieldError::new("scope", "invalid_scope", message)
}
