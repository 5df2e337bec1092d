//! Users: registration and what operators do with accounts.

use super::Service;
use crate::db::access_tokens;
use crate::db::users::{self, NewUser};
use crate::domain::email::{self, EmailAddress};
use crate::domain::id::UserId;
use crate::domain::password::Password;
use crate::domain::principal::SignedIn;
use crate::domain::user::User;
use crate::error::{AppError, FieldError, Reason, broken_rules};
use validator::{Validate, ValidationError};

/// How many users [`Service::users_after`] answers at most.
pub const LIST_LIMIT: i64 = 500;

/// Shortest first name in characters (C1).
pub const NAME_MIN: u64 = 5;
/// Longest name, surname and website in characters.
pub const TEXT_MAX: u64 = 255;

/// What it takes to register.
#[derive(Debug, Validate)]
pub struct Registration {
    /// First name.
    #[validate(
        length(min = NAME_MIN, max = TEXT_MAX),
        custom(function = no_control_characters)
    )]
    pub name: String,
    /// Family name; may be empty.
    #[validate(
        length(max = TEXT_MAX),
        custom(function = no_control_characters)
    )]
    pub surname: String,
    /// Unique by its canonical form.
    pub email: String,
    /// Any text.
    #[validate(length(max = TEXT_MAX), custom(function = no_nul))]
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

fn no_nul(text: &str) -> Result<(), ValidationError> {
    if text.contains('\0') {
        return Err(ValidationError::new("nul").with_message("The NUL character is not allowed.".into()));
    }
    Ok(())
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
        stored.await?.map(User::from).ok_or_else(email_taken)
    }

    /// The caller. One who was deleted since the guard let them in is nobody.
    pub async fn me(&self, caller: &SignedIn) -> Result<User, AppError> {
        let id = caller.user_id;
        let gone = AppError::Unauthenticated(Reason::BadCredential(caller.carrier));
        self.db.read(move |conn| users::find(conn, id)).await?.map(User::from).ok_or(gone)
    }

    /// Users with ids above `after`, in order, at most [`LIST_LIMIT`].
    pub async fn users_after(&self, after: UserId) -> Result<Vec<User>, AppError> {
        let rows = self.db.read(move |conn| users::list(conn, after, LIST_LIMIT)).await?;
        Ok(rows.into_iter().map(User::from).collect())
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
        removal.await
    }

    /// The address of a registration, or all that is wrong with it at once.
    fn check_registration(&self, registration: &Registration) -> Result<EmailAddress, AppError> {
        let mut errors = registration.validate().map_or_else(|errors| broken_rules(&errors), |()| Vec::new());
        let email = EmailAddress::parse(&registration.email);
        if email.is_none() {
            let rule = format!("Use a valid e-mail address of at most {} characters.", email::MAX_LENGTH);
            errors.push(FieldError::new("email", "email", rule));
        }
        errors.extend(self.check_password(&registration.password).err());
        match email {
            Some(email) if errors.is_empty() => Ok(email),
            _ => Err(AppError::Invalid(errors)),
        }
    }

    fn check_password(&self, password: &Password) -> Result<(), FieldError> {
        let (least, most) = (self.settings.password_min_length, self.settings.password_max_length);
        if password.has_nul() {
            return Err(FieldError::new("password", "nul", "The NUL character is not allowed."));
        }
        if !(least..=most).contains(&password.length()) {
            return Err(FieldError::new("password", "length", format!("Use {least} to {most} characters.")));
        }
        Ok(())
    }
}

fn email_taken() -> AppError {
    AppError::Conflict { code: "email_taken", detail: "A user with this e-mail already exists." }
}
