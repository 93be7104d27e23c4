//! Passwords that an operator gives or has made. A given one is never shown again; a made one is printed once.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use malle_client::limits;
use rand::Rng as _;

use crate::exit::Usage;

/// Where a password comes from. There is no flag that takes one: command lines are seen by everyone on the machine.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct PasswordSource {
    /// Read the password from the first line of this file.
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Read the password from the first line of standard input.
    #[arg(long)]
    pub password_stdin: bool,
}

impl PasswordSource {
    /// The password that was given; `None` when none was.
    ///
    /// # Errors
    /// [`Usage`] for one that cannot be used.
    pub fn read(&self) -> anyhow::Result<Option<String>> {
        let mut text = String::new();
        // One byte more than the longest line tells that it is too long, without reading the rest of a large file.
        let bound = limits::PASSWORD_MAX_BYTES as u64 + 3;
        if let Some(path) = &self.password_file {
            let file =
                std::fs::File::open(path).map_err(|error| Usage(format!("cannot read {}: {error}", path.display())))?;
            file.take(bound)
                .read_to_string(&mut text)
                .with_context(|| format!("reading {}", path.display()))?;
        } else if self.password_stdin {
            std::io::stdin()
                .take(bound)
                .read_to_string(&mut text)
                .context("reading the password")?;
        } else {
            return Ok(None);
        }
        first_line(&text).map(Some)
    }
}

fn first_line(text: &str) -> anyhow::Result<String> {
    let line = text.lines().next().unwrap_or_default();
    match line.len() {
        0 => Err(Usage("the password is empty".to_owned()).into()),
        length if length > limits::PASSWORD_MAX_BYTES => {
            Err(Usage(format!("a password has at most {} bytes", limits::PASSWORD_MAX_BYTES)).into())
        }
        _ => Ok(line.to_owned()),
    }
}

/// 100 bits of chance in 20 characters that nobody mistakes for one another.
pub fn made() -> String {
    // 32 characters: five bits of each random byte pick one without favour.
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = [0u8; 20];
    rand::rng().fill_bytes(&mut bytes);
    bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte & 31)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_as_it_is() {
        assert_eq!(first_line("  pass word \r\nmore").unwrap(), "  pass word ");
        assert!(first_line("\nsecret").is_err());
        assert!(first_line(&"x".repeat(limits::PASSWORD_MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn made_passwords_differ_and_are_typed_easily() {
        let (one, other) = (made(), made());
        assert_ne!(one, other);
        assert!(
            one.len() == 20 && one.chars().all(|c| c.is_ascii_alphanumeric() && !"0Ol1".contains(c)),
            "{one}"
        );
    }
}
