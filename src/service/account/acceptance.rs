//! Accounts that the holder of a link creates: with an invitation, or with the proof of a registered address.

use crate::clock::Timestamp;
use crate::db::Conn;
use crate::db::mail::{Subject, invitations, registrations, secrets};
use crate::domain::audit::{Action, Event, RequestContext};
use crate::domain::mail::{Language, LinkPurpose};
use crate::domain::role::BuiltInRole;
use crate::domain::roles::{Role, Roles};
use crate::domain::secret::Digest;
use crate::domain::user::User;
use crate::error::AppError;
use crate::metrics::hourly::CountedEvent;
use crate::service::Service;
use crate::service::account::creation::{NewAccount, Person, create_account};
use crate::service::account::invitations::is_acceptable;
use crate::service::account::registration::Registration;
use crate::service::mail::links::link_invalid;

/// What the holder of a link can create.
struct Candidate {
    subject: Subject,
    email: String,
    role: Role,
    locale: String,
}

impl Candidate {
    /// What a link can create at `now`.
    fn of_link(
        conn: &mut Conn,
        roles: &Roles,
        (purpose, digest): (LinkPurpose, Digest),
        now: Timestamp,
    ) -> Result<Option<Self>, AppError> {
        let Some(link) = secrets::find(conn, purpose, digest, now)? else {
            return Ok(None);
        };
        let subject = link.subject;
        match subject {
            Subject::User(_) => Ok(None),
            Subject::Registration(id) => {
                let role = roles.get(BuiltInRole::Member.name());
                let found = registrations::find(conn, id, now)?;
                // A later registration by a stranger may have another spelling.
                Ok(found.map(|found| Self { subject, email: link.address, role, locale: found.locale }))
            }
            Subject::Invitation(id) => {
                let Some(found) = invitations::find(conn, id)?.filter(|found| now < found.expires_at) else {
                    return Ok(None);
                };
                let is_acceptable = is_acceptable(conn, roles, &found)?;
                let role = roles.get(&found.role);
                Ok(is_acceptable.then_some(Self { subject, email: found.email, role, locale: found.locale }))
            }
        }
    }
}

impl Service {
    /// Creates an account with the secret of a link, which proves its address. The holder of the link chooses everything
    /// else. `language` is that of the browser, if it states one.
    ///
    /// Errors: [`AppError::Invalid`] names each bad field; [`AppError::Gone`] for every link that is not valid, also if
    /// the address has an account by now; [`AppError::TooMany`] for too many invalid ones; [`AppError::Forbidden`] for a
    /// registration if it was closed since.
    pub async fn create_account_with_link(
        &self,
        context: RequestContext,
        purpose: LinkPurpose,
        secret: &str,
        person: Person,
        language: Option<Language>,
    ) -> Result<User, AppError> {
        if purpose == LinkPurpose::Registration {
            self.require_open_registration()?;
        }
        let errors = self.errors_of_person(&person);
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let digest = self.live_link(&context, purpose, secret).await?;
        let (roles, now) = (self.roles.clone(), self.clock.now());
        let found = self.db.read(move |conn| Candidate::of_link(conn, &roles, (purpose, digest), now));
        let email = found.await?.ok_or_else(link_invalid)?.email;
        let registration = Registration { person, email };
        let domains = (purpose == LinkPurpose::Registration).then_some(&self.registration.email_domains);
        let email = self.check_registration(&registration, domains, (true, None))?;
        let person = registration.person;
        // A hash is computed only for a link that exists.
        let hash = self.passwords.create(context.client_info.client, person.password.clone()).await?;
        let created = self.trail.change(context, Event::of(Action::Register), move |change| {
            let candidate = Candidate::of_link(change.conn, change.roles, (purpose, digest), change.now)?;
            let candidate = candidate.ok_or_else(link_invalid)?;
            let new = NewAccount {
                person: &person,
                hash: &hash,
                email: &email,
                role: &candidate.role,
                locale: language.map_or(&candidate.locale, |language| language.code()),
                proof: Some(candidate.subject),
            };
            create_account(change, &new).map_err(|error| match error {
                AppError::Conflict { .. } => link_invalid(),
                error => error,
            })
        });
        let user = created.await?;
        self.metrics.hourly().add(CountedEvent::Registration);
        Ok(user.into_domain(&self.roles, false))
    }
}
