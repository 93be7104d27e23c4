//! The gateway's dialogues (`gateway/tests/imap`) with real servers: the shipped gateway in front of a cluster, and Debian's Dovecot.
//!
//! The gateway must say what its dialogues say, word for word but for numbers that the store draws. Dovecot is asked what another server makes of the
//! same commands: answers are compared without texts and order, and where it differs [`DOVECOT_DIFFERS`] says why. A difference that is
//! not explained fails the test, and so does an explanation that no longer explains anything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt as _, TryStreamExt as _};
use harness::{Cluster, Imap, installed, until};
use malle_client::{Client, NewAccount, fresh_op_id};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// Of every account here; the dialogues know it.
const PASSWORD: &str = "secret";
/// The account in the dialogues. Names of the same length take its place, so that literals fit.
const PLAYED: &str = "u1@example.org";
/// Who shares with it in some of them.
const NEIGHBOUR: &str = "u2@example.org";
/// What is expected comes within this time; what is said beyond it comes at once.
const ANSWER: Duration = Duration::from_secs(10);
/// Dialogues that are played at the same time, each by an account of its own.
const AT_ONCE: usize = 8;
/// Another server may answer differently, or wait for something else.
const OTHER_ANSWER: Duration = Duration::from_secs(1);

/// Dialogues that need the store in memory.
const NOT_OF_A_REAL_STORE: &[(&str, &str)] = &[
    (
        "fetch_knows_the_macros",
        "the sample mail names u1, and the player looks for the account's own name",
    ),
    ("fetch_sets_seen", "the same"),
    (
        "fetch_tells_a_part_of_the_messages",
        "the script names a MODSEQ of the store in memory",
    ),
    (
        "fetch_tells_the_preview",
        "the node previews several lines, the store in memory one",
    ),
    (
        "fetch_tells_the_structure",
        "the node counts an unfinished last line and spells the charset that is meant; the store in memory does neither",
    ),
    (
        "fetch_tells_what_changed_since",
        "the script names a MODSEQ of the store in memory",
    ),
    (
        "list_is_extended",
        "an account begins with six subscribed mailboxes, the store in memory with three",
    ),
    ("lsub_stands_in_for_parents", "the same"),
    (
        "mailboxes_are_made_for_a_use",
        "the store gives each use to one mailbox only, and Archive has it",
    ),
    (
        "mailboxes_are_made_renamed_deleted",
        "the reason is in the store's own words",
    ),
    (
        "metadata_is_set_and_told",
        "the store keeps 100 entries of a mailbox, that in memory five",
    ),
    ("quota_tells_what_is_used", "the quota is another"),
    (
        "replace_puts_one_for_the_other",
        "the reason is in the store's own words",
    ),
    (
        "search_answers_what_is_asked_for",
        "the script names a MODSEQ of the store in memory",
    ),
    (
        "search_by_flags_numbers_and_dates",
        "the mails are saved today, those in memory in May 2024",
    ),
    (
        "search_tells_the_modseq",
        "the script names a MODSEQ of the store in memory",
    ),
    (
        "store_spares_what_changed",
        "the script names a MODSEQ of the store in memory",
    ),
];

/// Dialogues that come out as written or not, as time has it.
const MAY_DIFFER: &[(&str, &str)] = &[(
    "idle_tells_at_once",
    "here another session sets \\Deleted before it expunges, and that is told too unless both were there before the session looked",
)];

/// Where Dovecot 2.3 says something else, and why.
const DOVECOT_DIFFERS: &[(&str, &str)] = &[
    ("append_tells_the_uid", "an INTERNALDATE loses its zone"),
    ("binary_parts_come_decoded", "a literal8 also where there is no NUL"),
    (
        "close_expunges_in_silence_unselect_not_at_all",
        "no STATUS=DELETED, which IMAP4rev2 asks for",
    ),
    (
        "commands_have_their_states",
        "it hangs up after three commands in the wrong state",
    ),
    ("copy_tells_the_new_uids", "no OBJECTID"),
    ("examine_is_read_only", "STORE is answered OK and does nothing"),
    (
        "expunges_are_told_as_vanished",
        "the other session's \\Deleted is told, and the message still read",
    ),
    (
        "expunges_of_others_wait_for_their_moment",
        "it still has the message for this session, malle has not",
    ),
    (
        "fetch_cuts_partial_ranges",
        "a length of 0 is answered with nothing; the grammar has a number above 0",
    ),
    (
        "fetch_cuts_sections",
        "the line end before an outer boundary counts as content; RFC 2046 5.1.1 gives it to the boundary",
    ),
    ("fetch_knows_the_macros", "an INTERNALDATE loses its zone"),
    ("fetch_sets_seen", "FLAGS stand before the section"),
    ("fetch_tells_a_part_of_the_messages", "no PARTIAL"),
    (
        "fetch_tells_the_preview",
        "it previews several lines, the store in memory one",
    ),
    (
        "fetch_tells_the_structure",
        "words keep their letter case, and the line end before an outer boundary counts",
    ),
    (
        "fetch_tells_what_changed_since",
        "the script names a MODSEQ of the store in memory",
    ),
    ("id_namespace_enable", "it has another name"),
    ("idle_tells_at_once", "it looks for changes now and then"),
    (
        "list_is_extended",
        "its INBOX is not subscribed to, and \\HasNoChildren is told on demand only",
    ),
    (
        "list_matches_patterns",
        "a parent that was not made is \\Noselect; malle makes it",
    ),
    ("list_tells_the_status", "the same: it cannot be deleted"),
    (
        "lsub_stands_in_for_parents",
        "uses are told, and INBOX is not subscribed to",
    ),
    ("mailboxes_are_made_for_a_use", "uses that are not known are taken"),
    (
        "mailboxes_are_made_renamed_deleted",
        "the same as with patterns: the parent can still be made",
    ),
    ("metadata_is_set_and_told", "METADATA is off unless it is configured"),
    ("move_tells_uids_then_expunges", "`1:*` of an empty mailbox is an error"),
    ("moving_into_the_same_mailbox_is_refused", "it is done"),
    ("names_are_told_as_they_are_kept", "no IMAP4rev2"),
    (
        "names_travel_in_modified_utf7",
        "bytes beyond ASCII are a name that is not there",
    ),
    ("names_travel_in_utf8", "the same"),
    ("notify_delays_expunges_on_demand", "it looks for changes now and then"),
    (
        "notify_refuses_what_it_does_not_know",
        "BADEVENT names what is not known; RFC 5465 5 wants what is",
    ),
    ("quota_tells_what_is_used", "QUOTA is off unless it is configured"),
    ("replace_puts_one_for_the_other", "no REPLACE"),
    (
        "rev2_answers_as_its_rfc_says",
        "ENABLE works in the selected state, and there is no IMAP4rev2",
    ),
    ("search_answers_what_is_asked_for", "another order within ESEARCH"),
    ("search_by_flags_numbers_and_dates", "the mails are saved today"),
    ("search_keeps_what_it_found", "another order within FETCH"),
    ("search_refuses_other_charsets", "it knows more charsets"),
    (
        "search_tells_the_modseq",
        "the script names a MODSEQ of the store in memory",
    ),
    ("sort_orders_as_people_do", "accents count in its order"),
    ("status_tells_all_items", "it has \\Recent"),
    (
        "store_spares_what_changed",
        "the script names a MODSEQ of the store in memory",
    ),
    ("thread_tells_who_answered_whom", "accents make another subject"),
    ("uids_name_messages", "another order within FETCH"),
];

#[tokio::test]
async fn the_shipped_gateway_says_what_its_dialogues_say() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let operator = cluster.operator().await?;
    // What a dialogue waits for in vain costs nobody else its time.
    let played = futures::stream::iter(dialogues()?.into_iter().enumerate()).map(|(at, dialogue)| {
        let (operator, cluster) = (&operator, &cluster);
        async move {
            let user = user(at);
            make_account(operator, &user).await?;
            if dialogue.has_neighbour() {
                make_account(operator, &neighbour_of(&user)).await?;
            }
            let played = dialogue.play(cluster.imap_address(), &user, Manner::Exact).await?;
            anyhow::Ok((dialogue.name, played))
        }
    });
    let played: Vec<_> = played.buffer_unordered(AT_ONCE).try_collect().await?;
    let steps: usize = played.iter().map(|(_, played)| played.steps).sum();
    let differing: BTreeMap<String, String> = played
        .into_iter()
        .filter_map(|(name, played)| Some((name, played.differences.into_iter().next()?)))
        .filter(|(name, _)| !MAY_DIFFER.iter().any(|(known, _)| known == name))
        .collect();
    println!("{steps} steps");
    explained(&differing, NOT_OF_A_REAL_STORE)?;
    cluster.finish().await
}

#[tokio::test]
async fn dovecot_says_the_same_where_no_difference_is_explained() -> anyhow::Result<()> {
    if !installed("dovecot", "--version") {
        return Ok(());
    }
    let Some(dovecot) = Dovecot::start().await? else {
        return Ok(());
    };
    let mut differing = BTreeMap::new();
    let (mut steps, mut different_steps) = (0, 0);
    // Its ACL is off unless it is configured, with a name for the mailboxes of others that is not ours.
    let of_one = dialogues()?.into_iter().filter(|dialogue| !dialogue.has_neighbour());
    for (at, dialogue) in of_one.enumerate() {
        let played = dialogue.play(&dovecot.address, &user(at), Manner::Loose).await?;
        steps += played.steps;
        different_steps += played.differences.len();
        if let Some(difference) = played.differences.into_iter().next() {
            differing.insert(dialogue.name, difference);
        }
    }
    println!(
        "{steps} steps, {different_steps} of them answered differently, in {} dialogues",
        differing.len()
    );
    explained(&differing, DOVECOT_DIFFERS)
}

/// Every difference has its reason, and every reason its difference.
fn explained(differing: &BTreeMap<String, String>, reasons: &[(&str, &str)]) -> anyhow::Result<()> {
    let known = |name: &str| reasons.iter().any(|(known, _)| *known == name);
    let unexplained: Vec<String> = differing
        .iter()
        .filter(|(name, _)| !known(name))
        .map(|(name, difference)| format!("{name}: {difference}"))
        .collect();
    let stale: Vec<&str> = reasons
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !differing.contains_key(*name))
        .collect();
    ensure!(
        unexplained.is_empty() && stale.is_empty(),
        "not explained:\n{}\nexplained without need: {stale:?}",
        unexplained.join("\n")
    );
    Ok(())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/tests/imap")
}

/// As long as [`PLAYED`], and not among the cluster's own.
fn user(at: usize) -> String {
    let letter = char::from(b'A' + u8::try_from(at / 10).unwrap_or(0)).to_ascii_lowercase();
    let letter = if letter == 'u' { 'z' } else { letter };
    format!("{letter}{}@example.org", at % 10)
}

/// Another one of the same length.
fn neighbour_of(user: &str) -> String {
    let (first, rest) = user.split_at(1);
    let first = first
        .bytes()
        .next()
        .map_or(b'a', |letter| (letter - b'a' + 11) % 26 + b'a');
    let first = if first == b'u' { 'z' } else { char::from(first) };
    format!("{first}{rest}")
}

async fn make_account(operator: &Client, user: &str) -> anyhow::Result<()> {
    let new = NewAccount {
        address: user.into(),
        password: Some(PASSWORD.into()),
        ..NewAccount::default()
    };
    operator.directory().account_create(new, fresh_op_id()).await?;
    Ok(())
}

/// One file.
struct Dialogue {
    name: String,
    lines: Vec<Line>,
}

enum Line {
    /// What the client says.
    Said(String),
    /// What must come.
    Heard(String),
    /// What somebody else does.
    Event(String),
}

/// How answers are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// In order, with their texts.
    Exact,
    /// In any order, without texts and what RFCs leave to the server.
    Loose,
}

#[derive(Default)]
struct Played {
    steps: usize,
    differences: Vec<String>,
}

/// All dialogues that need nothing but a server: no settings of a listener, no failures of a store, no time.
fn dialogues() -> anyhow::Result<Vec<Dialogue>> {
    let mut dialogues = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let script = std::fs::read_to_string(&path)?;
        let name = path
            .file_stem()
            .context("a file has a name")?
            .to_string_lossy()
            .into_owned();
        dialogues.extend(Dialogue::of(name, &script));
    }
    dialogues.sort_by(|a, b| a.name.cmp(&b.name));
    ensure!(dialogues.len() > 40, "only {} dialogues are played", dialogues.len());
    Ok(dialogues)
}

impl Dialogue {
    fn of(name: String, script: &str) -> Option<Dialogue> {
        const EVENTS: [&str; 7] = ["deliver", "flags", "expunge", "create", "rename", "subscribe", "drop"];
        // `AHUx` is the account's name in base64.
        let for_us = |line: &str| !line.starts_with('@') && !line.contains(" AHUx") && line != "S!";
        let is_known = |event: &str| {
            let (event, shares) = match event.strip_prefix("other ") {
                Some(event) => (event, event.starts_with("share ")),
                None => (event, false),
            };
            shares || EVENTS.contains(&event.split(' ').next().unwrap_or_default())
        };
        let mut lines = Vec::new();
        for line in script.lines() {
            if !for_us(line) {
                return None;
            }
            match line.split_once(": ") {
                Some(("C", said)) => lines.push(Line::Said(said.to_owned())),
                Some(("S", heard)) => lines.push(Line::Heard(heard.to_owned())),
                Some(("W", event)) if is_known(event) => {
                    lines.push(Line::Event(event.to_owned()));
                }
                Some(("W", _)) => return None,
                _ => {}
            }
        }
        Some(Dialogue { name, lines })
    }

    /// Does somebody share in it?
    fn has_neighbour(&self) -> bool {
        self.lines.iter().any(|line| match line {
            Line::Said(text) | Line::Heard(text) => text.contains(NEIGHBOUR),
            Line::Event(event) => event.starts_with("other "),
        })
    }

    async fn play(&self, address: &str, user: &str, manner: Manner) -> anyhow::Result<Played> {
        let neighbour = neighbour_of(user);
        let mut sharing = None;
        if self.has_neighbour() {
            let mut imap = Imap::login(address, &neighbour, PASSWORD).await?;
            for name in ["Projets", "Projets/2024"] {
                event(&mut imap, &format!("create {name}")).await?;
            }
            sharing = Some(imap);
        }
        let named = |text: &str| text.replace(PLAYED, user).replace(NEIGHBOUR, &neighbour);
        let mut other = Imap::login(address, user, PASSWORD).await?;
        for mail in ["plain \\Seen", "multipart", "nested"] {
            event(&mut other, &format!("deliver INBOX {mail}")).await?;
        }
        let stream = TcpStream::connect(address).await?;
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let mut played = Played::default();
        let mut at = 0;
        let mut step = "the greeting".to_owned();
        while at < self.lines.len() || played.steps == 0 {
            match self.lines.get(at) {
                Some(Line::Said(said)) => {
                    step.clone_from(said);
                    writer.write_all(format!("{}\r\n", named(said)).as_bytes()).await?;
                    at += 1;
                }
                Some(Line::Event(line)) => {
                    step.clone_from(line);
                    match (line.strip_prefix("other "), &mut sharing) {
                        (Some(line), Some(sharing)) => {
                            event(sharing, &line.replace("share ", &format!("share {user} "))).await?
                        }
                        _ => event(&mut other, line).await?,
                    }
                    at += 1;
                }
                _ => {}
            }
            let mut expected = Vec::new();
            while let Some(Line::Heard(heard)) = self.lines.get(at) {
                expected.push(named(heard));
                at += 1;
            }
            played.steps += 1;
            let heard = hear(&mut reader, &expected, manner).await?;
            let difference = manner.difference(&expected, &heard);
            if let Some(difference) = difference {
                played.differences.push(format!("{step}: {difference}"));
                if manner == Manner::Exact || heard.is_empty() {
                    // What follows would only say the same again.
                    break;
                }
            }
        }
        Ok(played)
    }
}

/// Lines until the tagged one that is expected last, or as many as are expected.
async fn hear(
    reader: &mut (impl AsyncBufReadExt + Unpin),
    expected: &[String],
    manner: Manner,
) -> anyhow::Result<Vec<String>> {
    let patience = if manner == Manner::Exact { ANSWER } else { OTHER_ANSWER };
    let last = expected.last().map(String::as_str).unwrap_or_default();
    let tag = last.split(' ').next().unwrap_or_default();
    let is_tagged = ["OK", "NO", "BAD"].contains(&last.split(' ').nth(1).unwrap_or_default()) && tag != "*";
    let mut heard: Vec<String> = Vec::new();
    let is_complete = |heard: &[String]| {
        if is_tagged {
            heard.last().is_some_and(|line| line.starts_with(&format!("{tag} ")))
        } else {
            heard.len() >= expected.len()
        }
    };
    while !is_complete(&heard) {
        let mut line = Vec::new();
        match tokio::time::timeout(patience, reader.read_until(b'\n', &mut line)).await {
            Err(_) | Ok(Ok(0)) => break,
            Ok(read) => read?,
        };
        heard.push(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(heard)
}

impl Manner {
    /// What is not as expected.
    fn difference(self, expected: &[String], heard: &[String]) -> Option<String> {
        let expected: Vec<String> = expected.iter().filter_map(|line| self.normal(line)).collect();
        let mut left: Vec<String> = heard.iter().filter_map(|line| self.normal(line)).collect();
        let same = match self {
            Manner::Exact => {
                expected.len() == left.len() && expected.iter().zip(&left).all(|(wanted, line)| fits(wanted, line))
            }
            Manner::Loose => {
                let all = expected.iter().all(|wanted| {
                    let found = left.iter().position(|line| fits(wanted, line));
                    found.map(|found| left.remove(found)).is_some()
                });
                all && left.is_empty()
            }
        };
        let heard: Vec<String> = heard.iter().filter_map(|line| self.normal(line)).collect();
        (!same).then(|| format!("expected {expected:?}, heard {heard:?}"))
    }

    /// A line without what differs from run to run, or from server to server; `None` for one that is not compared.
    fn normal(self, line: &str) -> Option<String> {
        if line.starts_with("* CAPABILITY ") {
            return Some("* CAPABILITY <any>".into());
        }
        let line = without_numbers(&without_save_date(line));
        if self == Manner::Exact {
            return Some(line);
        }
        // \Recent is the server's to give, FLAGS and their codes may come again, and CONDSTORE may be told before it is asked for.
        const UNASKED: [&str; 5] = [
            "* OK [HIGHESTMODSEQ",
            "* OK [MAILBOXID",
            "* OK [PERMANENTFLAGS",
            "* OK [UNSEEN",
            "* FLAGS ",
        ];
        if line.ends_with(" RECENT") || UNASKED.iter().any(|unasked| line.starts_with(unasked)) {
            return None;
        }
        if line.starts_with("+ ") {
            return Some("+".into());
        }
        Some(
            without_text(&line)
                .replace("\\Recent ", "")
                .replace(" \\Recent", "")
                .replace("\\Recent", ""),
        )
    }
}

/// When a message was stored is no part of what is compared.
fn without_save_date(line: &str) -> String {
    let date = line
        .split_once("SAVEDATE \"")
        .and_then(|(before, rest)| Some((before, rest.split_once('"')?.1)));
    match date {
        Some((before, after)) => format!("{before}SAVEDATE <date>{after}"),
        None => line.to_owned(),
    }
}

/// Ids, validities and MODSEQs are drawn by the store.
fn without_numbers(line: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in line.split(' ') {
        let before = words
            .last()
            .map(|word| word.trim_start_matches(['(', '[']))
            .unwrap_or_default();
        let drawn = [
            "UIDVALIDITY",
            "MODSEQ",
            "HIGHESTMODSEQ",
            "APPENDUID",
            "COPYUID",
            "MAILBOXID",
            "EMAILID",
            "THREADID",
        ];
        let number_follows = drawn.contains(&before);
        let (kept, is_cut) = match word.find([')', ']']).filter(|_| number_follows) {
            Some(end) => (word[end..].trim_start_matches(')'), true),
            None => ("", false),
        };
        if is_cut {
            words.push(format!("<n>{kept}"));
        } else if number_follows {
            words.push("<n>".into());
        } else {
            words.push(word.to_owned());
        }
    }
    words.join(" ")
}

/// A status answer without its text and the codes that a server may leave out.
fn without_text(line: &str) -> String {
    let mut words = line.splitn(3, ' ');
    let (Some(tag), Some(status), rest) = (words.next(), words.next(), words.next().unwrap_or_default()) else {
        return line.to_owned();
    };
    if !["OK", "NO", "BAD", "BYE"].contains(&status) {
        return line.to_owned();
    }
    let code = rest
        .strip_prefix('[')
        .and_then(|rest| rest.split(']').next())
        .unwrap_or_default();
    const OPTIONAL: [&str; 8] = [
        "HIGHESTMODSEQ",
        "CLOSED",
        "ALERT",
        "CANNOT",
        "MAILBOXID",
        "SERVERBUG",
        "CAPABILITY",
        "NONEXISTENT",
    ];
    let kept = !code.is_empty() && (tag == "*" || !OPTIONAL.iter().any(|optional| code.starts_with(optional)));
    if kept {
        format!("{tag} {status} [{code}]")
    } else {
        format!("{tag} {status}")
    }
}

fn fits(pattern: &str, line: &str) -> bool {
    match pattern.split_once("<any>") {
        None => pattern == line,
        Some((before, after)) => {
            line.starts_with(before) && line.ends_with(after.rsplit("<any>").next().unwrap_or(after))
        }
    }
}

/// What somebody else does to the account.
async fn event(imap: &mut Imap, event: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = event.split(' ').collect();
    let commands: Vec<String> = match words.as_slice() {
        ["deliver", mailbox, sample, flags @ ..] => {
            let mail = std::fs::read_to_string(folder().join(format!("mail/{sample}.eml")))?.replace('\n', "\r\n");
            let flags = flags.join(" ");
            let head = format!(
                "APPEND {mailbox} ({flags}) \"01-May-2024 10:00:00 +0200\" {{{}+}}",
                mail.len()
            );
            vec![format!("{head}\r\n{mail}")]
        }
        ["flags", mailbox, uid, flags @ ..] => vec![
            format!("SELECT {mailbox}"),
            format!("UID STORE {uid} FLAGS.SILENT ({})", flags.join(" ")),
            "UNSELECT".into(),
        ],
        ["expunge", mailbox, uid] => vec![
            format!("SELECT {mailbox}"),
            format!("UID STORE {uid} +FLAGS.SILENT (\\Deleted)"),
            format!("UID EXPUNGE {uid}"),
            "UNSELECT".into(),
        ],
        ["create", name] => vec![format!("CREATE {name}")],
        ["rename", from, to] => vec![format!("RENAME {from} {to}")],
        ["subscribe", name] => vec![format!("SUBSCRIBE {name}")],
        ["drop", name] => vec![format!("DELETE {name}")],
        ["share", user, name] => vec![format!("DELETEACL {name} {user}")],
        ["share", user, name, letters] => vec![format!("SETACL {name} {user} {letters}")],
        other => bail!("unknown event {other:?}"),
    };
    for command in commands {
        imap.command(&command).await?.ok().with_context(|| event.to_owned())?;
    }
    Ok(())
}

/// Debian's Dovecot with the folders and uses that an account of malle begins with.
struct Dovecot {
    /// Ends before its directory goes.
    _master: Child,
    _directory: tempfile::TempDir,
    address: String,
}

impl Dovecot {
    /// `None`, and SKIPPED is printed, where it cannot be started.
    async fn start() -> anyhow::Result<Option<Dovecot>> {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        // Owner of the mail; no account of the system.
        const MAIL_UID: u32 = 64_999;
        let directory = tempfile::Builder::new().prefix("malle-dovecot-").tempdir()?;
        let path = directory.path();
        let mail = path.join("mail");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir(&mail)?;
        if chown(&mail, Some(MAIL_UID), Some(MAIL_UID)).is_err() {
            println!("SKIPPED: only the superuser can start a Dovecot of its own");
            return Ok(None);
        }
        let version = Command::new("dovecot").arg("--version").output().await?;
        if !version.stdout.starts_with(b"2.3.") {
            println!("SKIPPED: the differences are those of Dovecot 2.3");
            return Ok(None);
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = path.join("dovecot.conf");
        std::fs::write(&config, configuration(path, port, MAIL_UID))?;
        let master = Command::new("dovecot")
            .arg("-F")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let address = format!("127.0.0.1:{port}");
        until("Dovecot's IMAP", Duration::from_secs(30), || async {
            Imap::login(&address, "first@example.org", PASSWORD).await?;
            Ok(Some(()))
        })
        .await?;
        Ok(Some(Dovecot {
            _directory: directory,
            _master: master,
            address,
        }))
    }
}

fn configuration(path: &Path, port: u16, uid: u32) -> String {
    let path = path.display();
    let folders = [
        "Archive subscribe",
        "Drafts create",
        "Junk create",
        "Sent subscribe",
        "Trash create",
    ]
    .map(|folder| {
        let (name, auto) = folder.split_once(' ').unwrap_or((folder, "no"));
        format!("  mailbox {name} {{\n    auto = {auto}\n    special_use = \\{name}\n  }}\n")
    });
    format!(
        "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = {path}/dovecot.log\nprotocols = imap\nssl = no\n\
         disable_plaintext_auth = no\nlisten = 127.0.0.1\nfirst_valid_uid = 1\nauth_failure_delay = 0\n\
         mail_location = sdbox:{path}/mail/%u\n\
         passdb {{\n  driver = static\n  args = password={PASSWORD}\n}}\n\
         userdb {{\n  driver = static\n  args = uid={uid} gid={uid} home={path}/mail/%u allow_all_users=yes\n}}\n\
         namespace inbox {{\n  inbox = yes\n  separator = /\n{}}}\n\
         service imap-login {{\n  service_count = 0\n  inet_listener imap {{\n    address = 127.0.0.1\n    port = {port}\n  }}\n  \
         inet_listener imaps {{\n    port = 0\n  }}\n}}\n",
        folders.concat()
    )
}
