//! The states of a session and which command may come in which (RFC 3501 3 and 6): one table.

use super::parse::{Append, Body};

/// RFC 3501 3. Logout is not here: a session that logs out ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not authenticated.
    Anonymous,
    /// Logged in, no mailbox selected.
    Authenticated,
    /// A mailbox is selected.
    Selected,
}

/// In which states a command makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Allowed {
    /// In every state.
    Any,
    /// Before login only.
    BeforeLogin,
    /// With or without a mailbox selected.
    LoggedIn,
    /// Logged in, but before a mailbox is selected (ENABLE: RFC 5161 3.1).
    BeforeSelect,
    /// With a mailbox selected.
    InMailbox,
}

impl Allowed {
    pub(super) fn allows(self, state: State) -> bool {
        match self {
            Allowed::Any => true,
            Allowed::BeforeLogin => state == State::Anonymous,
            Allowed::LoggedIn => state != State::Anonymous,
            Allowed::BeforeSelect => state == State::Authenticated,
            Allowed::InMailbox => state == State::Selected,
        }
    }

    /// Why a command is refused, for the person who debugs the client.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Allowed::Any => "Not now",
            Allowed::BeforeLogin => "You are logged in already",
            Allowed::LoggedIn => "Log in first",
            Allowed::BeforeSelect => "Only between login and the first SELECT",
            Allowed::InMailbox => "Select a mailbox first",
        }
    }
}

/// The table.
pub(super) fn allowed(body: &Body) -> Allowed {
    match body {
        Body::Capability | Body::Noop | Body::Logout | Body::Id => Allowed::Any,
        Body::StartTls | Body::Login { .. } | Body::Authenticate { .. } => Allowed::BeforeLogin,
        Body::Enable(_) => Allowed::BeforeSelect,
        Body::Select { .. }
        | Body::Create { .. }
        | Body::Delete(_)
        | Body::Rename { .. }
        | Body::Subscribe { .. }
        | Body::List(_)
        | Body::Lsub { .. }
        | Body::Namespace
        | Body::Status { .. }
        | Body::Append(Append { replaces: None, .. })
        | Body::GetMetadata(_)
        | Body::SetMetadata { .. }
        | Body::SetAcl { .. }
        | Body::GetAcl(_)
        | Body::ListRights { .. }
        | Body::MyRights(_)
        | Body::Compress
        | Body::GetQuota(_)
        | Body::GetQuotaRoot(_)
        | Body::Idle
        | Body::Notify(_) => Allowed::LoggedIn,
        Body::Append(Append { replaces: Some(_), .. })
        | Body::Check
        | Body::Close
        | Body::Unselect
        | Body::Expunge { .. }
        | Body::Search { .. }
        | Body::Sort { .. }
        | Body::Thread { .. }
        | Body::Fetch { .. }
        | Body::Store { .. }
        | Body::Copy { .. } => Allowed::InMailbox,
    }
}

/// May EXPUNGE be told at the end of this command? Not while the client counts on its sequence numbers (RFC 3501 7.4.1).
pub(super) fn may_tell_expunge(body: &Body) -> bool {
    match body {
        Body::Search { by_uid, .. } | Body::Sort { by_uid, .. } | Body::Thread { by_uid, .. } => *by_uid,
        Body::Fetch { target, .. } | Body::Store { target, .. } => target.by_uid,
        _ => true,
    }
}

/// Does this command itself change, or bring up to date, what the client knows of the selected mailbox? Its doings are told also to a client
/// that asked not to hear of this mailbox (RFC 5465 3.1).
pub(super) fn tells_own_changes(body: &Body) -> bool {
    matches!(
        body,
        Body::Expunge { .. } | Body::Store { .. } | Body::Copy { .. } | Body::Append(_) | Body::Notify(_)
    )
}
