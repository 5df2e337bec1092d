//! What all uses of links have in common: the check of the secret, and of the password beside it.

use crate::db::mail::{Subject, secrets};
use crate::db::users;
use crate::domain::audit::RequestContext;
use crate::domain::mail::LinkPurpose;
use crate::domain::password::Password;
use crate::domain::secret::Digest;
use crate::error::AppError;
use crate::service::Service;
use crate::service::limits::throttle::RateLimit;
use crate::service::mail::links::{self, link_invalid};
use crate::service::token::confirmation::PasswordConfirmation;

impl Service {
    /// The digest of a link that is valid now.
    ///
    /// Errors: [`AppError::Gone`] for every link that is not valid; [`AppError::TooMany`] for too many invalid ones,
    /// which count like invalid tokens.
    pub(super) async fn live_link(
        &self,
        context: &RequestContext,
        purpose: LinkPurpose,
        secret: &str,
    ) -> Result<Digest, AppError> {
        let (client, now) = (context.client_info.client, self.clock.now());
        self.limits.throttle().check(RateLimit::InvalidToken, client)?;
        if let Ok(digest) = links::digest_of(secret)
            && self.db.read(move |conn| secrets::find(conn, purpose, digest, now)).await?.is_some()
        {
            return Ok(digest);
        }
        self.limits.throttle().count(RateLimit::InvalidToken, client)?;
        Err(link_invalid())
    }

    /// As [`live_link`](Self::live_link), for a link that also requires the present password of its user: the
    /// person who opens a link must not confirm what a stranger has requested.
    ///
    /// Errors: also [`AppError::Forbidden`] for a wrong password, which counts as a failed sign-in of the user.
    pub(super) async fn link_with_password(
        &self,
        context: &RequestContext,
        purpose: LinkPurpose,
        secret: &str,
        password: Password,
    ) -> Result<(Digest, PasswordConfirmation), AppError> {
        let digest = self.live_link(context, purpose, secret).await?;
        let now = self.clock.now();
        let found = self.db.read(move |conn| {
            let Some(link) = secrets::find(conn, purpose, digest, now)? else { return Ok(None) };
            let Subject::User(user) = link.subject else { return Ok(None) };
            Ok(users::find(conn, user)?.filter(|user| links::is_applicable(purpose, &link, user)))
        });
        let user = found.await?.ok_or_else(link_invalid)?;
        let confirmed = self.confirm_password(context, user.id, password).await;
        // The user was deleted in the meantime.
        confirmed.map(|confirmed| (digest, confirmed)).map_err(|error| match error {
            AppError::Unauthenticated(_) => link_invalid(),
            error => error,
        })
    }
}
