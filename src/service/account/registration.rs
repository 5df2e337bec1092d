//! New users: who can register, the rules for names and e-mail domains, and the storage of a new user.

use crate::config::{EmailDomains, RegistrationMode};
use crate::db::mail::Subject;
use crate::db::mail::registrations::{self, NewRegistration};
use crate::domain::audit::{Action, Event, RequestContext};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{Language, LinkPurpose, MailKind};
use crate::domain::role::BuiltInRole;
use crate::domain::roles::Role;
use crate::domain::user::User;
use crate::error::{AppError, Denial, FieldError};
use crate::metrics::hourly::CountedEvent;
use crate::service::Service;
use crate::service::account::creation::{NewAccount, Person, create_account};
use crate::service::account::users::{check_email, check_not_own_name, may_promote};
use crate::service::limits::throttle::RateLimit;
use crate::service::mail::Recipient;
use crate::service::validation::{TEXT_MAX, validation_errors};

/// The data of a new user.
#[derive(Debug)]
pub struct Registration {
    /// The user.
    pub person: Person,
    /// E-mail address, unique in its canonical form.
    pub email: String,
}

impl Service {
    /// Whether registrations consist of an address only, and a link completes them (`registration.mode = "verified"`).
    pub fn registers_addresses(&self) -> bool {
        self.registration.mode == RegistrationMode::Verified
    }

    /// Stores a new user who registers, with the role `member`. `language` is that of the browser, if it states one.
    ///
    /// Errors: [`AppError::Forbidden`] if registration is closed. [`AppError::Invalid`] names each bad field, also an
    /// e-mail outside of `registration.email_domains`, [`AppError::Conflict`] an e-mail that is taken,
    /// [`AppError::TooMany`] too many registrations by the client.
    pub async fn register(
        &self,
        context: RequestContext,
        registration: Registration,
        language: Option<Language>,
    ) -> Result<User, AppError> {
        self.require_open_registration()?;
        let email = self.check_registration(&registration, Some(&self.registration.email_domains), (false, None))?;
        self.limits.throttle().count(RateLimit::Registration, context.client_info.client)?;
        let member = self.find_role(BuiltInRole::Member.name())?;
        let language = self.mail.language(language);
        let user = self.store_user(context, registration.person, email, (member, language)).await?;
        self.metrics.hourly().add(CountedEvent::Registration);
        Ok(user)
    }

    /// Stores an address until it is proved, and requests a mail. The work is the same for an address that is taken.
    /// Nothing else of the registration is stored: a stranger may have sent it, and the holder of the link chooses it.
    /// `language` is that of the browser, if it states one.
    ///
    /// Errors: [`AppError::Invalid`] for text that is no address, or one outside of `registration.email_domains`;
    /// [`AppError::TooMany`] too many registrations by the client.
    pub async fn register_address(
        &self,
        context: RequestContext,
        email: &str,
        language: Option<Language>,
    ) -> Result<(), AppError> {
        let email = check_email(email)?;
        self.mail.check_reachable(&email)?;
        check_email_domain(&email, &self.registration.email_domains)?;
        self.limits.throttle().count(RateLimit::Registration, context.client_info.client)?;
        let language = self.mail.language(language);
        let (mail, valid_seconds) = (self.mail.clone(), self.mail.links().valid_seconds(LinkPurpose::Registration));
        self.trail
            .change(context, Event::of(Action::Register), move |change| {
                // The account has an entry when it is created.
                change.needs_no_entry();
                let new = NewRegistration {
                    email: email.as_given(),
                    email_key: email.key(),
                    locale: language.code(),
                    expires_at: change.now.plus_seconds(valid_seconds).naive(),
                };
                let subject = Some(Subject::Registration(registrations::upsert(change.conn, &new)?));
                let recipient = Recipient { address_key: email.key(), address: None, subject };
                mail.send(change, MailKind::Registration, &recipient)
            })
            .await
    }

    /// Stores a new user for an admin or the command line. `registration.mode`, `registration.email_domains` and
    /// `limits.registrations` do not apply.
    ///
    /// Errors: [`AppError::Invalid`] names each bad field, also a role with scopes that a member lacks and the
    /// caller cannot give; [`AppError::Conflict`] an e-mail that is taken.
    pub async fn create_user(
        &self,
        context: RequestContext,
        registration: Registration,
        role: Option<&str>,
    ) -> Result<User, AppError> {
        let role = self.find_role(role.unwrap_or(BuiltInRole::Member.name()));
        let email = self.check_registration(&registration, None, (false, role.as_ref().err()))?;
        let language = self.mail.language(None);
        self.store_user(context, registration.person, email, (role?, language)).await
    }

    /// Stores a new user whose data are valid.
    ///
    /// Errors: [`AppError::Conflict`] if the e-mail is taken; [`AppError::Invalid`] for a role with scopes that
    /// a member lacks and the caller cannot give.
    async fn store_user(
        &self,
        context: RequestContext,
        person: Person,
        email: EmailAddress,
        (role, language): (Role, Language),
    ) -> Result<User, AppError> {
        // The hash comes before the lookup of the e-mail, so each attempt to find out known e-mails costs a hash.
        let hash = self.passwords.create(context.client_info.client, person.password.clone()).await?;
        let mail = self.mail.clone();
        let stored = self.trail.change(context, Event::of(Action::Register), move |change| {
            may_promote(change, &change.roles.get(BuiltInRole::Member.name()), &role)?;
            let locale = language.code();
            let new = NewAccount { person: &person, hash: &hash, email: &email, role: &role, locale, proof: None };
            let user = create_account(change, &new)?;
            mail.notify(change, MailKind::EmailVerification, &user)?;
            Ok(user)
        });
        stored.await.map(|user| user.into_domain(&self.roles, false))
    }

    /// Errors: [`AppError::Forbidden`] if `registration.mode` is `invited` or `closed`.
    pub fn require_open_registration(&self) -> Result<(), AppError> {
        match self.registration.mode {
            RegistrationMode::Open | RegistrationMode::Verified => Ok(()),
            RegistrationMode::Invited | RegistrationMode::Closed => {
                Err(AppError::Forbidden(Denial::RegistrationClosed))
            }
        }
    }

    /// Checks the length of a first name: `registration.name_min_length` to [`TEXT_MAX`] characters.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), FieldError> {
        let (min, length) = (self.registration.name_min_length, name.chars().count());
        if length < min || u64::try_from(length).is_ok_and(|length| length > TEXT_MAX) {
            return Err(FieldError::new("name", "length", format!("Use {min} to {TEXT_MAX} characters.")));
        }
        Ok(())
    }

    /// The bad fields of a new user, without the e-mail address.
    pub(super) fn errors_of_person(&self, person: &Person) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = self.check_name(&person.name).err().into_iter().collect();
        errors.extend(validation_errors(&person));
        errors.extend(self.check_password("password", &person.password).err());
        errors
    }

    /// Validates a registration and returns its e-mail address. Errors: all bad fields at once, with `role_error`.
    pub(super) fn check_registration(
        &self,
        registration: &Registration,
        domains: Option<&EmailDomains>,
        (is_proved, role_error): (bool, Option<&FieldError>),
    ) -> Result<EmailAddress, AppError> {
        let Registration { person, email: given } = registration;
        let mut errors = self.errors_of_person(person);
        errors.extend(role_error.cloned());
        let email = check_email(given).and_then(|email| {
            // The person who has a link was reached.
            if !is_proved {
                self.mail.check_reachable(&email)?;
            }
            domains.map_or(Ok(()), |domains| check_email_domain(&email, domains))?;
            Ok(email)
        });
        let email = email.map_err(|error| errors.push(error)).ok();
        let Person { name, surname, password, .. } = person;
        errors.extend(check_not_own_name("password", password, [given, name, surname]).err());
        match email {
            Some(email) if errors.is_empty() => Ok(email),
            _ => Err(AppError::Invalid(errors)),
        }
    }
}

/// Rejects an address of another domain than those in `domains`.
pub(crate) fn check_email_domain(email: &EmailAddress, domains: &EmailDomains) -> Result<(), FieldError> {
    if domains.allow(email) {
        return Ok(());
    }
    Err(FieldError::new("email", "domain", format!("Use an address of one of these domains: {domains}.")))
}
