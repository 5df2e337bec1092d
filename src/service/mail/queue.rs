//! The decisions about requested mails: which are sent, to whom, and with which link.

use super::links::{LinkTarget, Links, MAILS_PER_DAY, has_key};
use super::outgoing::MailValues;
use crate::clock::{Clock, Timestamp};
use crate::db::mail::outbox::{self, Intent};
use crate::db::mail::{Subject, invitations, registrations, replaced_emails};
use crate::db::{self, Conn, known_networks, users};
use crate::domain::email::EmailAddress;
use crate::domain::mail::{Language, MailKind};
use crate::domain::network::Network;
use crate::error::AppError;
use crate::service::limits::lockout::AttemptedAccount;

/// Maximum number of requests that are read at once.
const BATCH: i64 = 50;
/// The number of waiting mails, of all processes, at which those that strangers can cause are dropped.
const WAITING_MAX: i64 = 10_000;
/// How many mails an address gets at most, with those that its known networks request: as [`MailKind::limits`].
const FROM_ALL_NETWORKS: &[(i64, usize)] = &[(3_600, 10), (86_400, MAILS_PER_DAY)];
/// Seconds after the request at which a mail is given up.
const GIVE_UP_SECONDS: i64 = 86_400;

/// A mail that is reserved for an attempt.
pub(super) struct Attempt {
    pub(super) intent: Intent,
    pub(super) kind: MailKind,
    pub(super) subject: Subject,
    pub(super) to: EmailAddress,
    pub(super) language: Language,
    /// The id of its link, if it has one.
    pub(super) link: Option<i64>,
    pub(super) values: MailValues,
}

/// Some of the requested mails, sorted without locks.
pub(super) struct Requests {
    /// The last of them.
    pub(super) last: i64,
    /// When they were sorted.
    pub(super) now: Timestamp,
    /// Those that may be accepted.
    pub(super) acceptable: Vec<i64>,
    /// Those that are not sent.
    pub(super) refused: Vec<i64>,
    /// Those of them that would be sent without the limits.
    pub(super) over_limit: Vec<i64>,
}

/// What was decided about a requested mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is to be sent.
    Accepted,
    /// It is not sent, because the address got too many.
    OverLimit,
    /// No mail is sent for such a request.
    Needless,
    /// Another process has decided about it.
    Taken,
}

/// What becomes of a mail that is due.
pub(super) enum Next {
    /// Another process sends it.
    Taken,
    /// It is no longer to be sent.
    Needless,
    /// It was not sent within a day.
    GivenUp,
    /// It is to be sent.
    Attempt(Box<Attempt>),
}

/// Sorts the requested mails after `after`, the oldest first. Most are refused, and need no transaction of their own.
/// Returns `None` if there are none.
pub(super) fn sort_requests(conn: &mut Conn, after: i64, clock: &Clock) -> Result<Option<Requests>, AppError> {
    let requested = outbox::requests(conn, after, BATCH)?;
    // Read afterwards, so that no request is later than the time at which it is judged.
    let now = clock.now();
    let Some(last) = requested.last().map(|intent| intent.id) else {
        return Ok(None);
    };
    let is_full = outbox::count_waiting(conn)? >= WAITING_MAX;
    let mut requests = Requests { last, now, acceptable: Vec::new(), refused: Vec::new(), over_limit: Vec::new() };
    for intent in requested {
        match decide(conn, &intent, now)? {
            Some((kind, _))
                if !(is_full && kind.is_caused_by_anyone()) && is_within_limits(conn, kind, &intent, now)? =>
            {
                requests.acceptable.push(intent.id);
                continue;
            }
            Some(_) => requests.over_limit.push(intent.id),
            None => {}
        }
        requests.refused.push(intent.id);
    }
    Ok(Some(requests))
}

/// Decides about one requested mail, for all processes.
pub(super) fn accept(conn: &mut Conn, id: i64, now: Timestamp) -> Result<Decision, AppError> {
    db::lock_mail_decisions(conn)?;
    let Some(intent) = outbox::find_request(conn, id)? else {
        return Ok(Decision::Taken);
    };
    // The subject is locked before the mail, as in every other change of both. So it exists until the commit.
    let decided = match decide(conn, &intent, now)? {
        Some((kind, subject)) if lock_subject(conn, subject, now)? => Some((kind, subject)),
        _ => None,
    };
    if outbox::lock_request(conn, id)?.is_none() {
        return Ok(Decision::Taken);
    }
    match decided {
        Some((kind, subject)) if is_within_limits(conn, kind, &intent, now)? => {
            outbox::accept(conn, id, kind.name(), subject, now)?;
            Ok(Decision::Accepted)
        }
        decided => {
            outbox::delete(conn, id)?;
            Ok(if decided.is_some() { Decision::OverLimit } else { Decision::Needless })
        }
    }
}

/// Locks the subject of a mail. Returns whether it exists, and mails to it are sent.
fn lock_subject(conn: &mut Conn, subject: Subject, now: Timestamp) -> Result<bool, AppError> {
    Ok(match subject {
        Subject::User(user) => users::lock(conn, user)?.is_some_and(|user| user.disabled_at.is_none()),
        Subject::Registration(id) => registrations::lock(conn, id, now)?.is_some(),
        Subject::Invitation(id) => invitations::lock(conn, id)?.is_some(),
    })
}

/// The kind of mail that is sent for a request, and its subject; `None` if none is sent.
fn decide(conn: &mut Conn, intent: &Intent, now: Timestamp) -> Result<Option<(MailKind, Subject)>, AppError> {
    let Some(kind) = MailKind::of(&intent.kind) else {
        return Ok(None);
    };
    let holder = users::find_by_email(conn, &intent.address_key)?;
    if holder.as_ref().is_some_and(|holder| holder.disabled_at.is_some()) {
        return Ok(None);
    }
    let holder_subject = holder.as_ref().map(|user| Subject::User(user.id));
    Ok(match (kind, holder_subject) {
        // The owner of the address gets a notice that somebody tried to use it. The response shows nothing.
        (MailKind::Registration | MailKind::EmailChange | MailKind::Invitation, Some(holder))
            if intent.subject != Some(holder) =>
        {
            Some((MailKind::AccountExists, holder))
        }
        // The owner of a replaced address gets the link that undoes the change again.
        (MailKind::PasswordReset, None) => replaced_emails::find(conn, &intent.address_key, now)?
            .map(|replaced| (MailKind::EmailUndo, Subject::User(replaced.user_id))),
        // The address is taken: another account can restore it.
        (MailKind::Registration | MailKind::EmailVerification | MailKind::EmailChange | MailKind::Invitation, None)
            if replaced_emails::find(conn, &intent.address_key, now)?
                .is_some_and(|replaced| intent.subject != Some(Subject::User(replaced.user_id))) =>
        {
            None
        }
        (MailKind::EmailVerification, None) => registrations::find_for(conn, &intent.address_key, now)?
            .map(|id| (MailKind::Registration, Subject::Registration(id))),
        (MailKind::EmailVerification, Some(subject)) => {
            let is_verified = holder.is_some_and(|user| user.email_verified_at.is_some());
            (!is_verified).then_some((kind, subject))
        }
        (_, subject) => intent.subject.or(subject).map(|subject| (kind, subject)),
    })
}

/// Whether the address did not get too many mails of this kind. Strangers must not use up the mails of a user who is on
/// a network of an earlier sign-in: its requests have limits of their own.
fn is_within_limits(conn: &mut Conn, kind: MailKind, intent: &Intent, now: Timestamp) -> Result<bool, AppError> {
    let own = if kind == MailKind::PasswordReset { known_network(conn, intent)? } else { None };
    let mut mails = MailsTo { kind, address_key: &intent.address_key, network: own };
    if reached_limit(conn, &mails, kind.limits(), 0, now)?.is_some() {
        return Ok(false);
    }
    // A person who knows the password can sign in from many networks.
    mails.network = None;
    Ok(own.is_none() || reached_limit(conn, &mails, FROM_ALL_NETWORKS, 0, now)?.is_none())
}

/// The network of a request, if its user has signed in from there. Only for a verified address: anyone can register
/// another one, and sign in.
fn known_network(conn: &mut Conn, intent: &Intent) -> Result<Option<Network>, AppError> {
    let Some(client) = intent.client.as_deref().and_then(|client| client.parse().ok()) else {
        return Ok(None);
    };
    let user = users::find_by_email(conn, &intent.address_key)?;
    let Some(user) = user.filter(|user| user.email_verified_at.is_some()) else {
        return Ok(None);
    };
    let is_known = match AttemptedAccount::of(&user, Some(client)).network() {
        Some(network) => known_networks::seen_at(conn, network)?.is_some(),
        None => false,
    };
    Ok(is_known.then(|| Network::of(client)))
}

/// Mails that are limited together.
pub(super) struct MailsTo<'a> {
    pub(super) kind: MailKind,
    /// The canonical address.
    pub(super) address_key: &'a str,
    /// Only those that this network has requested, or an unknown one.
    pub(super) network: Option<Network>,
}

/// The limit of these mails that is reached, and the seconds until one more is accepted. `requested` further ones count
/// as accepted now.
pub(super) fn reached_limit(
    conn: &mut Conn,
    mails: &MailsTo<'_>,
    limits: &[(i64, usize)],
    requested: usize,
    now: Timestamp,
) -> Result<Option<(usize, i64)>, AppError> {
    let Some(longest) = limits.iter().map(|(seconds, _)| *seconds).max() else {
        return Ok(None);
    };
    let accepted = outbox::accepted_since(conn, mails.kind.name(), mails.address_key, now.plus_seconds(-longest))?;
    let is_counted = |client: Option<&str>| {
        let network = client.and_then(|client| client.parse().ok()).map(Network::of);
        // Those of a deleted account name no client.
        mails.network.is_none() || network.is_none() || mails.network == network
    };
    let mut times: Vec<Timestamp> =
        accepted.iter().filter(|(_, client)| is_counted(client.as_deref())).map(|(at, _)| *at).collect();
    times.extend(std::iter::repeat_n(now, requested));
    times.sort_unstable();
    let wait = |(seconds, most): &(i64, usize)| {
        let within: Vec<&Timestamp> = times.iter().filter(|at| **at > now.plus_seconds(-*seconds)).collect();
        let first = within.len().checked_sub(*most).and_then(|index| within.get(index))?;
        Some((*most, first.seconds() + seconds - now.seconds()))
    };
    Ok(limits.iter().filter_map(wait).max_by_key(|(_, seconds)| *seconds))
}

/// Reserves a mail that was due for `reserved_seconds`, and makes its link.
pub(super) fn next(
    conn: &mut Conn,
    links: &Links,
    found: &Intent,
    reserved_seconds: i64,
    now: Timestamp,
) -> Result<Next, AppError> {
    let is_old = now >= found.created_at.plus_seconds(GIVE_UP_SECONDS);
    // The row of the user is locked first, as in every other change of a user.
    let recipient = if is_old { None } else { recipient(conn, found, now)? };
    let Some(intent) = outbox::lock_due(conn, found.id, now)? else {
        return Ok(Next::Taken);
    };
    if is_old {
        outbox::delete(conn, intent.id)?;
        return Ok(Next::GivenUp);
    }
    let parts = recipient.and_then(|Destination { subject, address, locale, until }| {
        Some((subject, MailKind::of(&intent.kind)?, EmailAddress::parse(&address)?, locale, until))
    });
    let Some((subject, kind, to, locale, until)) = parts else {
        outbox::delete(conn, intent.id)?;
        return Ok(Next::Needless);
    };
    let mut values =
        MailValues { requested_at: Some(intent.created_at), client: intent.client.clone(), ..MailValues::default() };
    let mut link_id = None;
    if let Some(purpose) = kind.purpose() {
        let target = LinkTarget { purpose, subject, address: to.as_given(), mailed: true, until };
        let link = links.create(conn, target, now)?;
        link_id = Some(link.id);
        (values.valid_seconds, values.link) = (link.valid_seconds, link.reveal());
    }
    outbox::reserve(conn, intent.id, intent.attempts + 1, now.plus_seconds(reserved_seconds))?;
    let language = Language::of(&locale).unwrap_or_default();
    Ok(Next::Attempt(Box::new(Attempt { intent, kind, subject, to: to.for_smtp(), language, link: link_id, values })))
}

/// To whom a mail goes.
struct Destination {
    subject: Subject,
    address: String,
    /// The code of the language.
    locale: String,
    /// The end of the subject, if it has one.
    until: Option<Timestamp>,
}

/// The recipient of a mail, with the row of the subject locked; `None` if it is no longer to be sent. Disabled users get
/// no mail.
fn recipient(conn: &mut Conn, intent: &Intent, now: Timestamp) -> Result<Option<Destination>, AppError> {
    let (Some(subject), Some(kind)) = (intent.subject, MailKind::of(&intent.kind)) else {
        return Ok(None);
    };
    let found = match subject {
        Subject::User(user) => {
            let user = users::lock(conn, user)?.filter(|user| user.disabled_at.is_none());
            match user {
                Some(user) => {
                    let address = address_of(conn, &user, kind, intent, now)?;
                    address.map(|(address, until)| (address, user.locale, until))
                }
                None => None,
            }
        }
        Subject::Registration(id) => {
            let registration = registrations::lock(conn, id, now)?;
            registration.map(|found| (found.email, found.locale, Some(found.expires_at)))
        }
        Subject::Invitation(id) => {
            let invitation = invitations::lock(conn, id)?.filter(|invitation| now < invitation.expires_at);
            invitation.map(|found| (found.email, found.locale, Some(found.expires_at)))
        }
    };
    Ok(found.map(|(address, locale, until)| Destination { subject, address, locale, until }))
}

/// The address of a user to which a mail goes, and the end of what its link acts on, if that has one. The address is always
/// one that is stored. `None` if the account has changed so that the mail is of no use, or its link must not be made.
fn address_of(
    conn: &mut Conn,
    user: &users::User,
    kind: MailKind,
    intent: &Intent,
    now: Timestamp,
) -> Result<Option<(String, Option<Timestamp>)>, AppError> {
    let address = match kind {
        MailKind::EmailChanged | MailKind::EmailUndo => {
            let replaced = replaced_emails::find(conn, &intent.address_key, now)?;
            let replaced = replaced.filter(|replaced| replaced.user_id == user.id);
            return Ok(replaced.map(|replaced| (replaced.email, Some(replaced.expires_at))));
        }
        MailKind::EmailChange => user.pending_email.clone().filter(|pending| has_key(pending, &intent.address_key)),
        _ if kind.purpose().is_none() => intent.address.clone().or_else(|| Some(user.email.clone())),
        MailKind::EmailVerification if user.email_verified_at.is_some() => None,
        MailKind::EmailVerification | MailKind::PasswordReset | MailKind::EmailRestored
            if user.email_key != intent.address_key =>
        {
            None
        }
        _ => Some(user.email.clone()),
    };
    Ok(address.map(|address| (address, None)))
}
