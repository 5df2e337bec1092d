ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'member';
-- NULL while the user may sign in.
ALTER TABLE users ADD COLUMN disabled_at TIMESTAMP;

-- The audit entry of the sign-in that made the token; 0 for a token that is older than the trail.
ALTER TABLE access_tokens ADD COLUMN sign_in_id BIGINT NOT NULL DEFAULT 0;

CREATE TABLE api_keys (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- Whether it was issued to somebody else: sold, or handed to a service. Otherwise its owner made it for themselves.
    issued BOOLEAN NOT NULL,
    name TEXT NOT NULL,
    -- Latchkey's own scopes, which count as far as the owner's role goes.
    scopes TEXT NOT NULL,
    -- Scopes of somebody else's, which stand as issued.
    foreign_scopes TEXT NOT NULL,
    -- The prefix and the last four characters of the secret; NULL until it is claimed.
    hint TEXT,
    -- SHA-256 of the secret in hex; NULL until it is claimed.
    digest TEXT UNIQUE,
    -- The secret before the last rotation, which works until the overlap ends.
    previous_digest TEXT UNIQUE,
    previous_expires_at TIMESTAMP,
    created_at TIMESTAMP NOT NULL,
    expires_at TIMESTAMP,
    last_used_at TIMESTAMP,
    last_used_ip TEXT,
    -- Only issued keys keep their row after revocation: it is the receipt of an order.
    revoked_at TIMESTAMP,
    order_id TEXT,
    -- SHA-256 of the request that issued it, to tell a repetition from another request.
    request_digest TEXT,
    metadata TEXT,
    -- SHA-256 of the one-time claim code in hex.
    claim_digest TEXT UNIQUE,
    claim_expires_at TIMESTAMP,
    claimed_at TIMESTAMP,
    UNIQUE (owner_id, order_id)
);

-- What the requests were called that issued keys (Idempotency-Key).
CREATE TABLE issue_requests (
    owner_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    key_id BIGINT NOT NULL REFERENCES api_keys (id) ON DELETE CASCADE,
    PRIMARY KEY (owner_id, name)
);

CREATE INDEX issue_requests_key_id ON issue_requests (key_id);

-- Append-only. It names users by id alone, and refers to nothing: entries outlive what they tell of.
CREATE TABLE audit_entries (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at TIMESTAMP NOT NULL,
    -- Who acted: user:<id>, key:<id>, command-line, static-key or anonymous.
    actor TEXT NOT NULL,
    -- The user on whose account that was.
    user_id BIGINT,
    -- What they showed: token:<id of its sign-in>, key:<id>, claim:<id of its key>, or a word.
    credential TEXT NOT NULL,
    -- The level in force at that moment.
    role TEXT,
    scopes TEXT NOT NULL,
    action TEXT NOT NULL,
    target TEXT,
    -- The user whom it concerns: the owner of the target.
    subject_id BIGINT,
    version_before BIGINT,
    version_after BIGINT,
    -- Names of the fields that changed, never their values.
    changed TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT,
    client TEXT,
    request_id TEXT
);

-- Each index is paid for by every change, so these are few: by target, by user, and what somebody else did.
CREATE INDEX audit_entries_target ON audit_entries (target, id);
CREATE INDEX audit_entries_user_id ON audit_entries (user_id, id);
CREATE INDEX audit_entries_subject_id ON audit_entries (subject_id, id)
WHERE user_id IS NULL OR user_id <> subject_id;
CREATE INDEX audit_entries_at ON audit_entries USING brin (at);

CREATE FUNCTION audit_entries_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_entries is append-only';
END
$$;

CREATE TRIGGER audit_entries_no_change BEFORE UPDATE OR DELETE ON audit_entries
FOR EACH ROW EXECUTE FUNCTION audit_entries_are_append_only();

CREATE TRIGGER audit_entries_no_truncate BEFORE TRUNCATE ON audit_entries
FOR EACH STATEMENT EXECUTE FUNCTION audit_entries_are_append_only();
