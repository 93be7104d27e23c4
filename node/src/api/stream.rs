//! The standing stream of a client: many requests in flight, each with a deadline of its own, answers as they come.

use std::sync::Arc;

use futures::StreamExt;
use malle_proto::limits;
use malle_proto::v1::{MailReply, MailRequest};
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
            let (api, peer, answers) = (api.clone(), peer.clone(), answers.clone());
            malle_rt::spawn(async move {
                let reply = api.answer(&peer, request).await;
                // A client that went away asks again elsewhere, with the same op id.
                let _ = answers.send(Ok(reply)).await;
                drop(place);
            });
        }
    });
    out
}
