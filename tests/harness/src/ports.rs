//! Free ports.

use std::net::TcpListener;
use std::ops::Range;

use anyhow::bail;
use rand::RngExt as _;

/// Registered ports, below the kernel's own range (`ip_local_port_range`, from 32768).
const PORTS: Range<u16> = 15_000..32_000;
/// Draws until enough are free.
const PORT_TRIES: usize = 1_000;

/// Ports that are free now, below those that the kernel gives to outgoing connections: nothing else takes them before our processes do.
///
/// # Errors
/// When there are not so many.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<String>> {
    let mut random = rand::rng();
    let mut held = Vec::new();
    for _ in 0..PORT_TRIES {
        // Those that are held are not free, so no two are the same.
        held.extend(TcpListener::bind(("127.0.0.1", random.random_range(PORTS))));
        if held.len() == count {
            let address = |listener: &TcpListener| Ok(listener.local_addr()?.to_string());
            return held.iter().map(address).collect();
        }
    }
    bail!("no {count} free ports among {PORTS:?}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_ports_differ_and_the_kernel_gives_them_to_nobody() {
        let ports: BTreeSet<String> = free_ports(20).unwrap().into_iter().collect();
        assert_eq!(ports.len(), 20);
        for address in ports {
            let (_, port) = address.rsplit_once(':').unwrap();
            assert!(PORTS.contains(&port.parse().unwrap()), "{address}");
        }
    }
}
