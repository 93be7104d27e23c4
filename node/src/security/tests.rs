//! Over real TLS on loopback: who gets in, and who does not.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use malle_machine::directory::TokenKey;
use malle_proto::v1::directory_client::DirectoryClient;
use malle_proto::v1::directory_server::{Directory, DirectoryServer};
use malle_proto::{AccountId, NodeId, v1};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Request, Response, Status};

use super::accept::{Door, Incoming, incoming_bounded, listen};
use super::connect::{ConnectError, client_connector, dial};
use super::tls::{Reloaded, Tls, TlsError};
use super::{Call, Denied, GatewayRoles, Identity, Peer, Proof, Rule, Token, TokenError, permit, permit_token};
use crate::config::{TlsFiles, TlsPem};

const CLUSTER: &str = "mail.test";

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Authority {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    fn issue(&self, uris: &[&str]) -> TlsPem {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
        for uri in uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into().unwrap()));
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        TlsPem {
            ca: self.pem.clone().into_bytes(),
            cert: cert.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    fn node(&self, id: u64) -> Arc<Tls> {
        let pem = self.issue(&[&format!("spiffe://{CLUSTER}/node/{id}")]);
        Arc::new(Tls::from_pem(pem, CLUSTER, Identity::Node(NodeId(id))).unwrap())
    }

    fn gateway(&self) -> Arc<Tls> {
        let uris = [
            format!("spiffe://{CLUSTER}/gateway/front"),
            format!("spiffe://{CLUSTER}/role/lmtp"),
        ];
        let pem = self.issue(&[&uris[0], &uris[1]]);
        Arc::new(Tls::from_pem(pem, CLUSTER, gateway(true, false)).unwrap())
    }
}

fn gateway(lmtp: bool, imap: bool) -> Identity {
    Identity::Gateway {
        name: "front".into(),
        roles: GatewayRoles { lmtp, imap },
    }
}

struct Listening {
    incoming: Incoming,
    address: String,
}

async fn listening(tls: Arc<Tls>, door: Door, connections_max: usize) -> Listening {
    let listener = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    Listening {
        incoming: incoming_bounded(listener, tls, door, connections_max),
        address,
    }
}

/// Within the test's patience.
async fn soon<T>(future: impl Future<Output = T> + Send) -> T {
    malle_rt::timeout(Duration::from_secs(20), future)
        .await
        .expect("nothing came")
}

impl Listening {
    /// The dialler's view: did the other end close without a word? (In TLS 1.3 the client learns of a refusal only by reading.)
    async fn refuses(&self, tls: &Tls) -> bool {
        match dial(tls, &self.address, NodeId(1)).await {
            Ok(mut stream) => !matches!(soon(stream.read(&mut [0; 16])).await, Ok(1..)),
            Err(ConnectError::Io { .. }) => true,
            Err(other) => panic!("{other}"),
        }
    }

    /// Whoever comes next that is let in.
    async fn next(&mut self) -> super::accept::Io {
        soon(self.incoming.next()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_node_of_the_cluster_gets_in_and_each_side_knows_the_other() {
    let authority = Authority::new();
    let mut door = listening(authority.node(1), Door::Peers, 10).await;
    let mut out = dial(&authority.node(2), &door.address, NodeId(1)).await.unwrap();
    let mut io = door.next().await;
    assert_eq!(io.peer().identity, Identity::Node(NodeId(2)));
    assert!(io.peer().address.ip().is_loopback());
    out.write_all(b"hello").await.unwrap();
    out.flush().await.unwrap();
    let mut heard = [0; 5];
    soon(io.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn strangers_do_not_get_in_and_do_not_keep_others_out() {
    let authority = Authority::new();
    let mut door = listening(authority.node(1), Door::Peers, 10).await;

    // The other authority's node trusts ours, so that only the server can be the one that refuses.
    let mut forged = Authority::new().issue(&["spiffe://mail.test/node/2"]);
    forged.ca = authority.pem.clone().into_bytes();
    let forged = Tls::from_pem(forged, CLUSTER, Identity::Node(NodeId(2))).unwrap();
    assert!(door.refuses(&forged).await, "signed by another authority");

    assert!(
        door.refuses(&authority.gateway()).await,
        "a gateway at the door for nodes"
    );

    let other = authority.issue(&["spiffe://other.test/node/2"]);
    let other = Tls::from_pem(other, "other.test", Identity::Node(NodeId(2))).unwrap();
    let dialled = dial(&other, &door.address, NodeId(1)).await;
    assert!(
        matches!(dialled, Err(ConnectError::Identity { .. })),
        "each side sees another cluster"
    );

    let mut plain = TcpStream::connect(&door.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut heard = Vec::new();
    // An alert and the end, or a reset.
    let _ = soon(plain.read_to_end(&mut heard)).await;
    assert!(heard.len() < 64, "no TLS, no answer: {heard:?}");

    // Says nothing at all and stays: its handshake runs beside the others.
    let _silent = TcpStream::connect(&door.address).await.unwrap();
    let _in = dial(&authority.node(3), &door.address, NodeId(1)).await.unwrap();
    assert_eq!(
        door.next().await.peer().identity,
        Identity::Node(NodeId(3)),
        "nobody else came through"
    );
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let authority = Authority::new();
    let mut door = listening(authority.node(1), Door::Clients, 10).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = authority.pem.as_bytes();
    let ca = <rustls_pki_types::CertificateDer as rustls_pki_types::pem::PemObject>::from_pem_slice(pem).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(&door.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    if let Ok(mut stream) = connector.connect("localhost".try_into().unwrap(), stream).await {
        let heard = soon(stream.read(&mut [0; 16])).await;
        assert!(heard.is_err(), "{heard:?}");
    }
    let _in = dial(&authority.gateway(), &door.address, NodeId(1)).await.unwrap();
    assert_eq!(
        door.next().await.peer().identity,
        gateway(true, false),
        "nobody else came through"
    );
}

#[tokio::test]
async fn another_cluster_of_the_same_authority_is_refused_by_the_server() {
    let authority = Authority::new();
    let mut door = listening(authority.node(1), Door::Clients, 10).await;
    // Says two things: dials as ours, shows a URI of another cluster too.
    for uris in [
        vec!["spiffe://mail.test/node/2", "spiffe://other.test/node/2"],
        vec!["spiffe://mail.test/node/2", "spiffe://mail.test/operator/anna"],
        vec!["spiffe://mail.test/role/imap"],
        vec![],
    ] {
        let pem = authority.issue(&uris);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = rustls_pki_types::pem::PemObject::pem_slice_iter(&pem.cert)
            .map(Result::unwrap)
            .collect();
        let key = rustls_pki_types::pem::PemObject::from_pem_slice(&pem.key).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(rustls_pki_types::pem::PemObject::from_pem_slice(&pem.ca).unwrap())
            .unwrap();
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(&door.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let mut stream = connector
            .connect("localhost".try_into().unwrap(), stream)
            .await
            .unwrap();
        let heard = soon(stream.read(&mut [0; 16])).await;
        assert!(!matches!(heard, Ok(1..)), "{uris:?}: {heard:?}");
    }
    let _in = dial(&authority.node(3), &door.address, NodeId(1)).await.unwrap();
    assert_eq!(
        door.next().await.peer().identity,
        Identity::Node(NodeId(3)),
        "nobody else came through"
    );
}

#[tokio::test]
async fn a_node_that_is_not_the_expected_one_is_not_spoken_to() {
    let authority = Authority::new();
    let door = listening(authority.node(1), Door::Peers, 10).await;
    let wrong = dial(&authority.node(2), &door.address, NodeId(3)).await;
    assert!(
        matches!(
            &wrong,
            Err(ConnectError::Other {
                found: Identity::Node(NodeId(1)),
                ..
            })
        ),
        "{:?}",
        wrong.err()
    );
    let gateway = listening(authority.gateway(), Door::Clients, 10).await;
    let wrong = dial(&authority.node(2), &gateway.address, NodeId(1)).await;
    assert!(matches!(wrong, Err(ConnectError::Other { .. })), "a gateway is no node");
    let stranger = listening(Authority::new().node(1), Door::Peers, 10).await;
    let wrong = dial(&authority.node(2), &stranger.address, NodeId(1)).await;
    assert!(
        matches!(wrong, Err(ConnectError::Io { .. })),
        "another authority's node"
    );
}

#[tokio::test]
async fn one_connection_more_than_the_bound_is_closed_and_a_freed_place_is_used() {
    let authority = Authority::new();
    let mut door = listening(authority.node(1), Door::Peers, 1).await;
    let tls = authority.node(2);
    let first = dial(&tls, &door.address, NodeId(1)).await.unwrap();
    let held = door.next().await;
    assert!(door.refuses(&tls).await);
    drop((first, held));
    let _second = dial(&tls, &door.address, NodeId(1)).await.unwrap();
    door.next().await;
}

#[tokio::test]
async fn a_dropped_listener_is_closed() {
    let authority = Authority::new();
    let Listening { incoming, address } = listening(authority.node(1), Door::Peers, 1).await;
    drop(incoming);
    let tls = authority.node(2);
    soon(async {
        while !matches!(dial(&tls, &address, NodeId(1)).await, Err(ConnectError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::ConnectionRefused)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn new_files_are_taken_by_new_connections_and_bad_ones_by_none() {
    let (old, new) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let files = TlsFiles {
        ca: path("ca.pem"),
        cert: path("node.pem"),
        key: path("node.key"),
    };
    let write = |pem: &TlsPem| {
        std::fs::write(&files.ca, &pem.ca).unwrap();
        std::fs::write(&files.cert, &pem.cert).unwrap();
        std::fs::write(&files.key, &pem.key).unwrap();
    };
    write(&old.issue(&["spiffe://mail.test/node/1"]));
    let tls = Arc::new(Tls::load(&files, CLUSTER, Identity::Node(NodeId(1))).unwrap());
    assert_eq!(tls.reload().unwrap(), Reloaded::Unchanged);
    let mut door = listening(tls.clone(), Door::Peers, 10).await;

    write(&new.issue(&["spiffe://mail.test/node/9"]));
    assert!(matches!(tls.reload(), Err(TlsError::Other { .. })));
    std::fs::write(&files.ca, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(matches!(tls.reload(), Err(TlsError::Content { what: "tls.ca", .. })));
    let mut before = dial(&old.node(2), &door.address, NodeId(1)).await.unwrap();
    let mut kept = door.next().await;

    write(&new.issue(&["spiffe://mail.test/node/1"]));
    assert_eq!(tls.reload().unwrap(), Reloaded::Changed);
    assert!(matches!(
        dial(&old.node(2), &door.address, NodeId(1)).await,
        Err(ConnectError::Io { .. })
    ));
    let _after = dial(&new.node(2), &door.address, NodeId(1)).await.unwrap();
    assert_eq!(door.next().await.peer().identity, Identity::Node(NodeId(2)));
    kept.write_all(b"!").await.unwrap();
    kept.flush().await.unwrap();
    assert_eq!(
        soon(before.read(&mut [0; 1])).await.unwrap(),
        1,
        "an existing connection goes on"
    );
}

struct WhoAmI;

/// Only Topology says anything: the caller's identity as the server sees it.
#[tonic::async_trait]
impl Directory for WhoAmI {
    async fn app_password_add(
        &self,
        _: Request<v1::AppPasswordAddRequest>,
    ) -> Result<Response<v1::AppPasswords>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn app_password_remove(
        &self,
        _: Request<v1::AppPasswordRemoveRequest>,
    ) -> Result<Response<v1::AppPasswords>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn sharers(&self, _: Request<v1::SharersRequest>) -> Result<Response<v1::SharersReply>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn app_password_list(
        &self,
        _: Request<v1::AppPasswordListRequest>,
    ) -> Result<Response<v1::AppPasswords>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn topology(&self, request: Request<v1::TopologyRequest>) -> Result<Response<v1::TopologyReply>, Status> {
        let peer = request.extensions().get::<Peer>().cloned().unwrap();
        Ok(Response::new(v1::TopologyReply {
            cluster_name: peer.identity.to_string(),
            ..Default::default()
        }))
    }
    async fn resolve(&self, _: Request<v1::ResolveRequest>) -> Result<Response<v1::ResolveReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn login(&self, _: Request<v1::LoginRequest>) -> Result<Response<v1::LoginReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn renew_token(&self, _: Request<v1::RenewTokenRequest>) -> Result<Response<v1::LoginReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn check_logins(&self, _: Request<v1::CheckLoginsRequest>) -> Result<Response<v1::CheckLoginsReply>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn account_create(&self, _: Request<v1::AccountCreateRequest>) -> Result<Response<v1::Account>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn account_show(&self, _: Request<v1::AccountShowRequest>) -> Result<Response<v1::Account>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn account_set(&self, _: Request<v1::AccountSetRequest>) -> Result<Response<v1::Account>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn address_add(&self, _: Request<v1::AddressAddRequest>) -> Result<Response<v1::Account>, Status> {
        Err(Status::unimplemented(""))
    }
    async fn address_remove(&self, _: Request<v1::AddressRemoveRequest>) -> Result<Response<v1::Account>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tokio::test]
async fn a_service_learns_from_tonic_who_calls() {
    let authority = Authority::new();
    let Listening { incoming, address } = listening(authority.node(1), Door::Clients, 10).await;
    let server = tonic::transport::Server::builder().add_service(DirectoryServer::new(WhoAmI));
    malle_rt::spawn(server.serve_with_incoming(incoming));
    let connector = client_connector(authority.node(2), &address, NodeId(1));
    let endpoint = tonic::transport::Endpoint::from_static("http://node");
    let channel = endpoint.connect_with_connector(connector).await.unwrap();
    let answer = DirectoryClient::new(channel)
        .topology(v1::TopologyRequest {})
        .await
        .unwrap();
    assert_eq!(answer.into_inner().cluster_name, "node/2");
}

#[test]
fn a_certificate_for_somebody_else_or_without_its_key_does_not_load() {
    let authority = Authority::new();
    let load = |pem: TlsPem| Tls::from_pem(pem, CLUSTER, Identity::Node(NodeId(1))).err();
    let own = || authority.issue(&["spiffe://mail.test/node/1"]);
    assert!(load(own()).is_none());
    assert!(matches!(
        load(authority.issue(&["spiffe://mail.test/node/2"])),
        Some(TlsError::Other { .. })
    ));
    assert!(matches!(
        load(authority.issue(&["spiffe://other.test/node/1"])),
        Some(TlsError::Identity(_))
    ));
    let mut mixed = own();
    mixed.key = own().key;
    assert!(matches!(load(mixed), Some(TlsError::Content { .. })));
    for empty in ["ca", "cert", "key"] {
        let mut pem = own();
        match empty {
            "ca" => pem.ca.clear(),
            "cert" => pem.cert.clear(),
            _ => pem.key.clear(),
        }
        assert!(matches!(load(pem), Some(TlsError::Content { .. })), "{empty}");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What `work` writes into the log.
fn logged(work: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, work);
    let bytes = lines.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

fn peer(identity: Identity) -> Peer {
    Peer {
        identity,
        address: SocketAddr::from(([127, 0, 0, 1], 4000)),
    }
}

#[test]
fn a_refused_call_is_written_down_once_with_who_and_what_and_why() {
    let lines = logged(|| {
        assert_eq!(permit(&peer(gateway(true, false)), Call::Deliver), Ok(Rule::Allowed));
        assert!(permit(&peer(gateway(true, false)), Call::Fetch).is_err());
    });
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in ["audit", "gateway/front", "127.0.0.1:4000", "Mail.Fetch", "may not call"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

#[test]
fn a_token_opens_only_through_its_own_gateway_and_says_whose_it_is() {
    let alice = AccountId([1; 16]);
    let key = TokenKey { id: 1, secret: [9; 32] };
    let token = |gateway: &str| {
        let token = Token {
            account: alice,
            gateway: gateway.into(),
            expires_ms: 1000,
            proof: Proof::of_password("$argon2id$1"),
        };
        token.sign(&key)
    };
    let ask = |identity: Identity, call, token: &[u8], now_ms| {
        permit_token(&peer(identity), call, token, std::slice::from_ref(&key), now_ms)
            .map(|token| token.map(|token| token.account))
    };
    let front = || gateway(false, true);
    assert_eq!(ask(front(), Call::Fetch, &token("front"), 0), Ok(Some(alice)));
    let lines = logged(|| {
        let other = ask(front(), Call::Fetch, &token("back"), 0);
        assert_eq!(other, Err(Denied::Token(TokenError::OtherGateway)));
        assert_eq!(ask(front(), Call::Fetch, b"", 0), Err(Denied::NoToken("Mail.Fetch")));
        let role = ask(gateway(true, false), Call::Fetch, &token("front"), 0);
        assert!(matches!(role, Err(Denied::Role { .. })));
        let operator = Identity::Operator { name: "front".into() };
        assert!(matches!(
            ask(operator, Call::Fetch, &token("front"), 0),
            Err(Denied::Role { .. })
        ));
    });
    assert_eq!(lines.len(), 4, "one line each: {lines:?}");
    let lines = logged(|| {
        let over = ask(front(), Call::Fetch, &token("front"), 100_000);
        assert_eq!(over, Err(Denied::Token(TokenError::Expired)));
    });
    assert!(lines.is_empty(), "the normal end of a token: {lines:?}");
}
