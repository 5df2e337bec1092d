DROP TABLE audit_entries;
DROP FUNCTION audit_entries_are_append_only;
DROP TABLE issue_requests;
DROP TABLE api_keys;
ALTER TABLE access_tokens DROP COLUMN sign_in_id;
ALTER TABLE users DROP COLUMN disabled_at;
ALTER TABLE users DROP COLUMN role;
