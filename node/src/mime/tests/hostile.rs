//! What holds for any bytes, for any tree of parts that was written well, and at every bound.

use malle_proto::limits::{MIME_DEPTH_MAX, MIME_PARTS_MAX, SUMMARY_ADDRESSES_MAX, SUMMARY_TEXT_MAX_BYTES};
use malle_proto::v1::Part;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof, proptest};
use proptest::test_runner::Config;

use super::corpus::SAMPLES;
use super::{check, count};

/// Pieces that mean something to a parser.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&'static [u8]> = vec![
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"--b",
        b"--b--",
        b"--c",
        b"--",
        b"\r\n--b\r\n",
        b"\n--c\n",
        b"\r\n--b--\r\n",
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b"Content-Type: multipart/digest; boundary=c\r\n",
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: text/html; charset=utf-16\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Disposition: attachment; filename=\"",
        b"From: ",
        b"To: a:",
        b"<",
        b">",
        b"@",
        b",",
        b";",
        b":",
        b"(",
        b")",
        b"\"",
        b"\\",
        b"=?",
        b"?=",
        b"=?utf-8?Q?",
        b"[",
        b"]",
        b"=",
        b"&eacute;",
        b"<style>",
        b"<!--",
        b"\0",
        b"\xc3\xa9",
        b"\xff",
        b"Message-ID: <x@y>\r\n",
        b"References: <a@b> <c@d>\r\n",
        b"Content-Language: fr, en\r\n",
    ];
    prop_oneof![
        8 => prop::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..20),
        1 => "[a-z .]{0,12}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(Config::with_cases(2_000))]

    #[test]
    fn any_bytes_have_a_summary(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        check(&bytes);
    }

    #[test]
    fn any_heap_of_fragments_has_a_summary(pieces in prop::collection::vec(fragment(), 0..80)) {
        check(&pieces.concat());
    }

    #[test]
    fn a_damaged_mail_has_a_summary(
        which in 0..SAMPLES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8, fragment()), 1..6),
    ) {
        let mut mail = SAMPLES[which].1.to_vec();
        for (at, kind, piece) in damage {
            let at = at.index(mail.len() + 1);
            match kind {
                0 => mail.truncate(at),
                1 => drop(mail.splice(at..at, piece)),
                2 => drop(mail.drain(at..(at + piece.len()).min(mail.len()))),
                _ => mail.extend_from_within(at..),
            }
        }
        check(&mail);
    }

    #[test]
    fn a_well_written_tree_is_found_as_it_was_written(tree in tree()) {
        let mut mail = Vec::new();
        write(&tree, "", &mut mail);
        let summary = check(&mail);
        compare(&tree, summary.root.as_ref().unwrap(), &mail);
    }
}

/// A mail as its writer means it.
#[derive(Debug, Clone)]
enum Tree {
    Leaf(Vec<u8>),
    Multipart { parts: Vec<Tree>, preamble: bool },
    Message(Box<Tree>),
}

fn tree() -> impl Strategy<Value = Tree> {
    let content = prop_oneof![
        Just(Vec::new()),
        "([a-z]{0,5}(\r\n)?){0,6}".prop_map(String::into_bytes),
        "(\n|--|-|x|\r\n--p){0,12}".prop_map(String::into_bytes),
    ];
    content.prop_map(Tree::Leaf).prop_recursive(6, 40, 5, |inner| {
        prop_oneof![
            3 => (prop::collection::vec(inner.clone(), 1..5), any::<bool>())
                .prop_map(|(parts, preamble)| Tree::Multipart { parts, preamble }),
            1 => inner.prop_map(|inner| Tree::Message(Box::new(inner))),
        ]
    })
}

/// Writes header and body. `path` makes boundaries that no content holds, each a prefix of those inside it.
fn write(tree: &Tree, path: &str, out: &mut Vec<u8>) {
    match tree {
        Tree::Leaf(content) => {
            out.extend(b"Content-Type: text/plain\r\n\r\n");
            out.extend(content);
        }
        Tree::Multipart { parts, preamble } => {
            out.extend(format!("Content-Type: multipart/mixed;\r\n boundary=\"=B{path}\"\r\n\r\n").as_bytes());
            if *preamble {
                out.extend(b"This is MIME.\r\n");
            }
            for (i, part) in parts.iter().enumerate() {
                // The first delimiter needs no line end before it when nothing stands there.
                if i > 0 {
                    out.extend(b"\r\n");
                }
                out.extend(format!("--=B{path}\r\n").as_bytes());
                write(part, &format!("{path}{i}"), out);
            }
            out.extend(format!("\r\n--=B{path}--").as_bytes());
        }
        Tree::Message(inner) => {
            out.extend(b"Content-Type: message/rfc822\r\n\r\n");
            write(inner, &format!("{path}m"), out);
        }
    }
}

fn compare(tree: &Tree, part: &Part, mail: &[u8]) {
    let content = &mail[part.body_start as usize..part.body_end as usize];
    match tree {
        Tree::Leaf(wanted) => assert_eq!(content, wanted, "a leaf's content, byte for byte"),
        Tree::Multipart { parts, .. } => {
            assert_eq!(part.parts.len(), parts.len());
            parts
                .iter()
                .zip(&part.parts)
                .for_each(|(tree, part)| compare(tree, part, mail));
        }
        Tree::Message(inner) => {
            let mut wanted = Vec::new();
            let message = part.message.as_ref().expect("a message was written");
            let root = message.root.as_ref().expect("an inner message has a root");
            compare(inner, root, mail);
            wanted.extend_from_slice(&mail[root.header_start as usize..root.body_end as usize]);
            assert_eq!(content, wanted);
        }
    }
}

fn deepest(part: &Part) -> usize {
    let inner = part.message.iter().filter_map(|message| message.root.as_deref());
    1 + part.parts.iter().chain(inner).map(deepest).max().unwrap_or(0)
}

#[test]
fn nesting_ends_at_its_bound() {
    let mut multiparts = Vec::new();
    let mut messages = Vec::new();
    for i in 0..5_000 {
        multiparts.extend(format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n").as_bytes());
        messages.extend(b"Content-Type: message/rfc822\r\n\r\n");
    }
    assert_eq!(deepest(&check(&multiparts).root.unwrap()), MIME_DEPTH_MAX);
    assert_eq!(deepest(&check(&messages).root.unwrap()), MIME_DEPTH_MAX);
}

#[test]
fn parts_beyond_the_bound_belong_to_the_last() {
    let mut mail = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n".to_vec();
    for i in 0..5_000 {
        mail.extend(format!("--b\r\n\r\npart {i}\r\n").as_bytes());
    }
    mail.extend(b"--b--\r\nepilogue");
    let root = check(&mail).root.unwrap();
    assert_eq!(count(&root), MIME_PARTS_MAX);
    let last = root.parts.last().unwrap();
    let content = &mail[last.body_start as usize..last.body_end as usize];
    assert!(content.starts_with(b"part 998\r\n--b\r\n\r\npart 999"));
    assert!(content.ends_with(b"part 4999"));
}

#[test]
fn hostile_headers_stay_within_the_summarys_bound() {
    let address = format!(
        "\"{}\" <{}@{}>",
        "n".repeat(9_000),
        "m".repeat(9_000),
        "h".repeat(9_000)
    );
    let list = vec![address; 300].join(",\r\n ");
    let header = ["From", "Sender", "Reply-To", "To", "Cc", "Bcc"]
        .map(|name| format!("{name}: {list}\r\n"))
        .concat();
    let long = "x".repeat(100_000);
    let parameters = (0..1_000).map(|i| format!("; p{i}=\"{long}\"")).collect::<String>();
    let mail = format!("{header}Subject: {long}\r\nContent-Type: multipart/mixed; boundary=b{parameters}\r\n\r\n");
    let parts = format!("--b\r\nContent-Type: a/b{parameters}\r\nContent-ID: {long}\r\n\r\n").repeat(3);
    let summary = check(format!("{mail}{parts}--b--").as_bytes());
    assert_eq!(summary.root.unwrap().parts.len(), 3, "offsets are never given up");

    let small = format!(
        "--b\r\nContent-Type: application/{}; {}\r\n\r\n",
        "s".repeat(127),
        "n=v;".repeat(100)
    )
    .repeat(2_000);
    let root = check(format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n{small}").as_bytes())
        .root
        .unwrap();
    assert_eq!(count(&root), MIME_PARTS_MAX);
}

#[test]
fn long_texts_and_lists_are_cut() {
    let many = (0..2_000).map(|i| format!("u{i}@b")).collect::<Vec<_>>().join(",");
    let mail = format!("Subject: {}\r\nTo: {many}\r\n\r\n", "s".repeat(1_000_000));
    let envelope = check(mail.as_bytes()).envelope.unwrap();
    assert_eq!(envelope.subject.unwrap().len(), SUMMARY_TEXT_MAX_BYTES);
    assert_eq!(envelope.to.len(), SUMMARY_ADDRESSES_MAX - 1);
}

/// Each of these takes hours when any step looks at the whole mail again; none takes seconds.
#[test]
fn large_hostile_mails_take_linear_time() {
    const LARGE: usize = 8 * 1024 * 1024;
    let fill = |head: &str, piece: &str| format!("{head}{}", piece.repeat(LARGE / piece.len())).into_bytes();
    let open = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    check(&fill(open, "--b\r\n"));
    check(&fill(open, "--b\r\n\r\n--b--\r\n"));
    check(&fill(
        open,
        "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n",
    ));
    check(&fill(open, "--bx"));
    check(&fill("", "Subject: again\r\n"));
    check(&fill("Subject: x\r\n", " folded\r\n"));
    check(&fill("To: ", "((((a@b,\r\n "));
    check(&fill("To: ", "<<<<@@@@;::\r\n "));
    check(&fill("To: ", "=?=?=?=?"));
    check(&fill("To: \"", "\\"));
    check(&fill("References: ", "<<<<"));
    check(&fill("Content-Type: ", ";;;(=("));
    check(&fill("Content-Type: text/html\r\n\r\n", "<!--<&;"));
    check(&fill("", "x"));
    check(&fill("\n", "\n"));
    check(&fill(
        "Content-Type: multipart/mixed; boundary=a\r\n\r\n",
        &format!("--{}\r\n", "a".repeat(5_000)),
    ));
}
