//! TLS towards mail clients: the public certificate, exchanged while sessions run.
//!
//! A reload that fails keeps the certificate in use: a typing error in a file must not cost the service. The mTLS towards malle is
//! the client crate's business, not this file's.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use malle_proto::limits;
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config;

/// The public certificate in use.
pub struct PublicTls {
    files: config::PublicTls,
    current: ArcSwap<ServerConfig>,
}

impl PublicTls {
    /// Reads the files.
    pub fn load(files: &config::PublicTls) -> anyhow::Result<PublicTls> {
        let current = ArcSwap::from(read(files)?);
        Ok(PublicTls {
            files: files.clone(),
            current,
        })
    }

    /// Reads the files again; new handshakes use what is in them, unless they are broken.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.current.store(read(&self.files)?);
        Ok(())
    }

    /// The server's side of a handshake, within [`limits::HANDSHAKE_MAX_MS`].
    pub async fn accept<IO: AsyncRead + AsyncWrite + Unpin>(&self, io: IO) -> std::io::Result<TlsStream<IO>> {
        let acceptor = TlsAcceptor::from(self.current.load_full());
        let handshake = tokio::time::timeout(Duration::from_millis(limits::HANDSHAKE_MAX_MS), acceptor.accept(io));
        handshake
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
    }
}

fn read(files: &config::PublicTls) -> anyhow::Result<Arc<ServerConfig>> {
    let chain = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("cannot read {}", files.cert.display()))?;
    ensure!(!chain.is_empty(), "{} holds no certificate", files.cert.display());
    let key =
        PrivateKeyDer::from_pem_file(&files.key).with_context(|| format!("cannot read {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("this build of rustls has no TLS 1.2 or 1.3")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| {
            format!(
                "{} and {} do not fit together",
                files.cert.display(),
                files.key.display()
            )
        })?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_of_broken_files_keeps_the_certificate_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let files = config::PublicTls {
            cert: dir.path().join("cert.pem"),
            key: dir.path().join("cert.key"),
        };
        let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        let tls = PublicTls::load(&files).unwrap();
        let before = tls.current.load_full();
        std::fs::write(&files.cert, "rubbish").unwrap();
        assert!(tls.reload().is_err());
        assert!(Arc::ptr_eq(&before, &tls.current.load_full()));
        std::fs::write(&files.cert, made.cert.pem()).unwrap();
        tls.reload().unwrap();
        assert!(!Arc::ptr_eq(&before, &tls.current.load_full()));
    }
}
