//! Fetches the keys of an identity provider (JWKS, RFC 7517) over HTTPS, again and again, and keeps the last good set.
//!
//! One GET of one configured URL, whose server must show a certificate of the configured authorities; no redirect is followed, no proxy asked, no
//! compression taken. Everything is bounded: the time of a fetch, the bytes of an answer, how often it is asked. What is fetched is believed as far
//! as the file `oauth.jwks` would be, and no further: keys, never tokens or names. A fetch that fails, and an answer that is no set of keys, change
//! nothing. Enter at [`Provider::follow`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use malle_proto::limits;
use rustls::crypto::ring as ring_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use super::bearer::{Bearers, KeysError};

/// The head of an answer; hyper takes no smaller bound.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// Where keys come from.
pub struct Provider {
    host: String,
    port: u16,
    path: String,
    tls: TlsConnector,
    pace: Pace,
}

/// How often is asked.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// After a good answer.
    refresh: Duration,
    /// After the first failure; doubles up to `refresh`. Also the least time between two fetches.
    retry: Duration,
    /// One fetch.
    fetch: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            refresh: Duration::from_millis(limits::JWKS_REFRESH_MS),
            retry: Duration::from_millis(limits::JWKS_RETRY_MS),
            fetch: Duration::from_millis(limits::JWKS_FETCH_MS),
        }
    }
}

/// Why there is no provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Not an HTTPS URL.
    #[error("{0:?} is no URL that begins with https://")]
    Url(String),
    /// The file of authorities.
    #[error("the authorities: {0}")]
    Authorities(String),
}

/// Why a fetch brought nothing.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer within {0:?}")]
    Time(Duration),
    #[error("connecting: {0}")]
    Connect(#[from] std::io::Error),
    #[error("asking: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered with {0}")]
    Status(StatusCode),
    #[error("reading the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// Host, port and path of an HTTPS URL.
fn parts(url: &str) -> Option<(String, u16, String)> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    // A name or password in it would end up in a log.
    let plain = uri.scheme_str() == Some("https") && !authority.as_str().contains('@') && !authority.host().is_empty();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    plain.then(|| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        (host.to_owned(), authority.port_u16().unwrap_or(443), path.to_owned())
    })
}

impl Provider {
    /// Behind this URL, known by these authorities (PEM).
    ///
    /// # Errors
    /// A [`ProviderError`].
    pub fn new(url: &str, authorities: &[u8]) -> Result<Provider, ProviderError> {
        let (host, port, path) = parts(url).ok_or_else(|| ProviderError::Url(url.to_owned()))?;
        let wrong = |reason: String| ProviderError::Authorities(reason);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            // A system's bundle holds some that are no authorities for TLS; what is left must be one.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(wrong("no certificate in it can be used".into()));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring_provider::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Provider {
            host,
            port,
            path,
            tls: TlsConnector::from(Arc::new(config)),
            pace: Pace::default(),
        })
    }

    /// Keeps the keys as the provider tells them, until `stopped` is true. `keep` is given each new set.
    pub async fn follow<Kept: Future<Output = ()>>(
        &self,
        bearers: Arc<Bearers>,
        keep: impl Fn(String) -> Kept,
        mut stopped: watch::Receiver<bool>,
    ) {
        let Pace { refresh, retry, .. } = self.pace;
        let mut pause = retry;
        loop {
            let fetched = tokio::select! {
                fetched = self.fetch() => fetched,
                // The sender lives as long as the node: an error means that it is gone, too.
                _ = stopped.wait_for(|stopped| *stopped) => return,
            };
            let taken = fetched.and_then(|jwks| match bearers.replace(&jwks) {
                Ok(changed) => Ok(changed.then_some(jwks)),
                Err(error) => Err(error.into()),
            });
            let wait = match taken {
                Ok(changed) => {
                    if let Some(jwks) = changed {
                        tracing::info!("new keys of the identity provider are in use");
                        keep(jwks).await;
                    }
                    pause = retry;
                    refresh
                }
                Err(error) => {
                    tracing::warn!(%error, "the identity provider's keys were not fetched; the old ones stay in use");
                    let wait = pause;
                    pause = (2 * pause).min(refresh);
                    wait
                }
            };
            tokio::select! {
                () = rest(&bearers, retry, wait) => {}
                _ = stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    /// One try, with an answer that is a set of keys as far as [`Bearers::replace`] says.
    async fn fetch(&self) -> Result<String, FetchError> {
        match malle_rt::timeout(self.pace.fetch, self.get()).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Time(self.pace.fetch)),
        }
    }

    async fn get(&self) -> Result<String, FetchError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let name = ServerName::try_from(self.host.clone()).map_err(std::io::Error::other)?;
        let stream = self.tls.connect(name, stream).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_MAX_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let host = if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        };
        let request = Request::get(self.path.as_str())
            .header(header::HOST, host)
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::<Bytes>::new())
            .map_err(|error| FetchError::Body(error.into()))?;
        let asked = async {
            let answer = sender.send_request(request).await?;
            if answer.status() != StatusCode::OK {
                return Err(FetchError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), limits::JWKS_MAX_BYTES as usize);
            let bytes = body.collect().await.map_err(FetchError::Body)?.to_bytes();
            String::from_utf8(bytes.into()).map_err(|error| FetchError::Body(error.into()))
        };
        tokio::pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => answer,
            // The connection is over, and what came over it is still to be taken.
            _ = connection => asked.await,
        }
    }
}

/// Waits, shorter when a token names a key that is not known: providers change keys before anybody hears of it.
async fn rest(bearers: &Bearers, least: Duration, wait: Duration) {
    malle_rt::sleep(least.min(wait)).await;
    tokio::select! {
        () = malle_rt::sleep(wait.saturating_sub(least)) => {}
        () = bearers.key_is_missing() => {}
    }
}

#[cfg(test)]
mod tests;
