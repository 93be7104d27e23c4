use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::super::connection::{Frame, Piece};
use super::*;

fn parsed(text: &str) -> Result<Command, BadCommand> {
    parse(&Frame::of(vec![Piece::Text(text.as_bytes().to_vec())]))
}

fn reason(text: &str) -> &'static str {
    parsed(text).expect_err("the command makes no sense").reason
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| format!("a SEARCH {}ALL{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parsed(&nested(50)).is_ok());
    assert_eq!(reason(&nested(51)), "the command is nested too deeply");
    let negated = |depth: usize| format!("a SEARCH {}ALL", "NOT ".repeat(depth));
    assert!(parsed(&negated(50)).is_ok());
    assert_eq!(reason(&negated(20_000)), "the command is nested too deeply");
    assert_eq!(
        reason(&format!("a SEARCH {}", "OR ALL ".repeat(20_000))),
        "the command is nested too deeply"
    );
    assert_eq!(
        reason(&format!("a FETCH 1 {}", "(".repeat(60_000))),
        "expected an item's name"
    );
}

#[test]
fn the_number_of_elements_is_bounded() {
    let set = |items: usize| format!("a FETCH {} UID", vec!["1"; items].join(","));
    assert!(parsed(&set(10_000)).is_ok());
    assert_eq!(reason(&set(10_001)), "too many elements in one command");
    assert_eq!(
        reason(&format!("a SEARCH {}", vec!["ALL"; 10_001].join(" "))),
        "too many elements in one command"
    );
    assert_eq!(
        reason(&format!("a STORE 1 FLAGS ({})", vec!["\\Seen"; 10_001].join(" "))),
        "too many elements in one command"
    );
}

#[test]
fn numbers_are_bounded() {
    assert!(parsed("a FETCH 4294967295 UID").is_ok());
    assert_eq!(reason("a FETCH 4294967296 UID"), "the number is beyond 32 bits");
    assert_eq!(
        reason(&format!("a FETCH {} UID", "9".repeat(1000))),
        "the number is beyond 63 bits"
    );
    assert!(parsed("a FETCH 1 UID (CHANGEDSINCE 9223372036854775807)").is_ok());
    assert_eq!(
        reason("a FETCH 1 UID (CHANGEDSINCE 9223372036854775808)"),
        "the number is beyond 63 bits"
    );
    assert_eq!(reason("a FETCH 1 BODY[0]"), "zero is not a message number");
    assert_eq!(
        reason(&format!("a FETCH 1 BODY[{}1]", "1.".repeat(60))),
        "the part number is too deep"
    );
}

#[test]
fn rubbish_is_refused_where_it_stands() {
    for bytes in [
        &b"a LOGIN \xff x"[..],
        b"a LOGIN \"x\0y\" z",
        b"a\0 NOOP",
        b"\xf0\x9f\x98\x80 NOOP",
        b"a NOOP\r",
    ] {
        let frame = Frame::of(vec![Piece::Text(bytes.to_vec())]);
        assert!(parse(&frame).is_err(), "{bytes:?}");
    }
    let literal_where_none_may_stand = Frame::of(vec![
        Piece::Text(b"a NOOP ".to_vec()),
        Piece::Literal(bytes::Bytes::from_static(b"x")),
        Piece::Text(vec![]),
    ]);
    assert!(parse(&literal_where_none_may_stand).is_err());
}

#[test]
fn a_password_is_never_printed() {
    let command = parsed("a LOGIN me hunter2").unwrap();
    assert!(!format!("{command:?}").contains("hunter2"));
    let command = parsed("a AUTHENTICATE PLAIN AGh1bnRlcjI=").unwrap();
    assert!(!format!("{command:?}").contains("AGh1"));
}

/// Words and marks of the grammar in any order: deeper into the parser than bytes alone would come.
fn almost_a_command() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("FETCH"),
        Just("UID"),
        Just("SEARCH"),
        Just("STORE"),
        Just("APPEND"),
        Just("LIST"),
        Just("STATUS"),
        Just("SELECT"),
        Just("CREATE"),
        Just("ID"),
        Just("ENABLE"),
        Just("INBOX"),
        Just("1:*"),
        Just("1,2"),
        Just("BODY[1.MIME]<0.5>"),
        Just("BODY.PEEK["),
        Just("HEADER.FIELDS"),
        Just("+FLAGS.SILENT"),
        Just("\\Seen"),
        Just("(USE"),
        Just("RETURN"),
        Just("NOT"),
        Just("OR"),
        Just("\"1-Feb-1994\""),
        Just("\"17-Jul-1996 02:44:25 -0700\""),
        Just("("),
        Just(")"),
        Just("\""),
        Just("]"),
        Just("\\"),
        Just("{5}"),
        Just("&AOk-"),
        Just("*"),
        Just("%"),
        Just("é"),
        Just("99999999999999999999"),
        Just("UNCHANGEDSINCE"),
        Just("SORT"),
        Just("THREAD"),
        Just("REFERENCES"),
        Just("(REVERSE"),
        Just("DATE)"),
        Just("UTF-8"),
        Just("(QRESYNC"),
        Just("(VANISHED"),
        Just("(PARTIAL"),
        Just("-1:-5"),
        Just("$"),
        Just("PREVIEW"),
        Just("GETQUOTA"),
        Just("UTF8"),
        Just("NOTIFY"),
        Just("SET"),
        Just("(SELECTED"),
        Just("(SUBTREE"),
        Just("(MessageNew"),
        Just("BINARY[1.2]<0.3>"),
        Just("BINARY.SIZE["),
    ];
    let separator = prop_oneof![4 => Just(" "), 1 => Just("")];
    proptest::collection::vec((word, separator), 0..20).prop_map(|words| {
        format!(
            "a {}",
            words
                .into_iter()
                .map(|(word, space)| format!("{word}{space}"))
                .collect::<String>()
        )
        .into_bytes()
    })
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(texts in proptest::collection::vec(any::<Vec<u8>>(), 1..4)) {
        let pieces = texts.into_iter().enumerate().map(|(index, bytes)| {
            if index % 2 == 0 { Piece::Text(bytes) } else { Piece::Literal(bytes.into()) }
        });
        let _ = parse(&Frame::of(pieces.collect()));
    }

    #[test]
    fn no_order_of_words_makes_the_parser_panic(text in almost_a_command(), literal in any::<Vec<u8>>()) {
        let _ = parse(&Frame::of(vec![Piece::Text(text.clone())]));
        let mut utf8 = Frame::of(vec![Piece::Text(text.clone())]);
        utf8.utf8 = true;
        let _ = parse(&utf8);
        let _ = parse(&Frame::of(vec![Piece::Text(text), Piece::Literal(literal.into()), Piece::Text(Vec::new())]));
    }
}
