-- Failed sign-ins in a row, by account, whether or not there is such a user. All replicas count here.
CREATE TABLE sign_in_failures (
    -- SHA-256 of the canonical e-mail address in hex.
    account TEXT PRIMARY KEY NOT NULL,
    failures BIGINT NOT NULL,
    last_at TIMESTAMP NOT NULL
);

CREATE INDEX sign_in_failures_last_at ON sign_in_failures (last_at);
