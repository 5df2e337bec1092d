//! Tests of accounts: registration, your own account, the accounts of other users, passwords and deletion.

mod cleanup;
mod me;
mod password;
mod register;
mod registration;
mod roles;
mod users;
