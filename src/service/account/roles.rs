//! Roles: the defined ones, and those that users have although the settings do not define them.

use crate::db::{Conn, user_roles};
use crate::domain::roles::{Role, Roles};
use crate::error::{AppError, FieldError};
use crate::service::Service;
use crate::service::lists::{TOTAL_MAX, Total};

/// Maximum number of names of roles that are read from the database.
const NAMES_MAX: usize = 200;

/// A role that users have, but that the settings do not define. It grants nothing.
#[derive(Debug)]
pub struct UndefinedRole {
    /// The name of the role.
    pub name: String,
    /// The number of users with this role.
    pub users: Total,
}

impl Service {
    /// The roles that are defined.
    pub fn roles(&self) -> &Roles {
        &self.roles
    }

    /// The role with this name. Errors: that of the field `role`, with the names of all roles.
    pub fn find_role(&self, name: &str) -> Result<Role, FieldError> {
        self.roles.find(name).cloned().ok_or_else(|| {
            let names = self.roles.names().join(", ");
            FieldError::new("role", "unknown", format!("Use one of: {names}."))
        })
    }

    /// The roles that users have, but that the settings do not define.
    pub async fn undefined_roles(&self) -> Result<Vec<UndefinedRole>, AppError> {
        let roles = self.roles.clone();
        self.db.read_consistent(move |conn| find_undefined(conn, &roles)).await
    }
}

fn find_undefined(conn: &mut Conn, roles: &Roles) -> Result<Vec<UndefinedRole>, AppError> {
    let (mut found, mut last) = (Vec::new(), String::new());
    for _ in 0..NAMES_MAX {
        let Some(name) = user_roles::next_name(conn, &last)? else {
            break;
        };
        last.clone_from(&name);
        if roles.find(&name).is_none() {
            let users = Total::of(user_roles::count_up_to(conn, &name, TOTAL_MAX)?);
            found.push(UndefinedRole { name, users });
        }
    }
    Ok(found)
}
