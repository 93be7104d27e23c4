//! Lists the mails of an INBOX and prints the last one:
//! `read_mailbox NODE CA CERT KEY u1@example.org PASSWORD` (the certificate is a gateway's, with the role imap).

use anyhow::{Context as _, bail};
use malle_client::{Client, Config, Flags, ModSeq, SpecialUse, Uid, UidRange};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, ca, cert, key, login, password] = &arguments[..] else {
        bail!("usage: read_mailbox NODE CA CERT KEY LOGIN PASSWORD");
    };
    let client = Client::connect(Config::from_files(std::slice::from_ref(node), ca, cert, key)?).await?;
    let account = client.login(login, password).await?;

    let mailboxes = account.mailboxes().await?;
    let inbox = mailboxes
        .iter()
        .find(|mailbox| mailbox.special_use == SpecialUse::Inbox)
        .context("no INBOX")?;

    let mut from = Some(Uid(1));
    let mut last = None;
    // Rows come in pages, envelope and all, without a body being read.
    while let Some(first) = from {
        let page = account
            .fetch(
                inbox.id,
                &[UidRange {
                    first,
                    last: Uid(u32::MAX),
                }],
                ModSeq(0),
                true,
            )
            .await?;
        for message in page.messages {
            let seen = if message.flags.system & Flags::SEEN == 0 {
                "new"
            } else {
                "   "
            };
            let subject = message
                .summary
                .and_then(|summary| summary.envelope)
                .and_then(|envelope| envelope.subject);
            let subject = subject.unwrap_or_default();
            println!(
                "{seen} {:6} {:9} {}",
                message.uid,
                message.size_bytes,
                String::from_utf8_lossy(&subject)
            );
            last = Some(message.uid);
        }
        from = page.resume_from;
    }
    if let Some(uid) = last {
        println!(
            "\n{}",
            String::from_utf8_lossy(&account.read_body(inbox.id, uid).await?)
        );
    }
    Ok(())
}
