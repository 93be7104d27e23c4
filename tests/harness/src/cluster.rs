//! A cluster of real processes: what `malle demo` starts, in a directory of its own.
//!
//! One cluster runs at a time on a machine (a lock file in the directory for temporary files): four processes of an unoptimised build
//! on a small machine must stay within the tests' deadlines. The demo's children end when it ends, also when it is killed.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use malle_client::{Client, Config, GroupStatus, Node, NodeId, NodeStatus, ShardId};
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::binaries::binary;
use crate::host::{is_gone, signal};
use crate::imap::Imap;
use crate::lmtp::Lmtp;
use crate::monitoring::{self, Metrics};
use crate::place::{Place, start_alone};
use crate::ports::free_ports;
use crate::power::{self, LoopDisk};
use crate::wait::{until, within};

/// Password of every account.
pub const PASSWORD: &str = "correct-horse-7";
/// Accounts of a cluster: enough for tests that must not meet.
const ACCOUNTS: usize = 6;
/// Nodes of the demo.
const NODES: usize = 3;
/// A disk keeps up to 1 GiB of log before it presses for checkpoints, and each start begins a segment; sparse.
const LOOP_DISK_BYTES: u64 = 8 << 30;
/// From nothing to an account that logs in: three nodes, certificates, nine elections.
const START: Duration = Duration::from_secs(120);
/// A new leader, a restarted node, a snapshot: all far below on an idle machine.
const RECOVERY: Duration = Duration::from_secs(90);
/// A verb of an operator that waits for data to move.
const OPERATION: Duration = Duration::from_secs(180);
/// The gateway finishes the commands in flight first.
const STOP: Duration = Duration::from_secs(30);
/// The demo runs one cluster of this name.
const CLUSTER_NAME: &str = "malle.demo";

/// The address of the `number`-th account, from 1.
pub fn account(number: usize) -> String {
    assert!((1..=ACCOUNTS).contains(&number), "a cluster has {ACCOUNTS} accounts");
    format!("u{number}@example.org")
}

/// Whose certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A node.
    Node(u64),
    /// A gateway with its roles, for example `lmtp`.
    Gateway(String, Vec<String>),
}

/// `demo.json`: what the demo says of itself.
#[derive(Debug, Clone, Deserialize)]
struct DemoFile {
    nodes: Vec<DemoNode>,
    gateway: DemoGateway,
    context: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
struct DemoNode {
    id: u64,
    region: String,
    pid: u32,
}

#[derive(Debug, Clone, Deserialize)]
struct DemoGateway {
    lmtp: String,
    imap: String,
}

/// The CLI's context file.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ContextFile {
    pub(crate) endpoints: Vec<String>,
    pub(crate) ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// A running cluster. Dropping it kills every process and keeps the directory: only [`Cluster::finish`] says that all went well.
#[derive(Debug)]
pub struct Cluster {
    directory: Option<tempfile::TempDir>,
    demo: Child,
    file: DemoFile,
    pub(crate) context: ContextFile,
    /// What the harness started beside the demo's own processes.
    pub(crate) extra: Vec<Child>,
    /// Nodes among them, by their place.
    joined: BTreeMap<NodeId, usize>,
    /// Disks of the nodes, in their order, when their power can be cut.
    disks: Vec<LoopDisk>,
    _place: Place,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(directory) = self.directory.take() {
            println!("the cluster's directory is kept: {}", directory.keep().display());
        }
    }
}

impl Cluster {
    /// Starts three nodes and a gateway with accounts u1 to u6 of [`PASSWORD`], and waits until each can log in.
    ///
    /// # Errors
    /// When a binary is missing or the cluster does not come up.
    pub async fn start() -> anyhow::Result<Cluster> {
        Cluster::start_on(|_| Ok(Vec::new()), None).await
    }

    /// As [`Cluster::start`], with a disk for each node whose power can be cut.
    ///
    /// # Errors
    /// See [`Cluster::start`]; and when [`LoopDisk::possible`] says no.
    pub async fn start_on_loop_disks() -> anyhow::Result<Cluster> {
        Cluster::start_on(Cluster::loop_disks, None).await
    }

    /// As [`Cluster::start_on_loop_disks`], with nodes whose syncs are answered and not made: acknowledged mail is then lost, and whoever
    /// looks must find that out.
    ///
    /// # Errors
    /// See [`Cluster::start_on_loop_disks`]; and without a C compiler.
    pub async fn start_on_loop_disks_that_lie() -> anyhow::Result<Cluster> {
        let liar = power::liar()?;
        let cluster = Cluster::start_on(Cluster::loop_disks, Some(&liar)).await?;
        // Else the cluster itself would be lost, and that would be no news.
        cluster.disks.iter().try_for_each(LoopDisk::sync)?;
        Ok(cluster)
    }

    fn loop_disks(path: &Path) -> anyhow::Result<Vec<LoopDisk>> {
        let disk = |node: usize| {
            let image = path.join(format!("disk-{node}"));
            LoopDisk::create(&image, &path.join(format!("nodes/{node}")), LOOP_DISK_BYTES)
        };
        (1..=NODES).map(disk).collect()
    }

    async fn start_on(
        disks: impl FnOnce(&Path) -> anyhow::Result<Vec<LoopDisk>>,
        preload: Option<&Path>,
    ) -> anyhow::Result<Cluster> {
        let place = Place::take().await?;
        let starting_alone = start_alone().await?;
        let directory = tempfile::Builder::new().prefix("malle-cluster-").tempdir()?;
        let path = directory.path().to_path_buf();
        let disks = disks(&path)?;
        let log = File::create(path.join("demo.log"))?;
        let mut command = Command::new(binary("malle")?);
        if let Some(library) = preload {
            command.env("LD_PRELOAD", library);
        }
        let demo = command
            .arg("demo")
            .arg("--dir")
            .arg(&path)
            .args(["--accounts", &ACCOUNTS.to_string(), "--password", PASSWORD])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let mut starting = Starting {
            demo,
            path: path.clone(),
        };
        let file = match starting.wait().await {
            Ok(file) => file,
            Err(error) => {
                let said = std::fs::read_to_string(path.join("demo.log")).unwrap_or_default();
                return Err(error.context(format!("malle demo in {} said:\n{said}", directory.keep().display())));
            }
        };
        drop(starting_alone);
        let context = read_context(&file.context)?;
        Ok(Cluster {
            directory: Some(directory),
            demo: starting.demo,
            file,
            context,
            extra: Vec::new(),
            joined: BTreeMap::new(),
            disks,
            _place: place,
        })
    }

    /// Stops everything as an operator does (SIGTERM to the demo) and removes the directory. The last line of a test that passed.
    ///
    /// # Errors
    /// When the demo does not end, or not with success.
    pub async fn finish(mut self) -> anyhow::Result<()> {
        for mut child in std::mem::take(&mut self.extra) {
            child.kill().await?;
        }
        let pid = self.demo.id().context("the demo ended by itself")?;
        signal(pid, "TERM")?;
        let ended = within("the end of the demo after SIGTERM", STOP, async {
            Ok(self.demo.wait().await?)
        })
        .await?;
        ensure!(ended.success(), "the demo ended with {ended}");
        self.disks.clear();
        let directory = self.directory.take().context("a cluster is finished once")?;
        Ok(directory.close()?)
    }

    /// Ends a cluster that was to break: kills everything and removes the directory.
    ///
    /// # Errors
    /// When something does not go.
    pub async fn remove(mut self) -> anyhow::Result<()> {
        self.demo.kill().await?;
        for node in &self.file.nodes {
            until(format!("the end of node {}", node.id), STOP, || async {
                Ok(is_gone(node.pid).then_some(()))
            })
            .await?;
        }
        self.disks.clear();
        let directory = self.directory.take().context("a cluster is removed once")?;
        Ok(directory.close()?)
    }

    /// Where the cluster lives.
    pub fn path(&self) -> &Path {
        self.directory
            .as_ref()
            .expect("the directory is taken only when the cluster ends")
            .path()
    }

    /// `HOST:PORT` of the gateway's LMTP.
    pub fn lmtp_address(&self) -> &str {
        &self.file.gateway.lmtp
    }

    /// `HOST:PORT` of the gateway's plaintext IMAP.
    pub fn imap_address(&self) -> &str {
        &self.file.gateway.imap
    }

    /// A new LMTP session.
    ///
    /// # Errors
    /// When the gateway does not greet.
    pub async fn lmtp(&self) -> anyhow::Result<Lmtp> {
        Lmtp::connect(self.lmtp_address()).await
    }

    /// A new IMAP session of the `number`-th account.
    ///
    /// # Errors
    /// When the login is refused.
    pub async fn imap(&self, number: usize) -> anyhow::Result<Imap> {
        Imap::login(self.imap_address(), &account(number), PASSWORD).await
    }

    /// A client with the operator's certificate.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn operator(&self) -> anyhow::Result<Client> {
        let ContextFile {
            endpoints,
            ca,
            cert,
            key,
        } = &self.context;
        Ok(Client::connect(Config::from_files(endpoints, ca, cert, key)?).await?)
    }

    /// A client with a new certificate for this identity.
    ///
    /// # Errors
    /// When the certificate cannot be made or no node answers.
    pub async fn client_as(&self, identity: &Identity) -> anyhow::Result<Client> {
        let prefix = self.certificate(identity).await?;
        let (cert, key) = (prefix.with_extension("pem"), prefix.with_extension("key"));
        Ok(Client::connect(Config::from_files(
            &self.context.endpoints,
            &self.context.ca,
            cert,
            key,
        )?)
        .await?)
    }

    /// The shard of the `number`-th account, and the node that leads it.
    ///
    /// # Errors
    /// When nobody leads it before the deadline.
    pub async fn leader_of(&self, number: usize) -> anyhow::Result<(ShardId, NodeId)> {
        let client = self.operator().await?;
        let resolved = client
            .resolve(&account(number))
            .await?
            .context("the account is not there")?;
        let shard = resolved.shard;
        let leader = until(format!("a leader of shard {shard}"), RECOVERY, || async {
            let statuses = self.statuses(&client, false).await;
            let leads = |status: &NodeStatus| {
                status
                    .groups
                    .iter()
                    .any(|group| group.shard == shard && group.role == "leader")
            };
            Ok(statuses.into_iter().find(leads).map(|status| status.node))
        });
        Ok((shard, leader.await?))
    }

    /// `IP:PORT` of a node's health and metrics. It is another one after a restart.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn monitoring_address(&self, node: NodeId) -> anyhow::Result<String> {
        let status = self.operator().await?.cluster().node_status(node, false).await?;
        status.telemetry_address.context("the node listens for no monitoring")
    }

    /// The figures of a node now.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self, node: NodeId) -> anyhow::Result<Metrics> {
        let address = self.monitoring_address(node).await?;
        let (status, text) = monitoring::get(&address, "/metrics").await?;
        ensure!(status == 200, "/metrics of node {node}: {status}");
        Metrics::parse(&text)
    }

    /// Kills a node of the demo with SIGKILL and waits until it is gone. One that has ended by itself is gone, too: a node whose disk fails
    /// leaves.
    ///
    /// # Errors
    /// When there is no such node or it does not die.
    pub async fn kill(&mut self, node: NodeId) -> anyhow::Result<()> {
        self.end(node, "KILL").await
    }

    /// Stops a node of the demo as an operator does, with SIGTERM, and waits until it is gone.
    ///
    /// # Errors
    /// When there is no such node or it does not end.
    pub async fn stop(&mut self, node: NodeId) -> anyhow::Result<()> {
        self.end(node, "TERM").await
    }

    async fn end(&self, node: NodeId, with: &str) -> anyhow::Result<()> {
        let known = self.file.nodes.iter().find(|known| known.id == node.0);
        let pid = known.context("no such node in demo.json")?.pid;
        match signal(pid, with) {
            Err(error) if !is_gone(pid) => return Err(error),
            _ => {}
        }
        until(format!("the end of node {node}"), RECOVERY, || async {
            Ok(is_gone(pid).then_some(()))
        })
        .await
    }

    /// Cuts the power of these nodes at one moment: first their disks, then the processes, which must not write down what they saw.
    ///
    /// # Errors
    /// When the cluster was not started on loop disks.
    pub async fn cut_power(&mut self, nodes: &[NodeId]) -> anyhow::Result<()> {
        for node in nodes {
            self.disk(*node)?.cut()?;
        }
        for node in nodes {
            self.kill(*node).await?;
        }
        Ok(())
    }

    /// Switches these nodes on again and waits until they answer.
    ///
    /// # Errors
    /// When a disk does not mount or a node does not start.
    pub async fn power_on(&mut self, nodes: &[NodeId]) -> anyhow::Result<()> {
        for node in nodes {
            let disk = self.disk(*node)?;
            // The kernel closes the files of the killed process when it comes to it.
            until(format!("the disk of node {node}"), STOP, || async {
                disk.power_on().map(Some)
            })
            .await?;
        }
        for node in nodes {
            self.restart(*node).await?;
        }
        Ok(())
    }

    /// Fills the disk of a node until so many bytes are free.
    ///
    /// # Errors
    /// When the node has no disk of its own, or less free than that.
    pub fn fill_disk(&self, node: NodeId, leave_bytes: u64) -> anyhow::Result<()> {
        self.disk(node)?.fill(leave_bytes)
    }

    /// Takes away again what fills it.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn make_room(&self, node: NodeId) -> anyhow::Result<()> {
        self.disk(node)?.make_room()
    }

    /// Views that the nodes threw away and rebuilt since the cluster began, as their logs say.
    ///
    /// # Errors
    /// When a log does not read.
    pub fn rebuilds(&self) -> anyhow::Result<usize> {
        let mut rebuilds = 0;
        for node in &self.file.nodes {
            let log = std::fs::read_to_string(self.path().join(format!("logs/node-{}.log", node.id)))?;
            rebuilds += log.matches("the view is thrown away and rebuilt").count();
        }
        Ok(rebuilds)
    }

    fn disk(&self, node: NodeId) -> anyhow::Result<&LoopDisk> {
        let place = usize::try_from(node.0)?.checked_sub(1);
        place
            .and_then(|place| self.disks.get(place))
            .context("no loop disk of this node")
    }

    /// Starts a killed node of the demo again and waits until it answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn restart(&mut self, node: NodeId) -> anyhow::Result<()> {
        let mut command = Command::new(binary("malle")?);
        command
            .args(["demo", "node", "start", &node.to_string(), "--dir"])
            .arg(self.path());
        run(&mut command).await?;
        self.answers(node).await?;
        self.file = read_demo_file(self.path())?.context("demo.json is gone")?;
        Ok(())
    }

    /// Starts a stopped node of the demo again, with more at the end of its configuration, and waits until it answers. The demo knows
    /// nothing of it any more.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn restart_with(&mut self, node: NodeId, more: &str) -> anyhow::Result<()> {
        let directory = self.path().join(format!("nodes/{node}"));
        let config = directory.join("changed.toml");
        std::fs::write(&config, std::fs::read_to_string(directory.join("malled.toml"))? + more)?;
        self.extra.push(start_malled(&config)?);
        self.answers(node).await
    }

    /// Starts a node with an empty disk under a new id, in the region of the killed node `lost`, and has it take the other's place.
    ///
    /// # Errors
    /// When the new node does not start, or the replacement does not end.
    pub async fn replace(&mut self, lost: NodeId, new: NodeId) -> anyhow::Result<()> {
        let node = self.start_node(new, &self.region_of(lost)?).await?;
        let operator = self.operator().await?.with_deadline(RECOVERY);
        until(format!("node {new} in the place of node {lost}"), RECOVERY, || async {
            Ok(Some(operator.cluster().node_replace(node.clone(), lost).await?))
        })
        .await?;
        self.answers(new).await
    }

    /// Starts a node with an empty disk in the region of another one, and tells the directory of it. It holds no shard yet.
    ///
    /// # Errors
    /// When the node does not start, or is refused.
    pub async fn join(&mut self, new: NodeId, beside: NodeId) -> anyhow::Result<()> {
        let node = self.start_node(new, &self.region_of(beside)?).await?;
        let operator = self.operator().await?;
        until(format!("node {new} to be known"), RECOVERY, || async {
            Ok(Some(operator.cluster().node_add(node.clone()).await?))
        })
        .await?;
        self.answers(new).await
    }

    fn region_of(&self, node: NodeId) -> anyhow::Result<String> {
        let known = self.file.nodes.iter().find(|known| known.id == node.0);
        Ok(known.context("no such node")?.region.clone())
    }

    /// Starts a node with an empty disk, of which nobody knows.
    async fn start_node(&mut self, new: NodeId, region: &str) -> anyhow::Result<Node> {
        let ports = free_ports(2)?;
        let prefix = self.certificate(&Identity::Node(new.0)).await?;
        let directory = self.path().join(format!("nodes/{new}"));
        std::fs::create_dir_all(&directory)?;
        let mut table = toml::Table::new();
        table.insert("node".into(), i64::try_from(new.0)?.into());
        for (key, value) in [
            ("region", region),
            ("zone", "a"),
            ("cluster", CLUSTER_NAME),
            ("timing", "local"),
        ] {
            table.insert(key.into(), value.into());
        }
        table.insert("data_dir".into(), directory.join("data").display().to_string().into());
        for (key, port) in [
            ("client_listen", 0),
            ("client_address", 0),
            ("peer_listen", 1),
            ("peer_address", 1),
        ] {
            table.insert(key.into(), ports[port].clone().into());
        }
        let mut tls = toml::Table::new();
        for (key, path) in [
            ("ca", self.context.ca.clone()),
            ("cert", prefix.with_extension("pem")),
            ("key", prefix.with_extension("key")),
        ] {
            tls.insert(key.into(), path.display().to_string().into());
        }
        table.insert("tls".into(), tls.into());
        let mut telemetry = toml::Table::new();
        telemetry.insert("listen".into(), "127.0.0.1:0".into());
        table.insert("telemetry".into(), telemetry.into());
        let config = directory.join("malled.toml");
        std::fs::write(&config, table.to_string())?;
        self.joined.insert(new, self.extra.len());
        self.extra.push(start_malled(&config)?);
        Ok(Node {
            id: new,
            region: region.to_owned(),
            zone: "a".into(),
            client_address: ports[0].clone(),
            peer_address: ports[1].clone(),
            retired: false,
        })
    }

    /// Kills a node that joined with SIGKILL, for good.
    ///
    /// # Errors
    /// When there is no such node.
    pub async fn kill_joined(&mut self, node: NodeId) -> anyhow::Result<()> {
        let place = *self.joined.get(&node).context("no such node joined")?;
        Ok(self.extra[place].kill().await?)
    }

    /// Runs `malle` as an operator: its exit code and what it printed.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn malle(&self, arguments: &str) -> anyhow::Result<(i32, String)> {
        let mut command = Command::new(binary("malle")?);
        command.arg("--context").arg(&self.file.context);
        command
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = within(format!("malle {arguments}"), OPERATION, async {
            Ok(command.output().await?)
        })
        .await?;
        let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
        said += &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().unwrap_or(-1), said))
    }

    /// Waits until all replicas of every group hold the same state at the same applied index, with every body, on these nodes.
    ///
    /// # Errors
    /// At the deadline, with what differs.
    pub async fn replicas_agree(&self, nodes: &[NodeId]) -> anyhow::Result<()> {
        let operator = self.operator().await?;
        until("equal digests on all replicas", RECOVERY, || async {
            let mut statuses = Vec::new();
            for node in nodes {
                statuses.push(operator.cluster().node_status(*node, true).await?);
            }
            disagreement(&statuses).map_or(Ok(Some(())), |difference| bail!(difference))
        })
        .await
    }

    /// Everything that a node of the demo has logged.
    ///
    /// # Errors
    /// When there is no log.
    pub fn log_of(&self, node: NodeId) -> anyhow::Result<String> {
        let path = self.path().join(format!("logs/node-{node}.log"));
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Makes a certificate with the demo's CA; gives the path of `.pem` and `.key` without their endings.
    pub(crate) async fn certificate(&self, identity: &Identity) -> anyhow::Result<PathBuf> {
        let ca = self.context.ca.parent().context("the CA lies in a directory")?;
        let mut command = Command::new(binary("malle")?);
        let name = match identity {
            Identity::Node(id) => {
                command.args(["cert", "node", &id.to_string()]);
                format!("extra-node-{id}")
            }
            Identity::Gateway(name, roles) => {
                command.args(["cert", "gateway", name]);
                roles.iter().for_each(|role| {
                    command.args(["--role", role]);
                });
                format!("extra-gateway-{name}")
            }
        };
        let prefix = self.path().join(name);
        command.arg("--ca-dir").arg(ca).arg("--out").arg(&prefix);
        run(&mut command).await?;
        Ok(prefix)
    }

    async fn answers(&self, node: NodeId) -> anyhow::Result<()> {
        let operator = self.operator().await?;
        until(format!("an answer of node {node}"), RECOVERY, || async {
            Ok(Some(operator.cluster().node_status(node, false).await.map(|_| ())?))
        })
        .await
    }

    /// What every node of the demo says that answers.
    async fn statuses(&self, client: &Client, digests: bool) -> Vec<NodeStatus> {
        let mut statuses = Vec::new();
        for node in &self.file.nodes {
            statuses.extend(client.cluster().node_status(NodeId(node.id), digests).await.ok());
        }
        statuses
    }
}

/// A node of ours, with its log beside its configuration.
fn start_malled(config: &Path) -> anyhow::Result<Child> {
    let log = File::create(config.with_extension("log"))?;
    let child = Command::new(binary("malled")?)
        .arg("--config")
        .arg(config)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()?;
    Ok(child)
}

/// Why the replicas of these nodes do not agree; `None` when they do.
pub fn disagreement(statuses: &[NodeStatus]) -> Option<String> {
    let mut groups: BTreeMap<ShardId, Vec<(NodeId, &GroupStatus)>> = BTreeMap::new();
    for status in statuses {
        for group in &status.groups {
            groups.entry(group.shard).or_default().push((status.node, group));
        }
    }
    for (shard, replicas) in groups {
        let (first_node, first) = replicas[0];
        if first.digest.is_none() {
            return Some(format!("shard {shard}: node {first_node} tells no digest"));
        }
        for (node, group) in &replicas {
            if (group.applied_index, group.digest) != (first.applied_index, first.digest) {
                return Some(format!(
                    "shard {shard}: node {first_node} is at {} with {:?}, node {node} at {} with {:?}",
                    first.applied_index, first.digest, group.applied_index, group.digest
                ));
            }
            // The directory names no bodies.
            if shard != ShardId::DIRECTORY && group.bodies_complete_through < group.applied_index {
                return Some(format!(
                    "shard {shard}: node {node} has bodies through {}",
                    group.bodies_complete_through
                ));
            }
        }
    }
    None
}

/// The demo before it is ready.
struct Starting {
    demo: Child,
    path: PathBuf,
}

impl Starting {
    /// Waits for `demo.json`, then for a login of the last account, which is made last.
    async fn wait(&mut self) -> anyhow::Result<DemoFile> {
        let path = self.path.clone();
        let demo = &mut self.demo;
        let ready = until("demo.json and a login", START, || {
            let ended = demo.try_wait();
            let path = path.clone();
            async move {
                if let Some(status) = ended? {
                    bail!("malle demo ended ({status})");
                }
                let Some(file) = read_demo_file(&path)? else {
                    return Ok(None);
                };
                Imap::login(&file.gateway.imap, &account(ACCOUNTS), PASSWORD).await?;
                Ok(Some(file))
            }
        });
        ready.await
    }
}

fn read_demo_file(directory: &Path) -> anyhow::Result<Option<DemoFile>> {
    let path = directory.join("demo.json");
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(
            serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
        )),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Reads the CLI's context file; paths in it may be relative to it.
fn read_context(path: &Path) -> anyhow::Result<ContextFile> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut context: ContextFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let directory = path.parent().unwrap_or(Path::new(""));
    for file in [&mut context.ca, &mut context.cert, &mut context.key] {
        *file = directory.join(&*file);
    }
    Ok(context)
}

/// Runs a program that must succeed; its output is in the error when it does not.
async fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{:?}", command.as_std());
    within(shown.clone(), RECOVERY, async {
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {said}", output.status);
        Ok(())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(node: u64, applied_index: u64, digest: u8, bodies_complete_through: u64) -> NodeStatus {
        let group = GroupStatus {
            shard: ShardId(1),
            role: "follower".into(),
            term: 1,
            leader: None,
            last_log_index: applied_index,
            committed_index: applied_index,
            applied_index,
            checkpoint_index: 0,
            bodies_complete_through,
            digest: Some([digest; 16]),
            voters: Vec::new(),
            learners: Vec::new(),
            rebuilds: 0,
            rows: 0,
            accounts: 0,
        };
        NodeStatus {
            node: NodeId(node),
            region: String::new(),
            version: String::new(),
            uptime_ms: 0,
            groups: vec![group],
            failed: None,
            disk_free_bytes: 0,
            disk_total_bytes: 0,
            bodies: 0,
            body_bytes: 0,
            scrub: Default::default(),
            collect: Default::default(),
            telemetry_address: None,
            short_of_room: None,
        }
    }

    #[test]
    fn replicas_agree_only_on_index_digest_and_bodies() {
        assert_eq!(disagreement(&[status(1, 5, 7, 5), status(2, 5, 7, 5)]), None);
        assert!(disagreement(&[status(1, 5, 7, 5), status(2, 4, 7, 5)]).is_some());
        assert!(disagreement(&[status(1, 5, 7, 5), status(2, 5, 8, 5)]).is_some());
        assert!(disagreement(&[status(1, 5, 7, 5), status(2, 5, 7, 4)]).is_some());
    }

    #[test]
    fn the_demo_file_and_the_context_are_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read_demo_file(directory.path()).unwrap().is_none());
        let json = r#"{"nodes":[{"id":1,"region":"nord","pid":7,"addresses":{}}],"gateway":{"pid":8,"lmtp":"a:1","imap":"a:2","imaps":"a:3"},"context":"context.toml"}"#;
        std::fs::write(directory.path().join("demo.json"), json).unwrap();
        assert_eq!(read_demo_file(directory.path()).unwrap().unwrap().nodes[0].pid, 7);
        let path = directory.path().join("context.toml");
        std::fs::write(
            &path,
            "endpoints = [\"a:1\"]\nca = \"ca/ca.pem\"\ncert = \"/x/o.pem\"\nkey = \"o.key\"\n",
        )
        .unwrap();
        let context = read_context(&path).unwrap();
        assert_eq!(context.ca, directory.path().join("ca/ca.pem"));
        assert_eq!(context.cert, Path::new("/x/o.pem"));
    }
}
