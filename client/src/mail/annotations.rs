//! METADATA (RFC 5464) of an account and its mailboxes.

use bytes::Bytes;
use malle_proto::ModSeq;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, mailbox_change};

use super::Account;
use crate::error::Error;
use crate::types::Annotation;

impl Account {
    /// The entries of a mailbox, or of the account itself when the name is empty, sorted: those that are there, and with `since` instead
    /// those that were set or went after it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for a name that only holds other mailboxes.
    pub async fn annotations(&self, name: &str, since: Option<ModSeq>) -> Result<Vec<Annotation>, Error> {
        let call = v1::Annotations {
            account: self.account(),
            name: name.to_owned(),
            consistency: self.freshness(),
            since_modseq: since.map(|modseq| modseq.0),
        };
        let reply = answer!(self.read(Call::Annotations(call)).await?, Annotations)?;
        let entries = reply.entries.into_iter();
        Ok(entries
            .map(|one| Annotation {
                entry: one.entry,
                value: one.value,
                modseq: ModSeq(one.modseq),
            })
            .collect())
    }

    /// Sets entries, or takes them away where there is no value; all or none.
    ///
    /// # Errors
    /// As [`Account::annotations`]; [`Error::Limit`] for too many, or a value that is too long.
    pub async fn annotate(&self, name: &str, entries: Vec<(String, Option<Bytes>)>) -> Result<(), Error> {
        let entries = entries.into_iter();
        let annotate = v1::MailboxAnnotate {
            name: name.to_owned(),
            entries: entries
                .map(|(entry, value)| v1::Annotation {
                    entry,
                    value,
                    modseq: 0,
                })
                .collect(),
        };
        let change = mailbox_change::Change::Annotate(annotate);
        self.change_mailbox(change).await.map(|_| ())
    }
}
