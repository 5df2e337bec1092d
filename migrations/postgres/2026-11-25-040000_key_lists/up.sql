-- To list the keys of a user by id without reading all of them.
CREATE INDEX api_keys_owner_id_issued ON api_keys (owner_id, issued, id);
