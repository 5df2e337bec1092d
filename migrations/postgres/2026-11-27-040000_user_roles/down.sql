DROP INDEX users_roles;
