//! Who we are, and whom we believe: mutual TLS between this crate and the nodes (architecture, decision 10).
//!
//! A node is known by the URI in its certificate, `spiffe://<cluster>/node/<id>`, never by its host name: addresses change, and what
//! matters is that the other end belongs to our cluster and is the node that the directory speaks of. So the verifier checks the
//! chain to our roots as WebPKI does (times, key usage, signatures, by ring), then the URI, and no name. Our own certificate says
//! which cluster is ours. What is absent: plaintext, and any way to switch the check off.

use std::sync::Arc;

use malle_proto::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;

use crate::client::ClientTls;
use crate::error::Error;

/// Everything a handshake needs, made once from PEM text.
#[derive(Clone)]
pub(crate) struct Tls {
    /// For the handshake.
    pub(crate) config: Arc<ClientConfig>,
    /// The trust domain of our own certificate: the cluster that we speak with.
    pub(crate) cluster: String,
}

impl Tls {
    /// Reads the PEM text and checks that its pieces belong together.
    pub(crate) fn new(pem: &ClientTls) -> Result<Tls, Error> {
        let bad = |what: &str, error: &dyn std::fmt::Display| Error::Config(format!("{what}: {error}"));
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&pem.roots) {
            let root = root.map_err(|error| bad("the CA file is not PEM", &error))?;
            roots
                .add(root)
                .map_err(|error| bad("a certificate in the CA file cannot be a root", &error))?;
        }
        if roots.is_empty() {
            return Err(Error::Config("the CA file holds no certificate".to_owned()));
        }
        let chain = CertificateDer::pem_slice_iter(&pem.cert)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad("the certificate file is not PEM", &error))?;
        let own = chain
            .first()
            .ok_or_else(|| Error::Config("the certificate file holds no certificate".to_owned()))?;
        let cluster = identity(own)
            .map_err(|error| bad("our own certificate", &error))?
            .cluster;
        let key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|error| bad("the key file holds no private key", &error))?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = NodeVerifier {
            roots,
            cluster: cluster.clone(),
            provider: provider.clone(),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad("TLS", &error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(chain, key)
            .map_err(|error| bad("the key does not fit the certificate", &error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.enable_sni = false;
        // A resumed session would hide that our certificate was replaced.
        config.resumption = Resumption::disabled();
        Ok(Tls {
            config: Arc::new(config),
            cluster,
        })
    }
}

/// What a certificate of the cluster says about its holder.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    cluster: String,
    /// "node", "gateway" or "operator".
    kind: String,
    name: String,
}

/// The one identity URI of a certificate. Role URIs (`/role/...`) stand beside it and are the node's business.
fn identity(cert: &CertificateDer<'_>) -> Result<Identity, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(cert).map_err(|error| format!("unreadable: {error}"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| format!("unreadable: {error}"))?;
    let uris = names
        .into_iter()
        .flat_map(|names| &names.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
            _ => None,
        });
    let mut found = None;
    for uri in uris {
        let mut pieces = uri.split('/');
        let (Some(cluster), Some(kind), Some(name), None) =
            (pieces.next(), pieces.next(), pieces.next(), pieces.next())
        else {
            return Err(format!("spiffe://{uri} is no identity of malle"));
        };
        if kind == "role" {
            continue;
        }
        if cluster.is_empty() || name.is_empty() || !matches!(kind, "node" | "gateway" | "operator") {
            return Err(format!("spiffe://{uri} is no identity of malle"));
        }
        let this = Identity {
            cluster: cluster.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        if found.replace(this).is_some() {
            return Err("has more than one identity".to_owned());
        }
    }
    found.ok_or_else(|| "has no spiffe:// identity; make it with `malle cert`".to_owned())
}

/// The node that a certificate names, when it is one of this cluster.
pub(crate) fn node_of(cert: &CertificateDer<'_>, cluster: &str) -> Result<NodeId, String> {
    let found = identity(cert)?;
    if found.cluster != cluster {
        return Err(format!("belongs to cluster {}, not to {cluster}", found.cluster));
    }
    match found.name.parse::<u64>() {
        Ok(id) if found.kind == "node" && id != 0 => Ok(NodeId(id)),
        _ => Err(format!("is of {}/{}, not of a node", found.kind, found.name)),
    }
}

/// See the module's header.
#[derive(Debug)]
struct NodeVerifier {
    roots: RootCertStore,
    cluster: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let cert = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&cert, &self.roots, intermediates, now, algorithms)?;
        match node_of(end_entity, &self.cluster) {
            Ok(_) => Ok(ServerCertVerified::assertion()),
            Err(text) => {
                tracing::warn!(reason = %text, "a server's certificate was refused");
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::ApplicationVerificationFailure,
                ))
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
