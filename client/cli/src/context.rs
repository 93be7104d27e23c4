//! How a command reaches its cluster: flags, environment, context file, in this order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use malle_client::{Client, Config};
use serde::Deserialize;

use crate::exit::Usage;

/// Flags that every verb takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// TOML file with `endpoints`, `ca`, `cert` and `key`; ~/.config/malle/context.toml by default.
    #[arg(long, global = true, env = "MALLE_CONTEXT", value_name = "FILE")]
    pub context: Option<PathBuf>,
    /// Nodes to ask, HOST:PORT, separated by commas; any of the cluster's will do.
    #[arg(
        long,
        global = true,
        env = "MALLE_ENDPOINTS",
        value_delimiter = ',',
        value_name = "NODES"
    )]
    pub endpoints: Vec<String>,
    /// The cluster's root certificate, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The operator's certificate, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The key of that certificate, PEM.
    #[arg(long, global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// How to print data.
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Give up after this long: 500ms, 30s, 5m.
    #[arg(long, global = true, value_parser = duration, default_value = "30s", value_name = "TIME")]
    pub timeout: Duration,
    /// Plain text, also on a terminal.
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One object with "v": 1, for programs.
    Json,
}

/// `context.toml`. Relative paths count from the file's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ContextFile {
    endpoints: Vec<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Global {
    /// Connects with the operator's certificate.
    ///
    /// # Errors
    /// [`Usage`] when something is missing, else what the client says.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let mut config = self.config()?;
        config.deadline = self.timeout;
        Ok(Client::connect(config).await?)
    }

    fn config(&self) -> anyhow::Result<Config> {
        let file = self.file()?;
        let endpoints = if self.endpoints.is_empty() {
            file.endpoints
        } else {
            self.endpoints.clone()
        };
        if endpoints.is_empty() {
            return Err(missing("--endpoints HOST:PORT,...", "endpoints"));
        }
        let pick = |flag: &Option<PathBuf>, in_file: Option<PathBuf>, name: &str| {
            flag.clone()
                .or(in_file)
                .ok_or_else(|| missing(&format!("--{name} FILE"), name))
        };
        let ca = pick(&self.ca, file.ca, "ca")?;
        let cert = pick(&self.cert, file.cert, "cert")?;
        let key = pick(&self.key, file.key, "key")?;
        Ok(Config::from_files(&endpoints, ca, cert, key)?)
    }

    fn file(&self) -> anyhow::Result<ContextFile> {
        let path = match &self.context {
            Some(path) => path.clone(),
            None => match default_path() {
                Some(path) if path.exists() => path,
                _ => return Ok(ContextFile::default()),
            },
        };
        let text = std::fs::read_to_string(&path)
            .map_err(|error| Usage(format!("cannot read the context file {}: {error}", path.display())))?;
        read(&text, path.parent().unwrap_or(Path::new("")))
            .with_context(|| format!("the context file {}", path.display()))
    }
}

fn default_path() -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")))?;
    Some(home.join("malle/context.toml"))
}

fn read(text: &str, directory: &Path) -> anyhow::Result<ContextFile> {
    let mut file: ContextFile = toml::from_str(text).map_err(|error| Usage(error.to_string()))?;
    for path in [&mut file.ca, &mut file.cert, &mut file.key].into_iter().flatten() {
        *path = directory.join(&*path);
    }
    Ok(file)
}

fn missing(flag: &str, key: &str) -> anyhow::Error {
    let place = default_path().map_or("the context file".to_owned(), |path| path.display().to_string());
    Usage(format!(
        "no {key} known: give {flag}, or write `{key} = ...` into {place} (or the file in MALLE_CONTEXT)"
    ))
    .into()
}

/// `500ms`, `30s`, `5m`; a bare number counts seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number
        .parse()
        .map_err(|_| "a time looks like 500ms, 30s or 5m".to_owned())?;
    let ms = match unit {
        "ms" => Some(number),
        "" | "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => return Err(format!("unknown unit {unit:?}: a time looks like 500ms, 30s or 5m")),
    };
    // A day is longer than any call lasts, and keeps the arithmetic on points of time far from its end.
    match ms {
        Some(ms) if (1..=86_400_000).contains(&ms) => Ok(Duration::from_millis(ms)),
        _ => Err("a timeout lies between 1ms and 1440m".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        for bad in [
            "",
            "s",
            "5h",
            "0",
            "-1s",
            "99999999999999999999s",
            "18446744073709551615m",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths_of_a_context_count_from_its_directory() {
        let file = read(
            "endpoints = [\"n1:7420\"]\nca = \"ca.pem\"\ncert = \"/abs/op.pem\"",
            Path::new("/etc/malle"),
        )
        .unwrap();
        assert_eq!(file.ca, Some("/etc/malle/ca.pem".into()));
        assert_eq!(file.cert, Some("/abs/op.pem".into()));
        assert_eq!(file.key, None);
    }

    #[test]
    fn an_unknown_key_of_a_context_is_a_usage_error_that_names_it() {
        let error = read("endpoint = \"n1:7420\"", Path::new("")).unwrap_err();
        assert!(error.to_string().contains("endpoint"), "{error}");
        assert_eq!(Exit::of(&error), Exit::Usage);
    }
}
