ALTER TABLE account_cleanups ADD COLUMN page_after BIGINT NOT NULL DEFAULT 0;
ALTER TABLE account_cleanups ADD COLUMN pages BIGINT NOT NULL DEFAULT 0;
UPDATE account_cleanups
    SET page_after = CAST(split_part(objects, ' ', 2) AS BIGINT), pages = CAST(split_part(objects, ' ', 3) AS BIGINT)
    WHERE objects LIKE 'pages %';
ALTER TABLE account_cleanups DROP COLUMN objects;
