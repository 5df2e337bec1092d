//! The `outbox` table: mails to send. A row states what a mail is about, never its text.

use chrono::NaiveDateTime;
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::Nullable;

use super::Subject;
use crate::clock::Timestamp;
use crate::db::cached::Cached;
use crate::db::engine::connection::Conn;
use crate::db::engine::connection::{free_locked, on_backend, one_locked};
use crate::db::schema::outbox;
use crate::domain::id::UserId;
use crate::domain::secret::Digest;
use crate::error::AppError;

/// The end of an open mail whose account is deleted.
const DONE: &str = "COALESCE(done_at, created_at)";

/// A mail to send.
#[derive(Clone, Debug)]
pub struct NewIntent<'a> {
    /// The name of the kind of mail.
    pub kind: &'a str,
    /// The canonical address for which the mail was requested.
    pub address_key: &'a str,
    /// The address of the account at the time of the request, if that names the account. A notice goes there, even if
    /// the account has another address when it is sent.
    pub address: Option<&'a str>,
    /// What the mail is about, if the request named it.
    pub subject: Option<Subject>,
    /// The client address of the request.
    pub client: Option<String>,
}

/// A new row of `outbox`.
#[derive(Insertable)]
#[diesel(table_name = outbox, treat_none_as_default_value = false)]
struct NewRow<'a> {
    kind: &'a str,
    address_key: &'a str,
    address_digest: String,
    address: Option<&'a str>,
    user_id: Option<i64>,
    registration_id: Option<i64>,
    invitation_id: Option<i64>,
    client: Option<String>,
    created_at: NaiveDateTime,
    due_at: NaiveDateTime,
    attempts: i64,
    unanswered: bool,
}

/// A mail to send.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Never reused.
    pub id: i64,
    /// The name of the kind of mail.
    pub kind: String,
    /// The canonical address for which the mail was requested. It may belong to no account.
    pub address_key: String,
    /// The address of the account at the time of the request, to which a notice goes.
    pub address: Option<String>,
    /// What the mail is about, if the request named it.
    pub subject: Option<Subject>,
    /// The client address of the request.
    pub client: Option<String>,
    /// When the mail was requested.
    pub created_at: Timestamp,
    /// The number of attempts to send it so far.
    pub attempts: i64,
    /// Whether the SMTP server got the whole mail and did not answer, so that it may have been delivered.
    pub unanswered: bool,
}

/// A row of `outbox`.
#[derive(Queryable, Selectable)]
#[diesel(table_name = outbox)]
struct Row {
    id: i64,
    kind: String,
    address_key: Option<String>,
    address: Option<String>,
    user_id: Option<i64>,
    registration_id: Option<i64>,
    invitation_id: Option<i64>,
    client: Option<String>,
    created_at: NaiveDateTime,
    attempts: i64,
    unanswered: bool,
}

impl From<Row> for Intent {
    fn from(row: Row) -> Self {
        Self {
            id: row.id,
            kind: row.kind,
            // Rows without it are done.
            address_key: row.address_key.unwrap_or_default(),
            address: row.address,
            subject: Subject::of((row.user_id, row.registration_id, row.invitation_id)),
            client: row.client,
            created_at: row.created_at.into(),
            attempts: row.attempts,
            unanswered: row.unanswered,
        }
    }
}

/// Inserts a mail to send.
pub fn insert(conn: &mut Conn, new: &NewIntent<'_>, now: Timestamp) -> Result<(), AppError> {
    let (user_id, registration_id, invitation_id) = new.subject.map_or((None, None, None), Subject::columns);
    let row = NewRow {
        kind: new.kind,
        address_key: new.address_key,
        address_digest: digest_of(new.address_key),
        address: new.address,
        user_id,
        registration_id,
        invitation_id,
        client: new.client.clone(),
        created_at: now.naive(),
        due_at: now.naive(),
        attempts: 0,
        unanswered: false,
    };
    let insert = Cached(diesel::insert_into(outbox::table).values(row));
    on_backend!(conn => insert.execute(conn))?;
    Ok(())
}

/// At most `limit` mails after `after` that were requested and neither accepted nor dropped, the oldest first.
pub fn requests(conn: &mut Conn, after: i64, limit: i64) -> Result<Vec<Intent>, AppError> {
    let later = requested().filter(outbox::id.gt(after));
    let rows: Vec<Row> = later.order(outbox::id).limit(limit).select(Row::as_select()).load(conn)?;
    Ok(rows.into_iter().map(Intent::from).collect())
}

/// A mail that was requested; `None` if it was accepted or dropped meanwhile.
pub fn find_request(conn: &mut Conn, id: i64) -> Result<Option<Intent>, AppError> {
    let found = requested().filter(outbox::id.eq(id)).select(Row::as_select());
    Ok(found.get_result(conn).optional()?.map(Intent::from))
}

/// As [`find_request`], with the row locked.
pub fn lock_request(conn: &mut Conn, id: i64) -> Result<Option<Intent>, AppError> {
    let row: Option<Row> = one_locked!(conn => requested().filter(outbox::id.eq(id)).select(Row::as_select()))?;
    Ok(row.map(Intent::from))
}

/// Deletes those of these mails that were neither accepted nor dropped, except rows that are locked. Returns those that
/// were deleted.
pub fn delete_requests(conn: &mut Conn, ids: &[i64]) -> Result<Vec<i64>, AppError> {
    let found = requested().filter(outbox::id.eq_any(ids)).order(outbox::id);
    let ids: Vec<i64> = free_locked!(conn => found.select(outbox::id))?;
    diesel::delete(outbox::table.filter(outbox::id.eq_any(&ids))).execute(conn)?;
    Ok(ids)
}

/// When the mails of this kind for this address that were accepted at or after `since` were accepted, and the client
/// addresses of their requests.
pub fn accepted_since(
    conn: &mut Conn,
    kind: &str,
    address_key: &str,
    since: Timestamp,
) -> Result<Vec<(Timestamp, Option<String>)>, AppError> {
    let same = outbox::table.filter(outbox::address_digest.eq(digest_of(address_key))).filter(outbox::kind.eq(kind));
    let accepted = same.filter(outbox::accepted_at.ge(since.naive())).select((outbox::accepted_at, outbox::client));
    let rows: Vec<(Option<NaiveDateTime>, Option<String>)> = accepted.load(conn)?;
    Ok(rows.into_iter().filter_map(|(at, client)| Some((Timestamp::from(at?), client))).collect())
}

/// The number of mails of this kind for this address that were neither accepted nor dropped.
pub fn count_requested(conn: &mut Conn, kind: &str, address_key: &str) -> Result<i64, AppError> {
    let for_address = requested().filter(outbox::address_digest.eq(digest_of(address_key)));
    Ok(for_address.filter(outbox::kind.eq(kind)).count().get_result(conn)?)
}

/// Accepts a mail whose row is locked, as one of this kind and about this subject.
pub fn accept(conn: &mut Conn, id: i64, kind: &str, subject: Subject, now: Timestamp) -> Result<(), AppError> {
    let (user_id, registration_id, invitation_id) = subject.columns();
    diesel::update(outbox::table.find(id))
        .set((
            outbox::kind.eq(kind),
            outbox::user_id.eq(user_id),
            outbox::registration_id.eq(registration_id),
            outbox::invitation_id.eq(invitation_id),
            outbox::accepted_at.eq(Some(now.naive())),
        ))
        .execute(conn)?;
    Ok(())
}

/// Deletes a mail. It is not sent.
pub fn delete(conn: &mut Conn, id: i64) -> Result<(), AppError> {
    diesel::delete(outbox::table.find(id)).execute(conn)?;
    Ok(())
}

/// Deletes the personal data in the mails to a deleted user and in those for the address. Open ones are not sent. The
/// rows remain for the limits per address, with a digest of it: otherwise each deletion would allow further mails.
pub fn delete_of(conn: &mut Conn, user: UserId, address_key: &str) -> Result<(), AppError> {
    let ended = (
        outbox::address_key.eq(None::<String>),
        outbox::address.eq(None::<String>),
        outbox::client.eq(None::<String>),
        outbox::user_id.eq(None::<i64>),
        outbox::done_at.eq(sql::<Nullable<diesel::sql_types::Timestamp>>(DONE)),
    );
    // Two statements, so that each uses an index.
    let for_address = outbox::table.filter(outbox::address_digest.eq(digest_of(address_key)));
    diesel::update(for_address).set(ended.clone()).execute(conn)?;
    diesel::update(outbox::table.filter(outbox::user_id.eq(user.0))).set(ended).execute(conn)?;
    Ok(())
}

/// Records that mails of these kinds will not be sent: those to a user, and those that were requested for an address and
/// not accepted yet.
pub fn end_of(
    conn: &mut Conn,
    (user, address_key): (UserId, &str),
    kinds: &[&str],
    now: Timestamp,
) -> Result<(), AppError> {
    let done = outbox::done_at.eq(Some(now.naive()));
    let open = || outbox::table.filter(outbox::done_at.is_null()).filter(outbox::kind.eq_any(kinds.to_vec()));
    diesel::update(open().filter(outbox::user_id.eq(user.0))).set(done).execute(conn)?;
    let for_address = open().filter(outbox::address_digest.eq(digest_of(address_key)));
    diesel::update(for_address.filter(outbox::user_id.is_null())).set(done).execute(conn)?;
    Ok(())
}

/// Records that no open mail will be sent. Returns their number.
pub fn end_all(conn: &mut Conn, now: Timestamp) -> Result<usize, AppError> {
    let open = outbox::table.filter(outbox::done_at.is_null());
    Ok(diesel::update(open).set(outbox::done_at.eq(Some(now.naive()))).execute(conn)?)
}

/// The accepted mail that has been due for longest, except some, and except those to addresses of these domains.
pub fn next_due(
    conn: &mut Conn,
    now: Timestamp,
    except: &[i64],
    domains: &[String],
) -> Result<Option<Intent>, AppError> {
    let mut found = due(now).filter(outbox::id.ne_all(except)).order(outbox::due_at).limit(1).into_boxed();
    for domain in domains {
        found = found.filter(outbox::address_key.not_like(format!("%@{domain}")));
    }
    let rows: Vec<Row> = found.select(Row::as_select()).load(conn)?;
    Ok(rows.into_iter().next().map(Intent::from))
}

/// An accepted mail that is due, with the row locked; `None` if another process has reserved or locked it.
pub fn lock_due(conn: &mut Conn, id: i64, now: Timestamp) -> Result<Option<Intent>, AppError> {
    let rows: Vec<Row> = free_locked!(conn => due(now).filter(outbox::id.eq(id)).select(Row::as_select()))?;
    Ok(rows.into_iter().next().map(Intent::from))
}

/// Reserves a mail for one attempt: no other process attempts it before `until`.
pub fn reserve(conn: &mut Conn, id: i64, attempt: i64, until: Timestamp) -> Result<(), AppError> {
    diesel::update(outbox::table.find(id))
        .set((outbox::due_at.eq(until.naive()), outbox::attempts.eq(attempt)))
        .execute(conn)?;
    Ok(())
}

/// Sets the time at which a mail that is due is looked at again, unless another process has reserved it.
pub fn postpone(conn: &mut Conn, id: i64, now: Timestamp, until: Timestamp) -> Result<(), AppError> {
    diesel::update(due(now).filter(outbox::id.eq(id))).set(outbox::due_at.eq(until.naive())).execute(conn)?;
    Ok(())
}

/// Sets the time of the next attempt.
pub fn defer(conn: &mut Conn, id: i64, until: Timestamp) -> Result<(), AppError> {
    diesel::update(outbox::table.find(id)).set(outbox::due_at.eq(until.naive())).execute(conn)?;
    Ok(())
}

/// Sets the time of the last attempt for a mail that may have been delivered.
pub fn defer_unanswered(conn: &mut Conn, id: i64, until: Timestamp) -> Result<(), AppError> {
    diesel::update(outbox::table.find(id))
        .set((outbox::due_at.eq(until.naive()), outbox::unanswered.eq(true)))
        .execute(conn)?;
    Ok(())
}

/// Records that a mail was sent, or will never be.
pub fn mark_done(conn: &mut Conn, id: i64, now: Timestamp) -> Result<(), AppError> {
    diesel::update(outbox::table.find(id)).set(outbox::done_at.eq(Some(now.naive()))).execute(conn)?;
    Ok(())
}

/// The number of accepted mails that are neither sent nor given up.
pub fn count_waiting(conn: &mut Conn) -> Result<i64, AppError> {
    let waiting = outbox::table.filter(outbox::done_at.is_null()).filter(outbox::accepted_at.is_not_null());
    Ok(waiting.count().get_result(conn)?)
}

/// Deletes at most `limit` mails that were requested at or before `end`, except rows that are locked. Returns the
/// number of deleted rows.
pub fn delete_old(conn: &mut Conn, end: Timestamp, limit: i64) -> Result<usize, AppError> {
    let old = outbox::table.filter(outbox::created_at.le(end.naive()));
    let ids: Vec<i64> = free_locked!(conn => old.order(outbox::created_at).limit(limit).select(outbox::id))?;
    Ok(diesel::delete(outbox::table.filter(outbox::id.eq_any(ids))).execute(conn)?)
}

fn digest_of(address_key: &str) -> String {
    Digest::of(address_key).to_hex()
}

/// The mails that were requested and neither accepted nor dropped.
#[diesel::dsl::auto_type(no_type_alias)]
fn requested() -> _ {
    outbox::table.filter(outbox::accepted_at.is_null()).filter(outbox::done_at.is_null())
}

/// The accepted mails that are due.
#[diesel::dsl::auto_type(no_type_alias)]
fn due(now: Timestamp) -> _ {
    let now: NaiveDateTime = now.naive();
    outbox::table
        .filter(outbox::done_at.is_null())
        .filter(outbox::accepted_at.is_not_null())
        .filter(outbox::due_at.le(now))
}
