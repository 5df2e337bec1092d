DROP TRIGGER api_keys_mixed_update_is_seen;

DROP TRIGGER api_keys_update_is_seen;
-- Not the columns that tell of the last use.
CREATE TRIGGER api_keys_update_is_seen AFTER UPDATE OF
    owner_id, issued, name, scopes, digest, previous_digest, previous_expires_at, expires_at, revoked_at ON api_keys
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.owner_id), (NEW.owner_id);
END;
