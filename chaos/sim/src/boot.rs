//! A cluster from nothing: nodes, shards, accounts, mailboxes; then the clients that the load uses.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use malle_chaos::history::AccountHeader;
use malle_chaos::scenario::Scenario;
use malle_chaos::seed::Chance;
use malle_chaos::workload::{OverClient, Seat, fixed_mailboxes};
use malle_client::{Account, Client, Error, InitPlan, NewAccount, OpId, ShardId, SpecialUse};

use crate::machine::CLUSTER;
use crate::world::World;

/// Client crates that the clients of the load share, as sessions share a front end.
const FRONT_ENDS: u32 = 3;
/// A cluster that does not stand after this has a defect.
const STANDS: Duration = Duration::from_secs(120);

/// A cluster that stands.
pub struct Booted {
    /// For the load.
    pub target: OverClient,
    /// For the header of the history.
    pub accounts: Vec<AccountHeader>,
    /// Ids of the accounts, by number.
    pub seats: Vec<Seat>,
    /// What every account has, INBOX first: those of the load, then those that malle makes by itself.
    pub mailboxes: Vec<String>,
}

/// Starts all machines and makes what the scenario wants.
///
/// # Errors
/// Whatever does not work, although nothing is wrong yet.
pub async fn boot(world: &Arc<World>, scenario: &Scenario, seed: u64) -> anyhow::Result<Booted> {
    for machine in world.machines.values() {
        machine.start().await?;
    }
    let operator = world.operator().await.context("the operator's client")?;
    let plan = InitPlan {
        cluster_name: CLUSTER.to_owned(),
        nodes: world.machines.values().map(|machine| machine.as_node()).collect(),
        shards: scenario.topology.groups,
        replicas: scenario.topology.voters,
    };
    operator.cluster().init(plan).await.context("making the cluster")?;
    let mut front_ends = Vec::new();
    for number in 0..FRONT_ENDS {
        front_ends.push(world.front_end(&format!("mx{number}")).await?);
    }
    let mut ops = Chance::of(seed, "accounts", 0);
    let (mut accounts, mut seats) = (Vec::new(), Vec::new());
    let mailboxes = fixed_mailboxes(scenario.workload.mailboxes);
    let mut there = mailboxes.clone();
    for number in 0..scenario.workload.accounts {
        let shard = ShardId(1 + number % scenario.topology.groups);
        let seat = make(
            &operator,
            number,
            shard,
            scenario.workload.quota_bytes,
            OpId(ops.bytes16()),
        )
        .await?;
        let account = open(&front_ends[0], &seat).await?;
        for name in &mailboxes[1..] {
            made(&account, name)
                .await
                .with_context(|| format!("mailbox {name} of account {number}"))?;
        }
        for mailbox in account.mailboxes().await.context("the mailboxes of a new account")? {
            if !there.contains(&mailbox.name) {
                there.push(mailbox.name);
            }
        }
        accounts.push(AccountHeader {
            account: number,
            shard: shard.0,
            quota_bytes: scenario.workload.quota_bytes,
        });
        seats.push(seat);
    }
    Ok(Booted {
        target: OverClient::new(front_ends, seats.clone(), mailboxes),
        accounts,
        seats,
        mailboxes: there,
    })
}

async fn make(operator: &Client, number: u32, shard: ShardId, quota_bytes: u64, op: OpId) -> anyhow::Result<Seat> {
    let login = format!("a{number}@chaos.example");
    let password = format!("secret {number}");
    let new = NewAccount {
        address: login.clone(),
        password: Some(password.clone()),
        quota_bytes: Some(quota_bytes),
        shard: Some(shard),
        region: None,
    };
    let made = operator.directory().account_create(new, op).await;
    let made = made.with_context(|| format!("making account {number}"))?;
    Ok(Seat {
        id: made.id,
        login,
        password,
    })
}

/// Logs in, and waits until the shard has the account.
async fn open(front_end: &Client, seat: &Seat) -> anyhow::Result<Account> {
    let until = malle_rt::now() + STANDS;
    let account = front_end
        .login(&seat.login, &seat.password)
        .await
        .context("the first login")?;
    loop {
        match account.mailboxes().await {
            Ok(_) => return Ok(account),
            Err(error) if malle_rt::now() >= until => return Err(error).context("an account that does not come"),
            Err(_) => malle_rt::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn made(account: &Account, name: &str) -> anyhow::Result<()> {
    match account.create_mailbox(name, SpecialUse::None).await {
        // A second answer to a first try.
        Ok(_) | Err(Error::Exists(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
