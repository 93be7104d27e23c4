//! Sample mails with their structures.

use super::{check, shown};

/// Name, mail, structure.
pub type Sample = (&'static str, &'static [u8], &'static str);

pub const SAMPLES: &[Sample] = &[
    ("empty", b"", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:0"""#),
    ("no_header", b"\r\nonly a body\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:1"only a body\r\n""#),
    ("no_body", b"Subject: x\r\n\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:0"""#),
    ("no_empty_line", b"Subject: x\r\nFrom: a@b", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:0"""#),
    ("plain", b"Subject: x\r\n\r\none\r\ntwo\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:2"one\r\ntwo\r\n""#),
    ("bare_lf", b"Subject: x\n\none\ntwo\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:2"one\ntwo\n""#),
    ("mixed_line_ends", b"Subject: x\nTo: a@b\r\n\none\r\ntwo\nthree", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:3"one\r\ntwo\nthree""#),
    ("lone_cr_is_text", b"Subject: x\r\n\r\none\rtwo\r\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:1"one\rtwo\r\r\n""#),
    ("french_8bit", b"Content-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\xe9t\xe9\r\n", r#"TEXT/PLAIN{charset=iso-8859-1} 8BIT:1"\xe9t\xe9\r\n""#),
    ("french_quoted", b"Content-Type: TEXT/Plain; Charset=\"UTF-8\"; format=flowed\r\nContent-Transfer-Encoding: Quoted-Printable\r\n\r\n=C3=A9t=C3=A9\r\n", r#"TEXT/PLAIN{Charset=UTF-8 format=flowed} QUOTED-PRINTABLE:1"=C3=A9t=C3=A9\r\n""#),
    ("type_without_slash", b"Content-Type: text; charset=utf-8\r\n\r\nx\r\n", r#"TEXT/PLAIN{charset=utf-8} 7BIT:1"x\r\n""#),
    ("type_is_rubbish", b"Content-Type: \"te xt\"/\xe9\r\nContent-Transfer-Encoding: \xe9\r\n\r\nx\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:1"x\r\n""#),
    ("type_unknown", b"Content-Type: x-own/thing+xml\r\nContent-Transfer-Encoding: x-uue (old)\r\n\r\nx\r\n", r#"X-OWN/THING+XML X-UUE:0"x\r\n""#),
    ("mixed", b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>two\r\n\r\n--b--\r\nepilogue\r\n", r#"MULTIPART/MIXED{boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"one", TEXT/HTML 7BIT:1"<p>two\r\n"]"#),
    ("mixed_bare_lf", b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n\n--b--\n", r#"MULTIPART/MIXED{boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"one", TEXT/PLAIN{charset=us-ascii} 7BIT:1"two\n"]"#),
    ("alternative_in_mixed", b"Content-Type: multipart/mixed; boundary=out\r\n\r\n--out\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n\r\nplain\r\n--in\r\nContent-Type: text/html\r\n\r\n<b>html</b>\r\n--in--\r\n\r\n--out\r\nContent-Type: application/pdf; name=\"r\xc3\xa9sum\xc3\xa9.pdf\"\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename*0*=utf-8''r%C3%A9;\r\n filename*1*=sum%C3%A9.pdf\r\n\r\nAAAA\r\n--out--\r\n", r#"MULTIPART/MIXED{boundary=out}[MULTIPART/ALTERNATIVE{boundary=in}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"plain", TEXT/HTML 7BIT:1"<b>html</b>"], APPLICATION/PDF{name=r\xc3\xa9sum\xc3\xa9.pdf}<attachment{filename*0*=utf-8\'\'r%C3%A9 filename*1*=sum%C3%A9.pdf}> BASE64:0"AAAA"]"#),
    ("inner_boundary_extends_outer", b"Content-Type: multipart/mixed; boundary=abc\r\n\r\n--abc\r\nContent-Type: multipart/mixed; boundary=abcdef\r\n\r\n--abcdef\r\n\r\nin\r\n--abcdef--\r\n--abc\r\n\r\nout\r\n--abc--\r\n", r#"MULTIPART/MIXED{boundary=abc}[MULTIPART/MIXED{boundary=abcdef}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"in"], TEXT/PLAIN{charset=us-ascii} 7BIT:1"out"]"#),
    ("same_boundary_inside", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n", r#"MULTIPART/MIXED{boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:0"", TEXT/PLAIN{charset=us-ascii} 7BIT:1"x"]"#),
    ("inner_never_closed", b"Content-Type: multipart/mixed; boundary=out\r\n\r\n--out\r\nContent-Type: multipart/mixed; boundary=in\r\n\r\n--in\r\n\r\na\r\n--out\r\n\r\nb\r\n--out--\r\n--in\r\nnot a part\r\n", r#"MULTIPART/MIXED{boundary=out}[MULTIPART/MIXED{boundary=in}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"a"], TEXT/PLAIN{charset=us-ascii} 7BIT:1"b"]"#),
    ("outer_never_closed", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\none\r\n--b\r\n\r\ntwo", r#"MULTIPART/MIXED{boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"one", TEXT/PLAIN{charset=us-ascii} 7BIT:1"two"]"#),
    ("no_boundary", b"Content-Type: multipart/mixed\r\n\r\n--b\r\n\r\none\r\n--b--\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:4"--b\r\n\r\none\r\n--b--\r\n""#),
    ("empty_boundary", b"Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n\r\none\r\n----\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:4"--\r\n\r\none\r\n----\r\n""#),
    ("boundary_never_comes", b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n\r\nwords\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:1"words\r\n""#),
    ("only_the_closing_delimiter", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:1"--b--\r\n""#),
    ("blanks_after_delimiters", b"Content-Type: multipart/mixed; boundary=\"b \"\r\n\r\n--b \t\r\n\r\none\r\n--b-- \r\n", r#"MULTIPART/MIXED{boundary=b }[TEXT/PLAIN{charset=us-ascii} 7BIT:1"one"]"#),
    ("text_like_delimiters", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n--bc\r\n --b\r\n--b x\r\n---b\r\n--b--\r\n", r#"MULTIPART/MIXED{boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:4"--bc\r\n --b\r\n--b x\r\n---b"]"#),
    ("empty_parts", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\n\r\n--b\r\n\r\n\r\n--b\r\nX: y\r\n--b", r#"MULTIPART/MIXED{boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:0"", TEXT/PLAIN{charset=us-ascii} 7BIT:0"", TEXT/PLAIN{charset=us-ascii} 7BIT:0"", TEXT/PLAIN{charset=us-ascii} 7BIT:0"", TEXT/PLAIN{charset=us-ascii} 7BIT:0""]"#),
    ("delimiter_in_the_header", b"Content-Type: multipart/mixed; boundary=b\r\n--b\r\n\r\none\r\n--b--\r\n", r#"TEXT/PLAIN{charset=us-ascii} 7BIT:2"one\r\n--b--\r\n""#),
    ("message", b"Content-Type: message/rfc822\r\n\r\nSubject: in\r\n\r\ntext\r\n", r#"MESSAGE/RFC822:3=>'in' TEXT/PLAIN{charset=us-ascii} 7BIT:1"text\r\n""#),
    ("message_in_mixed", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: in\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--\r\n\r\n--b\r\n\r\nafter\r\n--b--\r\n", r#"MULTIPART/MIXED{boundary=b}[MESSAGE/RFC822:7=>'in' MULTIPART/ALTERNATIVE{boundary=c}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"x"], TEXT/PLAIN{charset=us-ascii} 7BIT:1"after"]"#),
    ("message_in_base64", b"Content-Type: message/rfc822; name=a.eml\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdDogeA==\r\n", r#"APPLICATION/OCTET-STREAM{name=a.eml} BASE64:0"U3ViamVjdDogeA==\r\n""#),
    ("message_empty", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n--b--\r\n", r#"MULTIPART/MIXED{boundary=b}[MESSAGE/RFC822:0=>'' TEXT/PLAIN{charset=us-ascii} 7BIT:0"", MESSAGE/RFC822:0=>'' TEXT/PLAIN{charset=us-ascii} 7BIT:0""]"#),
    ("message_delivery_status", b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\nfailed\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\nAction: failed\r\n--b--\r\n", r#"MULTIPART/REPORT{report-type=delivery-status boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"failed", MESSAGE/DELIVERY-STATUS 7BIT:3"Reporting-MTA: dns; x\r\n\r\nAction: failed"]"#),
    ("digest", b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: one\r\n\r\n1\r\n--b\r\nContent-Type: text/plain\r\n\r\n2\r\n--b--\r\n", r#"MULTIPART/DIGEST{boundary=b}[MESSAGE/RFC822:3=>'one' TEXT/PLAIN{charset=us-ascii} 7BIT:1"1", TEXT/PLAIN 7BIT:1"2"]"#),
    ("first_type_counts", b"Content-Type: text/html\r\nContent-Type: text/plain\r\n\r\nx", r#"TEXT/HTML 7BIT:1"x""#),
    ("folded_type", b"Content-Type:\r\n multipart/mixed;\r\n\tboundary=\"b\"\r\n\r\n--b\r\n\r\nx\r\n--b--", r#"MULTIPART/MIXED{boundary=b}[TEXT/PLAIN{charset=us-ascii} 7BIT:1"x"]"#),
    ("header_lines_that_are_none", b"From a@b Mon Nov 23 12:00:00 2026\r\n folded nothing\r\nno colon\r\nContent-Type: text/html\r\n: x\r\n\r\nx", r#"TEXT/HTML 7BIT:1"x""#),
];

#[test]
fn every_sample_has_its_structure() {
    for (name, mail, wanted) in SAMPLES {
        let summary = check(mail);
        let found = shown(mail, summary.root.as_ref().unwrap());
        assert_eq!(found, *wanted, "{name}");
    }
}
