//! The command `latchkey scan-regex`.

use super::Outcome;
use crate::domain::secret::SecretKind;

pub(super) fn print() -> Outcome {
    super::print(SecretKind::ALL.map(|kind| kind.pattern() + "\n").concat())
}
