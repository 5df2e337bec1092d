DROP TABLE known_networks;
ALTER TABLE sign_in_failures DROP COLUMN first_at;
