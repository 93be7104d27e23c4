//! A cluster of the shipped binaries: each node in a network namespace with a disk, the gateway beside the clients.
//!
//! ```text
//! DIR/ca certs            the authority and the certificates that it signed
//! DIR/node-N.toml         configuration of the node at place N
//! DIR/disk-N              where its disk is mounted; DIR/node-N.image is the disk, removed at the end
//! DIR/logs                one file per process, appended
//! ```
//!
//! A machine is named by its place, from 1. Its node has the same id until the machine is wiped. Nothing is started again unasked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use harness::host::{run, text};

use harness::{free_ports, until, within};
use malle_client::{Client, Config, Error, InitPlan, NewAccount, Node, NodeId, ShardId, fresh_op_id};
use malle_proto::AccountId;
use serde_json::json;
use tokio::net::TcpStream;

use super::disk::NodeDisk;
use super::net::{Net, address};
use super::process::Process;
use super::shim::{Page, Shim};
use super::squeeze::Squeeze;

/// Trust domain of the certificates.
const CLUSTER: &str = "malle.chaos";
/// Password of every account.
pub const PASSWORD: &str = "correct-horse-7";
/// Ports of a node, moved by two for each node that took this place before.
const CLIENT_PORT: u16 = 7420;
/// Metrics of a node.
const METRICS_PORT: u16 = 9464;
/// A process opens its ports, a cluster elects, an account is there: seconds on an idle machine with unoptimised binaries.
const START: Duration = Duration::from_secs(90);
/// An answer to an operator.
const ANSWER: Duration = Duration::from_secs(10);
/// Groups and their bodies travel to a new node within this.
const REPLACE: Duration = Duration::from_secs(120);

/// What is built.
#[derive(Debug, Clone)]
pub struct Wishes {
    /// Region of each machine, in the order of places.
    pub regions: Vec<String>,
    /// Shards, without the directory.
    pub groups: u32,
    /// Replicas of each.
    pub voters: u32,
    /// Accounts u0, u1 and so on.
    pub accounts: u32,
    /// Of each account.
    pub quota_bytes: u64,
    /// Settings of malled, by name.
    pub settings: BTreeMap<String, u64>,
    /// `local` or `wan`.
    pub timing: &'static str,
    /// Disks lie in memory, so that a sync can fail.
    pub disks_in_memory: bool,
    /// Nodes run with the shim.
    pub shim: bool,
    /// Wires are opened between all machines.
    pub wires: bool,
    /// What chance there is in wires is drawn from.
    pub seed: u64,
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// Its place.
    pub place: u32,
    /// Where it stands.
    pub region: String,
    /// `a`, `b` and so on: every machine of a region stands in another zone.
    zone: String,
    /// Its node now.
    pub node: NodeId,
    /// Nodes that it had before.
    generation: u16,
    /// `None` while it is down.
    pub process: Option<Process>,
    /// What it has of the machine below.
    pub squeeze: Squeeze,
    /// What its process is told by the shim.
    pub page: Option<Page>,
    /// Its disk.
    pub disk: NodeDisk,
}

/// An account.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Its login name.
    pub login: String,
    /// Its id.
    pub id: AccountId,
    /// Its shard.
    pub shard: ShardId,
}

/// The running cluster. Dropping it removes what it made, except DIR with logs and configuration.
#[derive(Debug)]
pub struct World {
    dir: PathBuf,
    wishes: Wishes,
    /// Before the machines: it stops first.
    gateway: Option<Process>,
    machines: BTreeMap<u32, Machine>,
    shim: Option<Shim>,
    /// Its network.
    pub net: Net,
    lmtp: String,
    imap: String,
}

impl Machine {
    fn client_address(&self) -> String {
        format!("{}:{}", address(self.place), CLIENT_PORT + 2 * self.generation)
    }

    fn peer_address(&self) -> String {
        format!("{}:{}", address(self.place), CLIENT_PORT + 1 + 2 * self.generation)
    }

    /// `IP:PORT` of its metrics.
    pub fn metrics_address(&self) -> String {
        format!("{}:{METRICS_PORT}", address(self.place))
    }

    /// Where its node stores.
    pub fn data(&self) -> PathBuf {
        self.disk.path().join(format!("node-{}", self.node))
    }

    fn described(&self) -> Node {
        Node {
            id: self.node,
            region: self.region.clone(),
            zone: self.zone.clone(),
            client_address: self.client_address(),
            peer_address: self.peer_address(),
            retired: false,
        }
    }
}

impl World {
    /// Builds machines, network and disks in `dir`, starts the nodes, makes a cluster of them and its accounts, and starts the gateway.
    ///
    /// # Errors
    /// When the host cannot (see `chaos probe`), a binary was not built, or the cluster does not come up.
    pub async fn start(dir: &Path, wishes: Wishes) -> anyhow::Result<(World, Vec<Seat>)> {
        std::fs::create_dir_all(dir.join("logs"))?;
        let dir = dir.canonicalize()?;
        let mut net = Net::new(u32::try_from(wishes.regions.len())?)?;
        if wishes.wires {
            net.open_wires(&dir, wishes.seed)?;
        }
        let shim = wishes.shim.then(|| Shim::build(&dir)).transpose()?;
        let ports = free_ports(2)?;
        let mut world = World {
            dir,
            wishes,
            gateway: None,
            machines: BTreeMap::new(),
            shim,
            net,
            lmtp: ports[0].clone(),
            imap: ports[1].clone(),
        };
        world.certificates()?;
        for (place, region) in (1..).zip(world.wishes.regions.clone()) {
            let machine = world.machine(place, region)?;
            world.machines.insert(place, machine);
        }
        for place in world.places() {
            world.spawn(place)?;
        }
        for place in world.places() {
            world.wait_for_ports(place).await?;
        }
        world.init().await?;
        let seats = world.make_accounts().await?;
        world.start_gateway(&seats).await?;
        Ok((world, seats))
    }

    fn certificates(&self) -> anyhow::Result<()> {
        let malle = harness::binary("malle")?;
        let (malle, ca) = (text(&malle)?, self.dir.join("ca"));
        let ca = text(&ca)?;
        std::fs::create_dir_all(self.dir.join("certs"))?;
        run(malle, &["cert", "ca", "--cluster", CLUSTER, "--out", ca])?;
        for (name, arguments) in [
            ("operator", &["operator", "chaos"][..]),
            ("load", &["gateway", "load", "--role", "lmtp", "--role", "imap"]),
        ] {
            let out = self.dir.join("certs").join(name);
            run(
                malle,
                &[&["cert"][..], arguments, &["--ca-dir", ca, "--out", text(&out)?]].concat(),
            )?;
        }
        Ok(())
    }

    fn machine(&self, place: u32, region: String) -> anyhow::Result<Machine> {
        let name = format!("node-{place}");
        let group = format!("cx{:x}-{place}", std::process::id());
        let mount = self.dir.join(format!("disk-{place}"));
        let page = self
            .shim
            .is_some()
            .then(|| Page::new(self.dir.join(format!("{name}.page"))))
            .transpose()?;
        let before = self
            .machines
            .values()
            .filter(|machine| machine.region == region)
            .count();
        let zone = char::from(b'a' + u8::try_from(before)?);
        Ok(Machine {
            place,
            region,
            zone: zone.to_string(),
            node: NodeId(u64::from(place)),
            generation: 0,
            process: None,
            squeeze: Squeeze::new(&group)?,
            page,
            disk: NodeDisk::create(&self.dir, &name, &mount, self.wishes.disks_in_memory)?,
        })
    }

    /// Every place.
    pub fn places(&self) -> Vec<u32> {
        self.machines.keys().copied().collect()
    }

    /// A machine.
    ///
    /// # Errors
    /// When there is none at this place.
    pub fn at(&self, place: u32) -> anyhow::Result<&Machine> {
        self.machines
            .get(&place)
            .with_context(|| format!("no machine at place {place}"))
    }

    /// The same, to change it.
    ///
    /// # Errors
    /// When there is none at this place.
    pub fn at_mut(&mut self, place: u32) -> anyhow::Result<&mut Machine> {
        self.machines
            .get_mut(&place)
            .with_context(|| format!("no machine at place {place}"))
    }

    /// `HOST:PORT` of the gateway's LMTP.
    pub fn lmtp(&self) -> &str {
        &self.lmtp
    }

    /// `HOST:PORT` of the gateway's IMAP.
    pub fn imap(&self) -> &str {
        &self.imap
    }

    /// Where logs and configuration are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn identity(&self, name: &str) -> serde_json::Value {
        json!({
            "ca": self.dir.join("ca/ca.pem"),
            "cert": self.dir.join(format!("certs/{name}.pem")),
            "key": self.dir.join(format!("certs/{name}.key")),
        })
    }

    fn write_config(&self, machine: &Machine) -> anyhow::Result<PathBuf> {
        let name = format!("node-{}", machine.node);
        let certificate = self.dir.join("certs").join(&name);
        if !certificate.with_extension("pem").exists() {
            let (malle, ca) = (harness::binary("malle")?, self.dir.join("ca"));
            let id = machine.node.to_string();
            run(
                text(&malle)?,
                &[
                    "cert",
                    "node",
                    &id,
                    "--ca-dir",
                    text(&ca)?,
                    "--out",
                    text(&certificate)?,
                ],
            )?;
        }
        let mut config = json!({
            "node": machine.node.0,
            "region": machine.region,
            "zone": machine.zone,
            "cluster": CLUSTER,
            "data_dir": machine.data(),
            "client_listen": machine.client_address(),
            "peer_listen": machine.peer_address(),
            "client_address": machine.client_address(),
            "peer_address": machine.peer_address(),
            "timing": self.wishes.timing,
            "tls": self.identity(&name),
            "telemetry": { "listen": machine.metrics_address() },
        });
        for (name, value) in &self.wishes.settings {
            config[name] = json!(value);
        }
        let path = self.dir.join(format!("node-{}.toml", machine.place));
        std::fs::write(&path, toml::to_string(&config)?)?;
        Ok(path)
    }

    /// Starts the node of a machine that is down, without waiting for it.
    fn spawn(&mut self, place: u32) -> anyhow::Result<()> {
        let machine = self.at(place)?;
        let config = self.write_config(machine)?;
        let log = self.dir.join(format!("logs/node-{place}.log"));
        let mut environment: Vec<(&str, &OsStr)> = Vec::new();
        if let (Some(shim), Some(page)) = (&self.shim, &machine.page) {
            environment.push(("LD_PRELOAD", shim.object().as_os_str()));
            environment.push(("CHAOS_SHIM", page.path().as_os_str()));
        }
        let process = Process::start("malled", &config, &self.net.door(place), &environment, &log)?;
        machine.squeeze.admit(process.pid())?;
        self.at_mut(place)?.process = Some(process);
        Ok(())
    }

    async fn wait_for_ports(&mut self, place: u32) -> anyhow::Result<()> {
        let machine = self.at_mut(place)?;
        let (client, peer) = (machine.client_address(), machine.peer_address());
        let process = machine.process.as_mut().context("it was not started")?;
        for address in [client, peer] {
            until(format!("the node at place {place} to open {address}"), START, || {
                let ended = process.ended();
                let address = address.clone();
                async move {
                    if let Some(status) = ended? {
                        bail!("it ended ({status})");
                    }
                    Ok(Some(TcpStream::connect(address).await.map(drop)?))
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Starts the node of a machine again and waits until it listens.
    ///
    /// # Errors
    /// When it ends, or does not listen in time.
    pub async fn restart(&mut self, place: u32) -> anyhow::Result<()> {
        self.spawn(place)?;
        // A machine that clients do not reach listens all the same.
        let reached = self.wait_for_ports(place);
        reached
            .await
            .with_context(|| format!("see logs/node-{place}.log in {}", self.dir.display()))
    }

    async fn init(&self) -> anyhow::Result<()> {
        let plan = InitPlan {
            cluster_name: CLUSTER.to_owned(),
            nodes: self.machines.values().map(Machine::described).collect(),
            shards: self.wishes.groups,
            replicas: self.wishes.voters,
        };
        let operator = self.operator().await?;
        until("the cluster to be made", START, || async {
            match operator.cluster().init(plan.clone()).await {
                Ok(_) | Err(Error::Exists(_)) => Ok(Some(())),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    async fn make_accounts(&self) -> anyhow::Result<Vec<Seat>> {
        let operator = self.operator().await?;
        let mut seats = Vec::new();
        for number in 0..self.wishes.accounts {
            let login = format!("u{number}@example.org");
            let new = NewAccount {
                address: login.clone(),
                password: Some(PASSWORD.to_owned()),
                quota_bytes: Some(self.wishes.quota_bytes),
                ..NewAccount::default()
            };
            let op_id = fresh_op_id();
            let made = until(format!("the account {login}"), START, || async {
                Ok(Some(operator.directory().account_create(new.clone(), op_id).await?))
            })
            .await?;
            let resolved = until(format!("where {login} leads"), START, || async {
                Ok(operator.resolve(&login).await?)
            })
            .await?;
            seats.push(Seat {
                login,
                id: made.id,
                shard: resolved.shard,
            });
        }
        Ok(seats)
    }

    async fn start_gateway(&mut self, seats: &[Seat]) -> anyhow::Result<()> {
        let endpoints: Vec<String> = self.machines.values().map(Machine::client_address).collect();
        let config = json!({
            "host": "localhost",
            "endpoints": endpoints,
            "tls": self.identity("load"),
            "lmtp": { "listen": [self.lmtp] },
            "imap": { "listen": [self.imap], "plaintext_login": "loopback" },
        });
        let path = self.dir.join("gateway.toml");
        std::fs::write(&path, toml::to_string(&config)?)?;
        let log = self.dir.join("logs/gateway.log");
        self.gateway = Some(Process::start("malle-gateway", &path, &[], &[], &log)?);
        for seat in seats {
            until(format!("a login of {}", seat.login), START, || async {
                harness::Imap::login(&self.imap, &seat.login, PASSWORD).await.map(Some)
            })
            .await?;
        }
        Ok(())
    }

    /// A client with the operator's certificate.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn operator(&self) -> anyhow::Result<Client> {
        self.client("operator").await
    }

    /// A client that may deliver and read.
    ///
    /// # Errors
    /// When no node answers.
    pub async fn load(&self) -> anyhow::Result<Client> {
        self.client("load").await
    }

    async fn client(&self, name: &str) -> anyhow::Result<Client> {
        let endpoints: Vec<String> = self.machines.values().map(Machine::client_address).collect();
        let file = |ending: &str| self.dir.join(format!("certs/{name}.{ending}"));
        let config = || Config::from_files(&endpoints, self.dir.join("ca/ca.pem"), file("pem"), file("key"));
        let client = until("a node that answers", START, || async {
            Ok(Some(Client::connect(config()?).await?))
        });
        Ok(client.await?.with_deadline(ANSWER))
    }

    /// Empties the disk of a machine that is down and starts a node with a new id there, which takes the place of the old one.
    ///
    /// # Errors
    /// When the new node does not start or the groups do not move in time.
    pub async fn replace(&mut self, place: u32, new: NodeId) -> anyhow::Result<()> {
        let machine = self.at_mut(place)?;
        let old = machine.node;
        let data = machine.data();
        std::fs::remove_dir_all(&data).with_context(|| data.display().to_string())?;
        machine.node = new;
        machine.generation += 1;
        let described = machine.described();
        self.restart(place).await?;
        let operator = self.operator().await?.with_deadline(REPLACE);
        within(format!("node {new} in the place of node {old}"), REPLACE * 2, async {
            until("every group to move", REPLACE, || async {
                Ok(Some(operator.cluster().node_replace(described.clone(), old).await?))
            })
            .await
        })
        .await
        .map(drop)
    }

    /// Stops the gateway, then the nodes, as an operator does.
    ///
    /// # Errors
    /// When one does not stop.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(gateway) = &mut self.gateway {
            gateway.stop().await?;
        }
        for machine in self.machines.values_mut() {
            if let Some(process) = &mut machine.process {
                process
                    .stop()
                    .await
                    .with_context(|| format!("the node at place {}", machine.place))?;
            }
        }
        Ok(())
    }
}
