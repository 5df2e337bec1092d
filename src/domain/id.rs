//! Identifiers, one type for each kind of thing. They start at 1 and are never reused.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);

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
    UserId
);
id!(
    /// A row of `pages`.
    PageId
);
id!(
    /// A row of `api_keys`.
    KeyId
);
id!(
    /// A row of `audit_entries`.
    EntryId
);

/// An identifier that stands in a path.
pub trait InPath: From<i64> {
    /// What is identified, in one word for people.
    const KIND: &'static str;
}

impl InPath for UserId {
    const KIND: &'static str = "user";
}

impl InPath for PageId {
    const KIND: &'static str = "page";
}

impl InPath for KeyId {
    const KIND: &'static str = "key";
}
