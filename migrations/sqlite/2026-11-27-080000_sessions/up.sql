-- Browser sessions. A user can have several, beside the one access token.
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- SHA-256 of the secret in hex; the secret itself is never stored.
    digest TEXT NOT NULL UNIQUE,
    created_at TIMESTAMP NOT NULL,
    -- Accurate to a minute. An unused session ends after the idle time of the settings.
    last_used_at TIMESTAMP NOT NULL,
    -- The latest end, however much the session is used.
    expires_at TIMESTAMP NOT NULL,
    -- The client address and the User-Agent of the sign-in.
    client TEXT,
    user_agent TEXT
);

CREATE INDEX sessions_user_id ON sessions (user_id);
CREATE INDEX sessions_expires_at ON sessions (expires_at);

CREATE TRIGGER sessions_insert_is_seen AFTER INSERT ON sessions
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (NEW.user_id);
END;

-- No cached identity depends on when another process last saw a session in use: it is read again when it seems idle.
CREATE TRIGGER sessions_update_is_seen AFTER UPDATE ON sessions
WHEN OLD.last_used_at IS NEW.last_used_at
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.user_id), (NEW.user_id);
END;

-- The same for a statement that sets the last use together with another column. A new column must be added here.
CREATE TRIGGER sessions_mixed_update_is_seen AFTER UPDATE OF
    user_id, digest, created_at, expires_at, client, user_agent
ON sessions
WHEN OLD.last_used_at IS NOT NEW.last_used_at
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.user_id), (NEW.user_id);
END;

CREATE TRIGGER sessions_delete_is_seen AFTER DELETE ON sessions
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.user_id);
END;
