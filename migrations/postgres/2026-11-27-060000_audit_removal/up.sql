-- The failed attempts of anonymous callers, which have a limit of their own. Other entries are not in this index.
CREATE INDEX audit_entries_anonymous_failures ON audit_entries (actor, id)
WHERE actor = 'anonymous' AND outcome <> 'success';

-- An entry can be deleted only if the newest entry `audit.prune` for its part of the trail covers it: if its id is below
-- `version_after`. The entry `audit.prune` itself stays until a newer one covers it.
CREATE FUNCTION audit_removal_is_recorded() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    all_below BIGINT;
    failures_below BIGINT;
BEGIN
    all_below := coalesce((
        SELECT least(version_after, id) FROM audit_entries
        WHERE target = 'audit' AND action = 'audit.prune' AND outcome = 'success' ORDER BY id DESC LIMIT 1
    ), 0);
    failures_below := coalesce((
        SELECT least(version_after, id) FROM audit_entries
        WHERE target = 'audit:anonymous-failures' AND action = 'audit.prune' AND outcome = 'success'
        ORDER BY id DESC LIMIT 1
    ), 0);
    IF EXISTS (
        SELECT FROM removed
        WHERE id >= all_below AND NOT (actor = 'anonymous' AND outcome <> 'success' AND id < failures_below)
    ) THEN
        RAISE EXCEPTION 'audit_entries is append-only';
    END IF;
    RETURN NULL;
END
$$;

DROP TRIGGER audit_entries_no_change ON audit_entries;
CREATE TRIGGER audit_entries_no_update BEFORE UPDATE ON audit_entries
FOR EACH ROW EXECUTE FUNCTION audit_entries_are_append_only();
CREATE TRIGGER audit_entries_no_delete AFTER DELETE ON audit_entries
REFERENCING OLD TABLE AS removed
FOR EACH STATEMENT EXECUTE FUNCTION audit_removal_is_recorded();

-- Deletes entries with the rights of the owner, so that a role that serves needs no DELETE on the table. The trigger
-- refuses those whose removal is not recorded.
CREATE FUNCTION remove_audit_entries(part TEXT, after_id BIGINT, through_id BIGINT) RETURNS BIGINT
LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    count BIGINT;
BEGIN
    IF part = 'audit' THEN
        DELETE FROM audit_entries WHERE id > after_id AND id <= through_id;
    ELSE
        DELETE FROM audit_entries
        WHERE actor = 'anonymous' AND outcome <> 'success' AND id > after_id AND id <= through_id;
    END IF;
    GET DIAGNOSTICS count = ROW_COUNT;
    RETURN count;
END
$$;

-- Names in both functions must not resolve to tables of the caller, such as temporary ones.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION audit_removal_is_recorded() SET search_path = %I, pg_temp', current_schema());
    EXECUTE format(
        'ALTER FUNCTION remove_audit_entries(TEXT, BIGINT, BIGINT) SET search_path = %I, pg_temp', current_schema()
    );
END
$$;
