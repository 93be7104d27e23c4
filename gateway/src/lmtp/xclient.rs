//! XCLIENT (Postfix's XCLIENT_README): a relay that is trusted says for whom it speaks. What it says stands in the log and nowhere else.
//!
//! Values are xtext (RFC 3461 4); `[UNAVAILABLE]` and `[TEMPUNAVAIL]` mean that the relay does not know. What a command does not name stays as it
//! was. PROTO, DESTADDR and DESTPORT are read for their form and not kept.

use std::fmt;
use std::net::{AddrParseError, IpAddr};

use super::reply::Reply;

/// What LHLO tells those who may use it.
pub const KEYWORD: &str = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT";
/// A name of a host has 255 bytes at most, and a login is an address.
const VALUE_MAX_BYTES: usize = 255;

/// For whom a relay speaks, as far as it says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    address: Option<IpAddr>,
    port: Option<u16>,
    name: Option<String>,
    helo: Option<String>,
    login: Option<String>,
}

/// One attribute with its value; `None`: the relay does not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// ADDR
    Address(Option<IpAddr>),
    /// PORT
    Port(Option<u16>),
    /// NAME
    Name(Option<String>),
    /// HELO
    Helo(Option<String>),
    /// LOGIN
    Login(Option<String>),
    /// Of no use here.
    Other,
}

const SYNTAX: Reply = Reply::fixed(501, "5.5.4", "bad XCLIENT attribute");

/// Reads what follows the word XCLIENT.
pub fn parse(rest: &[u8]) -> Result<Vec<Said>, Reply> {
    let said: Result<Vec<Said>, Reply> = rest
        .split(|b| *b == b' ')
        .filter(|word| !word.is_empty())
        .map(|word| attribute(word).ok_or(SYNTAX))
        .collect();
    said.and_then(|said| if said.is_empty() { Err(SYNTAX) } else { Ok(said) })
}

fn attribute(word: &[u8]) -> Option<Said> {
    let equals = word.iter().position(|b| *b == b'=')?;
    let value = decoded(&word[equals + 1..])?;
    let known = Some(value).filter(|value| {
        let unknown = ["[UNAVAILABLE]", "[TEMPUNAVAIL]"];
        !unknown.iter().any(|unknown| value.eq_ignore_ascii_case(unknown))
    });
    Some(match word[..equals].to_ascii_uppercase().as_slice() {
        b"NAME" => Said::Name(known),
        b"HELO" => Said::Helo(known),
        b"LOGIN" => Said::Login(known),
        b"ADDR" => Said::Address(known.map(|value| address(&value)).transpose().ok()?),
        b"PORT" => Said::Port(known.map(|value| value.parse()).transpose().ok()?),
        b"PROTO"
            if known
                .as_ref()
                .is_none_or(|value| ["SMTP", "ESMTP"].contains(&&*value.to_ascii_uppercase())) =>
        {
            Said::Other
        }
        b"DESTADDR" => {
            known.map(|value| address(&value)).transpose().ok()?;
            Said::Other
        }
        b"DESTPORT" => {
            known.map(|value| value.parse::<u16>()).transpose().ok()?;
            Said::Other
        }
        _ => return None,
    })
}

/// An IPv4 address, or an IPv6 one behind `IPV6:`.
fn address(value: &str) -> Result<IpAddr, AddrParseError> {
    match value.split_at_checked(5) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("IPV6:") => rest.parse().map(IpAddr::V6),
        _ => value.parse().map(IpAddr::V4),
    }
}

/// RFC 3461 4: `+` and two hexadecimal digits are a byte. No control character comes through, so that no log line is forged.
fn decoded(value: &[u8]) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'+' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        rest = after;
        let digits = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    let fits = !text.is_empty() && text.len() <= VALUE_MAX_BYTES && !text.chars().any(char::is_control);
    fits.then_some(text)
}

impl Origin {
    /// Takes what was said over what was known.
    pub fn learn(&mut self, said: Vec<Said>) {
        for one in said {
            match one {
                Said::Address(address) => self.address = address,
                Said::Port(port) => self.port = port,
                Said::Name(name) => self.name = name,
                Said::Helo(helo) => self.helo = helo,
                Said::Login(login) => self.login = login,
                Said::Other => {}
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{address}")?,
            None => f.write_str("unknown")?,
        }
        for (name, value) in [
            ("port", self.port.map(|port| port.to_string())),
            ("name", self.name.clone()),
            ("helo", self.helo.clone()),
            ("login", self.login.clone()),
        ] {
            if let Some(value) = value {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(lines: &[&str]) -> String {
        let mut origin = Origin::default();
        for line in lines {
            origin.learn(parse(line.as_bytes()).unwrap());
        }
        origin.to_string()
    }

    #[test]
    fn what_is_said_adds_up_and_what_is_not_known_is_forgotten() {
        let first = "NAME=spike.porcupine.org ADDR=168.100.189.2 PROTO=ESMTP";
        assert_eq!(origin(&[first]), "168.100.189.2 name=spike.porcupine.org");
        let second = "name=[TEMPUNAVAIL] HELO=a+20b PORT=25 LOGIN=u1@example.org DESTADDR=[UNAVAILABLE] DESTPORT=24";
        assert_eq!(
            origin(&[first, second]),
            "168.100.189.2 port=25 helo=a b login=u1@example.org"
        );
        assert_eq!(origin(&["ADDR=ipv6:2001:db8::7"]), "2001:db8::7");
        assert_eq!(
            origin(&[first, "ADDR=[UNAVAILABLE]"]),
            "unknown name=spike.porcupine.org"
        );
    }

    #[test]
    fn what_is_malformed_is_refused_whole() {
        let long = format!("NAME={}", "x".repeat(256));
        for bad in [
            "",
            " ",
            "NAME",
            "NAME=",
            "NAME=a+2",
            "NAME=a+zz",
            "NAME=a+0D+0Ab",
            "NAME=+FF",
            "ADDR=2001:db8::7",
            "ADDR=IPV6:192.0.2.1",
            "ADDR=localhost",
            "PORT=65536",
            "PORT=-1",
            "PROTO=LMTP",
            "DESTADDR=x",
            "COLOUR=red",
            "ADDR=192.0.2.1 COLOUR=red",
            &long,
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(SYNTAX), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_line_makes_it_panic(line: Vec<u8>) {
            let _ = parse(&line);
            let _ = parse(&[b"ADDR=".as_slice(), &line].concat());
        }
    }
}
