//! What a client answers in AUTHENTICATE: PLAIN (RFC 4616), OAUTHBEARER (RFC 7628) and XOAUTH2, as Google defined it and mail programs
//! speak it. Nothing here is printed or kept.

/// The mechanisms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mechanism {
    Plain,
    OAuthBearer,
    XOAuth2,
}

/// Who wants to be let in, and why. Borrowed from the client's answer.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Empty where the proof alone says who.
    pub(super) name: Vec<u8>,
    pub(super) proof: Proof,
}

/// What is checked.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Proof {
    Password(Vec<u8>),
    /// An access token of an identity provider.
    Token(Vec<u8>),
}

/// Why an answer is none: for the person who debugs the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    Syntax(&'static str),
    /// Nobody may act for another one through this door.
    ActsForAnother,
}

impl Mechanism {
    /// Those that a session offers.
    pub(super) fn named(name: &str, access_tokens: bool) -> Option<Mechanism> {
        match name {
            "PLAIN" => Some(Mechanism::Plain),
            "OAUTHBEARER" if access_tokens => Some(Mechanism::OAuthBearer),
            "XOAUTH2" if access_tokens => Some(Mechanism::XOAuth2),
            _ => None,
        }
    }

    /// The client's answer, decoded from base64.
    pub(super) fn credentials(self, answer: &[u8]) -> Result<Credentials, Malformed> {
        match self {
            Mechanism::Plain => plain(answer),
            Mechanism::OAuthBearer => oauth_bearer(answer),
            Mechanism::XOAuth2 => xoauth2(answer),
        }
    }

    /// What the client is told when its token is not taken, before it hears NO: it sends an empty answer, and may fetch a new token
    /// (RFC 7628 3.2.2). `None`: it hears NO at once.
    pub(super) fn refusal(self) -> Option<&'static str> {
        match self {
            Mechanism::Plain => None,
            Mechanism::OAuthBearer => Some(r#"{"status":"invalid_token"}"#),
            Mechanism::XOAuth2 => Some(r#"{"status":"400","schemes":"Bearer"}"#),
        }
    }
}

/// `[authorize-as] NUL name NUL password`.
fn plain(answer: &[u8]) -> Result<Credentials, Malformed> {
    let parts: Vec<&[u8]> = answer.split(|&byte| byte == 0).collect();
    let [authorize_as, name, password] = parts.as_slice() else {
        return Err(Malformed::Syntax(
            "PLAIN wants authorization, name and password with NUL between them",
        ));
    };
    if !authorize_as.is_empty() && authorize_as != name {
        return Err(Malformed::ActsForAnother);
    }
    Ok(Credentials {
        name: name.to_vec(),
        proof: Proof::Password(password.to_vec()),
    })
}

/// `n,[a=name], ^A key=value ^A ... ^A` (RFC 7628 3.1, RFC 5801 4).
fn oauth_bearer(answer: &[u8]) -> Result<Credentials, Malformed> {
    const EXPECTED: Malformed = Malformed::Syntax("OAUTHBEARER wants n,a=name,^Aauth=Bearer token^A^A");
    let (head, pairs) = split_once(answer, 1).ok_or(EXPECTED)?;
    let mut head = head.split(|&byte| byte == b',');
    // `y`: the client would bind the channel. It cannot with a bearer token.
    let (flag, name, end) = (head.next(), head.next(), head.next());
    if !matches!(flag, Some(b"n" | b"y")) || end != Some(b"") || head.next().is_some() {
        return Err(EXPECTED);
    }
    let name = match name.ok_or(EXPECTED)? {
        b"" => Vec::new(),
        name => sasl_name(name.strip_prefix(b"a=").ok_or(EXPECTED)?).ok_or(EXPECTED)?,
    };
    Ok(Credentials {
        name,
        proof: Proof::Token(bearer(pairs).ok_or(EXPECTED)?),
    })
}

/// `user=name ^A auth=Bearer token ^A ^A`.
fn xoauth2(answer: &[u8]) -> Result<Credentials, Malformed> {
    const EXPECTED: Malformed = Malformed::Syntax("XOAUTH2 wants user=name^Aauth=Bearer token^A^A");
    let (user, pairs) = split_once(answer, 1).ok_or(EXPECTED)?;
    let name = user.strip_prefix(b"user=").ok_or(EXPECTED)?;
    Ok(Credentials {
        name: name.to_vec(),
        proof: Proof::Token(bearer(pairs).ok_or(EXPECTED)?),
    })
}

/// The token among pairs that each end with ^A, with one more ^A behind them.
fn bearer(pairs: &[u8]) -> Option<Vec<u8>> {
    let pairs = pairs.strip_suffix(b"\x01\x01")?;
    let value = pairs
        .split(|&byte| byte == 1)
        .find_map(|pair| pair.strip_prefix(b"auth="))?;
    let (scheme, token) = split_once(value, b' ')?;
    let is_token = !token.is_empty() && token.iter().all(u8::is_ascii_graphic);
    (scheme.eq_ignore_ascii_case(b"Bearer") && is_token).then(|| token.to_vec())
}

/// RFC 5801 4: `=2C` is a comma, `=3D` an equal sign, and no other equal sign may stand.
fn sasl_name(text: &[u8]) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'=' {
            name.push(byte);
            continue;
        }
        let (escaped, after) = rest.split_at_checked(2)?;
        name.push(match escaped {
            b"2C" => b',',
            b"3D" => b'=',
            _ => return None,
        });
        rest = after;
    }
    (!name.is_empty()).then_some(name)
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let index = bytes.iter().position(|&byte| byte == at)?;
    Some((&bytes[..index], &bytes[index + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(mechanism: Mechanism, answer: &str) -> Option<(String, String)> {
        let credentials = mechanism.credentials(answer.replace('^', "\x01").as_bytes()).ok()?;
        let Proof::Token(token) = credentials.proof else {
            return None;
        };
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Some((text(credentials.name), text(token)))
    }

    #[test]
    fn bearer_tokens_come_with_or_without_a_name() {
        let said = |name: &str| Some((name.to_owned(), "abc.d-e_f".to_owned()));
        for (answer, name) in [
            ("n,a=u1@example.org,^auth=Bearer abc.d-e_f^^", "u1@example.org"),
            ("n,,^host=h^port=143^auth=bearer abc.d-e_f^^", ""),
            ("y,a=a=2Cb=3D,^auth=Bearer abc.d-e_f^x=y^^", "a,b="),
        ] {
            assert_eq!(token(Mechanism::OAuthBearer, answer), said(name), "{answer}");
        }
        assert_eq!(
            token(Mechanism::XOAuth2, "user=u1@example.org^auth=Bearer abc.d-e_f^^"),
            said("u1@example.org")
        );
    }

    #[test]
    fn what_is_no_bearer_token_is_refused() {
        for answer in [
            "",
            "^",
            "n,,^",
            "n,,^^",
            "n,,^auth=Bearer ^^",
            "n,,^auth=Bearer a b^^",
            "n,,^auth=Basic abc^^",
            "n,,^auth=Bearer abc^",
            "n,,x,^auth=Bearer abc^^",
            "p=tls-unique,,^auth=Bearer abc^^",
            "n,b=c,^auth=Bearer abc^^",
            "n,a=x=2D,^auth=Bearer abc^^",
            "n,a=,^auth=Bearer abc^^",
            "user=u1^auth=Bearer abc^^",
        ] {
            assert_eq!(token(Mechanism::OAuthBearer, answer), None, "{answer}");
        }
        for answer in ["", "user=x", "u1^auth=Bearer abc^^", "user=u1^auth=Bearer abc^"] {
            assert_eq!(token(Mechanism::XOAuth2, answer), None, "{answer}");
        }
    }

    #[test]
    fn nobody_acts_for_another() {
        let acts = Mechanism::Plain.credentials(b"boss\0me\0secret").err();
        assert_eq!(acts, Some(Malformed::ActsForAnother));
        assert!(Mechanism::Plain.credentials(b"me\0me\0secret").is_ok());
        assert!(Mechanism::Plain.credentials(b"me\0secret").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(answer: Vec<u8>) {
            for mechanism in [Mechanism::Plain, Mechanism::OAuthBearer, Mechanism::XOAuth2] {
                let _ = mechanism.credentials(&answer);
            }
        }
    }
}
