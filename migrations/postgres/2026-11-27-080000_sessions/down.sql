DROP TABLE sessions;

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
