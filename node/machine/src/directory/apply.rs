//! Placeholder header: replaced by the machine's author.

use super::{Command, Outcome};
use crate::view::{Fault, View, Writes};

/// Applies one command.
///
/// # Errors
/// A [`Fault`] when a row cannot be read: nothing was changed.
pub fn apply(_view: &dyn View, _command: &Command) -> Result<(Outcome, Writes), Fault> {
    Err(Fault::Broken("not written yet".into()))
}
