//! One's own account.

use validator::{Validate, ValidationError};

use super::Service;
use super::failures::{self, AttemptedAccount, LockoutPolicy, account_of};
use super::rules::{TEXT_MAX, broken, readable};
use super::token::{Confirmed, wrong_password};
use super::trail::Change;
use super::user::{NAME_MIN, check_email, email_taken, end_after_new_password, not_their_own};
use crate::db::sign_in_failures;
use crate::db::users::{self, UserChange};
use crate::domain::audit::{Action, Call, Event, Target};
use crate::domain::email::EmailAddress;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::user::User;
use crate::error::{AppError, FieldError};

/// What a user sets of their own; `None` leaves it.
#[derive(Debug, Validate)]
#[validate(schema(function = something_to_change))]
pub struct AccountEdit {
    /// First name.
    #[validate(
        length(min = NAME_MIN, max = TEXT_MAX),
        custom(function = readable)
    )]
    pub name: Option<String>,
    /// Family name; may be empty.
    #[validate(
        length(max = TEXT_MAX),
        custom(function = readable)
    )]
    pub surname: Option<String>,
    /// Unique by its canonical form.
    pub email: Option<String>,
    /// Any text.
    #[validate(length(max = TEXT_MAX), custom(function = readable))]
    pub website: Option<String>,
    /// Needed to change the e-mail.
    pub current_password: Option<Password>,
}

fn something_to_change(edit: &AccountEdit) -> Result<(), ValidationError> {
    if [&edit.name, &edit.surname, &edit.email, &edit.website].iter().all(|field| field.is_none()) {
        return Err(ValidationError::new("missing").with_message("Send at least one field to change.".into()));
    }
    Ok(())
}

impl Service {
    /// The caller. One who was deleted since the guard let them in is nobody.
    pub async fn me(&self, call: &Call) -> Result<User, AppError> {
        let id = call.user()?.user_id;
        self.db.read(move |conn| users::find(conn, id)).await?.map(User::from).ok_or_else(|| call.no_longer_known())
    }

    /// Changes the caller's own data. A new e-mail takes the current password.
    pub async fn edit_account(&self, call: Call, edit: AccountEdit) -> Result<User, AppError> {
        let mut errors = broken(&edit);
        let email = match edit.email.as_deref().map(check_email) {
            Some(Err(error)) => {
                errors.push(error);
                None
            }
            email => email.and_then(Result::ok),
        };
        if edit.email.is_some() && edit.current_password.is_none() {
            errors.push(FieldError::new("current_password", "missing", "A new e-mail takes the current password."));
        }
        if !errors.is_empty() {
            return Err(AppError::Invalid(errors));
        }
        let user = call.user()?.user_id;
        let confirmed = match edit.current_password.clone() {
            Some(password) => Some(self.confirm_password(&call, user, password).await?),
            None => None,
        };
        let (lockout, confirmation) = (self.lockout, confirmed.as_ref().map(Confirmed::what));
        let changed = self.change(call, Event::of(Action::EditUser).on(Target::User(user)), move |change| {
            let before = own(change, lockout, confirmation.as_ref())?;
            let after = users::update(
                change.conn,
                user,
                &UserChange {
                    name: edit.name.as_deref(),
                    surname: edit.surname.as_deref(),
                    email: email.as_ref().map(EmailAddress::as_given),
                    email_key: email.as_ref().map(EmailAddress::key),
                    website: edit.website.as_deref(),
                    ..UserChange::none(change.now)
                },
            )?
            .ok_or_else(email_taken)?;
            if before.email_key != after.email_key {
                sign_in_failures::forget(change.conn, account_of(&after))?;
            }
            let fields = [
                ("name", before.name != after.name),
                ("surname", before.surname != after.surname),
                ("email", before.email != after.email),
                ("website", before.website != after.website),
            ];
            change.record(|event| event.changed_where(fields))?;
            Ok(after)
        });
        let changed = changed.await.map(User::from);
        drop(confirmed);
        changed
    }

    /// Replaces the caller's password. All that it had opened is ended: the token, and if `revoke_keys`, the keys that
    /// act on Latchkey's data for the user.
    pub async fn change_password(
        &self,
        call: Call,
        current: Password,
        new: Password,
        revoke_keys: bool,
    ) -> Result<(), AppError> {
        self.check_password("new_password", &new)?;
        let user = call.user()?.user_id;
        let confirmed = self.confirm_password(&call, user, current).await?;
        let hash = self.hasher.create(call.origin.client, new.clone()).await?;
        let (lockout, confirmation) = (self.lockout, confirmed.what());
        let changed = self.change(call, Event::of(Action::SetPassword).on(Target::User(user)), move |change| {
            let row = own(change, lockout, Some(&confirmation))?;
            not_their_own("new_password", &new, [&row.email, &row.name, &row.surname])?;
            failures::forget_all(change.conn, &row)?;
            users::set_password(change.conn, user, &hash, change.now)?;
            end_after_new_password(change, user, revoke_keys)
        });
        let changed = changed.await;
        drop(confirmed);
        self.wake_cleanup();
        changed
    }

    /// Removes the caller with all that belongs to them.
    pub async fn delete_account(&self, call: Call) -> Result<(), AppError> {
        let user = call.user()?.user_id;
        self.delete_user(call, user).await
    }
}

/// The caller's row, if the password that they confirmed is still theirs, and nobody has guessed at it meanwhile: to ask
/// in parallel gains nothing.
fn own(
    change: &mut Change<'_>,
    lockout: Option<LockoutPolicy>,
    confirmation: Option<&(PasswordHash, AttemptedAccount)>,
) -> Result<users::User, AppError> {
    let row = change.caller_row.take().ok_or(AppError::NotFound("user"))?;
    let Some((hash, attempted)) = confirmation else {
        return Ok(row);
    };
    let standing = failures::standing(change.conn, lockout, *attempted, change.now)?;
    if standing.reason.is_some() || *hash != row.hashed_password {
        return Err(wrong_password());
    }
    Ok(row)
}
