ALTER TABLE users DROP COLUMN sign_in_notices;
ALTER TABLE users DROP COLUMN pending_email;
ALTER TABLE users DROP COLUMN email_verified_at;
ALTER TABLE users DROP COLUMN locale;
DROP TABLE mail_secrets;
DROP TABLE outbox;
DROP TABLE invitations;
DROP TABLE registrations;
