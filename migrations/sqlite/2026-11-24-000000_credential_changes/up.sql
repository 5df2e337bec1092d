-- Whose credentials may have changed, so that each process on this file forgets what it remembers of them. Written by
-- triggers, because whoever changes something, by whatever program, has to be seen. The last ten
-- thousand are kept.
CREATE TABLE credential_changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
    user_id BIGINT NOT NULL
);

CREATE TRIGGER credential_changes_are_few AFTER INSERT ON credential_changes WHEN NEW.id % 1000 = 0
BEGIN
    DELETE FROM credential_changes WHERE id <= NEW.id - 10000;
END;

-- Insertions, too, here and below: INSERT OR REPLACE deletes without a delete trigger.
CREATE TRIGGER users_insert_is_seen AFTER INSERT ON users
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (NEW.id);
END;

CREATE TRIGGER users_update_is_seen AFTER UPDATE OF name, role, disabled_at ON users
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.id);
END;

CREATE TRIGGER users_delete_is_seen AFTER DELETE ON users
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.id);
END;

CREATE TRIGGER access_tokens_insert_is_seen AFTER INSERT ON access_tokens
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (NEW.user_id);
END;

CREATE TRIGGER access_tokens_update_is_seen AFTER UPDATE ON access_tokens
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.user_id), (NEW.user_id);
END;

CREATE TRIGGER access_tokens_delete_is_seen AFTER DELETE ON access_tokens
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.user_id);
END;

CREATE TRIGGER api_keys_insert_is_seen AFTER INSERT ON api_keys
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (NEW.owner_id);
END;

-- Not the columns that tell of the last use.
CREATE TRIGGER api_keys_update_is_seen AFTER UPDATE OF
    owner_id, issued, name, scopes, digest, previous_digest, previous_expires_at, expires_at, revoked_at ON api_keys
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.owner_id), (NEW.owner_id);
END;

CREATE TRIGGER api_keys_delete_is_seen AFTER DELETE ON api_keys
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.owner_id);
END;
