-- Addresses that wait for their proof (registration.mode = "verified"). The holder of a link chooses everything else.
CREATE TABLE registrations (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    locale TEXT NOT NULL,
    expires_at TIMESTAMP NOT NULL
);

CREATE INDEX registrations_expires_at ON registrations (expires_at);

-- Invitations that were not accepted.
CREATE TABLE invitations (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    locale TEXT NOT NULL,
    -- No foreign key: the record of who invited outlives that user. NULL for the command line.
    invited_by BIGINT,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL
);

CREATE INDEX invitations_expires_at ON invitations (expires_at);

-- Addresses that a change has replaced. Until they expire, their owners can undo the change, and no other account can
-- have them.
CREATE TABLE replaced_emails (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    email TEXT NOT NULL,
    email_key TEXT NOT NULL UNIQUE,
    expires_at TIMESTAMP NOT NULL
);

CREATE INDEX replaced_emails_user_id ON replaced_emails (user_id);
CREATE INDEX replaced_emails_expires_at ON replaced_emails (expires_at);

-- Mails to send: what they are about, never their text. The secret of a link is made when the mail is sent.
CREATE TABLE outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind TEXT NOT NULL,
    -- The canonical address for which the mail was requested. It may belong to no account. NULL after its account was
    -- deleted.
    address_key TEXT,
    -- SHA-256 of the canonical address in hex, for the limits per address.
    address_digest TEXT NOT NULL,
    -- The address of the account at the time of the request, to which a notice goes. NULL if the request does not name
    -- the account.
    address TEXT,
    -- What the mail is about, if the request named it. The row remains without it, so that it counts for the limits
    -- per address.
    user_id BIGINT REFERENCES users (id) ON DELETE SET NULL,
    registration_id BIGINT REFERENCES registrations (id) ON DELETE SET NULL,
    invitation_id BIGINT REFERENCES invitations (id) ON DELETE SET NULL,
    -- The client address of the request.
    client TEXT,
    created_at TIMESTAMP NOT NULL,
    -- When the limits per address allowed the mail. Until then, the row is only a request.
    accepted_at TIMESTAMP,
    -- The earliest time of the next attempt. While a process makes one, the time until which no other does.
    due_at TIMESTAMP NOT NULL,
    attempts BIGINT NOT NULL,
    -- Whether the SMTP server got the whole mail and did not answer, so that it may have been delivered.
    unanswered BOOLEAN NOT NULL,
    -- When it was sent, or given up. The row is kept for a day after the request, for the limits per address.
    done_at TIMESTAMP
);

CREATE INDEX outbox_requested ON outbox (id) WHERE accepted_at IS NULL AND done_at IS NULL;
CREATE INDEX outbox_waiting ON outbox (due_at) WHERE accepted_at IS NOT NULL AND done_at IS NULL;
CREATE INDEX outbox_address_digest ON outbox (address_digest, kind);
CREATE INDEX outbox_user_id ON outbox (user_id);
CREATE INDEX outbox_registration_id ON outbox (registration_id);
CREATE INDEX outbox_invitation_id ON outbox (invitation_id);
CREATE INDEX outbox_created_at ON outbox (created_at);

-- The secrets of links. A secret is used once: its row is then deleted.
CREATE TABLE mail_secrets (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- What the link does.
    purpose TEXT NOT NULL,
    -- On what the link acts: one of these.
    user_id BIGINT REFERENCES users (id) ON DELETE CASCADE,
    registration_id BIGINT REFERENCES registrations (id) ON DELETE CASCADE,
    invitation_id BIGINT REFERENCES invitations (id) ON DELETE CASCADE,
    -- The address to which the link was sent. Most links end when the account has another one.
    address TEXT NOT NULL,
    -- Whether a mail delivered the link, so that its use proves the address.
    mailed BOOLEAN NOT NULL,
    -- SHA-256 of the secret in hex; the secret itself is never stored.
    digest TEXT NOT NULL UNIQUE,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP NOT NULL
);

CREATE INDEX mail_secrets_user_id ON mail_secrets (user_id);
CREATE INDEX mail_secrets_registration_id ON mail_secrets (registration_id);
CREATE INDEX mail_secrets_invitation_id ON mail_secrets (invitation_id);
CREATE INDEX mail_secrets_expires_at ON mail_secrets (expires_at);

-- The language of mails to the user.
ALTER TABLE users ADD COLUMN locale TEXT NOT NULL DEFAULT 'en';
-- When the user proved to receive mails at the address.
ALTER TABLE users ADD COLUMN email_verified_at TIMESTAMP;
-- The address to which the user asked to change.
ALTER TABLE users ADD COLUMN pending_email TEXT;
-- Whether the user gets notices about sign-ins.
ALTER TABLE users ADD COLUMN sign_in_notices BOOLEAN NOT NULL DEFAULT TRUE;

-- Whether a row is a wider network, for notices of sign-ins. Lockouts use the others.
ALTER TABLE known_networks ADD COLUMN is_place BOOLEAN NOT NULL DEFAULT FALSE;
