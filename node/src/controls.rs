//! Promises of the node and of what it is made of, broken on purpose, by name.
//!
//! For the simulator only (cargo feature `controls`): it shows with them that its checkers notice. Without the feature a control is never on
//! and the compiler leaves nothing of it; `cargo xtask check` sees to it that no shipped binary has the feature.

/// A promise of this crate that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// A vote is cast and not written down.
    ForgetVote,
    /// A node that believes to lead answers linearizable reads without asking anybody.
    StaleRead,
    /// A body is served without a look at its hash.
    SkipBodyCheck,
    /// A node that led when it went down leads on in its old term.
    LeadOn,
}

/// The names of all controls, and what each breaks.
#[cfg(feature = "controls")]
pub const NAMES: [(&str, &str); 9] = [
    ("acknowledge-unsynced", "records are acknowledged without a sync"),
    ("forget-vote", "a vote is cast and not written down"),
    ("drop-flag-delta", "a STORE that takes flags away leaves them"),
    ("reuse-uid", "an expunge gives the UIDs above the last message back"),
    (
        "stale-read",
        "a leader answers linearizable reads without asking anybody",
    ),
    ("skip-body-check", "a body is served without a look at its checksums"),
    ("lose-tombstone", "an expunge leaves no tombstone"),
    ("lose-receipt", "a delivery leaves no receipt"),
    ("lead-on", "a node that led when it went down leads on in its old term"),
];

#[cfg(feature = "controls")]
static ON: std::sync::Mutex<Option<Control>> = std::sync::Mutex::new(None);

/// Breaks the promise of this name from now on; false when there is none.
#[cfg(feature = "controls")]
pub fn switch_on(name: &str) -> bool {
    use malle_journal::controls as journal;
    use malle_machine::controls as machine;
    let own = match name {
        "acknowledge-unsynced" => {
            journal::switch_on(journal::Control::AcknowledgeUnsynced);
            return true;
        }
        "drop-flag-delta" => {
            machine::switch_on(machine::Control::DropFlagDelta);
            return true;
        }
        "reuse-uid" => {
            machine::switch_on(machine::Control::ReuseUid);
            return true;
        }
        "lose-tombstone" => {
            machine::switch_on(machine::Control::LoseTombstone);
            return true;
        }
        "lose-receipt" => {
            machine::switch_on(machine::Control::LoseReceipt);
            return true;
        }
        "skip-body-check" => {
            journal::switch_on(journal::Control::SkipChecksum);
            Control::SkipBodyCheck
        }
        "forget-vote" => Control::ForgetVote,
        "stale-read" => Control::StaleRead,
        "lead-on" => Control::LeadOn,
        _ => return false,
    };
    *ON.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(own);
    true
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
