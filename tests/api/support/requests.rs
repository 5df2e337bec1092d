//! A valid request for every route. Tests that apply to all routes send these requests.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use super::client::{Answer, Client, Credential, PASSWORD, Request};
use super::links::store_link;

/// The kind of caller to which a route returns a 2xx status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallerKind {
    /// A caller without a credential.
    Anonymous,
    /// The member who owns the object.
    Member,
    /// A new member, because the request revokes the token or deletes the account.
    NewMember,
    /// An admin.
    Admin,
    /// The member, with a session.
    InSession,
}

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// JSON text.
    Json(&'static str),
    /// A form.
    Form(&'static [(&'static str, &'static str)]),
}

/// Method and path as in the document; the caller to which the route returns a 2xx status; the route that creates the
/// object of the request, or an empty text; and the body.
///
/// The path and the body can contain members of the created object: `{id}`, `{key}`, `{claim}`. Other placeholders are
/// `{unique}` (a new number), `{link:PURPOSE}` (the secret of a new link with this purpose), `{email}`
/// ([`Callers::email`]), `{member}` (the e-mail address of [`Callers::member`]) and `{password}` (the password of every
/// user).
pub type Entry = (&'static str, CallerKind, &'static str, Body);

#[rustfmt::skip]
pub const REQUESTS: &[Entry] = {
    use Body::{Form, Json, None};
    use CallerKind::{Admin, Anonymous, InSession, Member, NewMember};
    &[
        ("GET /", Anonymous, "", None),
        ("GET /health/live", Anonymous, "", None),
        ("GET /health/ready", Anonymous, "", None),
        ("POST /register", Anonymous, "", Json(r#"{"name": "Adaline", "surname": "Lovelace", "email": "user{unique}@example.org", "website": "https://example.org", "password": "{password}"}"#)),
        ("POST /token", Anonymous, "", Form(&[("grant_type", "password"), ("username", "{email}"), ("password", "{password}")])),
        ("DELETE /token", NewMember, "", None),
        ("POST /session", Anonymous, "", Json(r#"{"email": "{member}", "password": "{password}"}"#)),
        ("GET /session", InSession, "", None),
        ("DELETE /session", Anonymous, "", None),
        ("POST /password-reset", Anonymous, "", Json(r#"{"email": "{email}"}"#)),
        ("POST /password-reset/confirm", Anonymous, "", Json(r#"{"secret": "{link:password_reset}", "new_password": "{password}"}"#)),
        ("POST /email-verification", Anonymous, "", Json(r#"{"email": "{email}"}"#)),
        ("POST /email-verification/confirm", Anonymous, "", Json(r#"{"secret": "{link:email_verification}", "password": "{password}"}"#)),
        ("POST /email-change/confirm", Anonymous, "", Json(r#"{"secret": "{link:email_change}", "password": "{password}"}"#)),
        ("POST /email-change/undo", Anonymous, "", Json(r#"{"secret": "{link:email_undo}"}"#)),
        ("POST /registration/confirm", Anonymous, "", Json(r#"{"secret": "{link:registration}", "name": "Adaline", "surname": "Lovelace", "website": "", "password": "{password}"}"#)),
        ("POST /invitations/accept", Anonymous, "", Json(r#"{"secret": "{link:invitation}", "name": "Adaline", "surname": "Lovelace", "website": "", "password": "{password}"}"#)),
        ("POST /revoke", Anonymous, "", Form(&[("token", "lkt_unknown")])),
        ("POST /introspect", Admin, "", Form(&[("token", "lkt_unknown")])),
        ("GET /authz", Member, "", None),
        ("GET /protected-route", Member, "", None),

        ("GET /me", Member, "", None),
        ("PATCH /me", Member, "", Json(r#"{"website": "elsewhere", "current_password": "{password}"}"#)),
        ("DELETE /me", NewMember, "", None),
        ("PUT /me/password", NewMember, "", Json(r#"{"current_password": "{password}", "new_password": "another password"}"#)),
        ("GET /me/activity", Member, "", None),
        ("GET /me/sessions", Member, "POST /session", None),
        ("DELETE /me/sessions/{id}", Member, "POST /session", None),

        ("GET /me/keys", Member, "POST /me/keys", None),
        ("POST /me/keys", Member, "", Json(r#"{"name": "k", "scopes": []}"#)),
        ("GET /me/keys/{id}", Member, "POST /me/keys", None),
        ("PATCH /me/keys/{id}", Member, "POST /me/keys", Json(r#"{"name": "renamed"}"#)),
        ("DELETE /me/keys/{id}", Member, "POST /me/keys", None),
        ("POST /me/keys/{id}/rotate", Member, "POST /me/keys", Json(r#"{"overlap_seconds": 60}"#)),

        ("GET /keys", Admin, "POST /keys", None),
        ("POST /keys", Admin, "", Json(r#"{"name": "k", "scopes": ["translate:use"], "order": "{unique}", "delivery": "claim"}"#)),
        ("GET /keys/{id}", Admin, "POST /keys", None),
        ("DELETE /keys/{id}", Admin, "POST /keys", None),
        ("POST /keys/claim", Anonymous, "POST /keys", Json(r#"{"claim": "{claim}"}"#)),

        ("GET /users", Admin, "POST /register", None),
        ("POST /users", Admin, "", Json(r#"{"name": "Adaline", "surname": "Lovelace", "email": "created{unique}@example.org", "website": "https://example.org", "password": "{password}", "role": "auditor"}"#)),
        ("GET /users/{id}", Admin, "POST /register", None),
        ("PATCH /users/{id}", Admin, "POST /register", Json(r#"{"role": "auditor", "disabled": true}"#)),
        ("DELETE /users/{id}", Admin, "POST /register", None),
        ("DELETE /users/{id}/token", Admin, "POST /register", None),
        ("GET /users/invitations", Admin, "", None),
        ("POST /users/invitations", Admin, "", Json(r#"{"email": "invited{unique}@example.org", "role": "member"}"#)),
        ("DELETE /users/invitations/{id}", Admin, "POST /users/invitations", None),
        ("POST /users/invitations/{id}/resend", Admin, "POST /users/invitations", None),
        ("GET /audit", Admin, "", None),
        ("GET /stats", Admin, "", None),

        ("GET /page/", Member, "POST /page/", None),
        ("POST /page/", Member, "", Json(r#"{"title": "t", "body": "b"}"#)),
        ("GET /page/{id}", Member, "POST /page/", None),
        ("PUT /page/{id}", Member, "POST /page/", Json(r#"{"title": "u", "body": "c"}"#)),
        ("PATCH /page/{id}", Member, "POST /page/", Json(r#"{"title": "u"}"#)),
        ("DELETE /page/{id}", Member, "POST /page/", None),
        ("GET /page/{id}/history", Member, "POST /page/", None),
    ]
};

/// The entry of this route.
pub fn entry(route: &str) -> &'static Entry {
    let found = REQUESTS.iter().find(|entry| entry.0 == route);
    found.unwrap_or_else(|| panic!("tests/api/support/requests.rs has no request for {route}: add it to REQUESTS"))
}

/// A valid JSON body for the route. Members of a created object are null.
pub fn json_of(route: &str) -> Value {
    let Body::Json(text) = entry(route).3 else { panic!("{route} accepts no JSON") };
    serde_json::from_str(&fill(text, &Value::Null, "")).unwrap()
}

/// Replaces the placeholders in braces.
fn fill(text: &str, object: &Value, email: &str) -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let mut text = text.replace("{email}", email).replace("{password}", PASSWORD);
    if text.contains("{unique}") {
        text = text.replace("{unique}", &COUNT.fetch_add(1, Ordering::Relaxed).to_string());
    }
    for name in ["id", "key", "claim"] {
        let value = object[name].as_str().map_or_else(|| object[name].to_string(), str::to_owned);
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    text
}

/// The client and the credentials that send the requests.
pub struct Callers<'a> {
    pub client: &'a Client,
    pub member: &'a Credential,
    pub admin: &'a Credential,
    /// The e-mail address of a user whose token no test uses.
    pub email: &'a str,
}

impl Callers<'_> {
    /// The credential of a caller of this kind.
    pub async fn credential(&self, kind: CallerKind) -> Credential {
        match kind {
            CallerKind::Anonymous => Credential::None,
            CallerKind::Member => self.member.clone(),
            CallerKind::Admin => self.admin.clone(),
            CallerKind::InSession => self.client.session_of(&self.member_email().await).await.0,
            CallerKind::NewMember => self.client.user(&fill("new{unique}@example.org", &Value::Null, "")).await,
        }
    }

    /// The request of this route on a new object, without a credential.
    pub async fn request(&self, route: &str) -> Request {
        let (_, _, object, body) = entry(route);
        let object = if object.is_empty() { Value::Null } else { self.create(object).await };
        self.build(route, *body, &object).await
    }

    /// The request of this route on a new object, with a credential that returns a 2xx status.
    pub async fn permitted(&self, route: &str) -> Request {
        let caller = self.credential(entry(route).1).await;
        self.request(route).await.credential(&caller)
    }

    async fn create(&self, route: &str) -> Value {
        let (_, kind, _, body) = entry(route);
        let caller = self.credential(*kind).await;
        let answer: Answer = self.build(route, *body, &Value::Null).await.credential(&caller).send().await;
        assert!((200..300).contains(&answer.status), "{route} creates an object: {answer:?}");
        answer.body
    }

    /// The e-mail address of the member.
    async fn member_email(&self) -> String {
        self.client.get("/me", self.member).await.text_of("email")
    }

    async fn build(&self, route: &str, body: Body, object: &Value) -> Request {
        let (method, path) = route.split_once(' ').unwrap();
        let request = self.client.request(method, &fill(path, object, self.email));
        match body {
            Body::None => request,
            Body::Json(text) => {
                let mut text = fill(text, object, self.email);
                if let Some((_, rest)) = text.split_once("{link:") {
                    let purpose = rest.split_once('}').unwrap().0.to_owned();
                    let secret = store_link(self.client, &purpose).await;
                    text = text.replace(&format!("{{link:{purpose}}}"), &secret);
                }
                if text.contains("{member}") {
                    text = text.replace("{member}", &self.member_email().await);
                }
                request.json(&serde_json::from_str(&text).unwrap())
            }
            Body::Form(fields) => {
                let values: Vec<String> = fields.iter().map(|(_, value)| fill(value, object, self.email)).collect();
                let names = fields.iter().map(|(name, _)| *name);
                request.form(&names.zip(values.iter().map(String::as_str)).collect::<Vec<_>>())
            }
        }
    }
}
