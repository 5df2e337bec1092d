//! What a key may be given: scopes and a life, by a caller who has as much.

use serde_json::{Value, json};
use validator::Validate;

use super::rules::{TEXT_MAX, broken, readable};
use super::trail::Change;
use crate::clock::Timestamp;
use crate::db::api_keys::ApiKey;
use crate::domain::principal::{Credential, Identity};
use crate::domain::role::Role;
use crate::domain::scope::{Grant, Scope, ScopeSet, is_scope_token};
use crate::error::{AppError, FieldError};

/// Longest name of a key, in characters.
pub const NAME_MAX: u64 = TEXT_MAX;
/// Most scopes of one key.
pub const SCOPES_MAX: usize = 100;
/// Longest name of a scope, in characters.
pub const SCOPE_MAX: usize = 128;
/// How far in the future an expiry may lie, in seconds: ten years.
const LIFE_MAX: i64 = 3_652 * 86_400;

/// What is asked for a key.
#[derive(Debug, Validate)]
pub struct KeyRequest {
    /// What its owner calls it.
    #[validate(
        length(min = 1, max = NAME_MAX),
        custom(function = readable)
    )]
    pub name: String,
    /// What it may do, each scope once.
    pub scopes: Vec<String>,
    /// The first moment at which it is dead (RFC 3339); never if `None`.
    pub expires_at: Option<String>,
}

impl KeyRequest {
    /// What tells one request from another, in one spelling.
    pub(super) fn canonical(&self) -> [Value; 3] {
        let mut scopes = self.scopes.clone();
        scopes.sort_unstable();
        // The same moment is the same, however it is written.
        let moment = |text: &String| Timestamp::parse(text).map_or_else(|| text.clone(), |end| end.utc().to_rfc3339());
        [json!(self.name), json!(scopes), json!(self.expires_at.as_ref().map(moment))]
    }
}

/// Whether scopes that Latchkey does not know are acceptable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Foreign {
    /// For keys that are issued to others.
    Allowed,
    /// For everything else.
    Refused,
}

/// What a key is good for, and until when.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) grant: Grant,
    pub(super) expires_at: Option<Timestamp>,
}

impl Terms {
    /// Reads a request, or tells all that is wrong with it.
    pub(super) fn read(request: &KeyRequest, foreign: Foreign, now: Timestamp) -> Result<Self, Vec<FieldError>> {
        let mut errors = broken(request);
        let grant = read_scopes(&request.scopes, foreign).map_err(|error| errors.push(error));
        let expires_at = request.expires_at.as_deref().map(|text| read_expiry(text, now)).transpose();
        let expires_at = expires_at.map_err(|error| errors.push(error));
        match (grant, expires_at) {
            (Ok(grant), Ok(expires_at)) if errors.is_empty() => Ok(Self { grant, expires_at }),
            _ => Err(errors),
        }
    }
}

/// The scopes of these names, each of which stands once.
pub(super) fn read_scopes(names: &[String], foreign: Foreign) -> Result<Grant, FieldError> {
    let complain = |code, message: String| Err(FieldError::new("scopes", code, message));
    if names.len() > SCOPES_MAX {
        return complain("length", format!("Use at most {SCOPES_MAX} scopes."));
    }
    let mut grant = Grant::default();
    for name in names {
        if !is_scope_token(name) || name.len() > SCOPE_MAX {
            let rule = "A scope is 1 to 128 visible ASCII characters without quotation mark and backslash.";
            return complain("scope", rule.to_owned());
        }
        if !grant.add(name) {
            return complain("repeated", format!("Name each scope once: {name}."));
        }
    }
    match grant.foreign.first() {
        Some(unknown) if foreign == Foreign::Refused => {
            complain("unknown_scope", format!("There is no scope {unknown}."))
        }
        _ => Ok(grant),
    }
}

/// The moment of this text, within ten years.
pub(super) fn read_expiry(text: &str, now: Timestamp) -> Result<Timestamp, FieldError> {
    let complain = |code, message: &str| FieldError::new("expires_at", code, message);
    let moment = Timestamp::parse(text).ok_or_else(|| complain("date-time", Timestamp::FORM))?;
    if moment <= now {
        return Err(complain("past", "Use a time in the future."));
    }
    if moment > now.plus_seconds(LIFE_MAX) {
        return Err(complain("range", "Use a time within ten years."));
    }
    Ok(moment)
}

/// Whether the caller may give `terms` to a new key of somebody with the role `owner`.
///
/// Nobody gives a power of Latchkey's own that they have not got. What holds less than its user gives no power to make
/// keys, and a key no longer life than its own, so that what ends leaves nothing behind that does not. A key that is
/// issued with foreign scopes alone opens nothing of its maker's, and may live as long as it was sold for. The command
/// line is bound by the owner's role, beyond which a key would be good for nothing.
pub(super) fn may_give(change: &Change<'_>, terms: &Terms, foreign: Foreign, owner: Role) -> Result<(), AppError> {
    let Some(caller) = &change.caller else {
        return not_held(terms.grant.own.without(owner.scopes())).map_or(Ok(()), |error| Err(error.into()));
    };
    let opens_nothing = foreign == Foreign::Allowed && terms.grant.own.is_empty();
    let mut errors: Vec<FieldError> = not_held(terms.grant.own.without(gives(caller))).into_iter().collect();
    errors.extend(outlives(caller, terms.expires_at).filter(|_| !opens_nothing));
    if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
}

/// Whether the caller may take over `key` as it is to be: its secret, other scopes, or another life. That takes all that
/// the key is good for, and of a key a life that is not shorter: the secret before a rotation does not get back what it
/// is losing. A key may rotate itself.
pub(super) fn may_take_over(
    change: &Change<'_>,
    key: &ApiKey,
    grant: &Grant,
    expires_at: Option<Timestamp>,
) -> Result<(), AppError> {
    let Some(caller) = &change.caller else {
        return Ok(());
    };
    let is_itself = matches!(caller.credential, Credential::OwnKey(id) | Credential::IssuedKey(id) if id == key.id);
    let before = key.grant().own;
    // What it holds already counts, for a user who is fully signed in, as far as the role goes today.
    let kept = grant.own.intersection(before);
    let kept = if caller.narrowed { kept } else { kept.intersection(caller.level.role.scopes()) };
    let held = if is_itself { caller.level.scopes } else { gives(caller) };
    let added = grant.own.without(before);
    let beyond = kept.without(held).union(added.without(gives(caller)));
    let mut errors: Vec<FieldError> = not_held(beyond).into_iter().collect();
    errors.extend(outlives(caller, expires_at));
    if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
}

/// What the caller may pass on.
fn gives(caller: &Identity) -> ScopeSet {
    if caller.narrowed { caller.level.scopes.without(makes_keys()) } else { caller.level.scopes }
}

/// The complaint about a key that makes or changes a key to live longer than itself.
fn outlives(caller: &Identity, expires_at: Option<Timestamp>) -> Option<FieldError> {
    let own = caller.expires_at.filter(|_| caller.key().is_some())?;
    let message =
        "A key gives no key a longer life than its own. Use a sign-in token, or an expires_at that is not later.";
    expires_at.is_none_or(|asked| asked > own).then(|| FieldError::new("expires_at", "beyond_own", message))
}

fn makes_keys() -> ScopeSet {
    [Scope::KeysWrite, Scope::KeysIssue].into_iter().collect()
}

fn not_held(beyond: ScopeSet) -> Option<FieldError> {
    let message = format!("Not yours to give: {beyond}.");
    (!beyond.is_empty()).then(|| FieldError::new("scopes", "scope_not_held", message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn an_expiry_is_after_now_and_within_ten_years() {
        let now = Clock::default().now();
        let code = |seconds| read_expiry(&now.plus_seconds(seconds).to_string(), now).err().map(|error| error.code);
        assert_eq!([-1, 0].map(code), [Some("past"); 2]);
        assert_eq!([1, 3_652 * 86_400].map(code), [None; 2]);
        assert_eq!(code(3_652 * 86_400 + 1), Some("range"));
    }

    #[test]
    fn a_key_has_at_most_a_hundred_scopes_of_at_most_128_characters() {
        let code = |names: Vec<String>| read_scopes(&names, Foreign::Allowed).err().map(|error| error.code);
        let names = |count: usize| (0..count).map(|number| format!("a:{number}")).collect::<Vec<_>>();
        assert_eq!([0, 1, 100].map(names).map(code), [None; 3]);
        assert_eq!([101, 102].map(names).map(code), [Some("length"); 2]);
        assert_eq!(["a", &"a".repeat(128)].map(|name| code(vec![name.to_owned()])), [None; 2]);
        assert_eq!(["", "a b", &"a".repeat(129)].map(|name| code(vec![name.to_owned()])), [Some("scope"); 3]);
        assert_eq!(code(["a", "b", "a"].map(str::to_owned).to_vec()), Some("repeated"));
    }
}
