DROP TRIGGER users_insert_is_searchable;
DROP TRIGGER users_update_is_searchable;
DROP TRIGGER users_delete_is_not_searchable;
DROP TABLE user_search;
