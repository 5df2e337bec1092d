//! The values of filters of the audit trail. A value that no entry can have is an error, because an empty list would
//! read as "nothing happened".

use crate::db::OWNED;
use crate::domain::audit::{Action, Filter, TrailPart};
use crate::error::{AppError, FieldError};

/// Actors without an account.
const ACTORS: [&str; 5] = ["command-line", "server", "static-key", "anonymous", "various"];
/// Kinds of actors with an id.
const ACTOR_KINDS: [&str; 2] = ["user", "key"];
/// Kinds of targets with an id, besides the objects that accounts own.
const TARGET_KINDS: [&str; 5] = ["user", "session", "key", "invitation", "token-of-user"];
/// Targets without an id, besides routes.
const TARGETS: [&str; 3] = ["tokens", TrailPart::All.name(), TrailPart::AnonymousFailures.name()];
/// Maximum number of digits of an id.
const ID_DIGITS: usize = 19;

/// The regular expression of actors.
pub fn actor_pattern() -> String {
    let (kinds, actors) = (ACTOR_KINDS.join("|"), ACTORS.join("|"));
    format!("^(({kinds}):{}|{actors})$", id_pattern())
}

/// The regular expression of targets.
pub fn target_pattern() -> String {
    let (kinds, targets) = (target_kinds().join("|"), TARGETS.join("|"));
    format!(r"^(({kinds}):{}|{targets}|[!-~]+ /[^\u0000]*)$", id_pattern())
}

fn id_pattern() -> String {
    format!("[1-9][0-9]{{0,{}}}", ID_DIGITS - 1)
}

/// The kinds of targets with an id.
fn target_kinds() -> Vec<String> {
    let owned = OWNED.iter().map(|kind| (kind.target)(1).to_string().trim_end_matches(":1").to_owned());
    TARGET_KINDS.into_iter().map(str::to_owned).chain(owned).collect()
}

/// Errors: a field for each value that no entry can have.
pub(super) fn check(filter: &Filter) -> Result<(), AppError> {
    let mut errors = Vec::new();
    if let Some(actor) = &filter.actor
        && !ACTORS.contains(&actor.as_str())
        && !has_id(actor, &ACTOR_KINDS)
    {
        let forms = forms(&ACTOR_KINDS).chain(ACTORS.map(str::to_owned)).collect::<Vec<_>>().join(", ");
        errors.push(FieldError::new("actor", "unknown", format!("Use one of: {forms}.")));
    }
    if let Some(action) = &filter.action
        && !Action::ALL.iter().any(|known| known.name() == action)
    {
        let names: Vec<&str> = Action::ALL.iter().map(|action| action.name()).collect();
        errors.push(FieldError::new("action", "unknown", format!("Use one of: {}.", names.join(", "))));
    }
    let kinds = target_kinds();
    if let Some(target) = &filter.target
        && !TARGETS.contains(&target.as_str())
        && !has_id(target, &kinds)
        && !is_route(target)
    {
        let forms = forms(&kinds).chain(TARGETS.map(str::to_owned)).collect::<Vec<_>>().join(", ");
        let message = format!("Use one of: {forms}, or a route such as GET /users.");
        errors.push(FieldError::new("target", "unknown", message));
    }
    if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
}

fn forms<S: AsRef<str>>(kinds: &[S]) -> impl Iterator<Item = String> {
    kinds.iter().map(|kind| format!("{}:<id>", kind.as_ref()))
}

/// Whether the text is one of these kinds, a colon, and an id.
fn has_id<S: AsRef<str>>(text: &str, kinds: &[S]) -> bool {
    text.split_once(':').is_some_and(|(kind, id)| {
        let is_id = (1..=ID_DIGITS).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit());
        is_id && !id.starts_with('0') && kinds.iter().any(|known| known.as_ref() == kind)
    })
}

/// Whether the text is a method and a path.
fn is_route(text: &str) -> bool {
    text.split_once(' ').is_some_and(|(method, path)| {
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_graphic());
        is_method && path.starts_with('/') && !path.contains('\0')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Actor, Caller, Target};
    use crate::domain::id::{KeyId, PageId, UserId};

    fn bad_fields(actor: &str, target: &str) -> Vec<String> {
        let filter = Filter { actor: Some(actor.to_owned()), target: Some(target.to_owned()), ..Filter::default() };
        match check(&filter) {
            Ok(()) => Vec::new(),
            Err(AppError::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn every_actor_and_every_target_that_is_written_can_be_read() {
        for actor in [Actor::anonymous(), Actor::various(), Actor::caller(&Caller::CommandLine)] {
            assert!(bad_fields(&actor.actor, "tokens").is_empty(), "{actor:?}");
        }
        for actor in ["user:1", "key:9223372036854775807", "static-key", "server"] {
            assert!(bad_fields(actor, "tokens").is_empty(), "{actor}");
        }
        let route = Target::Route("GET /users/{id}".to_owned());
        let (user, key, page) = (Target::User(UserId(1)), Target::Key(KeyId(20)), Target::Page(PageId(3)));
        for target in
            [route, user, key, page, Target::Token(UserId(1)), Target::AllTokens, Target::Trail(TrailPart::All)]
        {
            assert!(bad_fields("user:1", &target.to_string()).is_empty(), "{target}");
        }
    }

    #[test]
    fn a_value_that_no_entry_has_is_refused() {
        let wrong =
            ["", "user", "user:", "users:1", "User:1", "user:01", "user:0", "user:-1", "user:x", "user: 1", "1"];
        for text in wrong.into_iter().chain(["user:12345678901234567890", "nobody"]) {
            assert_eq!(bad_fields(text, text), ["actor", "target"], "{text}");
        }
        assert_eq!(bad_fields("page:1", "anonymous"), ["actor", "target"]);
        assert_eq!(bad_fields("user:1", " /users"), ["target"]);
    }
}
