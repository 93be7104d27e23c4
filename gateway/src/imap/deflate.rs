//! COMPRESS=DEFLATE (RFC 4978): a stream that is deflated in both directions, without any header.
//!
//! Bounded on both sides: input is inflated only into the room that the reader offers, so a bomb of zeros is read no faster than it is parsed,
//! and no more than a little deflated output waits before the writer is held back. What is written reaches the client when it is flushed.
//! A session that compresses costs some 400 KiB more than one that does not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::BoxedIo;

/// Deflated bytes are read in pieces of this size.
const READ_BYTES: usize = 8 * 1024;
/// With so many deflated bytes waiting the writer waits too.
const WAITING_MAX_BYTES: usize = 64 * 1024;

/// A deflated stream over a bare one.
pub(super) struct Deflated {
    io: BoxedIo,
    inflate: Decompress,
    deflate: Compress,
    /// Deflated bytes that came.
    incoming: Vec<u8>,
    /// How many of them are inflated.
    inflated: usize,
    /// Deflated bytes to be sent.
    outgoing: Vec<u8>,
    /// How many of them are sent.
    sent: usize,
    /// Something was written since the last flush.
    unflushed: bool,
}

impl Deflated {
    pub(super) fn new(io: BoxedIo) -> Deflated {
        Deflated {
            io,
            inflate: Decompress::new(false),
            deflate: Compress::new(Compression::fast(), false),
            incoming: Vec::new(),
            inflated: 0,
            outgoing: Vec::new(),
            sent: 0,
            unflushed: false,
        }
    }

    /// Sends what is deflated already.
    fn poll_send(&mut self, context: &mut Context) -> Poll<io::Result<()>> {
        while self.sent < self.outgoing.len() {
            match ready!(Pin::new(&mut self.io).poll_write(context, &self.outgoing[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.outgoing.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Deflates all of `bytes`; then nothing that is deflated is held back inside.
    fn take_in(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let taken = self.step(bytes, FlushCompress::None)?;
            bytes = &bytes[taken..];
            if bytes.is_empty() && self.outgoing.len() < self.outgoing.capacity() {
                return Ok(());
            }
        }
    }

    /// Deflates what was taken in and is still held back. A flush that runs out of room is not taken up where it stopped: the next call only
    /// brings the rest of its bytes. So the rest is fetched, and the flush is asked for anew, until one had room to spare.
    fn bring_all(&mut self) -> io::Result<()> {
        loop {
            self.take_in(&[])?;
            self.step(&[], FlushCompress::Sync)?;
            if self.outgoing.len() < self.outgoing.capacity() {
                return Ok(());
            }
        }
    }

    /// One call of the compressor, with some room; how much it took.
    fn step(&mut self, bytes: &[u8], flush: FlushCompress) -> io::Result<usize> {
        self.outgoing.reserve(bytes.len() / 2 + 1024);
        let before = self.deflate.total_in();
        self.deflate
            .compress_vec(bytes, &mut self.outgoing, flush)
            .map_err(io::Error::other)?;
        Ok(usize::try_from(self.deflate.total_in() - before).unwrap_or(bytes.len()))
    }
}

impl AsyncRead for Deflated {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while buffer.remaining() > 0 {
            let (consumed, produced) = (this.inflate.total_in(), this.inflate.total_out());
            let status = this
                .inflate
                .decompress(
                    &this.incoming[this.inflated..],
                    buffer.initialize_unfilled(),
                    FlushDecompress::None,
                )
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            this.inflated += usize::try_from(this.inflate.total_in() - consumed).unwrap_or(0);
            let produced = usize::try_from(this.inflate.total_out() - produced).unwrap_or(0);
            buffer.advance(produced);
            if produced > 0 || status == Status::StreamEnd {
                return Poll::Ready(Ok(()));
            }
            if this.inflated < this.incoming.len() {
                // Neither consumed nor produced would be asked for ever.
                if this.inflate.total_in() == consumed {
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
                continue;
            }
            this.incoming.resize(READ_BYTES, 0);
            let mut more = ReadBuf::new(&mut this.incoming);
            let read = Pin::new(&mut this.io).poll_read(context, &mut more);
            let came = more.filled().len();
            this.incoming.truncate(came);
            this.inflated = 0;
            ready!(read)?;
            if came == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Deflated {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.outgoing.len() - this.sent > WAITING_MAX_BYTES {
            ready!(this.poll_send(context))?;
        }
        this.unflushed = true;
        this.take_in(bytes)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if std::mem::take(&mut this.unflushed) {
            this.bring_all()?;
        }
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(context))?;
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_flush_brings_all_that_was_written() {
        let mut state = 7u32;
        for size in (1..120).map(|step| step * 997) {
            let mut noise = Vec::with_capacity(size);
            while noise.len() < size {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.push(state.to_be_bytes()[0]);
            }
            let (near, mut far) = tokio::io::duplex(1024 * 1024);
            let mut stream = Deflated::new(Box::new(near));
            stream.write_all(&noise).await.unwrap();
            stream.flush().await.unwrap();
            // Nothing more comes from here on, so what is in the pipe is all that the flush brought.
            let mut raw = vec![0; 2 * size + 1000];
            let mut length = 0;
            let patience = std::time::Duration::from_secs(1);
            while let Ok(read) = tokio::time::timeout(patience, far.read(&mut raw[length..])).await {
                length += read.unwrap();
            }
            let mut inflated = Vec::with_capacity(size + 100);
            Decompress::new(false)
                .decompress_vec(&raw[..length], &mut inflated, FlushDecompress::Sync)
                .unwrap();
            assert!(inflated == noise, "of {size} bytes {} came", inflated.len());
        }
    }
}
