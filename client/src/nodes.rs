//! The connections: one per node, made when first needed, shared by every call, replaced when broken.
//!
//! Callers that need the same node at the same time wait for one handshake together. A node that could not be reached is remembered
//! for a moment ([`limits::ROUTE_REFRESH_MS`]), so that callers prefer other replicas and a dead one is not dialled by each of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malle_proto::{NodeId, limits};
use malle_rt::Instant;
use tokio::sync::OnceCell;

use crate::connection::Connection;
use crate::reach::{Reach, ReachError};

/// Where a node is: its address, and who must answer there when the directory has said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) node: Option<NodeId>,
}

type Slot = Arc<OnceCell<Arc<Connection>>>;

/// See the module's header.
pub(crate) struct Nodes {
    reach: Arc<dyn Reach>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<String, Slot>,
    /// When a node could last not be reached.
    failed: BTreeMap<String, Instant>,
}

impl Nodes {
    pub(crate) fn new(reach: Arc<dyn Reach>) -> Nodes {
        Nodes {
            reach,
            state: Mutex::default(),
        }
    }

    /// The connection to a node, made now if there is none.
    pub(crate) async fn get(&self, target: &Target) -> Result<Arc<Connection>, ReachError> {
        let slot = self.with(|state| state.slots.entry(target.address.clone()).or_default().clone());
        let opened = slot.get_or_try_init(async || {
            let bound = Duration::from_millis(limits::CONNECT_MAX_MS);
            match malle_rt::timeout(bound, self.reach.reach(&target.address)).await {
                Ok(reached) => reached.map(|reached| Arc::new(Connection::over(&target.address, reached))),
                Err(_) => Err(ReachError::unreachable(format!(
                    "{} did not answer within {bound:?}",
                    target.address
                ))),
            }
        });
        let connection = match opened.await {
            Ok(connection) => connection.clone(),
            Err(error) => {
                self.with(|state| state.failed.insert(target.address.clone(), malle_rt::now()));
                return Err(error);
            }
        };
        self.with(|state| state.failed.remove(&target.address));
        match target.node {
            Some(node) if node != connection.node() => Err(ReachError::untrusted(format!(
                "{} is node {}, where node {node} should be",
                target.address,
                connection.node()
            ))),
            _ => Ok(connection),
        }
    }

    /// Leaves a broken connection: calls that are on it end by themselves, the next one dials anew.
    pub(crate) fn forget(&self, connection: &Arc<Connection>) {
        self.with(|state| {
            let same = |slot: &Slot| slot.get().is_some_and(|held| Arc::ptr_eq(held, connection));
            if state.slots.get(connection.address()).is_some_and(same) {
                state.slots.remove(connection.address());
            }
        });
    }

    /// Could the node not be reached a moment ago?
    pub(crate) fn is_suspect(&self, address: &str) -> bool {
        let moment = Duration::from_millis(limits::ROUTE_REFRESH_MS);
        self.with(|state| {
            state
                .failed
                .get(address)
                .is_some_and(|at| malle_rt::now() < *at + moment)
        })
    }

    /// Remembers that a node did not answer, though its connection seemed whole.
    pub(crate) fn suspect(&self, address: &str) {
        self.with(|state| state.failed.insert(address.to_owned(), malle_rt::now()));
    }

    /// Reaches every node anew when it is needed next.
    pub(crate) fn forget_all(&self) {
        self.with(|state| state.slots.clear());
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // A panic elsewhere cannot leave these maps half changed: each change is one call.
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
