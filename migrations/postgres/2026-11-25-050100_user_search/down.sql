DROP INDEX IF EXISTS users_search;
DROP FUNCTION user_search_text(TEXT, TEXT, TEXT, TEXT);
DROP FUNCTION user_search_fold(TEXT);
