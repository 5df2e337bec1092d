//! Objects that are deleted with the user who owns them, each with an audit entry.

use crate::db::Conn;
use crate::domain::audit::{Action, Target};
use crate::domain::id::UserId;
use crate::error::AppError;

/// An object's id, and its version if it has versions.
pub type IdAndVersion = (i64, Option<i64>);

/// Finds the objects of a user after an id, in the order of ids, at most so many.
pub type OfUser = fn(&mut Conn, UserId, i64, i64) -> Result<Vec<IdAndVersion>, AppError>;

/// One kind of owned objects. Their table declares it.
#[derive(Debug)]
pub struct Owned {
    /// The table, which is also the name of the objects in counts. Its column `owner_id` holds the user.
    pub table: &'static str,
    /// The action of the entry of each object that is deleted with its owner.
    pub action: Action,
    /// The object with this id, as the target of that entry.
    pub target: fn(i64) -> Target,
    /// Finds objects of a user.
    pub of_user: OfUser,
    /// Deletes the objects with these ids.
    pub delete: fn(&mut Conn, &[i64]) -> Result<(), AppError>,
}
