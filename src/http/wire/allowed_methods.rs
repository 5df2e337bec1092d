//! The methods of each path, for 405 and its header `Allow`.

use std::collections::BTreeMap;
use std::fmt;

use actix_web::http::Method;

/// The path that accepts every method. The OpenAPI document shows only one of them.
pub const ANY_METHOD_PATH: &str = "/authz";

/// The methods of each path.
pub struct AllowedMethods(BTreeMap<String, Methods>);

impl AllowedMethods {
    /// From route patterns and their methods. GET implies HEAD.
    pub fn new(paths: impl IntoIterator<Item = (String, Vec<Method>)>) -> Self {
        Self(paths.into_iter().map(|(pattern, methods)| (pattern, Methods::new(methods))).collect())
    }

    /// The methods of the path with this pattern, with or without a final slash. The pattern is empty if no route has
    /// the path.
    pub fn of(&self, pattern: &str) -> Option<&Methods> {
        self.0.get(pattern).or_else(|| self.0.get(&format!("{pattern}/")).filter(|_| !pattern.is_empty()))
    }
}

/// The methods of one path.
pub struct Methods(Vec<Method>);

impl Methods {
    fn new(mut methods: Vec<Method>) -> Self {
        if methods.contains(&Method::GET) {
            methods.push(Method::HEAD);
        }
        methods.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
        Self(methods)
    }

    /// Whether the path supports `method`.
    pub fn contains(&self, method: &Method) -> bool {
        self.0.contains(method)
    }
}

/// Formats the value of the header `Allow`.
impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Method::as_str).collect::<Vec<_>>().join(", "))
    }
}
