-- The failed attempts of anonymous callers, which have a limit of their own. Other entries are not in this index.
CREATE INDEX audit_entries_anonymous_failures ON audit_entries (actor, id)
WHERE actor = 'anonymous' AND outcome <> 'success';

-- An entry can be deleted only if the newest entry `audit.prune` for its part of the trail covers it: if its id is below
-- `version_after`. The entry `audit.prune` itself stays until a newer one covers it.
DROP TRIGGER audit_entries_no_delete;
CREATE TRIGGER audit_entries_no_delete BEFORE DELETE ON audit_entries
WHEN NOT coalesce(OLD.id < (
    SELECT min(version_after, id) FROM audit_entries
    WHERE target = 'audit' AND action = 'audit.prune' AND outcome = 'success' ORDER BY id DESC LIMIT 1
), FALSE) AND NOT coalesce(OLD.actor = 'anonymous' AND OLD.outcome <> 'success' AND OLD.id < (
    SELECT min(version_after, id) FROM audit_entries
    WHERE target = 'audit:anonymous-failures' AND action = 'audit.prune' AND outcome = 'success'
    ORDER BY id DESC LIMIT 1
), FALSE)
BEGIN
    SELECT RAISE(ABORT, 'audit_entries is append-only');
END;
