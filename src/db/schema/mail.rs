//! The tables of mails, and of the links in them.

diesel::table! {
    registrations (id) {
        id -> BigInt,
        email -> Text,
        email_key -> Text,
        locale -> Text,
        expires_at -> Timestamp,
    }
}

diesel::table! {
    invitations (id) {
        id -> BigInt,
        email -> Text,
        email_key -> Text,
        role -> Text,
        locale -> Text,
        invited_by -> Nullable<BigInt>,
        created_at -> Timestamp,
        expires_at -> Timestamp,
    }
}

diesel::table! {
    replaced_emails (id) {
        id -> BigInt,
        user_id -> BigInt,
        email -> Text,
        email_key -> Text,
        expires_at -> Timestamp,
    }
}

diesel::table! {
    outbox (id) {
        id -> BigInt,
        kind -> Text,
        address_key -> Nullable<Text>,
        address_digest -> Text,
        address -> Nullable<Text>,
        user_id -> Nullable<BigInt>,
        registration_id -> Nullable<BigInt>,
        invitation_id -> Nullable<BigInt>,
        client -> Nullable<Text>,
        created_at -> Timestamp,
        accepted_at -> Nullable<Timestamp>,
        due_at -> Timestamp,
        attempts -> BigInt,
        unanswered -> Bool,
        done_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    mail_secrets (id) {
        id -> BigInt,
        purpose -> Text,
        user_id -> Nullable<BigInt>,
        registration_id -> Nullable<BigInt>,
        invitation_id -> Nullable<BigInt>,
        address -> Text,
        mailed -> Bool,
        digest -> Text,
        created_at -> Timestamp,
        expires_at -> Timestamp,
    }
}

/// Like `for_each_copied_table!`, for the tables of mails.
macro_rules! for_each_copied_mail_table {
    ($then:ident) => {
        $then! {
            registrations by "id", postgres registrations::id, sqlite registrations::id => {
                id: i64,
                email: String,
                email_key: String,
                locale: String,
                expires_at: NaiveDateTime,
            }
            invitations by "id", postgres invitations::id, sqlite invitations::id => {
                id: i64,
                email: String,
                email_key: String,
                role: String,
                locale: String,
                invited_by: Option<i64>,
                created_at: NaiveDateTime,
                expires_at: NaiveDateTime,
            }
            replaced_emails by "id", postgres replaced_emails::id, sqlite replaced_emails::id => {
                id: i64,
                user_id: i64,
                email: String,
                email_key: String,
                expires_at: NaiveDateTime,
            }
            outbox by "id", postgres outbox::id, sqlite outbox::id => {
                id: i64,
                kind: String,
                address_key: Option<String>,
                address_digest: String,
                address: Option<String>,
                user_id: Option<i64>,
                registration_id: Option<i64>,
                invitation_id: Option<i64>,
                client: Option<String>,
                created_at: NaiveDateTime,
                accepted_at: Option<NaiveDateTime>,
                due_at: NaiveDateTime,
                attempts: i64,
                unanswered: bool,
                done_at: Option<NaiveDateTime>,
            }
            mail_secrets by "id", postgres mail_secrets::id, sqlite mail_secrets::id => {
                id: i64,
                purpose: String,
                user_id: Option<i64>,
                registration_id: Option<i64>,
                invitation_id: Option<i64>,
                address: String,
                mailed: bool,
                digest: String,
                created_at: NaiveDateTime,
                expires_at: NaiveDateTime,
            }
        }
    };
}
pub(crate) use for_each_copied_mail_table;
