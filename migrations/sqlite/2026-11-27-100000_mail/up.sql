-- Mails to send: what they are about, never their text. The secret of a link is made when the mail is sent.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    kind TEXT NOT NULL,
    -- The canonical address for which the mail was requested. It may belong to no account.
    address_key TEXT NOT NULL,
    -- The account that the mail is about, if the request named one.
    user_id BIGINT REFERENCES users (id) ON DELETE CASCADE,
    -- The client address of the request.
    client TEXT,
    created_at TIMESTAMP NOT NULL,
    -- When the limits per address allowed the mail. Until then, the row is only a request.
    accepted_at TIMESTAMP,
    -- The earliest time of the next attempt. While a process makes one, the time until which no other does.
    due_at TIMESTAMP NOT NULL,
    attempts BIGINT NOT NULL,
    -- The row is kept for a day after this, for the limits per address.
    sent_at TIMESTAMP
);

CREATE INDEX outbox_unsent ON outbox (due_at) WHERE sent_at IS NULL;
CREATE INDEX outbox_address_key ON outbox (address_key);
CREATE INDEX outbox_user_id ON outbox (user_id);
CREATE INDEX outbox_created_at ON outbox (created_at);

-- The secrets of links in mails. A secret is used once: its row is then deleted.
CREATE TABLE mail_secrets (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    -- What the link does.
    purpose TEXT NOT NULL,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- The canonical address to which the link was sent. The link ends when the account has another one.
    address_key TEXT NOT NULL,
    -- SHA-256 of the secret in hex; the secret itself is never stored.
    digest TEXT NOT NULL UNIQUE,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL
);

CREATE INDEX mail_secrets_user_id ON mail_secrets (user_id);
CREATE INDEX mail_secrets_expires_at ON mail_secrets (expires_at);

-- The language of mails to the user.
ALTER TABLE users ADD COLUMN locale TEXT NOT NULL DEFAULT 'en';
