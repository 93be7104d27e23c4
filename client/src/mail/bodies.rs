//! The bytes of an account's messages.
//!
//! A body that fits comes inside an answer on the mail stream, small ones several at a time; the rest of a larger one comes on a stream of
//! its own. A body never changes, so nothing here needs to be fresh.

use bytes::Bytes;
use malle_proto::v1;
use malle_proto::v1::mail_reply::Result as Answer;
use malle_proto::v1::mail_request::Call;
use malle_proto::{MailboxId, Uid, limits};

use super::{Account, bytes};
use crate::convert;
use crate::core::Place;
use crate::download::download;
use crate::error::Error;
use crate::types::UidRange;

impl Account {
    /// The bytes of a message.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Corrupt`] when no replica has them whole.
    pub async fn read_body(&self, mailbox: MailboxId, uid: Uid) -> Result<Bytes, Error> {
        let (first, size) = self
            .read_inline(mailbox, uid, 0, limits::INLINE_BODY_MAX_BYTES as u64)
            .await?;
        let held = first.len() as u64;
        if held >= size {
            return Ok(first);
        }
        self.download(mailbox, uid, held, size - held, &first).await
    }

    /// Small messages whole, in rising order: as many of `uids` (sorted, apart) from the first on as an answer takes. One that is missing in
    /// the answer may be there all the same: [`Account::read_body`] tells.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the mailbox.
    pub async fn read_bodies(&self, mailbox: MailboxId, uids: &[UidRange]) -> Result<Vec<(Uid, Bytes)>, Error> {
        let now = &uids[..uids.len().min(limits::UID_RANGES_PER_COMMAND_MAX)];
        let call = v1::ReadBodies {
            account: self.account(),
            mailbox: bytes(mailbox.as_bytes()),
            uids: convert::ranges(now),
        };
        let reply = answer!(self.read(Call::ReadBodies(call)).await?, ReadBodies)?;
        let bodies = reply.bodies.into_iter();
        Ok(bodies.map(|body| (Uid(body.uid), body.data)).collect())
    }

    /// Bytes `[offset, offset + length)` of a message, or what there is of them.
    ///
    /// # Errors
    /// As [`Account::read_body`].
    pub async fn read_body_range(
        &self,
        mailbox: MailboxId,
        uid: Uid,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, Error> {
        match length {
            0 => Ok(Bytes::new()),
            _ if length <= limits::INLINE_BODY_MAX_BYTES as u64 => self
                .read_inline(mailbox, uid, offset, length)
                .await
                .map(|(data, _)| data),
            _ => self.download(mailbox, uid, offset, length, &[]).await,
        }
    }

    /// At most [`limits::INLINE_BODY_MAX_BYTES`] of a body, and the size of the whole.
    async fn read_inline(&self, mailbox: MailboxId, uid: Uid, offset: u64, length: u64) -> Result<(Bytes, u64), Error> {
        let mailbox = bytes(mailbox.as_bytes());
        let call = v1::ReadBody {
            account: self.account(),
            mailbox,
            uid: uid.0,
            offset,
            length,
        };
        let reply = answer!(self.read(Call::ReadBody(call)).await?, ReadBody)?;
        Ok((reply.data, reply.size_bytes))
    }

    /// More of a body than fits into an answer; see [`crate::download`].
    async fn download(
        &self,
        mailbox: MailboxId,
        uid: Uid,
        offset: u64,
        length: u64,
        begun: &[u8],
    ) -> Result<Bytes, Error> {
        let (core, deadline) = (&self.client.core, self.client.until());
        let request = v1::DownloadRequest {
            shard: 0,
            token: self.session.token(core, deadline).await,
            account: self.account(),
            mailbox: bytes(mailbox.as_bytes()),
            uid: uid.0,
            offset,
            length,
        };
        download(core, deadline, Place::Account(self.id()), request, begun).await
    }
}
