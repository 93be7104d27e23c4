//! Certificates for development and tests: an authority, and leafs with malle's URIs in them.
//!
//! An identity is a URI SAN, `spiffe://<cluster>/node/<id>` and so on; a gateway's roles are further ones. Keys are P-256, in files that
//! only their owner may read. A production cluster takes its certificates from the ministry's own authority.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand, ValueEnum};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Days that a certificate of the authority lasts.
const CA_DAYS: i64 = 3650;
/// Days that a leaf lasts.
const LEAF_DAYS: i64 = 365;
/// Machines' clocks differ: a certificate holds from a day before it was made.
const BACKDATED_DAYS: i64 = 1;

/// What kind of gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Delivers mail, reads none.
    Lmtp,
    /// Reads and changes an account with its login token.
    Imap,
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// `malled` number.
    Node(u64),
    /// `malle-gateway` by name.
    Gateway(String, Vec<Role>),
    /// A person or script by name.
    Operator(String),
}

#[derive(Debug, Args)]
pub struct Leaf {
    /// Directory of the authority.
    #[arg(long, default_value = "ca", value_name = "DIR")]
    ca_dir: PathBuf,
    /// Writes PREFIX.pem and PREFIX.key; named after the identity by default.
    #[arg(long, value_name = "PREFIX")]
    out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes an authority: DIR/ca.pem and DIR/ca.key.
    Ca {
        /// Name of the cluster: the trust domain of its certificates.
        #[arg(long, default_value = "malle.demo")]
        cluster: String,
        /// Where to.
        #[arg(long, default_value = "ca", value_name = "DIR")]
        dir: PathBuf,
    },
    /// A certificate for a node.
    Node {
        /// Its id.
        id: u64,
        #[command(flatten)]
        leaf: Leaf,
    },
    /// A certificate for a gateway.
    Gateway {
        /// Its name.
        name: String,
        /// What it may do; give it twice for both.
        #[arg(long, value_enum, required = true)]
        role: Vec<Role>,
        #[command(flatten)]
        leaf: Leaf,
    },
    /// A certificate for an operator.
    Operator {
        /// Their name.
        name: String,
        #[command(flatten)]
        leaf: Leaf,
    },
}

/// Carries the verb out.
///
/// # Errors
/// Files that exist already or cannot be written.
pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    let (identity, leaf) = match verb {
        Verb::Ca { cluster, dir } => {
            make_ca(&dir, &cluster)?;
            eprintln!(
                "made {} and its key; keep the key where no server can read it",
                dir.join("ca.pem").display()
            );
            return Ok(ExitCode::SUCCESS);
        }
        Verb::Node { id, leaf } => (Identity::Node(id), leaf),
        Verb::Gateway { name, role, leaf } => (Identity::Gateway(name, role), leaf),
        Verb::Operator { name, leaf } => (Identity::Operator(name), leaf),
    };
    let prefix = leaf.out.unwrap_or_else(|| PathBuf::from(file_name(&identity)));
    make_leaf(&leaf.ca_dir, &prefix, &identity)?;
    eprintln!("made {}.pem and {}.key", prefix.display(), prefix.display());
    Ok(ExitCode::SUCCESS)
}

fn file_name(identity: &Identity) -> String {
    match identity {
        Identity::Node(id) => format!("node-{id}"),
        Identity::Gateway(name, _) => format!("gateway-{name}"),
        Identity::Operator(name) => format!("operator-{name}"),
    }
}

fn uris(cluster: &str, identity: &Identity) -> anyhow::Result<Vec<String>> {
    let name_is_good = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    Ok(match identity {
        Identity::Node(0) => bail!("node ids count from 1"),
        Identity::Node(id) => vec![format!("spiffe://{cluster}/node/{id}")],
        Identity::Gateway(name, _) | Identity::Operator(name) if !name_is_good(name) => {
            bail!("a name has letters, digits, '-', '_' and '.': not {name:?}")
        }
        Identity::Operator(name) => vec![format!("spiffe://{cluster}/operator/{name}")],
        Identity::Gateway(name, roles) => {
            let mut uris = vec![format!("spiffe://{cluster}/gateway/{name}")];
            for (role, text) in [(Role::Lmtp, "lmtp"), (Role::Imap, "imap")] {
                if roles.contains(&role) {
                    uris.push(format!("spiffe://{cluster}/role/{text}"));
                }
            }
            uris
        }
    })
}

fn valid_for(params: &mut CertificateParams, days: i64) {
    let now = time_now();
    params.not_before = now - time::Duration::days(BACKDATED_DAYS);
    params.not_after = now + time::Duration::days(days);
}

fn time_now() -> time::OffsetDateTime {
    time::OffsetDateTime::now_utc()
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut file = fs::File::options()
        .create_new(true)
        .write(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {} (an existing one is never replaced)", path.display()))?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

/// Makes an authority in `dir`: `ca.pem`, `ca.key`, and `cluster`, the name that its leafs carry.
///
/// # Errors
/// When one is there already, or `dir` cannot be written.
pub fn make_ca(dir: &Path, cluster: &str) -> anyhow::Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("malle development authority of {cluster}"));
    valid_for(&mut params, CA_DAYS);
    let certificate = params.self_signed(&key)?;
    write_new(&dir.join("ca.key"), &key.serialize_pem(), 0o600)?;
    write_new(&dir.join("cluster"), cluster, 0o644)?;
    write_new(&dir.join("ca.pem"), &certificate.pem(), 0o644)
}

/// Makes `<prefix>.pem` and `<prefix>.key`, signed by the authority in `ca_dir`.
///
/// # Errors
/// When there is no authority, the name is bad, or a file is there already.
pub fn make_leaf(ca_dir: &Path, prefix: &Path, identity: &Identity) -> anyhow::Result<()> {
    let read = |name: &str| {
        fs::read_to_string(ca_dir.join(name))
            .with_context(|| format!("no authority in {}: make one with `malle cert ca`", ca_dir.display()))
    };
    let cluster = read("cluster")?;
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, KeyPair::from_pem(&read("ca.key")?)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, file_name(identity));
    for uri in uris(cluster.trim(), identity)? {
        params.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid_for(&mut params, LEAF_DAYS);
    let certificate = params.signed_by(&key, &issuer)?;
    // Appended, not replaced: a name may have dots in it.
    let with = |ending: &str| PathBuf::from(format!("{}.{ending}", prefix.display()));
    write_new(&with("key"), &key.serialize_pem(), 0o600)?;
    write_new(&with("pem"), &certificate.pem(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::{Identity, Role, make_ca, make_leaf, uris};
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_leaf_is_made_once_and_its_key_is_its_owners() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca");
        make_ca(&ca, "malle.test").unwrap();
        assert!(make_ca(&ca, "malle.test").is_err(), "an authority is never replaced");
        let prefix = dir.path().join("gw.1");
        let gateway = Identity::Gateway("gw.1".into(), vec![Role::Lmtp]);
        make_leaf(&ca, &prefix, &gateway).unwrap();
        assert!(make_leaf(&ca, &prefix, &gateway).is_err(), "a key is never replaced");
        let key = std::fs::metadata(dir.path().join("gw.1.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        let pem = std::fs::read(dir.path().join("gw.1.pem")).unwrap();
        assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----"));
    }

    #[test]
    fn roles_are_uris_and_bad_names_are_refused() {
        let both = Identity::Gateway("g".into(), vec![Role::Imap, Role::Lmtp, Role::Imap]);
        assert_eq!(
            uris("c", &both).unwrap(),
            ["spiffe://c/gateway/g", "spiffe://c/role/lmtp", "spiffe://c/role/imap"]
        );
        assert!(uris("c", &Identity::Operator("a/b".into())).is_err());
        assert!(uris("c", &Identity::Operator(String::new())).is_err());
        assert!(uris("c", &Identity::Node(0)).is_err());
    }
}
