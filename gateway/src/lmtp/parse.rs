//! From a command line to a [`Command`] (RFC 5321 4.1, RFC 2033, RFC 3030, RFC 1870, RFC 6152, RFC 6531).
//!
//! A line comes complete and without its CRLF. Every refusal is a finished [`Reply`], because the grammar decides the code: a wrong
//! path is a 501 with 5.1.7 (sender) or 5.1.3 (recipient), an unknown parameter a 555. The parameters of DSN (RFC 3461) are read for their form and
//! not kept: the relay hears of each recipient at once and writes the notes itself, so DSN is not advertised. What is absent: AUTH and
//! STARTTLS are not advertised, so their parameters are refused rather than ignored. The parser is our own because the replies depend on which part
//! of the line was wrong, and because addresses must stay exactly as sent for `Return-Path`.

use malle_proto::limits;

use super::reply::Reply;
use super::xclient::{self, Said};

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `LHLO host`
    Lhlo,
    /// `MAIL FROM:<path> [params]`
    Mail(Mail),
    /// `RCPT TO:<path>`
    Rcpt(Path),
    /// `DATA`
    Data,
    /// `BDAT size [LAST]`
    Bdat {
        /// Bytes that follow the line.
        size_bytes: u64,
        /// The message ends with them.
        last: bool,
    },
    /// `RSET`
    Rset,
    /// `NOOP`
    Noop,
    /// `VRFY`
    Vrfy,
    /// `HELP`
    Help,
    /// `QUIT`
    Quit,
    /// `XCLIENT name=value ...`; who may not say it is refused whatever it says.
    Xclient(Result<Vec<Said>, Reply>),
}

/// The encoding that the sender declared (RFC 6152, RFC 3030). Bytes are stored as sent whatever it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BodyKind {
    /// `7BIT`, also when nothing was declared.
    #[default]
    SevenBit,
    /// `8BITMIME`
    EightBit,
    /// `BINARYMIME`: only BDAT can carry it.
    Binary,
}

/// MAIL with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The sender; empty for a bounce.
    pub from: Path,
    /// SIZE= (RFC 1870), 0 when absent.
    pub size_bytes: u64,
    /// BODY=
    pub body: BodyKind,
    /// SMTPUTF8 was given: addresses may hold UTF-8.
    pub smtputf8: bool,
}

/// An address in angle brackets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path {
    /// As sent, without brackets and without a source route; empty for the null path.
    pub raw: String,
    /// The local part, quoting removed.
    pub local: String,
    /// The domain, when there is one.
    pub domain: Option<String>,
}

impl Path {
    /// The address to look up: quoting and `+detail` removed (RFC 5233), so that every subaddress of a user is the user.
    pub fn lookup(&self) -> String {
        let user = match self.local.find('+') {
            Some(at) if at > 0 => &self.local[..at],
            _ => &self.local,
        };
        match &self.domain {
            Some(domain) => format!("{user}@{domain}"),
            None => user.to_owned(),
        }
    }

    /// The same for every spelling of one address, detail included: what the op id of a delivery is made of.
    pub fn normalised(&self) -> String {
        match &self.domain {
            Some(domain) => format!("{}@{}", self.local.to_lowercase(), domain.to_lowercase()),
            None => self.local.to_lowercase(),
        }
    }
}

const SYNTAX: Reply = Reply::fixed(501, "5.5.4", "syntax error in parameters");
const BAD_SENDER: Reply = Reply::fixed(501, "5.1.7", "bad sender address syntax, want MAIL FROM:<user@domain>");
const BAD_RECIPIENT: Reply = Reply::fixed(501, "5.1.3", "bad recipient address syntax, want RCPT TO:<user@domain>");

/// Parses one line without its line end.
pub fn parse(line: &[u8]) -> Result<Command, Reply> {
    let (verb, rest) = split_word(line);
    let no_argument = |command: Command| if rest.is_empty() { Ok(command) } else { Err(SYNTAX) };
    match verb.to_ascii_uppercase().as_slice() {
        b"LHLO" if rest.is_empty() => Err(Reply::fixed(501, "5.5.4", "LHLO wants the name of the client")),
        b"LHLO" => Ok(Command::Lhlo),
        b"HELO" | b"EHLO" => Err(Reply::fixed(500, "5.5.1", "this is LMTP (RFC 2033), say LHLO")),
        b"MAIL" => parse_mail(rest).map(Command::Mail),
        b"RCPT" => parse_rcpt(rest).map(Command::Rcpt),
        b"BDAT" => parse_bdat(rest),
        b"DATA" => no_argument(Command::Data),
        b"RSET" => no_argument(Command::Rset),
        b"QUIT" => no_argument(Command::Quit),
        b"NOOP" => Ok(Command::Noop),
        b"VRFY" => Ok(Command::Vrfy),
        b"HELP" => Ok(Command::Help),
        b"XCLIENT" => Ok(Command::Xclient(xclient::parse(rest))),
        b"EXPN" | b"AUTH" | b"STARTTLS" | b"ETRN" | b"TURN" | b"BURL" => {
            Err(Reply::fixed(502, "5.5.1", "command not implemented"))
        }
        _ => Err(Reply::fixed(500, "5.5.2", "unknown command")),
    }
}

fn split_word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii())
}

fn parse_mail(rest: &[u8]) -> Result<Mail, Reply> {
    let after = strip_keyword(rest, b"FROM:").ok_or(BAD_SENDER)?;
    let (from, parameters) = parse_path(after).ok_or(BAD_SENDER)?;
    let mut mail = Mail {
        from,
        size_bytes: 0,
        body: BodyKind::default(),
        smtputf8: false,
    };
    let mut seen = Vec::new();
    for parameter in words(parameters) {
        let equals = parameter.iter().position(|b| *b == b'=');
        let name = parameter[..equals.unwrap_or(parameter.len())].to_ascii_uppercase();
        let value = equals.map(|at| &parameter[at + 1..]);
        match (name.as_slice(), value) {
            (b"SIZE", Some(value)) => mail.size_bytes = parse_number(value).ok_or(SYNTAX)?,
            (b"BODY", Some(value)) => mail.body = parse_body_kind(value)?,
            (b"SMTPUTF8", None) => mail.smtputf8 = true,
            (b"RET", Some(value)) if value.eq_ignore_ascii_case(b"FULL") || value.eq_ignore_ascii_case(b"HDRS") => {}
            (b"ENVID", Some(value)) if value.len() <= 100 && is_xtext(value) => {}
            (b"SIZE" | b"BODY" | b"SMTPUTF8" | b"RET" | b"ENVID", _) => return Err(SYNTAX),
            _ => {
                return Err(Reply::fixed(
                    555,
                    "5.5.4",
                    "MAIL parameter not recognised or not implemented",
                ));
            }
        }
        if seen.contains(&name) {
            return Err(Reply::fixed(501, "5.5.4", "a MAIL parameter was given twice"));
        }
        seen.push(name);
    }
    refuse_undeclared_utf8(&mail.from, mail.smtputf8)?;
    Ok(mail)
}

fn parse_body_kind(value: &[u8]) -> Result<BodyKind, Reply> {
    match value.to_ascii_uppercase().as_slice() {
        b"7BIT" => Ok(BodyKind::SevenBit),
        b"8BITMIME" => Ok(BodyKind::EightBit),
        b"BINARYMIME" => Ok(BodyKind::Binary),
        _ => Err(SYNTAX),
    }
}

fn parse_rcpt(rest: &[u8]) -> Result<Path, Reply> {
    let after = strip_keyword(rest, b"TO:").ok_or(BAD_RECIPIENT)?;
    let (to, parameters) = parse_path(after).ok_or(BAD_RECIPIENT)?;
    check_rcpt_parameters(parameters)?;
    // RFC 5321 4.5.1: postmaster is the one recipient that needs no domain.
    let complete = to.domain.is_some() || to.local.eq_ignore_ascii_case("postmaster");
    if to.local.is_empty() || !complete {
        Err(BAD_RECIPIENT)
    } else {
        Ok(to)
    }
}

/// NOTIFY and ORCPT (RFC 3461 4.1 and 4.2), once each.
fn check_rcpt_parameters(parameters: &[u8]) -> Result<(), Reply> {
    let (mut notify, mut original) = (false, false);
    for parameter in words(parameters) {
        let equals = parameter.iter().position(|b| *b == b'=').unwrap_or(parameter.len());
        let (name, value) = (&parameter[..equals], parameter.get(equals + 1..).unwrap_or_default());
        let (seen, fits) = if name.eq_ignore_ascii_case(b"NOTIFY") {
            (&mut notify, is_notify(value))
        } else if name.eq_ignore_ascii_case(b"ORCPT") {
            (&mut original, is_original_recipient(value))
        } else {
            return Err(Reply::fixed(
                555,
                "5.5.4",
                "RCPT parameter not recognised or not implemented",
            ));
        };
        if std::mem::replace(seen, true) || !fits {
            return Err(SYNTAX);
        }
    }
    Ok(())
}

/// `NEVER`, or a list of SUCCESS, FAILURE and DELAY.
fn is_notify(value: &[u8]) -> bool {
    const KINDS: [&[u8]; 3] = [b"SUCCESS", b"FAILURE", b"DELAY"];
    let is_kind = |word: &[u8]| KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(word));
    value.eq_ignore_ascii_case(b"NEVER") || value.split(|b| *b == b',').all(is_kind)
}

/// `type;address`: an atom, then xtext; UTF-8 where it is `utf-8` (RFC 6533 3).
fn is_original_recipient(value: &[u8]) -> bool {
    let Some(at) = value.iter().position(|b| *b == b';') else {
        return false;
    };
    let (kind, address) = (&value[..at], &value[at + 1..]);
    let is_kind = !kind.is_empty() && kind.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    let is_utf8 = kind.eq_ignore_ascii_case(b"utf-8") && std::str::from_utf8(address).is_ok();
    value.len() <= 500 && is_kind && !address.is_empty() && (is_utf8 || is_xtext(address))
}

/// RFC 3461 4: printable, with `+` and two capital hexadecimal digits for the rest.
fn is_xtext(value: &[u8]) -> bool {
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => {
                let is_digit = |b: &u8| b.is_ascii_digit() || (b'A'..=b'F').contains(b);
                match rest.split_at_checked(2) {
                    Some((digits, after)) if digits.iter().all(is_digit) => rest = after,
                    _ => return false,
                }
            }
            b'=' => return false,
            byte if byte.is_ascii_graphic() => {}
            _ => return false,
        }
    }
    true
}

/// RFC 6531 3.7.4: an address beyond ASCII needs SMTPUTF8 on this transaction's MAIL.
pub fn refuse_undeclared_utf8(path: &Path, smtputf8: bool) -> Result<(), Reply> {
    if smtputf8 || path.raw.is_ascii() {
        Ok(())
    } else {
        Err(Reply::fixed(
            553,
            "5.6.7",
            "an address beyond ASCII needs SMTPUTF8 on MAIL",
        ))
    }
}

fn parse_bdat(rest: &[u8]) -> Result<Command, Reply> {
    let wrong = Reply::fixed(501, "5.5.4", "want BDAT size [LAST]");
    let (size, last) = split_word(rest);
    let size_bytes = parse_number(size).ok_or(wrong.clone())?;
    match last.to_ascii_uppercase().as_slice() {
        b"" => Ok(Command::Bdat {
            size_bytes,
            last: false,
        }),
        b"LAST" => Ok(Command::Bdat { size_bytes, last: true }),
        _ => Err(wrong),
    }
}

fn parse_number(digits: &[u8]) -> Option<u64> {
    // RFC 1870 4 and RFC 3030 2: at most 20 digits; from_str alone would also take a sign.
    let all_digits = !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(digits).ok()?;
    if all_digits { text.parse().ok() } else { None }
}

fn strip_keyword<'a>(rest: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let head = rest.get(..keyword.len())?;
    // A space after the colon is wrong and common.
    head.eq_ignore_ascii_case(keyword)
        .then(|| rest[keyword.len()..].trim_ascii_start())
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|b| *b == b' ').filter(|word| !word.is_empty())
}

/// `<path>` and what follows it. `None`: not a path.
fn parse_path(text: &[u8]) -> Option<(Path, &[u8])> {
    let inner = text.strip_prefix(b"<")?;
    let end = end_of_path(inner)?;
    let rest = &inner[end + 1..];
    if !rest.is_empty() && !rest.starts_with(b" ") {
        return None;
    }
    let whole = std::str::from_utf8(&inner[..end]).ok()?;
    // RFC 5321 4.1.1.3: a source route `@a,@b:` is ignored.
    let raw = match whole.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => whole,
    };
    if raw.len() > limits::ADDRESS_MAX_BYTES {
        return None;
    }
    let (local, domain) = split_address(raw)?;
    Some((
        Path {
            raw: raw.to_owned(),
            local,
            domain,
        },
        rest,
    ))
}

/// The place of the `>` that ends a path: quoted strings may hold one, nothing may hold a control character.
fn end_of_path(inner: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (i, byte) in inner.iter().enumerate() {
        match byte {
            0..=31 | 127 => return None,
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Some(i),
            b'<' | b' ' if !quoted => return None,
            _ => {}
        }
    }
    None
}

/// Local part without quoting, and domain in the case it was sent in.
fn split_address(raw: &str) -> Option<(String, Option<String>)> {
    let Some(rest) = raw.strip_prefix('"') else {
        return match raw.rsplit_once('@') {
            None => Some((raw.to_owned(), None)),
            Some(("", _)) | Some((_, "")) => None,
            Some((local, domain)) => Some((local.to_owned(), Some(domain.to_owned()))),
        };
    };
    let mut local = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => local.push(chars.next()?.1),
            '"' => {
                let after = &rest[at + 1..];
                let domain = after
                    .strip_prefix('@')
                    .filter(|domain| !domain.is_empty() && !domain.contains('@'));
                return match (after, domain) {
                    ("", _) => Some((local, None)),
                    (_, Some(domain)) => Some((local, Some(domain.to_owned()))),
                    _ => None,
                };
            }
            _ => local.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rcpt(text: &str) -> Path {
        match parse(format!("RCPT TO:{text}").as_bytes()) {
            Ok(Command::Rcpt(path)) => path,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn every_subaddress_of_a_user_is_looked_up_as_the_user() {
        assert_eq!(rcpt("<u1+lists@example.org>").lookup(), "u1@example.org");
        assert_eq!(rcpt("<u1+a+b@example.org>").lookup(), "u1@example.org");
        assert_eq!(rcpt("<+odd@example.org>").lookup(), "+odd@example.org");
        assert_eq!(rcpt("<\"u1+x y\"@example.org>").lookup(), "u1@example.org");
    }

    #[test]
    fn a_quoted_local_part_may_hold_brackets_and_at_signs() {
        let path = rcpt("<\"a>b@c \\\"d\"@example.org>");
        assert_eq!(path.local, "a>b@c \"d");
        assert_eq!(path.domain.as_deref(), Some("example.org"));
    }

    #[test]
    fn a_source_route_is_dropped() {
        assert_eq!(rcpt("<@a.example,@b.example:u1@example.org>").raw, "u1@example.org");
    }

    #[test]
    fn mail_takes_its_parameters_in_any_case_and_refuses_others() {
        let Ok(Command::Mail(mail)) = parse(b"mail from: <a@b> size=10 body=8bitmime smtputf8") else {
            panic!()
        };
        assert_eq!(
            (mail.size_bytes, mail.body, mail.smtputf8),
            (10, BodyKind::EightBit, true)
        );
        assert_eq!(parse(b"MAIL FROM:<a@b> AUTH=<>").unwrap_err().code, 555);
        assert_eq!(parse(b"MAIL FROM:<a@b> SIZE=1 SIZE=2").unwrap_err().code, 501);
        assert_eq!(parse(b"MAIL FROM:<a@b> SIZE=-1").unwrap_err().code, 501);
        assert_eq!(
            parse(b"MAIL FROM:<a@b> SIZE=99999999999999999999").unwrap_err().code,
            501
        );
    }

    #[test]
    fn parameters_of_dsn_are_read_for_their_form() {
        for good in [
            "MAIL FROM:<a@b> RET=HDRS ENVID=QQ314159+3D",
            "MAIL FROM:<a@b> ret=full",
            "RCPT TO:<a@b> NOTIFY=NEVER",
            "RCPT TO:<a@b> NOTIFY=success,DELAY ORCPT=rfc822;Bob+2Bx@example.com",
            "RCPT TO:<a@b> ORCPT=utf-8;é@example.com",
        ] {
            assert!(parse(good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [
            "MAIL FROM:<a@b> RET=SOME",
            "MAIL FROM:<a@b> RET",
            "MAIL FROM:<a@b> ENVID=a+3d",
            "MAIL FROM:<a@b> RET=FULL RET=FULL",
            "RCPT TO:<a@b> NOTIFY=",
            "RCPT TO:<a@b> NOTIFY=NEVER,DELAY",
            "RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER",
            "RCPT TO:<a@b> ORCPT=rfc822",
            "RCPT TO:<a@b> ORCPT=rfc822;a=b",
            "RCPT TO:<a@b> ORCPT=rfc822;é",
        ] {
            assert_eq!(parse(bad.as_bytes()).unwrap_err().code, 501, "{bad}");
        }
        assert_eq!(parse(b"RCPT TO:<a@b> XYZ=1").unwrap_err().code, 555);
    }

    #[test]
    fn an_address_with_a_line_end_or_broken_utf8_is_no_address() {
        assert_eq!(parse(b"MAIL FROM:<a\rb@c>").unwrap_err().enhanced, "5.1.7");
        assert_eq!(parse(b"RCPT TO:<\xff@c>").unwrap_err().enhanced, "5.1.3");
        assert_eq!(parse(b"RCPT TO:<a@b>x").unwrap_err().enhanced, "5.1.3");
        assert_eq!(parse(b"RCPT TO:<a>").unwrap_err().enhanced, "5.1.3");
        assert!(parse(b"RCPT TO:<Postmaster>").is_ok());
    }

    #[test]
    fn utf8_needs_to_be_declared() {
        assert_eq!(parse("MAIL FROM:<é@b>".as_bytes()).unwrap_err().code, 553);
        assert!(parse("MAIL FROM:<é@b> SMTPUTF8".as_bytes()).is_ok());
    }

    #[test]
    fn ehlo_is_told_to_say_lhlo() {
        assert_eq!(parse(b"EHLO x").unwrap_err().code, 500);
        assert_eq!(parse(b"HELO x").unwrap_err().code, 500);
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
            let _ = parse(&[b"MAIL FROM:<".as_slice(), &line].concat());
            let _ = parse(&[b"RCPT TO:<\"".as_slice(), &line].concat());
        }

        #[test]
        fn a_parsed_sender_is_safe_to_print_in_a_header(line in ".{0,80}") {
            if let Ok(Command::Mail(mail)) = parse(format!("MAIL FROM:<{line}> SMTPUTF8").as_bytes()) {
                prop_assert!(mail.from.raw.bytes().all(|b| b >= 32 && b != 127));
            }
        }
    }
}
