//! Clients at work: each draws, calls, remembers and writes to the history, until the run ends.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use malle_proto::OpId;

use super::body::Body;
use super::call::{Answer, Call, Flags, FlagsMode, Freshness, Outcome};
use super::fixed_mailboxes;
use super::intent::Intent;
use super::memory::{Known, Memory};
use super::target::{Asked, Target};
use crate::history::{Operation, Record, Recorder};
use crate::scenario::{Profile, Scenario, Workload};
use crate::seed::Chance;

/// Deliveries that any client may repeat.
const RECENT_MAX: usize = 64;
/// A call that has not ended this long after its deadline is given up by the driver; the checker of bounds finds it by its length.
const GRACE: Duration = Duration::from_secs(10);
/// Messages in one call, at most.
const PICKED_MAX: u64 = 5;
/// A read that may be stale asks for at most this.
const STALE_US: u64 = 5_000_000;

/// What the clients of a run need.
#[derive(Clone)]
pub struct Drive {
    /// The scenario.
    pub scenario: Arc<Scenario>,
    /// The seed.
    pub seed: u64,
    /// Where the history goes; its clock is the run's.
    pub recorder: Recorder,
}

/// Deliveries that were made lately: account, op id, body. Shared, so that two clients may deliver the same mail at once, as two gateways
/// do after a mail server gave up on the first.
type Recent = Arc<Mutex<VecDeque<(u32, OpId, Body)>>>;

/// Lets all clients of the scenario work on the target until the timeline ends. Every account gets one delivery at the beginning of the
/// liveness phase, whatever chance says, so that every shard is asked.
///
/// # Errors
/// When a client of the load panicked, which is a defect of the load.
pub async fn drive<T: Target>(target: Arc<T>, drive: Drive) -> anyhow::Result<()> {
    let recent = Recent::default();
    let clients = (0..drive.scenario.workload.clients).map(|number| {
        let client = LoadClient {
            number,
            chance: Chance::of(drive.seed, "client", u64::from(number)),
            ops: Chance::of(drive.seed, "op ids", u64::from(number)),
            memory: Memory::default(),
            made: 0,
            mailboxes: fixed_mailboxes(drive.scenario.workload.mailboxes),
            target: target.clone(),
            recent: recent.clone(),
            drive: drive.clone(),
        };
        malle_rt::spawn(client.run())
    });
    // All have stopped before the first takes its last look: what it sees then is what there is.
    let stopped = all(clients.collect()).await?;
    all(stopped
        .into_iter()
        .map(|client| malle_rt::spawn(client.last_look()))
        .collect())
    .await?;
    Ok(())
}

/// What all of these tasks return.
async fn all<T: Send + 'static>(tasks: Vec<malle_rt::JoinHandle<T>>) -> anyhow::Result<Vec<T>> {
    let mut returned = Vec::new();
    for task in tasks {
        returned.push(
            task.await
                .map_err(|error| anyhow::anyhow!("a client of the load: {error:?}"))?,
        );
    }
    Ok(returned)
}

struct LoadClient<T> {
    number: u32,
    chance: Chance,
    ops: Chance,
    memory: Memory,
    /// How many mailbox names it has drawn.
    made: u64,
    mailboxes: Vec<String>,
    target: Arc<T>,
    recent: Recent,
    drive: Drive,
}

impl<T: Target> LoadClient<T> {
    fn load(&self) -> &Workload {
        &self.drive.scenario.workload
    }

    /// Until the end of the timeline.
    async fn run(mut self) -> Self {
        // Clients together make `rate` calls a second: each waits this long on average between two beginnings.
        let pause_us = 1_000_000 * u64::from(self.load().clients) / u64::from(self.load().rate);
        let mut next_us = self.chance.below(pause_us.max(1));
        let mut alive = false;
        loop {
            // A client that is late does not hurry: faults must not turn into a burst that is a fault of its own.
            let now_us = self.drive.recorder.now_us();
            next_us = next_us.max(now_us);
            let timeline = self.drive.recorder.timeline();
            if next_us >= timeline.end_us {
                return self;
            }
            malle_rt::sleep_until(self.drive.recorder.at(next_us)).await;
            if !alive && next_us >= timeline.liveness_us {
                alive = true;
                self.show_life().await;
            }
            let (account, call, op) = self.next_call();
            self.make(account, call, op).await;
            next_us += self.chance.between(pause_us / 2, pause_us + pause_us / 2);
        }
    }

    /// One delivery to each account that falls to this client.
    async fn show_life(&mut self) {
        let (clients, accounts) = (self.load().clients, self.load().accounts);
        for account in (self.number..accounts).step_by(clients as usize) {
            let call = self.delivery();
            let op = self.op();
            self.make(account, call, op).await;
        }
    }

    /// Brings what it follows by changes up to date, for the checker that compares it with what is there.
    async fn last_look(mut self) {
        for (account, mailbox, since) in self.memory.followed() {
            let fresh = Freshness::Linearizable;
            let call = Call::Changes { mailbox, since, fresh };
            self.make(account, call, OpId([0; 16])).await;
        }
    }

    fn op(&mut self) -> OpId {
        OpId(self.ops.bytes16())
    }

    /// Makes the call, and makes it again while nobody knows whether it was done.
    async fn make(&mut self, account: u32, call: Call, op: OpId) {
        if let Call::Deliver { body } = &call {
            let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            if recent.len() == RECENT_MAX {
                recent.pop_front();
            }
            recent.push_back((account, op, body.clone()));
        }
        for _ in 0..=self.repeats(&call) {
            match self.once(account, &call, op).await {
                Some(Outcome::Unknown { .. })
                    if self.drive.recorder.now_us() < self.drive.recorder.timeline().end_us => {}
                _ => return,
            }
        }
    }

    /// Changes of mailboxes carry no op id of ours, and a read may as well be another read.
    fn repeats(&self, call: &Call) -> u32 {
        match call {
            Call::Create { .. } | Call::Rename { .. } | Call::Delete { .. } => 0,
            call if call.writes() => self.load().repeats,
            _ => 0,
        }
    }

    /// One call, written to the history.
    async fn once(&mut self, account: u32, call: &Call, op: OpId) -> Option<Outcome<Answer>> {
        let recorder = self.drive.recorder.clone();
        let deadline = self.load().deadline.duration();
        let asked = Asked {
            client: self.number,
            account,
            op: if call.writes() { op } else { OpId([0; 16]) },
            deadline,
        };
        let (id, invoked_us) = (recorder.next_operation(), recorder.now_us());
        let outcome = match malle_rt::timeout(deadline + GRACE, self.target.call(asked, call)).await {
            Ok(outcome) => outcome?,
            Err(_) => Outcome::Unknown {
                why: "the call did not end".to_owned(),
            },
        };
        if let Some(answer) = outcome.done() {
            self.memory.learn(account, call, answer);
        }
        recorder.write(&Record::Operation(Operation {
            id,
            client: self.number,
            account,
            op: if call.writes() { op.to_string() } else { String::new() },
            call: call.clone(),
            invoked_us,
            completed_us: recorder.now_us(),
            outcome: outcome.clone(),
        }));
        Some(outcome)
    }

    /// What to do next: account, call, op id.
    fn next_call(&mut self) -> (u32, Call, OpId) {
        let profile = self.load().profile;
        let hot = profile == Profile::Hot && self.chance.below(2) == 0;
        let accounts = u64::from(self.load().accounts);
        let account = if hot { 0 } else { self.chance.below(accounts) as u32 };
        let mailbox = match self.chance.pick(&self.mailboxes) {
            Some(name) if !hot => name.clone(),
            _ => "INBOX".to_owned(),
        };
        let intent = Intent::draw(profile, &mut self.chance);
        let op = self.op();
        if intent == Intent::Redeliver {
            let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
            let at = self.chance.below(recent.len() as u64) as usize;
            if let Some((account, op, body)) = recent.get(at) {
                return (*account, Call::Deliver { body: body.clone() }, *op);
            }
        }
        match self.call_of(intent, account, &mailbox) {
            Some((account, call)) => (account, call, op),
            // It remembers nothing that it could pick.
            None => (account, self.delivery(), op),
        }
    }

    fn call_of(&mut self, intent: Intent, account: u32, mailbox: &str) -> Option<(u32, Call)> {
        let known = self.memory.of(account, mailbox);
        let name = mailbox.to_owned();
        let call = match intent {
            Intent::Append => Call::Append {
                mailbox: name,
                flags: self.flags(),
                body: self.body(),
            },
            Intent::Store | Intent::StoreUnchanged | Intent::Discard => self.store_of(intent, &known, name)?,
            Intent::Expunge => {
                let deleted = |(_, flags): &(u64, Flags)| flags.0.contains("\\Deleted");
                let uids: Vec<u32> = known
                    .messages
                    .iter()
                    .filter(|(_, message)| deleted(message))
                    .map(|(uid, _)| *uid)
                    .collect();
                let uids = self.some(&uids)?;
                Call::Expunge { mailbox: name, uids }
            }
            Intent::Copy | Intent::Move => self.copy_of(intent, &known, name)?,
            Intent::Create => self.create(),
            Intent::Rename | Intent::Delete => return self.mailbox_change(intent),
            Intent::List => Call::List {
                fresh: self.fresh(account),
            },
            Intent::Status => Call::Status {
                fresh: self.fresh(account),
            },
            Intent::Open => Call::Open {
                mailbox: name,
                fresh: self.fresh(account),
            },
            Intent::Fetch => Call::Fetch {
                mailbox: name,
                from: known.messages.keys().next().copied().unwrap_or(1),
                fresh: self.fresh(account),
            },
            Intent::Changes => Call::Changes {
                mailbox: name,
                since: known.synced,
                fresh: self.fresh(account),
            },
            Intent::ReadBody => {
                let uids: Vec<u32> = known.messages.keys().copied().collect();
                let uid = *self.chance.pick(&uids)?;
                Call::ReadBody { mailbox: name, uid }
            }
            Intent::Deliver | Intent::Redeliver => self.delivery(),
        };
        Some((account, call))
    }

    fn store_of(&mut self, intent: Intent, known: &Known, mailbox: String) -> Option<Call> {
        let uids: Vec<u32> = known.messages.keys().copied().collect();
        let uids = self.some(&uids)?;
        let seen = uids
            .iter()
            .filter_map(|uid| known.messages.get(uid))
            .map(|(modseq, _)| *modseq);
        let unchanged_since = (intent == Intent::StoreUnchanged).then(|| seen.max().unwrap_or(0));
        let (mode, flags) = match (intent, self.chance.below(6)) {
            (Intent::Discard, _) => (FlagsMode::Add, Flags::of(&["\\Deleted"])),
            (_, 0..3) => (FlagsMode::Add, self.flags()),
            (_, 3..5) => (FlagsMode::Remove, self.flags()),
            _ => (FlagsMode::Replace, self.flags()),
        };
        Some(Call::Store {
            mailbox,
            uids,
            mode,
            flags,
            unchanged_since,
        })
    }

    fn copy_of(&mut self, intent: Intent, known: &Known, mailbox: String) -> Option<Call> {
        let others: Vec<String> = self
            .mailboxes
            .iter()
            .filter(|name| **name != mailbox)
            .cloned()
            .collect();
        let to = self.chance.pick(&others)?.clone();
        let uids: Vec<u32> = known.messages.keys().copied().collect();
        let uids = self.some(&uids)?;
        Some(match intent {
            Intent::Move => Call::Move { mailbox, uids, to },
            _ => Call::Copy { mailbox, uids, to },
        })
    }

    fn create(&mut self) -> Call {
        Call::Create { name: self.new_name() }
    }

    /// A name that no other client draws.
    fn new_name(&mut self) -> String {
        self.made += 1;
        format!("made/c{}-{}", self.number, self.made)
    }

    /// Renames or deletes a mailbox that this client made. Whatever the answer, it forgets it: only it knows the name.
    fn mailbox_change(&mut self, intent: Intent) -> Option<(u32, Call)> {
        if self.memory.made.is_empty() {
            return None;
        }
        let at = self.chance.below(self.memory.made.len() as u64) as usize;
        let (account, from) = self.memory.made.swap_remove(at);
        Some(match intent {
            Intent::Rename => (
                account,
                Call::Rename {
                    from,
                    to: self.new_name(),
                },
            ),
            _ => (account, Call::Delete { name: from }),
        })
    }

    fn delivery(&mut self) -> Call {
        Call::Deliver { body: self.body() }
    }

    /// Most bodies are small: the size is drawn three times and the smallest taken.
    fn body(&mut self) -> Body {
        let (least, most) = self.load().message_bytes;
        let draws = [(); 3].map(|()| self.chance.between(least, most));
        Body::of(self.chance.next(), draws.into_iter().min().unwrap_or(least))
    }

    fn flags(&mut self) -> Flags {
        let names = ["\\Seen", "\\Answered", "\\Flagged", "\\Draft", "red", "blue"];
        let count = self.chance.between(1, 2) as usize;
        Flags(self.chance.draw(&names, count).into_iter().map(str::to_owned).collect())
    }

    fn some(&mut self, uids: &[u32]) -> Option<Vec<u32>> {
        let count = self.chance.between(1, PICKED_MAX) as usize;
        let mut picked = self.chance.draw(uids, count);
        picked.sort_unstable();
        (!picked.is_empty()).then_some(picked)
    }

    fn fresh(&mut self, account: u32) -> Freshness {
        match self.chance.below(10) {
            0..6 => Freshness::Linearizable,
            6..9 => Freshness::AtLeast(self.memory.modseq(account)),
            _ => Freshness::Stale(STALE_US),
        }
    }
}

#[cfg(test)]
mod tests;
