-- Three consecutive characters of e-mail, name or surname, to the users who have them. It holds no copy of the texts.
CREATE VIRTUAL TABLE user_search USING fts5 (
    name, surname, email, email_key,
    content = 'users', content_rowid = 'id', tokenize = 'trigram', detail = 'none', columnsize = 0
);

-- What is removed from the index leaves nothing behind in it.
INSERT INTO user_search (user_search, rank) VALUES ('secure-delete', 1);
INSERT INTO user_search (user_search) VALUES ('rebuild');

CREATE TRIGGER users_insert_is_searchable AFTER INSERT ON users
BEGIN
    INSERT INTO user_search (rowid, name, surname, email, email_key)
    VALUES (NEW.id, NEW.name, NEW.surname, NEW.email, NEW.email_key);
END;

CREATE TRIGGER users_update_is_searchable AFTER UPDATE OF name, surname, email, email_key ON users
BEGIN
    INSERT INTO user_search (user_search, rowid, name, surname, email, email_key)
    VALUES ('delete', OLD.id, OLD.name, OLD.surname, OLD.email, OLD.email_key);
    INSERT INTO user_search (rowid, name, surname, email, email_key)
    VALUES (NEW.id, NEW.name, NEW.surname, NEW.email, NEW.email_key);
END;

CREATE TRIGGER users_delete_is_not_searchable AFTER DELETE ON users
BEGIN
    INSERT INTO user_search (user_search, rowid, name, surname, email, email_key)
    VALUES ('delete', OLD.id, OLD.name, OLD.surname, OLD.email, OLD.email_key);
END;
