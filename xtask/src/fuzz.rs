//! `cargo xtask fuzz`: libFuzzer on a parser of the gateway, with the stable toolchain (decision 15).
//!
//! The inputs begin with what the dialogues and the kept corpus say. What was found is merged into the corpus by coverage, so that it holds as
//! little as shows the same: one file, an input a line in hex. The gateway's tests read it again each time. Nothing here is part of `check` or `test`: it runs for as long as it is told.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};

use crate::cargo;

/// Counters in every branch, without nightly's `-Z` flags: what cargo-fuzz passes, but for the sanitizer.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                            -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Ccodegen-units=1";
/// With a target named, build scripts and macros stay as they are.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Between two pieces of a command: neither a text nor a literal holds it often.
const SEPARATOR: u8 = 0xff;

/// A line for each command of LMTP, with the parameters that it knows.
const LMTP_LINES: [&str; 8] = [
    "LHLO relay.example.org",
    "MAIL FROM:<a@b.fr> SIZE=100 BODY=8BITMIME SMTPUTF8 RET=FULL ENVID=x+2B",
    "MAIL FROM:<> BODY=BINARYMIME RET=HDRS",
    "RCPT TO:<\"a b\\\"c\"+d@e.fr> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a@b.fr",
    "RCPT TO:<@x.fr,@y.fr:marie@[192.0.2.1]> NOTIFY=NEVER ORCPT=utf-8;x",
    "BDAT 100 LAST",
    "XCLIENT ADDR=IPV6:2001:db8::1 NAME=[UNAVAILABLE] HELO=x+20y LOGIN=z",
    "VRFY marie",
];

/// What is fuzzed.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Parser {
    /// Commands of IMAP
    Imap,
    /// Command lines of LMTP
    Lmtp,
}

impl Parser {
    fn name(self) -> &'static str {
        match self {
            Parser::Imap => "imap",
            Parser::Lmtp => "lmtp",
        }
    }
}

/// Builds, fuzzes for `seconds`, and merges what was found into the corpus. Fails when an input ends the parser; it is then named.
///
/// # Errors
/// When something cannot be started or written.
pub fn run(root: &Path, parser: Parser, seconds: u32) -> anyhow::Result<ExitCode> {
    let name = parser.name();
    let built = cargo::target_directory(root)?.join("fuzz");
    let manifest = root.join("gateway/fuzz/Cargo.toml");
    let mut build = cargo::cargo(root);
    build
        .args([
            "build",
            "--locked",
            "--target",
            TARGET,
            "--bin",
            name,
            "--manifest-path",
        ])
        .arg(&manifest)
        .arg("--target-dir")
        .arg(&built)
        .env("RUSTFLAGS", INSTRUMENTED);
    if !build.status().context("starting cargo")?.success() {
        return Ok(ExitCode::FAILURE);
    }
    let fuzzer = built.join(TARGET).join("debug").join(name);
    let kept = root.join("gateway/fuzz/corpus").join(format!("{name}.hex"));
    let work = built.join(name);
    let (seeds, found) = (work.join("seeds"), work.join("found"));
    for directory in [&seeds, &found] {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    unpack(&kept, &seeds)?;
    match parser {
        Parser::Imap => write_seeds(&root.join("gateway/tests/imap"), &seeds)?,
        Parser::Lmtp => {
            for (number, line) in LMTP_LINES.iter().enumerate() {
                fs::write(seeds.join(format!("line-{number}")), line).context("writing a seed")?;
            }
        }
    }
    let mut prefix = OsString::from("-artifact_prefix=");
    prefix.push(work.join(""));
    let fuzzed = Command::new(&fuzzer)
        .args([&found, &seeds])
        .arg(format!("-max_total_time={seconds}"))
        .args([
            "-max_len=4096",
            "-timeout=5",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
        ])
        .arg(prefix)
        .status()
        .context("starting the fuzzer")?;
    if !fuzzed.success() {
        eprintln!("xtask: an input ended the parser; it is in {}", work.display());
        return Ok(ExitCode::FAILURE);
    }
    merge(&fuzzer, &work, &[&found, &seeds], &kept)?;
    Ok(ExitCode::SUCCESS)
}

/// Replaces the corpus by the fewest inputs that reach what all of these reach.
fn merge(fuzzer: &Path, work: &Path, from: &[&PathBuf], kept: &Path) -> anyhow::Result<()> {
    let merged = work.join("merged");
    if merged.exists() {
        fs::remove_dir_all(&merged).context("removing what was merged before")?;
    }
    fs::create_dir(&merged).context("making room for the merge")?;
    let done = Command::new(fuzzer)
        .args(["-merge=1", "-max_len=4096"])
        .arg(&merged)
        .args(from)
        .status()
        .context("starting the merge")?;
    ensure!(done.success(), "the merge failed ({done})");
    let mut lines = BTreeSet::new();
    for entry in fs::read_dir(&merged)? {
        lines.insert(hex(&fs::read(entry?.path()).context("reading an input")?));
    }
    let lines: String = lines.into_iter().map(|line| line + "\n").collect();
    fs::create_dir_all(kept.parent().context("the corpus has a directory")?).context("making the corpus")?;
    fs::write(kept, lines).context("keeping the corpus")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The kept corpus as the files that libFuzzer wants.
fn unpack(kept: &Path, into: &Path) -> anyhow::Result<()> {
    if !kept.exists() {
        return Ok(());
    }
    for (number, line) in fs::read_to_string(kept)
        .context("reading the corpus")?
        .lines()
        .enumerate()
    {
        let input = unhex(line).with_context(|| format!("line {} of the corpus is not hex", number + 1))?;
        fs::write(into.join(format!("kept-{number}")), input).context("writing an input")?;
    }
    Ok(())
}

fn unhex(line: &str) -> Option<Vec<u8>> {
    let pairs = line.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Each command of the dialogues as an input: its lines, and its literals between separators.
fn write_seeds(dialogues: &Path, into: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(dialogues).context("reading the dialogues")? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let script = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for (number, command) in commands(&script).into_iter().enumerate() {
            fs::write(into.join(format!("{stem}-{number}")), command).context("writing a seed")?;
        }
    }
    Ok(())
}

fn commands(script: &str) -> Vec<Vec<u8>> {
    let mut commands: Vec<Vec<u8>> = Vec::new();
    let mut goes_on = false;
    for line in script.lines().filter_map(|line| line.strip_prefix("C: ")) {
        let announced = line.ends_with('}').then(|| line.rfind('{')).flatten();
        let text = &line.as_bytes()[..announced.unwrap_or(line.len())];
        match commands.last_mut() {
            Some(command) if goes_on => {
                command.push(SEPARATOR);
                command.extend_from_slice(text);
            }
            _ => commands.push(text.to_vec()),
        }
        goes_on = announced.is_some();
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::{commands, hex, unhex};

    #[test]
    fn an_input_comes_back_from_its_line() {
        let input = b"a NOOP \xff\x00";
        assert_eq!(unhex(&hex(input)).as_deref(), Some(&input[..]));
        assert_eq!(unhex("0g"), None);
    }

    #[test]
    fn a_literal_of_a_dialogue_is_a_piece_of_its_command() {
        let script = "S: * OK\nC: a NOOP\nS: a OK\nC: b LOGIN {3+}\nC: abc {2}\nC: de\nC: c NOOP\n";
        assert_eq!(
            commands(script),
            [&b"a NOOP"[..], b"b LOGIN \xffabc \xffde", b"c NOOP"].map(<[u8]>::to_vec)
        );
    }
}
