//! The configuration of one node: a TOML file, read once, checked whole before anything starts.
//!
//! An unknown name is refused, because a misspelt limit is a limit that does not hold. What is absent: everything that all nodes
//! must agree on (shards, replicas, quotas): that lives in the directory, where it is replicated.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use malle_proto::{NodeId, limits};
use serde::Deserialize;

/// What `malled --config FILE` reads.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's id, from 1. A node that lost its disk comes back under a new one.
    pub node: NodeId,
    /// Region that this node stands in, for example `nord`.
    pub region: String,
    /// Zone within the region: nodes of one zone may fail together.
    pub zone: String,
    /// The cluster's name, the trust domain of every certificate: `spiffe://<cluster>/...`.
    pub cluster: String,
    /// Everything that this node keeps.
    pub data_dir: PathBuf,
    /// IP:PORT that front ends and operators connect to.
    pub client_listen: SocketAddr,
    /// IP:PORT that other nodes connect to.
    pub peer_listen: SocketAddr,
    /// HOST:PORT under which front ends and operators reach `client_listen`.
    pub client_address: String,
    /// HOST:PORT under which other nodes reach `peer_listen`.
    pub peer_address: String,
    /// Certificates.
    pub tls: TlsFiles,
    /// How patient raft is.
    #[serde(default)]
    pub timing: Timing,
    /// What is logged.
    #[serde(default)]
    pub log: Log,
    /// Health and metrics.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// Memory for the caches of all indexes of this node together, in bytes.
    #[serde(default = "default_index_cache_bytes")]
    pub index_cache_bytes: u64,
    /// Every body on this node is read and checked again within so many days. 30 by default, from 1 to 365.
    #[serde(default = "default_scrub_days")]
    pub scrub_days: u32,
    /// Access tokens of an identity provider beside passwords; none are taken when it is left out.
    #[serde(default)]
    pub oauth: Option<OAuth>,
}

/// Whose access tokens log an account in (OAUTHBEARER, XOAUTH2), and how to believe them. The same on all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth {
    /// What `iss` of a token must be.
    pub issuer: String,
    /// What `aud` of a token must be, or hold.
    pub audience: String,
    /// File with the provider's keys as a JSON web key set (RFC 7517). It is read again on SIGHUP and when it changes. This or `jwks_url`.
    pub jwks: Option<PathBuf>,
    /// Where the node fetches them itself: `https://`, no redirect. The last good set stays in use, and is kept in the data directory.
    pub jwks_url: Option<String>,
    /// PEM file of the authorities that the provider's server is known by; the system's bundle when it is left out.
    pub jwks_ca: Option<PathBuf>,
    /// The claim that is an address of the account.
    #[serde(default = "default_claim")]
    pub claim: String,
}

fn default_claim() -> String {
    "email".into()
}

/// Where Debian and most others keep the authorities of the world.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The largest such bundle that is read.
const AUTHORITIES_MAX_BYTES: u64 = 4 * 1024 * 1024;

impl OAuth {
    /// The text of a file of keys.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the file.
    pub fn read_keys(path: &Path) -> Result<String, ConfigError> {
        let bytes = read_bounded("oauth.jwks", path, limits::JWKS_MAX_BYTES)?;
        String::from_utf8(bytes).map_err(|_| ConfigError::Invalid(vec![format!("oauth.jwks = {path:?}: not UTF-8")]))
    }

    /// The authorities that the provider's server is known by (PEM).
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the file.
    pub fn read_authorities(&self) -> Result<Vec<u8>, ConfigError> {
        let path = self.jwks_ca.as_deref().unwrap_or(Path::new(SYSTEM_AUTHORITIES));
        read_bounded("oauth.jwks_ca", path, AUTHORITIES_MAX_BYTES)
    }
}

fn read_bounded(name: &str, path: &Path, max_bytes: u64) -> Result<Vec<u8>, ConfigError> {
    let wrong = |reason: String| ConfigError::Invalid(vec![format!("{name} = {path:?}: {reason}")]);
    let about = fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    if about.len() > max_bytes {
        return Err(wrong(format!("larger than {max_bytes} bytes")));
    }
    fs::read(path).map_err(|error| wrong(error.to_string()))
}

/// PEM files. They are read again on SIGHUP and when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsFiles {
    /// Certificates of the authorities that signed the cluster's certificates; several during a change of authority.
    pub ca: PathBuf,
    /// This process's certificate, then those between it and the authority.
    pub cert: PathBuf,
    /// The private key of the certificate; only its owner and group may read it.
    pub key: PathBuf,
}

/// What the files of [`TlsFiles`] hold.
#[derive(Clone, PartialEq, Eq)]
pub struct TlsPem {
    /// Certificates of authorities.
    pub ca: Vec<u8>,
    /// Certificate chain.
    pub cert: Vec<u8>,
    /// Private key.
    pub key: Vec<u8>,
}

/// Heartbeats and elections (architecture, section 6); `raft` has the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Timing {
    /// All nodes on one machine or in one building.
    Local,
    /// Regions apart.
    #[default]
    Wan,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// A filter as `tracing` takes it, for example `info,malle_node::raft=debug`.
    pub level: String,
    /// For people or for machines.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            level: "info,openraft=error".into(),
            format: LogFormat::default(),
        }
    }
}

/// Health and metrics over plain HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// IP:PORT that `/health/live`, `/health/ready` and `/metrics` are served on, without TLS and to everybody who reaches it; port 0 lets
    /// the system choose. Nothing listens when it is left out.
    pub listen: Option<SocketAddr>,
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

const INDEX_CACHE_MIN_BYTES: u64 = 16 * 1024 * 1024;

fn default_index_cache_bytes() -> u64 {
    256 * 1024 * 1024
}

fn default_scrub_days() -> u32 {
    limits::SCRUB_DAYS
}

/// Why a configuration does not stand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    #[error("cannot read the configuration {path}: {reason}; name another file with --config")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// Not TOML, an unknown name, or a value of the wrong kind.
    #[error("the configuration does not parse: {0}")]
    Syntax(String),
    /// Values that make no sense, each with what to do, one a line.
    #[error("the configuration is not usable:\n{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

impl Config {
    /// Reads and checks a file, and the certificate files that it names.
    ///
    /// # Errors
    /// A [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
            path: path.into(),
            reason: error.to_string(),
        })?;
        let config = Config::parse(&text)?;
        let problems = config.tls.problems();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// Takes a configuration from its text and checks its values; no file is touched.
    ///
    /// # Errors
    /// A [`ConfigError`].
    pub fn parse(text: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Do the values make sense together?
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem and what to do about it.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = self.address_problems();
        let mut demand = |holds: bool, problem: String| {
            if !holds {
                problems.push(problem);
            }
        };
        demand(
            self.node != NodeId(0),
            "node = 0: node ids begin with 1; give every node its own".into(),
        );
        for (name, value) in [("region", &self.region), ("zone", &self.zone)] {
            demand(
                is_label(value),
                format!("{name} = {value:?}: use lower-case letters, digits, '-' and '_', at most 63"),
            );
        }
        demand(
            is_trust_domain(&self.cluster),
            format!(
                "cluster = {:?}: use the trust domain of the certificates, such as mail.example.org",
                self.cluster
            ),
        );
        demand(
            self.data_dir.is_absolute(),
            format!("data_dir = {:?}: write a path that begins with /", self.data_dir),
        );
        demand(
            self.index_cache_bytes >= INDEX_CACHE_MIN_BYTES,
            format!(
                "index_cache_bytes = {}: give at least {INDEX_CACHE_MIN_BYTES}",
                self.index_cache_bytes
            ),
        );
        demand(
            (1..=limits::SCRUB_DAYS_MAX).contains(&self.scrub_days),
            format!(
                "scrub_days = {}: give 1 to {} days, {} when in doubt",
                self.scrub_days,
                limits::SCRUB_DAYS_MAX,
                limits::SCRUB_DAYS
            ),
        );
        if let Some(oauth) = &self.oauth {
            let values = [
                ("issuer", &oauth.issuer),
                ("audience", &oauth.audience),
                ("claim", &oauth.claim),
            ];
            for (name, value) in values {
                demand(
                    !value.is_empty(),
                    format!("oauth.{name} is empty: it would fit nothing"),
                );
            }
            demand(
                oauth.jwks.is_some() != oauth.jwks_url.is_some(),
                "oauth: give the provider's keys once, by jwks (a file) or by jwks_url".into(),
            );
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// Addresses that nobody reaches, and listeners that are in each other's way.
    fn address_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, value) in [
            ("client_address", &self.client_address),
            ("peer_address", &self.peer_address),
        ] {
            if !is_reachable(value) {
                problems.push(format!(
                    "{name} = {value:?}: write the HOST:PORT under which other machines reach this node"
                ));
            }
        }
        let mut taken = vec![("client_listen", self.client_listen)];
        for (name, listen) in [
            ("peer_listen", Some(self.peer_listen)),
            ("telemetry.listen", self.telemetry.listen),
        ] {
            let Some(listen) = listen else { continue };
            if let Some((other, _)) = taken.iter().find(|(_, other)| *other == listen && listen.port() != 0) {
                problems.push(format!("{name} = {listen}: {other} is the same; use another port"));
            }
            taken.push((name, listen));
        }
        problems
    }
}

impl TlsFiles {
    /// What is wrong with the files, and what to do about it.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, path) in [("tls.ca", &self.ca), ("tls.cert", &self.cert), ("tls.key", &self.key)] {
            match fs::metadata(path) {
                Ok(about) if !about.is_file() => problems.push(format!("{name} = {path:?}: not a file")),
                Ok(about) if name == "tls.key" && about.permissions().mode() & 0o007 != 0 => problems.push(format!(
                    "{name} = {path:?}: everybody on this machine may use it; run: chmod o= {}",
                    path.display()
                )),
                Ok(_) => {}
                Err(error) => problems.push(format!("{name} = {path:?}: {error}; `malle cert` makes one")),
            }
        }
        problems
    }

    /// Reads the three files.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] naming the file that cannot be read.
    pub fn read(&self) -> Result<TlsPem, ConfigError> {
        let read = |name: &str, path: &Path| {
            fs::read(path).map_err(|error| ConfigError::Invalid(vec![format!("{name} = {path:?}: {error}")]))
        };
        Ok(TlsPem {
            ca: read("tls.ca", &self.ca)?,
            cert: read("tls.cert", &self.cert)?,
            key: read("tls.key", &self.key)?,
        })
    }
}

/// A name of a region or zone.
fn is_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    (1..=63).contains(&text.len()) && text.chars().all(allowed)
}

/// May `text` stand between `spiffe://` and the next slash? (SPIFFE-ID 2.1: lower-case letters, digits, dots, dashes, underscores.)
pub fn is_trust_domain(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    (1..=253).contains(&text.len()) && text.chars().all(allowed)
}

/// A HOST:PORT that others can dial: a host, not "every address", and a port.
fn is_reachable(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else {
        return false;
    };
    let nowhere = ["", "0.0.0.0", "[::]", "*"].contains(&host);
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    let text = !host.chars().any(|c| c.is_whitespace() || c == '/');
    !nowhere && !bare_ipv6 && text && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError, LogFormat, Timing};
    use std::os::unix::fs::PermissionsExt as _;

    const WHOLE: &str = r#"
        node = 1
        region = "nord"
        zone = "a"
        cluster = "mail.example.org"
        data_dir = "/var/lib/malle"
        client_listen = "0.0.0.0:7420"
        peer_listen = "[::]:7421"
        client_address = "n1.example.org:7420"
        peer_address = "[fd00::1]:7421"
        timing = "local"
        index_cache_bytes = 1073741824
        scrub_days = 14
        [tls]
        ca = "/etc/malle/ca.pem"
        cert = "/etc/malle/node.pem"
        key = "/etc/malle/node.key"
        [log]
        level = "debug"
        format = "json"
        [telemetry]
        listen = "127.0.0.1:9464"
    "#;

    fn without(name: &str) -> String {
        let kept = |line: &&str| !line.trim_start().starts_with(name);
        WHOLE.lines().filter(kept).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_whole_configuration_is_taken_as_written() {
        let config = Config::parse(WHOLE).unwrap();
        assert_eq!(config.node.0, 1);
        assert_eq!((config.timing, config.log.format), (Timing::Local, LogFormat::Json));
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let config = Config::parse(&without("timing")).unwrap();
        assert_eq!(config.timing, Timing::Wan);
        let config = Config::parse(&without("level")).unwrap();
        assert_eq!(config.log.level, "info,openraft=error");
        let config = Config::parse(&without("index_cache_bytes")).unwrap();
        assert_eq!(config.index_cache_bytes, 268_435_456);
        let config = Config::parse(&without("scrub_days")).unwrap();
        assert_eq!(config.scrub_days, 30);
        let config = Config::parse(&without("listen =")).unwrap();
        assert_eq!(config.telemetry.listen, None);
    }

    #[test]
    fn the_example_is_a_configuration() {
        let example = include_str!("../../deploy/malled.example.toml");
        let config = Config::parse(example).unwrap();
        assert_eq!(config.telemetry.listen, "127.0.0.1:9464".parse().ok());
    }

    #[test]
    fn an_unknown_or_missing_name_is_refused_by_name() {
        for text in [format!("nodes = 2\n{WHOLE}"), format!("{WHOLE}\nlevels = 1")] {
            assert!(matches!(Config::parse(&text), Err(ConfigError::Syntax(why)) if why.contains("unknown field")));
        }
        for name in [
            "node",
            "region",
            "cluster",
            "data_dir",
            "client_listen",
            "peer_address",
            "key",
        ] {
            assert!(
                matches!(Config::parse(&without(name)), Err(ConfigError::Syntax(why)) if why.contains(name)),
                "{name}"
            );
        }
    }

    #[test]
    fn every_value_that_makes_no_sense_is_named_with_what_to_do() {
        let text = WHOLE
            .replace("node = 1", "node = 0")
            .replace("\"nord\"", "\"Nord Est\"")
            .replace("\"mail.example.org\"", "\"spiffe://mail\"")
            .replace("\"/var/lib/malle\"", "\"data\"")
            .replace("n1.example.org:7420", "0.0.0.0:7420")
            .replace("[fd00::1]:7421", "n1:0")
            .replace("[::]:7421", "0.0.0.0:7420")
            .replace("127.0.0.1:9464", "0.0.0.0:7420")
            .replace("1073741824", "5")
            .replace("scrub_days = 14", "scrub_days = 0");
        let Err(ConfigError::Invalid(problems)) = Config::parse(&text) else {
            panic!("taken")
        };
        let named: Vec<&str> = problems.iter().map(|p| p.split(' ').next().unwrap()).collect();
        assert_eq!(
            named,
            [
                "client_address",
                "peer_address",
                "peer_listen",
                "telemetry.listen",
                "node",
                "region",
                "cluster",
                "data_dir",
                "index_cache_bytes",
                "scrub_days"
            ]
        );
    }

    #[test]
    fn a_key_that_everybody_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["ca.pem", "node.pem", "node.key"] {
            std::fs::write(path(name), "x").unwrap();
        }
        let text = WHOLE.replace("/etc/malle", dir.path().to_str().unwrap());
        std::fs::write(path("malled.toml"), text).unwrap();
        let mode =
            |mode: u32| std::fs::set_permissions(path("node.key"), std::fs::Permissions::from_mode(mode)).unwrap();
        for open in [0o644, 0o604, 0o602] {
            mode(open);
            assert!(
                matches!(Config::load(&path("malled.toml")), Err(ConfigError::Invalid(p)) if p[0].contains("chmod o=")),
                "{open:o}"
            );
        }
        for closed in [0o600, 0o640] {
            mode(closed);
            assert!(Config::load(&path("malled.toml")).is_ok(), "{closed:o}");
        }
        std::fs::remove_file(path("ca.pem")).unwrap();
        assert!(matches!(Config::load(&path("malled.toml")), Err(ConfigError::Invalid(p)) if p[0].contains("tls.ca")));
        assert!(matches!(
            Config::load(&path("none.toml")),
            Err(ConfigError::Unreadable { .. })
        ));
    }
}
