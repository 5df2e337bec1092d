//! Which users to list: all of them, the one with an e-mail address, or those with a text in e-mail, name or surname.

use super::user::UserQuery;
use super::{TOTAL_MAX, Total};
use crate::db::user_search::{self, Matches, Texts};
use crate::db::{Conn, users};
use crate::domain::email::EmailAddress;
use crate::domain::id::UserId;
use crate::error::{AppError, FieldError};

/// So many users are compared with a text one by one before the index is asked: a text that is common among them needs
/// none, and a text of one or two characters has none.
const COMPARED: i64 = 5_000;

/// The users after `after` whom the query means, one more than its limit if there are more, and how many in all, if
/// that was asked.
pub(super) fn find(conn: &mut Conn, query: &UserQuery) -> Result<(Vec<users::User>, Option<Total>), AppError> {
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
    let ids = matching(conn, &text, after, limit)?;
    let found = users::find_all(conn, &ids)?;
    // Last: if it takes too long, PostgreSQL answers nothing more in this transaction.
    let total = if query.with_total { Some(Total::of(count(conn, &text)?)) } else { None };
    Ok((found, total))
}

/// The users after `after` who match, at most `limit`.
fn matching(conn: &mut Conn, text: &str, after: UserId, limit: i64) -> Result<Vec<UserId>, AppError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut found, last) = compare(conn, text, after)?;
    found.truncate(limit);
    let Some(last) = last.filter(|_| found.len() < limit) else {
        return Ok(found);
    };
    let missing = i64::try_from(limit - found.len()).unwrap_or(i64::MAX);
    match user_search::matches(conn, text, last, missing)? {
        Matches::Users(more) => found.extend(more),
        Matches::TooMany | Matches::NotIndexed => return Err(too_broad().into()),
    }
    Ok(found)
}

/// How many users match; `None` if more than [`TOTAL_MAX`].
fn count(conn: &mut Conn, text: &str) -> Result<Option<i64>, AppError> {
    let (found, last) = compare(conn, text, UserId(0))?;
    let found = match last {
        None => found,
        Some(_) => match user_search::matches(conn, text, UserId(0), TOTAL_MAX + 1)? {
            Matches::Users(found) => found,
            Matches::TooMany => return Ok(None),
            Matches::NotIndexed => return Err(too_broad().into()),
        },
    };
    Ok(i64::try_from(found.len()).ok().filter(|count| *count <= TOTAL_MAX))
}

/// Those of the next [`COMPARED`] users who match, and the last one who was compared, unless there are no more.
fn compare(conn: &mut Conn, text: &str, after: UserId) -> Result<(Vec<UserId>, Option<UserId>), AppError> {
    let texts = user_search::texts(conn, after, COMPARED)?;
    let is_full = texts.len() >= usize::try_from(COMPARED).unwrap_or(usize::MAX);
    let last = texts.last().filter(|_| is_full).map(|texts| texts.id);
    Ok((texts.iter().filter(|texts| Texts::contain(texts, text)).map(|texts| texts.id).collect(), last))
}

fn too_broad() -> FieldError {
    let message = "Too many users match. Search for a longer part of the name, of three characters or more, or for the \
                   whole e-mail address.";
    FieldError::new("search", "search_too_broad", message)
}
