//! The file format of the golden scripts, and what runs a folder of them.
//!
//! A script is a story in blocks: command lines, a line `---`, the lines that the machine answers, and an empty line. Its name is the
//! claim that it shows. Lines that begin with `#` say why, and may stand before any block.
//!
//! ```text
//! # A repeated delivery gets its first answer again.
//! deliver alice body=b1 op=d1
//! deliver alice body=b1 op=d1
//! ---
//! delivered uid=1 modseq=2
//! delivered uid=1 modseq=2 (receipt)
//! ```
//!
//! A command line is words and `name=value` pairs in any order; `"double quotes"` hold spaces. `UPDATE_SCRIPTS=1` writes the answers of
//! the machine into the files; the difference is then read and judged by whoever commits it.
//!
//! Each runner (`scripts.rs`, `directory_scripts.rs`) brings its own words by implementing [`Player`]. A word that the player does not
//! know, or an argument that it did not ask for, is a mistake in the script and fails the test at file and line.
#![allow(
    dead_code,
    reason = "this file is also compiled by itself for its own tests, where no runner uses it"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Gives a command line its meaning.
pub trait Player {
    /// Runs one command and says what came of it: one line or several, without a newline at the end.
    ///
    /// # Errors
    /// What is wrong with the line; the test fails with it.
    fn play(&mut self, line: &mut Line) -> Result<String, String>;
}

/// A command line, taken apart. Every word must be asked for once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number in the file, from 1.
    pub number: usize,
    words: Vec<String>,
    named: BTreeMap<String, String>,
    asked: usize,
}

impl Line {
    /// Takes a line apart.
    ///
    /// # Errors
    /// An open quote, or a name that comes twice.
    pub fn parse(number: usize, text: &str) -> Result<Line, String> {
        let mut line = Line {
            number,
            words: Vec::new(),
            named: BTreeMap::new(),
            asked: 0,
        };
        for (word, split) in split_words(text)? {
            match split {
                Some(at) => {
                    let (name, value) = (word[..at].to_string(), word[at..].to_string());
                    if line.named.insert(name.clone(), value).is_some() {
                        return Err(format!("{name}= comes twice"));
                    }
                }
                None => line.words.push(word),
            }
        }
        Ok(line)
    }

    /// The next word.
    ///
    /// # Errors
    /// When there is none; `what` says what is missing.
    pub fn word(&mut self, what: &str) -> Result<String, String> {
        self.optional_word().ok_or_else(|| format!("{what} is missing"))
    }

    /// The next word, if there is one.
    pub fn optional_word(&mut self) -> Option<String> {
        let word = self.words.get(self.asked).cloned();
        self.asked += usize::from(word.is_some());
        word
    }

    /// The value of `name=`, if it is there.
    pub fn optional(&mut self, name: &str) -> Option<String> {
        self.named.remove(name)
    }

    /// The value of `name=`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn named(&mut self, name: &str) -> Result<String, String> {
        self.optional(name).ok_or_else(|| format!("{name}= is missing"))
    }

    /// The value of `name=` as a number, if it is there.
    ///
    /// # Errors
    /// When it is no number of this kind.
    pub fn optional_number<T: std::str::FromStr>(&mut self, name: &str) -> Result<Option<T>, String> {
        match self.optional(name) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| format!("{name}={text} is no number")),
        }
    }

    /// Nothing may be left that nobody asked for.
    ///
    /// # Errors
    /// The first such word.
    pub fn finish(&self) -> Result<(), String> {
        if let Some(word) = self.words.get(self.asked) {
            return Err(format!("nobody asked for {word:?}"));
        }
        match self.named.keys().next() {
            Some(name) => Err(format!("nobody asked for {name}=")),
            None => Ok(()),
        }
    }
}

/// Words of a line, each with the offset of its value if it is a `name=value`.
fn split_words(text: &str) -> Result<Vec<(String, Option<usize>)>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let (mut word, mut value_at, mut quoted) = (String::new(), None, false);
        while let Some(c) = chars.next_if(|c| quoted || !c.is_whitespace()) {
            match c {
                '"' => quoted = !quoted,
                '=' if !quoted && value_at.is_none() && !word.is_empty() => value_at = Some(word.len()),
                c => word.push(c),
            }
        }
        if quoted {
            return Err("a quote is not closed".into());
        }
        words.push((word, value_at));
    }
}

/// A stretch of a script: remarks, commands, answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// Lines that begin with `#`, and empty lines, as they are.
    pub remarks: Vec<String>,
    /// Command lines with their numbers.
    pub commands: Vec<(usize, String)>,
    /// Lines after `---`.
    pub answers: Vec<String>,
}

/// Takes a script apart.
///
/// # Errors
/// Commands without `---`, and a script without a remark or without a command.
pub fn parse(text: &str) -> Result<Vec<Block>, String> {
    let mut blocks = vec![];
    let mut block = Block::default();
    let mut answering = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if answering {
            if line.is_empty() {
                blocks.push(std::mem::take(&mut block));
                answering = false;
            } else {
                block.answers.push(line.to_string());
            }
        } else if line == "---" {
            if block.commands.is_empty() {
                return Err(format!("line {}: an answer to nothing", index + 1));
            }
            answering = true;
        } else if line.is_empty() || line.starts_with('#') {
            if !block.commands.is_empty() {
                return Err(format!("line {}: commands without ---", index + 1));
            }
            block.remarks.push(line.to_string());
        } else {
            block.commands.push((index + 1, line.to_string()));
        }
    }
    if answering {
        blocks.push(block);
    } else if !block.commands.is_empty() {
        return Err("the last commands have no ---".into());
    }
    match blocks.first() {
        Some(first) if first.remarks.iter().any(|line| line.starts_with('#')) => Ok(blocks),
        _ => Err("a script begins with a remark that says what it shows, and has a command".into()),
    }
}

/// Plays a script: its text with the answers of `player`.
///
/// # Errors
/// A mistake in the script, with its line.
pub fn play(text: &str, player: &mut dyn Player) -> Result<String, String> {
    let mut out = String::new();
    for (index, block) in parse(text)?.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        for line in block.remarks.iter().chain(block.commands.iter().map(|(_, line)| line)) {
            out.push_str(line);
            out.push('\n');
        }
        out.push_str("---\n");
        for (number, text) in &block.commands {
            let answer = Line::parse(*number, text)
                .and_then(|mut line| {
                    let answer = player.play(&mut line)?;
                    line.finish().map(|()| answer)
                })
                .map_err(|error| format!("line {number}: {error}"))?;
            for line in answer.lines() {
                assert!(!line.trim().is_empty(), "an empty answer line would end the block");
                out.push_str(line.trim_end());
                out.push('\n');
            }
        }
    }
    Ok(out)
}

/// Plays every script of a folder against a fresh player; with `UPDATE_SCRIPTS=1` rewrites those that differ.
///
/// # Panics
/// When a script has a mistake, when its answers differ, or when there are fewer than `at_least` scripts.
pub fn run_folder<P: Player>(folder: &Path, at_least: usize, fresh: impl Fn() -> P) {
    let update = std::env::var_os("UPDATE_SCRIPTS").is_some_and(|value| value == "1");
    let scripts = scripts_of(folder);
    assert!(
        scripts.len() >= at_least,
        "only {} scripts in {}",
        scripts.len(),
        folder.display()
    );
    let mut wrong = Vec::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).expect("a script is readable text");
        match play(&text, &mut fresh()) {
            Ok(played) if played == text => {}
            Ok(played) if update => std::fs::write(&path, played).expect("a script can be rewritten"),
            Ok(played) => wrong.push(format!("{}:\n{}", path.display(), difference(&text, &played))),
            Err(error) => wrong.push(format!("{}: {error}", path.display())),
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nUPDATE_SCRIPTS=1 takes the answers over.",
        wrong.join("\n")
    );
}

fn scripts_of(folder: &Path) -> Vec<PathBuf> {
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.is_file())
        .collect();
    scripts.sort();
    scripts
}

/// The first lines that differ, with their numbers.
fn difference(wanted: &str, got: &str) -> String {
    let (mut wanted, mut got) = (wanted.lines(), got.lines());
    let mut out = Vec::new();
    for number in 1.. {
        match (wanted.next(), got.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => {
                out.push(format!(
                    "  {number}: wanted {:?}\n  {number}:    got {:?}",
                    a.unwrap_or(""),
                    b.unwrap_or("")
                ));
                if out.len() == 5 {
                    break;
                }
            }
        }
    }
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{Line, Player, parse, play};

    struct Echo;
    impl Player for Echo {
        fn play(&mut self, line: &mut Line) -> Result<String, String> {
            match line.word("a command")?.as_str() {
                "say" => Ok(format!("{}!", line.word("what to say")?)),
                other => Err(format!("unknown command {other}")),
            }
        }
    }

    #[test]
    fn a_script_keeps_its_remarks_and_gets_its_answers() {
        let text = "# Echoes.\nsay a\nsay \"b c\"\n---\nold\n\n# Again.\nsay d\n---\n";
        let played = "# Echoes.\nsay a\nsay \"b c\"\n---\na!\nb c!\n\n# Again.\nsay d\n---\nd!\n";
        assert_eq!(play(text, &mut Echo).unwrap(), played);
        assert_eq!(play(played, &mut Echo).unwrap(), played, "playing is stable");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, error) in [
            ("# x\nsing a\n---\n", "line 2: unknown command sing"),
            ("# x\nsay a b\n---\n", "line 2: nobody asked for \"b\""),
            ("# x\nsay a b=1\n---\n", "line 2: nobody asked for b="),
            ("# x\nsay\n---\n", "line 2: what to say is missing"),
            ("# x\nsay \"a\n---\n", "line 2: a quote is not closed"),
            ("# x\nsay a\n\n---\n", "line 3: commands without ---"),
        ] {
            assert_eq!(play(text, &mut Echo).unwrap_err(), error);
        }
        assert!(parse("say a\n---\n").unwrap_err().contains("begins with a remark"));
        assert!(parse("# x\nsay a\n").unwrap_err().contains("no ---"));
    }

    #[test]
    fn names_and_values_are_told_apart_from_words() {
        let mut line = Line::parse(1, "put \"a=b\" to=\"x = y\" n=3").unwrap();
        assert_eq!(line.word("verb").unwrap(), "put");
        assert_eq!(line.word("what").unwrap(), "a=b");
        assert_eq!(line.named("to").unwrap(), "x = y");
        assert_eq!(line.optional_number::<u8>("n").unwrap(), Some(3));
        line.finish().unwrap();
    }
}
