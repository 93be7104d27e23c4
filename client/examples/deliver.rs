//! Delivers a mail from standard input to one address:
//! `deliver NODE CA CERT KEY u1@example.org < mail.eml` (the certificate is a gateway's, with the role lmtp).

use std::io::Read as _;

use anyhow::{Context as _, bail};
use malle_client::{Class, Client, Config, Recipient, SpecialUse, fresh_op_id};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [node, ca, cert, key, address] = &arguments[..] else {
        bail!("usage: deliver NODE CA CERT KEY ADDRESS < MAIL");
    };
    let mut mail = Vec::new();
    std::io::stdin().read_to_end(&mut mail)?;

    let client = Client::connect(Config::from_files(std::slice::from_ref(node), ca, cert, key)?).await?;
    let resolved = client.resolve(address).await?.context("no such address")?;

    // One op id for this mail and this recipient, however often it is tried: it is stored once.
    let recipient = Recipient {
        account: resolved.account,
        op_id: fresh_op_id(),
        into: SpecialUse::Inbox,
    };
    let body = bytes::Bytes::from(mail);
    loop {
        let mut answers = client.deliver(std::slice::from_ref(&recipient), body.clone()).await;
        match answers.remove(0) {
            Ok(stored) => {
                println!("stored as UID {} of UIDVALIDITY {}", stored.uid, stored.uid_validity);
                return Ok(());
            }
            Err(error) if error.class() == Class::Retry => eprintln!("{error}; once more"),
            Err(error) => return Err(error.into()),
        }
    }
}
