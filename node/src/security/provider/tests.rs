//! A provider of ours on loopback: HTTPS by hand, so that it can answer badly.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::config::OAuth;

const A: &str =
    r#"{"keys":[{"kty":"OKP","kid":"a","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
const B: &str =
    r#"{"keys":[{"kty":"OKP","kid":"b","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

struct Server {
    url: String,
    authorities: Vec<u8>,
    answer: Arc<Mutex<Vec<u8>>>,
    asked: Arc<AtomicUsize>,
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

impl Server {
    async fn start() -> Server {
        let mut of_authority = CertificateParams::new(Vec::new()).unwrap();
        of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(of_authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &authority)
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring_provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server {
            url: format!("https://localhost:{port}/keys?all"),
            authorities: authority.pem().into_bytes(),
            answer: Arc::new(Mutex::new(answer("200 OK", A))),
            asked: Arc::default(),
        };
        let (said, asked) = (server.answer.clone(), server.asked.clone());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        malle_rt::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // A stranger who does not believe our certificate ends here.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).into_owned();
                assert!(request.starts_with("GET /keys?all HTTP/1.1\r\n"), "{request}");
                asked.fetch_add(1, Ordering::SeqCst);
                let answer = said.lock().unwrap().clone();
                // Who has read enough hangs up.
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
        server
    }

    fn provider(&self) -> Provider {
        let pace = Pace {
            refresh: Duration::from_secs(600),
            retry: Duration::from_millis(20),
            fetch: Duration::from_secs(20),
        };
        Provider {
            pace,
            ..Provider::new(&self.url, &self.authorities).unwrap()
        }
    }

    fn says(&self, answer: Vec<u8>) {
        *self.answer.lock().unwrap() = answer;
    }
}

fn bearers() -> Arc<Bearers> {
    Arc::new(Bearers::without_keys(&OAuth {
        issuer: "https://id.example.org".into(),
        audience: "malle".into(),
        jwks: None,
        jwks_url: None,
        jwks_ca: None,
        claim: "email".into(),
    }))
}

#[tokio::test]
async fn keys_come_over_https_from_whom_the_authorities_know() {
    let server = Server::start().await;
    assert_eq!(server.provider().fetch().await.unwrap(), A);
    let other = Server::start().await;
    let stranger = Provider::new(&server.url, &other.authorities).unwrap();
    assert!(matches!(stranger.fetch().await, Err(FetchError::Connect(_))));
    assert_eq!(server.asked.load(Ordering::SeqCst), 1, "nothing is said to a stranger");
}

#[tokio::test]
async fn an_answer_that_is_not_one_is_refused() {
    let server = Server::start().await;
    let provider = server.provider();
    let endless = "x".repeat(limits::JWKS_MAX_BYTES as usize + 1);
    for said in [
        answer("404 Not Found", A),
        b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere.example/\r\nContent-Length: 0\r\n\r\n".to_vec(),
        answer("200 OK", &endless),
        format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{endless}\r\n",
            endless.len()
        )
        .into_bytes(),
        format!("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{A}").into_bytes(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n\xff".to_vec(),
        b"nonsense\r\n\r\n".to_vec(),
        Vec::new(),
    ] {
        let shown = String::from_utf8_lossy(&said[..said.len().min(60)]).into_owned();
        server.says(said);
        assert!(provider.fetch().await.is_err(), "{shown}");
    }
}

#[tokio::test]
async fn a_silent_provider_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start().await;
    let mut provider = server.provider();
    provider.port = listener.local_addr().unwrap().port();
    provider.pace.fetch = Duration::from_millis(50);
    assert!(matches!(provider.fetch().await, Err(FetchError::Time(_))));
}

#[test]
fn only_https_urls_are_taken() {
    for (url, found) in [
        ("https://id.example/jwks", ("id.example", 443, "/jwks")),
        ("https://id.example:8443", ("id.example", 8443, "/")),
        ("https://[::1]:1/a?b", ("::1", 1, "/a?b")),
    ] {
        let (host, port, path) = parts(url).unwrap();
        assert_eq!((host.as_str(), port, path.as_str()), found);
    }
    for url in [
        "http://id.example/jwks",
        "id.example",
        "/jwks",
        "https://",
        "https://me:secret@id.example/",
        "",
    ] {
        assert_eq!(parts(url), None, "{url}");
    }
}

#[tokio::test]
async fn the_last_good_set_stays_until_there_is_another() {
    let server = Server::start().await;
    server.says(answer("500 Oops", ""));
    let bearers = bearers();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let (stop, stopped) = watch::channel(false);
    let keep = {
        let kept = kept.clone();
        move |jwks| {
            kept.lock().unwrap().push(jwks);
            std::future::ready(())
        }
    };
    let (provider, believed) = (server.provider(), bearers.clone());
    let following = malle_rt::spawn(async move { provider.follow(believed, keep, stopped).await });
    let until = async |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = malle_rt::now() + Duration::from_secs(20);
        while !holds() {
            assert!(malle_rt::now() < deadline, "{what}");
            tokio::task::yield_now().await;
        }
    };
    let asked = || server.asked.load(Ordering::SeqCst);
    until("it is asked again", &|| asked() > 1).await;
    assert!(!bearers.knows("a"));
    server.says(answer("200 OK", A));
    until("the first set", &|| bearers.knows("a")).await;

    // Now it rests, unless somebody shows a token of a key that is not known.
    let before = asked();
    server.says(answer("200 OK", r#"{"keys":[]}"#));
    bearers.missed_a_key();
    until("it is asked because of a token", &|| asked() > before).await;
    server.says(answer("200 OK", B));
    until("the second set", &|| bearers.knows("b")).await;
    assert!(!bearers.knows("a"), "what the provider took back is not believed");
    assert_eq!(*kept.lock().unwrap(), [A, B]);
    stop.send_replace(true);
    following.await.unwrap();
}
