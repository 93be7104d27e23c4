//! Debian's Postfix as a relay beside a gateway: an instance with a configuration and a queue of its own, and a small client that speaks to it.
//!
//! The configuration is that of docs/operations/gateways.md. Postfix needs the superuser to start; where that is not so, or it is not installed, a
//! test prints SKIPPED.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::host::{run, text};
use crate::ports::free_ports;
use crate::wait::{patiently, until, within};

const DAEMONS: &str = "/usr/lib/postfix/sbin";
/// Postfix starts a process for each service when it is first asked.
const ANSWER: Duration = Duration::from_secs(30);

/// A running instance; dropping it stops it.
pub struct Postfix {
    directory: tempfile::TempDir,
    /// Where other relays deliver.
    pub smtp: String,
    /// Where people submit.
    pub submission: String,
}

/// Where a gateway answers.
pub struct Services<'a> {
    /// Socketmap.
    pub maps: &'a str,
    /// Dovecot's protocol.
    pub sasl: &'a str,
    /// LMTP.
    pub lmtp: &'a str,
}

impl Postfix {
    /// Whether it can run here; else says why not.
    pub fn possible() -> bool {
        if !Path::new(DAEMONS).join("master").exists() {
            println!("SKIPPED: postfix is not installed");
            return false;
        }
        let is_root = run("id", &["-u"]).is_ok_and(|id| id.trim() == "0");
        if !is_root {
            println!("SKIPPED: postfix needs the superuser");
        }
        is_root
    }

    /// Starts an instance whose only directory is this gateway.
    ///
    /// # Errors
    /// When it does not start, or does not answer.
    pub async fn start(services: &Services<'_>) -> anyhow::Result<Postfix> {
        let directory = tempfile::Builder::new().prefix("malle-postfix-").tempdir()?;
        // Its processes give the superuser's rights away, and must still get in.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let ports = free_ports(2)?;
        let postfix = Postfix {
            directory,
            smtp: ports[0].clone(),
            submission: ports[1].clone(),
        };
        for part in ["etc", "queue", "data", "log"] {
            fs::create_dir(postfix.directory.path().join(part))?;
        }
        run("chown", &["postfix", text(&postfix.directory.path().join("data"))?])?;
        fs::write(postfix.etc().join("main.cf"), postfix.main(services)?)?;
        fs::write(postfix.etc().join("master.cf"), postfix.master())?;
        run("postfix", &["-c", text(&postfix.etc())?, "start"])?;
        until("postfix", ANSWER, || async {
            Ok(Some(TcpStream::connect(&postfix.smtp).await.map(drop)?))
        })
        .await?;
        Ok(postfix)
    }

    fn etc(&self) -> std::path::PathBuf {
        self.directory.path().join("etc")
    }

    fn main(&self, services: &Services<'_>) -> anyhow::Result<String> {
        let Services { maps, sasl, lmtp } = services;
        let place = text(self.directory.path())?;
        // No local name, table or network is known to it: what it knows of people, it was told by the gateway.
        Ok(format!(
            "compatibility_level = 3.6\n\
             queue_directory = {place}/queue\ndata_directory = {place}/data\n\
             command_directory = /usr/sbin\ndaemon_directory = {DAEMONS}\nmail_owner = postfix\nsetgid_group = postdrop\n\
             maillog_file = {place}/log/mail.log\nmaillog_file_prefixes = {place}\n\
             myhostname = mx.example.net\nmydestination =\nalias_maps =\nmynetworks = 192.0.2.0/24\n\
             inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nsmtpd_peername_lookup = no\n\
             virtual_mailbox_domains = example.org\nvirtual_mailbox_maps = socketmap:inet:{maps}:recipient\n\
             virtual_transport = lmtp:inet:{lmtp}\nrecipient_delimiter = +\n\
             smtpd_sasl_type = dovecot\nsmtpd_sasl_path = inet:{sasl}\n\
             smtpd_sender_login_maps = socketmap:inet:{maps}:login\n\
             smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination\n"
        ))
    }

    fn master(&self) -> String {
        format!(
            "{} inet n - n - - smtpd\n{} inet n - n - - smtpd\n  -o smtpd_sasl_auth_enable=yes\n  \
             -o smtpd_sender_restrictions=reject_sender_login_mismatch\n  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n\
             cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\n\
             bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\nproxymap unix - - n - - proxymap\n\
             error unix - - n - - error\nretry unix - - n - - error\nlmtp unix - - n - - lmtp\nanvil unix - - n - 1 anvil\n\
             scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n",
            self.smtp, self.submission
        )
    }

    /// What it has written down.
    ///
    /// # Errors
    /// When it has written nothing.
    pub fn log(&self) -> anyhow::Result<String> {
        let path = self.directory.path().join("log/mail.log");
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Waits until every mail that it took has left its queue.
    ///
    /// # Errors
    /// When one stays; the log is the reason.
    pub async fn is_empty(&self) -> anyhow::Result<()> {
        let queue = self.directory.path().join("queue");
        let empty = until("an empty queue", ANSWER, || async {
            let mut waiting = 0;
            for part in ["incoming", "active", "deferred"] {
                waiting += files(&queue.join(part))?;
            }
            Ok((waiting == 0).then_some(()))
        });
        let log = || self.log().unwrap_or_default();
        empty.await.with_context(log)
    }
}

fn files(path: &Path) -> anyhow::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() {
            files(&entry.path())?
        } else {
            1
        };
    }
    Ok(count)
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let Ok(etc) = text(&self.etc()).map(str::to_owned) else {
            return;
        };
        let stopped = run("postfix", &["-c", &etc, "stop"]);
        // Its directory goes next: nothing may write into it any more.
        let gone = patiently(ANSWER, || run("postfix", &["-c", &etc, "status"]).is_err());
        if stopped.is_err() || !gone {
            println!("postfix in {etc} was not stopped: {stopped:?}");
        }
    }
}

/// A client of SMTP that says exactly what a test wants said.
pub struct Smtp {
    io: BufReader<TcpStream>,
}

impl Smtp {
    /// Connects, is greeted and says EHLO.
    ///
    /// # Errors
    /// When nobody greets.
    pub async fn connect(address: &str) -> anyhow::Result<Smtp> {
        let io = BufReader::new(TcpStream::connect(address).await?);
        let mut smtp = Smtp { io };
        let greeting = smtp.reply().await?;
        ensure!(greeting.starts_with("220"), "greeted with {greeting}");
        smtp.expect("EHLO client.example.net", "250").await?;
        Ok(smtp)
    }

    /// Says a line; the last line of its reply must begin so.
    ///
    /// # Errors
    /// When it does not.
    pub async fn expect(&mut self, line: &str, wanted: &str) -> anyhow::Result<()> {
        self.io.get_mut().write_all(format!("{line}\r\n").as_bytes()).await?;
        let reply = self.reply().await?;
        ensure!(reply.starts_with(wanted), "{line}: {reply}");
        Ok(())
    }

    /// Sends one mail whole and waits for its one reply.
    ///
    /// # Errors
    /// When it is not taken.
    pub async fn mail(&mut self, from: &str, to: &[&str], mail: &[u8]) -> anyhow::Result<()> {
        self.expect(&format!("MAIL FROM:<{from}>"), "250").await?;
        for to in to {
            self.expect(&format!("RCPT TO:<{to}>"), "250").await?;
        }
        self.expect("DATA", "354").await?;
        self.io.get_mut().write_all(mail).await?;
        self.expect(".", "250").await
    }

    async fn reply(&mut self) -> anyhow::Result<String> {
        loop {
            let mut line = String::new();
            let read = within("a reply", ANSWER, async { Ok(self.io.read_line(&mut line).await?) });
            ensure!(read.await? > 0, "the server closed the connection");
            if line.get(3..4) != Some("-") {
                return Ok(line.trim_end().to_owned());
            }
        }
    }
}
