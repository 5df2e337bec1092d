//! Tests of the command line and the settings.

mod commands;
mod packaging;
mod roles;
mod settings;
