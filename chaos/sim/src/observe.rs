//! What nodes say of their groups while the run goes on, and what becomes of a node that condemns itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use malle_chaos::history::{NodeEvent, Record, Recorder};
use malle_chaos::workload::hex;

use crate::machine::{End, Life, Machine};
use crate::panics;
use crate::world::{World, broken};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// A node that says the same for so many looks is written down again.
const AGAIN: u64 = 10;

/// Looks at every group of every node until the run ends.
pub async fn observe(world: Arc<World>, recorder: Recorder, end_us: u64) {
    let mut known: BTreeMap<(u32, u32), (String, u64)> = BTreeMap::new();
    let mut looks = 0;
    while recorder.now_us() < end_us {
        look(&world, &recorder, &mut known, looks % AGAIN == 0);
        looks += 1;
        malle_rt::sleep(LOOK).await;
    }
}

/// What all nodes say now.
pub fn look(world: &World, recorder: &Recorder, known: &mut BTreeMap<(u32, u32), (String, u64)>, whole: bool) {
    for what in panics::take() {
        broken(recorder, None, what);
    }
    for (place, machine) in &world.machines {
        let Some(life) = machine.life() else {
            say_down(recorder, known, *place, machine);
            continue;
        };
        for group in life.interior.groups().all() {
            let status = group.status();
            let said = (status.role.clone(), status.term);
            let news = known
                .insert((*place, status.shard), said.clone())
                .is_none_or(|before| before != said);
            if news || whole {
                recorder.write(&Record::Node(NodeEvent {
                    at_us: recorder.now_us(),
                    place: *place,
                    node: machine.node().0,
                    group: status.shard,
                    role: status.role,
                    term: status.term,
                    committed: status.committed_index,
                    applied: status.applied_index,
                    digest: Some(hex(&status.digest)),
                }));
            }
        }
    }
}

fn say_down(recorder: &Recorder, known: &mut BTreeMap<(u32, u32), (String, u64)>, place: u32, machine: &Machine) {
    for ((at, group), said) in known.iter_mut().filter(|((at, _), _)| *at == place) {
        if said.0 == "down" {
            continue;
        }
        *said = ("down".to_owned(), said.1);
        recorder.write(&Record::Node(NodeEvent {
            at_us: recorder.now_us(),
            place: *at,
            node: machine.node().0,
            group: *group,
            role: "down".to_owned(),
            term: said.1,
            ..NodeEvent::default()
        }));
    }
}

/// What `malled` does around its node: when the node condemns itself, it gives its groups away and the process ends.
pub fn watch_over(world: &Arc<World>, machine: &Arc<Machine>, life: &Life, recorder: &Recorder) {
    let (interior, recorder) = (life.interior.clone(), recorder.clone());
    let (world, machine, host) = (world.clone(), machine.clone(), life.host.clone());
    let (tell, told) = tokio::sync::oneshot::channel();
    life.host.spawn(async move {
        let mut condemned = interior.condemned();
        // The sender lives as long as the node.
        let Ok(reason) = condemned.wait_for(Option::is_some).await.map(|reason| reason.clone()) else {
            return;
        };
        interior.abandon().await;
        let _ = tell.send(reason.unwrap_or_default());
    });
    malle_rt::sim::spawn_outside(async move {
        // It never comes to that for most nodes.
        let Ok(reason) = told.await else { return };
        tracing::warn!(
            place = machine.place,
            reason,
            at_us = recorder.now_us(),
            "the node has left"
        );
        if machine.life().is_some_and(|now| Arc::ptr_eq(&now.host, &host)) {
            machine.end(End::Process);
        }
        drop(world);
    });
}
