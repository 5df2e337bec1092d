//! The tables and their columns. One description, maintained by hand, serves both databases; a test compares it with
//! the migrated schema of each.

mod mail;

pub(crate) use self::mail::for_each_copied_mail_table;
pub(crate) use self::mail::{invitations, mail_secrets, outbox, registrations, replaced_emails};

diesel::table! {
    users (id) {
        id -> BigInt,
        name -> Text,
        surname -> Text,
        email -> Text,
        email_key -> Text,
        website -> Text,
        hashed_password -> Text,
        created_at -> Timestamp,
        updated_at -> Timestamp,
        role -> Text,
        disabled_at -> Nullable<Timestamp>,
        deleted_at -> Nullable<Timestamp>,
        issued_ended_through -> BigInt,
        issued_ended_at -> Nullable<Timestamp>,
        acting_ended_through -> BigInt,
        acting_ended_at -> Nullable<Timestamp>,
        locale -> Text,
        email_verified_at -> Nullable<Timestamp>,
        pending_email -> Nullable<Text>,
        sign_in_notices -> Bool,
    }
}

diesel::table! {
    access_tokens (user_id) {
        user_id -> BigInt,
        access_token -> Text,
        scopes -> Text,
        created_at -> Timestamp,
        expiration_date -> Timestamp,
        sign_in_id -> BigInt,
    }
}

diesel::table! {
    sessions (id) {
        id -> BigInt,
        user_id -> BigInt,
        digest -> Text,
        created_at -> Timestamp,
        last_used_at -> Timestamp,
        expires_at -> Timestamp,
        client -> Nullable<Text>,
        user_agent -> Nullable<Text>,
    }
}

diesel::table! {
    api_keys (id) {
        id -> BigInt,
        owner_id -> BigInt,
        issued -> Bool,
        name -> Text,
        scopes -> Text,
        foreign_scopes -> Text,
        hint -> Nullable<Text>,
        digest -> Nullable<Text>,
        previous_digest -> Nullable<Text>,
        previous_expires_at -> Nullable<Timestamp>,
        created_at -> Timestamp,
        expires_at -> Nullable<Timestamp>,
        last_used_at -> Nullable<Timestamp>,
        last_used_ip -> Nullable<Text>,
        revoked_at -> Nullable<Timestamp>,
        order_id -> Nullable<Text>,
        request_digest -> Nullable<Text>,
        metadata -> Nullable<Text>,
        claim_digest -> Nullable<Text>,
        claim_expires_at -> Nullable<Timestamp>,
        claimed_at -> Nullable<Timestamp>,
        secret_request -> Nullable<Text>,
        secret_request_body -> Nullable<Text>,
        secret_made_at -> Nullable<Timestamp>,
        secret_unseen -> Bool,
    }
}

diesel::table! {
    pages (id) {
        id -> BigInt,
        owner_id -> BigInt,
        title -> Text,
        body -> Text,
        version -> BigInt,
        created_at -> Timestamp,
        updated_at -> Timestamp,
        updated_by -> BigInt,
    }
}

diesel::table! {
    issue_requests (owner_id, name) {
        owner_id -> BigInt,
        name -> Text,
        request_digest -> Text,
        key_id -> BigInt,
        created_at -> Timestamp,
    }
}

diesel::table! {
    account_cleanups (id) {
        id -> BigInt,
        user_id -> BigInt,
        kind -> Text,
        entry_id -> BigInt,
        ended_at -> Timestamp,
        key_after -> BigInt,
        key_through -> BigInt,
        keys -> BigInt,
        objects -> Text,
    }
}

diesel::table! {
    audit_entries (id) {
        id -> BigInt,
        at -> Timestamp,
        actor -> Text,
        user_id -> Nullable<BigInt>,
        credential -> Text,
        role -> Nullable<Text>,
        scopes -> Text,
        action -> Text,
        target -> Nullable<Text>,
        subject_id -> Nullable<BigInt>,
        version_before -> Nullable<BigInt>,
        version_after -> Nullable<BigInt>,
        changed -> Text,
        outcome -> Text,
        detail -> Nullable<Text>,
        client -> Nullable<Text>,
        request_id -> Nullable<Text>,
    }
}

diesel::table! {
    sign_in_failures (account) {
        account -> Text,
        failures -> BigInt,
        last_at -> Timestamp,
        first_at -> Nullable<Timestamp>,
    }
}

diesel::table! {
    known_networks (network) {
        network -> Text,
        user_id -> BigInt,
        seen_at -> Timestamp,
        is_place -> Bool,
    }
}

diesel::table! {
    hourly_counts (hour) {
        hour -> Timestamp,
        sign_ins_succeeded -> BigInt,
        sign_ins_failed -> BigInt,
        sign_ins_throttled -> BigInt,
        registrations -> BigInt,
        requests_authorized -> BigInt,
        requests_refused -> BigInt,
        keys_used -> BigInt,
        keys_new_in_day -> BigInt,
        hash_queue_max -> BigInt,
    }
}

diesel::joinable!(access_tokens -> users (user_id));
diesel::joinable!(api_keys -> users (owner_id));
diesel::joinable!(issue_requests -> api_keys (key_id));
diesel::joinable!(pages -> users (owner_id));
diesel::joinable!(sessions -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, access_tokens, sessions, api_keys, issue_requests, pages);
diesel::allow_tables_to_appear_in_same_query!(known_networks, sign_in_failures);

/// Calls a macro with every table and what a role that serves must be granted on it. `docs/operations.md` has the same
/// as SQL.
macro_rules! for_each_table {
    ($then:ident) => {
        $then! {
            users: "SELECT, INSERT, UPDATE, DELETE",
            access_tokens: "SELECT, INSERT, UPDATE, DELETE",
            sessions: "SELECT, INSERT, UPDATE, DELETE",
            api_keys: "SELECT, INSERT, UPDATE, DELETE",
            issue_requests: "SELECT, INSERT, UPDATE, DELETE",
            pages: "SELECT, INSERT, UPDATE, DELETE",
            sign_in_failures: "SELECT, INSERT, UPDATE, DELETE",
            known_networks: "SELECT, INSERT, UPDATE, DELETE",
            account_cleanups: "SELECT, INSERT, UPDATE, DELETE",
            hourly_counts: "SELECT, INSERT, UPDATE, DELETE",
            registrations: "SELECT, INSERT, UPDATE, DELETE",
            invitations: "SELECT, INSERT, UPDATE, DELETE",
            replaced_emails: "SELECT, INSERT, UPDATE, DELETE",
            outbox: "SELECT, INSERT, UPDATE, DELETE",
            mail_secrets: "SELECT, INSERT, UPDATE, DELETE",
            audit_entries: "SELECT, INSERT",
        }
    };
}
pub(crate) use for_each_table;

/// Calls a macro with the columns of every table, as backups and copies contain them, and with the key that orders the
/// rows. A table or a column that is missing here is a compile error. The order of texts is that of their bytes on both
/// databases. Digests in hex have this order in every collation. The tables of
/// mails are in `for_each_copied_mail_table!`.
macro_rules! for_each_copied_table {
    ($then:ident) => {
        $then! {
            users by "id", postgres users::id, sqlite users::id => {
                id: i64,
                name: String,
                surname: String,
                email: String,
                email_key: String,
                website: String,
                hashed_password: String,
                created_at: NaiveDateTime,
                updated_at: NaiveDateTime,
                role: String,
                disabled_at: Option<NaiveDateTime>,
                deleted_at: Option<NaiveDateTime>,
                issued_ended_through: i64,
                issued_ended_at: Option<NaiveDateTime>,
                acting_ended_through: i64,
                acting_ended_at: Option<NaiveDateTime>,
                locale: String,
                email_verified_at: Option<NaiveDateTime>,
                pending_email: Option<String>,
                sign_in_notices: bool,
            }
            access_tokens by "user_id", postgres access_tokens::user_id, sqlite access_tokens::user_id => {
                user_id: i64,
                access_token: String,
                scopes: String,
                created_at: NaiveDateTime,
                expiration_date: NaiveDateTime,
                sign_in_id: i64,
            }
            sessions by "id", postgres sessions::id, sqlite sessions::id => {
                id: i64,
                user_id: i64,
                digest: String,
                created_at: NaiveDateTime,
                last_used_at: NaiveDateTime,
                expires_at: NaiveDateTime,
                client: Option<String>,
                user_agent: Option<String>,
            }
            api_keys by "id", postgres api_keys::id, sqlite api_keys::id => {
                id: i64,
                owner_id: i64,
                issued: bool,
                name: String,
                scopes: String,
                foreign_scopes: String,
                hint: Option<String>,
                digest: Option<String>,
                previous_digest: Option<String>,
                previous_expires_at: Option<NaiveDateTime>,
                created_at: NaiveDateTime,
                expires_at: Option<NaiveDateTime>,
                last_used_at: Option<NaiveDateTime>,
                last_used_ip: Option<String>,
                revoked_at: Option<NaiveDateTime>,
                order_id: Option<String>,
                request_digest: Option<String>,
                metadata: Option<String>,
                claim_digest: Option<String>,
                claim_expires_at: Option<NaiveDateTime>,
                claimed_at: Option<NaiveDateTime>,
                secret_request: Option<String>,
                secret_request_body: Option<String>,
                secret_made_at: Option<NaiveDateTime>,
                secret_unseen: bool,
            }
            pages by "id", postgres pages::id, sqlite pages::id => {
                id: i64,
                owner_id: i64,
                title: String,
                body: String,
                version: i64,
                created_at: NaiveDateTime,
                updated_at: NaiveDateTime,
                updated_by: i64,
            }
            issue_requests by "name",
            postgres (issue_requests::owner_id, sql::<Text>("name COLLATE \"C\"")),
            sqlite (issue_requests::owner_id, issue_requests::name) => {
                owner_id: i64,
                name: String,
                request_digest: String,
                key_id: i64,
                created_at: NaiveDateTime,
            }
            account_cleanups by "id", postgres account_cleanups::id, sqlite account_cleanups::id => {
                id: i64,
                user_id: i64,
                kind: String,
                entry_id: i64,
                ended_at: NaiveDateTime,
                key_after: i64,
                key_through: i64,
                keys: i64,
                objects: String,
            }
            audit_entries by "id", postgres audit_entries::id, sqlite audit_entries::id => {
                id: i64,
                at: NaiveDateTime,
                actor: String,
                user_id: Option<i64>,
                credential: String,
                role: Option<String>,
                scopes: String,
                action: String,
                target: Option<String>,
                subject_id: Option<i64>,
                version_before: Option<i64>,
                version_after: Option<i64>,
                changed: String,
                outcome: String,
                detail: Option<String>,
                client: Option<String>,
                request_id: Option<String>,
            }
            sign_in_failures by "account", postgres sign_in_failures::account, sqlite sign_in_failures::account => {
                account: String,
                failures: i64,
                last_at: NaiveDateTime,
                first_at: Option<NaiveDateTime>,
            }
            known_networks by "network", postgres known_networks::network, sqlite known_networks::network => {
                network: String,
                user_id: i64,
                seen_at: NaiveDateTime,
                is_place: bool,
            }
            hourly_counts by "hour", postgres hourly_counts::hour, sqlite hourly_counts::hour => {
                hour: NaiveDateTime,
                sign_ins_succeeded: i64,
                sign_ins_failed: i64,
                sign_ins_throttled: i64,
                registrations: i64,
                requests_authorized: i64,
                requests_refused: i64,
                keys_used: i64,
                keys_new_in_day: i64,
                hash_queue_max: i64,
            }
        }
    };
}
pub(crate) use for_each_copied_table;
