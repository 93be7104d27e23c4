//! Every kept record against its golden file: the bytes may not change, and old bytes must decode for ever.
//!
//! A file has the hex of the record, then what it says. A missing file is written with `UPDATE_GOLDEN=1`; one that is there is never
//! rewritten, since a change of its bytes is a change of what lies on disks.

use std::fmt::{Debug, Write};
use std::path::Path;

use crate::format::{FormatError, Record, decode, encode};

/// Holds `sample` against `golden/<machine>/<name>`, and damages its bytes everywhere.
///
/// # Panics
/// When anything differs, or damage passes.
pub fn check<T: Record + Debug + PartialEq>(machine: &str, name: &str, sample: T) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(machine);
    let path = folder.join(format!("{name}.{}.v{}", T::TYPE_ID, T::VERSION));
    let bytes = encode(&sample);
    if !path.exists() && std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        let mut text = String::new();
        for line in bytes.chunks(32) {
            for byte in line {
                write!(text, "{byte:02x}").unwrap();
            }
            text.push('\n');
        }
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(&path, format!("{text}\n{sample:#?}\n")).unwrap();
    }
    let file = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (hex, said) = file.split_once("\n\n").unwrap();
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let kept: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let old: T = decode(&kept).unwrap();
    assert_eq!(old, sample, "{name}: what was written once decodes to the same");
    assert_eq!(format!("{old:#?}\n"), said, "{name}: the file says what its bytes mean");
    assert_eq!(bytes, kept, "{name}: what is written now is what was written then");
    for cut in 0..kept.len() {
        assert!(decode::<T>(&kept[..cut]).is_err(), "{name}: cut at {cut}");
    }
    for at in 0..kept.len() {
        let mut bad = kept.clone();
        bad[at] ^= 0x40;
        assert!(decode::<T>(&bad).is_err(), "{name}: byte {at} flipped");
    }
    let mut newer = kept.clone();
    newer[4] = 9;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&newer[..12]), &newer[16..]);
    newer[12..16].copy_from_slice(&crc.to_le_bytes());
    assert!(
        matches!(decode::<T>(&newer), Err(FormatError::Version { version: 9, .. })),
        "{name}: a newer version"
    );
}
