-- Since when the user is deleted. The row stays until all that belonged to it is removed, without any personal data.
ALTER TABLE users ADD COLUMN deleted_at TIMESTAMP;

-- Issued keys of this user with ids up to this one have ended, and when. Ids grow with every key, so one row says it for
-- any number of keys. The rows of the keys follow in the background.
ALTER TABLE users ADD COLUMN issued_ended_through BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN issued_ended_at TIMESTAMP;
-- The same for issued keys that hold scopes of Latchkey's own.
ALTER TABLE users ADD COLUMN acting_ended_through BIGINT NOT NULL DEFAULT 0;
ALTER TABLE users ADD COLUMN acting_ended_at TIMESTAMP;

CREATE INDEX users_deleted ON users (id) WHERE deleted_at IS NOT NULL;
CREATE INDEX users_enabled_admins ON users (id) WHERE role = 'admin' AND disabled_at IS NULL;

-- The keys that act for a user, and the pages of a user, in the order of their ids.
CREATE INDEX api_keys_acting ON api_keys (owner_id, id) WHERE issued AND scopes <> '';
DROP INDEX pages_owner_id;
CREATE INDEX pages_owner_id ON pages (owner_id, id);

-- What a change of an account ended and is still to be removed. A row goes when that is done.
CREATE TABLE account_cleanups (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- No foreign key: the user goes first.
    user_id BIGINT NOT NULL,
    -- issued-keys, acting-keys or account.
    kind TEXT NOT NULL,
    -- The audit entry of the change: each object that is removed has an entry by the same actor.
    entry_id BIGINT NOT NULL,
    -- When the change was made.
    ended_at TIMESTAMP NOT NULL,
    -- How far it is: everything up to these ids is done.
    key_after BIGINT NOT NULL,
    page_after BIGINT NOT NULL,
    -- The last key that is to be ended.
    key_through BIGINT NOT NULL,
    -- How many so far.
    keys BIGINT NOT NULL,
    pages BIGINT NOT NULL
);

CREATE INDEX account_cleanups_user_id ON account_cleanups (user_id, id);

-- So that names of requests can be forgotten after a week.
ALTER TABLE issue_requests ADD COLUMN created_at TIMESTAMP NOT NULL DEFAULT timezone('utc', now());
ALTER TABLE issue_requests ALTER COLUMN created_at DROP DEFAULT;
CREATE INDEX issue_requests_created_at ON issue_requests (created_at);

-- Whatever changes of a user may change what their credentials are good for, if nobody has seen to that already.
DO $$
BEGIN
    IF EXISTS (
        SELECT 1 FROM pg_trigger
        WHERE tgrelid = CAST('users' AS regclass) AND tgname = 'users_change_is_seen'
    ) THEN
        DROP TRIGGER users_change_is_seen ON users;
        CREATE TRIGGER users_change_is_seen AFTER UPDATE OR DELETE ON users
        FOR EACH ROW EXECUTE FUNCTION tell_credential_change('id');
    END IF;
END
$$;
