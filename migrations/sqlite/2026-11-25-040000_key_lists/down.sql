DROP INDEX api_keys_owner_id_issued;
