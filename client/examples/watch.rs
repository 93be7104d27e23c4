//! Says what happens in an account, as it happens:
//! `watch NODE CA CERT KEY u1@example.org PASSWORD` (the certificate is a gateway's, with the role imap).

use anyhow::bail;
use malle_client::{Class, Client, Config, ModSeq};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, ca, cert, key, login, password] = &arguments[..] else {
        bail!("usage: watch NODE CA CERT KEY LOGIN PASSWORD");
    };
    let client = Client::connect(Config::from_files(std::slice::from_ref(node), ca, cert, key)?).await?;
    let account = client.login(login, password).await?;

    // Begin to watch before looking, so that nothing falls in between.
    let mut watch = account.watch().await?;
    let mut known: ModSeq = account.status().await?.modseq;
    loop {
        let event = match watch.next().await {
            Ok(event) => event,
            Err(error) if error.class() == Class::Retry => continue,
            Err(error) => return Err(error.into()),
        };
        if event.modseq <= known {
            continue;
        }
        for mailbox in account
            .mailboxes()
            .await?
            .iter()
            .filter(|mailbox| mailbox.highest_modseq > known)
        {
            let changes = account.changes(mailbox.id, known).await?;
            let (changed, gone) = (changes.changed.len(), changes.vanished.len());
            println!("{}: {changed} new or changed, {gone} ranges gone", mailbox.name);
        }
        known = event.modseq;
    }
}
