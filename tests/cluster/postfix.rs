//! Debian's Postfix with a gateway as its only directory: it asks who a recipient is, delivers by its own LMTP client, and lets people submit.

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::{Cluster, PASSWORD, Postfix, Services, Smtp, account, free_ports, mail};
use malle_client::{AppPassword, Who, fresh_op_id};

const SENDER: &str = "paul@example.net";

#[tokio::test]
async fn postfix_delivers_and_takes_submissions_with_malle_as_its_only_directory() -> anyhow::Result<()> {
    if !Postfix::possible() {
        return Ok(());
    }
    let mut cluster = Cluster::start().await?;
    let [lmtp, maps, sasl] = &free_ports(3)?[..] else {
        anyhow::bail!("three ports were asked for")
    };
    let sections = format!("[lmtp]\nlisten = [{lmtp:?}]\n[postfix]\nmaps = [{maps:?}]\nsasl = [{sasl:?}]\n");
    cluster.gateway("relayed", &sections, sasl).await?;
    let postfix = Postfix::start(&Services { maps, sasl, lmtp }).await?;

    delivers(&cluster, &postfix).await?;
    takes_submissions(&cluster, &postfix).await?;
    // Nothing was put off or came back.
    postfix.is_empty().await?;
    let log = postfix.log()?;
    for bad in ["status=deferred", "status=bounced", "fatal:", "warning:"] {
        let mut lines = log.lines().filter(|line| line.contains(bad));
        // A wrong password is one of its warnings.
        let told = lines.find(|line| !line.contains("authentication failed"));
        ensure!(told.is_none(), "{told:?}");
    }
    drop(postfix);
    cluster.finish().await
}

async fn delivers(cluster: &Cluster, postfix: &Postfix) -> anyhow::Result<()> {
    let mut smtp = Smtp::connect(&postfix.smtp).await?;
    smtp.expect(&format!("MAIL FROM:<{SENDER}>"), "250").await?;
    smtp.expect("RCPT TO:<nobody@example.org>", "550 5.1.1").await?;
    smtp.expect("RCPT TO:<u1@elsewhere.example>", "554 5.7.1").await?;
    smtp.expect("RSET", "250").await?;
    let to = [account(1), account(2), "u3+lists@example.org".to_owned()];
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    smtp.mail(SENDER, &to, &mail::plain("relayed")).await?;
    // A mail with lines that begin with dots, and one of some size.
    let dots = [&mail::plain("dots")[..], b"..\r\n...\r\n"].concat();
    smtp.mail(SENDER, &[&account(1)], &dots).await?;
    let large = [
        &mail::plain("large")[..],
        &"0123456789abcdef\r\n".repeat(20_000).into_bytes(),
    ]
    .concat();
    smtp.mail(SENDER, &[&account(1)], &large).await?;
    smtp.expect("QUIT", "221").await?;
    postfix.is_empty().await?;
    for (number, ids) in [
        (1, &["relayed", "dots", "large"][..]),
        (2, &["relayed"]),
        (3, &["relayed"]),
    ] {
        let mut imap = cluster.imap(number).await?;
        imap.select("INBOX").await?;
        let bodies = imap.bodies().await?;
        ensure!(bodies.len() == ids.len(), "account {number} has {} mails", bodies.len());
        for id in ids {
            let body = bodies.iter().find(|(_, body)| mail::id_of(body).as_deref() == Some(id));
            let (_, body) = body.ok_or_else(|| anyhow::anyhow!("account {number}: no mail {id}"))?;
            let text = String::from_utf8_lossy(body);
            ensure!(
                text.starts_with("Return-Path: <paul@example.net>\r\n"),
                "{id}: {text:.100}"
            );
            ensure!(
                text.contains("by mx.example.net (Postfix)"),
                "{id} has come through Postfix"
            );
            ensure!(*id != "dots" || text.ends_with("\r\n.\r\n..\r\n"), "a dot more or less");
            ensure!(*id != "large" || body.len() > 18 * 20_000, "{} bytes", body.len());
        }
    }
    Ok(())
}

async fn takes_submissions(cluster: &Cluster, postfix: &Postfix) -> anyhow::Result<()> {
    let directory = cluster.operator().await?.directory();
    let id = directory.account_show(Who::Address(account(4))).await?.id;
    directory
        .address_add(id, "first.last@example.org", false, fresh_op_id())
        .await?;
    let (phone, reader) = ("abcde-fghij-kmnpq-rstuv", "zzzzz-yyyyy-xxxxx-wwwww");
    for (name, secret, mail) in [("phone", phone, false), ("reader", reader, true)] {
        let wanted = AppPassword {
            name: name.into(),
            mail,
            submission: !mail,
            created_ms: 0,
        };
        directory.app_password_add(id, wanted, secret, fresh_op_id()).await?;
    }
    let plain = |password: &str| {
        format!(
            "AUTH PLAIN {}",
            STANDARD.encode(format!("\0{}\0{password}", account(4)))
        )
    };
    let mut smtp = Smtp::connect(&postfix.submission).await?;
    smtp.expect(&format!("MAIL FROM:<{}>", account(4)), "250").await?;
    smtp.expect(&format!("RCPT TO:<{}>", account(5)), "553 5.7.1").await?;
    smtp.expect("RSET", "250").await?;
    smtp.expect(&plain("wrong"), "535").await?;
    smtp.expect(&plain(reader), "535").await?;
    smtp.expect(&plain(phone), "235").await?;
    // Somebody else's address, and its own by another name.
    smtp.expect(&format!("MAIL FROM:<{}>", account(5)), "250").await?;
    smtp.expect(&format!("RCPT TO:<{}>", account(5)), "553 5.7.1").await?;
    smtp.expect("RSET", "250").await?;
    smtp.mail("first.last@example.org", &[&account(5)], &mail::plain("submitted"))
        .await?;
    smtp.expect("QUIT", "221").await?;

    let mut smtp = Smtp::connect(&postfix.submission).await?;
    smtp.expect("AUTH LOGIN", "334").await?;
    smtp.expect(&STANDARD.encode(account(4)), "334").await?;
    smtp.expect(&STANDARD.encode(PASSWORD), "235").await?;
    smtp.mail(&account(4), &[&account(5)], &mail::plain("submitted-again"))
        .await?;
    smtp.expect("QUIT", "221").await?;
    postfix.is_empty().await?;
    let mut imap = cluster.imap(5).await?;
    imap.select("INBOX").await?;
    ensure!(imap.uids().await?.len() == 2);
    Ok(())
}
