-- No cached identity depends on when a key was last used, and from where. Every other column counts, also one that is
-- added later.
DROP TRIGGER api_keys_update_is_seen;
CREATE TRIGGER api_keys_update_is_seen AFTER UPDATE ON api_keys
WHEN OLD.last_used_at IS NEW.last_used_at AND OLD.last_used_ip IS NEW.last_used_ip
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.owner_id), (NEW.owner_id);
END;

-- The same for a statement that sets the last use together with another column. Whoever adds a column adds it here.
CREATE TRIGGER api_keys_mixed_update_is_seen AFTER UPDATE OF
    owner_id, issued, name, scopes, foreign_scopes, hint, digest, previous_digest, previous_expires_at, created_at,
    expires_at, revoked_at, order_id, request_digest, metadata, claim_digest, claim_expires_at, claimed_at, secret_request,
    secret_request_body, secret_made_at, secret_unseen
ON api_keys
WHEN OLD.last_used_at IS NOT NEW.last_used_at OR OLD.last_used_ip IS NOT NEW.last_used_ip
BEGIN
    INSERT INTO credential_changes (user_id) VALUES (OLD.owner_id), (NEW.owner_id);
END;
