//! What a cluster is to a client of the load.

use std::future::Future;
use std::time::Duration;

use malle_proto::OpId;

use super::call::{Answer, Call, Outcome};

/// Who asks, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The client, from 0. It makes one call at a time.
    pub client: u32,
    /// The account, from 0.
    pub account: u32,
    /// The op id of a change: the same for every repeat. Zero for reads.
    pub op: OpId,
    /// The call gives up after this long.
    pub deadline: Duration,
}

/// A cluster, as clients reach it. One method with one [`Call`]: an implementation is one `match`, and a new call cannot be forgotten.
///
/// The outcome must be honest. Done: an answer came that says so. Refused: an answer came that says that nothing was done by this call.
/// Everything else is Unknown.
pub trait Target: Send + Sync + 'static {
    /// Makes a call; `None` at once when this way of reaching malle does not have it (LMTP reads nothing): the client does something else.
    /// It must end within a little more than [`Asked::deadline`].
    fn call(&self, asked: Asked, call: &Call) -> impl Future<Output = Option<Outcome<Answer>>> + Send;
}
