//! Promises of the machine, broken on purpose.
//!
//! For the simulator only (cargo feature `controls`): it shows with them that its checkers notice. Without the feature a control is never on
//! and the compiler leaves nothing of it; `cargo xtask check` sees to it that no shipped binary has the feature.

/// A promise that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// A STORE that takes flags away says that it did and leaves them.
    DropFlagDelta,
    /// An expunge gives the UIDs above the last message back.
    ReuseUid,
    /// An expunge leaves no tombstone.
    LoseTombstone,
    /// A delivery leaves no receipt.
    LoseReceipt,
}

#[cfg(feature = "controls")]
static ON: std::sync::Mutex<Option<Control>> = std::sync::Mutex::new(None);

/// Breaks this promise from now on, and no other of this crate.
#[cfg(feature = "controls")]
pub fn switch_on(control: Control) {
    *ON.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(control);
}

/// Whether this promise is broken.
#[cfg(feature = "controls")]
pub(crate) fn is_on(control: Control) -> bool {
    *ON.lock().unwrap_or_else(std::sync::PoisonError::into_inner) == Some(control)
}

/// Whether this promise is broken: it is kept.
#[cfg(not(feature = "controls"))]
pub(crate) const fn is_on(_: Control) -> bool {
    false
}
