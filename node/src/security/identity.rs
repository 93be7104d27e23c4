//! Who is at the other end: read from the URIs of its certificate, strictly.
//!
//! ```text
//! spiffe://<cluster>/node/<id>          a malled
//! spiffe://<cluster>/gateway/<name>     a front end; what it may do stands in further URIs:
//! spiffe://<cluster>/role/lmtp              it delivers
//! spiffe://<cluster>/role/imap              it serves logged-in users
//! spiffe://<cluster>/operator/<name>    a person or a tool that runs the cluster
//! ```
//!
//! A certificate carries exactly one identity, and no URI that is not one of these: a certificate that says more than we understand
//! was made for something else. Names in other forms (DNS, IP) say where, not who, and are not looked at.

use std::fmt;

use malle_proto::NodeId;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Longest name of a gateway or an operator; it travels in every login token.
pub const NAME_MAX_BYTES: usize = 64;

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A `malled`.
    Node(NodeId),
    /// A front end.
    Gateway {
        /// Its name; login tokens are bound to it.
        name: String,
        /// What it may do.
        roles: GatewayRoles,
    },
    /// Someone who runs the cluster.
    Operator {
        /// For the log.
        name: String,
    },
}

/// What a front end may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GatewayRoles {
    /// Deliver mail.
    pub lmtp: bool,
    /// Serve users that logged in through it.
    pub imap: bool,
}

/// Why a certificate says no identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate, or its names do not parse.
    #[error("the certificate does not parse: {0}")]
    Certificate(String),
    /// No identity at all.
    #[error("the certificate names no identity")]
    None,
    /// More than one.
    #[error("the certificate names several identities")]
    Several,
    /// A URI of another trust domain.
    #[error("{0} is not of this cluster")]
    OtherCluster(String),
    /// A URI of this cluster that means nothing here.
    #[error("{0} is no identity or role")]
    Malformed(String),
    /// A role without a gateway.
    #[error("only a gateway has roles")]
    Role,
}

/// One URI, understood.
enum Claim {
    Identity(Identity),
    Lmtp,
    Imap,
}

impl Identity {
    /// The identity of a certificate whose signature was checked already.
    ///
    /// # Errors
    /// An [`IdentityError`].
    pub fn from_certificate(cluster: &str, der: &[u8]) -> Result<Identity, IdentityError> {
        let bad = |error: &dyn fmt::Display| IdentityError::Certificate(shown(&error.to_string()));
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|error| bad(&error))?;
        if !rest.is_empty() {
            return Err(IdentityError::Certificate("bytes behind its end".into()));
        }
        let names = certificate.subject_alternative_name().map_err(|error| bad(&error))?;
        let Some(names) = names else {
            return Err(IdentityError::None);
        };
        let mut uris = Vec::new();
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                // What the parser could not read might have been a URI.
                GeneralName::Invalid(..) => return Err(IdentityError::Certificate("a name does not parse".into())),
                _ => {}
            }
        }
        Identity::from_uris(cluster, &uris)
    }

    /// The identity that these URIs say together.
    ///
    /// # Errors
    /// An [`IdentityError`].
    pub fn from_uris(cluster: &str, uris: &[&str]) -> Result<Identity, IdentityError> {
        let mut found = None;
        let mut granted = GatewayRoles::default();
        for uri in uris {
            match claim(cluster, uri)? {
                Claim::Identity(identity) if found.is_none() => found = Some(identity),
                Claim::Identity(_) => return Err(IdentityError::Several),
                Claim::Lmtp => granted.lmtp = true,
                Claim::Imap => granted.imap = true,
            }
        }
        match found {
            None => Err(IdentityError::None),
            Some(Identity::Gateway { name, .. }) => Ok(Identity::Gateway { name, roles: granted }),
            Some(_) if granted != GatewayRoles::default() => Err(IdentityError::Role),
            Some(identity) => Ok(identity),
        }
    }

    /// The URI of the identity itself, without roles.
    pub fn uri(&self, cluster: &str) -> String {
        match self {
            Identity::Node(id) => format!("spiffe://{cluster}/node/{id}"),
            Identity::Gateway { name, .. } => format!("spiffe://{cluster}/gateway/{name}"),
            Identity::Operator { name } => format!("spiffe://{cluster}/operator/{name}"),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node(id) => write!(f, "node/{id}"),
            Identity::Gateway { name, .. } => write!(f, "gateway/{name}"),
            Identity::Operator { name } => write!(f, "operator/{name}"),
        }
    }
}

fn claim(cluster: &str, uri: &str) -> Result<Claim, IdentityError> {
    let inside = uri
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.strip_prefix(cluster))
        .and_then(|rest| rest.strip_prefix('/'));
    let Some(path) = inside else {
        return Err(IdentityError::OtherCluster(shown(uri)));
    };
    let malformed = || IdentityError::Malformed(shown(uri));
    let (kind, name) = path.split_once('/').ok_or_else(malformed)?;
    match kind {
        "node" => node_id(name).map(|id| Claim::Identity(Identity::Node(id))),
        "gateway" if is_name(name) => Some(Claim::Identity(Identity::Gateway {
            name: name.into(),
            roles: GatewayRoles::default(),
        })),
        "operator" if is_name(name) => Some(Claim::Identity(Identity::Operator { name: name.into() })),
        "role" if name == "lmtp" => Some(Claim::Lmtp),
        "role" if name == "imap" => Some(Claim::Imap),
        _ => None,
    }
    .ok_or_else(malformed)
}

/// Decimal without sign or leading zero: one node has one spelling.
fn node_id(text: &str) -> Option<NodeId> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.chars().all(allowed)
}

/// A stranger's text for the log: short, and without what would break a line or a terminal.
fn shown(text: &str) -> String {
    text.chars().take(160).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::{GatewayRoles, Identity, IdentityError};
    use malle_proto::NodeId;
    use proptest::prelude::{any, prop_assert_eq, proptest};

    fn read(uris: &[&str]) -> Result<Identity, IdentityError> {
        Identity::from_uris("mail.test", uris)
    }

    fn gateway(lmtp: bool, imap: bool) -> Identity {
        Identity::Gateway {
            name: "front-1".into(),
            roles: GatewayRoles { lmtp, imap },
        }
    }

    #[test]
    fn each_kind_is_read_from_its_uris() {
        assert_eq!(read(&["spiffe://mail.test/node/12"]), Ok(Identity::Node(NodeId(12))));
        let anna = Identity::Operator { name: "anna".into() };
        assert_eq!(read(&["spiffe://mail.test/operator/anna"]), Ok(anna));
        let front = "spiffe://mail.test/gateway/front-1";
        let (lmtp, imap) = ("spiffe://mail.test/role/lmtp", "spiffe://mail.test/role/imap");
        assert_eq!(read(&[front]), Ok(gateway(false, false)));
        assert_eq!(read(&[lmtp, front]), Ok(gateway(true, false)));
        assert_eq!(read(&[front, imap]), Ok(gateway(false, true)));
        assert_eq!(read(&[imap, front, lmtp]), Ok(gateway(true, true)));
    }

    #[test]
    fn exactly_one_identity_is_taken() {
        let (one, two) = ("spiffe://mail.test/node/1", "spiffe://mail.test/operator/anna");
        assert_eq!(read(&[]), Err(IdentityError::None));
        assert_eq!(read(&["spiffe://mail.test/role/imap"]), Err(IdentityError::None));
        assert_eq!(read(&[one, two]), Err(IdentityError::Several));
        assert_eq!(read(&[one, one]), Err(IdentityError::Several));
        assert_eq!(read(&[one, "spiffe://mail.test/role/lmtp"]), Err(IdentityError::Role));
    }

    #[test]
    fn another_cluster_is_refused_even_beside_a_good_identity() {
        for uri in [
            "spiffe://other.test/node/1",
            "spiffe://mail.test.evil/node/1",
            "spiffe://mail.tes/node/1",
            "spiffe://MAIL.TEST/node/1",
            "https://mail.test/node/1",
            "spiffe:mail.test/node/1",
            "spiffe://x@mail.test/node/1",
            "",
        ] {
            assert!(matches!(read(&[uri]), Err(IdentityError::OtherCluster(_))), "{uri}");
            let both = read(&["spiffe://mail.test/node/1", uri]);
            assert!(matches!(both, Err(IdentityError::OtherCluster(_))), "{uri}");
        }
    }

    #[test]
    fn a_uri_of_this_cluster_that_means_nothing_is_refused() {
        let long = format!("operator/{}", "a".repeat(65));
        for path in [
            "",
            "node",
            "node/",
            "node/0",
            "node/01",
            "node/+1",
            "node/-1",
            "node/1/",
            "node/1/2",
            "node/x",
            "node/1 ",
            "node/18446744073709551616",
            "node/1?x",
            "node/1#x",
            "node//1",
            "Node/1",
            "gateway/",
            "gateway/a/b",
            "gateway/A",
            "gateway/a b",
            "gateway/é",
            "gateway/..%2f",
            "operator/",
            "operator/a\n",
            "role/",
            "role/admin",
            "role/LMTP",
            "role/lmtp/",
            "admin/x",
            "/node/1",
            &long,
        ] {
            let uri = format!("spiffe://mail.test/{path}");
            assert!(matches!(read(&[&uri]), Err(IdentityError::Malformed(_))), "{uri}");
        }
    }

    #[test]
    fn a_strangers_text_cannot_forge_a_log_line() {
        let Err(IdentityError::OtherCluster(text)) = read(&["spiffe://x/\n2026-01-01 INFO all is well\x1b[2J"]) else {
            panic!("taken")
        };
        assert!(!text.contains('\n') && !text.contains('\x1b'), "{text:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_fall(bytes in any::<Vec<u8>>(), text in any::<String>()) {
            let _ = Identity::from_certificate("mail.test", &bytes);
            let _ = read(&[&text]);
        }

        #[test]
        fn an_identity_reads_back_from_its_uri(id in 1..=u64::MAX, name in "[a-z0-9._-]{1,64}") {
            for identity in [
                Identity::Node(NodeId(id)),
                Identity::Operator { name: name.clone() },
                Identity::Gateway { name: name.clone(), roles: GatewayRoles::default() },
            ] {
                prop_assert_eq!(read(&[&identity.uri("mail.test")]), Ok(identity));
            }
        }
    }
}
