//! A view is proved again while it serves: every row is read, and all of them must add up to the digest of the view's position.
//!
//! A start after a clean stop believes the view's position without reading its rows, and a node may then run for months. A row that the
//! database lost or changed meanwhile, by a defect of its own or of the disk, would be served as it is until it is read by chance. So each
//! view is read once within a day of such a start, and every week from then on, at a bounded rate; `keep_view_sound` in `raft` has one done at
//! a time.
//!
//! Rows are read a few at a time, with flushes held back for so long. A flush between two of these steps tells the proof what it changes of
//! the rows that were read already, before it changes them. So there is neither a copy nor a second pass, and what was read is right for the
//! position of the index at every moment.
//!
//! A view that does not add up has failed: the group stops on this node and rebuilds it. What this module must never do: repair a row.

use std::sync::atomic::Ordering;

use malle_machine::Digest;
use malle_machine::digest::LOCAL_PREFIX;
use malle_proto::limits;

use super::compact::{pause, some_rows};
use super::open::GroupState;
use super::overlay::Rows;
use crate::index::{IndexError, IndexStore};

/// Why a proof came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The view does not hold the rows that it should: the group has failed.
    #[error("{rows} rows were read, {wanted} are in the view's position, or another digest")]
    Damaged {
        /// Rows that were read.
        rows: u64,
        /// Rows of the position.
        wanted: u64,
    },
    /// The group closes, failed, or installed a snapshot.
    #[error("the group has something more urgent to do")]
    GivenUp,
}

/// How far the reading is.
#[derive(Debug)]
pub(super) struct Proof {
    /// Rows below this key are read.
    cursor: Vec<u8>,
    digest: Digest,
    rows: u64,
}

impl Proof {
    fn new() -> Proof {
        Proof {
            cursor: vec![LOCAL_PREFIX + 1],
            digest: Digest::default(),
            rows: 0,
        }
    }

    /// Reads the next rows; their bytes, 0 at the end. Blocks.
    fn step(&mut self, index: &dyn IndexStore) -> Result<u64, IndexError> {
        let (digest, rows) = (&mut self.digest, &mut self.rows);
        some_rows(index, &mut self.cursor, &mut |key, value| {
            digest.add(key, value);
            *rows += 1;
        })
    }

    /// What these rows, which are not in the index yet, change of those that were read. Blocks.
    pub fn follow(&mut self, index: &dyn IndexStore, rows: &Rows) -> Result<(), IndexError> {
        for (key, value) in rows.range(..self.cursor.clone()) {
            if let Some(old) = index.get(key)? {
                self.digest.subtract(key, &old);
                // An old value that was not read is damage; the digest says so at the end.
                self.rows = self.rows.wrapping_sub(1);
            }
            if let Some(new) = value {
                self.digest.add(key, new);
                self.rows = self.rows.wrapping_add(1);
            }
        }
        Ok(())
    }
}

/// When a view that was opened at `now_ms` is proved for the first time: not all of a node's at once.
pub(super) fn first_due_ms(now_ms: u64, uuid: [u8; 16]) -> u64 {
    let chance = u128::from_be_bytes(uuid) % u128::from(limits::VIEW_PROVE_FIRST_MS);
    now_ms.saturating_add(chance as u64)
}

impl GroupState {
    /// Whether every row shall be read again.
    pub fn proof_is_due(&self) -> bool {
        self.inner.settings.env.now_ms() >= self.inner.proof_due_ms.load(Ordering::Relaxed)
    }

    /// Reads every row of the view while it serves.
    ///
    /// # Errors
    /// See [`ProofError`]. After `Damaged` and `Index` the group has failed and is rebuilt.
    pub async fn prove_again(&self) -> Result<(), ProofError> {
        let proved = self.read_every_row().await;
        match &proved {
            Ok(()) => {
                let next_ms = self
                    .inner
                    .settings
                    .env
                    .now_ms()
                    .saturating_add(limits::VIEW_PROVE_EVERY_MS);
                self.inner.proof_due_ms.store(next_ms, Ordering::Relaxed);
            }
            Err(ProofError::GivenUp) => self.inner.flushed.lock().await.proof = None,
            Err(error) => self.fail(error),
        }
        proved
    }

    async fn read_every_row(&self) -> Result<(), ProofError> {
        self.inner.flushed.lock().await.proof = Some(Proof::new());
        loop {
            if self.has_hurry() {
                return Err(ProofError::GivenUp);
            }
            let mut flushed = self.inner.flushed.lock().await;
            let began = malle_rt::now();
            // A snapshot that was installed has taken it away.
            let mut proof = flushed.proof.take().ok_or(ProofError::GivenUp)?;
            let index = self.live().index.clone();
            let (proof, bytes) = malle_rt::blocking(move || {
                let bytes = proof.step(index.as_ref())?;
                Ok::<_, IndexError>((proof, bytes))
            })
            .await?;
            if bytes == 0 {
                let position = &flushed.position;
                if (proof.digest, proof.rows) == (position.digest, position.rows) {
                    return Ok(());
                }
                return Err(ProofError::Damaged {
                    rows: proof.rows,
                    wanted: position.rows,
                });
            }
            flushed.proof = Some(proof);
            drop(flushed);
            malle_rt::sleep(pause(bytes, malle_rt::now() - began)).await;
        }
    }
}

#[cfg(test)]
mod tests;
