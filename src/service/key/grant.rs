//! Scopes and expiry of keys, and the rules for granting them: a caller can grant only what its own credential holds.

use serde_json::{Value, json};
use validator::Validate;

use crate::clock::Timestamp;
use crate::db::api_keys::ApiKey;
use crate::domain::principal::{Credential, Identity};
use crate::domain::roles::Roles;
use crate::domain::scope::{Grant, Scope, ScopeSet, is_scope_token};
pub use crate::domain::scope::{SCOPE_MAX, SCOPES_MAX};
use crate::error::{AppError, FieldError};
use crate::service::audit::change::Change;
use crate::service::validation::{TEXT_MAX, readable, validation_errors};

/// Maximum length of a key's name, in characters.
pub const NAME_MAX: u64 = TEXT_MAX;
/// Maximum time until the expiry of a key, in seconds: ten years.
const LIFETIME_MAX: i64 = 3_652 * 86_400;

/// The data of a new key.
#[derive(Debug, Validate)]
pub struct KeyRequest {
    /// Name that the owner gives the key. Length: 1 to [`NAME_MAX`] characters.
    #[validate(
        length(min = 1, max = NAME_MAX),
        custom(function = readable)
    )]
    pub name: String,
    /// Scopes of the key, each once. At most [`SCOPES_MAX`].
    pub scopes: Vec<String>,
    /// Time from which the key is invalid (RFC 3339), within ten years. `None` means no expiry.
    pub expires_at: Option<String>,
}

impl KeyRequest {
    /// A canonical form of the request, to detect repetitions: equal for sorted scopes and equal times.
    pub(crate) fn canonical(&self) -> [Value; 3] {
        let mut scopes = self.scopes.clone();
        scopes.sort_unstable();
        // Equal times with different offsets are equal.
        let normalize =
            |text: &String| Timestamp::parse(text).map_or_else(|| text.clone(), |end| end.utc().to_rfc3339());
        [json!(self.name), json!(scopes), json!(self.expires_at.as_ref().map(normalize))]
    }
}

/// Which external scopes, which are not Latchkey's own, a key can have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ExternalScopes<'r> {
    /// Any, for issued keys. They do not depend on a role.
    Any,
    /// Those of these roles, for own keys. They are in force while the owner's role holds them.
    OfRoles(&'r Roles),
}

/// The validated scopes and expiry of a key.
#[derive(Debug)]
pub(crate) struct KeyTerms {
    pub(crate) grant: Grant,
    pub(crate) expires_at: Option<Timestamp>,
}

impl KeyTerms {
    /// Validates a request. Errors: all bad fields.
    pub(crate) fn read(
        request: &KeyRequest,
        external: ExternalScopes<'_>,
        now: Timestamp,
    ) -> Result<Self, Vec<FieldError>> {
        let mut errors = validation_errors(request);
        let grant = read_scopes(&request.scopes, external).map_err(|error| errors.push(error));
        let expires_at = request.expires_at.as_deref().map(|text| read_expiry(text, now)).transpose();
        let expires_at = expires_at.map_err(|error| errors.push(error));
        match (grant, expires_at) {
            (Ok(grant), Ok(expires_at)) if errors.is_empty() => Ok(Self { grant, expires_at }),
            _ => Err(errors),
        }
    }
}

/// Parses scopes. Errors: too many scopes, or an invalid, repeated or not allowed one.
pub(crate) fn read_scopes(names: &[String], external: ExternalScopes<'_>) -> Result<Grant, FieldError> {
    let error = |code, message: String| Err(FieldError::new("scopes", code, message));
    if names.len() > SCOPES_MAX {
        return error("length", format!("Use at most {SCOPES_MAX} scopes."));
    }
    let mut grant = Grant::default();
    for name in names {
        if !is_scope_token(name) || name.len() > SCOPE_MAX {
            let rule = "A scope has 1 to 128 visible ASCII characters, without quotation marks and backslashes.";
            return error("scope", rule.to_owned());
        }
        if !grant.add(name) {
            return error("repeated", format!("Send each scope once: {name}."));
        }
    }
    match external {
        ExternalScopes::Any => check_spelling(&grant)?,
        ExternalScopes::OfRoles(roles) => {
            if let Some(unknown) = roles.unknown_scope(&grant) {
                return error("unknown_scope", format!("There is no scope {unknown}."));
            }
        }
    }
    Ok(grant)
}

/// Rejects external scopes that are probably misspelt scopes of Latchkey.
fn check_spelling(grant: &Grant) -> Result<(), FieldError> {
    for name in grant.external.iter() {
        if let Some(likely) = Scope::resembled_by(name) {
            let message = format!(
                "There is no scope {name}. Use {}, or another prefix for the scope of another service.",
                likely.name()
            );
            return Err(FieldError::new("scopes", "unknown_scope", message));
        }
    }
    Ok(())
}

/// Parses an expiry (RFC 3339). Errors: no valid time, a time that is not in the future, or more than ten years ahead.
pub(crate) fn read_expiry(text: &str, now: Timestamp) -> Result<Timestamp, FieldError> {
    let error = |code, message: &str| FieldError::new("expires_at", code, message);
    let expires_at = Timestamp::parse(text).ok_or_else(|| error("date-time", Timestamp::FORMAT_HINT))?;
    if expires_at <= now {
        return Err(error("past", "Use a time in the future."));
    }
    if expires_at > now.plus_seconds(LIFETIME_MAX) {
        return Err(error("range", "Use a time within ten years."));
    }
    Ok(expires_at)
}

/// Checks whether the caller may grant `terms` to a new own key.
///
/// - The scopes must be among those of the caller's credential. A narrowed token or a key cannot grant `keys:write` and
///   `keys:issue`.
/// - A key that creates another key must not expire before it, so that no access outlasts the key.
///
/// Errors: [`AppError::Invalid`].
pub(crate) fn may_grant(change: &Change<'_>, terms: &KeyTerms) -> Result<(), AppError> {
    let Some(caller) = &change.caller else {
        return Ok(());
    };
    let mut errors: Vec<FieldError> =
        not_held(CREDENTIAL, &terms.grant.without(&grantable(caller))).into_iter().collect();
    errors.extend(expiry_error(caller, terms.expires_at));
    if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
}

/// Checks whether the caller may grant `terms` to a new issued key of an owner with the role `owner`.
///
/// - Scopes of Latchkey must be among those of the caller's credential, as for own keys. `keys:issue` allows every
///   external scope.
/// - The expiry is limited as for own keys, except that an issued key with external scopes only has no access to the
///   account, and may expire later.
/// - On the command line, scopes of Latchkey must be among those of the owner's role, because others have no effect.
///
/// Errors: [`AppError::Invalid`].
pub(crate) fn may_issue(change: &Change<'_>, terms: &KeyTerms, owner: &str) -> Result<(), AppError> {
    let own = Grant::from(terms.grant.own);
    let Some(caller) = &change.caller else {
        let beyond = own.without(change.roles.get(owner).scopes());
        return not_held("The owner's role", &beyond).map_or(Ok(()), |error| Err(error.into()));
    };
    let mut errors: Vec<FieldError> = not_held(CREDENTIAL, &own.without(&grantable(caller))).into_iter().collect();
    errors.extend(expiry_error(caller, terms.expires_at).filter(|_| !own.is_empty()));
    if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
}

/// Checks whether the caller may get a new secret for `key`, or change its scopes or expiry. `grant` and `expires_at`
/// are the values after the change.
///
/// The caller must hold all scopes of `grant`. A key as the caller must not expire before `expires_at`; this also
/// limits the secret from before a rotation. A key can rotate itself.
///
/// Errors: [`AppError::Invalid`].
pub(crate) fn may_take_over(
    change: &Change<'_>,
    key: &ApiKey,
    grant: &Grant,
    expires_at: Option<Timestamp>,
) -> Result<(), AppError> {
    let Some(caller) = &change.caller else {
        return Ok(());
    };
    let is_itself = matches!(caller.credential, Credential::OwnKey(id) | Credential::IssuedKey(id) if id == key.id);
    let (before, grantable) = (key.grant(), grantable(caller));
    // For a full sign-in token, scopes that the key already has count only as far as the current role holds them.
    let kept = grant.intersection(&before);
    let kept = if caller.narrowed { kept } else { kept.intersection(&caller.level.scopes) };
    let held = if is_itself { &caller.level.scopes } else { &grantable };
    let added = grant.without(&before);
    let beyond = kept.without(held).union(&added.without(&grantable));
    let mut errors: Vec<FieldError> = not_held(CREDENTIAL, &beyond).into_iter().collect();
    errors.extend(expiry_error(caller, expires_at));
    if errors.is_empty() { Ok(()) } else { Err(AppError::Invalid(errors)) }
}

/// The scopes that the caller can grant to keys, or by a role.
pub(crate) fn grantable(caller: &Identity) -> Grant {
    let held = &caller.level.scopes;
    if caller.narrowed { held.without(&key_scopes().into()) } else { held.clone() }
}

/// The error for a key that creates or changes a key which would expire after it.
fn expiry_error(caller: &Identity, expires_at: Option<Timestamp>) -> Option<FieldError> {
    let own = caller.expires_at.filter(|_| caller.key().is_some())?;
    let message = "The key must not expire after the key that creates or changes it. Use a sign-in token, or an \
                   earlier expires_at.";
    expires_at.is_none_or(|requested| requested > own).then(|| FieldError::new("expires_at", "beyond_own", message))
}

/// The scopes that allow a credential to create keys.
fn key_scopes() -> ScopeSet {
    [Scope::KeysWrite, Scope::KeysIssue].into_iter().collect()
}

/// The subject of errors about scopes that the caller's credential does not hold.
const CREDENTIAL: &str = "Your credential";

/// The error for scopes that `holder` does not hold, if there are any.
fn not_held(holder: &str, beyond: &Grant) -> Option<FieldError> {
    let message = format!("{holder} does not hold: {beyond}.");
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
        let code = |names: Vec<String>| read_scopes(&names, ExternalScopes::Any).err().map(|error| error.code);
        let names = |count: usize| (0..count).map(|number| format!("a:{number}")).collect::<Vec<_>>();
        assert_eq!([0, 1, 100].map(names).map(code), [None; 3]);
        assert_eq!([101, 102].map(names).map(code), [Some("length"); 2]);
        assert_eq!(["a", &"a".repeat(128)].map(|name| code(vec![name.to_owned()])), [None; 2]);
        assert_eq!(["", "a b", &"a".repeat(129)].map(|name| code(vec![name.to_owned()])), [Some("scope"); 3]);
        assert_eq!(code(["a", "b", "a"].map(str::to_owned).to_vec()), Some("repeated"));
    }
}
