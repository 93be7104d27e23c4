//! The PROXY protocol, version 2: a load balancer that passes TCP through says first where the client comes from.
//!
//! Only addresses that the configuration names are believed, and from them the header must come: whoever reaches the port past the load balancer
//! could else say what it likes. Version 1, a line of text, is absent: every balancer of today speaks version 2.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Addresses and TLVs of a header; balancers send a few dozen bytes.
const REST_MAX_BYTES: usize = 4 * 1024;
/// The header is the first that a balancer sends.
const HEADER_WAIT: Duration = Duration::from_secs(10);

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection.
    #[error("reading the PROXY header: {0}")]
    Io(#[from] io::Error),
    /// Nothing came.
    #[error("no PROXY header came")]
    Silent,
    /// Something else came.
    #[error("not a PROXY header of version 2")]
    Malformed,
}

/// Where the client comes from, as the header says; the balancer itself where it asks for its own sake (LOCAL: a health check).
///
/// # Errors
/// [`ProxyError`].
pub async fn client<IO: AsyncRead + Unpin>(io: &mut IO, balancer: SocketAddr) -> Result<SocketAddr, ProxyError> {
    match timeout(HEADER_WAIT, read(io)).await {
        Ok(header) => Ok(header?.unwrap_or(balancer)),
        Err(_) => Err(ProxyError::Silent),
    }
}

async fn read<IO: AsyncRead + Unpin>(io: &mut IO) -> Result<Option<SocketAddr>, ProxyError> {
    let mut head = [0; 16];
    io.read_exact(&mut head).await?;
    let (command, family) = (head[12], head[13]);
    let length = usize::from(u16::from_be_bytes([head[14], head[15]]));
    if head[..12] != SIGNATURE || length > REST_MAX_BYTES {
        return Err(ProxyError::Malformed);
    }
    let mut rest = vec![0; length];
    io.read_exact(&mut rest).await?;
    match command {
        0x20 => Ok(None),
        0x21 => source(family, &rest).map(Some).ok_or(ProxyError::Malformed),
        _ => Err(ProxyError::Malformed),
    }
}

/// The source of a TCP connection over IPv4 (11) or IPv6 (21): source, destination, source port, destination port.
fn source(family: u8, rest: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    match family {
        0x11 => {
            let address: [u8; 4] = *rest.first_chunk()?;
            rest.get(11)?;
            Some(SocketAddr::new(IpAddr::from(address), port(8)?))
        }
        0x21 => {
            let address: [u8; 16] = *rest.first_chunk()?;
            rest.get(35)?;
            Some(SocketAddr::new(IpAddr::from(address), port(32)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCER: &str = "10.0.0.9:4000";

    async fn of(bytes: &[u8]) -> Result<(SocketAddr, Vec<u8>), ProxyError> {
        let mut input = bytes;
        let client = client(&mut input, BALANCER.parse().unwrap()).await?;
        Ok((client, input.to_vec()))
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0, 143];

    #[tokio::test]
    async fn the_client_is_the_one_that_the_header_names() {
        let with_tlv = [&FOUR[..], &[4, 0, 1, 0]].concat();
        let bytes = [header(0x21, 0x11, &with_tlv), b"a NOOP\r\n".to_vec()].concat();
        let (client, left) = of(&bytes).await.unwrap();
        assert_eq!(client, "192.0.2.1:12345".parse().unwrap());
        assert_eq!(left, b"a NOOP\r\n", "what follows is the client's");
        let mut six = [0; 36];
        six[..2].copy_from_slice(&[0x20, 0x01]);
        six[15] = 7;
        six[33] = 99;
        let (client, _) = of(&header(0x21, 0x21, &six)).await.unwrap();
        assert_eq!(client, "[2001::7]:99".parse().unwrap());
    }

    #[tokio::test]
    async fn a_health_check_comes_from_the_balancer() {
        let (client, _) = of(&header(0x20, 0, &[])).await.unwrap();
        assert_eq!(client, BALANCER.parse().unwrap());
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for bytes in [
            b"a LOGIN me secret and more\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            header(0x21, 0x11, &FOUR[..11]),
            header(0x21, 0x12, &FOUR),
            header(0x11, 0x11, &FOUR),
            header(0x21, 0x11, &vec![0; 5000]),
            header(0x21, 0x11, &FOUR)[..20].to_vec(),
            Vec::new(),
        ] {
            assert!(of(&bytes).await.is_err(), "{bytes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_balancer_is_given_up() {
        let (mut near, _far) = tokio::io::duplex(64);
        let said = client(&mut near, BALANCER.parse().unwrap()).await;
        assert!(matches!(said, Err(ProxyError::Silent)));
    }
}
