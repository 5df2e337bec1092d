//! What every new account and every new address of an account passes through.

use validator::Validate;

use crate::clock::Timestamp;
use crate::db::mail::{Subject, invitations, registrations, replaced_emails};
use crate::db::users::{self, NewUser};
use crate::db::{Conn, sign_in_failures};
use crate::domain::audit::{Actor, Target};
use crate::domain::email::EmailAddress;
use crate::domain::password::{Password, PasswordHash};
use crate::domain::principal::Level;
use crate::domain::roles::Role;
use crate::error::AppError;
use crate::service::audit::change::Change;
use crate::service::limits::lockout::account_of;
use crate::service::mail::links::link_invalid;
use crate::service::validation::{TEXT_MAX, readable};

/// What a new user chooses, apart from the e-mail address.
#[derive(Debug, Validate)]
pub struct Person {
    /// First name. Length: `registration.name_min_length` to [`TEXT_MAX`] characters.
    #[validate(custom(function = readable))]
    pub name: String,
    /// Family name of at most [`TEXT_MAX`] characters; may be empty.
    #[validate(
        length(max = TEXT_MAX),
        custom(function = readable)
    )]
    pub surname: String,
    /// Text of at most [`TEXT_MAX`] characters; may be empty.
    #[validate(length(max = TEXT_MAX), custom(function = readable))]
    pub website: String,
    /// Password. Its length bounds are `auth.password_min_length` and `auth.password_max_length`.
    pub password: Password,
}

/// A new account whose data are valid.
pub(super) struct NewAccount<'a> {
    pub(super) person: &'a Person,
    pub(super) hash: &'a PasswordHash,
    pub(super) email: &'a EmailAddress,
    pub(super) role: &'a Role,
    /// The code of the language of mails.
    pub(super) locale: &'a str,
    /// The invitation or registration whose link created the account, and so proved the address.
    pub(super) proof: Option<Subject>,
}

/// What was there for an address when an account got it.
struct Claimed {
    invitation: bool,
    registration: bool,
}

/// Stores a new account, and records it.
///
/// Errors: [`AppError::Conflict`] for an address that is taken; [`AppError::Gone`] if the proof was used or revoked.
pub(super) fn create_account(change: &mut Change<'_>, new: &NewAccount<'_>) -> Result<users::User, AppError> {
    let NewAccount { person, hash, email, role, locale, proof } = new;
    let now = change.now.naive();
    let user = users::insert(
        change.conn,
        &NewUser {
            name: &person.name,
            surname: &person.surname,
            email: email.as_given(),
            email_key: email.key(),
            website: &person.website,
            hashed_password: hash.as_str(),
            created_at: now,
            updated_at: now,
            role: role.name().as_str(),
            locale,
            email_verified_at: proof.map(|_| now),
        },
    )?;
    let Some(user) = user else {
        if let Some(known) = users::find_by_email(change.conn, email.key())? {
            change.set_target(Target::User(known.id));
        }
        return Err(email_taken());
    };
    let claimed = claim(change, &user)?;
    let mut detail = role.name().to_string();
    let is_proved = match proof {
        None => true,
        Some(Subject::Invitation(id)) => {
            detail = format!("{detail}, {}", Target::Invitation(*id));
            claimed.invitation
        }
        Some(Subject::Registration(_)) => claimed.registration,
        Some(Subject::User(_)) => false,
    };
    if !is_proved {
        return Err(link_invalid());
    }
    if proof.is_some() {
        change.set_actor(Actor::link(user.id, Level::of(role)));
    }
    change.set_target(Target::User(user.id));
    change.record(|event| event.detail(detail))?;
    Ok(user)
}

/// Ends what others have begun with an address that an account has got: invitations, registrations and failed sign-ins.
///
/// Errors: [`AppError::Conflict`] if another account can restore the address.
pub(super) fn claim_address(change: &mut Change<'_>, user: &users::User) -> Result<(), AppError> {
    claim(change, user).map(drop)
}

fn claim(change: &mut Change<'_>, user: &users::User) -> Result<Claimed, AppError> {
    // The row of the user is written first: the unique index makes this wait for a change that frees the address.
    if let Some(replaced) = replaced_emails::find(change.conn, &user.email_key, change.now)? {
        if replaced.user_id != user.id {
            change.set_target(Target::User(replaced.user_id));
            return Err(email_taken());
        }
        replaced_emails::delete_for(change.conn, &user.email_key)?;
    }
    // Failed sign-ins from before the account had the address must not lock it out.
    sign_in_failures::delete(change.conn, account_of(user))?;
    end_candidates(change.conn, &user.email_key)
}

/// Deletes the invitation and the registration for an address.
pub(super) fn forget_candidates(conn: &mut Conn, email_key: &str) -> Result<(), AppError> {
    end_candidates(conn, email_key).map(drop)
}

fn end_candidates(conn: &mut Conn, email_key: &str) -> Result<Claimed, AppError> {
    Ok(Claimed {
        invitation: invitations::delete_for(conn, email_key)?,
        registration: registrations::delete_for(conn, email_key)?,
    })
}

/// Whether an account has this address, or can restore it.
pub(super) fn is_taken(conn: &mut Conn, email: &EmailAddress, now: Timestamp) -> Result<bool, AppError> {
    Ok(users::find_by_email(conn, email.key())?.is_some() || replaced_emails::find(conn, email.key(), now)?.is_some())
}

pub(crate) fn email_taken() -> AppError {
    AppError::Conflict { code: "email_taken", detail: "A user with this e-mail already exists." }
}
