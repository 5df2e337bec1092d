DROP TRIGGER users_change_is_seen ON users;
DROP TRIGGER access_tokens_change_is_seen ON access_tokens;
DROP TRIGGER api_keys_change_is_seen ON api_keys;
DROP TRIGGER users_truncate_is_seen ON users;
DROP TRIGGER access_tokens_truncate_is_seen ON access_tokens;
DROP TRIGGER api_keys_truncate_is_seen ON api_keys;
DROP FUNCTION tell_credential_change;

-- Users whose credentials may have changed. Triggers write it, so it covers changes by any program. Each process polls it
-- and drops what it cached for these users. Old rows are purged.
CREATE TABLE credential_changes (
    -- A reader takes the rows of those transactions that its previous snapshot did not show.
    xid XID8 NOT NULL DEFAULT pg_current_xact_id(),
    -- NULL means every user.
    user_id BIGINT
);

CREATE INDEX credential_changes_xid ON credential_changes (xid);

-- A role that may change credentials, or a column of them, must be able to log the change. The program's role, which makes
-- tokens, also reads and purges the log.
DO $$
DECLARE
    changer RECORD;
BEGIN
    FOR changer IN
        WITH privileges AS (
            SELECT acl.grantee, acl.privilege_type, oid AS relation FROM pg_class, aclexplode(relacl) AS acl
            UNION ALL
            SELECT acl.grantee, acl.privilege_type, attrelid FROM pg_attribute, aclexplode(attacl) AS acl
        )
        SELECT
            CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS name,
            bool_or(privilege_type = 'INSERT' AND relation = CAST('access_tokens' AS regclass)) AS makes_tokens
        FROM privileges
        WHERE privilege_type IN ('INSERT', 'UPDATE', 'DELETE') AND relation IN
            (CAST('users' AS regclass), CAST('access_tokens' AS regclass), CAST('api_keys' AS regclass))
        GROUP BY grantee
    LOOP
        EXECUTE 'GRANT INSERT ON credential_changes TO ' || changer.name;
        IF changer.makes_tokens THEN
            EXECUTE 'GRANT SELECT, DELETE ON credential_changes TO ' || changer.name;
        END IF;
    END LOOP;
END
$$;

-- The argument says which rows changed: those of a table, or all.
CREATE FUNCTION log_credential_changes() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed BIGINT[];
    -- Columns that no cached identity depends on. Every other column counts, also one that is added later.
    excluded CONSTANT TEXT[] := '{last_used_at, last_used_ip}';
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        changed := ARRAY[CAST(NULL AS BIGINT)];
    ELSIF TG_ARGV[0] = 'users' THEN
        changed := ARRAY(SELECT id FROM old_rows);
    ELSIF TG_ARGV[0] = 'access_tokens' AND TG_OP = 'DELETE' THEN
        changed := ARRAY(SELECT user_id FROM old_rows);
    ELSIF TG_ARGV[0] = 'access_tokens' THEN
        changed := ARRAY(SELECT user_id FROM old_rows UNION SELECT user_id FROM new_rows);
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

CREATE TRIGGER users_update_is_logged AFTER UPDATE ON users
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('users');
CREATE TRIGGER users_delete_is_logged AFTER DELETE ON users
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('users');
CREATE TRIGGER users_truncate_is_logged AFTER TRUNCATE ON users
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('users');

CREATE TRIGGER access_tokens_update_is_logged AFTER UPDATE ON access_tokens
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('access_tokens');
CREATE TRIGGER access_tokens_delete_is_logged AFTER DELETE ON access_tokens
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('access_tokens');
CREATE TRIGGER access_tokens_truncate_is_logged AFTER TRUNCATE ON access_tokens
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('access_tokens');

CREATE TRIGGER api_keys_update_is_logged AFTER UPDATE ON api_keys
REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('api_keys');
CREATE TRIGGER api_keys_delete_is_logged AFTER DELETE ON api_keys
REFERENCING OLD TABLE AS old_rows
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('api_keys');
CREATE TRIGGER api_keys_truncate_is_logged AFTER TRUNCATE ON api_keys
FOR EACH STATEMENT EXECUTE FUNCTION log_credential_changes('api_keys');
