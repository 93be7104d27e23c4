//! The stored form of a body: compressed where that pays, checked whenever it is opened.

use std::cell::RefCell;

use bytes::Bytes;
use malle_proto::{BodyHash, ShardId, limits};
use zstd::bulk::{Compressor, Decompressor};

use super::BodiesError;
use crate::controls;
use crate::peers::StoredBody;

const RAW: u32 = 0;
const ZSTD: u32 = 1;
/// The fastest level: mail compresses three times with it already.
const LEVEL: i32 = 1;
/// What is tried before a large body is compressed whole.
const PROBE_BYTES: usize = 64 * 1024;
/// Work on less than this is done where it is; a hop to the blocking pool would cost as much.
const INLINE_WORK_BYTES: u64 = 32 * 1024;

/// Runs `work` in place for a small body, on the blocking pool for a large one.
pub(super) async fn off_the_way<T: Send + 'static>(size: u64, work: impl FnOnce() -> T + Send + 'static) -> T {
    if size <= INLINE_WORK_BYTES {
        work()
    } else {
        malle_rt::blocking(work).await
    }
}

/// The name of a body.
pub(super) fn hash_of(body: &[u8]) -> BodyHash {
    BodyHash(*blake3::hash(body).as_bytes())
}

thread_local! {
    /// Working memory of zstd is large and costs more to make than a small mail costs to compress: each thread keeps its own.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => kept.insert(Compressor::new(LEVEL).ok()?),
        };
        compressor.compress(bytes).ok()
    })
}

fn decompressed(bytes: &[u8], size: usize) -> std::io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::new()?),
        };
        decompressor.decompress(bytes, size)
    })
}

fn pays(raw: usize, compressed: usize) -> bool {
    compressed < raw - raw / 10
}

/// Compresses where it gains a tenth; base64 of what is compressed already does not, and a probe tells.
pub(super) fn encode(shard: ShardId, hash: BodyHash, body: &Bytes) -> StoredBody {
    let raw = || StoredBody {
        shard,
        hash,
        size: body.len() as u64,
        encoding: RAW,
        stored: body.clone(),
    };
    let compress = |bytes: &[u8]| compressed(bytes).filter(|small| pays(bytes.len(), small.len()));
    if body.len() > PROBE_BYTES && compress(&body[..PROBE_BYTES]).is_none() {
        return raw();
    }
    match compress(body) {
        Some(small) => StoredBody {
            encoding: ZSTD,
            stored: small.into(),
            ..raw()
        },
        None => raw(),
    }
}

/// A body and its stored form, the one known to give the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checked {
    pub stored: StoredBody,
    pub body: Bytes,
}

/// Opens a stored body and checks its hash.
pub(super) async fn check(stored: StoredBody) -> Result<Checked, BodiesError> {
    off_the_way(stored.size, move || open(&stored).map(|body| Checked { stored, body })).await
}

/// The body itself, its hash checked.
fn open(stored: &StoredBody) -> Result<Bytes, BodiesError> {
    if stored.size > limits::MESSAGE_MAX_BYTES as u64 {
        return Err(BodiesError::TooLarge {
            limit_bytes: limits::MESSAGE_MAX_BYTES as u64,
        });
    }
    let size = stored.size as usize;
    // Compressed only where that pays; a longer stored form carries something that no hash covers.
    if stored.stored.len() > size {
        return Err(BodiesError::Corrupt("its stored form is longer than the body".into()));
    }
    let body = match stored.encoding {
        RAW => stored.stored.clone(),
        // `size` bounds what is allocated, whatever the compressed bytes claim.
        ZSTD => decompressed(&stored.stored, size)
            .map_err(|error| BodiesError::Corrupt(format!("zstd: {error}")))?
            .into(),
        other => return Err(BodiesError::Corrupt(format!("encoding {other} is unknown here"))),
    };
    let matches = || hash_of(&body) == stored.hash || controls::is_on(controls::Control::SkipBodyCheck);
    if body.len() != size || !matches() {
        return Err(BodiesError::Corrupt("its hash does not match".into()));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut out);
        out
    }

    fn stored(body: Vec<u8>) -> StoredBody {
        let body = Bytes::from(body);
        encode(ShardId(1), hash_of(&body), &body)
    }

    #[test]
    fn a_large_body_is_judged_by_its_beginning() {
        let text = b"a line that repeats\r\n".repeat(20_000);
        // What follows would compress; the probe stands for the whole, so that an archive is not compressed in vain.
        let raw = stored([noise(PROBE_BYTES), text.clone()].concat());
        assert_eq!((raw.encoding, raw.stored.len()), (RAW, PROBE_BYTES + text.len()));
        assert_eq!(stored([text, noise(PROBE_BYTES)].concat()).encoding, ZSTD);
    }

    #[test]
    fn a_beginning_that_compresses_does_not_make_a_longer_stored_form() {
        let text = b"a line that repeats\r\n".repeat(PROBE_BYTES / 21 + 1);
        let body = [text, noise(20 * PROBE_BYTES)].concat();
        assert_eq!(stored(body).encoding, RAW, "it gains less than a tenth as a whole");
    }

    #[test]
    fn a_gain_of_less_than_a_tenth_is_none() {
        assert!(pays(1000, 899));
        assert!(!pays(1000, 900));
        assert!(!pays(0, 0));
        for small in [Vec::new(), b"x".to_vec(), noise(200)] {
            let stored = stored(small.clone());
            assert_eq!((stored.encoding, &stored.stored[..]), (RAW, &small[..]));
        }
    }
}
