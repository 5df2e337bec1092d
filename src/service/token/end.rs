//! The end of sign-in tokens and sessions: sign-out, revocation by an operator, and changes of the account.

use crate::db::account_cleanups::Kind;
use crate::db::{access_tokens, sessions};
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::id::{SessionId, UserId};
use crate::error::AppError;
use crate::service::Service;
use crate::service::audit::trail::Change;
use crate::service::key::own::end_own_keys;
use crate::service::lifecycle::cleanup::{self, StartedCleanup};

/// Maximum number of users whose tokens and sessions one transaction revokes.
const USER_BATCH: usize = 500;

impl Service {
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

    /// Revokes the sign-in token of a user, and ends the sessions. Returns their numbers. Errors:
    /// [`AppError::NotFound`].
    pub async fn revoke_token(&self, context: RequestContext, user: UserId) -> Result<EndedSignIns, AppError> {
        let attempt = Event::of(Action::RevokeToken).on(Target::Token(user));
        self.trail
            .administer(context, attempt, user, move |change, _, _| {
                let ended = end_sign_ins(change, user, None)?;
                change.record(|event| event.detail(ended.of_user()))?;
                Ok(ended)
            })
            .await
    }

    /// Revokes the tokens and ends the sessions of up to 500 users after `after`. Returns their numbers, and the user
    /// after whom to continue if there are more. Each batch writes one audit entry.
    pub async fn revoke_tokens_after(
        &self,
        context: RequestContext,
        after: UserId,
    ) -> Result<(EndedSignIns, Option<UserId>), AppError> {
        let attempt = Event::of(Action::RevokeToken).on(Target::AllTokens);
        self.trail
            .change(context, attempt, move |change| {
                let limit = i64::try_from(USER_BATCH).unwrap_or(i64::MAX);
                let mut users = access_tokens::owners_after(change.conn, after, limit)?;
                users.extend(sessions::users_after(change.conn, after, limit)?);
                users.sort_unstable();
                users.dedup();
                users.truncate(USER_BATCH);
                let ended = EndedSignIns {
                    tokens: access_tokens::delete_of_all(change.conn, &users)?,
                    sessions: sessions::delete_of_all(change.conn, &users)?,
                };
                change.record(|event| event.detail(ended.of_users()))?;
                Ok((ended, users.last().copied().filter(|_| users.len() == USER_BATCH)))
            })
            .await
    }
}

/// The numbers of sign-in tokens and sessions that a change has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndedSignIns {
    /// The number of tokens.
    pub tokens: usize,
    /// The number of sessions.
    pub sessions: usize,
}

impl EndedSignIns {
    /// The numbers of one user, as the details of audit entries state them: without sessions if there were none.
    pub(crate) fn of_user(self) -> String {
        let token = if self.tokens > 0 { "1 token" } else { "no token" };
        self.with_sessions(token.to_owned())
    }

    /// The numbers of several users.
    fn of_users(self) -> String {
        self.with_sessions(format!("{} tokens", self.tokens))
    }

    fn with_sessions(self, tokens: String) -> String {
        if self.sessions > 0 { format!("{tokens}, {} sessions", self.sessions) } else { tokens }
    }
}

/// Revokes the sign-in token of a user and ends the sessions, except `kept`. The user's row must be locked.
pub(crate) fn end_sign_ins(
    change: &mut Change<'_>,
    user: UserId,
    kept: Option<SessionId>,
) -> Result<EndedSignIns, AppError> {
    let tokens = usize::from(access_tokens::delete_of(change.conn, user)?);
    Ok(EndedSignIns { tokens, sessions: sessions::delete_of(change.conn, user, kept)? })
}

/// The credentials of a user that a change has revoked.
pub(crate) struct EndedCredentials {
    sign_ins: EndedSignIns,
    own_keys: usize,
    cleanup: StartedCleanup,
}

impl EndedCredentials {
    /// Records the change, with the numbers of revoked credentials as the detail. `complete` adds the other fields.
    pub(crate) fn record(self, change: &mut Change<'_>, complete: impl FnOnce(Event) -> Event) -> Result<(), AppError> {
        let detail = format!("{}, {} own keys, {}", self.sign_ins.of_user(), self.own_keys, self.cleanup.counts());
        let entry = change.record(|event| complete(event).detail(detail))?;
        self.cleanup.store(change, entry)
    }
}

/// Revokes the sign-in token, the sessions except `kept`, and the own keys of a user, and what `kind` names in addition.
/// The user's row must be locked.
pub(crate) fn end_credentials(
    change: &mut Change<'_>,
    user: UserId,
    kind: Kind,
    kept: Option<SessionId>,
) -> Result<EndedCredentials, AppError> {
    let sign_ins = end_sign_ins(change, user, kept)?;
    let own_keys = end_own_keys(change, user)?;
    Ok(EndedCredentials { sign_ins, own_keys, cleanup: cleanup::begin(change, user, kind)? })
}
