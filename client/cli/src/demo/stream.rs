//! A stream of deliveries that goes on while a node dies: one sender per account, each mail sent until it is acknowledged.
//!
//! Every acknowledgement is noted with its time, so that the longest silence of each shard can be told. A mail that is not
//! acknowledged is sent again with the same bytes, as a relay does: it must still be there once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use anyhow::bail;
use malle_client::ShardId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::check::stored_hash;
use super::cluster::address;
use super::corpus::stream_mail;
use super::ledger::Ledger;
use super::lmtp_writer::Lmtp;
use super::wait::{Try, until};

/// Accounts that get mail at the same time.
const SENDERS_MAX: u32 = 16;
/// Between two mails of one sender: the resolution of the silence that is measured.
const PAUSE: Duration = Duration::from_millis(20);
/// Between two tries of one mail.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// A mail that is not acknowledged for this long is given up; it counts as sent, not as acknowledged.
const GIVE_UP: Duration = Duration::from_secs(90);
/// The books of one run stay small enough to read every mail back.
const MAILS_PER_SENDER_MAX: u64 = 4_000;

/// An acknowledged mail.
#[derive(Debug, Clone, Copy)]
struct Acknowledged {
    sent: Instant,
    answered: Instant,
}

struct Shared {
    lmtp: SocketAddr,
    tag: String,
    ledger: Arc<Mutex<Ledger>>,
    acknowledged: Mutex<BTreeMap<u32, Vec<Acknowledged>>>,
    stop: watch::Receiver<bool>,
}

/// The running stream.
pub struct Stream {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    senders: JoinSet<()>,
    accounts: u32,
}

impl Stream {
    /// Starts sending to the first accounts.
    pub fn start(lmtp: SocketAddr, accounts: u32, tag: &str, ledger: Arc<Mutex<Ledger>>) -> Stream {
        let accounts = accounts.min(SENDERS_MAX);
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared {
            lmtp,
            tag: tag.to_owned(),
            ledger,
            acknowledged: Mutex::default(),
            stop: stopped,
        });
        let mut senders = JoinSet::new();
        for account in 1..=accounts {
            senders.spawn(send(Arc::clone(&shared), account, u64::from(accounts)));
        }
        Stream {
            shared,
            stop,
            senders,
            accounts,
        }
    }

    /// Waits until every account has this many acknowledged mails that were sent after `since`.
    pub async fn acknowledged_since(&self, since: Instant, mails: usize, limit: Duration) -> anyhow::Result<()> {
        until("acknowledged deliveries to every account", limit, async || {
            let acknowledged = lock(&self.shared.acknowledged);
            let count = |account| {
                let times = acknowledged.get(&account).map_or(&[][..], Vec::as_slice);
                times.iter().filter(|mail| mail.sent >= since).count()
            };
            let waiting = (1..=self.accounts)
                .filter(|account| count(*account) < mails)
                .collect::<Vec<_>>();
            match waiting.is_empty() {
                true => Ok(Try::Done(())),
                false => Ok(Try::NotYet(format!("accounts {waiting:?} still wait"))),
            }
        })
        .await
    }

    /// Ends the stream: each sender finishes the mail it is sending. The longest silence of each shard from `since` on.
    pub async fn finish(
        mut self,
        since: Instant,
        shards: &BTreeMap<u32, ShardId>,
    ) -> anyhow::Result<BTreeMap<ShardId, Duration>> {
        self.stop.send_replace(true);
        while let Some(ended) = self.senders.join_next().await {
            if let Err(error) = ended {
                bail!("a sender failed: {error}");
            }
        }
        let mut by_shard: BTreeMap<ShardId, Vec<Instant>> = BTreeMap::new();
        for (account, mails) in lock(&self.shared.acknowledged).iter() {
            let Some(shard) = shards.get(account) else { continue };
            by_shard
                .entry(*shard)
                .or_default()
                .extend(mails.iter().map(|mail| mail.answered));
        }
        Ok(by_shard
            .into_iter()
            .map(|(shard, times)| (shard, longest_silence(times, since)))
            .collect())
    }
}

/// The longest time between two acknowledgements, from the last one before `since` on.
fn longest_silence(mut times: Vec<Instant>, since: Instant) -> Duration {
    times.sort_unstable();
    let silences = times
        .windows(2)
        .filter(|pair| pair[1] >= since)
        .map(|pair| pair[1] - pair[0]);
    silences.max().unwrap_or_default()
}

async fn send(shared: Arc<Shared>, account: u32, step: u64) {
    let mut session = None;
    let mut number = u64::from(account);
    for _ in 0..MAILS_PER_SENDER_MAX {
        if *shared.stop.borrow() {
            return;
        }
        send_until_acknowledged(&shared, account, number, &mut session).await;
        number += step;
        sleep(PAUSE).await;
    }
}

async fn send_until_acknowledged(shared: &Shared, account: u32, number: u64, session: &mut Option<Lmtp>) {
    let mail = stream_mail(&shared.tag, number);
    lock(&shared.ledger).enter(account, &mail.id, stored_hash(&mail), mail.spam);
    let recipients = [address(account)];
    let first = Instant::now();
    while first.elapsed() < GIVE_UP {
        let sent = Instant::now();
        let tried = async {
            if session.is_none() {
                *session = Some(Lmtp::connect(shared.lmtp).await?);
            }
            let Some(open) = session.as_mut() else {
                bail!("no session")
            };
            open.deliver(mail.sender, &recipients, &mail.bytes, mail.framing).await
        };
        match tried.await {
            Ok(answers) if answers.iter().all(|answer| answer.is_ok()) => {
                lock(&shared.ledger).acknowledge(account, &mail.id);
                let times = Acknowledged {
                    sent,
                    answered: Instant::now(),
                };
                lock(&shared.acknowledged).entry(account).or_default().push(times);
                return;
            }
            // Later: the same bytes again, which is the same delivery.
            Ok(_) => {}
            // The session is over; what it had not answered may be stored or not.
            Err(_) => *session = None,
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// A poisoned lock holds what it held: a sender's panic is told when it is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_is_the_longest_one_that_ends_after_the_kill() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        // 500 ms of silence before the kill do not count, the 700 ms around it do.
        let times = vec![at(0), at(500), at(510), at(1210), at(1300)];
        assert_eq!(longest_silence(times, at(600)), Duration::from_millis(700));
        assert_eq!(longest_silence(Vec::new(), start), Duration::ZERO);
    }
}
