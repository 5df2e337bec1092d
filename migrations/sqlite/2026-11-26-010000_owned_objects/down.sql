ALTER TABLE account_cleanups ADD COLUMN page_after BIGINT NOT NULL DEFAULT 0;
ALTER TABLE account_cleanups ADD COLUMN pages BIGINT NOT NULL DEFAULT 0;
-- CAST reads the digits at the start of a text.
UPDATE account_cleanups
    SET page_after = CAST(substr(objects, 7) AS INTEGER),
        pages = CAST(substr(objects, 7 + instr(substr(objects, 7), ' ')) AS INTEGER)
    WHERE objects LIKE 'pages %';
ALTER TABLE account_cleanups DROP COLUMN objects;
