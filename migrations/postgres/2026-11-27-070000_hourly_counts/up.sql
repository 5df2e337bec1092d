-- What all processes have counted in each hour, for GET /stats.
CREATE TABLE hourly_counts (
    -- The start of the hour in UTC.
    hour TIMESTAMP PRIMARY KEY NOT NULL,
    sign_ins_succeeded BIGINT NOT NULL,
    sign_ins_failed BIGINT NOT NULL,
    sign_ins_throttled BIGINT NOT NULL,
    registrations BIGINT NOT NULL,
    requests_authorized BIGINT NOT NULL,
    requests_refused BIGINT NOT NULL,
    -- Distinct keys, and those of them that were not used before on the same day.
    keys_used BIGINT NOT NULL,
    keys_new_in_day BIGINT NOT NULL,
    hash_queue_max BIGINT NOT NULL
);
