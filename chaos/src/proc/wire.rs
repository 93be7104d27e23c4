//! Wires of bad quality: what a machine sends by its wire goes through a program, `chaos-wire`, which keeps, loses, doubles and holds back
//! packets, and hands them to the wire of the machine that they are for.
//!
//! The kernels of these hosts have no netem. A wire end is a TUN device in the machine's namespace, whose packets `chaos-wire` reads and
//! writes; the ends hand each other packets as datagrams between sockets in one directory. The TCP above is the kernel's, so it resends and
//! slows down as it does on a real line. The device is opened by perl, because the one call that attaches it would be unsafe code here.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::made::Made;
use harness::patiently;
use serde::{Deserialize, Serialize};

use super::net::{HOST, Net};
use crate::scenario::Quality;

/// `TUNSETIFF`, with `IFF_TUN | IFF_NO_PI`; the device becomes standard input of the program that follows.
const ATTACH: &str = r#"open(STDIN, "+<", "/dev/net/tun") or die "$!"; my $what = pack("a16 s x22", shift(@ARGV), 0x1001);
ioctl(STDIN, 0x400454ca, $what) or die "$!"; exec @ARGV or die "$!";"#;
/// A wire end is there within this.
const OPEN: Duration = Duration::from_secs(20);

/// A word from the engine to a wire end: what it sends there has this quality now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    /// Where.
    pub to: Ipv4Addr,
    /// How.
    pub quality: Quality,
}

/// The device of a machine's wire. The host may have others.
pub fn device(machine: u32) -> String {
    match machine {
        HOST => format!("cx{:x}w", std::process::id()),
        _ => "wire".to_owned(),
    }
}

/// A running wire end.
#[derive(Debug)]
pub struct WireEnd {
    child: Child,
    control: UnixStream,
    _made: Made,
}

impl Drop for WireEnd {
    fn drop(&mut self) {
        // It ends by itself when the control closes; waiting for it is what leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl WireEnd {
    /// Starts the wire end of a machine; the sockets lie in `dir`.
    ///
    /// # Errors
    /// When there is no TUN, perl or `chaos-wire`.
    pub fn open(net: &Net, machine: u32, dir: &Path, seed: u64) -> anyhow::Result<WireEnd> {
        let (control, theirs) = UnixStream::pair()?;
        let device = device(machine);
        let log = std::fs::File::create(dir.join(format!("wire-{machine}.log")))?;
        let child = Command::new("nsenter")
            .args(net.door(machine))
            .args(["perl", "-e", ATTACH, &device])
            .arg(harness::binary("chaos-wire")?)
            .arg(dir)
            .args([super::net::address(machine).to_string(), seed.to_string()])
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(theirs))
            .stderr(log)
            .spawn()
            .context("starting a wire")?;
        let made = Made::process(child.id())?;
        let end = WireEnd {
            child,
            control,
            _made: made,
        };
        let up = || net.inside(machine, &["ip", "link", "set", &device, "up"]).is_ok();
        ensure!(
            patiently(OPEN, up),
            "the wire of machine {machine} does not come up: see {}",
            dir.display()
        );
        Ok(end)
    }

    /// Sets what happens to what is sent to an address.
    ///
    /// # Errors
    /// When the program has ended.
    pub fn set(&mut self, to: Ipv4Addr, quality: &Quality) -> anyhow::Result<()> {
        let order = Order { to, quality: *quality };
        let mut line = serde_json::to_vec(&order)?;
        line.push(b'\n');
        self.control.write_all(&line).context("the wire has ended")
    }
}
