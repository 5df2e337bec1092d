-- To find the roles that users have without reading all users. Most users are members.
CREATE INDEX users_roles ON users (role, id) WHERE role <> 'member';
