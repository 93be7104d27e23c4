//! One command: is it a repeat, does it stand, what does it write.

use malle_proto::limits;

use super::rows::{self, ClockRow, Tag};
use super::{
    Command, Op, Outcome, Refusal, accounts, app_passwords, cluster, former, layout, receipts, sharing, standing, tasks,
};
use crate::format;
use crate::view::{Draft, Fault, View, Writes};

/// Applies one command. A refused or repeated command writes nothing.
///
/// # Errors
/// A [`Fault`] when a row cannot be read: nothing was changed.
pub fn apply(view: &dyn View, command: &Command) -> Result<(Outcome, Writes), Fault> {
    match decide(view, command) {
        Ok(done) => Ok(done),
        Err(Stop::Refused(refusal)) => Ok((Outcome::Refused(refusal), Writes::default())),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

/// Why a command ends early.
pub enum Stop {
    /// With this answer.
    Refused(Refusal),
    /// Without an answer.
    Fault(Fault),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Stop::Refused(refusal)
    }
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Stop::Fault(fault)
    }
}

/// What a step of a command gives.
pub type Step<T> = Result<T, Stop>;

/// A command that is being applied.
pub struct Turn<'v> {
    /// Its writes over the rows.
    pub draft: Draft<'v>,
    /// The machine's time during it, and the receipts' counters.
    pub clock: ClockRow,
    /// The proposer's time, which may be anything.
    pub proposed_ms: u64,
}

fn decide(view: &dyn View, command: &Command) -> Step<(Outcome, Writes)> {
    let clock: Option<ClockRow> = rows::load(view, "clock", &rows::first(Tag::Clock))?;
    let Some(mut clock) = clock else {
        return match &command.op {
            Op::Init { .. } => run(view, first_clock(command.time_ms), command),
            _ => Err(Refusal::NotInitialised.into()),
        };
    };
    if let Some(first_answer) = receipts::find(view, &command.op)? {
        return Ok((first_answer, Writes::default()));
    }
    clock.time_ms = follow(clock.time_ms, command.time_ms);
    run(view, clock, command)
}

/// The machine's time starts where Init's proposer says it is.
fn first_clock(time_ms: u64) -> ClockRow {
    ClockRow {
        time_ms,
        receipts_first: 0,
        receipts_next: 0,
    }
}

/// Time never falls and never jumps: a proposer whose clock is wrong can neither turn it back nor make every receipt old at once.
fn follow(now_ms: u64, proposed_ms: u64) -> u64 {
    proposed_ms.clamp(now_ms, now_ms.saturating_add(limits::CLOCK_STEP_MAX_MS))
}

fn run(view: &dyn View, clock: ClockRow, command: &Command) -> Step<(Outcome, Writes)> {
    let mut turn = Turn {
        draft: Draft::new(view),
        clock,
        proposed_ms: command.time_ms,
    };
    let op = &command.op;
    let outcome = perform(&mut turn, op)?;
    receipts::leave(&mut turn, op, &outcome);
    receipts::expire(&mut turn)?;
    former::expire(&mut turn)?;
    let clock = format::encode(&turn.clock);
    turn.draft.put(rows::first(Tag::Clock), clock);
    Ok((outcome, turn.draft.writes))
}

fn perform(turn: &mut Turn<'_>, op: &Op) -> Step<Outcome> {
    match op {
        Op::Init {
            cluster: id,
            name,
            nodes,
            shards,
            token_key,
        } => cluster::init(turn, *id, name, nodes, shards, token_key),
        Op::NodeSet { node } => cluster::node_set(turn, node),
        Op::NodeRetire { node } => cluster::node_retire(turn, *node),
        Op::ShardSet { shard, replicas, epoch } => cluster::shard_set(turn, *shard, replicas, *epoch),
        Op::TokenKeyAdd { key } => cluster::token_key_add(turn, key),
        Op::AccountCreate {
            account,
            address,
            password_hash,
            quota_bytes,
            shard,
            region,
            op_id: _,
        } => {
            let new = accounts::NewAccount {
                id: *account,
                address,
                password_hash: password_hash.as_deref(),
                quota_bytes: *quota_bytes,
                shard: *shard,
                region: region.as_deref(),
            };
            accounts::create(turn, &new)
        }
        Op::AccountSet {
            account,
            password_hash,
            state,
            quota_bytes,
            op_id: _,
        } => accounts::set(turn, *account, password_hash.as_deref(), *state, *quota_bytes),
        Op::AddressAdd {
            account,
            address,
            primary,
            op_id: _,
        } => accounts::address_add(turn, *account, address, *primary),
        Op::AddressRemove { account, address, .. } => accounts::address_remove(turn, *account, address),
        Op::AppPasswordAdd {
            account,
            name,
            digest,
            scopes,
            op_id: _,
        } => app_passwords::add(turn, *account, name, *digest, *scopes),
        Op::AppPasswordRemove {
            account,
            name,
            op_id: _,
        } => app_passwords::remove(turn, *account, name),
        Op::SharingAdd { owner, guest, mark } => sharing::add(turn, *owner, *guest, *mark),
        Op::SharingRemove { owner, guest, mark } => sharing::remove(turn, *owner, *guest, *mark),
        Op::LayoutStage { .. }
        | Op::LayoutApply { .. }
        | Op::LayoutRevert
        | Op::NodeStand { .. }
        | Op::NodeSilence { .. }
        | Op::TaskStart { .. }
        | Op::TaskAdvance { .. } => grow(turn, op),
    }
}

/// Commands about layouts, standings and tasks.
fn grow(turn: &mut Turn<'_>, op: &Op) -> Step<Outcome> {
    match op {
        Op::LayoutStage { change } => layout::stage(turn, change),
        Op::LayoutApply {
            version,
            by,
            break_goal,
        } => layout::apply(turn, *version, by, *break_goal),
        Op::LayoutRevert => layout::revert(turn),
        Op::NodeStand {
            node,
            standing,
            break_goal,
        } => standing::stand(turn, *node, *standing, *break_goal),
        Op::NodeSilence { node, silent } => standing::silence(turn, *node, *silent),
        Op::TaskStart {
            shard,
            epoch,
            join,
            leave,
            reason,
            bytes,
        } => tasks::start(turn, *shard, *epoch, *join, *leave, *reason, *bytes),
        Op::TaskAdvance { task, step, note } => tasks::advance(turn, *task, *step, note),
        _ => Err(Refusal::Invalid("not a command about layouts, standings or tasks".into()).into()),
    }
}
