//! Sign-in with a password, which issues a token, or another credential that implements `Issue`.

use crate::db::access_tokens::{self, AccessToken};
use crate::db::{Conn, users};
use crate::domain::audit::{Action, Actor, Event, RequestContext, Target};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::mail::MailKind;
use crate::domain::password::Password;
use crate::domain::principal::Level;
use crate::domain::roles::Role;
use crate::domain::scope::Grant;
use crate::domain::secret::{Secret, SecretKind};
use crate::error::{AppError, Denial, FieldError, Reason};
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::identity::resolve::token_level;
use crate::service::limits::lockout::{self, Attempt, AttemptedAccount, CountedFailure};
use crate::service::limits::throttle::RateLimit;
use crate::service::mail::Recipient;
use crate::service::token::notices;

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

/// What a sign-in issues.
pub(crate) trait Issue: Clone + Send + 'static {
    /// What the response shows.
    type Issued: Send + 'static;

    /// The level of the new credential of a user with `role`. Errors: the sign-in requests more than the role holds.
    fn level(&self, role: &Role) -> Result<Level, AppError>;

    /// Stores the new credential of the locked `user`, and records the sign-in. `complete` adds to its entry what is the
    /// same for all sign-ins.
    fn store(
        self,
        change: &mut Change<'_>,
        user: users::User,
        level: Level,
        complete: impl FnOnce(Event) -> Event,
    ) -> Result<Self::Issued, AppError>;
}

/// Issues a sign-in token, which replaces the user's previous one.
#[derive(Clone)]
struct IssueToken {
    /// The scopes to which the token is narrowed; `None` for all scopes of the role.
    requested: Option<Grant>,
    expires_in: i64,
}

impl Issue for IssueToken {
    type Issued = IssuedToken;

    fn level(&self, role: &Role) -> Result<Level, AppError> {
        check_requested_scopes(role.scopes(), self.requested.as_ref())?;
        Ok(token_level(role, self.requested.as_ref()))
    }

    fn store(
        self,
        change: &mut Change<'_>,
        user: users::User,
        level: Level,
        complete: impl FnOnce(Event) -> Event,
    ) -> Result<IssuedToken, AppError> {
        let secret = Secret::generate(SecretKind::SignIn)?;
        let sign_in = change.record(complete)?;
        let token = AccessToken {
            user_id: user.id.0,
            access_token: secret.digest().to_hex(),
            scopes: access_tokens::stored_scopes(self.requested.as_ref()),
            created_at: change.now.naive(),
            expiration_date: change.now.plus_seconds(self.expires_in).naive(),
            sign_in_id: sign_in.0,
        };
        access_tokens::replace(change.conn, &token)?;
        Ok(IssuedToken { secret, expires_in: self.expires_in, scopes: level.scopes })
    }
}

impl Service {
    /// Records a failed sign-in and counts it, unless a lockout was in force. Returns `error`, or the error of
    /// recording.
    pub(super) async fn failed_sign_in(
        &self,
        context: &RequestContext,
        attempt: Attempt,
        address: Option<String>,
        event: Event,
        error: AppError,
    ) -> AppError {
        // A limit of the client takes effect at the next attempt, so that this response does not depend on it.
        let _ = self.limits.throttle().count(RateLimit::FailedSignIn, context.client_info.client);
        let (policy, state, mail) = (self.limits.lockout(), attempt.state, self.mail.clone());
        let client = context.client_info.client;
        let count = move |conn: &mut Conn, now| {
            let counted = match policy {
                None => CountedFailure::default(),
                Some(policy) => lockout::count_failure(conn, policy, state, now)?,
            };
            if let Some(address) = address.filter(|_| counted.stops) {
                // The same write for an account that does not exist.
                mail.store(conn, MailKind::AccountStopped, &Recipient::unknown(&address), client, now)?;
            }
            Ok(counted.reason)
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
        let issue = IssueToken { requested, expires_in: self.settings.token_ttl };
        self.sign_in_for(context, username, password, issue).await
    }

    /// Signs a user in and issues what `issue` says. Errors: those of [`sign_in`](Self::sign_in).
    pub(crate) async fn sign_in_for<I: Issue>(
        &self,
        context: RequestContext,
        username: &str,
        password: Password,
        issue: I,
    ) -> Result<I::Issued, AppError> {
        let mut result = Err(AppError::Busy("the password keeps changing during sign-in".into()));
        for _ in 0..MAX_ATTEMPTS {
            if let Some(decided) =
                self.try_sign_in(context.clone(), username, password.clone(), issue.clone()).await.transpose()
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
    async fn try_sign_in<I: Issue>(
        &self,
        context: RequestContext,
        username: &str,
        password: Password,
        issue: I,
    ) -> Result<Option<I::Issued>, AppError> {
        let (client, lockout) = (context.client_info.client, self.limits.lockout());
        self.limits.throttle().check(RateLimit::FailedSignIn, client)?;
        self.passwords.admit(client).await?;
        let _client_attempt = self.limits.begin_client_attempt(client).await?;
        let email = EmailAddress::parse(username);
        let address = email.as_ref().map(|email| email.key().to_owned());
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
            return Err(self.failed_sign_in(&context, attempt, address, event, error).await);
        };
        let renewed = match self.passwords.is_outdated(&user.hashed_password) {
            // If the hashing queue is full, the next sign-in renews the hash.
            true => self.passwords.create(client, password).await.ok(),
            false => None,
        };

        let (unverified, user_id) = (context.clone(), user.id);
        let (require_verified, mail) = (self.settings.require_verified_email, self.mail.clone());
        let stored = self.trail.change(context, event, move |change| {
            // No row was locked during hashing: the user may have changed or been deleted, and parallel attempts may
            // have failed. Checking again ensures that parallel requests give no extra password guesses.
            let current = users::lock(change.conn, user.id)?;
            let state = lockout::load_state(change.conn, lockout, attempted, change.now)?;
            if let Some(reason) = state.reason {
                change.set_detail(reason.name());
                return Err(AppError::Unauthenticated(Reason::BadPassword));
            }
            let (current, level) = match current {
                Some(current) if current.hashed_password != user.hashed_password => {
                    change.needs_no_entry();
                    return Ok(None);
                }
                Some(current) if current.disabled_at.is_none() => {
                    if require_verified && current.email_verified_at.is_none() {
                        return Err(AppError::Forbidden(Denial::EmailNotVerified));
                    }
                    let level = issue.level(&change.roles.get(&current.role))?;
                    (current, level)
                }
                found => {
                    change.set_detail(if found.is_some() { "disabled" } else { "deleted" });
                    return Err(AppError::Unauthenticated(Reason::BadPassword));
                }
            };
            notices::request(change, &mail, &current, &state)?;
            if lockout.is_some() {
                lockout::record_success(change.conn, user.id, attempted, state, change.now)?;
            }
            change.set_actor(Actor::password(user.id, level.clone()));
            let changed_fields = if renewed.is_some() { vec!["hashed_password"] } else { Vec::new() };
            if let Some(hash) = &renewed {
                users::renew_hash(change.conn, user.id, hash)?;
            }
            let issued = issue.store(change, current, level, |event| {
                let event = event.changed(changed_fields);
                let failures = state.failures;
                if failures > 0 { event.detail(format!("after {failures} failures")) } else { event }
            });
            issued.map(Some)
        });
        let stored = match stored.await {
            Err(AppError::Forbidden(Denial::EmailNotVerified)) => {
                self.request_mail_again(unverified, user_id).await?;
                return Err(AppError::Forbidden(Denial::EmailNotVerified));
            }
            stored => stored?,
        };
        // Dropped after the commit, so that the next attempt reads the committed failures.
        drop(attempt);
        Ok(stored)
    }

    /// Requests another mail that verifies the address of a user who signed in with the right password, unless the
    /// client has requested too many mails.
    async fn request_mail_again(&self, context: RequestContext, user: UserId) -> Result<(), AppError> {
        if self.limits.throttle().count(RateLimit::Mail, context.client_info.client).is_err() {
            return Ok(());
        }
        let mail = self.mail.clone();
        self.trail
            .change(context, Event::of(Action::VerifyEmail), move |change| {
                change.needs_no_entry();
                match users::find(change.conn, user)? {
                    Some(user) => mail.notify(change, MailKind::EmailVerification, &user),
                    None => Ok(()),
                }
            })
            .await
    }
}

/// Errors: a requested scope that the role does not hold.
fn check_requested_scopes(role: &Grant, requested: Option<&Grant>) -> Result<(), AppError> {
    let beyond = requested.map(|requested| requested.without(role)).unwrap_or_default();
    if beyond.is_empty() { Ok(()) } else { Err(invalid_scope(format!("Your role does not hold: {beyond}.")).into()) }
}

fn invalid_scope(message: String) -> FieldError {
    FieldError::new("scope", "invalid_scope", message)
}
