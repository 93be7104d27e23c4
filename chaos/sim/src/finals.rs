//! What every account is at the end: as its shard answers linearizably, and as each replica has it.

use std::sync::Arc;
use std::time::Duration;

use malle_chaos::history::{Final, FinalMailbox, FinalMessage, Record, Recorder};
use malle_chaos::workload::{Flags, Seat, hex};
use malle_machine::shard::{self, UidRange};
use malle_machine::view::{Fault, View};
use malle_node::raft::{Barrier, Group, GroupError};
use malle_proto::{AccountId, BodyHash, MailboxId, ModSeq, ShardId, Uid};
use malle_rt::Instant;

use crate::machine::Machine;
use crate::world::{World, broken};

/// A read of a whole account takes at most this long.
const READ: Duration = Duration::from_secs(60);
/// Replicas have this long to agree once nobody asks for anything any more.
const AGREE: Duration = Duration::from_secs(60);
/// A damaged copy of a body is replaced in this time when a peer has a good one.
const REPAIRED: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(100);
const PAGE_ROWS: usize = 500;

/// Rows of an account, with the hashes of its bodies.
struct Rows {
    modseq: u64,
    used_bytes: u64,
    quota_bytes: u64,
    messages: u64,
    mailboxes: Vec<(FinalMailbox, Vec<BodyHash>)>,
}

/// Waits until the replicas of every group are equal; what does not agree in time is written down.
pub async fn agree(world: &World, recorder: &Recorder) {
    let until = malle_rt::now() + AGREE;
    loop {
        match disagreement(world) {
            None => return,
            Some(what) if malle_rt::now() >= until => return broken(recorder, None, what),
            Some(_) => malle_rt::sleep(LOOK).await,
        }
    }
}

fn disagreement(world: &World) -> Option<String> {
    let mut seen: std::collections::BTreeMap<u32, (u32, u64, Vec<u8>)> = std::collections::BTreeMap::new();
    let mut leaders = std::collections::BTreeSet::new();
    let mut groups = std::collections::BTreeSet::new();
    for (place, machine) in &world.machines {
        let Some(life) = machine.life() else { continue };
        for group in life.interior.groups().all() {
            let status = group.status();
            groups.insert(status.shard);
            if status.role == "leader" {
                leaders.insert(status.shard);
            }
            if !status.voters.contains(&machine.node().0) {
                continue;
            }
            if status.applied_index != status.committed_index || status.last_log_index != status.applied_index {
                return Some(format!("machine {place} has not applied all of group {}", status.shard));
            }
            let here = (*place, status.applied_index, status.digest.to_vec());
            let there = seen.entry(status.shard).or_insert_with(|| here.clone());
            if (there.1, &there.2) != (here.1, &here.2) {
                return Some(format!(
                    "group {}: machine {} is at {} {}, machine {place} at {} {}",
                    status.shard,
                    there.0,
                    there.1,
                    hex(&there.2),
                    here.1,
                    hex(&here.2)
                ));
            }
        }
    }
    let leaderless = groups.difference(&leaders).next();
    leaderless.map(|group| format!("group {group} has no leader"))
}

/// Writes down what every account is.
pub async fn write(world: &Arc<World>, seats: &[Seat], shards: &[u32], recorder: &Recorder) {
    for (number, (seat, shard)) in seats.iter().zip(shards).enumerate() {
        let account = number as u32;
        if let Err(why) = linearizable(world, *shard, account, seat.id, recorder).await {
            let what = format!("account {account} could not be read linearizably at the end: {why}");
            broken(recorder, None, what);
        }
        for (place, machine) in &world.machines {
            let Some(group) = group_of(machine, *shard) else {
                continue;
            };
            if let Err(error) = one(Some(*place), machine, &group, account, seat.id, recorder).await {
                broken(
                    recorder,
                    Some(*place),
                    format!("account {account} cannot be read: {error}"),
                );
            }
        }
    }
}

/// By whoever leads. Nodes give groups to each other in quiet moments, so a leader that is none any more by the time it is asked is no fault.
async fn linearizable(
    world: &World,
    shard: u32,
    number: u32,
    account: AccountId,
    recorder: &Recorder,
) -> Result<(), String> {
    let until = malle_rt::now() + READ;
    let mut why = "nobody leads its group".to_owned();
    while malle_rt::now() < until {
        let led = |machine: &Machine| group_of(machine, shard).filter(|group| group.is_leader());
        let leader = world
            .machines
            .values()
            .find_map(|machine| led(machine).map(|group| (machine, group)));
        if let Some((machine, group)) = leader {
            match one(None, machine, &group, number, account, recorder).await {
                Err(GroupError::NotLeader { .. }) => why = "its leader went from node to node".to_owned(),
                Err(error) => return Err(error.to_string()),
                Ok(()) => return Ok(()),
            }
        }
        malle_rt::sleep(LOOK).await;
    }
    Err(why)
}

fn group_of(machine: &Machine, shard: u32) -> Option<Arc<Group>> {
    machine.life()?.interior.groups().get(ShardId(shard))
}

async fn one(
    place: Option<u32>,
    machine: &Machine,
    group: &Arc<Group>,
    number: u32,
    account: AccountId,
    recorder: &Recorder,
) -> Result<(), GroupError> {
    let barrier = match place {
        Some(_) => Barrier::Local,
        None => Barrier::Linearizable,
    };
    let deadline = malle_rt::now() + READ;
    let rows = group
        .read(barrier, deadline, move |view| rows_of(view, account))
        .await?;
    let mut mailboxes = Vec::new();
    for (mut mailbox, hashes) in rows.mailboxes {
        for (message, hash) in mailbox.messages.iter_mut().zip(hashes) {
            match body(machine, group, place.is_some(), hash, deadline).await {
                Ok(found) => message.hash = Some(found),
                Err(why) => message.why = Some(why),
            }
        }
        mailboxes.push(mailbox);
    }
    recorder.write(&Record::Final(Final {
        at_us: recorder.now_us(),
        place,
        account: number,
        modseq: rows.modseq,
        used_bytes: rows.used_bytes,
        quota_bytes: rows.quota_bytes,
        messages: rows.messages,
        mailboxes,
    }));
    Ok(())
}

/// The hash of the bytes that are read. Of a replica only its own copy counts; one that turns out to be damaged is given a moment to be
/// replaced by a peer's, which is what the product promises.
async fn body(
    machine: &Machine,
    group: &Group,
    own: bool,
    hash: BodyHash,
    deadline: Instant,
) -> Result<String, String> {
    let until = malle_rt::now() + REPAIRED;
    loop {
        let read = read_body(machine, group, own, hash, deadline).await;
        if read.is_ok() || malle_rt::now() >= until {
            return read;
        }
        malle_rt::sleep(LOOK).await;
    }
}

async fn read_body(
    machine: &Machine,
    group: &Group,
    own: bool,
    hash: BodyHash,
    deadline: Instant,
) -> Result<String, String> {
    let life = machine.life().ok_or("the machine is off")?;
    let sources = if own { Vec::new() } else { group.bodies().sources() };
    let (tell, told) = tokio::sync::oneshot::channel();
    let (bodies, shard) = (life.interior.bodies().clone(), group.shard());
    life.host.spawn(async move {
        let _ = tell.send(bodies.get(shard, hash, &sources, deadline).await);
    });
    match told.await {
        Ok(Ok(bytes)) => Ok(hex(blake3::hash(&bytes).as_bytes())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("the machine went off".to_owned()),
    }
}

fn rows_of(view: &dyn View, id: AccountId) -> Result<Rows, Fault> {
    let refused = |refusal: shard::Refusal| Fault::Broken(format!("{refusal:?}"));
    let account = shard::read::account(view, id)?.ok_or_else(|| Fault::Broken("no such account".into()))?;
    let mut mailboxes = Vec::new();
    for mailbox in shard::read::mailboxes(view, id)?.map_err(refused)? {
        if mailbox.no_select {
            continue;
        }
        let (messages, hashes) = messages_of(view, id, mailbox.id)?;
        mailboxes.push((
            FinalMailbox {
                name: mailbox.name,
                uid_validity: mailbox.uid_validity.0,
                uid_next: mailbox.uid_next.0,
                highest_modseq: mailbox.highest_modseq.0,
                count: mailbox.messages,
                messages,
            },
            hashes,
        ));
    }
    Ok(Rows {
        modseq: account.modseq.0,
        used_bytes: account.used_bytes,
        quota_bytes: account.quota_bytes,
        messages: account.messages,
        mailboxes,
    })
}

fn messages_of(
    view: &dyn View,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<(Vec<FinalMessage>, Vec<BodyHash>), Fault> {
    let (mut messages, mut hashes) = (Vec::new(), Vec::new());
    let mut from = Some(Uid(1));
    while let Some(first) = from {
        let rest = [UidRange {
            first,
            last: Uid(u32::MAX),
        }];
        let page = shard::read::fetch(view, account, mailbox, &rest, ModSeq(0), PAGE_ROWS)?;
        let page = page.map_err(|refusal| Fault::Broken(format!("{refusal:?}")))?;
        for message in page.messages {
            messages.push(FinalMessage {
                uid: message.uid.0,
                modseq: message.modseq.0,
                flags: flags(&message.flags),
                size_bytes: message.size,
                hash: None,
                why: None,
            });
            hashes.push(message.body);
        }
        from = page.resume_from;
    }
    Ok((messages, hashes))
}

fn flags(of: &shard::Flags) -> Flags {
    const SYSTEM: [(u8, &str); 5] = [
        (shard::Flags::SEEN, "\\Seen"),
        (shard::Flags::ANSWERED, "\\Answered"),
        (shard::Flags::FLAGGED, "\\Flagged"),
        (shard::Flags::DELETED, "\\Deleted"),
        (shard::Flags::DRAFT, "\\Draft"),
    ];
    let system = SYSTEM
        .iter()
        .filter(|(bit, _)| of.system & bit != 0)
        .map(|(_, name)| (*name).to_owned());
    Flags(system.chain(of.keywords.iter().cloned()).collect())
}
