//! The tables, kept by hand: one description serves both databases, and a test compares it with both.

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
    }
}

diesel::table! {
    access_tokens (user_id) {
        user_id -> BigInt,
        access_token -> Text,
        scopes -> Text,
        created_at -> Timestamp,
        expiration_date -> Timestamp,
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

diesel::joinable!(access_tokens -> users (user_id));
diesel::joinable!(pages -> users (owner_id));
diesel::allow_tables_to_appear_in_same_query!(users, access_tokens, pages);
