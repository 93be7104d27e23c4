//! The messages that `--check` delivers: made here, the same in every run, and as unpleasant as real mail.
//!
//! Each carries its id in an `X-Malle-Check` line near its beginning (in the header where there is one), so that the reader
//! can tell which one it holds. Absent: NUL octets, which IMAP4rev1 cannot carry in a `BODY[]` (RFC 3501 9, CHAR8).

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::lmtp_writer::Framing;

/// What marks a message; the id follows, then a line end.
pub const MARK: &str = "X-Malle-Check: ";
/// Column at which base64 lines break (RFC 2045 6.8).
const BASE64_COLUMNS: usize = 76;

/// One message with how it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Unique in the corpus.
    pub id: String,
    /// Envelope sender.
    pub sender: &'static str,
    /// DATA, or BDAT for what DATA cannot carry.
    pub framing: Framing,
    /// Belongs into Junk.
    pub spam: bool,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The whole corpus. The tag begins every id: two runs on one cluster send different mails.
pub fn corpus(tag: &str) -> Vec<Mail> {
    let data = |id: String, bytes| mail(tag, id, bytes, Framing::Data);
    let chunks = |id: String, bytes| mail(tag, id, bytes, Framing::Chunks);
    let mut mails = Vec::new();
    for n in 0..12 {
        mails.push(data(format!("accents-{n}"), accents(n)));
        mails.push(data(format!("raw-utf8-{n}"), raw_utf8(n)));
        mails.push(data(format!("latin1-{n}"), latin1(n)));
        mails.push(data(format!("nested-{n}"), nested(n)));
        mails.push(data(format!("long-lines-{n}"), long_lines(n)));
        mails.push(data(format!("dots-{n}"), dots(n)));
        mails.push(chunks(format!("line-ends-{n}"), line_ends(n)));
    }
    for (n, broken) in BROKEN_MIME.iter().enumerate() {
        mails.push(data(format!("broken-mime-{n}"), broken.as_bytes().to_vec()));
    }
    for (n, size_kib) in [1, 3, 17, 64, 255, 256, 257, 1024, 4096, 10 * 1024, 20 * 1024]
        .into_iter()
        .enumerate()
    {
        mails.push(data(format!("attachment-{n}"), attachment(n, size_kib * 1024)));
    }
    mails.push(chunks("attachment-binary".into(), binary_attachment(3 << 20)));
    mails.push(Mail {
        spam: true,
        ..data(
            "spam".into(),
            b"X-Spam-Flag: YES\r\nSubject: gagnez\r\n\r\nVite !\r\n".to_vec(),
        )
    });
    mails.push(Mail {
        sender: "",
        ..data("bounce".into(), b"Subject: Undelivered\r\n\r\nSorry.\r\n".to_vec())
    });
    mails.push(Mail {
        sender: "andré@exemple.fr",
        ..data("utf8-sender".into(), accents(99))
    });
    mails.push(chunks(
        "no-line-end".into(),
        b"Subject: x\r\n\r\nno line end at the end".to_vec(),
    ));
    mails.push(data("empty-body".into(), b"Subject: nothing\r\n\r\n".to_vec()));
    mails
}

/// A small message of the stream of deliveries.
pub fn stream_mail(tag: &str, number: u64) -> Mail {
    let mut text = format!("Subject: =?utf-8?q?D=C3=A9p=C3=AAche_{number}?=\r\nFrom: <flux@example.net>\r\n\r\n");
    for line in 0..number % 40 {
        let _ = write!(text, "Ligne {line} de la dépêche {number}.\r\n");
    }
    mail(tag, format!("stream-{number}"), text.into_bytes(), Framing::Data)
}

/// The id of a message as it came back, if it has one.
pub fn id_of(bytes: &[u8]) -> Option<&str> {
    let head = &bytes[..bytes.len().min(4096)];
    let start = head.windows(MARK.len()).position(|window| window == MARK.as_bytes())? + MARK.len();
    let end = start + head[start..].iter().position(|b| matches!(b, b'\r' | b'\n'))?;
    std::str::from_utf8(&head[start..end]).ok()
}

fn mail(tag: &str, name: String, bytes: Vec<u8>, framing: Framing) -> Mail {
    let id = format!("{tag}-{name}");
    // The Message-ID makes a repeat of the same delivery recognisable (architecture, decision 6).
    let head = format!("{MARK}{id}\r\nMessage-ID: <{id}@check.malle.demo>\r\n");
    let bytes = [head.into_bytes(), bytes].concat();
    Mail {
        id,
        sender: "relais@example.net",
        framing,
        spam: false,
        bytes,
    }
}

fn accents(n: usize) -> Vec<u8> {
    format!(
        "Date: Mon, 23 Nov 2026 09:{n:02}:00 +0100\r\n\
         From: =?utf-8?B?RnJhbsOnb2lzIExlZsOodnJl?= <francois@example.net>\r\n\
         To: =?iso-8859-1?Q?H=E9l=E8ne_No=EBl?= <helene@example.org>,\r\n\t\"Dupont, Jean\" <jean@example.org>\r\n\
         Subject: =?UTF-8?Q?R=C3=A9union_=C3=A0_No=C3=ABl_n=C2=B0_{n}?=\r\n =?UTF-8?Q?_=E2=80=94_suite?=\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         Voil=C3=A0 l=E2=80=99ordre du jour n=C2=B0 {n}=20\r\net la suite=\r\n sans fin.\r\n"
    )
    .into_bytes()
}

fn raw_utf8(n: usize) -> Vec<u8> {
    format!(
        "From: Zoé Müller <zoe@example.net>\r\nTo: élève {n} <eleve@example.org>\r\nSubject: Été {n} : où ça ? œuvre, 日本, 🎉\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
         Dès Noël, où un zéphyr haï me vêt de glaçons würmiens, je dîne d’exquis rôtis de bœuf au kir à l’aÿ d’âge mûr n° {n}.\r\n"
    )
    .into_bytes()
}

/// 8-bit text in Latin-1 and every octet but NUL, CR and LF, without a declaration of it all.
fn latin1(n: usize) -> Vec<u8> {
    let mut mail = b"Subject: caf\xe9 d\xe9j\xe0 vu\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n".to_vec();
    for shift in 0..=n {
        mail.extend(
            (1..=255u8)
                .map(|b| b.wrapping_add(u8::try_from(shift).unwrap_or(0)))
                .filter(|b| !matches!(b, 0 | 10 | 13)),
        );
        mail.extend_from_slice(b"\r\n");
    }
    mail
}

fn nested(n: usize) -> Vec<u8> {
    let mut mail = format!("Subject: nested {n}\r\nMIME-Version: 1.0\r\n").into_bytes();
    let depth = 1 + n * 3;
    for level in 0..depth {
        let kind = ["mixed", "alternative", "related", "digest", "signed"][level % 5];
        mail.extend_from_slice(format!("Content-Type: multipart/{kind}; boundary=\"b{level}=_\"\r\n\r\n").as_bytes());
        mail.extend_from_slice(format!("preamble {level}\r\n--b{level}=_\r\n").as_bytes());
    }
    mail.extend_from_slice(
        b"Content-Type: message/rfc822\r\n\r\nSubject: inside\r\nFrom: a@b\r\n\r\nthe innermost\r\n",
    );
    for level in (0..depth).rev() {
        let text = format!(
            "\r\n--b{level}=_\r\nContent-Type: text/html\r\n\r\n<p>étage {level}</p>\r\n--b{level}=_--\r\nepilogue\r\n"
        );
        mail.extend_from_slice(text.as_bytes());
    }
    mail
}

fn long_lines(n: usize) -> Vec<u8> {
    let long = "é".repeat(600 << n);
    format!(
        "Subject: {}\r\nX-Long: {long}\r\n\r\n{long}\r\n{long}\r\n",
        "très long ".repeat(100 * (n + 1))
    )
    .into_bytes()
}

fn dots(n: usize) -> Vec<u8> {
    let mut mail = b"Subject: dots\r\n\r\n.\r\n..\r\n...x\r\n.x\r\n \r\n. \r\n".to_vec();
    for count in 0..n {
        mail.extend_from_slice(&b".".repeat(count));
        mail.extend_from_slice(b"\r\nFrom here\r\n\t.\r\n");
    }
    mail
}

/// Bare CR, bare LF and what a smuggler would send.
fn line_ends(n: usize) -> Vec<u8> {
    let ends: [&[u8]; 6] = [b"\n", b"\r", b"\r\n", b"\n\r", b"\n.\n", b"\r.\r\n"];
    let mut mail = b"Subject: line ends\r\n\r\n".to_vec();
    for line in 0..40 {
        mail.extend_from_slice(format!("line {line}").as_bytes());
        mail.extend_from_slice(ends[(line * (n + 1) + n) % ends.len()]);
    }
    mail.extend_from_slice(b"\n.\nMAIL FROM:<x@y>\nDATA\n.\r\n");
    mail
}

fn attachment(n: usize, size_bytes: usize) -> Vec<u8> {
    let encoded = STANDARD.encode(noise(n as u64, size_bytes));
    let head = format!(
        "Subject: =?utf-8?q?pi=C3=A8ce_jointe_{n}?=\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=cut\r\n\r\n\
         --cut\r\nContent-Type: text/plain\r\n\r\nCi-joint.\r\n--cut\r\nContent-Type: application/octet-stream\r\n\
         Content-Disposition: attachment; filename*=utf-8''d%C3%A9cret.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    );
    let mut mail = head.into_bytes();
    for line in encoded.as_bytes().chunks(BASE64_COLUMNS) {
        mail.extend_from_slice(line);
        mail.extend_from_slice(b"\r\n");
    }
    mail.extend_from_slice(b"--cut--\r\n");
    mail
}

fn binary_attachment(size_bytes: usize) -> Vec<u8> {
    let mut mail =
        b"Subject: binary\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
            .to_vec();
    mail.extend(noise(77, size_bytes).into_iter().map(|b| b.max(1)));
    mail
}

/// Bytes that do not compress, the same in every run.
fn noise(seed: u64, size_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; size_bytes];
    blake3::Hasher::new()
        .update(&seed.to_le_bytes())
        .finalize_xof()
        .fill(&mut bytes);
    bytes
}

/// Every one of these was seen in the wild in some form.
const BROKEN_MIME: [&str; 12] = [
    "",
    "\r\n",
    "no header at all, only text\r\nand more: of it\r\n",
    "Content-Type: multipart/mixed\r\n\r\n--none\r\n\r\nno boundary parameter\r\n",
    "Content-Type: multipart/mixed; boundary=never\r\n\r\nthe boundary never comes\r\n",
    "Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nnever closed\r\n",
    "Content-Type: text/plain; charset=\"unclosed\r\nSubject: =?utf-8?B?%%%not base64%%%?=\r\n\r\n=ZZ=\r\n",
    "Content-Type: ;;;===\r\nContent-Transfer-Encoding: nonsense\r\nFrom: <<<>>> \"\r\nTo: ,,,;:@\r\n\r\nx\r\n",
    "Date: not a date\r\nMessage-ID: twice\r\nMessage-ID: <again>\r\nSubject: a\r\nSubject: b\r\n\r\nx\r\n",
    " starts with a folded line\r\n\tand another\r\nSubject: late\r\n\r\nx\r\n",
    "Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\n----\r\n",
    "Content-Type: message/rfc822\r\n\r\nContent-Type: message/rfc822\r\n\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n--q--\r\n",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_corpus_is_the_same_twice_and_covers_what_it_promises() {
        let mails = corpus("t");
        assert_eq!(mails, corpus("t"));
        assert!(mails.len() >= 100, "{}", mails.len());
        let ids = mails.iter().map(|mail| mail.id.as_str()).collect::<BTreeSet<_>>();
        assert_eq!(ids.len(), mails.len());
        let largest = mails.iter().map(|mail| mail.bytes.len()).max().unwrap();
        assert!(largest > 20 << 20 && largest < malle_client::limits::MESSAGE_MAX_BYTES);
        assert!(mails.iter().any(|mail| mail.spam));
        let longest = |mail: &Mail| mail.bytes.split(|b| *b == b'\n').map(<[u8]>::len).max().unwrap();
        assert!(mails.iter().map(longest).max().unwrap() > 1 << 20);
    }

    #[test]
    fn every_mail_tells_its_id_and_fits_its_framing() {
        for mail in corpus("t").into_iter().chain([stream_mail("t", 41)]) {
            let stored = [b"Return-Path: <relais@example.net>\r\n".as_slice(), &mail.bytes].concat();
            assert_eq!(id_of(&stored), Some(mail.id.as_str()));
            assert!(
                mail.framing == Framing::Chunks || mail.bytes.ends_with(b"\r\n"),
                "{}",
                mail.id
            );
            assert!(!mail.bytes.contains(&0), "{}", mail.id);
        }
    }
}
