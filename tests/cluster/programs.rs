//! Mail programs that people use, as Debian ships them: they deliver, synchronise, fetch and flag. `cargo xtask test` installs them where it
//! can; a test whose program is not there prints SKIPPED.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use harness::{Cluster, PASSWORD, account, installed, mail, until};
use tokio::process::Command;

const SENDER: &str = "paul@example.net";
/// Folders that an account begins with.
const FOLDERS: [&str; 6] = ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"];

#[tokio::test]
async fn mbsync_carries_mail_and_flags_both_ways_and_then_has_nothing_to_do() -> anyhow::Result<()> {
    if !installed("mbsync", "--version") {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let home = home(&cluster)?;
    let config = mbsync_configuration(&cluster, &home)?;
    let mut imap = cluster.imap(1).await?;
    for number in 1..=5 {
        let mail = mail::plain(&format!("synced-{number}"));
        imap.append("INBOX", "", &mail).await?.ok()?;
    }
    mbsync(&home, &config).await?;
    let inbox = home.join("mail/INBOX");
    assert_eq!(maildir(&inbox)?.len(), 5);

    // Near: one is seen, one goes, one is new. Far: one is flagged, one goes, one is new.
    mark(&inbox, "synced-1", "S")?;
    mark(&inbox, "synced-2", "T")?;
    fs::write(inbox.join("new/1.near.here"), mail::plain("near"))?;
    imap.select("INBOX").await?;
    let flagged = uid_of(&mut imap, "synced-3").await?;
    imap.command(&format!("UID STORE {flagged} +FLAGS (\\Flagged $Work)"))
        .await?
        .ok()?;
    let gone = uid_of(&mut imap, "synced-4").await?;
    imap.command(&format!("UID STORE {gone} +FLAGS (\\Deleted)"))
        .await?
        .ok()?;
    imap.command("EXPUNGE").await?.ok()?;
    imap.append("INBOX", "\\Answered", &mail::plain("far")).await?.ok()?;
    mbsync(&home, &config).await?;

    let near = maildir(&inbox)?;
    let expected = [
        ("far", "R"),
        ("near", ""),
        ("synced-1", "S"),
        ("synced-3", "F"),
        ("synced-5", ""),
    ];
    assert_eq!(near, owned(&expected));
    let mut imap = cluster.imap(1).await?;
    imap.select("INBOX").await?;
    assert_eq!(imap.uids().await?.len(), 5);
    let kept: [(&str, &[&str]); 3] = [
        ("synced-1", &["\\Seen"]),
        ("synced-3", &["$Work", "\\Flagged"]),
        ("near", &[]),
    ];
    for (id, flags) in kept {
        let uid = uid_of(&mut imap, id).await?;
        assert_eq!(imap.flags(uid).await?, flags, "{id}");
    }

    // A third run finds both sides alike: it changes no MODSEQ and no file.
    let before = (state(&cluster).await?, files(&home.join("mail"))?);
    mbsync(&home, &config).await?;
    assert_eq!((state(&cluster).await?, files(&home.join("mail"))?), before);
    cluster.finish().await
}

#[tokio::test]
async fn offlineimap_carries_mail_and_flags_both_ways() -> anyhow::Result<()> {
    if !installed("offlineimap", "--version") {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let home = home(&cluster)?;
    let config = offlineimap_configuration(&cluster, &home)?;
    let mut imap = cluster.imap(1).await?;
    for id in ["one", "two"] {
        imap.append("INBOX", "", &mail::plain(id)).await?.ok()?;
    }
    let arguments = ["-o", "-c", text(&config)?];
    run("offlineimap", &home, &arguments).await?;
    let inbox = home.join("mail/INBOX");
    mark(&inbox, "one", "FS")?;
    imap.append("INBOX", "\\Seen", &mail::plain("three")).await?.ok()?;
    run("offlineimap", &home, &arguments).await?;
    let expected = [("one", "FS"), ("three", "S"), ("two", "")];
    assert_eq!(maildir(&inbox)?, owned(&expected));
    imap.select("INBOX").await?;
    let uid = uid_of(&mut imap, "one").await?;
    assert_eq!(imap.flags(uid).await?, ["\\Flagged", "\\Seen"]);
    cluster.finish().await
}

/// One cluster for both: the mails that one brings are those that the other takes.
#[tokio::test]
async fn swaks_delivers_to_several_recipients_and_fetchmail_takes_every_mail_once() -> anyhow::Result<()> {
    let (swaks, fetchmail) = (installed("swaks", "--version"), installed("fetchmail", "--version"));
    if !swaks && !fetchmail {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    let home = home(&cluster)?;
    if swaks {
        let (host, port) = host_and_port(cluster.lmtp_address())?;
        let to = format!("{},{}", account(1), account(2));
        let server = ["--protocol", "LMTP", "--server", host, "--port", port, "--pipeline"];
        let message = [
            "--from",
            SENDER,
            "--to",
            &to,
            "--header",
            "Subject: by swaks",
            "--body",
            "hello",
        ];
        run("swaks", &home, &[&server[..], &message].concat()).await?;
        for number in [1, 2] {
            let mut imap = cluster.imap(number).await?;
            imap.select("INBOX").await?;
            let found = imap.command("SEARCH SUBJECT \"by swaks\" BODY hello").await?.ok()?;
            assert_eq!(found.lines(), ["* SEARCH 1"], "account {number}");
        }
    }
    if fetchmail {
        fetchmail_takes_every_mail_once(&cluster, &home).await?;
    }
    cluster.finish().await
}

async fn fetchmail_takes_every_mail_once(cluster: &Cluster, home: &Path) -> anyhow::Result<()> {
    let mails: Vec<Vec<u8>> = (1..=3)
        .map(|number| mail::plain(&format!("fetched-{number}")))
        .collect();
    for mail in &mails {
        // As a relay does: what is put off is sent again, and is there once all the same.
        until("a delivery", Duration::from_secs(100), || async {
            let replies = cluster.lmtp().await?.deliver(SENDER, &[&account(3)], mail).await?;
            Ok(replies[0].is_done().then_some(()))
        })
        .await?;
    }
    let (host, port) = host_and_port(cluster.imap_address())?;
    let (config, taken) = (home.join("fetchmailrc"), home.join("taken"));
    let said = format!(
        "poll {host} protocol IMAP port {port} auth password user \"{}\" password \"{PASSWORD}\" sslproto \"\" fetchall mda \"cat >> {}\"\n",
        account(3),
        taken.display()
    );
    private(&config, &said)?;
    let pid = home.join("fetchmail.pid");
    let arguments = ["-f", text(&config)?, "--nodetach", "--pidfile", text(&pid)?];
    run("fetchmail", home, &arguments).await?;
    let taken = fs::read_to_string(taken)?;
    for number in 1..=3 {
        assert_eq!(taken.matches(&format!("<fetched-{number}@harness.example>")).count(), 1);
    }
    let mut imap = cluster.imap(3).await?;
    imap.select("INBOX").await?;
    assert_eq!(imap.uids().await?, [0; 0], "what is taken is expunged");
    Ok(())
}

/// One cluster for both, an account each.
#[tokio::test]
async fn mutt_and_neomutt_flag_and_delete_what_a_person_looks_at() -> anyhow::Result<()> {
    let programs: Vec<&str> = ["mutt", "neomutt"]
        .into_iter()
        .filter(|program| installed(program, "-v"))
        .collect();
    if programs.is_empty() || !installed("script", "--version") {
        return Ok(());
    }
    let cluster = Cluster::start().await?;
    for (number, program) in (1..).zip(programs) {
        a_terminal_program_flags_a_mail(&cluster, program, number).await?;
    }
    cluster.finish().await
}

/// Opens INBOX in a terminal, flags the newest mail, deletes the one before, and leaves.
async fn a_terminal_program_flags_a_mail(cluster: &Cluster, program: &str, number: usize) -> anyhow::Result<()> {
    let home = home(cluster)?;
    let mut imap = cluster.imap(number).await?;
    for id in ["kept", "dropped", "flagged"] {
        imap.append("INBOX", "", &mail::plain(id)).await?.ok()?;
    }
    let config = home.join("muttrc");
    let inbox = format!("imap://{}/", cluster.imap_address());
    let settings = format!(
        "set imap_user=\"{}\" imap_pass=\"{PASSWORD}\" ssl_starttls=no ssl_force_tls=no\nset folder=\"{inbox}\" spoolfile=\"{inbox}INBOX\"\n\
         set sort=mailbox-order quit=yes delete=yes wait_key=no confirmappend=no\n\
         push \"<last-entry><flag-message><last-entry><previous-entry><delete-message><sync-mailbox><quit>\"\n",
        account(number)
    );
    private(&config, &settings)?;
    let command = format!("env TERM=xterm {program} -n -F {}", config.display());
    run("script", &home, &["-qec", &command, "/dev/null"]).await?;
    imap.select("INBOX").await?;
    assert_eq!(imap.uids().await?, [1, 3], "the deleted mail is gone");
    assert!(imap.flags(3).await?.contains(&"\\Flagged".to_owned()));
    Ok(())
}

/// A directory for the program's files.
fn home(cluster: &Cluster) -> anyhow::Result<PathBuf> {
    let home = cluster.path().join("home");
    fs::create_dir_all(home.join("mail"))?;
    Ok(home)
}

fn host_and_port(address: &str) -> anyhow::Result<(&str, &str)> {
    address.rsplit_once(':').context("HOST:PORT")
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().context("the path is UTF-8")
}

/// A file that only its owner reads: programs refuse a password in any other.
fn private(path: &Path, content: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(path, content)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o600))?)
}

fn mbsync_configuration(cluster: &Cluster, home: &Path) -> anyhow::Result<PathBuf> {
    let (host, port) = host_and_port(cluster.imap_address())?;
    let (config, mail) = (home.join("mbsyncrc"), home.join("mail"));
    let (user, mail) = (account(1), mail.display());
    let content = format!(
        "IMAPAccount malle\nHost {host}\nPort {port}\nUser {user}\nPass {PASSWORD}\nSSLType None\nAuthMechs LOGIN\n\n\
         IMAPStore far\nAccount malle\n\n\
         MaildirStore near\nPath {mail}/\nInbox {mail}/INBOX\nSubFolders Verbatim\n\n\
         Channel all\nFar :far:\nNear :near:\nPatterns *\nCreate Both\nExpunge Both\nSync All\nSyncState *\n"
    );
    private(&config, &content)?;
    Ok(config)
}

fn offlineimap_configuration(cluster: &Cluster, home: &Path) -> anyhow::Result<PathBuf> {
    let (host, port) = host_and_port(cluster.imap_address())?;
    let (config, place) = (home.join("offlineimaprc"), home.display());
    let user = account(1);
    let content = format!(
        "[general]\naccounts = a\nmetadata = {place}/offlineimap\nui = basic\n\
         [Account a]\nlocalrepository = near\nremoterepository = far\n\
         [Repository near]\ntype = Maildir\nlocalfolders = {place}/mail\n\
         [Repository far]\ntype = IMAP\nremotehost = {host}\nremoteport = {port}\nremoteuser = {user}\nremotepass = {PASSWORD}\n\
         ssl = no\nstarttls = no\nauth_mechanisms = PLAIN\n"
    );
    private(&config, &content)?;
    Ok(config)
}

async fn mbsync(home: &Path, config: &Path) -> anyhow::Result<()> {
    run("mbsync", home, &["-c", text(config)?, "all"]).await.map(drop)
}

/// As [`maildir`] gives it.
fn owned(mails: &[(&str, &str)]) -> BTreeMap<String, String> {
    let own = |(id, flags): &(&str, &str)| ((*id).to_owned(), (*flags).to_owned());
    mails.iter().map(own).collect()
}

/// The mails of a maildir by their id, with the flags in their names.
fn maildir(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut mails = BTreeMap::new();
    for file in maildir_files(path)? {
        let id = mail::id_of(&fs::read(&file)?).context("a mail without an id")?;
        mails.insert(
            id,
            text(&file)?
                .rsplit_once(":2,")
                .map(|(_, flags)| flags)
                .unwrap_or_default()
                .to_owned(),
        );
    }
    Ok(mails)
}

fn maildir_files(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for folder in ["cur", "new"] {
        for entry in fs::read_dir(path.join(folder))? {
            files.push(entry?.path());
        }
    }
    Ok(files)
}

/// Gives a mail of a maildir these flags.
fn mark(path: &Path, id: &str, flags: &str) -> anyhow::Result<()> {
    for file in maildir_files(path)? {
        if mail::id_of(&fs::read(&file)?).as_deref() == Some(id) {
            let name = file
                .file_name()
                .and_then(|name| name.to_str())
                .context("a name in UTF-8")?;
            let base = name.split(":2,").next().unwrap_or(name);
            return Ok(fs::rename(&file, path.join("cur").join(format!("{base}:2,{flags}")))?);
        }
    }
    anyhow::bail!("there is no mail {id} in {}", path.display())
}

/// Names and lengths of everything below a directory.
fn files(path: &Path) -> anyhow::Result<BTreeMap<PathBuf, u64>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            all.extend(files(&entry.path())?);
        } else {
            all.insert(entry.path(), entry.metadata()?.len());
        }
    }
    Ok(all)
}

/// What the store says of every folder.
async fn state(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let mut imap = cluster.imap(1).await?;
    let mut lines = Vec::new();
    for folder in FOLDERS {
        let status = format!("STATUS {folder} (MESSAGES UIDNEXT UIDVALIDITY UNSEEN HIGHESTMODSEQ)");
        lines.extend(imap.command(&status).await?.ok()?.lines());
    }
    Ok(lines)
}

async fn uid_of(imap: &mut harness::Imap, id: &str) -> anyhow::Result<u32> {
    let found = imap
        .command(&format!("UID SEARCH HEADER Message-ID <{id}@harness.example>"))
        .await?
        .ok()?;
    let lines = found.lines();
    let numbers = lines.iter().find_map(|line| line.strip_prefix("* SEARCH "));
    let uid = numbers.and_then(|numbers| numbers.parse().ok());
    uid.with_context(|| format!("not one mail {id}: {lines:?}"))
}

/// Runs a program that must succeed, with a home of its own; gives what it printed.
async fn run(program: &str, home: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let running = Command::new(program)
        .args(arguments)
        .env("HOME", home)
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(100), running)
        .await
        .with_context(|| format!("{program} did not end"))?
        .context(program.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {}: {said}", output.status);
    Ok(output.stdout)
}
