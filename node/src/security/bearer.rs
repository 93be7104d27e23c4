//! Access tokens of an identity provider instead of passwords: a JSON Web Token (RFC 7519, RFC 9068) in whose signature this node believes.
//!
//! The node checks it, not the gateway: whoever holds a gateway must not be able to log in as anybody. A token is taken when one of the
//! provider's keys (JWKS, RFC 7517) signed it with RS256, ES256 or EdDSA, when it comes from the configured issuer, is meant for the
//! configured audience, and its time is now; one of its claims is the address of the account. Enter at [`Bearers::open`].
//!
//! What must never be here: a token in a log or an error, an algorithm that the key is not for, `none`. Absent: encrypted tokens,
//! introspection (RFC 7662), and fetching the keys: they come from a file or from [`super::provider`].

use std::collections::BTreeMap;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use malle_proto::limits;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;

use crate::config::OAuth;

/// What a token says, once it is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// The address of the account.
    pub address: String,
    /// When the token is over, milliseconds since 1970.
    pub ends_ms: u64,
}

/// Why a token is not believed. The texts are for the log: they hold nothing of the token but the name of its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BearerError {
    /// Not a signed JSON Web Token.
    #[error("not a signed JSON web token")]
    Malformed,
    /// An algorithm that is not taken here.
    #[error("an algorithm that is not taken here")]
    Algorithm,
    /// None of the provider's keys is the one.
    #[error("signed by a key that is not known here")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the signature is wrong")]
    Signature,
    /// Another provider's.
    #[error("from another issuer")]
    Issuer,
    /// For another service.
    #[error("meant for another audience")]
    Audience,
    /// Over, not begun, or for ever.
    #[error("not valid at this time")]
    Time,
    /// It names nobody.
    #[error("without the claim that names the account")]
    Claim,
}

/// Why a file is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Not JSON, or not a JWKS.
    #[error("not a JSON web key set: {0}")]
    Syntax(String),
    /// Nothing in it can be used.
    #[error("it holds no key for RS256, ES256 or EdDSA")]
    NoKeys,
}

/// Whose tokens are taken, and their keys.
pub struct Bearers {
    issuer: String,
    audience: String,
    claim: String,
    keys: ArcSwap<Keys>,
    missing: Notify,
}

/// By their names; a set may hold one without.
type Keys = BTreeMap<String, Vec<Key>>;

/// A public key that signs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// The uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// RFC 7517 4 and RFC 7518 6.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

/// RFC 7515 4.1.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl Bearers {
    /// Believes in the keys of this JWKS.
    ///
    /// # Errors
    /// A [`KeysError`].
    pub fn new(config: &OAuth, jwks: &str) -> Result<Bearers, KeysError> {
        let bearers = Bearers::without_keys(config);
        bearers.replace(jwks)?;
        Ok(bearers)
    }

    /// Believes nobody yet: its keys are on their way.
    pub fn without_keys(config: &OAuth) -> Bearers {
        Bearers {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            claim: config.claim.clone(),
            keys: ArcSwap::default(),
            missing: Notify::new(),
        }
    }

    /// Waits for a token of a key that is not known here.
    pub async fn key_is_missing(&self) {
        self.missing.notified().await;
    }

    #[cfg(test)]
    pub(super) fn missed_a_key(&self) {
        self.missing.notify_one();
    }

    #[cfg(test)]
    pub(super) fn knows(&self, name: &str) -> bool {
        self.keys.load().contains_key(name)
    }

    /// Believes in these from now on; true when they are others.
    ///
    /// # Errors
    /// A [`KeysError`]: the keys before stay.
    pub fn replace(&self, jwks: &str) -> Result<bool, KeysError> {
        let new = keys(jwks)?;
        let changed = **self.keys.load() != new;
        if changed {
            self.keys.store(new.into());
        }
        Ok(changed)
    }

    /// Opens a token.
    ///
    /// # Errors
    /// A [`BearerError`].
    pub fn open(&self, token: &str, now_ms: u64) -> Result<Bearer, BearerError> {
        if token.len() > limits::BEARER_TOKEN_MAX_BYTES {
            return Err(BearerError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(BearerError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(BearerError::Malformed)?;
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| BearerError::Malformed)?;
        self.verify(&header, signed.as_bytes(), &decoded(signature)?)?;
        // Nothing that the token says is looked at before its signature is known to be good.
        let claims: Value = serde_json::from_slice(&decoded(claims)?).map_err(|_| BearerError::Malformed)?;
        self.believe(&claims, now_ms)
    }

    fn verify(&self, header: &Header, signed: &[u8], signature: &[u8]) -> Result<(), BearerError> {
        const TYPES: [&str; 3] = ["JWT", "at+jwt", "application/at+jwt"];
        let is_ours = |typ: &String| TYPES.iter().any(|known| known.eq_ignore_ascii_case(typ));
        if header.crit.is_some() || !header.typ.as_ref().is_none_or(is_ours) {
            return Err(BearerError::Malformed);
        }
        if !["RS256", "ES256", "EdDSA"].contains(&&*header.alg) {
            return Err(BearerError::Algorithm);
        }
        let keys = self.keys.load();
        let mut candidates = keys
            .iter()
            .filter(|(name, _)| header.kid.as_ref().is_none_or(|kid| kid == *name))
            .flat_map(|(_, keys)| keys)
            .filter(|key| key.is_for(&header.alg))
            .peekable();
        if candidates.peek().is_none() {
            self.missing.notify_one();
            return Err(BearerError::UnknownKey);
        }
        if candidates.any(|key| key.has_signed(signed, signature)) {
            Ok(())
        } else {
            Err(BearerError::Signature)
        }
    }

    fn believe(&self, claims: &Value, now_ms: u64) -> Result<Bearer, BearerError> {
        if claims["iss"] != self.issuer.as_str() {
            return Err(BearerError::Issuer);
        }
        let audience = match &claims["aud"] {
            Value::Array(several) => several.iter().any(|one| *one == self.audience.as_str()),
            one => *one == self.audience.as_str(),
        };
        if !audience {
            return Err(BearerError::Audience);
        }
        // Seconds, perhaps with a fraction (RFC 7519 2). A token without an end is none.
        let now_s = now_ms as f64 / 1000.0;
        let skew_s = limits::CLOCK_SKEW_MS as f64 / 1000.0;
        let ends_s = claims["exp"].as_f64().ok_or(BearerError::Time)?;
        let begins_s = match &claims["nbf"] {
            Value::Null => f64::MIN,
            given => given.as_f64().ok_or(BearerError::Time)?,
        };
        if now_s >= ends_s + skew_s || now_s + skew_s < begins_s {
            return Err(BearerError::Time);
        }
        // A provider that knows that nobody proved to own the address says so (OpenID Connect Core 5.1).
        if self.claim == "email" && claims["email_verified"] == false {
            return Err(BearerError::Claim);
        }
        let address = claims[&*self.claim].as_str().ok_or(BearerError::Claim)?;
        Ok(Bearer {
            address: address.to_owned(),
            // Saturates at both ends, which is what such an end means.
            ends_ms: (ends_s * 1000.0) as u64,
        })
    }
}

impl Key {
    /// The key and the algorithm go together: a key is never used with what the token would like.
    fn is_for(&self, algorithm: &str) -> bool {
        match self {
            Key::Rsa { .. } => algorithm == "RS256",
            Key::P256(_) => algorithm == "ES256",
            Key::Ed25519(_) => algorithm == "EdDSA",
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Key::Rsa { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
            Key::P256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            Key::Ed25519(point) => UnparsedPublicKey::new(&ED25519, point)
                .verify(message, signature)
                .is_ok(),
        }
    }
}

/// The keys of a set that can be used here; others, for encryption or of unknown kinds, are passed over (RFC 7517 5).
fn keys(jwks: &str) -> Result<Keys, KeysError> {
    let set: Jwks = serde_json::from_str(jwks).map_err(|error| KeysError::Syntax(error.to_string()))?;
    let mut keys = Keys::new();
    for value in set.keys {
        let Ok(jwk) = serde_json::from_value::<Jwk>(value) else {
            continue;
        };
        if let Some(key) = key(&jwk) {
            keys.entry(jwk.kid.unwrap_or_default()).or_default().push(key);
        }
    }
    if keys.is_empty() {
        Err(KeysError::NoKeys)
    } else {
        Ok(keys)
    }
}

fn key(jwk: &Jwk) -> Option<Key> {
    if jwk.usage.as_ref().is_some_and(|usage| usage != "sig") {
        return None;
    }
    let field = |field: &Option<String>| decoded(field.as_ref()?).ok();
    let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Key::Rsa {
            n: field(&jwk.n)?,
            e: field(&jwk.e)?,
        },
        ("EC", Some("P-256")) => {
            let (x, y) = (field(&jwk.x)?, field(&jwk.y)?);
            if x.len() != 32 || y.len() != 32 {
                return None;
            }
            Key::P256([&[4], &x[..], &y[..]].concat())
        }
        ("OKP", Some("Ed25519")) => Key::Ed25519(field(&jwk.x)?),
        _ => return None,
    };
    let fits = jwk.alg.as_ref().is_none_or(|algorithm| key.is_for(algorithm));
    fits.then_some(key)
}

fn decoded(text: &str) -> Result<Vec<u8>, BearerError> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| BearerError::Malformed)
}

#[cfg(test)]
mod tests;
