//! Three nodes in three regions and a gateway, as an operator would start them: configuration files, certificates of `malle cert`, `init`
//! and accounts through the client crate.
//!
//! Not `malle demo`, whose shape is fixed: measurements want one shard or 64, either timing, binaries of another build. Leaders are moved to
//! where placement wants them before anything is measured, so every run has the same layout and nothing moves within a window.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use harness::{free_ports, until};
use malle_client::{
    AccountId, Class, Client, Config, Error, GroupStatus, InitPlan, NewAccount, Node, NodeId, Recipient, ShardId,
    SpecialUse, fresh_op_id,
};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::PASSWORD;
use super::binaries::Binaries;
use super::counters::Counters;
use super::files;
use super::process::Process;
use crate::load::Watched;

/// One node in each.
const REGIONS: [&str; 3] = ["nord", "centre", "sud"];
/// From nothing to delivered mail: seconds in a release build, more in another on a busy machine.
const START: Duration = Duration::from_secs(180);

/// What a measurement needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Shards beside the directory.
    pub shards: u32,
    /// Accounts in each shard.
    pub accounts_per_shard: u32,
    /// `local` or `wan`.
    pub timing: &'static str,
}

impl Default for Shape {
    fn default() -> Shape {
        Shape {
            shards: 8,
            accounts_per_shard: 8,
            timing: "local",
        }
    }
}

/// An account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its address.
    pub address: String,
    /// Its id.
    pub id: AccountId,
    /// Where it lives.
    pub shard: ShardId,
}

/// A running cluster.
pub struct Cluster {
    binaries: Binaries,
    /// Removed when the cluster is dropped.
    directory: TempDir,
    nodes: Vec<Member>,
    gateway: Option<Process>,
    /// `HOST:PORT` of the gateway's LMTP.
    pub lmtp: String,
    /// `HOST:PORT` of the gateway's IMAP.
    pub imap: String,
    /// With an operator's certificate.
    pub operator: Client,
    /// With a gateway's, for delivery and reading.
    pub client: Client,
    /// All accounts, shard by shard.
    pub accounts: Vec<Account>,
}

/// A node, running or not.
struct Member {
    node: Node,
    process: Option<Process>,
    /// `HOST:PORT` of its `/metrics`; `None` where the build has none.
    metrics: Option<String>,
}

impl Cluster {
    /// Starts everything and delivers one mail to each account.
    ///
    /// # Errors
    /// With the end of the log of the process that did not come up.
    pub async fn start(binaries: &Binaries, shape: Shape, within: &Path) -> anyhow::Result<Cluster> {
        let directory = tempfile::Builder::new().prefix("malle-bench-").tempdir_in(within)?;
        let path = directory.path().to_path_buf();
        let binaries = binaries.copy_to(&path.join("binaries"))?;
        let ports = free_ports(3 * REGIONS.len() + 2)?;
        let (ports, metrics) = ports.split_at(2 * REGIONS.len() + 2);
        let mut nodes = Vec::new();
        for (at, region) in REGIONS.iter().enumerate() {
            nodes.push(Node {
                id: NodeId(at as u64 + 1),
                region: (*region).into(),
                zone: "a".into(),
                client_address: ports[2 * at].clone(),
                peer_address: ports[2 * at + 1].clone(),
                retired: false,
            });
        }
        files::certificates(&binaries, &path, REGIONS.len()).await?;
        let mut members = Vec::new();
        for (node, metrics) in nodes.iter().zip(metrics) {
            let metrics = files::node(&binaries, &path, node, shape.timing, metrics).await?;
            members.push(Member {
                process: Some(start_node(&binaries, &path, node.id)?),
                node: node.clone(),
                metrics,
            });
        }
        let operator = connect(&path, "operator", &nodes, &mut members).await?;
        let mut cluster = Cluster {
            client: connect(&path, "gateway", &nodes, &mut members).await?,
            operator,
            binaries,
            directory,
            nodes: members,
            gateway: None,
            lmtp: ports[2 * REGIONS.len()].clone(),
            imap: ports[2 * REGIONS.len() + 1].clone(),
            accounts: Vec::new(),
        };
        cluster.init(shape).await?;
        cluster.settle_leaders().await?;
        cluster.make_accounts(shape).await?;
        cluster.start_gateway().await?;
        Ok(cluster)
    }

    /// Accounts of the first `shards` shards.
    pub fn accounts_of(&self, shards: u32) -> Vec<Account> {
        let within = |account: &&Account| account.shard.0 <= shards;
        self.accounts.iter().filter(within).cloned().collect()
    }

    /// Its processes.
    pub fn watched(&self) -> Watched {
        let nodes = self.nodes.iter().filter_map(|member| member.process.as_ref());
        let gateway = self.gateway.iter();
        Watched::from([
            ("nodes", nodes.map(Process::pid).collect()),
            ("gateway", gateway.map(Process::pid).collect()),
        ])
    }

    /// Ends all processes and removes the directory.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub async fn stop(self) -> anyhow::Result<()> {
        // Nobody needs the data any more: SIGKILL spares the seconds in which nodes wait for each other's streams to end.
        let nodes = self.nodes.into_iter().filter_map(|member| member.process);
        for mut process in nodes.chain(self.gateway) {
            process.kill().await?;
        }
        Ok(self.directory.close()?)
    }

    async fn init(&mut self, shape: Shape) -> anyhow::Result<()> {
        let plan = InitPlan {
            cluster_name: files::CLUSTER_NAME.into(),
            nodes: self.nodes.iter().map(|member| member.node.clone()).collect(),
            shards: shape.shards,
            replicas: REGIONS.len() as u32,
        };
        until("the cluster to be made", START, || async {
            match self.operator.cluster().init(plan.clone()).await {
                Ok(_) | Err(Error::Exists(_)) => Ok(Some(())),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// What the nodes that run count, together; `None` when a build does not tell.
    ///
    /// # Errors
    /// When one does not answer.
    pub async fn counters(&self) -> anyhow::Result<Option<Counters>> {
        let mut sum = Counters::default();
        for member in self.nodes.iter().filter(|member| member.process.is_some()) {
            let Some(address) = &member.metrics else {
                return Ok(None);
            };
            sum.add(Counters::read(address).await?);
        }
        Ok(Some(sum))
    }

    /// The node that placement wants to lead the first shard.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn leader_of_first_shard(&self) -> anyhow::Result<NodeId> {
        let topology = self.operator.directory().topology().await?;
        let first = topology.shards.iter().find(|shard| shard.id == ShardId(1));
        let leader = first.and_then(|shard| shard.replicas.first());
        leader.copied().context("there is a first shard")
    }

    /// SIGKILL; returns when it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn kill(&mut self, node: NodeId) -> anyhow::Result<()> {
        let process = self.member(node)?.process.take();
        process.context("the node does not run")?.kill().await
    }

    /// Starts a killed node again and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn restart(&mut self, node: NodeId) -> anyhow::Result<()> {
        let process = start_node(&self.binaries, self.directory.path(), node)?;
        self.member(node)?.process = Some(process);
        until(format!("an answer of node {node}"), START, || async {
            Ok(Some(self.operator.cluster().node_status(node, false).await.map(drop)?))
        })
        .await
    }

    /// Waits until a node holds what the others have committed now, with every body.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn caught_up(&mut self, node: NodeId) -> anyhow::Result<()> {
        let mut committed: BTreeMap<ShardId, u64> = BTreeMap::new();
        for other in self.nodes.iter().filter(|member| member.node.id != node) {
            let status = self.operator.cluster().node_status(other.node.id, false).await?;
            for group in status.groups {
                let highest = committed.entry(group.shard).or_default();
                *highest = group.committed_index.max(*highest);
            }
        }
        until(format!("node {node} to catch up"), START, || async {
            let status = self.operator.cluster().node_status(node, false).await?;
            // The directory names no bodies.
            let reached = |group: &GroupStatus| match group.shard {
                ShardId::DIRECTORY => group.applied_index,
                _ => group.applied_index.min(group.bodies_complete_through),
            };
            let groups = status.groups.iter();
            let through: BTreeMap<ShardId, u64> = groups.map(|group| (group.shard, reached(group))).collect();
            let has = |(shard, index): (&ShardId, &u64)| through.get(shard).is_some_and(|through| through >= index);
            Ok(committed.iter().all(has).then_some(()))
        })
        .await
    }

    fn member(&mut self, node: NodeId) -> anyhow::Result<&mut Member> {
        let found = self.nodes.iter_mut().find(|member| member.node.id == node);
        found.with_context(|| format!("there is no node {node}"))
    }

    /// Waits until each shard is led by the replica that placement prefers, and moves those that are not.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn settle_leaders(&mut self) -> anyhow::Result<()> {
        until("every leader in its place", START, || async {
            let topology = self.operator.directory().topology().await?;
            let mut settled = true;
            for shard in topology.shards {
                let preferred = *shard.replicas.first().context("a shard without replicas")?;
                let status = self.operator.cluster().node_status(preferred, false).await?;
                let leads = |group: &GroupStatus| group.shard == shard.id && group.role == "leader";
                if !status.groups.iter().any(leads) {
                    settled = false;
                    self.operator.cluster().leader_move(shard.id, preferred).await?;
                }
            }
            Ok(settled.then_some(()))
        })
        .await
    }

    /// All shards at the same time; a mail has come to each account.
    async fn make_accounts(&mut self, shape: Shape) -> anyhow::Result<()> {
        let mut making = JoinSet::new();
        for shard in 1..=shape.shards {
            let (operator, client) = (self.operator.clone(), self.client.clone());
            making.spawn(async move {
                let mut accounts = Vec::new();
                for number in 1..=shape.accounts_per_shard {
                    accounts.push(make_account(&operator, &client, number, shard).await?);
                }
                anyhow::Ok(accounts)
            });
        }
        while let Some(made) = making.join_next().await {
            self.accounts.extend(made.context("making accounts panicked")??);
        }
        // Shard by shard, in the order of their numbers: the same in every run.
        self.accounts
            .sort_by_key(|account| (account.shard, account.address.len(), account.address.clone()));
        Ok(())
    }

    async fn start_gateway(&mut self) -> anyhow::Result<()> {
        let path = self.directory.path();
        let endpoints: Vec<&str> = self
            .nodes
            .iter()
            .map(|member| member.node.client_address.as_str())
            .collect();
        let file = files::gateway(path, &endpoints, &self.lmtp, &self.imap)?;
        let program = self.binaries.path("malle-gateway");
        let mut gateway = Process::start("the gateway", &program, &file, &path.join("gateway.log"))?;
        until("the gateway's ports", START, || {
            let runs = gateway.must_run();
            let lmtp = &self.lmtp;
            async move {
                // Waiting does not bring back what has ended: that is the answer.
                if runs.is_err() {
                    return Ok(Some(runs));
                }
                harness::Lmtp::connect(lmtp).await?;
                Ok(Some(Ok(())))
            }
        })
        .await??;
        self.gateway = Some(gateway);
        Ok(())
    }
}

/// The address of an account.
pub(super) fn address(number: u32, shard: u32) -> String {
    format!("u{number}-{shard}@example.org")
}

async fn make_account(operator: &Client, client: &Client, number: u32, shard: u32) -> anyhow::Result<Account> {
    let new = NewAccount {
        address: address(number, shard),
        password: (number == 1).then(|| PASSWORD.into()),
        shard: Some(ShardId(shard)),
        ..NewAccount::default()
    };
    let made = operator.directory().account_create(new.clone(), fresh_op_id()).await?;
    until(format!("a mail to {}", new.address), START, || async {
        deliver(client, made.id, Bytes::from_static(b"Subject: first\r\n\r\n")).await?;
        Ok(Some(()))
    })
    .await?;
    Ok(Account {
        address: new.address,
        id: made.id,
        shard: made.shard,
    })
}

/// One delivery through the client crate.
///
/// # Errors
/// When it was refused or no answer came.
pub async fn deliver(client: &Client, account: AccountId, body: Bytes) -> Result<(), Error> {
    let recipient = Recipient {
        account,
        op_id: fresh_op_id(),
        into: SpecialUse::Inbox,
    };
    let mut answers = client.deliver(&[recipient], body).await;
    answers.remove(0).map(drop)
}

fn start_node(binaries: &Binaries, path: &Path, id: NodeId) -> anyhow::Result<Process> {
    let log = path.join(format!("node-{id}.log"));
    Process::start(
        &format!("node {id}"),
        &binaries.path("malled"),
        &files::node_file(path, id),
        &log,
    )
}

/// A client of this identity, as soon as the nodes open their ports.
async fn connect(path: &Path, name: &str, nodes: &[Node], members: &mut [Member]) -> anyhow::Result<Client> {
    let endpoints: Vec<String> = nodes.iter().map(|node| node.client_address.clone()).collect();
    let prefix = path.join(name);
    let (cert, key) = (prefix.with_extension("pem"), prefix.with_extension("key"));
    let config = Config::from_files(&endpoints, path.join("ca/ca.pem"), cert, key)?;
    until("the nodes to open their ports", START, || {
        let runs = members.iter_mut().filter_map(|member| member.process.as_mut());
        let runs = runs.map(Process::must_run).collect::<anyhow::Result<Vec<()>>>();
        let config = config.clone();
        async move {
            if let Err(ended) = runs {
                return Ok(Some(Err(ended)));
            }
            match Client::connect(config).await {
                Err(error) if error.class() == Class::Retry => Err(error.into()),
                answer => Ok(Some(answer.map_err(Into::into))),
            }
        }
    })
    .await?
}
