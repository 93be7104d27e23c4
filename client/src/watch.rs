//! Waiting for changes of an account.

use crate::error::Error;
use crate::types::WatchEvent;

/// Tells of every committed change of an account, for as long as it is held.
pub struct Watch {
    _private: (),
}

impl Watch {
    /// The next change. The first one comes at once and says how far the account is.
    ///
    /// It outlives leaders and connections: after a reconnect the event has `overflow` and `tree_changed` set, because changes may have
    /// gone by. Dropping the future loses nothing, so it may stand in a `select!`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no replica took the watch for the client's deadline; call again to go on trying.
    /// [`Error::TokenExpired`] and [`Error::Denied`] are for good.
    pub async fn next(&mut self) -> Result<WatchEvent, Error> {
        Err(Error::Internal("not built yet".into()))
    }
}
