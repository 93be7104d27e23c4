//! The standing stream of a client: many requests in flight, each with a deadline of its own, answers as they come.

use std::sync::Arc;

use futures::StreamExt;
use malle_proto::limits;
use malle_proto::v1::mail_request::Call;
use malle_proto::v1::{MailReply, MailRequest, body};
use tokio::sync::{Semaphore, mpsc};
use tonic::{Status, Streaming};

use super::mail::MailApi;
use crate::security::Peer;

/// Answers that wait for a slow reader; beyond it the requests wait.
const ANSWERS_WAITING: usize = 64;

/// Serves one client stream until it ends. A reader that does not read holds up only itself: its requests keep their places.
pub(super) fn serve(
    api: MailApi,
    peer: Peer,
    mut requests: Streaming<MailRequest>,
) -> mpsc::Receiver<Result<MailReply, Status>> {
    let (answers, out) = mpsc::channel(ANSWERS_WAITING);
    malle_rt::spawn(async move {
        let places = Arc::new(Semaphore::new(limits::CALLS_PER_STREAM_MAX));
        while let Some(Ok(request)) = requests.next().await {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            // Taken before the next request is read: a client that sends more than there is room for is slowed down by HTTP/2.
            let room = match api.room.take(brought(&request)).await {
                Ok(room) => room,
                Err(refused) => {
                    if answers.send(Ok(api.refuse(request.id, refused))).await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let (api, peer, answers) = (api.clone(), peer.clone(), answers.clone());
            malle_rt::spawn(async move {
                let id = request.id;
                let (reply, _page) = match api.room.take(expected(&request)).await {
                    Ok(page) => (api.answer(&peer, request).await, Some(page)),
                    Err(refused) => (api.refuse(id, refused), None),
                };
                drop(room);
                // A client that went away asks again elsewhere, with the same op id.
                let _ = answers.send(Ok(reply)).await;
                drop(place);
            });
        }
    });
    out
}

/// Bytes of a body that a request brings along.
fn brought(request: &MailRequest) -> usize {
    let body = match &request.call {
        Some(Call::Deliver(deliver)) => &deliver.body,
        Some(Call::Append(append)) => &append.body,
        _ => return 0,
    };
    match body.as_ref().and_then(|body| body.source.as_ref()) {
        Some(body::Source::Inline(bytes)) => bytes.len(),
        Some(body::Source::Ticket(_)) | None => 0,
    }
}

/// Bytes that the answer may take, generously: it waits in memory until its reader takes it.
fn expected(request: &MailRequest) -> usize {
    match &request.call {
        Some(Call::Fetch(fetch)) => {
            let rows = match fetch.max_rows as usize {
                0 => limits::FETCH_PAGE_ROWS_MAX,
                rows => rows.min(limits::FETCH_PAGE_ROWS_MAX),
            };
            let row = if fetch.without_summary {
                1024
            } else {
                1024 + limits::INLINE_SUMMARY_MAX_BYTES
            };
            (rows * row).min(limits::FETCH_PAGE_BYTES_MAX)
        }
        Some(Call::ReadBody(read)) => read.length.min(limits::INLINE_BODY_MAX_BYTES as u64) as usize,
        Some(Call::ReadBodies(_)) => limits::BODIES_PAGE_BYTES_MAX,
        Some(Call::MailboxList(_) | Call::MailboxOpen(_) | Call::Changes(_)) => 128 * 1024,
        // A few hundred numbers at most.
        _ => 4 * 1024,
    }
}

#[cfg(test)]
mod tests {
    use malle_proto::limits;
    use malle_proto::v1::mail_request::Call;
    use malle_proto::v1::{Body, Deliver, Fetch, MailRequest, body};

    use super::{brought, expected};

    #[test]
    fn room_is_taken_for_what_a_request_brings_and_for_what_it_asks() {
        let request = |call| MailRequest {
            call: Some(call),
            ..MailRequest::default()
        };
        let source = Some(body::Source::Inline(vec![0; 7].into()));
        let deliver = request(Call::Deliver(Deliver {
            body: Some(Body { source }),
            ..Deliver::default()
        }));
        assert_eq!(brought(&deliver), 7);
        let fetch = |max_rows| {
            request(Call::Fetch(Fetch {
                max_rows,
                ..Fetch::default()
            }))
        };
        assert_eq!(brought(&fetch(1)), 0);
        assert_eq!(expected(&fetch(0)), limits::FETCH_PAGE_BYTES_MAX);
        assert_eq!(expected(&fetch(u32::MAX)), limits::FETCH_PAGE_BYTES_MAX);
        assert!(expected(&fetch(2)) < 16 * 1024);
        assert!(expected(&MailRequest::default()) > 0);
    }
}
