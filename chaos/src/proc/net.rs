//! The network of a run: one namespace per machine, joined by a bridge. Clients and the gateway live in the host's own namespace, machine 0.
//!
//! A message is dropped where it begins: the sender's neighbour table leads to a hardware address that nobody has, so the packet leaves and
//! arrives nowhere. That is silence, as a cut cable is; a route that leads nowhere would be an error at once. It works in one direction, on
//! connections that are open, and needs nothing but `ip`; the receiver sees no rule that a program could ask for.
//!
//! Delay, loss, order, duplicates and bandwidth of one direction are made by [`super::wire`]: its packets take another way. What has neither a
//! cut nor a worse quality goes through the kernel alone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, ensure};
use harness::host::run;
use harness::made::{Made, Thing};

use super::wire::WireEnd;
use crate::scenario::Quality;

/// Machines of a network, without the host.
pub const MACHINES_MAX: u32 = 32;
/// The host: clients and the gateway.
pub const HOST: u32 = 0;
/// A hardware address of nobody; locally administered, so no vendor gives it out.
const NOBODY: &str = "02:00:00:00:00:de";
/// Every network has this one: only one runs at a time.
const SUBNET: [u8; 3] = [10, 213, 77];

/// Where a machine is reached.
pub fn address(machine: u32) -> Ipv4Addr {
    let last = if machine == HOST { 254 } else { machine as u8 };
    Ipv4Addr::new(SUBNET[0], SUBNET[1], SUBNET[2], last)
}

/// A running network. Dropping it removes everything.
#[derive(Debug)]
pub struct Net {
    run: String,
    machines: u32,
    /// How many faults drop what goes from one to the other.
    cuts: BTreeMap<(u32, u32), u32>,
    /// What goes from one to the other by the wire.
    worse: BTreeMap<(u32, u32), Quality>,
    wires: BTreeMap<u32, WireEnd>,
    /// The last thing that was made is the last here, and goes first.
    made: Vec<Made>,
}

impl Drop for Net {
    fn drop(&mut self) {
        self.wires.clear();
        while self.made.pop().is_some() {}
    }
}

impl Net {
    /// Makes a bridge and the namespaces of machines 1 to `machines`.
    ///
    /// # Errors
    /// When the host cannot (see `chaos probe`), or another network like this one is up.
    pub fn new(machines: u32) -> anyhow::Result<Net> {
        ensure!((1..=MACHINES_MAX).contains(&machines), "1 to {MACHINES_MAX} machines");
        let mut net = Net {
            // Names of interfaces have 15 letters.
            run: format!("cx{:x}", std::process::id()),
            machines,
            cuts: BTreeMap::new(),
            worse: BTreeMap::new(),
            wires: BTreeMap::new(),
            made: Vec::new(),
        };
        let here = run("ip", &["-4", "-oneline", "address", "show"])?;
        let host = format!("{}/24", address(HOST));
        ensure!(!here.contains(&host), "{host} is an address of this machine already");
        let bridge = net.bridge();
        net.made.push(Made::note(Thing::Link(bridge.clone()))?);
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["address", "add", &host, "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for machine in 1..=machines {
            net.join(machine, &bridge)?;
        }
        Ok(net)
    }

    fn join(&mut self, machine: u32, bridge: &str) -> anyhow::Result<()> {
        let (namespace, link) = (self.namespace(machine), format!("{}v{machine}", self.run));
        self.made.push(Made::note(Thing::Namespace(namespace.clone()))?);
        run("ip", &["netns", "add", &namespace])?;
        // It goes with its namespace; a kernel that is slow to remove that would leave it on the bridge.
        self.made.push(Made::note(Thing::Link(link.clone()))?);
        let ends = ["type", "veth", "peer", "name", "eth0", "netns", &namespace];
        run("ip", &[&["link", "add", &link][..], &ends].concat())?;
        run("ip", &["link", "set", &link, "master", bridge, "up"])?;
        let address = format!("{}/24", address(machine));
        run("ip", &["-netns", &namespace, "address", "add", &address, "dev", "eth0"])?;
        run("ip", &["-netns", &namespace, "link", "set", "eth0", "up"])?;
        run("ip", &["-netns", &namespace, "link", "set", "lo", "up"])?;
        // Packets of the wire come in by another interface than the one that answers leave by.
        let filter =
            "echo 0 > /proc/sys/net/ipv4/conf/all/rp_filter; echo 0 > /proc/sys/net/ipv4/conf/default/rp_filter";
        self.inside(machine, &["sh", "-c", filter]).map(drop)
    }

    fn bridge(&self) -> String {
        format!("{}b", self.run)
    }

    fn namespace(&self, machine: u32) -> String {
        format!("{}n{machine}", self.run)
    }

    /// Arguments of `nsenter` for a program that shall run as this machine.
    pub fn door(&self, machine: u32) -> Vec<String> {
        match machine {
            HOST => Vec::new(),
            _ => vec![format!("--net=/run/netns/{}", self.namespace(machine))],
        }
    }

    /// Runs a program as this machine; what it said.
    ///
    /// # Errors
    /// When it fails.
    pub fn inside(&self, machine: u32, program: &[&str]) -> anyhow::Result<String> {
        let door = self.door(machine);
        let arguments: Vec<&str> = door.iter().map(String::as_str).chain(program.iter().copied()).collect();
        run("nsenter", &arguments)
    }

    /// Every machine, the host last.
    pub fn machines(&self) -> impl Iterator<Item = u32> + use<> {
        (1..=self.machines).chain([HOST])
    }

    /// From now on nothing that `from` sends reaches `to`. Each call is undone by one [`Net::mend`].
    ///
    /// # Errors
    /// When the neighbour table does not take it.
    pub fn cut(&mut self, from: u32, to: u32) -> anyhow::Result<()> {
        let cuts = self.cuts.entry((from, to)).or_default();
        *cuts += 1;
        if *cuts > 1 {
            return Ok(());
        }
        self.neighbour(from, to, true)?;
        self.way(from, to)
    }

    /// Undoes one [`Net::cut`].
    ///
    /// # Errors
    /// When nothing was cut there.
    pub fn mend(&mut self, from: u32, to: u32) -> anyhow::Result<()> {
        let cuts = self.cuts.get_mut(&(from, to)).context("nothing is cut there")?;
        *cuts -= 1;
        if *cuts > 0 {
            return Ok(());
        }
        self.cuts.remove(&(from, to));
        self.neighbour(from, to, false)?;
        self.way(from, to)
    }

    fn neighbour(&self, from: u32, to: u32, cut: bool) -> anyhow::Result<()> {
        let device = if from == HOST { self.bridge() } else { "eth0".to_owned() };
        let to = address(to).to_string();
        let arguments: &[&str] = if cut {
            &[
                "ip",
                "neighbour",
                "replace",
                &to,
                "lladdr",
                NOBODY,
                "dev",
                &device,
                "nud",
                "permanent",
            ]
        } else {
            &["ip", "neighbour", "delete", &to, "dev", &device]
        };
        self.inside(from, arguments).map(drop)
    }

    /// What `from` sends to `to` goes through a wire of this quality from now on; `None`: through the kernel alone again.
    ///
    /// # Errors
    /// When [`Net::open_wires`] was not called, or the wire does not listen.
    pub fn quality(&mut self, from: u32, to: u32, quality: Option<Quality>) -> anyhow::Result<()> {
        match quality {
            Some(quality) => {
                let wire = self.wires.get_mut(&from).context("the wires were not opened")?;
                wire.set(address(to), &quality)?;
                self.worse.insert((from, to), quality);
            }
            None => drop(self.worse.remove(&(from, to))),
        }
        self.way(from, to)
    }

    /// A cut is stronger than a bad wire: what is cut takes the way of the neighbour table, which leads nowhere.
    fn way(&self, from: u32, to: u32) -> anyhow::Result<()> {
        let (source, to_host) = (address(from).to_string(), format!("{}/32", address(to)));
        let by_wire = self.worse.contains_key(&(from, to)) && !self.cuts.contains_key(&(from, to));
        if by_wire {
            let device = super::wire::device(from);
            self.inside(
                from,
                &["ip", "route", "replace", &to_host, "dev", &device, "src", &source],
            )?;
        } else if self.wires.contains_key(&from) {
            // It is not there when the way was the kernel's already.
            let _ = self.inside(from, &["ip", "route", "delete", &to_host]);
        }
        Ok(())
    }

    /// Opens a wire end at every machine and at the host, in `dir`.
    ///
    /// # Errors
    /// When the host has no TUN.
    pub fn open_wires(&mut self, dir: &Path, seed: u64) -> anyhow::Result<()> {
        for machine in self.machines() {
            if !self.wires.contains_key(&machine) {
                let end = WireEnd::open(self, machine, dir, seed.wrapping_add(u64::from(machine)))?;
                self.wires.insert(machine, end);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    use harness::patiently;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Sends a dot every 20 ms over one connection, whatever becomes of them.
    const TALKER: &str = "exec 3<>/dev/tcp/$0/777; while printf . >&3; do sleep 0.02; done";

    fn talker(net: &Net, machine: u32) -> Child {
        let mut command = Command::new("nsenter");
        let child = command
            .args(net.door(machine))
            .args(["bash", "-c", TALKER, &address(HOST).to_string()]);
        child.stdin(Stdio::null()).spawn().unwrap()
    }

    #[test]
    fn a_cut_is_silent_one_way_and_the_connection_lives_on_when_it_is_mended() {
        if let Some(reason) = crate::proc::probe::lacking(&["netns".into(), "veth".into()]) {
            println!("SKIPPED: {reason}");
            return;
        }
        // The network of a run has the same addresses.
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _alone = runtime.block_on(harness::network_alone()).unwrap();
        let mut net = Net::new(2).unwrap();
        let listener = TcpListener::bind((address(HOST), 777)).unwrap();
        let mut child = talker(&net, 1);
        let (mut stream, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), address(1));
        stream.set_nonblocking(true).unwrap();
        let mut heard = || {
            let mut bytes = [0; 4096];
            stream.read(&mut bytes).unwrap_or(0)
        };
        assert!(patiently(SOON, || heard() > 0));
        net.cut(1, HOST).unwrap();
        net.cut(1, HOST).unwrap();
        // What was under way arrives; then silence for as long as anybody looks.
        assert!(patiently(SOON, || heard() == 0));
        assert!(!patiently(Duration::from_millis(500), || heard() > 0));
        net.mend(1, HOST).unwrap();
        assert!(
            !patiently(Duration::from_millis(300), || heard() > 0),
            "one of two cuts is left"
        );
        net.mend(1, HOST).unwrap();
        assert!(patiently(SOON, || heard() > 0), "the connection came back");
        assert!(stream.write(b"x").is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        let run = net.run.clone();
        drop(net);
        let links = harness::host::run("ip", &["-oneline", "link", "show"]).unwrap();
        assert!(!links.contains(&run), "{links}");
        assert!(!harness::host::run("ip", &["netns", "list"]).unwrap().contains(&run));
    }
}
