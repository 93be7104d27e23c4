//! Names of a story to ids and back.

use malle_machine::shard::{Flags, SpecialUse, UidRange};
use malle_proto::{AccountId, BodyHash, OpId, Uid};

/// The name itself, in the bytes of the id.
fn bytes<const N: usize>(name: &str) -> [u8; N] {
    let mut bytes = [0; N];
    assert!(name.len() <= N, "{name} is too long for a name in a story");
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    bytes
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_string()
}

pub fn account(name: &str) -> AccountId {
    AccountId(bytes(name))
}

pub fn account_name(id: AccountId) -> String {
    text(&id.0)
}

pub fn body(name: &str) -> BodyHash {
    BodyHash(bytes(name))
}

pub fn body_name(hash: BodyHash) -> String {
    text(&hash.0)
}

pub fn op_id(name: &str) -> OpId {
    OpId(bytes(name))
}

pub fn thread_key(name: &str) -> [u8; 16] {
    bytes(name)
}

pub fn id_name(bytes: [u8; 16]) -> String {
    text(&bytes)
}

/// "1:3,7,9:*"
pub fn uids(text: &str) -> Result<Vec<UidRange>, String> {
    let number = |text: &str| match text {
        "*" => Ok(Uid(u32::MAX)),
        text => text.parse().map(Uid).map_err(|_| format!("{text} is no UID")),
    };
    text.split(',')
        .map(|range| {
            let (first, last) = range.split_once(':').unwrap_or((range, range));
            Ok(UidRange {
                first: number(first)?,
                last: number(last)?,
            })
        })
        .collect()
}

pub fn show_uids(ranges: &[UidRange]) -> String {
    let shown: Vec<String> = ranges
        .iter()
        .map(|range| match range.first == range.last {
            true => range.first.to_string(),
            false => format!("{}:{}", range.first, range.last),
        })
        .collect();
    if shown.is_empty() {
        "none".into()
    } else {
        shown.join(",")
    }
}

const SYSTEM: [(&str, u8); 5] = [
    ("\\Seen", Flags::SEEN),
    ("\\Answered", Flags::ANSWERED),
    ("\\Flagged", Flags::FLAGGED),
    ("\\Deleted", Flags::DELETED),
    ("\\Draft", Flags::DRAFT),
];

/// "\Seen,work"
pub fn flags(text: &str) -> Flags {
    let mut flags = Flags::default();
    for word in text.split(',').filter(|word| !word.is_empty()) {
        match SYSTEM.iter().find(|(name, _)| *name == word) {
            Some((_, bit)) => flags.system |= bit,
            None => flags.keywords.push(word.to_string()),
        }
    }
    flags
}

pub fn show_flags(flags: &Flags) -> String {
    let system = SYSTEM
        .iter()
        .filter(|(_, bit)| flags.system & bit != 0)
        .map(|(name, _)| name.to_string());
    let words: Vec<String> = system.chain(flags.keywords.iter().cloned()).collect();
    format!("({})", words.join(" "))
}

pub fn special_use(text: &str) -> Result<SpecialUse, String> {
    Ok(match text {
        "none" => SpecialUse::None,
        "Inbox" => SpecialUse::Inbox,
        "Sent" => SpecialUse::Sent,
        "Drafts" => SpecialUse::Drafts,
        "Trash" => SpecialUse::Trash,
        "Junk" => SpecialUse::Junk,
        "Archive" => SpecialUse::Archive,
        "Flagged" => SpecialUse::Flagged,
        "All" => SpecialUse::All,
        other => return Err(format!("{other} is no special use")),
    })
}
