//! Bytes of a file as somebody sees them, what a power cut makes of those that were not synced, and the chance that decides.

use std::collections::BTreeMap;
use std::io;

const PAGE: usize = 4096;

/// Sparse bytes: a page that was never written is absent and reads as zeros.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub bytes: u64,
    pages: BTreeMap<u64, Box<[u8; PAGE]>>,
}

impl Image {
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let some = (PAGE - within).min(data.len() - done);
            let page = self
                .pages
                .entry(at / PAGE as u64)
                .or_insert_with(|| Box::new([0; PAGE]));
            page[within..within + some].copy_from_slice(&data[done..done + some]);
            done += some;
        }
        self.bytes = self.bytes.max(offset + data.len() as u64);
    }

    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buffer.len() as u64)
            .is_none_or(|end| end > self.bytes)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = (at % PAGE as u64) as usize;
            let some = (PAGE - within).min(buffer.len() - done);
            match self.pages.get(&(at / PAGE as u64)) {
                Some(page) => buffer[done..done + some].copy_from_slice(&page[within..within + some]),
                None => buffer[done..done + some].fill(0),
            }
            done += some;
        }
        Ok(())
    }

    pub fn take(&mut self, change: Change) {
        match change {
            Change::Write(offset, data) => self.write(offset, &data),
            Change::SetLen(bytes) => self.set_len(bytes),
        }
    }

    pub fn set_len(&mut self, bytes: u64) {
        if bytes < self.bytes {
            self.pages.retain(|page, _| page * (PAGE as u64) < bytes);
            let within = (bytes % PAGE as u64) as usize;
            if let Some(last) = self.pages.get_mut(&(bytes / PAGE as u64)) {
                last[within..].fill(0);
            }
        }
        self.bytes = bytes;
    }
}

#[derive(Debug, Clone)]
pub(super) enum Change {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

/// A change that was not synced meets the power cut.
pub(super) fn survive(durable: &mut Image, change: Change, chance: &mut Chance) {
    if chance.below(2) == 0 {
        return;
    }
    let (offset, data) = match change {
        Change::SetLen(bytes) => return durable.set_len(bytes),
        Change::Write(offset, data) => (offset, data),
    };
    // Ends of the pieces of this write that lie in one page each.
    let first = PAGE - (offset % PAGE as u64) as usize;
    let mut ends: Vec<usize> = (first..data.len()).step_by(PAGE).collect();
    ends.push(data.len());
    let (how, kept) = (chance.below(3), chance.below(ends.len() as u64 + 1) as usize);
    let mut start = 0;
    for (page, end) in ends.into_iter().enumerate() {
        let survives = match how {
            0 => true,
            1 => page < kept,
            _ => chance.below(2) == 0,
        };
        if survives {
            durable.write(offset + start as u64, &data[start..end]);
        }
        start = end;
    }
}

/// SplitMix64: the crash must depend on its seed alone.
#[derive(Debug)]
pub(super) struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % below
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}
