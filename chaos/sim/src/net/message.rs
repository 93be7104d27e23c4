//! Bodies of requests and answers on their way: read at one end, delayed, given out at the other.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use malle_rt::Instant;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;
use tonic::body::Body as GrpcBody;

use super::Net;
use super::wire::Wire;

/// Frames on their way in one direction of a stream: a window, as HTTP/2 has one.
const WINDOW_FRAMES: usize = 64;

/// One direction of a stream.
#[derive(Clone)]
pub(super) struct Direction {
    pub net: Arc<Net>,
    pub wire: Arc<Wire>,
    /// From the caller to the node, or back.
    pub forward: bool,
}

enum Passage {
    Frame(Frame<Bytes>),
    /// The sender said all. Without it the sender has died, and nobody knows what it would have said.
    End,
}

impl Direction {
    fn places(&self) -> (u32, u32) {
        let (from, to) = self.wire.places();
        if self.forward { (from, to) } else { (to, from) }
    }

    /// When a message that is sent now arrives: after the link is open, and not before `after`.
    pub async fn send(&self, bytes: usize, after: Option<Instant>) -> Instant {
        let (from, to) = self.places();
        self.net.until_open(from, to).await;
        self.net.arrival(from, to, bytes, after)
    }

    /// Waits for the arrival; a link that was cut meanwhile lets it through after it has healed.
    pub async fn arrive(&self, at: Instant) {
        malle_rt::sleep_until(at).await;
        let (from, to) = self.places();
        if !self.net.is_open(from, to) {
            self.net.until_open(from, to).await;
            malle_rt::sleep(super::RESEND).await;
        }
    }

    /// Carries `body` to the other end. What the task here reads belongs to the host that calls this.
    pub fn carry(&self, body: GrpcBody, after: Option<Instant>) -> GrpcBody {
        let (out, on_the_way) = mpsc::channel(WINDOW_FRAMES);
        let (arrived, given) = mpsc::channel(1);
        let (gone, left) = oneshot::channel();
        malle_rt::spawn(self.clone().pump(body, after, out, left));
        malle_rt::sim::spawn_outside(self.clone().deliver(on_the_way, arrived));
        GrpcBody::new(Arriving { given, _gone: gone })
    }

    async fn pump(
        self,
        mut body: GrpcBody,
        mut after: Option<Instant>,
        out: mpsc::Sender<(Instant, Passage)>,
        mut left: oneshot::Receiver<()>,
    ) {
        loop {
            let frame = tokio::select! {
                biased;
                // Nobody reads any more: as a reset of the stream does, this ends what is being sent.
                _ = &mut left => return,
                () = self.wire.broken() => return,
                frame = body.frame() => frame,
            };
            let passage = match frame {
                None => Passage::End,
                Some(Ok(frame)) => Passage::Frame(frame),
                // A sender that fails resets its stream.
                Some(Err(_)) => return,
            };
            let (bytes, last) = match &passage {
                Passage::Frame(frame) => (frame.data_ref().map_or(0, Bytes::len), frame.is_trailers()),
                Passage::End => (0, true),
            };
            let at = self.send(bytes, after).await;
            after = Some(at);
            if out.send((at, passage)).await.is_err() {
                return;
            }
            if last {
                let _ = out.send((at, Passage::End)).await;
                return;
            }
        }
    }

    async fn deliver(
        self,
        mut on_the_way: mpsc::Receiver<(Instant, Passage)>,
        arrived: mpsc::Sender<Result<Frame<Bytes>, Status>>,
    ) {
        while let Some((at, passage)) = on_the_way.recv().await {
            tokio::select! {
                biased;
                () = self.wire.broken() => break,
                () = self.arrive(at) => {}
            }
            match passage {
                Passage::End => return,
                Passage::Frame(frame) => {
                    if arrived.send(Ok(frame)).await.is_err() {
                        return;
                    }
                }
            }
        }
        // The reader goes, or learns when the connection breaks.
        tokio::select! {
            () = arrived.closed() => {}
            () = self.wire.broken() => {
                let _ = arrived.send(Err(self.wire.status())).await;
            }
        }
    }
}

/// A body at its destination.
struct Arriving {
    given: mpsc::Receiver<Result<Frame<Bytes>, Status>>,
    /// Tells the sender that its reader has gone.
    _gone: oneshot::Sender<()>,
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.given.poll_recv(context)
    }
}
