//! A cluster for tests: real TLS and HTTP/2 on loopback, one script behind all nodes.
//!
//! A test says what a node answers to a mail request; the directory's answers are fixed. Every request is recorded with the node that got
//! it, so a test can say who was asked what, and with which op id.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use malle_proto::limits;
use malle_proto::v1::directory_server::{Directory, DirectoryServer};
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::mail_server::{Mail, MailServer};
use malle_proto::v1::{self, ErrorCode};
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::PrivateKeyDer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{ClientTls, Config};

/// A CA and its certificates.
pub(crate) struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Ca {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    /// PEM text of the root, of a certificate with these URIs, and of its key.
    pub(crate) fn leaf(&self, uris: &[&str]) -> ClientTls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().unwrap()))
            .collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        ClientTls {
            roots: self.pem.clone().into(),
            cert: cert.into(),
            key: key.serialize_pem().into(),
        }
    }
}

/// What a node does with a mail request.
pub(crate) enum Act {
    /// Answers it.
    Answer(Answer),
    /// Answers it with an error.
    Error(v1::Error),
    /// Never answers it.
    Hang,
    /// Ends the stream with all requests on it.
    Break,
}

pub(crate) fn error(code: ErrorCode) -> v1::Error {
    v1::Error {
        code: code.into(),
        message: format!("{code:?}"),
        ..Default::default()
    }
}

pub(crate) fn not_leader(leader: u64) -> v1::Error {
    v1::Error {
        leader_node: leader,
        ..error(ErrorCode::NotLeader)
    }
}

type Script = Box<dyn FnMut(u64, &v1::MailRequest) -> Act + Send>;

/// What all nodes of the cluster share.
pub(crate) struct Brain {
    script: Mutex<Script>,
    /// Every mail request, with the node that got it.
    pub(crate) seen: Mutex<Vec<(u64, v1::MailRequest)>>,
    /// Every upload: the node, the shard and the number of bytes.
    pub(crate) uploads: Mutex<Vec<(u64, u32, usize)>>,
    /// Where accounts live, by the first byte of their id; shard 1 when it is not said.
    pub(crate) homes: Mutex<BTreeMap<u8, u32>>,
    pub(crate) resolved: Mutex<usize>,
    pub(crate) renewed: Mutex<usize>,
    /// The body that downloads serve, and how many bytes a node gives before the stream breaks, once.
    pub(crate) body: Mutex<Bytes>,
    pub(crate) break_after: Mutex<Option<usize>>,
    topology: Mutex<v1::TopologyReply>,
}

/// Node ids and addresses, and a handle to stop each.
pub(crate) struct Fake {
    pub(crate) brain: Arc<Brain>,
    pub(crate) addresses: Vec<String>,
    ca: Ca,
    stop: Vec<watch::Sender<bool>>,
}

impl Fake {
    /// Nodes 1 to `count`, each a replica of shards 1 and 2, with node 1 preferred.
    pub(crate) async fn start(count: u64, script: impl FnMut(u64, &v1::MailRequest) -> Act + Send + 'static) -> Fake {
        let brain = Arc::new(Brain {
            script: Mutex::new(Box::new(script)),
            seen: Mutex::default(),
            uploads: Mutex::default(),
            homes: Mutex::default(),
            resolved: Mutex::default(),
            renewed: Mutex::default(),
            body: Mutex::default(),
            break_after: Mutex::default(),
            topology: Mutex::default(),
        });
        let mut fake = Fake {
            brain,
            addresses: Vec::new(),
            ca: Ca::new(),
            stop: Vec::new(),
        };
        for node in 1..=count {
            let tls = fake.ca.leaf(&[&format!("spiffe://fake/node/{node}")]);
            let (address, stop) = serve(node, fake.brain.clone(), &tls).await;
            fake.addresses.push(address);
            fake.stop.push(stop);
        }
        let nodes = fake.addresses.iter().zip(1..).map(|(address, id)| v1::Node {
            id,
            client_address: address.clone(),
            state: v1::NodeState::Active.into(),
            ..Default::default()
        });
        let shard = |id| v1::Shard {
            id,
            replicas: (1..=count).collect(),
            ..Default::default()
        };
        *fake.brain.topology.lock().unwrap() = v1::TopologyReply {
            cluster: vec![9; 16].into(),
            cluster_name: "fake".into(),
            nodes: nodes.collect(),
            shards: vec![shard(1), shard(2)],
            directory_index: 1,
        };
        fake
    }

    /// A configuration of a gateway of the cluster.
    pub(crate) fn config(&self) -> Config {
        self.config_with(self.ca.leaf(&["spiffe://fake/gateway/g1", "spiffe://fake/role/imap"]))
    }

    pub(crate) fn config_with(&self, tls: ClientTls) -> Config {
        Config {
            endpoints: self.addresses.clone(),
            tls,
            deadline: Duration::from_secs(20),
        }
    }

    pub(crate) fn ca(&self) -> &Ca {
        &self.ca
    }

    /// A node goes, with its listener and its connections.
    pub(crate) fn kill(&self, node: usize) {
        self.stop[node - 1].send_replace(true);
    }
}

/// The op ids of a request.
pub(crate) fn op_ids(request: &v1::MailRequest) -> Vec<Bytes> {
    match &request.call {
        Some(Call::Deliver(deliver)) => deliver
            .recipients
            .iter()
            .map(|recipient| recipient.op_id.clone())
            .collect(),
        Some(Call::Append(append)) => vec![append.op_id.clone()],
        Some(Call::Store(store)) => vec![store.op_id.clone()],
        Some(Call::Copy(copy)) => vec![copy.op_id.clone()],
        Some(Call::Expunge(expunge)) => vec![expunge.op_id.clone()],
        _ => Vec::new(),
    }
}

pub(crate) fn delivered(uid: u32) -> v1::Delivered {
    v1::Delivered {
        mailbox: vec![1; 16].into(),
        uid_validity: 7,
        uid,
        modseq: u64::from(uid),
        repeated: false,
    }
}

async fn serve(node: u64, brain: Arc<Brain>, tls: &ClientTls) -> (String, watch::Sender<bool>) {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&tls.roots).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(&tls.cert).unwrap()],
            PrivateKeyDer::from_pem_slice(&tls.key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = watch::channel(false);
    let (incoming, streams) = mpsc::channel(16);
    let service = Node {
        id: node,
        brain,
        stopped: stopped.clone(),
    };
    let gone = stopped.clone();
    drop(malle_rt::spawn(async move {
        loop {
            let mut gone = gone.clone();
            let (stream, _) = tokio::select! {
                accepted = listener.accept() => accepted.unwrap(),
                _ = gone.wait_for(|stop| *stop) => return,
            };
            // The server sees one end of a pipe; the socket hangs on the other and goes with the node.
            let (near, mut far) = tokio::io::duplex(256 * 1024);
            let (acceptor, incoming) = (acceptor.clone(), incoming.clone());
            drop(malle_rt::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                incoming.send(Ok::<_, std::io::Error>(near)).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut stream, &mut far) => {}
                    _ = gone.wait_for(|stop| *stop) => {}
                }
            }));
        }
    }));
    drop(malle_rt::spawn(async move {
        let mail = MailServer::new(service.clone()).max_decoding_message_size(limits::GRPC_MESSAGE_MAX_BYTES);
        tonic::transport::Server::builder()
            .add_service(mail)
            .add_service(DirectoryServer::new(service))
            .serve_with_incoming(ReceiverStream::new(streams))
            .await
            .unwrap();
    }));
    (address, stop)
}

#[derive(Clone)]
struct Node {
    id: u64,
    brain: Arc<Brain>,
    stopped: watch::Receiver<bool>,
}

impl Node {
    fn alive(&self) -> Result<(), Status> {
        if *self.stopped.borrow() {
            Err(Status::unavailable("stopped"))
        } else {
            Ok(())
        }
    }
}

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Mail for Node {
    type CallStream = Replies<v1::MailReply>;
    type DownloadStream = Replies<v1::DownloadChunk>;
    type WatchStream = Replies<v1::WatchEvent>;

    async fn call(&self, request: Request<Streaming<v1::MailRequest>>) -> Result<Response<Self::CallStream>, Status> {
        self.alive()?;
        let mut requests = request.into_inner();
        let (replies, stream) = mpsc::channel(16);
        let (node, mut stopped) = (self.clone(), self.stopped.clone());
        drop(malle_rt::spawn(async move {
            loop {
                let request = tokio::select! {
                    request = requests.message() => request,
                    _ = stopped.wait_for(|stop| *stop) => return,
                };
                let Ok(Some(request)) = request else { return };
                node.brain.seen.lock().unwrap().push((node.id, request.clone()));
                let act = (node.brain.script.lock().unwrap())(node.id, &request);
                let result = match act {
                    Act::Answer(answer) => answer,
                    Act::Error(error) => Answer::Error(error),
                    Act::Hang => continue,
                    Act::Break => return,
                };
                let reply = v1::MailReply {
                    id: request.id,
                    account_modseq: 40,
                    news: None,
                    result: Some(result),
                };
                if replies.send(Ok(reply)).await.is_err() {
                    return;
                }
            }
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn upload(&self, request: Request<Streaming<v1::UploadChunk>>) -> Result<Response<v1::UploadReply>, Status> {
        self.alive()?;
        let mut chunks = request.into_inner();
        let (mut shard, mut declared, mut bytes) = (0, 0, Vec::new());
        while let Some(chunk) = chunks.message().await? {
            if bytes.is_empty() {
                (shard, declared) = (chunk.shard, chunk.size);
            }
            assert!(chunk.data.len() <= limits::BODY_CHUNK_BYTES);
            bytes.extend_from_slice(&chunk.data);
        }
        assert_eq!(declared, bytes.len() as u64);
        self.brain.uploads.lock().unwrap().push((self.id, shard, bytes.len()));
        let hash = Bytes::copy_from_slice(blake3::hash(&bytes).as_bytes());
        Ok(Response::new(v1::UploadReply {
            ticket: Some(v1::BodyTicket { hash, size: declared }),
        }))
    }

    async fn download(&self, request: Request<v1::DownloadRequest>) -> Result<Response<Self::DownloadStream>, Status> {
        self.alive()?;
        let request = request.into_inner();
        let body = self.brain.body.lock().unwrap().clone();
        let end = body.len().min((request.offset + request.length) as usize);
        let wanted = body.slice((request.offset as usize).min(end)..end);
        let stop_at = self.brain.break_after.lock().unwrap().take();
        let mut chunks: Vec<Result<v1::DownloadChunk, Status>> = wanted[..stop_at.unwrap_or(wanted.len())]
            .chunks(limits::BODY_CHUNK_BYTES)
            .map(|data| {
                let data = Bytes::copy_from_slice(data);
                Ok(v1::DownloadChunk {
                    size_bytes: body.len() as u64,
                    data,
                })
            })
            .collect();
        if stop_at.is_some() {
            chunks.push(Err(Status::unavailable("gone")));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn watch(&self, _: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.alive()?;
        let first = v1::WatchEvent {
            modseq: 50 + self.id,
            ..Default::default()
        };
        let change = v1::WatchEvent {
            modseq: 60 + self.id,
            mailboxes: vec![vec![1; 16].into()],
            ..Default::default()
        };
        let beat = v1::WatchEvent {
            modseq: 60 + self.id,
            ..Default::default()
        };
        let mut stopped = self.stopped.clone();
        let (events, stream) = mpsc::channel(4);
        drop(malle_rt::spawn(async move {
            for event in [first, change, beat] {
                events.send(Ok(event)).await.unwrap();
            }
            let _ = stopped.wait_for(|stop| *stop).await;
        }));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

fn refused<T>(code: Code, error: v1::Error) -> Result<Response<T>, Status> {
    Err(Status::with_details(
        code,
        error.message.clone(),
        error.encode_to_vec().into(),
    ))
}

#[tonic::async_trait]
impl Directory for Node {
    async fn resolve(&self, request: Request<v1::ResolveRequest>) -> Result<Response<v1::ResolveReply>, Status> {
        self.alive()?;
        *self.brain.resolved.lock().unwrap() += 1;
        let account: Bytes = match request.into_inner().who {
            Some(v1::resolve_request::Who::Account(account)) => account,
            Some(v1::resolve_request::Who::Address(address)) if address == "u1@example.org" => vec![1; 16].into(),
            _ => return refused(Code::NotFound, error(ErrorCode::NotFound)),
        };
        let shard = self.brain.homes.lock().unwrap().get(&account[0]).copied().unwrap_or(1);
        Ok(Response::new(v1::ResolveReply {
            account,
            shard,
            ..Default::default()
        }))
    }

    async fn login(&self, request: Request<v1::LoginRequest>) -> Result<Response<v1::LoginReply>, Status> {
        self.alive()?;
        // The directory's leader is node 2, where there is one: node 1 says so.
        if self.id == 1 && self.brain.topology.lock().unwrap().nodes.len() > 1 {
            return refused(Code::Unavailable, not_leader(2));
        }
        if request.into_inner().password != "secret" {
            return refused(Code::Unauthenticated, error(ErrorCode::BadCredentials));
        }
        Ok(Response::new(v1::LoginReply {
            token: Bytes::from_static(b"token 0"),
            account: vec![1; 16].into(),
            shard: 1,
            primary_address: "u1@example.org".into(),
            ..Default::default()
        }))
    }

    async fn renew_token(&self, _: Request<v1::RenewTokenRequest>) -> Result<Response<v1::LoginReply>, Status> {
        self.alive()?;
        let mut renewed = self.brain.renewed.lock().unwrap();
        *renewed += 1;
        let token = format!("token {renewed}").into();
        Ok(Response::new(v1::LoginReply {
            token,
            account: vec![1; 16].into(),
            shard: 1,
            ..Default::default()
        }))
    }

    async fn check_logins(&self, _: Request<v1::CheckLoginsRequest>) -> Result<Response<v1::CheckLoginsReply>, Status> {
        refused(Code::PermissionDenied, error(ErrorCode::Denied))
    }

    async fn sharers(&self, _: Request<v1::SharersRequest>) -> Result<Response<v1::SharersReply>, Status> {
        self.alive()?;
        Ok(Response::new(v1::SharersReply {
            sharers: vec![v1::ResolveReply {
                account: vec![2; 16].into(),
                shard: 1,
                primary_address: "u2@example.org".into(),
                ..Default::default()
            }],
        }))
    }

    async fn account_create(&self, _: Request<v1::AccountCreateRequest>) -> Result<Response<v1::Account>, Status> {
        refused(Code::AlreadyExists, error(ErrorCode::Exists))
    }

    async fn account_show(&self, _: Request<v1::AccountShowRequest>) -> Result<Response<v1::Account>, Status> {
        refused(Code::NotFound, error(ErrorCode::NotFound))
    }

    async fn account_set(&self, _: Request<v1::AccountSetRequest>) -> Result<Response<v1::Account>, Status> {
        refused(Code::PermissionDenied, error(ErrorCode::Denied))
    }

    async fn address_add(&self, _: Request<v1::AddressAddRequest>) -> Result<Response<v1::Account>, Status> {
        refused(Code::AlreadyExists, error(ErrorCode::Exists))
    }

    async fn address_remove(&self, _: Request<v1::AddressRemoveRequest>) -> Result<Response<v1::Account>, Status> {
        refused(Code::NotFound, error(ErrorCode::NotFound))
    }

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

    async fn app_password_list(
        &self,
        _: Request<v1::AppPasswordListRequest>,
    ) -> Result<Response<v1::AppPasswords>, Status> {
        Err(Status::unimplemented("not asked here"))
    }

    async fn topology(&self, _: Request<v1::TopologyRequest>) -> Result<Response<v1::TopologyReply>, Status> {
        self.alive()?;
        Ok(Response::new(self.brain.topology.lock().unwrap().clone()))
    }
}
