DROP TRIGGER users_change_is_seen ON users;
DROP TRIGGER access_tokens_change_is_seen ON access_tokens;
DROP TRIGGER api_keys_change_is_seen ON api_keys;
DROP TRIGGER users_truncate_is_seen ON users;
DROP TRIGGER access_tokens_truncate_is_seen ON access_tokens;
DROP TRIGGER api_keys_truncate_is_seen ON api_keys;
DROP FUNCTION tell_credential_change;
