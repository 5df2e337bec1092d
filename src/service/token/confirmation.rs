//! The confirmation of a change with the current password.

use crate::db::users;
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::id::UserId;
use crate::domain::password::{Password, PasswordHash};
use crate::error::{AppError, Denial};
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::limits::lockout::{self, Attempt, AttemptedAccount, LockoutPolicy};
use crate::service::limits::throttle::RateLimit;

impl Service {
    /// Verifies the current password of a user before a change. A wrong one counts as a failed sign-in.
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
        let address = Some(found.email_key);
        Err(self.failed_sign_in(context, attempt, address, event, wrong_password()).await)
    }
}

/// Proof that a caller has confirmed a change with the current password. Keep it until the change is stored.
pub(crate) struct PasswordConfirmation {
    hash: PasswordHash,
    attempted: AttemptedAccount,
    _attempt: Attempt,
}

impl PasswordConfirmation {
    /// What to check again within the change.
    pub(crate) fn matched(&self, policy: Option<LockoutPolicy>) -> MatchedPassword {
        MatchedPassword { hash: self.hash.clone(), attempted: self.attempted, policy }
    }
}

/// The stored hash that a password matched, and the account.
pub(crate) struct MatchedPassword {
    hash: PasswordHash,
    attempted: AttemptedAccount,
    policy: Option<LockoutPolicy>,
}

impl MatchedPassword {
    /// Checks, with the row of the user locked, that the password is still the current one and that the account was not
    /// locked out since: parallel requests therefore give no extra password guesses.
    ///
    /// Errors: that of a wrong password.
    pub(crate) fn check_again(&self, change: &mut Change<'_>, user: &users::User) -> Result<(), AppError> {
        let state = lockout::load_state(change.conn, self.policy, self.attempted, change.now)?;
        if state.reason.is_some() || self.hash != user.hashed_password {
            return Err(wrong_password());
        }
        Ok(())
    }
}

fn wrong_password() -> AppError {
    AppError::Forbidden(Denial::WrongPassword)
}
