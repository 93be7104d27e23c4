//! Login tokens: what a login gives to a gateway, and what a shard asks for before it shows an account.
//!
//! ```text
//! offset  bytes  what
//!      0      1  version, 2
//!      1      4  id of the key, big-endian
//!      5      8  expiry, milliseconds since 1970, big-endian
//!     13     16  account
//!     29      1  what opened it: 1 password, 2 application password, 3 access token
//!     30     16  its fingerprint; of an access token its end, milliseconds since 1970, big-endian, and 8 zeros
//!     46      1  length of the gateway's name
//!     47      -  the gateway's name
//!      -     32  HMAC-SHA256 of a fixed prefix and all bytes before
//! ```
//!
//! A token is worth one account to one gateway for an hour: stolen from the wire or a log it is useless without that gateway's
//! certificate. It says by what it was opened ([`Proof`]), so that whoever is shown it can ask the directory whether that still holds. What is
//! absent: a list of revoked tokens.

use malle_machine::directory::TokenKey;
use malle_proto::{AccountId, limits};
use ring::{digest, hmac};

use super::identity::NAME_MAX_BYTES;

const VERSION: u8 = 2;
/// So that a signature of anything else under the same key is no token.
const PREFIX: &[u8] = b"malle login token\0";
const HEAD_BYTES: usize = 1 + 4 + 8 + 16 + 1 + PROOF_BYTES + 1;
const PROOF_BYTES: usize = 16;
const TAG_BYTES: usize = 32;

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose mail.
    pub account: AccountId,
    /// Through which gateway.
    pub gateway: String,
    /// Until when, milliseconds since 1970.
    pub expires_ms: u64,
    /// What opened it.
    pub proof: Proof,
}

/// What opened an account. A fingerprint tells two of a kind apart and helps nobody to guess a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// The account's own password, by its hash: another password has another.
    Password([u8; PROOF_BYTES]),
    /// One of its application passwords, by its digest.
    AppPassword([u8; PROOF_BYTES]),
    /// An access token of the identity provider.
    AccessToken {
        /// When that is over, milliseconds since 1970.
        ends_ms: u64,
    },
}

impl Proof {
    /// The password with this hash (PHC string).
    pub fn of_password(hash: &str) -> Proof {
        Proof::Password(fingerprint(b"malle password\0", hash.as_bytes()))
    }

    /// The application password with this digest.
    pub fn of_app_password(digest: &[u8; 32]) -> Proof {
        Proof::AppPassword(fingerprint(b"malle app password\0", digest))
    }

    fn kind(self) -> u8 {
        match self {
            Proof::Password(_) => 1,
            Proof::AppPassword(_) => 2,
            Proof::AccessToken { .. } => 3,
        }
    }

    fn bytes(self) -> [u8; PROOF_BYTES] {
        match self {
            Proof::Password(fingerprint) | Proof::AppPassword(fingerprint) => fingerprint,
            Proof::AccessToken { ends_ms } => (u128::from(ends_ms) << 64).to_be_bytes(),
        }
    }

    fn parse(kind: u8, bytes: [u8; PROOF_BYTES]) -> Option<Proof> {
        match kind {
            1 => Some(Proof::Password(bytes)),
            2 => Some(Proof::AppPassword(bytes)),
            3 => Some(Proof::AccessToken {
                ends_ms: (u128::from_be_bytes(bytes) >> 64) as u64,
            }),
            _ => None,
        }
    }
}

fn fingerprint(prefix: &[u8], of: &[u8]) -> [u8; PROOF_BYTES] {
    let whole = digest::digest(&digest::SHA256, &[prefix, of].concat());
    let mut short = [0; PROOF_BYTES];
    short.copy_from_slice(&whole.as_ref()[..PROOF_BYTES]);
    short
}

/// Why a token does not open an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a token, or not signed by the key that it names.
    #[error("the token is not genuine")]
    Forged,
    /// Signed by a key that is not here: retired, or so new that this node has not heard of it.
    #[error("the token's key {0} is not known here")]
    UnknownKey(u32),
    /// Its time is over: renew it or log in again.
    #[error("the token expired")]
    Expired,
    /// Signed for a login through another gateway.
    #[error("the token is another gateway's")]
    OtherGateway,
}

impl Token {
    /// The token's bytes, signed.
    ///
    /// # Panics
    /// When the gateway's name is longer than certificates allow.
    pub fn sign(&self, key: &TokenKey) -> Vec<u8> {
        assert!(
            self.gateway.len() <= NAME_MAX_BYTES,
            "names come from certificates, which bound them"
        );
        let mut bytes = Vec::with_capacity(HEAD_BYTES + self.gateway.len() + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&key.id.to_be_bytes());
        bytes.extend_from_slice(&self.expires_ms.to_be_bytes());
        bytes.extend_from_slice(&self.account.0);
        bytes.push(self.proof.kind());
        bytes.extend_from_slice(&self.proof.bytes());
        bytes.push(self.gateway.len() as u8);
        bytes.extend_from_slice(self.gateway.as_bytes());
        let tag = hmac::sign(&signing_key(key), &signed_bytes(&bytes));
        bytes.extend_from_slice(tag.as_ref());
        bytes
    }

    /// Opens a token that was signed for `gateway` and is not over.
    ///
    /// # Errors
    /// A [`TokenError`].
    pub fn open(bytes: &[u8], keys: &[TokenKey], now_ms: u64, gateway: &str) -> Result<Token, TokenError> {
        let (key_id, token, tag_at) = parse(bytes).ok_or(TokenError::Forged)?;
        let Some(key) = keys.iter().find(|key| key.id == key_id) else {
            return Err(TokenError::UnknownKey(key_id));
        };
        // Constant time, and before anything that the token says is believed.
        hmac::verify(&signing_key(key), &signed_bytes(&bytes[..tag_at]), &bytes[tag_at..])
            .map_err(|_| TokenError::Forged)?;
        if now_ms > token.expires_ms.saturating_add(limits::CLOCK_SKEW_MS) {
            return Err(TokenError::Expired);
        }
        if token.gateway != gateway {
            return Err(TokenError::OtherGateway);
        }
        Ok(token)
    }
}

fn signing_key(key: &TokenKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &key.secret)
}

fn signed_bytes(bytes: &[u8]) -> Vec<u8> {
    [PREFIX, bytes].concat()
}

/// Key id, what it says, and where the signature begins.
fn parse(bytes: &[u8]) -> Option<(u32, Token, usize)> {
    let (&version, rest) = bytes.split_first()?;
    let (key_id, rest) = rest.split_first_chunk::<4>()?;
    let (expires_ms, rest) = rest.split_first_chunk::<8>()?;
    let (account, rest) = rest.split_first_chunk::<16>()?;
    let (&kind, rest) = rest.split_first()?;
    let (proof, rest) = rest.split_first_chunk::<PROOF_BYTES>()?;
    let (&length, rest) = rest.split_first()?;
    let (name, tag) = rest.split_at_checked(length.into())?;
    if version != VERSION || name.len() > NAME_MAX_BYTES || tag.len() != TAG_BYTES {
        return None;
    }
    let token = Token {
        account: AccountId(*account),
        gateway: std::str::from_utf8(name).ok()?.to_owned(),
        expires_ms: u64::from_be_bytes(*expires_ms),
        proof: Proof::parse(kind, *proof)?,
    };
    Some((u32::from_be_bytes(*key_id), token, HEAD_BYTES + name.len()))
}

#[cfg(test)]
mod tests {
    use super::{Proof, Token, TokenError};
    use malle_machine::directory::TokenKey;
    use malle_proto::{AccountId, limits};
    use proptest::prelude::{any, prop_assert, proptest};

    const NOW_MS: u64 = 1_000_000;
    const ALICE: AccountId = AccountId([1; 16]);

    fn key(id: u32, secret: u8) -> TokenKey {
        TokenKey {
            id,
            secret: [secret; 32],
        }
    }

    fn token() -> Token {
        Token {
            account: ALICE,
            gateway: "front-1".into(),
            expires_ms: NOW_MS + limits::TOKEN_LIFETIME_MS,
            proof: Proof::of_password("$argon2id$1"),
        }
    }

    #[test]
    fn a_token_opens_one_account_to_one_gateway() {
        let bytes = token().sign(&key(2, 2));
        let keys = [key(3, 3), key(2, 2)];
        assert_eq!(Token::open(&bytes, &keys, NOW_MS, "front-1"), Ok(token()));
        assert_eq!(
            Token::open(&bytes, &keys, NOW_MS, "front-2"),
            Err(TokenError::OtherGateway)
        );
    }

    #[test]
    fn a_token_says_what_opened_it() {
        let password = Proof::of_password("$argon2id$1");
        assert_ne!(password, Proof::of_password("$argon2id$2"));
        for proof in [
            password,
            Proof::of_app_password(&[7; 32]),
            Proof::AccessToken { ends_ms: u64::MAX - 5 },
        ] {
            let token = Token { proof, ..token() };
            let opened = Token::open(&token.sign(&key(1, 1)), &[key(1, 1)], NOW_MS, "front-1");
            assert_eq!(opened.unwrap().proof, proof);
        }
    }

    #[test]
    fn a_token_is_over_after_its_hour_and_the_clocks_difference() {
        let bytes = token().sign(&key(1, 1));
        let last_ms = NOW_MS + limits::TOKEN_LIFETIME_MS + limits::CLOCK_SKEW_MS;
        assert!(Token::open(&bytes, &[key(1, 1)], last_ms, "front-1").is_ok());
        let over = Token::open(&bytes, &[key(1, 1)], last_ms + 1, "front-1");
        assert_eq!(over, Err(TokenError::Expired));
    }

    #[test]
    fn another_secret_is_a_forgery_and_an_unknown_key_says_so() {
        let bytes = token().sign(&key(1, 1));
        assert_eq!(
            Token::open(&bytes, &[key(1, 9)], NOW_MS, "front-1"),
            Err(TokenError::Forged)
        );
        let newer = [key(3, 3), key(2, 2)];
        assert_eq!(
            Token::open(&bytes, &newer, NOW_MS, "front-1"),
            Err(TokenError::UnknownKey(1))
        );
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed_and_no_byte_left_out_or_added() {
        let bytes = token().sign(&key(1, 1));
        let keys = [key(1, 1)];
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = Token::open(&changed, &keys, NOW_MS, "front-1");
            assert!(
                matches!(opened, Err(TokenError::Forged | TokenError::UnknownKey(_))),
                "bit {bit}"
            );
        }
        for length in 0..bytes.len() {
            assert_eq!(
                Token::open(&bytes[..length], &keys, NOW_MS, "front-1"),
                Err(TokenError::Forged)
            );
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert_eq!(Token::open(&longer, &keys, NOW_MS, "front-1"), Err(TokenError::Forged));
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_token_by_chance(bytes in any::<Vec<u8>>()) {
            prop_assert!(Token::open(&bytes, &[key(0, 1)], 0, "").is_err());
        }
    }
}
