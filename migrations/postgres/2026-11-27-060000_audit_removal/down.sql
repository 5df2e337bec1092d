DROP FUNCTION remove_audit_entries(TEXT, BIGINT, BIGINT);
DROP TRIGGER audit_entries_no_delete ON audit_entries;
DROP TRIGGER audit_entries_no_update ON audit_entries;
CREATE TRIGGER audit_entries_no_change BEFORE UPDATE OR DELETE ON audit_entries
FOR EACH ROW EXECUTE FUNCTION audit_entries_are_append_only();
DROP FUNCTION audit_removal_is_recorded();
DROP INDEX audit_entries_anonymous_failures;
