//! Mails to measure with. The same in every run: only the number in them differs, so that no two are one body.
//!
//! [`Kind::Text`] is what people write: headers as relays leave them, prose that compresses about as mail does. [`Kind::Incompressible`]
//! carries random bytes as they are (`Content-Transfer-Encoding: binary`), which no store can make smaller: what it writes per byte of body
//! is then its own overhead. Base64 would not do: a quarter of it is air.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// How many different mails stand behind the numbers: enough that no cache of a few mails helps.
const TEMPLATES: u64 = 32;
/// Stands where the number is written.
const PLACE: &[u8; 16] = b"################";
const WORDS: &str = "the of and to in a is that for it as was with be by on not he this are or his from at which but have an had they \
    you were their one all we can her has there been if more when will would who so no she other its may these what them than some \
    him time into only could new then do any my now such like our over man me even most made after also did many before must through \
    years where much your way well down should because each just those people how too little state good very make world still own see \
    men work long here get both between life being under never day same another know while last might us great old year off come since \
    against go came right used take three meeting report budget service office letter minister region school hospital agreement contract \
    invoice schedule committee signature annex decree archive telephone department attached regards sincerely tomorrow afternoon";

/// What a mail is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Prose.
    Text,
    /// Random bytes.
    Incompressible,
}

/// Mails of one kind and size.
#[derive(Debug)]
pub struct Post {
    templates: Vec<Template>,
}

#[derive(Debug)]
struct Template {
    bytes: Vec<u8>,
    places: Vec<usize>,
}

impl Post {
    /// Mails of exactly `bytes` bytes, 1 KiB at least.
    pub fn new(kind: Kind, bytes: usize) -> Post {
        let templates = (0..TEMPLATES).map(|seed| Template::new(kind, bytes.max(1024), seed));
        Post {
            templates: templates.collect(),
        }
    }

    /// The mail of this number.
    pub fn mail(&self, number: u64) -> Bytes {
        let template = &self.templates[(number % TEMPLATES) as usize];
        let mut mail = template.bytes.clone();
        let digits = format!("{number:016x}");
        for &place in &template.places {
            mail[place..place + PLACE.len()].copy_from_slice(digits.as_bytes());
        }
        mail.into()
    }
}

impl Template {
    fn new(kind: Kind, bytes: usize, seed: u64) -> Template {
        let mut random = StdRng::seed_from_u64(seed);
        let mut mail = headers(kind, &mut random);
        match kind {
            Kind::Text => prose(&mut mail, bytes, &mut random),
            Kind::Incompressible => noise(&mut mail, bytes, &mut random),
        }
        let places = (0..mail.len().saturating_sub(PLACE.len())).filter(|&at| mail[at..].starts_with(PLACE));
        Template {
            places: places.collect(),
            bytes: mail,
        }
    }
}

fn headers(kind: Kind, random: &mut StdRng) -> Vec<u8> {
    let number = std::str::from_utf8(PLACE).expect("it is ASCII");
    let mut signature = String::new();
    let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for _ in 0..88 {
        signature.push(char::from(base64[random.random_range(0..base64.len())]));
    }
    let kind = match kind {
        Kind::Text => "text/plain; charset=utf-8",
        Kind::Incompressible => "application/octet-stream\r\nContent-Transfer-Encoding: binary",
    };
    format!(
        "Received: from relay.example.net (relay.example.net [192.0.2.25]) by mx.example.org with ESMTPS id {number}\r\n\
         DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.net; s=m1; h=from:to:subject; b={signature}\r\n\
         From: Paul Martin <paul.martin@example.net>\r\nTo: Anne Petit <anne.petit@example.org>\r\n\
         Subject: Meeting of the budget committee, annex {number}\r\nDate: Mon, 02 Nov 2026 09:00:00 +0100\r\n\
         Message-ID: <{number}@example.net>\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n\r\n"
    )
    .into_bytes()
}

fn prose(mail: &mut Vec<u8>, bytes: usize, random: &mut StdRng) {
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut column = 0;
    while mail.len() + 2 < bytes {
        // Few words are said often: the product of two draws favours the front of the list.
        let at = random.random_range(0..words.len()) * random.random_range(0..words.len()) / words.len();
        let word = words[at].as_bytes();
        if column + word.len() > 72 {
            mail.extend(b"\r\n");
            column = 0;
        }
        mail.extend(word);
        mail.push(b' ');
        column += word.len() + 1;
    }
    end(mail, bytes);
}

/// Lines of 900 random bytes, but for line ends: RFC 5322 has no longer lines than 998.
fn noise(mail: &mut Vec<u8>, bytes: usize, random: &mut StdRng) {
    while mail.len() + 2 < bytes {
        for _ in 0..900 {
            let byte: u8 = random.random();
            mail.push(if matches!(byte, b'\r' | b'\n' | 0) { b'x' } else { byte });
        }
        mail.extend(b"\r\n");
    }
    end(mail, bytes);
}

fn end(mail: &mut Vec<u8>, bytes: usize) {
    mail.truncate(bytes - 2);
    // A cut between CR and LF would leave a bare CR.
    if mail.last() == Some(&b'\r') {
        mail.pop();
        mail.push(b'.');
    }
    mail.extend(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_has_its_size_its_number_and_no_twin() {
        for (kind, bytes) in [
            (Kind::Text, 1024),
            (Kind::Text, 16 * 1024),
            (Kind::Incompressible, 64 * 1024),
        ] {
            let post = Post::new(kind, bytes);
            let (one, two) = (post.mail(1), post.mail(1 + TEMPLATES));
            assert_eq!((one.len(), two.len()), (bytes, bytes), "{kind:?}");
            assert_ne!(one, two, "the same template, another number");
            let text = String::from_utf8_lossy(&one);
            assert!(text.contains("Message-ID: <0000000000000001@example.net>"), "{kind:?}");
            assert!(!text.contains("####") && one.ends_with(b"\r\n"));
        }
    }

    #[test]
    fn the_same_number_is_the_same_mail_in_every_run() {
        assert_eq!(Post::new(Kind::Text, 4096).mail(7), Post::new(Kind::Text, 4096).mail(7));
    }
}
