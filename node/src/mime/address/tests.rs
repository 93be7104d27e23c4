//! Address lists from the RFCs and from real mail.

use super::*;

/// `name|mailbox|host` for each address, `-` for absent.
fn list(raw: &str) -> Vec<String> {
    let show = |text: &Option<bytes::Bytes>| {
        text.as_ref()
            .map_or("-".to_owned(), |t| String::from_utf8_lossy(t).into_owned())
    };
    parse(raw.as_bytes(), &mut Allowance::for_summary())
        .iter()
        .map(|a| format!("{}|{}|{}", show(&a.name), show(&a.mailbox), show(&a.host)))
        .collect()
}

#[test]
fn addresses_are_read_as_their_writers_meant() {
    let cases: [(&str, &[&str]); 31] = [
        ("", &[]),
        (" , ,, ", &[]),
        ("a@b.fr", &["-|a|b.fr"]),
        ("<a@b.fr>", &["-|a|b.fr"]),
        ("a@b.fr, c@d.fr", &["-|a|b.fr", "-|c|d.fr"]),
        ("Jean Dupont <jean@b.fr>", &["Jean Dupont|jean|b.fr"]),
        ("\"Dupont, Jean\" <jean@b.fr>", &["Dupont, Jean|jean|b.fr"]),
        (r#""Jean \"le\" \\ D" <j@b.fr>"#, &[r#"Jean "le" \ D|j|b.fr"#]),
        ("jean@b.fr (Jean Dupont)", &["Jean Dupont|jean|b.fr"]),
        (
            "jean@b.fr (Jean (le grand) Dupont)",
            &["Jean (le grand) Dupont|jean|b.fr"],
        ),
        (
            "Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>",
            &["Pete|pete|silly.test"],
        ),
        (
            "=?utf-8?Q?H=C3=A9l=C3=A8ne?= <h@b.fr>",
            &["=?utf-8?Q?H=C3=A9l=C3=A8ne?=|h|b.fr"],
        ),
        (
            "=?utf-8?Q?Dupont,_Jean_<x>?= <h@b.fr>, z@b.fr",
            &["=?utf-8?Q?Dupont,_Jean_<x>?=|h|b.fr", "-|z|b.fr"],
        ),
        ("=?broken, a@b.fr", &["-|=?broken|", "-|a|b.fr"]),
        (
            "H\u{e9}l\u{e8}ne <h\u{e9}@b\u{e9}.fr>",
            &["H\u{e9}l\u{e8}ne|h\u{e9}|b\u{e9}.fr"],
        ),
        ("\"joe smith\"@b.fr", &["-|joe smith|b.fr"]),
        ("joe . smith @ b . fr", &["-|joe.smith|b.fr"]),
        (
            "Joe Q. Public <john.q.public@example.com>",
            &["Joe Q. Public|john.q.public|example.com"],
        ),
        ("joe@[192.168.0.1]", &["-|joe|[192.168.0.1]"]),
        ("joe@[IPv6:::1], b@c", &["-|joe|[IPv6:::1]", "-|b|c"]),
        ("<@relay.fr,@other.fr:joe@b.fr>", &["-|joe|b.fr"]),
        ("undisclosed-recipients:;", &["-|undisclosed-recipients|-", "-|-|-"]),
        (
            "A Group:Ed Jones <joe@a.test>,john@b.test;, z@c",
            &["-|A Group|-", "Ed Jones|joe|a.test", "-|john|b.test", "-|-|-", "-|z|c"],
        ),
        ("Open group: a@b", &["-|Open group|-", "-|a|b", "-|-|-"]),
        ("root", &["-|root|"]),
        ("Jean Dupont", &["-|Jean Dupont|"]),
        ("<>", &["-||"]),
        ("\"never closed <a@b>", &["-|never closed <a@b>|"]),
        ("Jean <a@b, c@d", &["Jean|a|b", "-|c|d"]),
        ("Jean a@b <c@d>", &["Jean|c|d"]),
        ("<a@b@c.fr>", &["-|a@b|c.fr"]),
    ];
    for (raw, wanted) in cases {
        assert_eq!(list(raw), wanted, "{raw}");
    }
}

#[test]
fn a_list_is_cut_at_its_bound_and_a_group_is_still_closed() {
    let many = (0..10_000).map(|i| format!("u{i}@b.fr")).collect::<Vec<_>>().join(", ");
    assert_eq!(list(&many).len(), SUMMARY_ADDRESSES_MAX - 1);
    let group = list(&format!("all: {many};"));
    assert_eq!(group.len(), SUMMARY_ADDRESSES_MAX);
    assert_eq!(group.last().map(String::as_str), Some("-|-|-"));
}

#[test]
fn an_exhausted_allowance_ends_the_list() {
    let mut allowance = Allowance::for_summary();
    while allowance.text(vec![b'x'; 4096]).is_some() {}
    while allowance.text(vec![b'x'; 20]).is_some() {}
    assert_eq!(parse(b"aaaaaaaaaaaaaaaaaaaaaaaa@b.fr", &mut allowance), Vec::new());
}
