//! Dovecot beside malle: Debian's packages, a configuration of our own in a directory of its own.
//!
//! `sdbox` with `mail_fsync = always`: what it acknowledges is on the disk, as with malle, though on one disk and not on three. No TLS and
//! passwords in clear, so that it pays for nothing that malle's gateway does not pay for here. It must be started by the superuser: its mail
//! belongs to a uid that nobody has.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use harness::{free_ports, until};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::PASSWORD;
use super::cluster::{Shape, address};
use crate::load::Watched;
use crate::usage::family;

/// Owner of the mail; no account of the system.
const MAIL_UID: u32 = 64_999;
/// It starts in a fraction of a second.
const START: Duration = Duration::from_secs(30);
/// From SIGTERM to the end of the last process.
const STOP: Duration = Duration::from_secs(30);
/// What `--peer` installs where it is not there.
const PACKAGES: [&str; 2] = ["dovecot-lmtpd", "dovecot-imapd"];

/// Dovecot is on this machine.
#[derive(Debug, Clone)]
pub struct Installed {
    /// As it says it: `2.3.19.1 (9b53102964)`.
    pub version: String,
}

impl Installed {
    /// Finds it, or installs Debian's packages.
    ///
    /// # Errors
    /// Why it cannot be used here.
    pub async fn find() -> anyhow::Result<Installed> {
        let user = run("id", &["-u"]).await?;
        ensure!(user == "0", "only the superuser can start a Dovecot of its own");
        if !Path::new("/usr/lib/dovecot/lmtp").exists() || !Path::new("/usr/lib/dovecot/imap").exists() {
            eprintln!("installing {}", PACKAGES.join(" "));
            // A machine that knows no packages, or old ones. When this fails, the next says what of it matters.
            let _ = run("apt-get", &["update"]).await;
            let install = ["install", "-y", "--no-install-recommends"];
            run("apt-get", &[&install[..], &PACKAGES].concat()).await?;
        }
        let version = run("dovecot", &["--version"]).await?;
        ensure!(
            version.starts_with("2.3."),
            "Dovecot {version}: this configuration is for 2.3"
        );
        Ok(Installed { version })
    }
}

/// A running server.
pub struct Dovecot {
    /// Removed when it is dropped.
    directory: TempDir,
    master: Child,
    pid: u32,
    /// `HOST:PORT` of its LMTP.
    pub lmtp: String,
    /// `HOST:PORT` of its IMAP.
    pub imap: String,
    /// Whom it has mail for; in truth everybody.
    pub addresses: Vec<String>,
}

impl Dovecot {
    /// Starts it with as many accounts as a cluster of this shape.
    ///
    /// # Errors
    /// With what it said, when it does not come up.
    pub async fn start(_: &Installed, shape: Shape, within: &Path) -> anyhow::Result<Dovecot> {
        let directory = tempfile::Builder::new().prefix("malle-bench-").tempdir_in(within)?;
        // Processes of other users pass through on the way to their files.
        open_to_all(directory.path())?;
        let path = directory.path().to_path_buf();
        let mail = path.join("mail");
        fs::create_dir(&mail)?;
        chown(&mail, Some(MAIL_UID), Some(MAIL_UID))?;
        let ports = free_ports(2)?;
        let config = path.join("dovecot.conf");
        fs::write(&config, configuration(&path, &ports)?)?;
        let said = File::create(path.join("started.log"))?;
        let master = Command::new("dovecot")
            .arg("-F")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .kill_on_drop(true)
            .spawn()
            .context("starting dovecot")?;
        let mut dovecot = Dovecot {
            pid: master.id().context("a child that was not awaited has an id")?,
            directory,
            master,
            lmtp: ports[0].clone(),
            imap: ports[1].clone(),
            addresses: Vec::new(),
        };
        for shard in 1..=shape.shards {
            let of_shard = (1..=shape.accounts_per_shard).map(|number| address(number, shard));
            dovecot.addresses.extend(of_shard);
        }
        dovecot.listens(&path).await?;
        Ok(dovecot)
    }

    async fn listens(&mut self, path: &Path) -> anyhow::Result<()> {
        until("Dovecot's LMTP", START, || {
            let ended = self.master.try_wait();
            let lmtp = &self.lmtp;
            async move {
                if let Some(status) = ended? {
                    let said = fs::read_to_string(path.join("started.log"))?;
                    return Ok(Some(Err(anyhow::anyhow!("dovecot ended ({status}) and said:\n{said}"))));
                }
                harness::Lmtp::connect(lmtp).await?;
                Ok(Some(Ok(())))
            }
        })
        .await?
    }

    /// All its processes as one; they come and go with sessions.
    ///
    /// # Errors
    /// When the kernel does not tell them.
    pub fn watched(&self) -> anyhow::Result<Watched> {
        Ok(Watched::from([("server", family(self.pid)?)]))
    }

    /// Stops it and removes its directory.
    ///
    /// # Errors
    /// When it does not stop.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        run("kill", &["-s", "TERM", &self.pid.to_string()]).await?;
        match tokio::time::timeout(STOP, self.master.wait()).await {
            Ok(ended) => ended.map(drop)?,
            Err(_) => bail!("Dovecot did not stop within {STOP:?}"),
        }
        // The master does not wait for those that write into the directory; it is removed as soon as they let it.
        let path = self.directory.keep();
        until("the end of Dovecot's files", STOP, || async {
            Ok(Some(fs::remove_dir_all(&path)?))
        })
        .await
    }
}

fn open_to_all(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

fn configuration(path: &Path, ports: &[String]) -> anyhow::Result<String> {
    let port = |at: usize| ports[at].rsplit(':').next().context("HOST:PORT");
    let (path, lmtp, imap) = (path.display(), port(0)?, port(1)?);
    Ok(format!(
        "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = {path}/dovecot.log\n\
         protocols = lmtp imap\nssl = no\ndisable_plaintext_auth = no\nlisten = 127.0.0.1\n\
         postmaster_address = postmaster@example.org\nhostname = localhost\nfirst_valid_uid = 1\n\
         mail_location = sdbox:{path}/mail/%u\nmail_fsync = always\n\
         passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n\
         userdb {{\n  driver = static\n  \
         args = uid={MAIL_UID} gid={MAIL_UID} home={path}/mail/%u allow_all_users=yes\n}}\n\
         namespace inbox {{\n  inbox = yes\n  separator = /\n}}\n\
         service lmtp {{\n  inet_listener lmtp {{\n    address = 127.0.0.1\n    port = {lmtp}\n  }}\n}}\n\
         service imap-login {{\n  service_count = 0\n  \
         inet_listener imap {{\n    address = 127.0.0.1\n    port = {imap}\n  }}\n  \
         inet_listener imaps {{\n    port = 0\n  }}\n}}\n"
    ))
}

/// Runs a program that must succeed; what it printed.
async fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.with_context(|| program.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{program} {}: {}: {}",
        arguments.join(" "),
        output.status,
        said.trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().into())
}
