//! What LMTP says, and what IMAP then shows.

use anyhow::Context;
use harness::{Cluster, Imap, account, mail};

const SENDER: &str = "paul@example.net";
/// One more than the relays of the ministry accept.
const TOO_LARGE_BYTES: usize = 51 * 1024 * 1024;

/// Delivers samples one after the other and compares what is stored byte for byte, in order.
async fn delivered_is_read(samples: &[mail::Sample]) -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mut lmtp = cluster.lmtp().await?;
    for sample in samples {
        let replies = lmtp
            .deliver(SENDER, &[&account(1)], &sample.bytes)
            .await
            .context(sample.name.clone())?;
        assert!(replies[0].is_done(), "{}: {replies:?}", sample.name);
    }
    let mut imap = cluster.imap(1).await?;
    imap.select("INBOX").await?;
    let uids = imap.uids().await?;
    assert_eq!(uids.len(), samples.len());
    assert!(uids.is_sorted());
    for (uid, sample) in uids.into_iter().zip(samples) {
        let body = imap.body(uid).await.context(sample.name.clone())?;
        assert!(
            body == mail::stored(SENDER, &sample.bytes),
            "{} came back changed",
            sample.name
        );
    }
    cluster.finish().await
}

#[tokio::test]
async fn a_mail_delivered_by_lmtp_is_read_by_imap() -> anyhow::Result<()> {
    delivered_is_read(&mail::samples()).await
}

#[tokio::test]
async fn the_samples_of_pythons_email_tests_come_back_byte_for_byte() -> anyhow::Result<()> {
    let Some(samples) = mail::python_samples() else {
        return Ok(());
    };
    delivered_is_read(&samples).await
}

#[tokio::test]
async fn a_redelivery_with_the_same_bytes_is_stored_once() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mail = mail::plain("again");
    for _ in 0..3 {
        let replies = cluster
            .lmtp()
            .await?
            .deliver(SENDER, &[&account(1), &account(2)], &mail)
            .await?;
        assert!(replies.iter().all(|reply| reply.is_done()), "{replies:?}");
    }
    assert_eq!(count(&mut cluster.imap(1).await?).await?, 1);
    assert_eq!(count(&mut cluster.imap(2).await?).await?, 1);
    // Without Message-ID and Received two equal mails are two mails: nothing says that they are one.
    let twin = b"Subject: no id\r\n\r\ntwin\r\n";
    for _ in 0..2 {
        assert!(cluster.lmtp().await?.deliver(SENDER, &[&account(3)], twin).await?[0].is_done());
    }
    assert_eq!(count(&mut cluster.imap(3).await?).await?, 2);
    cluster.finish().await
}

#[tokio::test]
async fn an_unknown_recipient_is_refused_for_good_and_alone() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mail = mail::plain("partly");
    let to = [account(1), "nobody@example.org".into(), account(2)];
    let replies = cluster
        .lmtp()
        .await?
        .deliver(SENDER, &[&to[0], &to[1], &to[2]], &mail)
        .await?;
    assert!(replies[0].is_done() && replies[2].is_done(), "{replies:?}");
    assert_eq!((replies[1].code, replies[1].enhanced()), (550, "5.1.1"));
    assert_eq!(count(&mut cluster.imap(1).await?).await?, 1);
    cluster.finish().await
}

#[tokio::test]
async fn a_51_mib_mail_is_refused_and_costs_nobody_else() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let large = mail::large("large", TOO_LARGE_BYTES);
    // Announced: refused before a byte of it is sent.
    let announced = cluster
        .lmtp()
        .await?
        .command(&format!("MAIL FROM:<{SENDER}> SIZE={TOO_LARGE_BYTES}"))
        .await?;
    assert_eq!((announced.code, announced.enhanced()), (552, "5.3.4"));
    // Not announced, with another's mail on its way at the same time.
    let refused = async {
        let to = account(1);
        cluster.lmtp().await?.deliver(SENDER, &[&to], &large).await
    };
    let others = async {
        let mut lmtp = cluster.lmtp().await?;
        for number in 0..20 {
            let replies = lmtp
                .deliver(SENDER, &[&account(2)], &mail::plain(&format!("small-{number}")))
                .await?;
            assert!(replies[0].is_done(), "{replies:?}");
        }
        anyhow::Ok(())
    };
    let (refused, others) = tokio::join!(refused, others);
    others?;
    let refused = refused?;
    assert_eq!((refused[0].code, refused[0].enhanced()), (552, "5.3.4"));
    assert_eq!(count(&mut cluster.imap(1).await?).await?, 0);
    assert_eq!(count(&mut cluster.imap(2).await?).await?, 20);
    cluster.finish().await
}

async fn count(imap: &mut Imap) -> anyhow::Result<usize> {
    imap.select("INBOX").await?;
    Ok(imap.uids().await?.len())
}
