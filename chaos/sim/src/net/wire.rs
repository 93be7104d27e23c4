//! One connection, from its handshake to its break.

use std::sync::Arc;
use std::time::Duration;

use malle_rt::sim::Host;
use tokio::sync::watch;
use tonic::Status;

use super::{Door, Net};

/// Between two signs of life.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Wire {
    from: (u32, Option<Arc<Host>>),
    door: Door,
    /// Why it is broken.
    broken: watch::Sender<Option<&'static str>>,
}

impl Wire {
    /// A connection that breaks by itself when one end was silent for `patience`.
    pub fn begin(net: &Arc<Net>, from: (u32, Option<Arc<Host>>), door: Door, patience: Duration) -> Arc<Wire> {
        let wire = Arc::new(Wire {
            from,
            door,
            broken: watch::Sender::new(None),
        });
        net.register(&wire);
        malle_rt::sim::spawn_outside(keep_alive(net.clone(), Arc::downgrade(&wire), patience));
        wire
    }

    pub fn door(&self) -> &Door {
        &self.door
    }

    pub fn places(&self) -> (u32, u32) {
        (self.from.0, self.door.place)
    }

    pub fn touches(&self, place: u32) -> bool {
        self.from.0 == place || self.door.place == place
    }

    /// Both processes are there, running or not.
    pub fn ends_live(&self) -> bool {
        self.from.1.as_ref().is_none_or(|host| host.is_alive()) && self.door.host.is_alive()
    }

    fn ends_run(&self) -> bool {
        self.from.1.as_ref().is_none_or(|host| host.runs()) && self.door.host.runs()
    }

    pub fn is_broken(&self) -> bool {
        self.broken.borrow().is_some()
    }

    pub fn break_off(&self, why: &'static str) {
        self.broken.send_if_modified(|broken| {
            let first = broken.is_none();
            broken.get_or_insert(why);
            first
        });
    }

    /// Returns once it has broken.
    pub async fn broken(&self) {
        let mut broken = self.broken.subscribe();
        // The sender is this wire itself.
        let _ = broken.wait_for(Option::is_some).await;
    }

    /// What a caller on it is told.
    pub fn status(&self) -> Status {
        Status::unavailable(self.broken.borrow().unwrap_or("connection reset"))
    }
}

/// Asks for signs of life, from both ends, and breaks the wire when one is missing for too long.
async fn keep_alive(net: Arc<Net>, wire: std::sync::Weak<Wire>, patience: Duration) {
    let mut heard = malle_rt::now();
    loop {
        malle_rt::sleep(KEEP_ALIVE).await;
        let Some(wire) = wire.upgrade() else { return };
        if wire.is_broken() {
            return;
        }
        let (from, to) = wire.places();
        let now = malle_rt::now();
        if wire.ends_run() && net.is_open(from, to) && net.is_open(to, from) {
            heard = now;
        }
        if now - heard >= patience {
            return wire.break_off("keep-alive timed out");
        }
    }
}
