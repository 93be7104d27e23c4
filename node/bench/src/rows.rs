//! The rows of a shard, many times over, as the machine writes them: a pattern of a few accounts is played once through the machine, and
//! what each command wrote is written again for as many other accounts as are wanted.
//!
//! So the keys, the values and the rows that one command touches are a shard's own, and the measured time is the store's alone. What
//! differs from a real shard: values repeat from copy to copy (no engine here compresses), and accounts are alike.

use std::collections::BTreeMap;

use anyhow::{bail, ensure};
use bytes::Bytes;
use malle_machine::MemoryView;
use malle_machine::shard::sample::Sample;
use malle_machine::shard::{Command, Flags, Op, Outcome, apply};
use malle_node::index::Row;

/// Accounts of the pattern; each INBOX gets about [`INBOX_MESSAGES`].
const ACCOUNTS: usize = 10;
/// Messages of one mailbox on average.
pub const INBOX_MESSAGES: usize = 2_000;
/// Flag changes in the pattern.
const FLAGS: usize = 5_000;

type Rows = BTreeMap<Vec<u8>, Option<Bytes>>;

/// What the commands of the pattern wrote.
pub struct Pattern {
    /// Mail in: one element per command.
    pub deliveries: Vec<Rows>,
    /// Flags of one message each, in order, after the mail.
    pub flags: Vec<Rows>,
    /// Rows after the mail.
    pub rows: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
    /// What the keys of one mailbox's messages begin with: content, and state.
    pub mailbox: [Vec<u8>; 2],
}

impl Pattern {
    /// Plays it through the machine.
    ///
    /// # Errors
    /// When the machine refuses a command.
    pub fn play() -> anyhow::Result<Pattern> {
        let mut sample = Sample::new(7, ACCOUNTS);
        let mut view = MemoryView::default();
        for op in sample.open() {
            play(&mut view, op)?;
        }
        // The accounts themselves are written with the first mail of each copy.
        let mut opened: Rows = view
            .rows
            .iter()
            .map(|(key, value)| (key.clone(), Some(value.clone())))
            .collect();
        let mut deliveries = Vec::new();
        while deliveries.len() < ACCOUNTS * INBOX_MESSAGES {
            let op = sample.deliver(1);
            let mut rows = std::mem::take(&mut opened);
            rows.extend(play(&mut view, op)?);
            deliveries.push(rows);
        }
        let bytes = view
            .rows
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum();
        let rows = view.rows.len() as u64;
        let content = view.rows.keys().find(|key| key[0] == 0x10 && key[17] == 0x07);
        let Some(content) = content.map(|key| key[..34].to_vec()) else {
            bail!("no message in the pattern");
        };
        let mut state = content.clone();
        state[17] = 0x06;
        let mut flags = Vec::new();
        while flags.len() < FLAGS {
            let op = sample.flag(1, Flags::SEEN);
            flags.push(play(&mut view, op)?);
        }
        Ok(Pattern {
            deliveries,
            flags,
            rows,
            bytes,
            mailbox: [content, state],
        })
    }
}

fn play(view: &mut MemoryView, op: Op) -> anyhow::Result<Rows> {
    let (outcome, writes) = apply(view, &Command { time_ms: 1_000_000, op })?;
    ensure!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    view.commit(&writes);
    Ok(writes.rows)
}

/// The key in another copy: the first bytes of its account or hash are others. The shard's own row has no copy.
pub fn in_copy(key: &[u8], copy: u32) -> Vec<u8> {
    let mut key = key.to_vec();
    if key.len() > 4 {
        for (byte, changed) in key[1..5].iter_mut().zip(copy.to_be_bytes()) {
            *byte ^= changed.rotate_left(3);
        }
    }
    key
}

/// Several commands as one batch, as a group's overlay gathers them: of several writes to a row the last counts.
#[derive(Default)]
pub struct Batch(Rows);

impl Batch {
    /// Adds what one command wrote, in a copy.
    pub fn add(&mut self, rows: &Rows, copy: u32) {
        for (key, value) in rows {
            self.0.insert(in_copy(key, copy), value.clone());
        }
    }

    /// The batch; nothing is left.
    pub fn take(&mut self) -> Vec<Row> {
        std::mem::take(&mut self.0).into_iter().collect()
    }
}
