-- What has ended stays ended.
UPDATE api_keys SET revoked_at = COALESCE(
    CASE WHEN api_keys.id <= users.issued_ended_through THEN users.issued_ended_at END,
    CASE WHEN api_keys.id <= users.acting_ended_through AND api_keys.scopes <> '' THEN users.acting_ended_at END)
FROM users WHERE users.id = api_keys.owner_id AND api_keys.issued AND api_keys.revoked_at IS NULL;
DELETE FROM users WHERE deleted_at IS NOT NULL;

DROP INDEX issue_requests_created_at;
ALTER TABLE issue_requests DROP COLUMN created_at;
DROP TABLE account_cleanups;
DROP INDEX pages_owner_id;
CREATE INDEX pages_owner_id ON pages (owner_id);
DROP INDEX api_keys_acting;
DROP INDEX users_enabled_admins;
DROP INDEX users_deleted;
ALTER TABLE users DROP COLUMN acting_ended_at;
ALTER TABLE users DROP COLUMN acting_ended_through;
ALTER TABLE users DROP COLUMN issued_ended_at;
ALTER TABLE users DROP COLUMN issued_ended_through;
ALTER TABLE users DROP COLUMN deleted_at;
