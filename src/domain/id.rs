//! Identifiers, one type for each kind of thing. They start at 1 and are never reused.

use std::fmt;

/// What all identifiers have in common.
pub trait Id: From<i64> {
    /// What is identified, in one word for people.
    const KIND: &'static str;
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);

        impl Id for $name {
            const KIND: &'static str = $kind;
        }

        impl From<i64> for $name {
            fn from(value: i64) -> Self {
                Self(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A row of `users`.
    UserId,
    "user"
);
id!(
    /// A row of `pages`.
    PageId,
    "page"
);
