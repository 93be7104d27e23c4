//! `rsa.jwk.json` and `rsa.jwt` were made by another program (Python's cryptography); the private key is gone. The other tokens are
//! signed here.

use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const RSA_KEY: &str = include_str!("rsa.jwk.json");
const RSA_TOKEN: &str = include_str!("rsa.jwt");
/// 2026.
const NOW_MS: u64 = 1_767_225_600_000;

fn config() -> OAuth {
    OAuth {
        issuer: "https://id.example.org".into(),
        audience: "malle".into(),
        jwks: Some("keys.json".into()),
        jwks_url: None,
        jwks_ca: None,
        claim: "email".into(),
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example.org",
        "aud": "malle",
        "exp": NOW_MS / 1000 + 60,
        "email": "u1@example.org",
    })
}

/// A provider with a key of each kind.
struct Provider {
    ed25519: Ed25519KeyPair,
    p256: EcdsaKeyPair,
    random: SystemRandom,
}

impl Provider {
    fn new() -> Provider {
        let random = SystemRandom::new();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Provider {
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap(),
            random,
        }
    }

    fn jwks(&self) -> String {
        let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let point = self.p256.public_key().as_ref();
        let rsa: Value = serde_json::from_str(RSA_KEY).unwrap();
        json!({ "keys": [
            { "kty": "oct", "kid": "secret", "k": "AAAA" },
            { "kty": "RSA", "kid": "for-encryption", "use": "enc", "n": "AQAB", "e": "AQAB" },
            rsa,
            { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": part(self.ed25519.public_key().as_ref()) },
            { "kty": "EC", "kid": "ec", "crv": "P-256", "x": part(&point[1..33]), "y": part(&point[33..]) },
            "nonsense",
        ]})
        .to_string()
    }

    fn bearers(&self) -> Bearers {
        Bearers::new(&config(), &self.jwks()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", encoded(header), encoded(claims));
        let signature = match header["alg"].as_str() {
            Some("ES256") => {
                let signature = self.p256.sign(&self.random, signed.as_bytes()).unwrap();
                signature.as_ref().to_vec()
            }
            _ => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn open(&self, header: Value, claims: Value) -> Result<Bearer, BearerError> {
        self.bearers().open(&self.sign(&header, &claims), NOW_MS)
    }
}

fn eddsa() -> Value {
    json!({ "alg": "EdDSA", "kid": "ed" })
}

#[test]
fn tokens_of_all_three_algorithms_are_believed() {
    let provider = Provider::new();
    let known = Ok("u1@example.org".to_owned());
    let address = |bearer: Result<Bearer, BearerError>| bearer.map(|bearer| bearer.address);
    assert_eq!(address(provider.bearers().open(RSA_TOKEN.trim(), NOW_MS)), known);
    assert_eq!(
        address(provider.open(json!({ "alg": "ES256", "kid": "ec", "typ": "JWT" }), claims())),
        known
    );
    let opened = provider.open(eddsa(), claims());
    assert_eq!(
        opened.as_ref().map(|bearer| bearer.ends_ms),
        Ok((NOW_MS / 1000 + 60) * 1000)
    );
    assert_eq!(address(opened), known);
    assert_eq!(
        address(provider.open(json!({ "alg": "EdDSA" }), claims())),
        known,
        "a key is found without its name"
    );
}

#[test]
fn no_bit_of_a_token_can_be_changed() {
    let bearers = Provider::new().bearers();
    let token = RSA_TOKEN.trim().as_bytes();
    for at in 0..token.len() {
        let mut changed = token.to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let opened = bearers.open(std::str::from_utf8(&changed).unwrap(), NOW_MS);
        assert!(opened.is_err(), "byte {at}");
    }
    for length in 0..token.len() {
        assert!(
            bearers
                .open(std::str::from_utf8(&token[..length]).unwrap(), NOW_MS)
                .is_err()
        );
    }
}

#[test]
fn an_algorithm_is_taken_only_with_a_key_for_it() {
    let provider = Provider::new();
    let refused = |header: Value| provider.open(header, claims()).unwrap_err();
    for algorithm in ["none", "HS256", "RS512", "eddsa", ""] {
        assert_eq!(
            refused(json!({ "alg": algorithm, "kid": "ed" })),
            BearerError::Algorithm
        );
    }
    // Signed by the Ed25519 key, and said to be by another one.
    assert_eq!(refused(json!({ "alg": "RS256", "kid": "ed" })), BearerError::UnknownKey);
    assert_eq!(
        refused(json!({ "alg": "RS256", "kid": "rsa-1" })),
        BearerError::Signature
    );
    assert_eq!(
        refused(json!({ "alg": "EdDSA", "kid": "gone" })),
        BearerError::UnknownKey
    );
    assert_eq!(
        refused(json!({ "alg": "EdDSA", "kid": "ed", "crit": ["exp"] })),
        BearerError::Malformed
    );
    assert_eq!(
        refused(json!({ "alg": "EdDSA", "kid": "ed", "typ": "dpop+jwt" })),
        BearerError::Malformed
    );
    let unsigned = format!("{}.{}.", encoded(&json!({ "alg": "none" })), encoded(&claims()));
    assert_eq!(provider.bearers().open(&unsigned, NOW_MS), Err(BearerError::Algorithm));
}

#[test]
fn the_claims_must_be_for_us_and_for_now() {
    let provider = Provider::new();
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        provider.open(eddsa(), claims)
    };
    let now_s = NOW_MS / 1000;
    assert_eq!(with("iss", json!("https://id.example.com")), Err(BearerError::Issuer));
    assert_eq!(with("iss", Value::Null), Err(BearerError::Issuer));
    assert_eq!(with("aud", json!("other")), Err(BearerError::Audience));
    assert_eq!(with("aud", json!(["other", "malle2"])), Err(BearerError::Audience));
    assert!(with("aud", json!(["other", "malle"])).is_ok());
    assert_eq!(with("exp", Value::Null), Err(BearerError::Time));
    assert_eq!(with("exp", json!("tomorrow")), Err(BearerError::Time));
    assert_eq!(with("exp", json!(now_s - 30)), Err(BearerError::Time));
    assert!(
        with("exp", json!(now_s - 29)).is_ok(),
        "clocks differ by half a minute at most"
    );
    assert!(with("exp", json!(now_s as f64 + 0.5)).is_ok());
    assert_eq!(with("nbf", json!(now_s + 31)), Err(BearerError::Time));
    assert!(with("nbf", json!(now_s)).is_ok());
    assert_eq!(with("email", json!(7)), Err(BearerError::Claim));
    assert_eq!(with("email_verified", json!(false)), Err(BearerError::Claim));
    assert!(with("email_verified", json!(true)).is_ok());
}

#[test]
fn another_claim_may_name_the_account() {
    let provider = Provider::new();
    let config = OAuth {
        claim: "upn".into(),
        ..config()
    };
    let bearers = Bearers::new(&config, &provider.jwks()).unwrap();
    let mut claims = claims();
    claims["upn"] = json!("u2@example.org");
    let bearer = bearers.open(&provider.sign(&eddsa(), &claims), NOW_MS).unwrap();
    assert_eq!(bearer.address, "u2@example.org");
}

#[test]
fn keys_are_replaced_and_a_bad_file_leaves_them() {
    let (before, after) = (Provider::new(), Provider::new());
    let bearers = before.bearers();
    let token = before.sign(&eddsa(), &claims());
    assert!(bearers.open(&token, NOW_MS).is_ok());
    assert_eq!(bearers.replace(&before.jwks()), Ok(false));
    assert_eq!(bearers.replace(r#"{"keys":[]}"#), Err(KeysError::NoKeys));
    assert!(matches!(bearers.replace("<html>"), Err(KeysError::Syntax(_))));
    assert!(bearers.open(&token, NOW_MS).is_ok());
    assert_eq!(bearers.replace(&after.jwks()), Ok(true));
    assert_eq!(bearers.open(&token, NOW_MS), Err(BearerError::Signature));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(token in ".{0,200}", parts in proptest::collection::vec("[A-Za-z0-9_-]{0,40}", 3)) {
        let bearers = Bearers::new(&config(), &format!("{{\"keys\":[{RSA_KEY}]}}")).unwrap();
        assert!(bearers.open(&token, NOW_MS).is_err());
        assert!(bearers.open(&parts.join("."), NOW_MS).is_err());
    }
}
