-- Which request made the current secret, or the claim code until it is claimed: SHA-256 of its Idempotency-Key and of what
-- it asked for, in hex. NULL for one without that header.
ALTER TABLE api_keys ADD COLUMN secret_request TEXT;
ALTER TABLE api_keys ADD COLUMN secret_request_body TEXT;
ALTER TABLE api_keys ADD COLUMN secret_made_at TIMESTAMP;
-- Whether that request may be repeated, because the secret has not been used yet.
ALTER TABLE api_keys ADD COLUMN secret_unseen BOOLEAN NOT NULL DEFAULT FALSE;
