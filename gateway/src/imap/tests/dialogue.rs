//! Dialogues: `gateway/tests/imap/<the_claim>.txt`, one behaviour each, with the RFC section in the first line.
//!
//! `C: ` is sent with CRLF, `S: ` must come next, word for word (`<any>` stands for any text), `S!` must be the end of the stream, `W: ` is what
//! happens elsewhere ([`MemoryStore::event`], `wait` and seconds, `shutdown`, or `kick`). `@` lines at the top change the settings. Sample mails are
//! in `mail/`, with LF that becomes CRLF. Time is simulated: pauses cost nothing.
//!
//! With MALLE_REWRITE_DIALOGUES set, the `S` lines are written anew; read the difference before you commit it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::super::{BodyMemory, Context, Ended, Roster, SessionSettings, serve};
use super::memory::MemoryStore;

/// In simulated time: longer than any pause of the server, shorter than its waits for the client.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imap")
}

pub(super) fn mail(name: &str) -> Bytes {
    let text = std::fs::read(folder().join(format!("mail/{name}.eml"))).unwrap();
    let mut crlf = Vec::with_capacity(text.len() + 100);
    for byte in text {
        if byte == b'\n' {
            crlf.push(b'\r');
        }
        crlf.push(byte);
    }
    crlf.into()
}

/// A client's side of a session that runs on a task of its own.
pub(super) struct Client {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: WriteHalf<DuplexStream>,
    pub(super) store: Arc<MemoryStore>,
    shutdown: watch::Sender<bool>,
    roster: Arc<Roster>,
    session: tokio::task::JoinHandle<()>,
}

impl Client {
    pub(super) fn connect(settings: SessionSettings) -> Client {
        let store = Arc::new(MemoryStore::new());
        for (sample, flags) in [("plain", " \\Seen"), ("multipart", ""), ("nested", "")] {
            store.event(&format!("deliver INBOX {sample}{flags}"), mail);
        }
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (shutdown, stopped) = watch::channel(false);
        let roster = Arc::new(Roster::default());
        let context = Context {
            settings,
            roster: Arc::clone(&roster),
            shutdown: stopped,
            ..context_of(Arc::clone(&store))
        };
        let session = tokio::spawn(async move {
            let mut context = context;
            let mut io: super::super::BoxedIo = Box::new(near);
            // The handshake is somebody else's: here the stream goes on as it is.
            while let Ended::StartTls(bare) = serve(io, context.clone()).await {
                context.settings = context.settings.after_starttls();
                io = bare;
            }
        });
        let (reader, writer) = tokio::io::split(far);
        Client {
            reader: BufReader::new(reader),
            writer,
            store,
            shutdown,
            roster,
            session,
        }
    }

    /// Hangs up and waits until the session has noticed; what it left is in the store.
    pub(super) async fn hang_up(self) -> Arc<MemoryStore> {
        let Client {
            reader,
            writer,
            store,
            session,
            ..
        } = self;
        drop((reader, writer));
        timeout(PATIENCE, session).await.unwrap().unwrap();
        store
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // A server that has hung up is seen by the next read.
        let _ = self.writer.write_all(bytes).await;
    }

    /// The next line without CRLF; `None` at the end of the stream.
    pub(super) async fn line(&mut self) -> Result<Option<String>, String> {
        let mut line = Vec::new();
        let read = timeout(PATIENCE, self.reader.read_until(b'\n', &mut line)).await;
        match read.map_err(|_| "nothing came".to_owned())? {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(
                String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned(),
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The next bytes, whatever they are.
    pub(super) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        timeout(PATIENCE, self.reader.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        bytes
    }

    /// Some bytes, as they come; none at the end of the stream.
    pub(super) async fn some_bytes(&mut self) -> Vec<u8> {
        let came = timeout(PATIENCE, self.reader.fill_buf())
            .await
            .unwrap()
            .unwrap()
            .to_vec();
        self.reader.consume(came.len());
        came
    }

    /// All lines up to the one that begins with this tag.
    pub(super) async fn until(&mut self, tag: &str) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line().await.unwrap() {
            let ends = line.starts_with(&format!("{tag} "));
            lines.push(line);
            if ends {
                break;
            }
        }
        lines
    }

    pub(super) async fn command(&mut self, command: &str) -> Vec<String> {
        self.send(format!("{command}\r\n").as_bytes()).await;
        self.until(command.split(' ').next().unwrap()).await
    }

    async fn event(&mut self, event: &str) {
        if let Some(seconds) = event.strip_prefix("wait ") {
            // Second by second, so that everything due in between happens when it is due.
            for _ in 0..seconds.parse::<u32>().unwrap() {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        } else if event == "shutdown" {
            self.shutdown.send_replace(true);
        } else if event == "kick" {
            assert_eq!(self.roster.sessions(MemoryStore::ACCOUNT, None, true).len(), 1);
        } else {
            self.store.event(event, mail);
        }
    }
}

/// What a session of this store lives on.
pub(super) fn context_of(store: Arc<MemoryStore>) -> Context {
    Context {
        store: store as Arc<dyn super::super::store::Store>,
        settings: trusted(),
        memory: BodyMemory::default(),
        gate: Arc::default(),
        roster: Arc::default(),
        shutdown: watch::channel(false).1,
        peer: "test".into(),
        address: std::net::Ipv4Addr::LOCALHOST.into(),
    }
}

pub(super) fn trusted() -> SessionSettings {
    SessionSettings {
        tls: true,
        starttls_offered: false,
        plaintext_login_allowed: false,
        greeted: false,
        access_tokens: false,
    }
}

fn settings(script: &str) -> SessionSettings {
    let mut settings = trusted();
    for line in script.lines().filter_map(|line| line.strip_prefix('@')) {
        match line {
            "no-tls" => settings.tls = false,
            "starttls" => settings.starttls_offered = true,
            "plaintext" => settings.plaintext_login_allowed = true,
            "access-tokens" => settings.access_tokens = true,
            other => panic!("unknown setting {other}"),
        }
    }
    settings
}

fn fits(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split("<any>");
    let Some(mut rest) = line.strip_prefix(pieces.next().unwrap()) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        let Some(found) = rest.find(piece) else { return false };
        rest = &rest[found + piece.len()..];
        last = Some(piece);
    }
    rest.is_empty() || last == Some("")
}

async fn check(script: &str) -> Result<(), String> {
    let mut client = Client::connect(settings(script));
    for (index, line) in script.lines().enumerate() {
        let failed = |reason: String| format!("line {}: {reason}", index + 1);
        match line.get(..3).unwrap_or(line) {
            "C: " => client.send(format!("{}\r\n", &line[3..]).as_bytes()).await,
            "W: " => client.event(&line[3..]).await,
            "S!" => match client.line().await {
                Ok(None) => {}
                other => return Err(failed(format!("expected the end, got {other:?}"))),
            },
            "S: " => {
                let came = client.line().await.map_err(&failed)?;
                let came = came.ok_or_else(|| failed("the stream ended".into()))?;
                if !fits(&line[3..], &came) {
                    return Err(failed(format!("expected {}\n                 got {came}", &line[3..])));
                }
            }
            _ if line.is_empty() || line.starts_with(['#', '@']) => {}
            _ => return Err(failed(format!("what is this? {line}"))),
        }
    }
    match client.line().await {
        Err(_) | Ok(None) => Ok(()),
        Ok(Some(more)) => Err(format!("at the end: unexpected {more}")),
    }
}

/// The script with what the server says now.
async fn rewritten(script: &str) -> String {
    let mut client = Client::connect(settings(script));
    let mut text = String::new();
    let mut greeted = false;
    for line in script.lines().filter(|line| !line.starts_with('S')) {
        let is_step = line.starts_with("C: ") || line.starts_with("W: ");
        if is_step && !greeted {
            hear(&mut client, &mut text).await;
            greeted = true;
        }
        writeln!(text, "{line}").unwrap();
        if let Some(sent) = line.strip_prefix("C: ") {
            client.send(format!("{sent}\r\n").as_bytes()).await;
        } else if let Some(event) = line.strip_prefix("W: ") {
            client.event(event).await;
        }
        if is_step {
            hear(&mut client, &mut text).await;
        }
    }
    text
}

async fn hear(client: &mut Client, text: &mut String) {
    loop {
        match client.line().await {
            Ok(Some(line)) => writeln!(text, "S: {}", without_capabilities(&line)).unwrap(),
            Ok(None) => {
                if !text.contains("\nS!\n") {
                    writeln!(text, "S!").unwrap();
                }
                return;
            }
            Err(_) => return,
        }
    }
}

/// The list in brackets is spelled out once, where CAPABILITY is asked for.
fn without_capabilities(line: &str) -> String {
    match (line.split_once("[CAPABILITY "), line.rsplit_once(']')) {
        (Some((before, _)), Some((_, after))) => format!("{before}[CAPABILITY <any>]{after}"),
        _ => line.to_owned(),
    }
}

async fn run(name: &str) {
    let path = folder().join(format!("{name}.txt"));
    let script = std::fs::read_to_string(&path).unwrap();
    assert!(
        script.starts_with("# RFC "),
        "{name}: the first line names the RFC section"
    );
    if std::env::var_os("MALLE_REWRITE_DIALOGUES").is_some() {
        std::fs::write(&path, rewritten(&script).await).unwrap();
        return;
    }
    if let Err(reason) = check(&script).await {
        panic!("{}: {reason}", path.display());
    }
}

macro_rules! dialogues {
    ($($name:ident,)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[tokio::test(start_paused = true)]
            async fn $name() {
                run(stringify!($name)).await;
            }
        )*
    };
}

dialogues! {
    a_damaged_mail_spares_the_others,
    a_deleted_mailbox_ends_the_session,
    a_literal_too_large_is_refused_first,
    a_login_that_expired_ends_the_session,
    a_lost_memory_of_expunges_is_made_good,
    a_mailbox_of_another_is_used_as_its_rights_say,
    a_mailbox_that_is_shared_no_more_ends_the_session,
    a_silent_client_is_sent_away,
    a_silent_stranger_is_sent_away,
    a_stop_says_bye,
    a_store_that_does_not_answer_is_told,
    an_operator_ends_a_session,
    an_owner_who_does_not_answer_costs_nobody_else,
    append_brings_several_messages,
    append_is_refused_with_a_reason,
    append_tells_the_uid,
    authenticate_plain,
    authenticate_with_an_access_token,
    authenticate_with_an_initial_response,
    binary_parts_come_decoded,
    close_expunges_in_silence_unselect_not_at_all,
    commands_have_their_states,
    copy_tells_the_new_uids,
    examine_is_read_only,
    expunge_tells_from_the_highest_down,
    expunges_are_told_as_vanished,
    expunges_of_others_wait_for_their_moment,
    failed_logins_look_alike,
    fetch_cuts_partial_ranges,
    fetch_cuts_sections,
    fetch_knows_the_macros,
    fetch_sets_seen,
    fetch_tells_a_part_of_the_messages,
    fetch_tells_the_preview,
    fetch_tells_the_structure,
    fetch_tells_what_changed_since,
    greeting_tells_what_works,
    id_namespace_enable,
    idle_ends_with_the_right_to_read,
    idle_outlives_a_store_that_does_not_answer,
    idle_stays_alive_and_ends,
    idle_tells_at_once,
    idle_tells_of_a_mailbox_of_another,
    list_is_extended,
    list_matches_patterns,
    list_tells_the_status,
    literals_are_asked_for,
    login_and_logout,
    login_needs_privacy,
    lsub_stands_in_for_parents,
    mailboxes_are_made_for_a_use,
    mailboxes_are_made_renamed_deleted,
    mailboxes_of_others_are_listed,
    mailboxes_of_others_are_made_renamed_deleted,
    messages_go_to_others_and_come_back,
    metadata_is_set_and_told,
    metadata_that_changes_is_told,
    move_tells_uids_then_expunges,
    moving_into_the_same_mailbox_is_refused,
    names_are_told_as_they_are_kept,
    names_travel_in_modified_utf7,
    names_travel_in_utf8,
    news_of_others_is_told,
    nonsense_is_answered_then_ended,
    nonsynchronising_literals_are_taken,
    notify_delays_expunges_on_demand,
    notify_refuses_what_it_does_not_know,
    notify_tells_of_all_mailboxes,
    notify_tells_of_mailboxes_of_others,
    plaintext_login_by_configuration,
    quota_tells_what_is_used,
    replace_puts_one_for_the_other,
    rev2_answers_as_its_rfc_says,
    rights_are_given_told_and_taken_back,
    search_answers_what_is_asked_for,
    search_by_flags_numbers_and_dates,
    search_by_text,
    search_keeps_what_it_found,
    search_refuses_other_charsets,
    search_tells_how_far_it_is,
    search_tells_the_modseq,
    select_closes_the_mailbox_before,
    select_tells_the_mailbox,
    select_tells_what_was_missed,
    sort_orders_as_people_do,
    starttls_begins_anew,
    status_tells_all_items,
    store_changes_flags,
    store_spares_what_changed,
    thread_tells_who_answered_whom,
    uid_expunge_spares_the_others,
    uid_fetch_tells_what_vanished,
    uids_name_messages,
}

#[test]
fn every_dialogue_is_run() {
    let mut found: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    found.sort();
    let mut named: Vec<&str> = NAMES.to_vec();
    named.sort_unstable();
    assert_eq!(found, named);
}
