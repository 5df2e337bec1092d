//! What a resource declares for the OpenAPI document, beside its handlers.

use serde_json::{Value, json};

/// What paperclip cannot gather from the handlers of a resource. [`routes`](super::routes) lists all resources, in the
/// order of the page.
#[derive(Default)]
pub(crate) struct Resource {
    /// The tag of its operations, and one line that describes it.
    pub(crate) tag: (&'static str, &'static str),
    /// The bounds of each request body, by schema: property → keywords. A body has no other properties.
    pub(crate) bodies: Vec<(&'static str, Value)>,
    /// Those of the bodies that need one property at least, whichever it is.
    pub(crate) patches: Vec<&'static str>,
    /// The bounds and the example of each parameter, by operation and name. The page fills in the example of a required
    /// parameter, unless `x-prefill` is false.
    pub(crate) parameters: Vec<(&'static str, &'static str, Value)>,
    /// The schema of each list, and that of its items.
    pub(crate) lists: Vec<(&'static str, &'static str)>,
    /// An example of each request and response body, by its schema, or by the operation that takes it as a form.
    pub(crate) examples: Vec<(&'static str, Value)>,
}

impl Resource {
    /// The bounds of this parameter, if the resource has it.
    pub(crate) fn parameter(&self, operation: &str, name: &str) -> Option<Value> {
        let mut parameters = self.parameters.iter();
        parameters.find(|declared| (declared.0, declared.1) == (operation, name)).map(|(_, _, bounds)| bounds.clone())
    }
}

/// A time for examples.
pub(crate) const EXAMPLE_TIME: &str = "2026-11-25T20:00:00.000000Z";
/// A request id for examples.
pub(crate) const EXAMPLE_REQUEST_ID: &str = "5f0c3c9e1d0a4b599c1e4f5a6d7e8f90";
/// The e-mail address of the user in all examples.
pub(crate) const EXAMPLE_EMAIL: &str = "grace@example.org";
/// The password of this user.
pub(crate) const EXAMPLE_PASSWORD: &str = "correct horse battery";

/// The example of a parameter.
pub(crate) fn example(value: impl Into<Value>) -> Value {
    json!({ "example": value.into() })
}

/// A secret for examples. It is malformed, so that secret scanners do not report it.
pub(crate) fn example_secret(prefix: &str) -> String {
    format!("{prefix}_example-which-is-not-a-real-secret")
}

/// The pattern of a text that may hold any character but NUL.
pub(crate) const NO_NUL: &str = r"^[^\u0000]*$";
