//! `chaos-wire`: one end of a wire of bad quality (`malle_chaos::proc::wire` starts it, and says why there is one).
//!
//! Standard input is a TUN device, standard output the socket by which the engine says what quality the wire has; when it closes, this
//! program ends. Packets for another machine go to its socket in the directory that the first argument names. What a wire holds is bounded:
//! beyond it packets are lost, as in a router.

use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use malle_chaos::proc::wire::Order;
use malle_chaos::scenario::Quality;

/// A packet of a TUN device with the usual MTU, and room for larger ones.
const PACKET_MAX_BYTES: usize = 64 * 1024;
/// Packets on the wire at a time: at 300 ms of delay more than any line of these machines carries.
const HELD_MAX: usize = 65_536;
/// A line with a rate holds back this much before it drops.
const QUEUE_MAX: Duration = Duration::from_millis(500);

/// A packet that waits for its time. Ordered so that the next one is the greatest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    at: std::cmp::Reverse<(Instant, u64)>,
    to: Ipv4Addr,
    packet: Vec<u8>,
}

#[derive(Default)]
struct Wire {
    qualities: BTreeMap<Ipv4Addr, Quality>,
    /// When the line to an address is free again.
    free: BTreeMap<Ipv4Addr, Instant>,
    held: BinaryHeap<Held>,
    sent: u64,
    chance: u64,
}

impl Wire {
    /// Numbers that follow from the seed (splitmix64).
    fn below(&mut self, below: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }

    /// Decides what becomes of a packet that a program of this machine sent.
    fn send(&mut self, to: Ipv4Addr, packet: &[u8], now: Instant) {
        let quality = self.qualities.get(&to).copied().unwrap_or_default();
        if self.below(1000) < quality.loss_per_mille {
            return;
        }
        let copies = 1 + u64::from(self.below(1000) < quality.duplicate_per_mille);
        for _ in 0..copies {
            let Some(leaves) = self.leaves(to, packet.len(), quality, now) else {
                return;
            };
            let mut on_the_way = quality.delay_us + self.below(quality.jitter_us + 1);
            if self.below(1000) < quality.reorder_per_mille {
                on_the_way += (quality.delay_us + quality.jitter_us).max(10_000);
            }
            self.sent += 1;
            if self.held.len() < HELD_MAX {
                self.held.push(Held {
                    at: std::cmp::Reverse((leaves + Duration::from_micros(on_the_way), self.sent)),
                    to,
                    packet: packet.to_vec(),
                });
            }
        }
    }

    /// When a packet of so many bytes has left on a line with a rate; `None` when its queue is full.
    fn leaves(&mut self, to: Ipv4Addr, bytes: usize, quality: Quality, now: Instant) -> Option<Instant> {
        if quality.rate_kbit == 0 {
            return Some(now);
        }
        let begins = self.free.get(&to).copied().unwrap_or(now).max(now);
        if begins > now + QUEUE_MAX {
            return None;
        }
        let takes = Duration::from_micros(bytes as u64 * 8 * 1000 / quality.rate_kbit);
        self.free.insert(to, begins + takes);
        Some(begins + takes)
    }

    /// The packets whose time has come, and when the next one's comes.
    fn due(&mut self, now: Instant) -> (Vec<Held>, Option<Instant>) {
        let mut due = Vec::new();
        while self.held.peek().is_some_and(|held| held.at.0.0 <= now) {
            due.extend(self.held.pop());
        }
        (due, self.held.peek().map(|held| held.at.0.0))
    }
}

/// The wire, and the news that a packet came.
#[derive(Default)]
struct Shared {
    wire: Mutex<Wire>,
    news: Condvar,
}

impl Shared {
    fn wire(&self) -> std::sync::MutexGuard<'_, Wire> {
        self.wire.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a packet goes, if it is IPv4.
fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let version = packet.first()? >> 4;
    let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    (version == 4).then(|| to.into())
}

fn socket(dir: &Path, of: Ipv4Addr) -> PathBuf {
    dir.join(format!("wire-{of}"))
}

fn read_device(mut device: File, shared: &Shared) -> anyhow::Result<()> {
    let mut packet = vec![0; PACKET_MAX_BYTES];
    loop {
        let length = device.read(&mut packet).context("reading the device")?;
        if let Some(to) = destination(&packet[..length]) {
            shared.wire().send(to, &packet[..length], Instant::now());
            shared.news.notify_one();
        }
    }
}

fn deliver(shared: &Shared, dir: &Path) -> anyhow::Result<()> {
    let out = UnixDatagram::unbound()?;
    let mut wire = shared.wire();
    loop {
        let now = Instant::now();
        let (due, next) = wire.due(now);
        if due.is_empty() {
            wire = match next {
                None => shared.news.wait(wire).unwrap_or_else(PoisonError::into_inner),
                Some(next) => {
                    let waited = shared.news.wait_timeout(wire, next - now);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            continue;
        }
        drop(wire);
        for held in due {
            // A machine that is not there, or does not keep up, loses its packets.
            let _ = out.send_to(&held.packet, socket(dir, held.to));
        }
        wire = shared.wire();
    }
}

fn receive(socket: &UnixDatagram, mut device: File) -> anyhow::Result<()> {
    let mut packet = vec![0; PACKET_MAX_BYTES];
    loop {
        let length = socket.recv(&mut packet)?;
        // The device is down while its namespace goes.
        let _ = device.write(&packet[..length]);
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = |what: &str| {
        arguments
            .next()
            .with_context(|| format!("usage: chaos-wire DIR ADDRESS SEED: no {what}"))
    };
    let dir = PathBuf::from(argument("DIR")?);
    let me: Ipv4Addr = argument("ADDRESS")?.parse()?;
    let shared = Arc::new(Shared::default());
    shared.wire().chance = argument("SEED")?.parse()?;
    let device = || std::io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let control = UnixStream::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let path = socket(&dir, me);
    // One of an earlier run with the same directory; a socket cannot be bound over it.
    let _ = std::fs::remove_file(&path);
    let incoming = UnixDatagram::bind(&path)?;
    let (read_from, write_to, reader, sender) = (device()?, device()?, shared.clone(), shared.clone());
    // Each ends only when it fails, and then the wire is dead: its packets are lost and the log says why.
    let say = |done: anyhow::Result<()>| {
        if let Err(error) = done {
            eprintln!("chaos-wire: {error:#}");
        }
    };
    std::thread::spawn(move || say(read_device(read_from, &reader)));
    std::thread::spawn(move || say(deliver(&sender, &dir)));
    std::thread::spawn(move || say(receive(&incoming, write_to)));
    for line in BufReader::new(control).lines() {
        let order: Order = serde_json::from_str(&line?)?;
        shared.wire().qualities.insert(order.to, order.quality);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn arrivals(quality: Quality, packets: u64, bytes: usize) -> Vec<Duration> {
        let mut wire = Wire::default();
        wire.qualities.insert(TO, quality);
        let now = Instant::now();
        (0..packets).for_each(|_| wire.send(TO, &vec![0; bytes], now));
        let (due, rest) = wire.due(now + Duration::from_secs(3600));
        assert_eq!(rest, None);
        due.iter().map(|held| held.at.0.0 - now).collect()
    }

    #[test]
    fn a_good_wire_passes_everything_on_at_once() {
        assert_eq!(arrivals(Quality::default(), 100, 64), vec![Duration::ZERO; 100]);
    }

    #[test]
    fn delay_jitter_loss_and_duplicates_are_what_was_asked_for() {
        let quality = Quality {
            delay_us: 90_000,
            jitter_us: 10_000,
            loss_per_mille: 200,
            duplicate_per_mille: 100,
            ..Quality::default()
        };
        let arrivals = arrivals(quality, 10_000, 64);
        // 8000 of 10000 come, and 800 of them twice: ten times the deviation is far outside.
        assert!((8_400..9_200).contains(&arrivals.len()), "{}", arrivals.len());
        let range = Duration::from_millis(90)..=Duration::from_millis(100);
        assert!(arrivals.iter().all(|arrival| range.contains(arrival)));
        assert!(arrivals.windows(2).all(|pair| pair[0] <= pair[1]));
    }

    #[test]
    fn a_rate_spreads_packets_and_drops_what_it_cannot_hold() {
        let quality = Quality {
            rate_kbit: 8_000,
            ..Quality::default()
        };
        // A thousand bytes take a millisecond.
        let arrivals = arrivals(quality, 10_000, 1_000);
        assert_eq!(arrivals[9], Duration::from_millis(10));
        assert!((500..510).contains(&arrivals.len()), "{}", arrivals.len());
    }

    #[test]
    fn only_ipv4_has_a_way() {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[16..20].copy_from_slice(&TO.octets());
        assert_eq!(destination(&packet), Some(TO));
        packet[0] = 0x60;
        assert_eq!(destination(&packet), None);
        assert_eq!(destination(&packet[..10]), None);
    }
}
