//! The one module that knows bincode, and the envelope around every record that is kept.
//!
//! ```text
//! offset  bytes  what
//!      0      2  magic 0x4D4C, "ML" read as big-endian
//!      2      2  type id, little-endian: which kind of record
//!      4      2  version of that type, little-endian, from 1
//!      6      1  flags: 0; bit 0 is kept for encryption (a key id then follows the header)
//!      7      1  feature level that wrote it
//!      8      4  length of the payload, little-endian
//!     12      4  crc32c of bytes 0..12 and the payload, little-endian
//!     16      -  payload: bincode 2, standard configuration
//! ```
//!
//! One frozen struct per version; enums only grow at their end; a type that needs a new field gets a new version and a `From` of the
//! old one. Keys of the view are never encoded here: they are written by hand, big-endian, so that they sort.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

const MAGIC: [u8; 2] = *b"ML";
/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;
/// Largest payload that is decoded: an append request is the largest record. Above it a length is hostile.
pub const PAYLOAD_MAX_BYTES: usize = malle_proto::limits::GRPC_MESSAGE_MAX_BYTES;
/// Feature level that this build writes.
pub const FEATURE_LEVEL: u8 = 1;

/// Why bytes are not the record that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Shorter than its header says.
    #[error("cut short: {have} bytes, wanted {want}")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// Longer than its header says.
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// Does not begin with the magic number.
    #[error("not a record of malle")]
    Magic,
    /// Another kind of record.
    #[error("type {found}, wanted {wanted}")]
    Type {
        /// Type id found.
        found: u16,
        /// Type id wanted.
        wanted: u16,
    },
    /// Written by a newer malle, or flagged as nothing this one knows.
    #[error(
        "version {version} of type {type_id} (flags {flags:#04x}) is unknown here; this malle is too old for this data"
    )]
    Version {
        /// Type id.
        type_id: u16,
        /// Version found.
        version: u16,
        /// Flags found.
        flags: u8,
    },
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// The payload does not decode.
    #[error("payload: {0}")]
    Payload(String),
}

/// A type that is kept: its id and the version that this build writes.
pub trait Record: Serialize + Sized {
    /// Never changes, never reused (docs/storage.md lists them).
    const TYPE_ID: u16;
    /// What [`encode`] writes.
    const VERSION: u16;

    /// Reads the payload of any version up to [`Record::VERSION`].
    ///
    /// # Errors
    /// [`FormatError::Version`] for an unknown version, else what [`payload`] says.
    fn read(version: u16, payload: &[u8]) -> Result<Self, FormatError>;
}

/// Implements [`Record`] for a type that has had one version only.
#[macro_export]
macro_rules! first_version {
    ($name:ty, $type_id:expr) => {
        impl $crate::format::Record for $name {
            const TYPE_ID: u16 = $type_id;
            const VERSION: u16 = 1;
            fn read(version: u16, payload: &[u8]) -> Result<Self, $crate::format::FormatError> {
                match version {
                    1 => $crate::format::payload(payload),
                    _ => Err($crate::format::FormatError::Version {
                        type_id: Self::TYPE_ID,
                        version,
                        flags: 0,
                    }),
                }
            }
        }
    };
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<PAYLOAD_MAX_BYTES>()
}

/// Decodes a payload whole: bytes left over are an error.
///
/// # Errors
/// [`FormatError::Payload`], [`FormatError::Trailing`].
pub fn payload<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FormatError> {
    let (value, read) =
        bincode::serde::decode_from_slice(bytes, config()).map_err(|error| FormatError::Payload(error.to_string()))?;
    if read != bytes.len() {
        return Err(FormatError::Trailing(bytes.len() - read));
    }
    Ok(value)
}

/// Encodes a record with its envelope.
pub fn encode<T: Record>(value: &T) -> Bytes {
    let mut out = vec![0; HEADER_BYTES];
    bincode::serde::encode_into_std_write(value, &mut out, bincode::config::standard())
        .expect("our records hold only what bincode can write, and a Vec takes every byte");
    let length = u32::try_from(out.len() - HEADER_BYTES).expect("records are bounded far below 4 GiB");
    out[0..2].copy_from_slice(&MAGIC);
    out[2..4].copy_from_slice(&T::TYPE_ID.to_le_bytes());
    out[4..6].copy_from_slice(&T::VERSION.to_le_bytes());
    out[7] = FEATURE_LEVEL;
    out[8..12].copy_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out[..12]), &out[HEADER_BYTES..]);
    out[12..16].copy_from_slice(&crc.to_le_bytes());
    out.into()
}

/// Decodes a record that fills `bytes`.
///
/// # Errors
/// Every [`FormatError`]; never panics, never allocates more than the input's size justifies.
pub fn decode<T: Record>(bytes: &[u8]) -> Result<T, FormatError> {
    let (type_id, version, body) = open(bytes)?;
    if type_id != T::TYPE_ID {
        return Err(FormatError::Type {
            found: type_id,
            wanted: T::TYPE_ID,
        });
    }
    T::read(version, body)
}

/// Checks the envelope; gives type id, version and payload.
///
/// # Errors
/// Every [`FormatError`] but those of the payload.
pub fn open(bytes: &[u8]) -> Result<(u16, u16, &[u8]), FormatError> {
    if bytes.len() < HEADER_BYTES {
        return Err(FormatError::Short {
            have: bytes.len(),
            want: HEADER_BYTES,
        });
    }
    if bytes[0..2] != MAGIC {
        return Err(FormatError::Magic);
    }
    let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let long = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let want = HEADER_BYTES + long(8) as usize;
    if bytes.len() < want {
        return Err(FormatError::Short {
            have: bytes.len(),
            want,
        });
    }
    if bytes.len() > want {
        return Err(FormatError::Trailing(bytes.len() - want));
    }
    if crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[HEADER_BYTES..]) != long(12) {
        return Err(FormatError::Checksum);
    }
    if bytes[6] != 0 {
        return Err(FormatError::Version {
            type_id: word(2),
            version: word(4),
            flags: bytes[6],
        });
    }
    Ok((word(2), word(4), &bytes[HEADER_BYTES..]))
}

#[cfg(test)]
mod tests {
    use super::{FormatError, HEADER_BYTES, PAYLOAD_MAX_BYTES, decode, encode, open};
    use proptest::prelude::{any, proptest};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Sample {
        number: u64,
        text: String,
        list: Vec<u8>,
    }
    crate::first_version!(Sample, 9_999);

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Other(u8);
    crate::first_version!(Other, 9_998);

    fn sample() -> Sample {
        Sample {
            number: 300,
            text: "é".into(),
            list: vec![1, 2],
        }
    }

    /// Gives a changed record a checksum that fits.
    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..12]), &bytes[HEADER_BYTES..]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_envelope_is_as_the_byte_map_says() {
        let bytes = encode(&sample());
        assert_eq!(&bytes[..12], b"ML\x0f\x27\x01\x00\x00\x01\x09\x00\x00\x00");
        assert_eq!(&bytes[16..], b"\xfb\x2c\x01\x02\xc3\xa9\x02\x01\x02");
        assert_eq!(decode::<Sample>(&bytes).unwrap(), sample());
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_reason() {
        let bytes = encode(&sample()).to_vec();
        let changed = |at: usize, to: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = to;
            bytes
        };
        let error = |bytes: &[u8]| decode::<Sample>(bytes).unwrap_err();
        assert_eq!(error(&[]), FormatError::Short { have: 0, want: 16 });
        assert_eq!(error(&bytes[..20]), FormatError::Short { have: 20, want: 25 });
        assert_eq!(error(&[bytes.as_slice(), b"x"].concat()), FormatError::Trailing(1));
        assert_eq!(error(&changed(0, 0)), FormatError::Magic);
        assert_eq!(error(&changed(20, 0)), FormatError::Checksum);
        assert_eq!(
            decode::<Other>(&bytes).unwrap_err(),
            FormatError::Type {
                found: 9_999,
                wanted: 9_998
            }
        );
        assert!(matches!(
            error(&sealed(changed(4, 2))),
            FormatError::Version {
                version: 2,
                flags: 0,
                ..
            }
        ));
        assert!(matches!(
            error(&sealed(changed(6, 1))),
            FormatError::Version { flags: 1, .. }
        ));
        assert!(
            matches!(error(&sealed(changed(22, 1))), FormatError::Trailing(1)),
            "a payload with bytes left over"
        );
        assert!(
            matches!(error(&sealed(changed(22, 200))), FormatError::Payload(_)),
            "a list longer than the record"
        );
    }

    #[test]
    fn a_hostile_length_allocates_nothing() {
        let mut bytes = encode(&Sample {
            number: 0,
            text: String::new(),
            list: vec![],
        })
        .to_vec();
        // The text claims 2^62 bytes.
        bytes.truncate(HEADER_BYTES + 1);
        bytes.push(0xFD);
        bytes.extend_from_slice(&(1_u64 << 62).to_le_bytes());
        let length = (bytes.len() - HEADER_BYTES) as u32;
        bytes[8..12].copy_from_slice(&length.to_le_bytes());
        assert!(matches!(decode::<Sample>(&sealed(bytes)), Err(FormatError::Payload(_))));
        let large = Sample {
            number: 0,
            text: String::new(),
            list: vec![0; PAYLOAD_MAX_BYTES + 1],
        };
        assert!(
            decode::<Sample>(&encode(&large)).is_err(),
            "beyond the bound nothing is decoded"
        );
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_went(number in any::<u64>(), text in any::<String>(), list in any::<Vec<u8>>()) {
            let sample = Sample { number, text, list };
            assert_eq!(decode::<Sample>(&encode(&sample)).unwrap(), sample);
        }

        #[test]
        fn random_bytes_never_panic(bytes in any::<Vec<u8>>(), number in any::<u64>()) {
            let _ = open(&bytes);
            let mut record = encode(&Sample { number, text: String::new(), list: vec![] }).to_vec();
            record.truncate(HEADER_BYTES);
            record[8..12].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            record.extend_from_slice(&bytes);
            let _ = decode::<Sample>(&sealed(record));
        }
    }
}
