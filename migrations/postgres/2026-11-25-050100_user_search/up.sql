-- An index of three consecutive characters of e-mail, name or surname. It takes the extension pg_trgm, which every owner
-- of a database may create where PostgreSQL's contrib modules are installed. Without it, users are found by their whole
-- address only once there are many of them.
DO $$
DECLARE
    folded TEXT := 'lower(%s COLLATE pg_catalog."und-x-icu")';
    texts TEXT := '(name || E''\n'' || surname || E''\n'' || email || E''\n'' || email_key)';
    trgm TEXT;
BEGIN
    -- ICU knows letters beyond ASCII, whatever the locale of the database.
    BEGIN
        EXECUTE 'SELECT ' || format(folded, '''X''');
    EXCEPTION WHEN OTHERS THEN
        folded := 'lower(%s)';
    END;
    EXECUTE format(
        'CREATE FUNCTION user_search_fold(searched TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
        'SELECT ' || format(folded, 'searched'));
    EXECUTE format(
        'CREATE FUNCTION user_search_text(name TEXT, surname TEXT, email TEXT, email_key TEXT) RETURNS TEXT
         LANGUAGE sql IMMUTABLE PARALLEL SAFE AS %L',
        'SELECT ' || format(folded, texts));

    BEGIN
        CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA public;
    EXCEPTION WHEN OTHERS THEN
        -- Not installed, not allowed, or another session has just created it.
        NULL;
    END;
    SELECT quote_ident(nspname) INTO trgm
    FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_trgm';
    IF trgm IS NOT NULL THEN
        BEGIN
            EXECUTE format(
                'CREATE INDEX users_search ON users
                 USING gin (user_search_text(name, surname, email, email_key) %s.gin_trgm_ops)', trgm);
        EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
            NULL;
        END;
    END IF;
END
$$;

-- So that the planner knows how common each text is.
ANALYZE users;
