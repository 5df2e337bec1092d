DROP TRIGGER users_update_is_logged ON users;
DROP TRIGGER users_delete_is_logged ON users;
DROP TRIGGER users_truncate_is_logged ON users;
DROP TRIGGER access_tokens_update_is_logged ON access_tokens;
DROP TRIGGER access_tokens_delete_is_logged ON access_tokens;
DROP TRIGGER access_tokens_truncate_is_logged ON access_tokens;
DROP TRIGGER api_keys_update_is_logged ON api_keys;
DROP TRIGGER api_keys_delete_is_logged ON api_keys;
DROP TRIGGER api_keys_truncate_is_logged ON api_keys;
DROP FUNCTION log_credential_changes;
DROP TABLE credential_changes;

-- Whose credentials may have changed, so that each process forgets what it remembers of them: <schema>:<user id>, or
-- <schema>:* for everybody's. By triggers, because whoever changes something, by whatever program, has to be seen.
CREATE FUNCTION tell_credential_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify('latchkey', TG_TABLE_SCHEMA || ':*');
        RETURN NULL;
    END IF;
    -- The argument names the column that holds the user.
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        PERFORM pg_notify('latchkey', TG_TABLE_SCHEMA || ':' || (to_jsonb(OLD) ->> TG_ARGV[0]));
    END IF;
    IF TG_OP IN ('UPDATE', 'INSERT') THEN
        PERFORM pg_notify('latchkey', TG_TABLE_SCHEMA || ':' || (to_jsonb(NEW) ->> TG_ARGV[0]));
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER users_change_is_seen AFTER UPDATE OR DELETE ON users
FOR EACH ROW EXECUTE FUNCTION tell_credential_change('id');

CREATE TRIGGER access_tokens_change_is_seen AFTER INSERT OR UPDATE OR DELETE ON access_tokens
FOR EACH ROW EXECUTE FUNCTION tell_credential_change('user_id');

-- Not the columns that tell of the last use.
CREATE TRIGGER api_keys_change_is_seen AFTER UPDATE OF
    owner_id, issued, name, scopes, digest, previous_digest, previous_expires_at, expires_at, revoked_at OR DELETE
ON api_keys FOR EACH ROW EXECUTE FUNCTION tell_credential_change('owner_id');

CREATE TRIGGER users_truncate_is_seen AFTER TRUNCATE ON users
FOR EACH STATEMENT EXECUTE FUNCTION tell_credential_change();
CREATE TRIGGER access_tokens_truncate_is_seen AFTER TRUNCATE ON access_tokens
FOR EACH STATEMENT EXECUTE FUNCTION tell_credential_change();
CREATE TRIGGER api_keys_truncate_is_seen AFTER TRUNCATE ON api_keys
FOR EACH STATEMENT EXECUTE FUNCTION tell_credential_change();
