//! Identifiers, one type per kind of object. They start at 1 and are never reused.

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

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// The id of a row of `users`.
    UserId
);
id!(
    /// The id of a row of `pages`.
    PageId
);
id!(
    /// The id of a row of `api_keys`.
    KeyId
);
id!(
    /// The id of a row of `sessions`.
    SessionId
);
id!(
    /// The id of a row of `invitations`.
    InvitationId
);
id!(
    /// The id of a row of `audit_entries`.
    EntryId
);

/// An identifier that can be part of a URL path.
pub trait ResourceId: From<i64> {
    /// The kind of object, as error messages name it.
    const KIND: &'static str;
}

impl ResourceId for UserId {
    const KIND: &'static str = "user";
}

impl ResourceId for PageId {
    const KIND: &'static str = "page";
}

impl ResourceId for KeyId {
    const KIND: &'static str = "key";
}

impl ResourceId for SessionId {
    const KIND: &'static str = "session";
}

impl ResourceId for InvitationId {
    const KIND: &'static str = "invitation";
}
