//! New users: who can register, the rules for names and e-mail domains, and the storage of a new user.

use validator::Validate;

use crate::config::{EmailDomains, RegistrationMode};
use crate::db::sign_in_failures;
use crate::db::users::{self, NewUser};
use crate::domain::audit::{Action, Event, RequestContext, Target};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{Language, MailKind};
use crate::domain::password::Password;
use crate::domain::role::BuiltInRole;
use crate::domain::roles::Role;
use crate::domain::user::User;
use crate::error::{AppError, Denial, FieldError};
use crate::metrics::hourly::CountedEvent;
use crate::service::Service;
use crate::service::account::users::{check_email, check_not_own_name, may_promote};
use crate::service::limits::lockout::account_of;
use crate::service::limits::throttle::RateLimit;
use crate::service::validation::{TEXT_MAX, readable, validation_errors};

/// The data of a new user.
#[derive(Debug, Validate)]
pub struct Registration {
    /// First name. Length: `registration.name_min_length` to [`TEXT_MAX`] characters.
    #[validate(custom(function = readable))]
    pub name: String,
    /// Family name of at most [`TEXT_MAX`] characters; may be empty.
    #[validate(
        length(max = TEXT_MAX),
        custom(function = readable)
    )]
    pub surname: String,
    /// E-mail address, unique in its canonical form.
    pub email: String,
    /// Text of at most [`TEXT_MAX`] characters; may be empty.
    #[validate(length(max = TEXT_MAX), custom(function = readable))]
    pub website: String,
    /// Password. Its length bounds are `auth.password_min_length` and `auth.password_max_length`.
    pub password: Password,
}

impl Service {
    /// Stores a new user who registers, with the role `member`. With `registration.mode = "verified"`, stores the
    /// registration only, requests a mail, and returns `None`, whether or not the e-mail is taken.
    ///
    /// Errors: [`AppError::Forbidden`] if registration is closed. [`AppError::Invalid`] names each bad field, also an
    /// e-mail outside of `registration.email_domains`, [`AppError::Conflict`] an e-mail that is taken,
    /// [`AppError::TooMany`] too many registrations by the client.
    pub async fn register(
        &self,
        context: RequestContext,
        registration: Registration,
    ) -> Result<Option<User>, AppError> {
        self.require_open_registration()?;
        let email = self.check_registration(&registration, Some(&self.registration.email_domains), None)?;
        self.limits.throttle().count(RateLimit::Registration, context.client_info.client)?;
        if self.registration.mode == RegistrationMode::Verified {
            return self.store_registration(context, registration, email).await.map(|()| None);
        }
        let member = self.find_role(BuiltInRole::Member.name())?;
        let language = self.mail.language(context.client_info.language);
        let user = self.store_user(context, registration, email, (member, language)).await?;
        self.metrics.hourly().add(CountedEvent::Registration);
        Ok(Some(user))
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
        let email = self.check_registration(&registration, None, role.as_ref().err())?;
        let language = self.mail.language(None);
        self.store_user(context, registration, email, (role?, language)).await
    }

    /// Stores a new user whose data are valid.
    ///
    /// Errors: [`AppError::Conflict`] if the e-mail is taken; [`AppError::Invalid`] for a role with scopes that
    /// a member lacks and the caller cannot give.
    async fn store_user(
        &self,
        context: RequestContext,
        registration: Registration,
        email: EmailAddress,
        (role, language): (Role, Language),
    ) -> Result<User, AppError> {
        let Registration { name, surname, website, password, .. } = registration;
        // The hash comes before the lookup of the e-mail, so each attempt to find out known e-mails costs a hash.
        let hash = self.passwords.create(context.client_info.client, password).await?;
        let mail = self.mail.clone();
        let stored = self.trail.change(context, Event::of(Action::Register), move |change| {
            may_promote(change, &change.roles.get(BuiltInRole::Member.name()), &role)?;
            let now = change.now.naive();
            let user = users::insert(
                change.conn,
                &NewUser {
                    name: &name,
                    surname: &surname,
                    email: email.as_given(),
                    email_key: email.key(),
                    website: &website,
                    hashed_password: hash.as_str(),
                    created_at: now,
                    updated_at: now,
                    role: role.name().as_str(),
                    locale: language.code(),
                    email_verified_at: None,
                },
            )?;
            let Some(user) = user else {
                if let Some(known) = users::find_by_email(change.conn, email.key())? {
                    change.set_target(Target::User(known.id));
                }
                return Err(email_taken());
            };
            // Failed sign-ins from before the account existed must not lock it out.
            sign_in_failures::delete(change.conn, account_of(&user))?;
            change.set_target(Target::User(user.id));
            change.record(|event| event.detail(role.name().as_str()))?;
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

    /// The bad fields of a registration, without its e-mail address.
    pub(super) fn errors_of_person(&self, registration: &Registration) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = self.check_name(&registration.name).err().into_iter().collect();
        errors.extend(validation_errors(&registration));
        errors.extend(self.check_password("password", &registration.password).err());
        errors
    }

    /// Validates a registration and returns its e-mail address. Errors: all bad fields at once, with `role_error`.
    pub(super) fn check_registration(
        &self,
        registration: &Registration,
        domains: Option<&EmailDomains>,
        role_error: Option<&FieldError>,
    ) -> Result<EmailAddress, AppError> {
        let mut errors = self.errors_of_person(registration);
        errors.extend(role_error.cloned());
        let email = check_email(&registration.email).and_then(|email| {
            domains.map_or(Ok(()), |domains| check_email_domain(&email, domains))?;
            Ok(email)
        });
        let email = email.map_err(|error| errors.push(error)).ok();
        let Registration { name, surname, email: given, password, .. } = registration;
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

pub(crate) fn email_taken() -> AppError {
    AppError::Conflict { code: "email_taken", detail: "A user with this e-mail already exists." }
}
