//! METADATA (RFC 5464) as it is kept.

use bytes::Bytes;
use malle_proto::{AccountId, ModSeq};

use super::{account_row, named};
use crate::shard::{Refusal, keys, rows};
use crate::view::{Fault, Flow, View};

/// An entry of METADATA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Its name, in ASCII lower case.
    pub entry: String,
    /// `None`: it was taken away.
    pub value: Option<Bytes>,
    /// When it was set or taken away.
    pub modseq: ModSeq,
}

/// The entries of a mailbox, or of the account itself when the name is empty, sorted: those that are there, and with a `since` instead those
/// that were set or taken away after it. (Of the latter as many are remembered as a mailbox may have.)
///
/// # Errors
/// A [`Fault`]; inside, as [`named`].
pub fn annotations(
    view: &dyn View,
    account: AccountId,
    name: &str,
    since: Option<ModSeq>,
) -> Result<Result<Vec<Annotation>, Refusal>, Fault> {
    let mailbox = if !name.is_empty() {
        match named(view, account, name)? {
            Ok(mailbox) => mailbox,
            Err(refusal) => return Ok(Err(refusal)),
        }
    } else if account_row(view, account)?.is_some() {
        keys::ROOT
    } else {
        return Ok(Err(Refusal::NoAccount));
    };
    let range = keys::of_mailbox(account, keys::kind::ANNOTATION, mailbox);
    let entry_at = range.from.len();
    let mut entries = Vec::new();
    view.scan(&range.from, &range.to, &mut |key, value| {
        let entry = key.get(entry_at..).ok_or_else(rows::bad_key)?;
        let entry = String::from_utf8(entry.to_vec()).map_err(|_| rows::bad_key())?;
        let row: rows::Annotation = rows::read(value, "annotation")?;
        let wanted = since.map_or(row.value.is_some(), |since| row.modseq > since.0);
        if wanted {
            entries.push(Annotation {
                entry,
                value: row.value,
                modseq: ModSeq(row.modseq),
            });
        }
        Ok(Flow::More)
    })?;
    Ok(Ok(entries))
}
