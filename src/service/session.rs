//! Browser sessions: sign-in, the sessions of a user, and their end.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::config::SessionSettings;
use crate::db::sessions::{self, NewSession};
use crate::db::users;
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::email;
use crate::domain::id::{SessionId, UserId};
use crate::domain::password::Password;
use crate::domain::principal::{Identity, Level};
use crate::domain::roles::Role;
use crate::domain::scope::Grant;
use crate::domain::secret::{Digest, Secret, SecretKind};
use crate::domain::session::Session;
use crate::domain::user::User;
use crate::error::{AppError, Denial, FieldError};
use crate::service::Service;
use crate::service::audit::change::Change;
use crate::service::identity::authenticate::Identities;
use crate::service::limits::lockout::{self, LockoutPolicy};
use crate::service::token::sign_in::Issue;

/// Maximum length of the e-mail address of a sign-in in characters.
pub const EMAIL_MAX: usize = email::MAX_LENGTH;
/// Maximum length of the password of a sign-in in characters: the most that the settings allow.
pub const PASSWORD_MAX: usize = 512;
/// Maximum length of a stored `User-Agent` in characters.
const USER_AGENT_MAX: usize = 255;

/// The session of a caller, with what a web page needs to know about its user.
#[derive(Debug)]
pub struct OpenSession {
    /// The id of the session.
    pub id: SessionId,
    /// The user.
    pub user: User,
    /// The scopes of the session.
    pub scopes: Grant,
    /// When the user signed in.
    pub created_at: Timestamp,
    /// The latest end of the session.
    pub expires_at: Timestamp,
    /// Seconds without use after which the session ends.
    pub idle_seconds: i64,
}

/// What a browser sends with a sign-in.
#[derive(Clone, Debug, Default)]
pub struct BrowserSignIn {
    /// The digest of the secret in the cookie of an earlier session. That session ends.
    pub earlier: Option<Digest>,
    /// The name of the browser, as it states it.
    pub user_agent: Option<String>,
}

/// Issues a session.
#[derive(Clone)]
struct IssueSession {
    browser: BrowserSignIn,
    settings: SessionSettings,
    lockout: Option<LockoutPolicy>,
    identities: Arc<Identities>,
}

/// A new session: its secret, its row and the row of its user.
struct IssuedSession {
    secret: Secret,
    id: SessionId,
    created_at: Timestamp,
    expires_at: Timestamp,
    user: users::User,
    is_stopped: bool,
    scopes: Grant,
}

impl Issue for IssueSession {
    type Issued = IssuedSession;

    fn level(&self, role: &Role) -> Result<Level, AppError> {
        Ok(Level::of(role))
    }

    fn store(
        self,
        change: &mut Change<'_>,
        user: users::User,
        level: Level,
        complete: impl FnOnce(Event) -> Event,
    ) -> Result<IssuedSession, AppError> {
        let (secret, created_at) = (Secret::generate(SecretKind::Session)?, change.now);
        let expires_at = created_at.plus_seconds(self.settings.lifetime_seconds());
        let mut ended: Vec<Event> = self.end_earlier(change, user.id)?.into_iter().collect();
        ended.extend(self.end_beyond_limit(change, user.id)?);
        let new = NewSession {
            user_id: user.id.0,
            digest: secret.digest().to_hex(),
            created_at: created_at.naive(),
            last_used_at: created_at.naive(),
            expires_at: expires_at.naive(),
            client: change.client().map(|client| client.to_string()),
            user_agent: self.browser.user_agent.as_deref(),
        };
        let id = sessions::insert(change.conn, &new)?;
        let created = |event| Event { action: Action::CreateSession, target: Some(Target::Session(id)), ..event };
        change.record(|event| created(complete(event)))?;
        change.record_each(&ended)?;
        let (user, is_stopped) = lockout::with_stop(change.conn, self.lockout, user, change.now)?;
        Ok(IssuedSession { secret, id, created_at, expires_at, user, is_stopped, scopes: level.scopes })
    }
}

impl IssueSession {
    /// Ends the session whose cookie the browser sent, so that a secret from before a sign-in is of no use after it. It
    /// can be the session of another user. Returns the entry about it.
    fn end_earlier(&self, change: &mut Change<'_>, user: UserId) -> Result<Option<Event>, AppError> {
        let Some(digest) = self.browser.earlier else {
            return Ok(None);
        };
        let ended = sessions::delete_by_digest(change.conn, digest)?;
        if let Some((_, other)) = ended.filter(|(_, owner)| *owner != user) {
            let identities = Arc::clone(&self.identities);
            change.after_commit(move || identities.cache().invalidate(other));
        }
        Ok(ended.map(|(id, owner)| ended_event(id, owner).detail("replaced by another sign-in")))
    }

    /// Ends the sessions that are too many beside a new one: first those that have expired, then those that were not
    /// used for longest. Returns the entries about those that had not expired.
    fn end_beyond_limit(&self, change: &mut Change<'_>, user: UserId) -> Result<Vec<Event>, AppError> {
        let mut stored = sessions::list(change.conn, user)?;
        // The order within each half stays that of the last use.
        stored.sort_by_key(|session| !is_open(session, self.settings, change.now));
        let excess = stored.split_off(stored.len().min(self.settings.max_per_user.saturating_sub(1)));
        let mut ended = Vec::new();
        for session in &excess {
            sessions::delete(change.conn, user, session.id)?;
            if is_open(session, self.settings, change.now) {
                ended.push(ended_event(session.id, user).detail("too many sessions"));
            }
        }
        Ok(ended)
    }
}

impl Service {
    /// Signs a user in to a new browser session, and returns it with its secret. It does not change the sign-in token
    /// (C3).
    ///
    /// Errors: [`AppError::Invalid`] for an e-mail address or a password that is empty or too long, or contains NUL;
    /// those of [`Service::sign_in`].
    pub async fn create_session(
        &self,
        context: RequestContext,
        email: &str,
        password: Password,
        browser: BrowserSignIn,
    ) -> Result<(OpenSession, Secret), AppError> {
        let fields = [
            (EMAIL_MAX, "email", email.chars().count(), email.contains('\0')),
            (PASSWORD_MAX, "password", password.length(), password.has_nul()),
        ];
        let errors: Vec<FieldError> = fields.into_iter().filter_map(field_error).collect();
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let user_agent = browser.user_agent.as_deref().and_then(printable);
        let issue = IssueSession {
            browser: BrowserSignIn { user_agent, ..browser },
            settings: self.session,
            lockout: self.limits.lockout(),
            identities: Arc::clone(&self.identities),
        };
        let issued = self.sign_in_for(context, email, password, issue).await?;
        let IssuedSession { secret, id, created_at, expires_at, user, is_stopped, scopes } = issued;
        let (user, idle_seconds) = (user.into_domain(&self.roles, is_stopped), self.session.idle_seconds());
        Ok((OpenSession { id, user, scopes, created_at, expires_at, idle_seconds }, secret))
    }

    /// Returns the caller's session. Errors: [`AppError::Forbidden`] with [`Denial::NeedsSession`] for another
    /// credential; [`AppError::Unauthenticated`] if the account was deleted after the guard accepted the cookie.
    pub async fn session(&self, context: &RequestContext) -> Result<OpenSession, AppError> {
        let (id, caller) = session_of(context)?;
        let user = self.me(context).await?;
        Ok(OpenSession {
            id,
            user,
            scopes: caller.level.scopes.clone(),
            created_at: caller.issued_at,
            expires_at: caller.expires_at.ok_or_else(|| context.credential_ended())?,
            idle_seconds: self.session.idle_seconds(),
        })
    }

    /// Ends the caller's session, which may have ended since the request was authenticated. Errors:
    /// [`AppError::Forbidden`] with [`Denial::NeedsSession`] for another credential.
    pub async fn sign_out_of_session(&self, context: RequestContext) -> Result<(), AppError> {
        let (id, caller) = session_of(&context)?;
        let user = caller.user_id;
        let ended = self.trail.change(context, ended_event(id, user), move |change| {
            sessions::delete(change.conn, user, id)?;
            change.record(|event| event).map(drop)
        });
        match ended.await {
            // The limit counts refusals, and the only one here is that of a session that has ended.
            Err(AppError::Unauthenticated(_) | AppError::TooMany { .. }) => Ok(()),
            result => result,
        }
    }

    /// Returns the caller's open sessions, the last used one first.
    pub async fn sessions(&self, context: &RequestContext) -> Result<Vec<Session>, AppError> {
        let (user, settings, now) = (context.user()?.user_id, self.session, self.clock.now());
        let mut stored = self.db.read(move |conn| sessions::list(conn, user)).await?;
        stored.retain(|session| is_open(session, settings, now));
        Ok(stored)
    }

    /// Ends a session of the caller. Errors: [`AppError::NotFound`], also for another user's session.
    pub async fn end_session(&self, context: RequestContext, id: SessionId) -> Result<(), AppError> {
        let user = context.user()?.user_id;
        let attempt = Event::of(Action::EndSession).on(Target::Session(id));
        self.trail
            .change(context, attempt, move |change| {
                if !sessions::delete(change.conn, user, id)? {
                    return Err(AppError::NotFound("session"));
                }
                change.set_subject(user);
                change.record(|event| event).map(drop)
            })
            .await
    }
}

/// The error of a field with its maximum length, name, length, and whether it contains NUL.
fn field_error((most, field, length, has_nul): (usize, &str, usize, bool)) -> Option<FieldError> {
    match length {
        _ if has_nul => Some(FieldError::new(field, "nul", "The NUL character is not allowed.")),
        length if length == 0 || length > most => {
            Some(FieldError::new(field, "length", format!("Use 1 to {most} characters.")))
        }
        _ => None,
    }
}

fn ended_event(id: SessionId, user: UserId) -> Event {
    Event::of(Action::EndSession).on(Target::Session(id)).owned_by(user)
}

fn session_of(context: &RequestContext) -> Result<(SessionId, &Identity), AppError> {
    let found = context.identity().and_then(|caller| Some((caller.session()?, caller)));
    found.ok_or(AppError::Forbidden(Denial::NeedsSession))
}

/// Whether a session is open at `now`, as far as its last use is stored.
fn is_open(session: &Session, settings: SessionSettings, now: Timestamp) -> bool {
    now < session.expires_at && now < session.last_used_at.plus_seconds(settings.idle_seconds())
}

/// The printable characters of a `User-Agent`, without blanks around them; `None` if there are none.
fn printable(user_agent: &str) -> Option<String> {
    let kept: String = user_agent.chars().filter(|character| !character.is_control()).take(USER_AGENT_MAX).collect();
    Some(kept.trim()).filter(|kept| !kept.is_empty()).map(str::to_owned)
}
