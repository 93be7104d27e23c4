//! Messages that an account appends: one, or several in one step.

use bytes::Bytes;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{self, body};
use malle_proto::{MailboxId, OpId, Uid, limits};
use std::sync::Arc;

use super::{Account, bytes};
use crate::convert;
use crate::core::Upload;
use crate::error::Error;
use crate::types::{NewMessage, Stored};

impl Account {
    /// Appends a message.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::OverQuota`], [`Error::TooLarge`].
    pub async fn append(&self, mailbox: MailboxId, message: NewMessage, op_id: OpId) -> Result<Stored, Error> {
        self.append_which(bytes(mailbox.as_bytes()), String::new(), message, op_id)
            .await
    }

    /// As [`Account::append`], to the mailbox that has this full name when the message is stored.
    ///
    /// # Errors
    /// As [`Account::append`]; [`Error::Invalid`] for a name that only holds other mailboxes.
    pub async fn append_to(&self, name: &str, message: NewMessage, op_id: OpId) -> Result<Stored, Error> {
        self.append_which(Bytes::new(), name.to_owned(), message, op_id).await
    }

    async fn append_which(
        &self,
        mailbox: Bytes,
        mailbox_name: String,
        message: NewMessage,
        op_id: OpId,
    ) -> Result<Stored, Error> {
        if message.body.len() > limits::MESSAGE_MAX_BYTES {
            return Err(Error::TooLarge {
                limit_bytes: limits::MESSAGE_MAX_BYTES as u64,
            });
        }
        let (inline, upload) = rides_or_goes_ahead(message.body, limits::INLINE_BODY_MAX_BYTES);
        let (internal_date_ms, zone) = message.internal_date.unwrap_or((0, 0));
        let call = v1::Append {
            account: self.account(),
            op_id: convert::op_id(op_id),
            mailbox,
            mailbox_name,
            flags: convert::flags(message.flags),
            internal_date_ms,
            internal_date_zone_minutes: i32::from(zone),
            body: inline,
        };
        let uploads = upload.into_iter().map(|upload| (0, upload)).collect();
        let reply = answer!(self.write(Call::Append(call), uploads).await?, Append)?;
        let appended = reply
            .appended
            .ok_or_else(|| Error::Internal("a node sent an empty answer".to_owned()))?;
        convert::stored(&appended)
    }

    /// Appends several messages to the mailbox with this full name, all of them or none (RFC 3502), in the order of their UIDs. With
    /// `replaces` that message goes in the same step (RFC 8508). At most [`limits::APPENDS_PER_COMMAND_MAX`], together at most
    /// [`limits::MESSAGE_MAX_BYTES`].
    ///
    /// # Errors
    /// As [`Account::append_to`]; [`Error::Limit`] for too many, [`Error::Invalid`] when what is to be replaced is not there.
    pub async fn append_all_to(
        &self,
        name: &str,
        messages: Vec<NewMessage>,
        replaces: Option<(MailboxId, Uid)>,
        op_id: OpId,
    ) -> Result<Vec<Stored>, Error> {
        let named = (Bytes::new(), name.to_owned());
        self.append_all_which(named, messages, replaces, op_id).await
    }

    /// As [`Account::append_all_to`], to the mailbox with this id.
    ///
    /// # Errors
    /// As [`Account::append_all_to`].
    pub async fn append_all(
        &self,
        mailbox: MailboxId,
        messages: Vec<NewMessage>,
        op_id: OpId,
    ) -> Result<Vec<Stored>, Error> {
        let which = (bytes(mailbox.as_bytes()), String::new());
        self.append_all_which(which, messages, None, op_id).await
    }

    /// To the mailbox with this id, or this name.
    async fn append_all_which(
        &self,
        (mailbox, mailbox_name): (Bytes, String),
        messages: Vec<NewMessage>,
        replaces: Option<(MailboxId, Uid)>,
        op_id: OpId,
    ) -> Result<Vec<Stored>, Error> {
        if messages.iter().map(|message| message.body.len()).sum::<usize>() > limits::MESSAGE_MAX_BYTES {
            return Err(Error::TooLarge {
                limit_bytes: limits::MESSAGE_MAX_BYTES as u64,
            });
        }
        let count = messages.len();
        let (mut arriving, mut uploads) = (Vec::with_capacity(count), Vec::new());
        // What rides along in one request is together no more than two of the largest that may ride alone.
        let mut riding_max = 2 * limits::INLINE_BODY_MAX_BYTES;
        for (number, message) in messages.into_iter().enumerate() {
            let size = message.body.len();
            let (inline, upload) = rides_or_goes_ahead(message.body, riding_max.min(limits::INLINE_BODY_MAX_BYTES));
            riding_max -= inline.as_ref().map_or(0, |_| size);
            uploads.extend(upload.map(|upload| (number, upload)));
            let (internal_date_ms, zone) = message.internal_date.unwrap_or((0, 0));
            arriving.push(v1::Arriving {
                flags: convert::flags(message.flags),
                internal_date_ms,
                internal_date_zone_minutes: i32::from(zone),
                body: inline,
            });
        }
        let call = v1::AppendAll {
            account: self.account(),
            op_id: convert::op_id(op_id),
            mailbox,
            mailbox_name,
            messages: arriving,
            replaces: replaces.map(|(mailbox, uid)| v1::MessageAt {
                mailbox: bytes(mailbox.as_bytes()),
                uid: uid.0,
            }),
        };
        let reply = answer!(self.write(Call::AppendAll(call), uploads).await?, AppendAll)?;
        if reply.appended.len() != count {
            return Err(Error::Internal(
                "a node answered for another number of messages".to_owned(),
            ));
        }
        reply.appended.iter().map(convert::stored).collect()
    }
}

/// The body for the request, or ahead of it when it is larger than `riding_max` bytes.
fn rides_or_goes_ahead(body: Bytes, riding_max: usize) -> (Option<v1::Body>, Option<Arc<Upload>>) {
    if body.len() > riding_max {
        return (None, Some(Upload::new(body)));
    }
    let source = Some(body::Source::Inline(body));
    (Some(v1::Body { source }), None)
}
