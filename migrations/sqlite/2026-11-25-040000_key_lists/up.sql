-- To list the keys of a user by id without reading all of them. SQLite ends every index with the id.
CREATE INDEX api_keys_owner_id_issued ON api_keys (owner_id, issued);
