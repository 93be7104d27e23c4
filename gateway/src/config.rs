//! The gateway's configuration: one TOML file, a few flags that win over it, checked before anything starts.
//!
//! Unknown keys are errors: a misspelt `sessions_max` must not silently mean the default. What is absent: secrets in the file (keys
//! are paths) and anything that could switch TLS off between the gateway and malle.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use malle_proto::limits;
use serde::Deserialize;

use crate::imap::GateBounds;

/// The whole file. See `deploy/gateway.example.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name that mail clients and relays see in greetings.
    pub host: String,
    /// `HOST:PORT` of nodes to ask first; the others are learned.
    pub endpoints: Vec<String>,
    /// Load balancers that say by the PROXY protocol, version 2, where a client comes from. From these addresses every connection must begin so.
    #[serde(default)]
    pub proxy_protocol_from: Vec<IpAddr>,
    /// Who this gateway is to malle (mTLS). What it may do stands in the certificate.
    pub tls: Identity,
    /// The certificate that mail clients see; needed by `imaps`, and by STARTTLS on `imap`. Read again on SIGHUP.
    pub public_tls: Option<PublicTls>,
    /// LMTP for the relays.
    pub lmtp: Option<Lmtp>,
    /// IMAP with STARTTLS.
    pub imap: Option<Imap>,
    /// IMAP inside TLS (RFC 8314).
    pub imaps: Option<Imaps>,
    /// What a Postfix beside us asks.
    pub postfix: Option<Postfix>,
    /// How many IMAP sessions anybody may have.
    #[serde(default)]
    pub sessions: Sessions,
    /// The log.
    #[serde(default)]
    pub log: Log,
}

/// PEM files of a client certificate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Roots of the cluster.
    pub ca: PathBuf,
    /// Our certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// PEM files of a server certificate.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicTls {
    /// The certificate and its chain.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The LMTP listeners.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lmtp {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Sessions at the same time; one more is told to come later.
    #[serde(default = "default_lmtp_sessions")]
    pub sessions_max: usize,
    /// Relays that may say by XCLIENT for whom they speak; it stands in the log.
    #[serde(default)]
    pub xclient_from: Vec<IpAddr>,
    /// LMTP knows no login: whoever reaches the port delivers to anybody. An address beyond loopback must say that this is wanted.
    #[serde(default)]
    pub trusted_network: bool,
}

/// The IMAP listeners.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imap {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Sessions at the same time.
    #[serde(default = "default_imap_sessions")]
    pub sessions_max: usize,
    /// May a password come without TLS?
    #[serde(default)]
    pub plaintext_login: PlaintextLogin,
}

/// The IMAPS listeners.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Imaps {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Sessions at the same time.
    #[serde(default = "default_imap_sessions")]
    pub sessions_max: usize,
}

/// The services for a Postfix: who a recipient is, and who may send.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Postfix {
    /// Where the maps `recipient` and `login` are served (socketmap).
    #[serde(default)]
    pub maps: Vec<SocketAddr>,
    /// Where submission is authenticated (Dovecot's protocol).
    #[serde(default)]
    pub sasl: Vec<SocketAddr>,
    /// Connections at the same time, of each listener.
    #[serde(default = "default_lmtp_sessions")]
    pub sessions_max: usize,
    /// Whoever reaches the ports can try addresses and passwords, without TLS. An address beyond loopback must say that this is wanted.
    #[serde(default)]
    pub trusted_network: bool,
}

impl Postfix {
    fn validate(&self) -> anyhow::Result<()> {
        let mut all = self.maps.iter().chain(&self.sasl).peekable();
        ensure!(
            all.peek().is_some(),
            "postfix: at least one ADDRESS:PORT in maps or sasl"
        );
        let outside = all.find(|address| !address.ip().is_loopback());
        if let (Some(address), false) = (outside, self.trusted_network) {
            bail!("postfix: {address} is open to others; set postfix.trusted_network = true if only relays reach it");
        }
        let bounded = (1..=limits::CONNECTIONS_MAX).contains(&self.sessions_max);
        ensure!(
            bounded,
            "postfix.sessions_max must be from 1 to {}",
            limits::CONNECTIONS_MAX
        );
        Ok(())
    }
}

/// May a password come without TLS?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlaintextLogin {
    /// Never.
    #[default]
    Never,
    /// From this machine to this machine only.
    Loopback,
}

/// IMAP sessions, over all listeners of this gateway: how many, and how they log in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// From one address, or from one /64 of IPv6.
    pub per_address_max: usize,
    /// Of one account.
    pub per_account_max: usize,
    /// Addresses behind which many people are, such as a webmail's: neither counted nor slowed down as one.
    pub proxies: Vec<IpAddr>,
    /// Offer OAUTHBEARER and XOAUTH2: the nodes believe an identity provider (`[oauth]` in their configuration).
    pub access_tokens: bool,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            per_address_max: limits::IMAP_SESSIONS_PER_ADDRESS_MAX,
            per_account_max: limits::IMAP_SESSIONS_PER_ACCOUNT_MAX,
            proxies: Vec::new(),
            access_tokens: false,
        }
    }
}

impl Sessions {
    fn validate(&self) -> anyhow::Result<()> {
        let bounds = [
            ("per_address_max", self.per_address_max),
            ("per_account_max", self.per_account_max),
        ];
        for (name, bound) in bounds {
            ensure!(bound > 0, "sessions.{name} must be at least 1");
        }
        Ok(())
    }

    /// As the gate takes them.
    pub fn bounds(&self) -> GateBounds {
        GateBounds {
            sessions_per_address_max: self.per_address_max,
            sessions_per_account_max: self.per_account_max,
            proxies: self.proxies.iter().map(IpAddr::to_canonical).collect(),
        }
    }
}

/// The log, on standard error. The same keys as in malled's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A filter as `tracing` takes it, for example `info,malle_gateway=debug`.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// The shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Log {
    fn default() -> Log {
        Log {
            level: "info".to_owned(),
            format: LogFormat::default(),
        }
    }
}

fn default_lmtp_sessions() -> usize {
    500
}

fn default_imap_sessions() -> usize {
    limits::CONNECTIONS_MAX
}

/// Flags that win over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// HOST:PORT of a node; may be repeated
    #[arg(long = "endpoint", value_name = "HOST:PORT")]
    pub endpoints: Vec<String>,
    /// Listen for LMTP here instead of where the file says
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub lmtp: Vec<SocketAddr>,
    /// Listen for IMAP here instead of where the file says
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub imap: Vec<SocketAddr>,
    /// Listen for IMAPS here instead of where the file says
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub imaps: Vec<SocketAddr>,
}

impl Config {
    /// Reads, overrides and checks.
    pub fn load(file: &Path, overrides: &Overrides) -> anyhow::Result<Config> {
        let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let config = Config::parse(&text, overrides);
        config.with_context(|| format!("in {}", file.display()))
    }

    fn parse(text: &str, overrides: &Overrides) -> anyhow::Result<Config> {
        let mut config: Config = toml::from_str(text)?;
        config.apply(overrides)?;
        config.validate()?;
        Ok(config)
    }

    fn apply(&mut self, overrides: &Overrides) -> anyhow::Result<()> {
        if !overrides.endpoints.is_empty() {
            self.endpoints.clone_from(&overrides.endpoints);
        }
        let places = [
            (
                "lmtp",
                &overrides.lmtp,
                self.lmtp.as_mut().map(|section| &mut section.listen),
            ),
            (
                "imap",
                &overrides.imap,
                self.imap.as_mut().map(|section| &mut section.listen),
            ),
            (
                "imaps",
                &overrides.imaps,
                self.imaps.as_mut().map(|section| &mut section.listen),
            ),
        ];
        for (name, wanted, listen) in places {
            match (wanted.is_empty(), listen) {
                (true, _) => {}
                (false, Some(listen)) => listen.clone_from(wanted),
                (false, None) => bail!("--{name} was given, but the file has no section [{name}]"),
            }
        }
        Ok(())
    }

    fn validate(&self) -> anyhow::Result<()> {
        let plain = !self.host.is_empty() && self.host.bytes().all(|b| b.is_ascii_graphic());
        ensure!(plain, "host must be a name in printable ASCII");
        ensure!(!self.endpoints.is_empty(), "endpoints: at least one node to ask first");
        let sections = [
            (
                "lmtp",
                self.lmtp
                    .as_ref()
                    .map(|section| (&section.listen, section.sessions_max)),
            ),
            (
                "imap",
                self.imap
                    .as_ref()
                    .map(|section| (&section.listen, section.sessions_max)),
            ),
            (
                "imaps",
                self.imaps
                    .as_ref()
                    .map(|section| (&section.listen, section.sessions_max)),
            ),
        ];
        ensure!(
            sections.iter().any(|(_, section)| section.is_some()),
            "nothing to do: add [lmtp], [imap] or [imaps]"
        );
        for (name, section) in sections {
            let Some((listen, sessions_max)) = section else {
                continue;
            };
            ensure!(!listen.is_empty(), "{name}.listen: at least one ADDRESS:PORT");
            let bounded = (1..=limits::CONNECTIONS_MAX).contains(&sessions_max);
            ensure!(
                bounded,
                "{name}.sessions_max must be from 1 to {}",
                limits::CONNECTIONS_MAX
            );
        }
        self.sessions.validate()?;
        self.postfix.as_ref().map_or(Ok(()), Postfix::validate)?;
        if let Some(lmtp) = &self.lmtp {
            let outside = lmtp.listen.iter().find(|address| !address.ip().is_loopback());
            if let (Some(address), false) = (outside, lmtp.trusted_network) {
                bail!(
                    "lmtp.listen = {address}: LMTP has no login; set lmtp.trusted_network = true if only relays reach it"
                );
            }
        }
        ensure!(
            self.imaps.is_none() || self.public_tls.is_some(),
            "[imaps] needs [public_tls]"
        );
        let usable = self.public_tls.is_some()
            || self
                .imap
                .as_ref()
                .is_none_or(|imap| imap.plaintext_login != PlaintextLogin::Never);
        ensure!(
            usable,
            "[imap]: nobody could log in without [public_tls] or plaintext_login = \"loopback\""
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
        host = "mx.example.org"
        endpoints = ["127.0.0.1:7420"]
        [tls]
        ca = "ca.pem"
        cert = "gateway.pem"
        key = "gateway.key"
    "#;

    fn parse(more: &str) -> anyhow::Result<Config> {
        Config::parse(&format!("{BASE}{more}"), &Overrides::default())
    }

    fn refusal(more: &str) -> String {
        format!("{:#}", parse(more).unwrap_err())
    }

    #[test]
    fn a_small_file_is_enough() {
        let config = parse("[lmtp]\nlisten = [\"127.0.0.1:24\"]").unwrap();
        assert_eq!(config.lmtp.unwrap().sessions_max, 500);
    }

    #[test]
    fn sessions_are_bounded_unless_told_otherwise() {
        let lmtp = "[lmtp]\nlisten = [\"127.0.0.1:24\"]\n";
        let bounds = parse(lmtp).unwrap().sessions.bounds();
        assert_eq!(
            (bounds.sessions_per_address_max, bounds.sessions_per_account_max),
            (1000, 100)
        );
        let told = format!("{lmtp}[sessions]\nper_account_max = 7\nproxies = [\"::ffff:10.0.0.9\"]");
        let bounds = parse(&told).unwrap().sessions.bounds();
        assert_eq!(
            (bounds.sessions_per_address_max, bounds.sessions_per_account_max),
            (1000, 7)
        );
        assert_eq!(bounds.proxies, ["10.0.0.9".parse::<IpAddr>().unwrap()]);
        assert!(refusal(&format!("{lmtp}[sessions]\nper_account_max = 0")).contains("at least 1"));
    }

    #[test]
    fn unknown_keys_are_refused() {
        assert!(refusal("[lmtp]\nlisten = [\"127.0.0.1:24\"]\nsession_max = 1").contains("session_max"));
    }

    #[test]
    fn lmtp_beyond_loopback_must_be_wanted() {
        assert!(refusal("[lmtp]\nlisten = [\"10.0.0.1:24\"]").contains("trusted_network"));
        assert!(parse("[lmtp]\nlisten = [\"10.0.0.1:24\"]\ntrusted_network = true").is_ok());
    }

    #[test]
    fn relays_that_speak_for_others_are_named() {
        assert!(
            parse("[lmtp]\nlisten = [\"127.0.0.1:24\"]")
                .unwrap()
                .lmtp
                .unwrap()
                .xclient_from
                .is_empty()
        );
        let lmtp = parse("[lmtp]\nlisten = [\"127.0.0.1:24\"]\nxclient_from = [\"10.0.0.7\", \"::1\"]")
            .unwrap()
            .lmtp;
        assert_eq!(lmtp.unwrap().xclient_from.len(), 2);
    }

    #[test]
    fn services_for_postfix_beyond_loopback_must_be_wanted() {
        let lmtp = "[lmtp]\nlisten = [\"127.0.0.1:24\"]\n[postfix]\n";
        assert!(parse(&format!("{lmtp}maps = [\"127.0.0.1:4001\"]")).is_ok());
        assert!(refusal(&format!("{lmtp}sasl = [\"10.0.0.1:4002\"]")).contains("trusted_network"));
        assert!(parse(&format!("{lmtp}sasl = [\"10.0.0.1:4002\"]\ntrusted_network = true")).is_ok());
        assert!(refusal(lmtp).contains("at least one"));
    }

    #[test]
    fn an_imap_port_that_nobody_could_use_is_refused() {
        assert!(refusal("[imap]\nlisten = [\"127.0.0.1:143\"]").contains("nobody could log in"));
        assert!(parse("[imap]\nlisten = [\"127.0.0.1:143\"]\nplaintext_login = \"loopback\"").is_ok());
        assert!(refusal("[imaps]\nlisten = [\"127.0.0.1:993\"]").contains("public_tls"));
        assert!(refusal("").contains("nothing to do"));
    }

    #[test]
    fn flags_win_and_need_their_section() {
        let text = format!("{BASE}[lmtp]\nlisten = [\"127.0.0.1:24\"]");
        let address: SocketAddr = "127.0.0.1:2525".parse().unwrap();
        let overrides = Overrides {
            lmtp: vec![address],
            ..Overrides::default()
        };
        assert_eq!(
            Config::parse(&text, &overrides).unwrap().lmtp.unwrap().listen,
            [address]
        );
        let overrides = Overrides {
            imap: vec![address],
            ..Overrides::default()
        };
        assert!(Config::parse(&text, &overrides).is_err());
    }
}
