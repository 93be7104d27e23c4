//! Programs that others wrote, where they are installed, and two of ours at once.

use anyhow::Context;
use harness::{Cluster, Imap, PASSWORD, account, installed, mail};
use malle_client::NodeId;
use tokio::process::Command;

const SENDER: &str = "paul@example.net";
/// Two for each time that the leader moves.
const MESSAGES: usize = 20;

/// Two sessions set a flag each on the same message, at the same time.
async fn store_at_once(one: &mut Imap, two: &mut Imap, uid: u32) -> anyhow::Result<()> {
    let (seen, work) = (
        format!("UID STORE {uid} +FLAGS.SILENT (\\Seen)"),
        format!("UID STORE {uid} +FLAGS.SILENT ($Work)"),
    );
    let (first, second) = tokio::join!(one.command(&seen), two.command(&work));
    first?.ok()?;
    second?.ok()?;
    Ok(())
}

#[tokio::test]
async fn flags_of_two_clients_both_survive() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (mut one, mut two) = (cluster.imap(1).await?, cluster.imap(1).await?);
    for number in 0..10 {
        one.append("INBOX", "", &mail::plain(&format!("flagged-{number}")))
            .await?
            .ok()?;
    }
    one.select("INBOX").await?;
    two.select("INBOX").await?;
    let uids = one.uids().await?;
    assert_eq!(uids.len(), 10);
    for uid in &uids {
        store_at_once(&mut one, &mut two, *uid).await?;
    }
    let mut third = cluster.imap(1).await?;
    third.select("INBOX").await?;
    for uid in uids {
        assert_eq!(third.flags(uid).await?, ["$Work", "\\Seen"]);
    }
    cluster.finish().await
}

/// Whoever leads hands over while a command is under way: its session hears OK all the same, and the flag is there once.
#[tokio::test]
async fn flags_of_two_clients_survive_while_the_leader_moves() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let (mut one, mut two) = (cluster.imap(1).await?, cluster.imap(1).await?);
    for number in 0..MESSAGES {
        let message = mail::plain(&format!("flagged-{number}"));
        one.append("INBOX", "", &message).await?.ok()?;
    }
    one.select("INBOX").await?;
    two.select("INBOX").await?;
    let uids = one.uids().await?;
    let (shard, _) = cluster.leader_of(1).await?;
    let operator = cluster.operator().await?;
    for (move_number, pair) in uids.chunks(2).enumerate() {
        let to = NodeId(move_number as u64 % 3 + 1);
        // A move that cannot be made now is no news here: the commands beside it are what is asked about.
        let moving = async {
            let _ = operator.cluster().leader_move(shard, to).await;
        };
        let storing = async {
            for uid in pair {
                store_at_once(&mut one, &mut two, *uid).await?;
            }
            anyhow::Ok(())
        };
        tokio::join!(moving, storing).1?;
    }
    let mut third = cluster.imap(1).await?;
    third.select("INBOX").await?;
    for uid in uids {
        assert_eq!(third.flags(uid).await?, ["$Work", "\\Seen"]);
    }
    cluster.finish().await
}

#[tokio::test]
async fn pythons_imaplib_logs_in_reads_flags_and_expunges() -> anyhow::Result<()> {
    if !installed("python3", "--version") {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let mail = mail::plain("python");
    assert!(cluster.lmtp().await?.deliver(SENDER, &[&account(1)], &mail).await?[0].is_done());
    let script = r#"
import imaplib, sys
host, port = sys.argv[1].rsplit(":", 1)
imap = imaplib.IMAP4(host, int(port))
assert imap.login(sys.argv[2], sys.argv[3])[0] == "OK"
assert imap.select("INBOX") == ("OK", [b"1"]), "one message"
status, data = imap.uid("FETCH", "1:*", "(UID FLAGS ENVELOPE BODYSTRUCTURE BODY.PEEK[])")
assert status == "OK" and b"Message-ID: <python@harness.example>" in data[0][1], data
assert imap.append("Sent", "(\\Seen)", None, b"Subject: sent\r\n\r\nhello\r\n")[0] == "OK"
assert imap.uid("STORE", "1:*", "+FLAGS", "(\\Deleted)")[0] == "OK"
assert imap.expunge() == ("OK", [b"1"]), "the message is gone"
assert imap.search(None, "ALL") == ("OK", [b""])
assert imap.select("Sent", readonly=True) == ("OK", [b"1"])
assert imap.logout()[0] == "BYE"
"#;
    let arguments = ["-c", script, cluster.imap_address(), &account(1), PASSWORD];
    run("python3", &arguments).await?;
    cluster.finish().await
}

#[tokio::test]
async fn pythons_imaplib_sorts_threads_and_hears_what_vanished() -> anyhow::Result<()> {
    if !installed("python3", "--version") {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let mail = mail::plain("python");
    assert!(cluster.lmtp().await?.deliver(SENDER, &[&account(1)], &mail).await?[0].is_done());
    let script = r#"
import imaplib, sys
host, port = sys.argv[1].rsplit(":", 1)
imap = imaplib.IMAP4(host, int(port))
assert imap.login(sys.argv[2], sys.argv[3])[0] == "OK"
assert imap.enable("QRESYNC")[0] == "OK"
reply = b"From: a@example.org\r\nSubject: =?utf-8?q?=C3=89t=C3=A9?=\r\nReferences: <python@harness.example>\r\n\r\nOn part.\r\n"
assert imap.append("INBOX", None, None, reply)[0] == "OK"
assert imap.select("INBOX") == ("OK", [b"2"])
assert imap.sort("REVERSE ARRIVAL", "UTF-8", "ALL") == ("OK", [b"2 1"])
assert imap.thread("REFERENCES", "UTF-8", "ALL") == ("OK", [b"(1 2)"])
assert imap.search(None, "SUBJECT", "ete") == ("OK", [b"2"])
status, data = imap.fetch("2", "(PREVIEW)")
assert status == "OK" and b'PREVIEW "On part."' in data[0], data
status, data = imap.getquotaroot("INBOX")
assert status == "OK" and b"STORAGE" in data[1][0], data
assert imap.store("1", "+FLAGS.SILENT", "(\\Deleted)")[0] == "OK"
assert imap.expunge()[0] == "OK"
assert imap.response("VANISHED") == ("VANISHED", [b"1"])
assert imap.uid("FETCH", "1:*", "(FLAGS) (CHANGEDSINCE 1 VANISHED)")[0] == "OK"
assert imap.response("VANISHED") == ("VANISHED", [b"(EARLIER) 1"])
assert imap.logout()[0] == "BYE"
"#;
    let arguments = ["-c", script, cluster.imap_address(), &account(1), PASSWORD];
    run("python3", &arguments).await?;
    cluster.finish().await
}

#[tokio::test]
async fn curl_fetches_the_mail_that_was_delivered() -> anyhow::Result<()> {
    if !installed("curl", "--version") {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let mail = mail::plain("curl");
    assert!(cluster.lmtp().await?.deliver(SENDER, &[&account(1)], &mail).await?[0].is_done());
    let url = format!("imap://{}/INBOX;MAILINDEX=1", cluster.imap_address());
    let user = format!("{}:{PASSWORD}", account(1));
    let fetched = run(
        "curl",
        &["--silent", "--show-error", "--max-time", "60", "--user", &user, &url],
    )
    .await?;
    assert_eq!(
        String::from_utf8_lossy(&fetched),
        String::from_utf8_lossy(&mail::stored(SENDER, &mail))
    );
    cluster.finish().await
}

/// RFC 3502 and RFC 8508 with bodies of every way: in the entry, ahead of it, the same one twice.
#[tokio::test]
async fn an_append_of_several_and_a_replace_are_one_step_whatever_their_sizes() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let mut imap = cluster.imap(1).await?;
    let mails = [
        mail::plain("small"),
        mail::large("large", 700 * 1024),
        mail::plain("small"),
        mail::large("medium", 100 * 1024),
    ];
    let mut append = "APPEND INBOX".to_owned();
    for mail in &mails {
        append += &format!(" {{{}+}}\r\n{}", mail.len(), String::from_utf8_lossy(mail));
    }
    let answer = imap.command(&append).await?.ok()?;
    assert!(answer.text.ends_with(" 1:4] Appended"), "{}", answer.text);
    imap.select("INBOX").await?;
    let kept: Vec<Vec<u8>> = imap.bodies().await?.into_iter().map(|(_, body)| body).collect();
    assert!(kept == mails, "what was appended is what is there");

    let better = mail::large("better", 300 * 1024);
    let replace = format!(
        "UID REPLACE 2 INBOX {{{}+}}\r\n{}",
        better.len(),
        String::from_utf8_lossy(&better)
    );
    imap.command(&replace).await?.ok()?;
    assert_eq!(imap.uids().await?, [1, 3, 4, 5]);
    assert!(imap.body(5).await? == better);
    assert!(imap.command(&replace).await?.ok().is_err(), "it is gone already");
    assert_eq!(imap.uids().await?, [1, 3, 4, 5]);
    cluster.finish().await
}

/// Runs a program that must succeed; gives what it printed.
async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await
        .context(program.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program}: {}: {said}", output.status);
    Ok(output.stdout)
}
