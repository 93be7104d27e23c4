//! Which cluster, as whom: flags, then the context file, which names endpoints and certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use malle_client::{Client, Config};
use serde::{Deserialize, Serialize};

/// Which cluster, as whom.
#[derive(Debug, Args)]
pub struct Connection {
    /// A file with endpoints, ca, cert and key (TOML).
    #[arg(long, env = "MALLE_CONTEXT", value_name = "FILE", global = true)]
    context: Option<PathBuf>,
    /// HOST:PORT of any nodes, comma-separated.
    #[arg(
        long,
        env = "MALLE_ENDPOINTS",
        value_delimiter = ',',
        value_name = "HOST:PORT",
        global = true
    )]
    endpoints: Vec<String>,
    /// The authority that signed the nodes' certificates (PEM).
    #[arg(long, value_name = "FILE", global = true)]
    ca: Option<PathBuf>,
    /// The operator's certificate (PEM).
    #[arg(long, value_name = "FILE", global = true)]
    cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// Give up after this many seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS", global = true)]
    timeout: u64,
}

/// What a context file holds. Relative paths count from the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContextFile {
    /// HOST:PORT of any nodes.
    pub endpoints: Vec<String>,
    /// The authority.
    pub ca: PathBuf,
    /// The operator's certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl ContextFile {
    fn read(path: &Path) -> anyhow::Result<ContextFile> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut file: ContextFile = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let beside = path.parent().unwrap_or(Path::new("."));
        for part in [&mut file.ca, &mut file.cert, &mut file.key] {
            *part = beside.join(&*part);
        }
        Ok(file)
    }
}

fn usual_place() -> Option<PathBuf> {
    let home = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(home.join("malle/context.toml"))
}

impl Connection {
    fn file(&self) -> anyhow::Result<Option<ContextFile>> {
        match &self.context {
            Some(path) => ContextFile::read(path).map(Some),
            None => match usual_place() {
                Some(path) if path.is_file() => ContextFile::read(&path).map(Some),
                _ => Ok(None),
            },
        }
    }

    fn config(&self) -> anyhow::Result<Config> {
        let file = self.file()?;
        let pick = |flag: &Option<PathBuf>, name: &str, from: fn(&ContextFile) -> &PathBuf| {
            flag.clone()
                .or_else(|| file.as_ref().map(|file| from(file).clone()))
                .with_context(|| {
                    format!(
                        "no --{name}, and no context file: give one with --context (a demo writes DIR/context.toml)"
                    )
                })
        };
        let ca = pick(&self.ca, "ca", |file| &file.ca)?;
        let cert = pick(&self.cert, "cert", |file| &file.cert)?;
        let key = pick(&self.key, "key", |file| &file.key)?;
        let endpoints = match &file {
            Some(file) if self.endpoints.is_empty() => file.endpoints.clone(),
            _ => self.endpoints.clone(),
        };
        let mut config = Config::from_files(&endpoints, ca, cert, key)?;
        config.deadline = Duration::from_secs(self.timeout);
        Ok(config)
    }

    /// A connected client.
    ///
    /// # Errors
    /// Files that do not read, or no node that answers.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(self.config()?).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::ContextFile;

    #[test]
    fn paths_in_a_context_count_from_its_file_and_a_misspelt_name_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("context.toml");
        std::fs::write(&path, "endpoints=['a:1']\nca='ca.pem'\ncert='/x/o.pem'\nkey='o.key'\n").unwrap();
        let file = ContextFile::read(&path).unwrap();
        assert_eq!(file.ca, dir.path().join("ca.pem"));
        assert_eq!(file.cert, std::path::Path::new("/x/o.pem"));
        std::fs::write(&path, "endpoint=['a:1']\n").unwrap();
        assert!(ContextFile::read(&path).is_err());
    }
}
