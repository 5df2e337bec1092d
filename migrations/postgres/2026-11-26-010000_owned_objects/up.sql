-- The progress for each table of objects that a deleted account owned: table, last deleted id, count; separated by
-- spaces.
ALTER TABLE account_cleanups ADD COLUMN objects TEXT NOT NULL DEFAULT '';
UPDATE account_cleanups SET objects = 'pages ' || page_after || ' ' || pages;
ALTER TABLE account_cleanups DROP COLUMN page_after;
ALTER TABLE account_cleanups DROP COLUMN pages;
