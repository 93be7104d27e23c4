//! Bodies too large for an answer, on streams of their own.
//!
//! A body never changes and any replica may serve it, so a download that breaks off goes on where it stopped, perhaps elsewhere. The node
//! checks the hash of the whole before the first byte; here only the length is checked. The bytes are held once, in one piece.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use malle_proto::v1::DownloadRequest;
use malle_proto::v1::mail_client::MailClient;
use malle_proto::{Channel, limits};
use malle_rt::Instant;

use crate::core::{Core, Place, Prefer};
use crate::error::{Error, Failure};

/// Bytes that came so far.
type Held = Mutex<BytesMut>;

fn with<T>(held: &Held, work: impl FnOnce(&mut BytesMut) -> T) -> T {
    work(&mut held.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The bytes that `request` asks for, or what there is of them. `begun` holds bytes before `request.offset` that the caller has already and
/// wants in front.
pub(crate) async fn download(
    core: &Core,
    deadline: Instant,
    place: Place,
    request: DownloadRequest,
    begun: &[u8],
) -> Result<Bytes, Error> {
    let length = request.length.min(limits::MESSAGE_MAX_BYTES as u64);
    let mut space = BytesMut::with_capacity(begun.len() + length as usize);
    space.extend_from_slice(begun);
    let held: Arc<Held> = Arc::new(Mutex::new(space));
    let whole = Piece {
        begun: begun.len() as u64,
        offset: request.offset,
        length,
    };
    let done = core.repeat(place, Prefer::Leader, true, deadline, |at, shard, _| {
        let (held, request) = (
            held.clone(),
            DownloadRequest {
                shard: shard.0,
                ..request.clone()
            },
        );
        async move { receive(at.mail(), request, whole, &held).await }
    });
    done.await?;
    Ok(with(&held, std::mem::take).freeze())
}

/// What is wanted: `length` bytes from `offset` on, behind `begun` bytes that were there before.
#[derive(Clone, Copy)]
struct Piece {
    begun: u64,
    offset: u64,
    length: u64,
}

/// One try: takes what comes until all is here. `held` keeps what came when the stream breaks off.
async fn receive(
    mut mail: MailClient<Channel>,
    mut request: DownloadRequest,
    wanted: Piece,
    held: &Held,
) -> Result<(), Failure> {
    let broken = |status: tonic::Status| Failure::from_status(&status);
    let mut have = with(held, |held| held.len() as u64) - wanted.begun;
    if have == wanted.length {
        return Ok(());
    }
    request.offset = wanted.offset + have;
    request.length = wanted.length - have;
    let mut chunks = mail.download(request).await.map_err(broken)?.into_inner();
    // Until the first chunk tells the size of the whole there is no telling where it ends.
    let mut end = None;
    while let Some(chunk) = chunks.message().await.map_err(broken)? {
        let end = *end.get_or_insert(chunk.size_bytes.saturating_sub(wanted.offset).min(wanted.length));
        have += chunk.data.len() as u64;
        if have > end {
            return Err(Failure::Answer(Error::Internal(
                "a node sent more of a body than was asked for".to_owned(),
            )));
        }
        with(held, |held| held.extend_from_slice(&chunk.data));
    }
    match end {
        Some(end) if have == end => Ok(()),
        _ => Err(Failure::Broken("the download broke off".to_owned())),
    }
}
