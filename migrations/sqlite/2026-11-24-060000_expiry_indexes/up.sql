-- To find what has expired without reading what has not.
CREATE INDEX access_tokens_expiration_date ON access_tokens (expiration_date);
CREATE INDEX api_keys_claim_expires_at ON api_keys (claim_expires_at) WHERE claim_digest IS NOT NULL;
