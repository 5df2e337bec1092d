-- When the first of the failures in a row was; NULL for one that is older than this column.
ALTER TABLE sign_in_failures ADD COLUMN first_at TIMESTAMP;

-- The networks from which users have signed in. Failures from each of them are counted apart from those of strangers.
CREATE TABLE known_networks (
    -- SHA-256 of the user's id and the network, in hex.
    network TEXT PRIMARY KEY NOT NULL,
    user_id BIGINT NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    -- When the user last signed in from there, to the day.
    seen_at TIMESTAMP NOT NULL
);

CREATE INDEX known_networks_user_id ON known_networks (user_id, seen_at);
CREATE INDEX known_networks_seen_at ON known_networks (seen_at);
