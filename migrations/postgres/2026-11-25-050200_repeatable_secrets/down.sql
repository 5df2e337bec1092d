ALTER TABLE api_keys DROP COLUMN secret_request;
ALTER TABLE api_keys DROP COLUMN secret_request_body;
ALTER TABLE api_keys DROP COLUMN secret_made_at;
ALTER TABLE api_keys DROP COLUMN secret_unseen;
