//! The TLS configurations of a process: made from three files, swapped whole when the files change.
//!
//! Both sides show a certificate, always. TLS 1.3 only, because both sides are ours. No session is resumed: a resumed session would
//! carry on with a certificate that nobody looks at again. A change of the files is taken by new connections; existing ones keep
//! what they were made with until they close.
//!
//! A node is known by the identity in its certificate and not by the name under which it is dialled, so the client side checks the
//! signature here and the identity in [`super::connect`].

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring as ring_provider};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use super::identity::{Identity, IdentityError};
use crate::config::{ConfigError, TlsFiles, TlsPem};

/// What both sides speak inside TLS.
pub const ALPN: &[u8] = b"h2";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] ConfigError),
    /// A file holds something else than it should.
    #[error("{what}: {reason}")]
    Content {
        /// Which file.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The own certificate says no identity of this cluster.
    #[error("tls.cert: {0}; `malle cert` makes one for this cluster")]
    Identity(#[from] IdentityError),
    /// The own certificate is somebody else's.
    #[error("tls.cert is the certificate of {found}, and this is {wanted}")]
    Other {
        /// Who the certificate is for.
        found: Identity,
        /// Who this process is.
        wanted: Identity,
    },
}

/// The TLS configurations of this process.
pub struct Tls {
    cluster: String,
    own: Identity,
    files: Option<TlsFiles>,
    current: ArcSwap<Configs>,
}

struct Configs {
    pem: TlsPem,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// What a reload came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The files are what they were.
    Unchanged,
    /// New connections use the new files.
    Changed,
}

impl Tls {
    /// Reads the files; they must be for `own` in `cluster`.
    ///
    /// # Errors
    /// A [`TlsError`].
    pub fn load(files: &TlsFiles, cluster: &str, own: Identity) -> Result<Tls, TlsError> {
        let mut tls = Tls::from_pem(files.read()?, cluster, own)?;
        tls.files = Some(files.clone());
        Ok(tls)
    }

    /// Takes the files' content; there is nothing to reload then.
    ///
    /// # Errors
    /// A [`TlsError`].
    pub fn from_pem(pem: TlsPem, cluster: &str, own: Identity) -> Result<Tls, TlsError> {
        let configs = configs(pem, cluster, &own)?;
        Ok(Tls {
            cluster: cluster.into(),
            own,
            files: None,
            current: ArcSwap::from_pointee(configs),
        })
    }

    /// Reads the files again. With an error the old configurations stay in use.
    ///
    /// # Errors
    /// A [`TlsError`].
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        match &self.files {
            Some(files) => self.replace(files.read()?),
            None => Ok(Reloaded::Unchanged),
        }
    }

    /// Takes other content. With an error the old configurations stay in use.
    ///
    /// # Errors
    /// A [`TlsError`].
    pub fn replace(&self, pem: TlsPem) -> Result<Reloaded, TlsError> {
        if self.current.load().pem == pem {
            return Ok(Reloaded::Unchanged);
        }
        self.current.store(Arc::new(configs(pem, &self.cluster, &self.own)?));
        Ok(Reloaded::Changed)
    }

    /// The cluster's name: the trust domain that everybody must be of.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Who this process is.
    pub fn own(&self) -> &Identity {
        &self.own
    }

    /// For a connection that comes in.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.current.load().server.clone()
    }

    /// For a connection that goes out.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.current.load().client.clone()
    }
}

fn configs(pem: TlsPem, cluster: &str, own: &Identity) -> Result<Configs, TlsError> {
    let content = |what: &'static str, reason: String| TlsError::Content { what, reason };
    let roots = Arc::new(roots(&pem.ca)?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem.cert)
        .collect::<Result<_, _>>()
        .map_err(|error| content("tls.cert", error.to_string()))?;
    let Some(leaf) = chain.first() else {
        return Err(content("tls.cert", "no certificate in it".into()));
    };
    let found = Identity::from_certificate(cluster, leaf)?;
    if found != *own {
        return Err(TlsError::Other {
            found,
            wanted: own.clone(),
        });
    }
    let key = || PrivateKeyDer::from_pem_slice(&pem.key).map_err(|error| content("tls.key", error.to_string()));
    let unusable = |error: rustls::Error| content("tls.cert and tls.key", error.to_string());

    let provider = Arc::new(ring_provider::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
        .build()
        .map_err(|error| content("tls.ca", error.to_string()))?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain.clone(), key()?)
        .map_err(unusable)?;
    server.alpn_protocols = vec![ALPN.to_vec()];
    server.send_tls13_tickets = 0;

    let verifier = SignedByCluster {
        roots,
        algorithms: provider.signature_verification_algorithms,
    };
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key()?)
        .map_err(unusable)?;
    client.alpn_protocols = vec![ALPN.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;
    Ok(Configs {
        pem,
        server: Arc::new(server),
        client: Arc::new(client),
    })
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let content = |reason: String| TlsError::Content { what: "tls.ca", reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| content(error.to_string()))?;
        roots.add(certificate).map_err(|error| content(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(content("no certificate in it".into()));
    }
    Ok(roots)
}

/// Checks the chain, the dates and the purpose of a server's certificate, and not the name it was dialled under.
#[derive(Debug)]
struct SignedByCluster {
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for SignedByCluster {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Makes ring the provider of whatever in this process asks for "the default" one.
pub fn install_provider() {
    // An error means that it is there already.
    let _ = CryptoProvider::install_default(ring_provider::default_provider());
}
