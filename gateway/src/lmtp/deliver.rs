//! From a mail received whole to one answer per recipient.
//!
//! A `250` leaves here only after the store said that the delivery is committed on a majority. Everything that is not known to be
//! done is a 4xx, and that is safe: the op id of a delivery is made of what the sender will send again (architecture, decision 6), so
//! the repeat finds the receipt of the first. What is absent: this file never decides that a recipient does not exist, that was
//! RCPT's linearizable read; an account that went away in between is a 451 and the next RCPT says it.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use malle_client::{Error, OpId, Recipient, Resolved, SpecialUse, Stored, fresh_op_id};

use super::body::Collected;
use super::header;
use super::reply::Reply;
use super::session::{TOO_LARGE, Transaction};

/// What LMTP asks of malle: [`malle_client::Client`], or a fake in tests.
pub trait Store: Clone + Send + Sync + 'static {
    /// Where an address leads; `None` only after a linearizable read.
    fn resolve(&self, address: &str) -> impl Future<Output = Result<Option<Resolved>, Error>> + Send;
    /// One answer per recipient, in their order.
    fn deliver(&self, recipients: &[Recipient], body: Bytes)
    -> impl Future<Output = Vec<Result<Stored, Error>>> + Send;
}

impl Store for malle_client::Client {
    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        self.resolve(address).await
    }

    async fn deliver(&self, recipients: &[Recipient], body: Bytes) -> Vec<Result<Stored, Error>> {
        self.deliver(recipients, body).await
    }
}

/// How the deliveries of one mail ended, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// One reply per accepted recipient, in order.
    pub replies: Vec<Reply>,
    /// How many of them are 250.
    pub stored: usize,
}

/// Delivers a mail to all recipients of its transaction.
pub async fn deliver<S: Store>(store: &S, transaction: &Transaction, mail: &Collected) -> Outcome {
    let marks = header::marks(mail.received());
    let into = if marks.spam {
        SpecialUse::Junk
    } else {
        SpecialUse::Inbox
    };
    // A recipient named twice is delivered once: both names would make the same op id anyway where it is made of the bytes.
    let mut places = BTreeMap::new();
    let mut recipients = Vec::new();
    for accepted in &transaction.recipients {
        let address = accepted.path.normalised();
        places.entry(address.clone()).or_insert_with(|| {
            let op_id = if marks.identified {
                repeatable_op_id(&transaction.mail.from.raw, &address, &mail.hash)
            } else {
                fresh_op_id()
            };
            recipients.push(Recipient {
                account: accepted.resolved.account,
                op_id,
                into,
            });
            recipients.len() - 1
        });
    }
    let answers = store.deliver(&recipients, mail.bytes.clone()).await;
    let mut outcome = Outcome::default();
    for accepted in &transaction.recipients {
        let place = places[&accepted.path.normalised()];
        let reply = match answers.get(place) {
            Some(Ok(stored)) => {
                outcome.stored += 1;
                stored_reply(&accepted.path.raw, recipients[place].op_id, stored)
            }
            Some(Err(error)) => refusal_reply(&accepted.path.raw, error),
            None => {
                tracing::error!(recipient = %accepted.path.raw, "the store gave no answer for a recipient");
                Reply::fixed(451, "4.3.0", "no answer for this recipient, try again later")
            }
        };
        outcome.replies.push(reply);
    }
    outcome
}

/// The op id of a delivery whose bytes tell it from its twins: the same envelope and bytes give the same op id in every session, on
/// every gateway, for good. Fields are length-prefixed so that no two envelopes run together.
fn repeatable_op_id(sender: &str, recipient: &str, body: &blake3::Hash) -> OpId {
    let mut hasher = blake3::Hasher::new_derive_key("malle 2026 lmtp delivery op id v1");
    for field in [sender.as_bytes(), recipient.as_bytes(), body.as_bytes()] {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    let mut op_id = [0; 16];
    op_id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    OpId(op_id)
}

fn stored_reply(recipient: &str, op_id: OpId, stored: &Stored) -> Reply {
    let again = if stored.repeated { " (already)" } else { "" };
    Reply::made(
        250,
        "2.6.0",
        &format!("<{recipient}> stored{again} id={op_id} uid={}", stored.uid),
    )
}

/// What a recipient's error means to the sender. Only what the mail itself can never change is a 5xx.
fn refusal_reply(recipient: &str, error: &Error) -> Reply {
    let (code, enhanced, text) = match error {
        Error::OverQuota { .. } => (452, "4.2.2", "the mailbox is full"),
        Error::TooLarge { .. } => return TOO_LARGE,
        Error::Suspended => (450, "4.2.1", "this mailbox is suspended, try again later"),
        Error::Busy(_) => (451, "4.3.2", "the store is busy, try again later"),
        // RFC 3463 3.4: mail system full.
        Error::DiskFull(_) => (452, "4.3.1", "the store has no room for mail now, try again later"),
        Error::AccountNotReady => (451, "4.3.0", "the mailbox is being made, try again later"),
        Error::Unavailable(_) => (451, "4.4.2", "the store does not answer, try again later"),
        other => {
            // Not the sender's doing and not expected: a person has to look.
            tracing::error!(recipient, error = %other, "a delivery failed in a way that needs attention");
            (451, "4.3.0", "the store cannot take this mail now, try again later")
        }
    };
    Reply::made(code, enhanced, &format!("<{recipient}> {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_id_depends_on_every_part_and_on_where_parts_end() {
        let body = blake3::hash(b"x");
        let base = repeatable_op_id("a@b", "c@d", &body);
        assert_eq!(base, repeatable_op_id("a@b", "c@d", &body));
        assert_ne!(base, repeatable_op_id("a@bc", "@d", &body));
        assert_ne!(base, repeatable_op_id("", "c@d", &body));
        assert_ne!(base, repeatable_op_id("a@b", "c@d", &blake3::hash(b"y")));
    }

    #[test]
    fn op_ids_of_earlier_releases_stay_what_they_were() {
        // A redelivery may meet a newer gateway than the delivery did: the derivation is a format, frozen with this value.
        let op_id = repeatable_op_id("a@b", "c@d", &blake3::hash(b"x"));
        assert_eq!(op_id.to_string(), "d4e67fecfeedca9b7cb84570267d2819");
    }

    #[test]
    fn a_full_store_is_told_from_a_full_mailbox() {
        let full = refusal_reply("u", &Error::DiskFull(std::time::Duration::ZERO));
        assert_eq!((full.code, full.enhanced), (452, "4.3.1"));
        let over_quota = refusal_reply("u", &Error::OverQuota { limit_bytes: 1 });
        assert_eq!((over_quota.code, over_quota.enhanced), (452, "4.2.2"));
    }

    #[test]
    fn only_the_mail_itself_is_refused_for_good() {
        let for_good = |error: Error| refusal_reply("u", &error).code >= 500;
        assert!(for_good(Error::TooLarge { limit_bytes: 1 }));
        for error in [
            Error::OverQuota { limit_bytes: 1 },
            Error::NotFound("account".into()),
            Error::Unavailable("x".into()),
            Error::DiskFull(std::time::Duration::ZERO),
            Error::AccountNotReady,
            Error::Denied("x".into()),
            Error::Internal("x".into()),
            Error::Corrupt("x".into()),
        ] {
            assert!(!for_good(error.clone()), "{error}");
        }
    }
}
