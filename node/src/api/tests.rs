//! The mail service over one real group: raft, journal, volumes and index in memory, callers as certificates would name them.

mod guest_calls;
mod guests;
mod many_bodies;
mod named;
mod news;
mod overload;
mod revoked;
mod sharing;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use malle_journal::{Disk, MemoryDisk};
use malle_machine::{directory, shard};
use malle_proto::v1::mail_reply::Result as Reply;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, ErrorCode, MailRequest, RaftFrame};
use malle_proto::{AccountId, BodyHash, ClusterId, MailboxId, NodeId, ShardId, limits};
use malle_rt::Instant;
use prost::Message as _;
use tokio::sync::mpsc;

use super::MailApi;
use super::intake::Owner;
use crate::bodies::Bodies;
use crate::env::{Env, ManualClock};
use crate::index::{IndexError, MemoryIndex};
use crate::log::Logs;
use crate::peers::{AppendStream, PeerError, RaftCall, StoredBody, Transport};
use crate::raft::{Group, Groups, GroupsSettings, LogKept, Timing};
use crate::security::{GatewayRoles, Identity, Peer, Proof, Token};
use crate::state::{Indexes, OpenedIndex};

const NODE: NodeId = NodeId(1);
const SHARD: ShardId = ShardId(3);
const ALICE: AccountId = AccountId([0xA1; 16]);
const BOB: AccountId = AccountId([0xB0; 16]);
/// Of both, as the directory keeps it.
const PASSWORD_HASH: &str = "$argon2id$0";
const START_MS: u64 = 1_800_000_000_000;

/// There is nobody else.
struct Alone;

#[async_trait]
impl Transport for Alone {
    async fn call(&self, to: NodeId, _: RaftCall, _: RaftFrame, _: Instant) -> Result<RaftFrame, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn append(&self, to: NodeId, _: Instant) -> Result<AppendStream, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn snapshot(
        &self,
        to: NodeId,
        _: RaftFrame,
        _: u64,
        _: mpsc::Receiver<Bytes>,
        _: Instant,
    ) -> Result<RaftFrame, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn put_body(&self, to: NodeId, _: StoredBody, _: Instant) -> Result<(), PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn get_body(&self, to: NodeId, _: ShardId, _: BodyHash, _: Instant) -> Result<StoredBody, PeerError> {
        Err(PeerError::Deadline(to))
    }
    async fn replica(&self, to: NodeId, _: ShardId, _: Instant) -> Result<v1::GroupStatus, PeerError> {
        Err(PeerError::Deadline(to))
    }
}

struct InMemory;

#[async_trait]
impl Indexes for InMemory {
    async fn open(&self, _: ShardId, fresh_uuid: [u8; 16], _: Option<[u8; 16]>) -> Result<OpenedIndex, IndexError> {
        Ok(OpenedIndex {
            store: Arc::new(MemoryIndex::new()),
            uuid: fresh_uuid,
            created: true,
        })
    }
    async fn set_aside(&self, _: ShardId, _: u64) -> std::io::Result<()> {
        Ok(())
    }
}

struct World {
    api: MailApi,
    group: Arc<Group>,
    clock: Arc<ManualClock>,
    key: directory::TokenKey,
    inboxes: [MailboxId; 2],
}

fn gateway(name: &str, lmtp: bool, imap: bool) -> Peer {
    Peer {
        identity: Identity::Gateway {
            name: name.into(),
            roles: GatewayRoles { lmtp, imap },
        },
        address: "127.0.0.1:1".parse().unwrap(),
    }
}

fn lmtp() -> Peer {
    gateway("mx", true, false)
}

fn imap() -> Peer {
    gateway("front", false, true)
}

fn soon() -> Instant {
    malle_rt::now() + Duration::from_secs(20)
}

/// Opens a group of this node alone and waits until it leads.
async fn lead(groups: &Arc<Groups>, shard: ShardId) -> Arc<Group> {
    let group = groups.open(shard).await.unwrap();
    group.initialize([(NODE, "here".to_owned())].into()).await.unwrap();
    // A leader's first entry is its own.
    let mut applied = group.applied();
    while !group.is_leader() {
        malle_rt::timeout_at(soon(), applied.changed())
            .await
            .expect("a leader")
            .unwrap();
    }
    group
}

impl World {
    async fn new() -> World {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let (env, clock) = Env::manual(START_MS, 1);
        for dir in ["log", "volumes", "checkpoints"] {
            disk.create_dir_all(&PathBuf::from("/w").join(dir)).unwrap();
        }
        let bodies = Bodies::open(disk.clone(), &PathBuf::from("/w/volumes"), NODE, Arc::new(Alone))
            .await
            .unwrap();
        let groups = Groups::new(GroupsSettings {
            node: NODE,
            cluster: "test".into(),
            timing: Timing::LOCAL,
            log: LogKept::default(),
            env: env.clone(),
            disk: disk.clone(),
            dir: "/w/checkpoints".into(),
            logs: Arc::new(Logs::open_with(disk, &PathBuf::from("/w/log"), NODE, 4 << 20).unwrap()),
            indexes: Arc::new(InMemory),
            bodies: bodies.clone(),
            transport: Arc::new(Alone),
            addresses: Arc::default(),
        });
        let key = env.token_key(1);
        let directory = lead(&groups, ShardId::DIRECTORY).await;
        let init = directory::Op::Init {
            cluster: ClusterId([1; 16]),
            name: "test".into(),
            nodes: vec![directory::Node {
                id: NODE,
                region: "nord".into(),
                zone: "nord-a".into(),
                client_address: "here:1".into(),
                peer_address: "here:2".into(),
                retired: false,
            }],
            shards: vec![directory::Shard {
                id: SHARD,
                replicas: vec![NODE],
                home_region: "nord".into(),
                epoch: 1,
            }],
            token_key: key.clone(),
        };
        assert_eq!(
            directory.propose_directory(init, soon()).await.unwrap(),
            directory::Outcome::Done
        );
        for (account, name) in [(ALICE, "alice"), (BOB, "bob")] {
            let create = directory::Op::AccountCreate {
                op_id: env.op_id(),
                account,
                address: format!("{name}@example.org"),
                password_hash: Some(PASSWORD_HASH.into()),
                quota_bytes: limits::DEFAULT_QUOTA_BYTES,
                shard: Some(SHARD),
                region: None,
            };
            let made = directory.propose_directory(create, soon()).await.unwrap();
            assert!(matches!(made, directory::Outcome::Account { .. }), "{made:?}");
        }
        let group = lead(&groups, SHARD).await;
        let grant = |account| shard::AccountGrant {
            account,
            quota_bytes: limits::DEFAULT_QUOTA_BYTES,
            suspended: false,
            mailboxes: std::array::from_fn(|_| env.mailbox_id()),
        };
        let accounts = vec![grant(ALICE), grant(BOB)];
        let inboxes = [accounts[0].mailboxes[0], accounts[1].mailboxes[0]];
        let open = shard::Op::OpenAccounts { accounts, through: 1 };
        assert_eq!(group.propose_shard(open, soon()).await.unwrap(), shard::Outcome::Done);
        let api = MailApi::new(groups, bodies, env);
        World {
            api,
            group,
            clock,
            key,
            inboxes,
        }
    }

    fn token(&self, account: AccountId) -> Bytes {
        let token = Token {
            account,
            gateway: "front".into(),
            expires_ms: START_MS + limits::TOKEN_LIFETIME_MS,
            proof: Proof::of_password(PASSWORD_HASH),
        };
        token.sign(&self.key).into()
    }

    async fn ask(&self, peer: &Peer, token: Bytes, call: Call) -> v1::MailReply {
        let request = MailRequest {
            id: 7,
            shard: SHARD.0,
            deadline_ms: 20_000,
            token,
            news_of: None,
            call: Some(call),
        };
        let reply = self.api.answer(peer, request).await;
        assert_eq!(reply.id, 7);
        reply
    }

    async fn ok(&self, peer: &Peer, token: Bytes, call: Call) -> Reply {
        match self.ask(peer, token, call).await.result.unwrap() {
            Reply::Error(error) => panic!("{error:?}"),
            reply => reply,
        }
    }

    async fn refused(&self, peer: &Peer, token: Bytes, call: Call) -> ErrorCode {
        match self.ask(peer, token, call).await.result.unwrap() {
            Reply::Error(error) => error.code(),
            reply => panic!("done: {reply:?}"),
        }
    }

    /// Delivers to Alice; the outcome.
    async fn deliver(&self, op: u8, mail: &[u8]) -> v1::Delivered {
        let Reply::Deliver(reply) = self
            .ok(&lmtp(), Bytes::new(), deliver(&[(ALICE, op)], inline(mail)))
            .await
        else {
            panic!("another answer")
        };
        match reply.outcomes.into_iter().next().unwrap().outcome.unwrap() {
            v1::recipient_outcome::Outcome::Delivered(delivered) => delivered,
            v1::recipient_outcome::Outcome::Error(error) => panic!("{error:?}"),
        }
    }

    async fn fetch(&self, max_rows: u32, from: u32) -> v1::FetchReply {
        let fetch = v1::Fetch {
            account: ALICE.to_vec().into(),
            mailbox: self.inboxes[0].to_vec().into(),
            uids: vec![v1::UidRange {
                first: from,
                last: u32::MAX,
            }],
            max_rows,
            ..v1::Fetch::default()
        };
        match self.ok(&imap(), self.token(ALICE), Call::Fetch(fetch)).await {
            Reply::Fetch(reply) => reply,
            reply => panic!("{reply:?}"),
        }
    }

    fn append(&self, op: u8, body: v1::Body) -> Call {
        Call::Append(v1::Append {
            account: ALICE.to_vec().into(),
            op_id: vec![op; 16].into(),
            mailbox: self.inboxes[0].to_vec().into(),
            body: Some(body),
            ..v1::Append::default()
        })
    }

    fn read_body(&self, account: AccountId, mailbox: MailboxId, uid: u32, offset: u64, length: u64) -> Call {
        Call::ReadBody(v1::ReadBody {
            account: account.to_vec().into(),
            mailbox: mailbox.to_vec().into(),
            uid,
            offset,
            length,
        })
    }

    /// Uploads as a caller of this certificate and account would.
    async fn upload(&self, peer: &Peer, account: Option<AccountId>, mail: &[u8]) -> v1::Body {
        let owner = Owner::of(peer, account).unwrap();
        let bytes = Bytes::copy_from_slice(mail);
        let put = self.api.upload_put(&self.group, bytes, owner, soon()).await.unwrap();
        ticket(put.hash, put.size)
    }
}

fn inline(mail: &[u8]) -> v1::Body {
    let source = v1::body::Source::Inline(Bytes::copy_from_slice(mail));
    v1::Body { source: Some(source) }
}

fn ticket(hash: BodyHash, size: u64) -> v1::Body {
    let ticket = v1::BodyTicket {
        hash: hash.to_vec().into(),
        size,
    };
    v1::Body {
        source: Some(v1::body::Source::Ticket(ticket)),
    }
}

fn deliver(to: &[(AccountId, u8)], body: v1::Body) -> Call {
    let recipient = |(account, op): &(AccountId, u8)| v1::Recipient {
        account: account.to_vec().into(),
        op_id: vec![*op; 16].into(),
        into: 0,
    };
    Call::Deliver(v1::Deliver {
        recipients: to.iter().map(recipient).collect(),
        body: Some(body),
    })
}

const MAIL: &[u8] =
    b"Subject: Bonjour\r\nFrom: Alice <a@b.fr>\r\nMessage-ID: <1@b.fr>\r\n\r\nUn \xc3\xa9t\xc3\xa9.\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivered_mail_is_listed_read_and_delivered_once() {
    let world = World::new().await;
    let first = world.deliver(1, MAIL).await;
    assert_eq!((first.uid, first.repeated), (1, false));
    let again = world.deliver(1, MAIL).await;
    assert_eq!((again.uid, again.modseq, again.repeated), (1, first.modseq, true));

    let page = world.fetch(0, 1).await;
    assert_eq!((page.messages.len(), page.resume_from), (1, None));
    let message = &page.messages[0];
    assert_eq!(
        (message.uid, message.size_bytes, message.save_date_ms),
        (1, MAIL.len() as u64, START_MS)
    );
    let summary = v1::Summary::decode(message.summary.clone()).unwrap();
    assert_eq!(summary.envelope.unwrap().subject.as_deref(), Some(&b"Bonjour"[..]));
    assert_eq!(summary.preview, "Un été.");

    let read = |offset, length| world.read_body(ALICE, world.inboxes[0], 1, offset, length);
    for (offset, length, wanted) in [
        (0, 10_000, MAIL),
        (9, 7, b"Bonjour"),
        (u64::MAX, u64::MAX, b""),
        (5, 0, b""),
    ] {
        let Reply::ReadBody(body) = world.ok(&imap(), world.token(ALICE), read(offset, length)).await else {
            panic!("another answer")
        };
        assert_eq!((body.size_bytes, &body.data[..]), (MAIL.len() as u64, wanted));
    }
    let gone = world.read_body(ALICE, world.inboxes[0], 2, 0, 1);
    assert_eq!(
        world.refused(&imap(), world.token(ALICE), gone).await,
        ErrorCode::NotFound
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_without_the_accounts_token_and_a_delivering_gateway_never() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    let read = || world.read_body(ALICE, world.inboxes[0], 1, 0, 100);
    let other_gateway = gateway("other", false, true);
    assert_eq!(
        world.refused(&lmtp(), world.token(ALICE), read()).await,
        ErrorCode::Denied
    );
    assert_eq!(world.refused(&imap(), Bytes::new(), read()).await, ErrorCode::Denied);
    assert_eq!(
        world.refused(&imap(), world.token(BOB), read()).await,
        ErrorCode::Denied
    );
    assert_eq!(
        world.refused(&other_gateway, world.token(ALICE), read()).await,
        ErrorCode::Denied
    );
    assert_eq!(
        world.refused(&imap(), Bytes::from_static(b"rubbish"), read()).await,
        ErrorCode::Denied
    );
    let to_alice = || deliver(&[(ALICE, 2)], inline(MAIL));
    assert_eq!(
        world.refused(&imap(), world.token(ALICE), to_alice()).await,
        ErrorCode::Denied
    );
    // Bob's token opens Bob's account, and Alice's mailbox is not in it.
    let crossed = world.read_body(BOB, world.inboxes[0], 1, 0, 100);
    assert_eq!(
        world.refused(&imap(), world.token(BOB), crossed).await,
        ErrorCode::NotFound
    );
    world
        .clock
        .advance_ms(limits::TOKEN_LIFETIME_MS + limits::CLOCK_SKEW_MS + 1);
    assert_eq!(
        world.refused(&imap(), world.token(ALICE), read()).await,
        ErrorCode::TokenExpired
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_worth_nothing_to_anybody_but_its_uploader() {
    let world = World::new().await;
    let secret = [b"Subject: secret\r\n\r\n".as_slice(), &[b's'; 400_000]].concat();
    world.deliver(1, MAIL).await;

    // Bob uploads; Alice knows the hash and wants the bytes as a mail of her own.
    let bobs = world.upload(&imap(), Some(BOB), &secret).await;
    let stolen = world.append(2, bobs.clone());
    assert_eq!(
        world.refused(&imap(), world.token(ALICE), stolen).await,
        ErrorCode::Unavailable
    );
    assert_eq!(
        world.refused(&lmtp(), Bytes::new(), deliver(&[(ALICE, 2)], bobs)).await,
        ErrorCode::Unavailable
    );
    // A hash that a delivered mail has, and nobody uploaded.
    let guessed = ticket(Bodies::hash_of(MAIL), MAIL.len() as u64);
    assert_eq!(
        world
            .refused(&imap(), world.token(ALICE), world.append(3, guessed))
            .await,
        ErrorCode::Unavailable
    );

    // Her own, and the same bytes at the same time as Bob's.
    let own = world.upload(&imap(), Some(ALICE), &secret).await;
    let Reply::Append(reply) = world
        .ok(&imap(), world.token(ALICE), world.append(4, own.clone()))
        .await
    else {
        panic!("another answer")
    };
    assert_eq!(reply.appended.unwrap().uid, 2);
    // A second piece of the same operation may name it again.
    world.ok(&imap(), world.token(ALICE), world.append(5, own)).await;
    let short = ticket(Bodies::hash_of(&secret), 5);
    assert_eq!(
        world.refused(&imap(), world.token(ALICE), world.append(6, short)).await,
        ErrorCode::Invalid
    );

    let delivered = world.upload(&lmtp(), None, &secret).await;
    world
        .ok(&lmtp(), Bytes::new(), deliver(&[(ALICE, 7), (BOB, 8)], delivered))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_ends_before_it_outgrows_a_message_and_goes_on_where_it_ended() {
    let world = World::new().await;
    // Envelopes of about 400 KiB each: kept beside their bodies.
    let list = (0..5_000)
        .map(|i| format!("Nom Long {i:080} <u{i}@b.fr>"))
        .collect::<Vec<_>>()
        .join(",\r\n ");
    let mail = |i: u32| format!("Subject: {i}\r\nFrom: {list}\r\nTo: {list}\r\n\r\n");
    for i in 1..=12u32 {
        let body = world.upload(&lmtp(), None, mail(i).as_bytes()).await;
        world
            .ok(&lmtp(), Bytes::new(), deliver(&[(ALICE, i as u8)], body))
            .await;
    }
    let mut from = 1;
    let mut pages = Vec::new();
    let mut subjects = Vec::new();
    loop {
        let page = world.fetch(0, from).await;
        assert!(page.encoded_len() <= limits::GRPC_MESSAGE_MAX_BYTES);
        for message in &page.messages {
            let summary = v1::Summary::decode(message.summary.clone()).unwrap();
            subjects.push(String::from_utf8(summary.envelope.unwrap().subject.unwrap().to_vec()).unwrap());
        }
        pages.push(page.messages.len());
        match page.resume_from {
            Some(next) => from = next,
            None => break,
        }
    }
    assert!(pages.len() > 1 && pages.iter().all(|rows| *rows > 0), "{pages:?}");
    assert_eq!(subjects, (1..=12).map(|i: u32| i.to_string()).collect::<Vec<_>>());
    assert_eq!(world.fetch(1, 3).await.messages.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_requests_are_refused_by_name() {
    let world = World::new().await;
    let many = (0..=limits::RECIPIENTS_PER_COMMAND_MAX)
        .map(|i| (ALICE, i as u8))
        .collect::<Vec<_>>();
    let cases = [
        (deliver(&[], inline(MAIL)), ErrorCode::Limit),
        (deliver(&many, inline(MAIL)), ErrorCode::Limit),
        (deliver(&[(ALICE, 1)], v1::Body::default()), ErrorCode::Invalid),
        (deliver(&[(ALICE, 1)], inline(b"")), ErrorCode::Invalid),
        (
            deliver(&[(ALICE, 1)], inline(&[b'x'; limits::INLINE_BODY_MAX_BYTES + 1])),
            ErrorCode::Invalid,
        ),
    ];
    for (call, code) in cases {
        assert_eq!(world.refused(&lmtp(), Bytes::new(), call).await, code);
    }
    let short_id = Call::AccountStatus(v1::AccountStatus {
        account: vec![1; 15].into(),
        consistency: None,
    });
    assert_eq!(
        world.refused(&imap(), world.token(ALICE), short_id).await,
        ErrorCode::Invalid
    );
    let mut request = MailRequest {
        id: 1,
        shard: SHARD.0,
        ..MailRequest::default()
    };
    let code = |reply: v1::MailReply| match reply.result.unwrap() {
        Reply::Error(error) => error.code(),
        reply => panic!("{reply:?}"),
    };
    assert_eq!(
        code(world.api.answer(&lmtp(), request.clone()).await),
        ErrorCode::Invalid
    );
    request.call = Some(deliver(&[(ALICE, 1)], inline(MAIL)));
    request.shard = 0;
    assert_eq!(
        code(world.api.answer(&lmtp(), request.clone()).await),
        ErrorCode::Invalid
    );
    request.shard = 99;
    assert_eq!(
        code(world.api.answer(&lmtp(), request).await),
        ErrorCode::NotLeader,
        "another node may have it"
    );
    assert_eq!(
        world.fetch(0, 1).await.messages,
        Vec::new(),
        "nothing of all this was done"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_recipients_refusal_is_not_anothers_and_a_body_collected_meanwhile_is_put_again() {
    let world = World::new().await;
    let stranger = AccountId([9; 16]);
    let call = deliver(&[(ALICE, 1), (stranger, 2)], inline(MAIL));
    let Reply::Deliver(reply) = world.ok(&lmtp(), Bytes::new(), call).await else {
        panic!("another answer")
    };
    assert!(matches!(
        reply.outcomes[0].outcome,
        Some(v1::recipient_outcome::Outcome::Delivered(_))
    ));
    let Some(v1::recipient_outcome::Outcome::Error(error)) = &reply.outcomes[1].outcome else {
        panic!("a stranger got mail")
    };
    assert_eq!(error.code(), ErrorCode::AccountNotReady);

    // An upload of a body that is released before its command comes: the put is too old, and is made again.
    let ticket = world.upload(&lmtp(), None, MAIL).await;
    let all = shard::UidRange {
        first: malle_proto::Uid(1),
        last: malle_proto::Uid(1),
    };
    let store = shard::Op::Store {
        account: ALICE,
        op_id: malle_proto::OpId([40; 16]),
        mailbox: world.inboxes[0],
        uids: vec![all],
        mode: shard::StoreMode::Add,
        flags: shard::Flags {
            system: shard::Flags::DELETED,
            keywords: vec![],
        },
        unchanged_since: None,
    };
    world.group.propose_shard(store, soon()).await.unwrap();
    let expunge = shard::Op::Expunge {
        account: ALICE,
        op_id: malle_proto::OpId([41; 16]),
        mailbox: world.inboxes[0],
        uids: vec![],
    };
    world.group.propose_shard(expunge, soon()).await.unwrap();
    let hash = Bodies::hash_of(MAIL);
    let release = shard::Op::ReleaseBodies { hashes: vec![hash] };
    let released = world.group.propose_shard(release, soon()).await.unwrap();
    assert!(
        matches!(&released, shard::Outcome::BodiesReleased { released, .. } if *released == [hash]),
        "{released:?}"
    );
    let Reply::Deliver(reply) = world.ok(&lmtp(), Bytes::new(), deliver(&[(ALICE, 5)], ticket)).await else {
        panic!("another answer")
    };
    assert!(
        matches!(
            reply.outcomes[0].outcome,
            Some(v1::recipient_outcome::Outcome::Delivered(_))
        ),
        "{reply:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_where_the_account_stands_then_each_change_and_ends_with_its_token() {
    let world = World::new().await;
    world.deliver(1, MAIL).await;
    let mut events = super::watch::follow(world.group.clone(), ALICE, None, std::future::pending())
        .await
        .unwrap();
    let first = events.recv().await.unwrap().unwrap();
    assert!(first.modseq > 0 && first.mailboxes.is_empty() && !first.overflow);
    let delivered = world.deliver(2, b"Subject: 2\r\n\r\n").await;
    let next = malle_rt::timeout(Duration::from_secs(20), events.recv())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(next.modseq, delivered.modseq);
    assert_eq!(next.mailboxes, [Bytes::copy_from_slice(world.inboxes[0].as_bytes())]);
    drop(events);

    // A token that ends now: where the account stands, at most, and then the reason.
    let mut events = super::watch::follow(world.group.clone(), ALICE, None, std::future::ready(()))
        .await
        .unwrap();
    let end = loop {
        match malle_rt::timeout(Duration::from_secs(20), events.recv())
            .await
            .unwrap()
            .unwrap()
        {
            Ok(event) => assert_eq!(event.modseq, delivered.modseq),
            Err(status) => break status,
        }
    };
    assert_eq!(
        v1::Error::decode(end.details()).unwrap().code(),
        ErrorCode::TokenExpired
    );
    assert!(events.recv().await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_with_too_much_under_way_says_when_to_come_again_and_the_room_comes_back() {
    let world = World::new().await;
    let all = world
        .group
        .take_in(malle_proto::limits::BODY_BYTES_PER_SHARD_MAX)
        .unwrap();
    let delivery = || deliver(&[(ALICE, 1)], inline(MAIL));
    let reply = world.ask(&lmtp(), Bytes::new(), delivery()).await;
    let Some(Reply::Error(error)) = reply.result else {
        panic!("a full shard took more")
    };
    assert_eq!(error.code(), ErrorCode::Busy);
    assert!(error.retry_after_ms > 0);
    drop(all);
    world.deliver(1, MAIL).await;
}
