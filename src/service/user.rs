//! Users: registration and what operators do with accounts.

use super::Service;
use crate::db::access_tokens;
use crate::db::users::{self, NewUser};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::error::{AppError, FieldError};
use validator::{Validate, ValidationError};

pub use crate::db::users::User;

/// How many users [`Service::users_after`] answers at most.
pub const LIST_LIMIT: i64 = 500;

/// Shortest first name in characters (C1).
pub const NAME_MIN: u64 = 5;
/// Longest name, surname and website in characters.
pub const TEXT_MAX: u64 = 255;

const EMAIL_RULE: &str = "Use a valid e-mail address of at most 254 characters.";

/// What it takes to register.
#[derive(Debug, Validate)]
pub struct Registration {
    /// First name.
    #[validate(
        length(min = NAME_MIN, max = TEXT_MAX, message = "Use 5 to 255 characters."),
        custom(function = no_control_characters)
    )]
    pub name: String,
    /// Family name; may be empty.
    #[validate(
        length(max = TEXT_MAX, message = "Use at most 255 characters."),
        custom(function = no_control_characters)
    )]
    pub surname: String,
    /// Unique by its canonical form.
    #[validate(custom(function = email_address))]
    pub email: String,
    /// Any text.
    #[validate(length(max = TEXT_MAX, message = "Use at most 255 characters."))]
    pub website: String,
    /// Its bounds are settings.
    pub password: Password,
}

fn no_control_characters(text: &str) -> Result<(), ValidationError> {
    if text.chars().any(char::is_control) {
        return Err(ValidationError::new("control").with_message("Control characters are not allowed.".into()));
    }
    Ok(())
}

fn email_address(text: &str) -> Result<(), ValidationError> {
    match EmailAddress::parse(text) {
        Some(_) => Ok(()),
        None => Err(ValidationError::new("email").with_message(EMAIL_RULE.into())),
    }
}

impl Service {
    /// Stores a new user. Errors: [`AppError::Invalid`] names each bad field, [`AppError::Conflict`] a known e-mail.
    pub async fn register(&self, registration: Registration) -> Result<User, AppError> {
        let email = self.check_registration(&registration)?;
        let Registration { name, surname, website, password, .. } = registration;
        let key = email.key().to_owned();
        // Spares a hash; what decides is the insert below.
        if self.db.read(move |conn| users::find_by_email(conn, &key)).await?.is_some() {
            return Err(email_taken());
        }
        let hash = self.hasher.create(password).await?;
        let now = self.clock.now().naive();
        let stored = self.db.write(move |conn| {
            users::insert(
                conn,
                &NewUser {
                    name: &name,
                    surname: &surname,
                    email: email.as_given(),
                    email_key: email.key(),
                    website: &website,
                    hashed_password: hash.as_str(),
                    created_at: now,
                    updated_at: now,
                },
            )
        });
        stored.await?.ok_or_else(email_taken)
    }

    /// The user with this id.
    pub async fn user(&self, id: UserId) -> Result<User, AppError> {
        self.db.read(move |conn| users::find(conn, id)).await?.ok_or(AppError::NotFound("user"))
    }

    /// Users with ids above `after`, in order, at most [`LIST_LIMIT`].
    pub async fn users_after(&self, after: UserId) -> Result<Vec<User>, AppError> {
        self.db.read(move |conn| users::list(conn, after, LIST_LIMIT)).await
    }

    /// Gives a user a new password and ends their sign-in token.
    pub async fn set_password(&self, email: &EmailAddress, password: Password) -> Result<(), AppError> {
        self.check_password(&password)?;
        let hash = self.hasher.create(password).await?;
        let (key, now) = (email.key().to_owned(), self.clock.now());
        let change = self.db.write(move |conn| {
            let user = users::find_by_email(conn, &key)?.ok_or(AppError::NotFound("user"))?;
            users::set_password(conn, user.id, &hash, now)?;
            access_tokens::delete_of(conn, user.id)
        });
        change.await
    }

    /// Removes a user with all that belongs to them.
    pub async fn delete_user(&self, email: &EmailAddress) -> Result<(), AppError> {
        let key = email.key().to_owned();
        let removal = self.db.write(move |conn| {
            let user = users::find_by_email(conn, &key)?.ok_or(AppError::NotFound("user"))?;
            users::delete(conn, user.id)
        });
        removal.await.map(|_| ())
    }

    /// All that is wrong with a registration at once, or its address.
    fn check_registration(&self, registration: &Registration) -> Result<EmailAddress, AppError> {
        let rules = registration.validate().map_err(AppError::from);
        let password = self.check_password(&registration.password);
        match (rules, password) {
            (Ok(()), Ok(())) => EmailAddress::parse(&registration.email)
                .ok_or_else(|| FieldError::new("email", "email", EMAIL_RULE).into()),
            (Err(AppError::Invalid(mut errors)), Err(password)) => {
                errors.push(password);
                Err(AppError::Invalid(errors))
            }
            (Err(error), _) => Err(error),
            (Ok(()), Err(password)) => Err(password.into()),
        }
    }

    fn check_password(&self, password: &Password) -> Result<(), FieldError> {
        let (least, most) = (self.settings.password_min_length, self.settings.password_max_length);
        if (least..=most).contains(&password.length()) {
            return Ok(());
        }
        Err(FieldError::new("password", "length", format!("Use {least} to {most} characters.")))
    }
}

fn email_taken() -> AppError {
    AppError::Conflict { code: "email_taken", detail: "A user with this e-mail already exists." }
}
