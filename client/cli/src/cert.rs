//! Certificates of a cluster: an authority on files, and the identities that it signs.
//!
//! The cluster's name is its trust domain: it stands in the URI of every certificate and cannot be changed later. An authority is a
//! directory with `ca.pem` and `ca.key`; an identity is a pair of files, `PREFIX.pem` and `PREFIX.key`. Keys are P-256, are written
//! readable by their owner only, and nothing is ever overwritten. Good for development and small installations; what is absent: a
//! certificate request, revocation, and hardware keys. A larger authority signs certificates with the same URIs itself.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::{Subcommand, ValueEnum};
use malle_client::NodeId;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde::Serialize;
use x509_parser::extensions::GeneralName;

use crate::context::Global;
use crate::exit::{Exit, Refusal, Usage};
use crate::output;

/// An authority outlives its leaves many times.
const CA_DAYS: u64 = 3_650;
/// Certificates are made anew every year, which keeps the way to do it known.
const LEAF_DAYS: u64 = 397;
/// Clocks that run behind take a new certificate at once.
const BACKDATED: Duration = Duration::from_secs(3_600);

/// `malle cert ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes an authority: DIR/ca.pem and DIR/ca.key.
    Ca {
        /// The cluster's name, for example mail.example.
        #[arg(long)]
        cluster: String,
        /// Where to.
        #[arg(long, default_value = "ca", value_name = "DIR")]
        out: PathBuf,
    },
    /// Makes a node's certificate.
    Node {
        /// The node's id.
        id: u64,
        #[command(flatten)]
        files: Files,
    },
    /// Makes a gateway's certificate.
    Gateway {
        /// The gateway's name.
        name: String,
        /// What the gateway may do; repeat it for both.
        #[arg(long = "role", value_enum, required = true)]
        roles: Vec<Role>,
        #[command(flatten)]
        files: Files,
    },
    /// Makes an operator's certificate, for this program.
    Operator {
        /// The operator's name.
        name: String,
        #[command(flatten)]
        files: Files,
    },
}

/// Whose signature, and where to.
#[derive(Debug, clap::Args)]
pub struct Files {
    /// The directory of the authority.
    #[arg(long, default_value = "ca", value_name = "DIR")]
    ca_dir: PathBuf,
    /// Writes PREFIX.pem and PREFIX.key; by default node-ID, or the name.
    #[arg(long, value_name = "PREFIX")]
    out: Option<PathBuf>,
}

/// What a gateway may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Deliver mail, and read nothing.
    Lmtp,
    /// Read and change an account, with that account's login.
    Imap,
}

/// Who a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// `spiffe://<cluster>/node/<id>`
    Node(NodeId),
    /// `spiffe://<cluster>/gateway/<name>`, with a `/role/<role>` for each role.
    Gateway {
        /// Its name.
        name: String,
        /// What it may do.
        roles: Vec<Role>,
    },
    /// `spiffe://<cluster>/operator/<name>`
    Operator(String),
}

/// The two files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// PEM, with the certificate.
    pub cert: PathBuf,
    /// PEM, with its private key; mode 0600.
    pub key: PathBuf,
}

/// Runs a verb.
///
/// # Errors
/// See [`make_ca`] and [`make_leaf`].
pub fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let leaf = |files: Files, default: String, identity: Identity| {
        make_leaf(&files.ca_dir, &files.out.unwrap_or_else(|| default.into()), &identity)
    };
    let made = match verb {
        Verb::Ca { cluster, out } => make_ca(&out, &cluster)?,
        Verb::Node { id, files } => leaf(files, format!("node-{id}"), Identity::Node(NodeId(id)))?,
        Verb::Gateway { name, mut roles, files } => {
            roles.dedup();
            leaf(files, name.clone(), Identity::Gateway { name, roles })?
        }
        Verb::Operator { name, files } => leaf(files, name.clone(), Identity::Operator(name))?,
    };
    output::print(global.output, &made, |made| {
        output::pairs([
            ("certificate", made.cert.display().to_string()),
            ("key", made.key.display().to_string()),
        ])
    })?;
    Ok(Exit::Done)
}

/// Makes an authority for the cluster named `cluster`: `dir/ca.pem` and `dir/ca.key`. Makes the directory.
///
/// # Errors
/// [`Usage`] for a bad name, [`Refusal`] when there is an authority already.
pub fn make_ca(dir: &Path, cluster: &str) -> anyhow::Result<Made> {
    check_name("a cluster's name", cluster)?;
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut params = lasting(CA_DAYS)?;
    params
        .distinguished_name
        .push(DnType::CommonName, format!("malle CA of {cluster}"));
    params.subject_alt_names.push(uri(&format!("spiffe://{cluster}"))?);
    // No authority below this one: whoever holds a leaf's key can sign nothing.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    write(&dir.join("ca"), &cert.pem(), &key)
}

/// Makes a certificate for `identity`, signed by the authority in `ca_dir`: `out_prefix.pem` and `out_prefix.key`.
///
/// # Errors
/// [`Usage`] for a bad name or when there is no authority, [`Refusal`] when one of the files exists.
pub fn make_leaf(ca_dir: &Path, out_prefix: &Path, identity: &Identity) -> anyhow::Result<Made> {
    let read = |name: &str| {
        let path = ca_dir.join(name);
        std::fs::read_to_string(&path).map_err(|error| {
            Usage(format!(
                "cannot read {}: {error}; make an authority with `malle cert ca --cluster NAME --out {}`",
                path.display(),
                ca_dir.display()
            ))
        })
    };
    let ca_pem = read("ca.pem")?;
    let cluster = cluster_of(&ca_pem).with_context(|| format!("{}", ca_dir.join("ca.pem").display()))?;
    let ca_key = KeyPair::from_pem(&read("ca.key")?).context("the authority's key")?;
    let issuer = Issuer::from_ca_cert_pem(&ca_pem, ca_key).context("the authority's certificate")?;

    let (path, roles) = match identity {
        Identity::Node(NodeId(0)) => return Err(Usage("node ids begin at 1".to_owned()).into()),
        Identity::Node(id) => (format!("node/{id}"), &[][..]),
        Identity::Gateway { name, roles } => (format!("gateway/{name}"), &roles[..]),
        Identity::Operator(name) => (format!("operator/{name}"), &[][..]),
    };
    check_name("a name", path.split_once('/').map_or("", |(_, name)| name))?;
    let mut params = lasting(LEAF_DAYS)?;
    params.distinguished_name.push(DnType::CommonName, path.as_str());
    params
        .subject_alt_names
        .push(uri(&format!("spiffe://{cluster}/{path}"))?);
    for role in roles {
        let role = match role {
            Role::Lmtp => "lmtp",
            Role::Imap => "imap",
        };
        params
            .subject_alt_names
            .push(uri(&format!("spiffe://{cluster}/role/{role}"))?);
    }
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if matches!(identity, Identity::Node(_)) {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?;
    write(out_prefix, &cert.pem(), &key)
}

/// The trust domain that an authority's certificate names.
fn cluster_of(ca_pem: &str) -> anyhow::Result<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(ca_pem.as_bytes()).context("no certificate")?;
    let cert = pem.parse_x509().context("no certificate")?;
    let names = cert.subject_alternative_name()?.context("names no cluster")?;
    let cluster = names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    let cluster = cluster.context("names no cluster: was it made with `malle cert ca`?")?;
    check_name("a cluster's name", cluster)?;
    Ok(cluster.to_owned())
}

/// Names become parts of a URI and of file names.
fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if name.len() > 200 || !name.chars().all(fits) || !edge(name.chars().next()) || !edge(name.chars().last()) {
        bail!(Usage(format!(
            "{what} has only a-z, 0-9, '.', '-' and '_', a letter or digit at both ends, not {name:?}"
        )));
    }
    Ok(())
}

fn lasting(days: u64) -> anyhow::Result<CertificateParams> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("the clock stands before 1970")?;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now + Duration::from_secs(days * 86_400);
    Ok(params)
}

fn uri(text: &str) -> anyhow::Result<SanType> {
    Ok(SanType::URI(text.try_into()?))
}

/// Writes both files, new ones only; the key first, so that a certificate never stands without it.
fn write(prefix: &Path, cert_pem: &str, key: &KeyPair) -> anyhow::Result<Made> {
    let with = |ending: &str| {
        let mut name = prefix.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let made = Made {
        cert: with(".pem"),
        key: with(".key"),
    };
    for (path, text, mode) in [
        (&made.key, key.serialize_pem().as_str(), 0o600),
        (&made.cert, cert_pem, 0o644),
    ] {
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        let mut file: File = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let advice = "it is not overwritten; move it away or choose another --out";
                anyhow::Error::new(Refusal(format!("{} exists: {advice}", path.display())))
            }
            _ => anyhow::Error::new(error).context(format!("making {}", path.display())),
        })?;
        file.write_all(text.as_bytes())
            .and_then(|()| file.sync_all())
            .with_context(|| format!("{}", path.display()))?;
    }
    Ok(made)
}

#[cfg(test)]
mod tests;
