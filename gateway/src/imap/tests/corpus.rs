//! What the fuzzer has found worth keeping (`cargo xtask fuzz imap`), read again.

use super::super::read_any;

/// An input a line, in hex.
const CORPUS: &str = include_str!("../../../fuzz/corpus/imap.hex");

#[test]
fn every_input_of_the_corpus_is_read_or_refused() {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    for line in CORPUS.lines() {
        read_any(&line.as_bytes().chunks(2).map(byte).collect::<Vec<u8>>());
    }
    assert!(CORPUS.lines().count() > 100, "the corpus is not here");
}
