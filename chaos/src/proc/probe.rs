//! What this machine can do, shown by doing it. What a scenario needs and the machine lacks makes the run SKIPPED with the reason, never
//! green.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, bail, ensure};
use harness::LoopDisk;
use harness::host::run;
use serde::Serialize;

use super::shim::{Page, Shim};
use super::squeeze::{Controller, Squeeze};

/// Something that the engine or a scenario may need.
#[derive(Debug, Clone, Serialize)]
pub struct Ability {
    /// As scenarios name it.
    pub name: &'static str,
    /// What it is for.
    pub used_for: &'static str,
    /// Why not; `None` when the machine can.
    pub missing: Option<String>,
}

type Try = fn() -> anyhow::Result<()>;

const ABILITIES: &[(&str, &str, Try)] = &[
    ("root", "everything below", root),
    ("netns", "a network of its own for each machine", netns),
    (
        "veth",
        "the lines and the bridge between them; partitions by neighbour tables",
        veth,
    ),
    (
        "tbf",
        "bandwidth made by the kernel; not used, wires have a rate of their own",
        tbf,
    ),
    ("netem", "bad lines made by the kernel; not used, wires do it", netem),
    ("tun", "bad lines: delay, loss, order, duplicates, bandwidth", tun),
    ("nft", "partitions by rules; not used", nft),
    ("nfqueue", "bad lines by a queue of netfilter; not used", nfqueue),
    (
        "loop",
        "a disk of its own for each node: full, hanging, rotten",
        loop_disk,
    ),
    (
        "power-cut",
        "file systems that are shut down without writing their log",
        LoopDisk::possible,
    ),
    ("tmpfs", "disks that fail a sync", tmpfs),
    ("freezer", "nodes that stand still for moments", || {
        controller(Controller::Freezer)
    }),
    ("cpu", "nodes with a part of a processor", || {
        controller(Controller::Cpu)
    }),
    ("memory", "nodes with little memory", || controller(Controller::Memory)),
    ("blkio", "slow disks", || controller(Controller::Blkio)),
    ("shim", "clocks that are wrong, syncs that lie", shim),
    ("fuse", "reads that fail, torn writes; not used", fuse),
];

/// Every ability, tried once in the life of this process.
pub fn probe() -> &'static [Ability] {
    static TRIED: OnceLock<Vec<Ability>> = OnceLock::new();
    TRIED.get_or_init(|| {
        let ability = |(name, used_for, attempt): &(&'static str, &'static str, Try)| Ability {
            name,
            used_for,
            missing: attempt().err().map(|error| format!("{error:#}")),
        };
        ABILITIES.iter().map(ability).collect()
    })
}

/// Why a run that needs this cannot be: the first thing that is missing, or that nobody knows.
pub fn lacking(needs: &[String]) -> Option<String> {
    needs
        .iter()
        .find_map(|need| match probe().iter().find(|ability| ability.name == need) {
            None => Some(format!("nobody knows how to try {need:?}")),
            Some(ability) => {
                let missing = ability.missing.as_ref()?;
                Some(format!("this machine has no {need}: {missing}"))
            }
        })
}

fn root() -> anyhow::Result<()> {
    let who = run("id", &["-u"])?;
    ensure!(who.trim() == "0", "run by user {}", who.trim());
    Ok(())
}

fn name(what: &str) -> String {
    format!("cx{:x}{what}", std::process::id())
}

fn netns() -> anyhow::Result<()> {
    let name = name("p");
    run("ip", &["netns", "add", &name])?;
    let inside = run("nsenter", &[&format!("--net=/run/netns/{name}"), "true"]).map(drop);
    run("ip", &["netns", "delete", &name])?;
    inside
}

/// Tries something in a network of its own that goes with the shell.
fn unshared(script: &str) -> anyhow::Result<()> {
    run("unshare", &["--net", "sh", "-ec", script]).map(drop)
}

fn veth() -> anyhow::Result<()> {
    unshared(
        "ip link add cxb type bridge; ip link add cx1 type veth peer name cx2; ip link set cx2 master cxb up; ip link set cx1 up; \
         ip address add 10.213.77.1/24 dev cx1; \
         ip neighbour replace 10.213.77.2 lladdr 02:00:00:00:00:de dev cx1 nud permanent",
    )
}

fn tbf() -> anyhow::Result<()> {
    unshared("ip link add cx1 type veth peer name cx2; tc qdisc add dev cx1 root tbf rate 1mbit burst 10k latency 50ms")
}

fn netem() -> anyhow::Result<()> {
    unshared("ip link add cx1 type veth peer name cx2; tc qdisc add dev cx1 root netem delay 1ms")
}

fn tun() -> anyhow::Result<()> {
    unshared("ip tuntap add dev t mode tun; perl -e 1")?;
    harness::binary("chaos-wire").map(drop)
}

fn nft() -> anyhow::Result<()> {
    unshared("nft add table ip x; nft add chain ip x c '{ type filter hook input priority 0 ; }'")
}

fn nfqueue() -> anyhow::Result<()> {
    unshared("iptables -A INPUT -j NFQUEUE --queue-num 1")
}

fn loop_disk() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let disk = LoopDisk::create(&dir.path().join("image"), &dir.path().join("disk"), 16 << 20)?;
    std::fs::write(disk.path().join("x"), "x")?;
    for program in ["fsfreeze", "fallocate", "filefrag"] {
        let found = Command::new(program).arg("--version").output();
        // filefrag answers 1 to what it does not know, but it is there.
        found.with_context(|| format!("{program} is not installed"))?;
    }
    Ok(())
}

fn tmpfs() -> anyhow::Result<()> {
    run(
        "unshare",
        &[
            "--mount",
            "sh",
            "-ec",
            "mount -t tmpfs -o size=1m tmpfs /mnt; mount -o remount,size=64k /mnt",
        ],
    )
    .map(drop)
}

fn controller(controller: Controller) -> anyhow::Result<()> {
    let squeeze = Squeeze::new(&name("p"))?;
    match controller {
        Controller::Freezer => squeeze.freeze(false),
        Controller::Cpu => squeeze.cpu(50),
        Controller::Memory => squeeze.memory(1024),
        Controller::Blkio => squeeze.writes("7:0", 0),
    }
}

fn shim() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let shim = Shim::build(dir.path())?;
    let page = Page::new(dir.path().join("page"))?;
    page.clock(-86_400_000 * 3_650, 1000)?;
    let mut command = Command::new("date");
    command
        .arg("+%Y")
        .env("LD_PRELOAD", shim.object())
        .env("CHAOS_SHIM", page.path());
    let year: u32 = String::from_utf8(command.output()?.stdout)?.trim().parse()?;
    let now: u32 = run("date", &["+%Y"])?.trim().parse()?;
    if year + 9 > now {
        bail!("a program with the library saw the year {year}");
    }
    Ok(())
}

fn fuse() -> anyhow::Result<()> {
    ensure!(Path::new("/dev/fuse").exists(), "there is no /dev/fuse");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_knows_is_lacking_and_what_is_there_is_not() {
        assert!(lacking(&["a-moon".into()]).unwrap().contains("a-moon"));
        assert_eq!(lacking(&[]), None);
        for ability in probe() {
            assert_eq!(lacking(&[ability.name.to_owned()]).is_some(), ability.missing.is_some());
        }
    }
}
