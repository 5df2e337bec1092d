//! The user list: all users, the user with an e-mail address, or users whose e-mail, name or surname contains a text.

use validator::Validate;

use crate::db::user_search::{self, Matches, Texts};
use crate::db::{Conn, users};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::error::{AppError, FieldError};
use crate::service::lists::{TOTAL_MAX, Total};
use crate::service::validation::{TEXT_MAX, no_nul};

/// Maximum number of users in one response.
pub const LIMIT_MAX: i64 = 500;
/// Default number of users in one response.
pub const LIMIT_DEFAULT: i64 = 50;
/// Maximum length of a search text, in characters.
pub const SEARCH_MAX: u64 = TEXT_MAX;
/// Number of users that are compared with the text one by one before the index is used. The index is not needed for
/// a text that many users contain, and does not cover texts of one or two characters.
const SCAN_LIMIT: i64 = 5_000;

/// Selects users for a list.
#[derive(Clone, Debug, Validate)]
pub struct UserQuery {
    /// A whole e-mail address, or a part of an e-mail, name or surname, case-insensitive. Empty selects all users.
    #[validate(length(max = SEARCH_MAX), custom(function = no_nul))]
    pub search: String,
    /// Only users with a higher id.
    #[validate(range(min = 0))]
    pub after: i64,
    /// Maximum number of users to return.
    #[validate(range(min = 1, max = LIMIT_MAX))]
    pub limit: i64,
    /// Whether to count all matching users.
    pub with_total: bool,
}

/// Returns the matching users after `query.after`, at most one more than the limit, and the total if it was requested.
///
/// Errors: [`AppError::Invalid`] if the text matches too many users.
pub(crate) fn find(conn: &mut Conn, query: &UserQuery) -> Result<(Vec<users::User>, Option<Total>), AppError> {
    let (after, limit) = (UserId(query.after), query.limit + 1);
    if query.search.is_empty() {
        let total = if query.with_total { Some(Total::of(users::count_up_to(conn, TOTAL_MAX)?)) } else { None };
        return Ok((users::list(conn, after, limit)?, total));
    }
    if let Some(email) = EmailAddress::parse(&query.search)
        && let Some(user) = users::find_by_email(conn, email.key())?
    {
        let total = query.with_total.then(|| Total::of(Some(1)));
        return Ok((Some(user).filter(|user| user.id.0 > after.0).into_iter().collect(), total));
    }
    let text = query.search.to_lowercase();
    let ids = matching_ids(conn, &text, after, limit)?;
    let found = users::find_all(conn, &ids)?;
    let total = if query.with_total { Some(Total::of(count(conn, &text)?)) } else { None };
    Ok((found, total))
}

/// Returns the ids of matching users after `after`, at most `limit`.
fn matching_ids(conn: &mut Conn, text: &str, after: UserId, limit: i64) -> Result<Vec<UserId>, AppError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut found, last) = scan(conn, text, after)?;
    found.truncate(limit);
    let Some(last) = last.filter(|_| found.len() < limit) else {
        return Ok(found);
    };
    let missing = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
    match user_search::matches(conn, text, last, missing)? {
        Matches::Users(more) => found.extend(more),
        Matches::TooMany | Matches::TooShort => return Err(too_broad().into()),
        Matches::NoIndex => return Err(no_index().into()),
    }
    Ok(found)
}

/// Counts the matching users; `None` if there are more than [`TOTAL_MAX`].
fn count(conn: &mut Conn, text: &str) -> Result<Option<i64>, AppError> {
    let (found, last) = scan(conn, text, UserId(0))?;
    let found = match last {
        None => found,
        Some(_) => match user_search::matches(conn, text, UserId(0), TOTAL_MAX + 1)? {
            Matches::Users(found) => found,
            Matches::TooMany => return Ok(None),
            Matches::TooShort => return Err(too_broad().into()),
            Matches::NoIndex => return Err(no_index().into()),
        },
    };
    Ok(i64::try_from(found.len()).ok().filter(|count| *count <= TOTAL_MAX))
}

/// Returns the matching ones of the next [`SCAN_LIMIT`] users, and the last user that was compared if there may be
/// more.
fn scan(conn: &mut Conn, text: &str, after: UserId) -> Result<(Vec<UserId>, Option<UserId>), AppError> {
    let texts = user_search::texts(conn, after, SCAN_LIMIT)?;
    let is_full = texts.len() >= usize::try_from(SCAN_LIMIT).unwrap_or(usize::MAX);
    let last = texts.last().filter(|_| is_full).map(|texts| texts.id);
    Ok((texts.iter().filter(|texts| Texts::contain(texts, text)).map(|texts| texts.id).collect(), last))
}

fn too_broad() -> FieldError {
    let message =
        "Too many users match. Search for a longer text of at least three characters, or for the whole e-mail address.";
    FieldError::new("search", "search_too_broad", message)
}

fn no_index() -> FieldError {
    let message = "The database has no index for this search. Search for the whole e-mail address, or ask the operator \
        to install the extension pg_trgm.";
    FieldError::new("search", "search_too_broad", message)
}
