-- Browser sessions. A user can have several, beside the one access token.
CREATE TABLE sessions (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
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

-- The argument says which rows changed: those of a table, or all.
CREATE OR REPLACE FUNCTION log_credential_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed BIGINT[];
    -- Columns that no cached identity depends on. Every other column counts, also one that is added later.
    excluded CONSTANT TEXT[] := '{last_used_at, last_used_ip}';
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        changed := ARRAY[CAST(NULL AS BIGINT)];
    ELSIF TG_ARGV[0] = 'users' THEN
        changed := ARRAY(SELECT id FROM old_rows);
    ELSIF TG_ARGV[0] IN ('access_tokens', 'sessions') AND TG_OP = 'DELETE' THEN
        changed := ARRAY(SELECT DISTINCT user_id FROM old_rows);
    ELSIF TG_ARGV[0] = 'access_tokens' THEN
        changed := ARRAY(SELECT user_id FROM old_rows UNION SELECT user_id FROM new_rows);
    ELSIF TG_ARGV[0] = 'sessions' THEN
        changed := ARRAY(
            SELECT DISTINCT unnest(ARRAY[o.user_id, n.user_id]) FROM old_rows o JOIN new_rows n USING (id)
            WHERE to_jsonb(o) - excluded IS DISTINCT FROM to_jsonb(n) - excluded
        );
    ELSIF TG_OP = 'DELETE' THEN
        changed := ARRAY(SELECT DISTINCT owner_id FROM old_rows);
    ELSE
        changed := ARRAY(
            SELECT DISTINCT unnest(ARRAY[o.owner_id, n.owner_id]) FROM old_rows o JOIN new_rows n USING (id)
            WHERE to_jsonb(o) - excluded IS DISTINCT FROM to_jsonb(n) - excluded
        );
    END IF;
    IF cardinality(changed) = 0 THEN
        RETURN NULL;
    END IF;
    -- The plan of a static statement is cached. It is right where the name resolves to the schema of the trigger's table.
    IF TG_TABLE_SCHEMA = current_schema() THEN
        INSERT INTO credential_changes (user_id) SELECT unnest(changed);
    ELSE
        EXECUTE format('INSERT INTO %I.credential_changes (user_id) SELECT unnest($1)', TG_TABLE_SCHEMA) USING changed;
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER sessions_update_is_logged AFTER UPDATE ON sessions
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('sessions');
CREATE TRIGGER sessions_delete_is_logged AFTER DELETE ON sessions
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('sessions');
CREATE TRIGGER sessions_truncate_is_logged AFTER TRUNCATE ON sessions
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('sessions');
