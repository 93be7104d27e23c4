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

    let mut left = Some(Uid(1));
    let mut newest = None;
    // Rows come in pages, envelope and all, without a body being read.
    while let Some(first) = left {
        let last = Uid(u32::MAX);
        let page = account
            .fetch(inbox.id, &[UidRange { first, last }], ModSeq(0), true)
            .await?;
        for message in page.messages {
            let seen = message.flags.system & Flags::SEEN != 0;
            let envelope = message.summary.and_then(|summary| summary.envelope);
            let subject = envelope.and_then(|envelope| envelope.subject).unwrap_or_default();
            let mark = if seen { ' ' } else { '*' };
            println!("{mark} {:6} {}", message.uid, String::from_utf8_lossy(&subject));
            newest = Some(message.uid);
        }
        left = page.resume_from;
    }
    if let Some(uid) = newest {
        let body = account.read_body(inbox.id, uid).await?;
        println!("\n{}", String::from_utf8_lossy(&body));
    }
    Ok(())
}
