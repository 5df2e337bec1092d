ALTER TABLE users DROP COLUMN locale;
DROP TABLE mail_secrets;
DROP TABLE outbox;
