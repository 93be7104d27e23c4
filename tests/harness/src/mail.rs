//! Mails to deliver. Each has a Message-ID, so that a repeated delivery is one mail, and ends with CRLF, as DATA makes it.

use std::path::Path;
use std::process::Command;

/// A mail with its name.
#[derive(Debug, Clone)]
pub struct Sample {
    /// What is peculiar about it.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A plain mail whose Message-ID is `<id@harness.example>`.
pub fn plain(id: &str) -> Vec<u8> {
    format!(
        "From: Paul <paul@example.net>\r\nTo: u1@example.org\r\nSubject: number {id}\r\nMessage-ID: <{id}@harness.example>\r\n\
         Date: Mon, 02 Nov 2026 09:00:00 +0100\r\n\r\nThis is mail {id}.\r\n"
    )
    .into_bytes()
}

/// The id of a [`plain`] mail, from bytes that may have got more header.
pub fn id_of(mail: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(mail);
    let id = text.split("Message-ID: <").nth(1)?.split("@harness.example>").next()?;
    Some(id.to_string())
}

/// What the store holds of a delivered mail: the envelope sender in front, then every byte as it came.
pub fn stored(from: &str, mail: &[u8]) -> Vec<u8> {
    let mut bytes = format!("Return-Path: <{from}>\r\n").into_bytes();
    bytes.extend(mail);
    bytes
}

/// A mail of `bytes` bytes in lines of 76, as an attachment in base64 has them.
pub fn large(id: &str, bytes: usize) -> Vec<u8> {
    let mut mail = plain(id);
    let line = [&[b'A'; 76][..], b"\r\n"].concat();
    while mail.len() + line.len() <= bytes {
        mail.extend(&line);
    }
    let rest = bytes.saturating_sub(mail.len());
    if rest >= 2 {
        mail.extend(std::iter::repeat_n(b'A', rest - 2));
        mail.extend(b"\r\n");
    }
    mail
}

/// Mails that break careless code.
pub fn samples() -> Vec<Sample> {
    let headers = |id: &str| {
        format!("From: a@example.net\r\nTo: u1@example.org\r\nMessage-ID: <{id}@harness.example>\r\n").into_bytes()
    };
    let mail = |name: &str, rest: &[u8]| Sample {
        name: name.into(),
        bytes: [&headers(name), rest].concat(),
    };
    let nested = (0..20).fold(
        b"Content-Type: text/plain\r\n\r\ninside\r\n".to_vec(),
        |inside, depth| {
            let head = format!("Content-Type: multipart/mixed; boundary=b{depth}\r\n\r\n--b{depth}\r\n");
            [head.as_bytes(), &inside, format!("--b{depth}--\r\n").as_bytes()].concat()
        },
    );
    let long_line = [&b"Subject: long\r\n\r\n"[..], &[b'x'; 200_000], b"\r\n"].concat();
    let every_byte: Vec<u8> = (0..=255_u8).filter(|byte| !b"\r\n".contains(byte)).collect();
    vec![
        mail(
            "encoded-accents",
            b"Subject: =?utf-8?Q?R=C3=A9union_=C3=A0_No=C3=ABl?=\r\n\r\nmidi\r\n",
        ),
        mail("raw-utf8", "Subject: Réunion à Noël\r\n\r\nÇa va ?\r\n".as_bytes()),
        mail(
            "latin1",
            b"Subject: R\xe9union\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n\xe0 bient\xf4t\r\n",
        ),
        mail("dots", b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n"),
        mail("bare-line-ends", b"Subject: bare\r\n\r\na\nb\rc\r\r\n\n.\n\r\n"),
        mail(
            "every-byte",
            &[&b"Subject: bytes\r\n\r\n"[..], &every_byte, b"\r\n"].concat(),
        ),
        mail("no-body", b"Subject: nothing\r\n\r\n"),
        mail("no-blank-line", b"Subject: no end\r\n"),
        mail("nested", &nested),
        mail("long-line", &long_line),
        mail(
            "boundary-missing",
            b"Content-Type: multipart/mixed\r\n\r\n--x\r\n\r\na\r\n--x--\r\n",
        ),
        mail(
            "boundary-open",
            b"Content-Type: multipart/mixed; boundary=\"x\r\n\r\n--x\r\n\r\na\r\n",
        ),
        mail(
            "old-return-path",
            b"Return-Path: <old@example.net>\r\nSubject: old\r\n\r\na\r\n",
        ),
        Sample {
            name: "no-header".into(),
            bytes: b"\r\nonly a body\r\n".to_vec(),
        },
        Sample {
            name: "a-megabyte".into(),
            bytes: large("a-megabyte", 1024 * 1024),
        },
    ]
}

/// The MIME samples of Python's own email tests with CRLF line ends; `None`, and SKIPPED is printed, where they are not installed.
pub fn python_samples() -> Option<Vec<Sample>> {
    let code = "import os, test.test_email as t; print(os.path.join(os.path.dirname(t.__file__), 'data'))";
    let directory = Command::new("python3")
        .args(["-c", code])
        .output()
        .ok()
        .filter(|output| output.status.success());
    let directory = directory.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_string());
    let samples = directory.and_then(|directory| read_samples(Path::new(&directory)));
    if samples.is_none() {
        println!("SKIPPED: the data of Python's email tests is not installed");
    }
    samples
}

fn read_samples(directory: &Path) -> Option<Vec<Sample>> {
    let mut samples = Vec::new();
    for entry in std::fs::read_dir(directory).ok()? {
        let path = entry.ok()?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_name()?.to_string_lossy().into_owned();
            samples.push(Sample {
                name,
                bytes: with_crlf(&std::fs::read(&path).ok()?),
            });
        }
    }
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    (!samples.is_empty()).then_some(samples)
}

/// Bare line ends become CRLF, and the last line gets one.
fn with_crlf(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + text.len() / 20);
    for (index, &byte) in text.iter().enumerate() {
        if byte == b'\n' && (index == 0 || text[index - 1] != b'\r') {
            out.push(b'\r');
        }
        out.push(byte);
    }
    if !out.ends_with(b"\r\n") {
        out.extend(b"\r\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_sample_ends_as_data_makes_it_and_has_a_name_of_its_own() {
        let samples = samples();
        assert!(samples.iter().all(|sample| sample.bytes.ends_with(b"\r\n")));
        assert_eq!(
            samples.iter().map(|sample| &sample.name).collect::<BTreeSet<_>>().len(),
            samples.len()
        );
    }

    #[test]
    fn a_large_mail_has_the_size_asked_for_and_the_id() {
        let mail = large("big", 100_001);
        assert_eq!(mail.len(), 100_001);
        assert_eq!(id_of(&stored("a@x", &mail)).unwrap(), "big");
        assert!(mail.ends_with(b"\r\n"));
    }

    #[test]
    fn line_ends_become_crlf() {
        assert_eq!(with_crlf(b"a\nb\r\n\nc"), b"a\r\nb\r\n\r\nc\r\n");
    }
}
