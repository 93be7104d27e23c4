//! The framing of DATA (RFC 5321 4.5.2): removes dot-stuffing and finds the end, byte-exactly.
//!
//! Only CRLF begins a line here and only `CRLF . CRLF` ends the data. A bare LF or a bare CR is an ordinary byte: it is stored as it
//! came, a dot after it is not stuffing, and `LF . LF`, `LF . CRLF`, `CR . CR` end nothing. So no two servers in a row can disagree
//! about where a mail ends and let a second one be smuggled in. This file knows no socket and keeps nothing but its state.

/// Where in the framing the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Right after CRLF, or at the very start.
    LineStart,
    /// After a dot at a line's start.
    Dot,
    /// After a dot and CR at a line's start.
    DotCr,
    /// Inside a line.
    Text,
    /// After a CR inside a line.
    Cr,
}

/// Decodes one DATA body fed in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    at: At,
}

impl Decoder {
    /// A decoder right after the 354.
    pub fn new() -> Decoder {
        Decoder { at: At::LineStart }
    }

    /// Takes bytes off the wire and hands their content to `sink`.
    ///
    /// Returns how many bytes belong to this mail and whether it ended with them; what follows is the next command.
    pub fn decode(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> (usize, bool) {
        // Content is handed on in runs: `from` is where the current run begins.
        let mut from = 0;
        for (i, byte) in input.iter().enumerate() {
            self.at = match (self.at, byte) {
                (At::LineStart, b'.') => {
                    sink(&input[from..i]);
                    from = i + 1;
                    At::Dot
                }
                (At::DotCr, b'\n') => return (i + 1, true),
                (At::Dot, b'\r') => {
                    // The CR is content only if no LF follows: hold it back until the next byte tells.
                    from = i + 1;
                    At::DotCr
                }
                (At::DotCr, b'\r') => {
                    sink(b"\r");
                    At::Cr
                }
                (At::DotCr, _) => {
                    sink(b"\r");
                    At::Text
                }
                (At::Cr, b'\n') => At::LineStart,
                (_, b'\r') => At::Cr,
                _ => At::Text,
            };
        }
        sink(&input[from..]);
        (input.len(), false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(wire: &[u8], cuts: &[usize]) -> (Vec<u8>, usize, bool) {
        let mut decoder = Decoder::new();
        let (mut mail, mut taken) = (Vec::new(), 0);
        let mut bounds = cuts.iter().map(|cut| cut % (wire.len() + 1)).collect::<Vec<_>>();
        bounds.push(wire.len());
        bounds.sort_unstable();
        for bound in bounds {
            let (used, ended) = decoder.decode(&wire[taken..bound], |piece| mail.extend_from_slice(piece));
            taken += used;
            if ended {
                return (mail, taken, true);
            }
        }
        (mail, taken, false)
    }

    /// What a client does (RFC 5321 4.5.2).
    fn stuff(mail: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for (i, byte) in mail.iter().enumerate() {
            if *byte == b'.' && (i == 0 || mail[..i].ends_with(b"\r\n")) {
                wire.push(b'.');
            }
            wire.push(*byte);
        }
        wire.extend_from_slice(b".\r\n");
        wire
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_data() {
        for inner in [
            "a\n.\nb",
            "a\n.\r\nb",
            "a\r.\rb",
            "a\r.\r\nb",
            "a\r\n..\nb",
            "a\r\n\n.\r\nb",
        ] {
            let wire = format!("{inner}\r\n.\r\nNEXT");
            let (mail, taken, ended) = decode(wire.as_bytes(), &[]);
            assert!(ended, "{inner:?}");
            assert_eq!(taken, wire.len() - 4, "{inner:?}");
            let want = format!("{}\r\n", inner.replace("\r\n..", "\r\n."));
            assert_eq!(String::from_utf8(mail).unwrap(), want);
        }
    }

    #[test]
    fn a_dot_with_a_bare_cr_after_it_is_not_the_end() {
        let (mail, _, ended) = decode(b"a\r\n.\rb\r\n.\r\n", &[]);
        assert!(ended);
        assert_eq!(mail, b"a\r\n\rb\r\n");
        let (mail, _, ended) = decode(b".\r\r\n.\r\n", &[2, 3]);
        assert!(ended);
        assert_eq!(mail, b"\r\r\n");
    }

    #[test]
    fn an_empty_mail_is_a_dot_alone() {
        assert_eq!(decode(b".\r\nQUIT\r\n", &[]), (Vec::new(), 3, true));
    }

    fn rubbish() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![3 => Just(b'\r'), 3 => Just(b'\n'), 3 => Just(b'.'), 2 => any::<u8>()];
        proptest::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn what_was_stuffed_comes_out_whole_however_it_is_cut(
            mut mail in rubbish(), cuts in proptest::collection::vec(any::<usize>(), 0..20)
        ) {
            mail.extend_from_slice(b"\r\n");
            let wire = [stuff(&mail), b"RSET\r\n".to_vec()].concat();
            let (out, taken, ended) = decode(&wire, &cuts);
            prop_assert!(ended);
            prop_assert_eq!(out, mail);
            prop_assert_eq!(taken, wire.len() - 6);
        }

        #[test]
        fn cutting_never_changes_the_answer(
            wire in rubbish(), cuts in proptest::collection::vec(any::<usize>(), 0..20)
        ) {
            prop_assert_eq!(decode(&wire, &cuts), decode(&wire, &[]));
        }
    }
}
