//! The client against a cluster that misbehaves: each test is a promise of the crate.

mod fake;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, ErrorCode};

use crate::tests::fake::{Act, Ca, Fake, delivered, error, not_leader, op_ids};
use crate::{
    Account, AccountId, Class, Client, Consistency, Error, Flags, MailboxId, ModSeq, NewMessage, OpId, Recipient,
    SpecialUse, StoreMode, Uid, UidRange, fresh_op_id, limits,
};

const INBOX: MailboxId = MailboxId([1; 16]);

async fn login(fake: &Fake) -> Account {
    let client = Client::connect(fake.config()).await.unwrap();
    client.login("u1@example.org", "secret").await.unwrap()
}

fn status() -> Act {
    Act::Answer(Answer::AccountStatus(v1::AccountStatusReply {
        modseq: 40,
        ..Default::default()
    }))
}

fn appended(uid: u32, repeated: bool) -> Act {
    let appended = v1::Delivered {
        repeated,
        ..delivered(uid)
    };
    Act::Answer(Answer::Append(v1::AppendReply {
        appended: Some(appended),
    }))
}

fn message(length: usize) -> NewMessage {
    NewMessage {
        flags: Flags::default(),
        internal_date: None,
        body: Bytes::from(vec![b'x'; length]),
    }
}

/// Node `leader` keeps receipts as a shard does; the others send callers to it.
fn one_leader(leader: u64) -> impl FnMut(u64, &v1::MailRequest) -> Act + Send {
    let mut receipts: BTreeMap<Bytes, u32> = BTreeMap::new();
    move |node, request| {
        if node != leader {
            return Act::Error(not_leader(leader));
        }
        let op_id = op_ids(request)[0].clone();
        let next = receipts.len() as u32 + 1;
        let repeated = receipts.contains_key(&op_id);
        appended(*receipts.entry(op_id).or_insert(next), repeated)
    }
}

#[tokio::test]
async fn the_leader_is_followed_and_remembered() {
    let fake = Fake::start(3, one_leader(3)).await;
    let account = login(&fake).await;
    for uid in 1..=3 {
        assert_eq!(
            account.append(INBOX, message(3), fresh_op_id()).await.unwrap().uid,
            Uid(uid)
        );
    }
    let asked: Vec<u64> = fake.brain.seen.lock().unwrap().iter().map(|(node, _)| *node).collect();
    assert_eq!(asked, [1, 3, 3, 3]);
}

#[tokio::test]
async fn a_leader_that_goes_in_the_middle_of_a_call_is_asked_again_elsewhere_with_the_same_op_id() {
    let done = Arc::new(Mutex::new(Vec::<Bytes>::new()));
    let receipts = done.clone();
    // Node 1 does the work and goes before it can say so; node 2 leads from then on and knows the receipt.
    let fake = Fake::start(3, move |node, request| {
        let op_id = op_ids(request)[0].clone();
        let mut receipts = receipts.lock().unwrap();
        match (node, receipts.contains(&op_id)) {
            (1, false) => {
                receipts.push(op_id);
                Act::Break
            }
            (2, repeated) => appended(5, repeated),
            _ => Act::Error(not_leader(2)),
        }
    })
    .await;
    let account = login(&fake).await;
    let op_id = fresh_op_id();
    let stored = account.append(INBOX, message(3), op_id).await.unwrap();
    assert!(stored.repeated, "the second leader found the first one's receipt");
    assert_eq!(*done.lock().unwrap(), [Bytes::copy_from_slice(op_id.as_bytes())]);
    assert!(
        fake.brain
            .seen
            .lock()
            .unwrap()
            .iter()
            .all(|(_, request)| op_ids(request)[0] == op_id.as_bytes()[..])
    );
}

#[tokio::test]
async fn a_killed_node_is_replaced_by_another_in_the_same_call() {
    let fake = Fake::start(3, |node, _| if node == 1 { Act::Hang } else { status() }).await;
    let account = login(&fake).await;
    let waiting = malle_rt::spawn({
        let account = account.clone();
        async move { account.status().await }
    });
    until(|| !fake.brain.seen.lock().unwrap().is_empty()).await;
    fake.kill(1);
    assert_eq!(waiting.await.unwrap().unwrap().modseq, ModSeq(40));
}

#[tokio::test]
async fn a_stream_that_breaks_fails_every_call_on_it_and_loses_no_answer_that_came() {
    let served = Arc::new(Mutex::new(0));
    let count = served.clone();
    let fake = Fake::start(1, move |_, _| {
        let mut count = count.lock().unwrap();
        *count += 1;
        match *count {
            1..=10 => Act::Hang,
            11 => status(),
            12 => Act::Break,
            _ => Act::Error(error(ErrorCode::Limit)),
        }
    })
    .await;
    let account = login(&fake).await;
    let hanging: Vec<_> = (0..10)
        .map(|_| {
            let account = account.clone();
            malle_rt::spawn(async move { account.status().await })
        })
        .collect();
    until(|| *served.lock().unwrap() == 10).await;
    assert!(account.status().await.is_ok());
    assert_eq!(account.status().await, Err(Error::Limit("Limit".into())));
    // Each of the ten was told that its stream broke and asked again: nobody waits for ever, nobody takes another's answer.
    for call in hanging {
        assert_eq!(call.await.unwrap(), Err(Error::Limit("Limit".into())));
    }
    assert_eq!(*served.lock().unwrap(), 12 + 11);
}

#[tokio::test]
async fn the_deadline_ends_a_call_that_nobody_can_answer() {
    let fake = Fake::start(2, |_, _| Act::Error(not_leader(0))).await;
    let client = Client::connect(fake.config()).await.unwrap();
    let account = client
        .with_deadline(Duration::from_millis(300))
        .login("u1@example.org", "secret")
        .await
        .unwrap();
    let ended = malle_rt::timeout(Duration::from_secs(20), account.status())
        .await
        .expect("the call ends by itself");
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?}");
    assert!(
        fake.brain.seen.lock().unwrap().len() >= 2,
        "it was tried more than once"
    );
}

#[tokio::test]
async fn the_deadline_ends_a_call_whose_node_hangs() {
    let fake = Fake::start(1, |_, _| Act::Hang).await;
    let client = Client::connect(fake.config()).await.unwrap();
    let account = client
        .with_deadline(Duration::from_millis(300))
        .login("u1@example.org", "secret")
        .await
        .unwrap();
    let ended = malle_rt::timeout(Duration::from_secs(20), account.status())
        .await
        .expect("the call ends by itself");
    assert!(matches!(ended, Err(Error::Unavailable(_))), "{ended:?}");
}

#[tokio::test]
async fn a_refusal_is_returned_at_once() {
    let refusal = v1::Error {
        limit_bytes: 20,
        ..error(ErrorCode::OverQuota)
    };
    let fake = Fake::start(3, move |_, _| Act::Error(refusal.clone())).await;
    let account = login(&fake).await;
    let refused = account.append(INBOX, message(3), fresh_op_id()).await;
    assert_eq!(refused, Err(Error::OverQuota { limit_bytes: 20 }));
    assert_eq!(fake.brain.seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_password_is_no_fault_and_not_repeated() {
    let fake = Fake::start(2, |_, _| status()).await;
    let client = Client::connect(fake.config()).await.unwrap();
    assert_eq!(
        client.login("u1@example.org", "wrong").await.err(),
        Some(Error::BadCredentials)
    );
}

#[tokio::test]
async fn an_address_is_unknown_only_when_the_directory_says_so() {
    let fake = Fake::start(1, |_, _| status()).await;
    let client = Client::connect(fake.config())
        .await
        .unwrap()
        .with_deadline(Duration::from_millis(300));
    assert_eq!(client.resolve("nobody@example.org").await, Ok(None));
    assert_eq!(
        client.resolve("u1@example.org").await.unwrap().unwrap().account,
        AccountId([1; 16])
    );
    fake.kill(1);
    assert_eq!(
        client.resolve("nobody@example.org").await.unwrap_err().class(),
        Class::Retry
    );
}

#[tokio::test]
async fn an_address_that_is_known_is_not_asked_for_again_until_the_directory_was_changed() {
    let fake = Fake::start(1, |_, _| status()).await;
    let client = Client::connect(fake.config()).await.unwrap();
    let questions = || *fake.brain.resolved.lock().unwrap();
    let before = questions();
    for _ in 0..3 {
        assert!(client.resolve("u1@example.org").await.unwrap().is_some());
    }
    assert_eq!(questions(), before + 1);
    for _ in 0..3 {
        assert_eq!(client.resolve("nobody@example.org").await, Ok(None));
    }
    assert_eq!(questions(), before + 4, "that there is none is asked each time");
    let directory = client.directory();
    // The answer of this fake does not matter: the change may have been made.
    let _ = directory
        .address_remove(AccountId([1; 16]), "u1@example.org", fresh_op_id())
        .await;
    assert!(client.resolve("u1@example.org").await.unwrap().is_some());
    assert_eq!(questions(), before + 5);
}

#[tokio::test]
async fn a_node_of_another_cluster_is_refused() {
    let fake = Fake::start(1, |_, _| status()).await;
    // Signed by the same CA, and yet of another cluster: so it is with an operator who runs two clusters under one root.
    let ours = fake.ca().leaf(&["spiffe://other/gateway/g1"]);
    let refused = Client::connect(fake.config_with(ours)).await.err();
    assert!(matches!(&refused, Some(Error::Config(_))), "{refused:?}");

    // Of the same name, and yet of another CA.
    let ours = Ca::new().leaf(&["spiffe://fake/gateway/g1"]);
    let refused = Client::connect(fake.config_with(ours)).await.err();
    assert!(matches!(&refused, Some(Error::Config(_))), "{refused:?}");
}

#[tokio::test]
async fn a_server_that_is_no_node_is_refused() {
    let ca = Ca::new();
    for uris in [
        vec!["spiffe://fake/gateway/g1"],
        vec!["spiffe://fake/node/1", "spiffe://fake/node/2"],
        vec![],
    ] {
        let pem = ca.leaf(&uris);
        let der = rustls::pki_types::pem::PemObject::from_pem_slice(&pem.cert).unwrap();
        assert!(crate::tls::node_of(&der, "fake").is_err(), "{uris:?}");
    }
}

#[tokio::test]
async fn certificates_that_do_not_work_are_named() {
    let ca = Ca::new();
    let good = ca.leaf(&["spiffe://fake/gateway/g1"]);
    let without = ca.leaf(&[]);
    let mixed = crate::ClientTls {
        key: without.key.clone(),
        ..good.clone()
    };
    let empty = crate::ClientTls {
        roots: Vec::new(),
        ..good.clone()
    };
    for (tls, word) in [(without, "identity"), (mixed, "key"), (empty, "CA file")] {
        match crate::tls::Tls::new(&tls).err() {
            Some(Error::Config(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn an_account_that_moved_is_found_in_its_new_shard() {
    let fake = Fake::start(1, |_, request| match request.shard {
        1 => Act::Error(v1::Error {
            shard: 2,
            ..error(ErrorCode::Moved)
        }),
        _ => status(),
    })
    .await;
    let account = login(&fake).await;
    account.status().await.unwrap();
    account.status().await.unwrap();
    let shards: Vec<u32> = fake
        .brain
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, request)| request.shard)
        .collect();
    assert_eq!(shards, [1, 2, 2]);
}

#[tokio::test]
async fn a_token_is_renewed_at_half_its_life_and_when_a_node_finds_it_expired() {
    let fake = Fake::start(2, |_, request| match &request.token[..] {
        b"token 1" => Act::Error(error(ErrorCode::TokenExpired)),
        _ => status(),
    })
    .await;
    let account = login(&fake).await;
    account.status().await.unwrap();
    account.age_token();
    account.status().await.unwrap();
    let tokens: Vec<Bytes> = fake
        .brain
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, request)| request.token.clone())
        .collect();
    assert_eq!(tokens, ["token 0", "token 1", "token 2"]);
    assert_eq!(*fake.brain.renewed.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_session_reads_its_own_writes_on_any_replica() {
    let fake = Fake::start(3, |_, request| match &request.call {
        Some(Call::Append(_)) => appended(1, false),
        _ => status(),
    })
    .await;
    let account = login(&fake).await;
    account.append(INBOX, message(3), fresh_op_id()).await.unwrap();
    assert_eq!(account.session_modseq(), ModSeq(40));
    account
        .with_consistency(Consistency::AtLeast(ModSeq(3)))
        .status()
        .await
        .unwrap();
    account.status().await.unwrap();
    let seen = fake.brain.seen.lock().unwrap();
    let kinds: Vec<_> = seen
        .iter()
        .filter_map(|(_, request)| match &request.call {
            Some(Call::AccountStatus(status)) => status.consistency?.kind,
            _ => None,
        })
        .collect();
    use v1::consistency::Kind;
    assert_eq!(kinds, [Kind::AtLeastModseq(40), Kind::Linearizable(true)]);
}

fn recipient(account: u8) -> Recipient {
    Recipient {
        account: AccountId([account; 16]),
        op_id: OpId([account; 16]),
        into: SpecialUse::Inbox,
    }
}

/// Answers each recipient with a UID equal to its account's first byte, unless `refuse` has something else to say.
fn deliver_all(
    mut refuse: impl FnMut(u8, u32) -> Option<v1::Error> + Send,
) -> impl FnMut(u64, &v1::MailRequest) -> Act + Send {
    move |_, request| {
        let Some(Call::Deliver(deliver)) = &request.call else {
            return Act::Break;
        };
        let outcome = |recipient: &v1::Recipient| {
            let account = recipient.account[0];
            let outcome = match refuse(account, request.shard) {
                Some(error) => v1::recipient_outcome::Outcome::Error(error),
                None => v1::recipient_outcome::Outcome::Delivered(delivered(u32::from(account))),
            };
            v1::RecipientOutcome { outcome: Some(outcome) }
        };
        Act::Answer(Answer::Deliver(v1::DeliverReply {
            outcomes: deliver.recipients.iter().map(outcome).collect(),
        }))
    }
}

#[tokio::test]
async fn recipients_of_two_shards_are_answered_in_the_given_order() {
    let fake = Fake::start(
        1,
        deliver_all(|account, _| (account == 4).then(|| error(ErrorCode::OverQuota))),
    )
    .await;
    fake.brain.homes.lock().unwrap().extend([(2, 2), (4, 2)]);
    let client = Client::connect(fake.config()).await.unwrap();
    let recipients: Vec<_> = [4, 1, 2, 3].map(recipient).into();
    let answers = client.deliver(&recipients, Bytes::from_static(b"mail")).await;
    let uids: Vec<_> = answers
        .into_iter()
        .map(|answer| answer.map(|stored| stored.uid.0))
        .collect();
    assert_eq!(uids, [Err(Error::OverQuota { limit_bytes: 0 }), Ok(1), Ok(2), Ok(3)]);
    assert_eq!(fake.brain.seen.lock().unwrap().len(), 2, "one command a shard");
    assert!(
        fake.brain
            .seen
            .lock()
            .unwrap()
            .iter()
            .all(|(_, request)| request.token.is_empty())
    );
}

#[tokio::test]
async fn only_the_recipient_whose_account_is_not_ready_is_delivered_again() {
    let mut tries = 0;
    let refuse = move |account, _| {
        tries += u32::from(account == 2);
        (account == 2 && tries < 3).then(|| error(ErrorCode::AccountNotReady))
    };
    let fake = Fake::start(1, deliver_all(refuse)).await;
    let client = Client::connect(fake.config()).await.unwrap();
    let answers = client
        .deliver(&[recipient(1), recipient(2)], Bytes::from_static(b"mail"))
        .await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let sizes: Vec<_> = fake
        .brain
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, request)| op_ids(request))
        .collect();
    let op_id = |n: u8| Bytes::from(vec![n; 16]);
    assert_eq!(sizes, [vec![op_id(1), op_id(2)], vec![op_id(2)], vec![op_id(2)]]);
}

#[tokio::test]
async fn a_recipient_that_moved_is_delivered_in_its_new_shard() {
    let refuse = |account, shard| {
        (account == 2 && shard == 1).then(|| v1::Error {
            shard: 2,
            ..error(ErrorCode::Moved)
        })
    };
    let fake = Fake::start(1, deliver_all(refuse)).await;
    let client = Client::connect(fake.config()).await.unwrap();
    let answers = client
        .deliver(&[recipient(1), recipient(2)], Bytes::from_static(b"mail"))
        .await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let asked: Vec<_> = fake
        .brain
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, request)| (request.shard, op_ids(request).len()))
        .collect();
    assert_eq!(asked, [(1, 2), (2, 1)]);
}

#[tokio::test]
async fn many_recipients_of_a_large_mail_share_one_upload_a_shard() {
    let fake = Fake::start(1, deliver_all(|_, _| None)).await;
    fake.brain.homes.lock().unwrap().insert(2, 2);
    let client = Client::connect(fake.config()).await.unwrap();
    let mut recipients = vec![recipient(1); 250];
    recipients.push(recipient(2));
    let size = limits::INLINE_BODY_MAX_BYTES * 3 + 1;
    let answers = client.deliver(&recipients, Bytes::from(vec![b'x'; size])).await;
    assert!(answers.iter().all(Result::is_ok));
    let mut uploads = fake.brain.uploads.lock().unwrap().clone();
    uploads.sort_unstable();
    assert_eq!(uploads, [(1, 1, size), (1, 2, size)]);
    let largest = fake
        .brain
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, request)| op_ids(request).len())
        .max();
    assert_eq!(largest, Some(limits::RECIPIENTS_PER_COMMAND_MAX));
}

#[tokio::test]
async fn a_large_body_is_uploaded_to_the_node_that_gets_the_command() {
    let fake = Fake::start(2, one_leader(2)).await;
    let account = login(&fake).await;
    let size = limits::INLINE_BODY_MAX_BYTES + 1;
    account.append(INBOX, message(size), fresh_op_id()).await.unwrap();
    assert_eq!(*fake.brain.uploads.lock().unwrap(), [(1, 1, size), (2, 1, size)]);
    let too_large = account
        .append(INBOX, message(limits::MESSAGE_MAX_BYTES + 1), fresh_op_id())
        .await;
    assert_eq!(
        too_large,
        Err(Error::TooLarge {
            limit_bytes: limits::MESSAGE_MAX_BYTES as u64
        })
    );
}

#[tokio::test]
async fn of_several_messages_the_large_ones_go_ahead_each_for_its_own() {
    let fake = Fake::start(1, |_, request| {
        let Some(Call::AppendAll(append)) = &request.call else {
            return Act::Break;
        };
        let appended = append.messages.iter().zip(1..).map(|(arriving, uid)| {
            // The size that came tells which body it was: the UIDVALIDITY says it back.
            let size = match arriving.body.clone().and_then(|body| body.source) {
                Some(v1::body::Source::Inline(bytes)) => bytes.len() as u64,
                Some(v1::body::Source::Ticket(ticket)) => ticket.size,
                None => 0,
            };
            v1::Delivered {
                mailbox: Bytes::from_static(&[1; 16]),
                uid_validity: size as u32,
                uid,
                modseq: 1,
                repeated: false,
            }
        });
        Act::Answer(Answer::AppendAll(v1::AppendAllReply {
            appended: appended.collect(),
        }))
    })
    .await;
    let account = login(&fake).await;
    let large = limits::INLINE_BODY_MAX_BYTES + 1;
    let sizes = [10, large, 20, large + 5];
    let messages = sizes.map(message).to_vec();
    let stored = account
        .append_all_to("INBOX", messages, None, fresh_op_id())
        .await
        .unwrap();
    let came: Vec<usize> = stored.iter().map(|one| one.uid_validity.0 as usize).collect();
    assert_eq!(came, sizes);
    assert_eq!(*fake.brain.uploads.lock().unwrap(), [(1, 1, large), (1, 1, large + 5)]);
    let half = limits::MESSAGE_MAX_BYTES / 2 + 1;
    let too_large = account
        .append_all_to("INBOX", vec![message(half), message(half)], None, fresh_op_id())
        .await;
    assert!(matches!(too_large, Err(Error::TooLarge { .. })));
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let body: Bytes = (0..3 * limits::INLINE_BODY_MAX_BYTES + 5)
        .map(|n| (n % 251) as u8)
        .collect::<Vec<u8>>()
        .into();
    let whole = body.clone();
    let fake = Fake::start(2, move |_, request| {
        let Some(Call::ReadBody(read)) = &request.call else {
            return Act::Break;
        };
        let end = whole.len().min((read.offset + read.length) as usize);
        let data = whole.slice((read.offset as usize).min(end)..end);
        Act::Answer(Answer::ReadBody(v1::ReadBodyReply {
            size_bytes: whole.len() as u64,
            data,
        }))
    })
    .await;
    *fake.brain.body.lock().unwrap() = body.clone();
    *fake.brain.break_after.lock().unwrap() = Some(limits::BODY_CHUNK_BYTES + 77);
    let account = login(&fake).await;
    assert_eq!(account.read_body(INBOX, Uid(1)).await.unwrap(), body);
    assert_eq!(
        account.read_body_range(INBOX, Uid(1), 10, 5).await.unwrap(),
        body[10..15]
    );
    let long = account
        .read_body_range(INBOX, Uid(1), 1_000, body.len() as u64)
        .await
        .unwrap();
    assert_eq!(long, body[1_000..]);
    assert_eq!(
        account.read_body_range(INBOX, Uid(1), 10, 0).await.unwrap(),
        Bytes::new()
    );
    assert_eq!(
        account
            .read_body_range(INBOX, Uid(1), body.len() as u64 + 9, 5)
            .await
            .unwrap(),
        Bytes::new()
    );
}

#[tokio::test]
async fn a_store_goes_on_where_the_node_stopped_with_an_op_id_of_its_own() {
    let fake = Fake::start(1, |_, request| {
        let Some(Call::Store(store)) = &request.call else {
            return Act::Break;
        };
        let resume_from = (store.uids[0].first == 1).then_some(501);
        let stored = vec![v1::MessageFlags {
            uid: store.uids[0].first,
            ..Default::default()
        }];
        Act::Answer(Answer::Store(v1::StoreReply {
            stored,
            resume_from,
            ..Default::default()
        }))
    })
    .await;
    let account = login(&fake).await;
    let uids = [UidRange {
        first: Uid(1),
        last: Uid(900),
    }];
    let op_id = fresh_op_id();
    let done = account
        .store(INBOX, &uids, StoreMode::Add, Flags::default(), None, op_id)
        .await
        .unwrap();
    assert_eq!(done.stored.iter().map(|row| row.uid.0).collect::<Vec<_>>(), [1, 501]);
    let seen: Vec<_> = fake
        .brain
        .seen
        .lock()
        .unwrap()
        .iter()
        .map(|(_, request)| op_ids(request)[0].clone())
        .collect();
    assert_eq!(seen, [&op_id.as_bytes()[..], &op_id.piece(1).as_bytes()[..]]);
}

#[tokio::test]
async fn a_watch_outlives_its_node_and_says_that_it_may_have_missed_something() {
    let fake = Fake::start(2, |_, _| status()).await;
    let account = login(&fake).await;
    let mut watch = account.watch().await.unwrap();
    assert_eq!(watch.next().await.unwrap().modseq, ModSeq(51));
    let change = watch.next().await.unwrap();
    assert_eq!((change.mailboxes, change.overflow), (vec![INBOX], false));
    // The heartbeat that follows is no event: what comes next is of the other node.
    fake.kill(1);
    let renewed = watch.next().await.unwrap();
    assert_eq!(
        (renewed.modseq, renewed.overflow, renewed.tree_changed),
        (ModSeq(52), true, true)
    );
}

/// Waits for a condition, within a bound that only a defect reaches.
async fn until(mut condition: impl FnMut() -> bool + Send) {
    let all = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    malle_rt::timeout(Duration::from_secs(20), all)
        .await
        .expect("the condition comes true");
}

#[tokio::test]
async fn a_guest_asks_the_owners_shard_with_his_own_token_and_his_session_keeps_its_own_modseq() {
    let fake = Fake::start(1, |_, request| match &request.call {
        Some(Call::Grants(_)) => Act::Answer(Answer::Grants(v1::GrantsReply {
            mine: 3,
            grants: Vec::new(),
        })),
        Some(Call::MailboxList(_)) => Act::Answer(Answer::MailboxList(v1::MailboxListReply::default())),
        // The owner is suspended; who asks is not.
        _ => Act::Error(error(ErrorCode::Suspended)),
    })
    .await;
    let account = login(&fake)
        .await
        .with_consistency(Consistency::Stale(Duration::from_secs(1)));
    let sharers = account.sharers().await.unwrap();
    assert_eq!(sharers[0].primary_address, "u2@example.org");
    let guest = account.as_guest_of(&sharers[0]);
    assert_eq!(guest.id(), AccountId([2; 16]));
    assert_eq!(guest.grants("INBOX").await.unwrap().mine.to_string(), "lr");
    guest.mailboxes().await.unwrap();
    assert!(matches!(guest.status().await, Err(Error::Denied(_))));
    assert_eq!(
        account.session_modseq(),
        ModSeq(0),
        "the other account's is not its own"
    );
    for (_, request) in fake.brain.seen.lock().unwrap().iter() {
        assert_eq!(request.token, b"token 0"[..]);
        let asked = match request.call.as_ref().unwrap() {
            Call::Grants(call) => &call.account,
            Call::MailboxList(call) => {
                assert_eq!(call.consistency, None, "a guest's reads are always fresh");
                &call.account
            }
            Call::AccountStatus(call) => &call.account,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked[..], [2; 16]);
    }
    account.mailboxes().await.unwrap();
    assert_eq!(account.session_modseq(), ModSeq(40));
}
