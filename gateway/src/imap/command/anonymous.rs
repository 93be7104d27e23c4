//! Commands before login (RFC 3501 6.2). Nothing here says, or logs, which of name and password was wrong, or what they were.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use malle_client::Error;
use malle_proto::limits;
use tokio::time::Instant;

use super::super::connection::FrameError;
use super::super::parse::Password;
use super::super::respond::{Answer, Failure, Status};
use super::super::sasl::{Credentials, Malformed, Mechanism, Proof};
use super::super::session::Session;
use super::super::shared::Everything;
use super::any;

pub(super) fn starttls(session: &mut Session) -> Result<Answer, Failure> {
    let settings = session.context.settings;
    if settings.tls || !settings.starttls_offered {
        return Err(Failure::bad("STARTTLS is not offered here"));
    }
    if session.connection.has_input() {
        // Somebody put commands before the handshake that would seem to come from within (CVE-2011-0411).
        return Err(Failure::Bye("no command may follow STARTTLS before the handshake"));
    }
    Ok(Answer::ok("Begin the TLS handshake"))
}

pub(super) async fn login(session: &mut Session, name: &[u8], password: &Password) -> Result<Answer, Failure> {
    require_privacy(session)?;
    let credentials = Credentials {
        name: name.to_vec(),
        proof: Proof::Password(password.0.clone()),
    };
    log_in(session, &credentials).await
}

/// RFC 3501 6.2.2, with the initial response of RFC 4959.
pub(super) async fn authenticate(
    session: &mut Session,
    mechanism: &str,
    initial: Option<Password>,
) -> Result<Answer, Failure> {
    let settings = session.context.settings;
    let Some(mechanism) = Mechanism::named(mechanism, settings.access_tokens) else {
        return Err(Failure::no("CANNOT", "This mechanism is not known here"));
    };
    require_privacy(session)?;
    let response = match initial {
        Some(Password(initial)) if initial == b"=" => Vec::new(),
        Some(Password(initial)) => initial,
        None => ask(session, "").await?,
    };
    let answer = STANDARD
        .decode(&response)
        .map_err(|_| Failure::bad("The response is not base64"))?;
    let credentials = match mechanism.credentials(&answer) {
        Ok(credentials) => credentials,
        Err(Malformed::Syntax(expected)) => return Err(Failure::bad(expected)),
        Err(Malformed::ActsForAnother) => return refused(session, "").await,
    };
    let answer = log_in(session, &credentials).await?;
    if let Some(reason) = mechanism.refusal()
        && answer.status == Status::No
    {
        // Whatever the client says to that, it hears NO.
        ask(session, &STANDARD.encode(reason)).await?;
    }
    Ok(answer)
}

/// A challenge, and the client's answer to it.
async fn ask(session: &mut Session, challenge: &str) -> Result<Vec<u8>, Failure> {
    session.connection.output.put(format_args!("+ {challenge}\r\n"));
    session.connection.flush().await?;
    let deadline = Instant::now() + session.bounds().idle();
    let response = session.connection.read_line(deadline).await.map_err(line_failure)?;
    if response == b"*" {
        return Err(Failure::bad("AUTHENTICATE was cancelled"));
    }
    Ok(response)
}

/// What reading a bare line can end in.
pub(super) fn line_failure(error: FrameError) -> Failure {
    match error {
        FrameError::Gone(gone) => Failure::Gone(gone),
        FrameError::Lost(reason) => Failure::Bye(reason),
        FrameError::LiteralRefused { .. }
        | FrameError::LiteralTooLarge { .. }
        | FrameError::TooManyMessages { .. }
        | FrameError::NoMemory { .. } => Failure::Bye("no literal may stand here"),
    }
}

fn require_privacy(session: &Session) -> Result<(), Failure> {
    if session.context.settings.login_allowed() {
        return Ok(());
    }
    Err(Failure::no("PRIVACYREQUIRED", "Use TLS before you send a password"))
}

async fn log_in(session: &mut Session, credentials: &Credentials) -> Result<Answer, Failure> {
    let (proof, longest) = match &credentials.proof {
        Proof::Password(password) => (password, limits::PASSWORD_MAX_BYTES),
        Proof::Token(token) => (token, limits::BEARER_TOKEN_MAX_BYTES),
    };
    let bounded = credentials.name.len() <= limits::ADDRESS_MAX_BYTES && proof.len() <= longest;
    let (Ok(name), Ok(proof), true) = (
        std::str::from_utf8(&credentials.name),
        std::str::from_utf8(proof),
        bounded,
    ) else {
        return refused(session, "").await;
    };
    // A token that comes without a name is counted for itself: else nobody else's would be looked at behind a stranger's guesses.
    let counted_as = if name.is_empty() { proof } else { name };
    let (gate, address) = (Arc::clone(&session.context.gate), session.context.address);
    let Ok(wait) = gate.turn(address, counted_as) else {
        tracing::info!(peer = %session.context.peer, "a login was refused: too many failed ones before it");
        return Err(Failure::no("LIMIT", "Too many failed logins, try again later"));
    };
    tokio::time::sleep(wait).await;
    let store = Arc::clone(&session.context.store);
    let opened = match credentials.proof {
        Proof::Password(_) => store.login(name, proof).await,
        Proof::Token(_) => store.login_with_token(name, proof).await,
    };
    match opened {
        Ok(account) => {
            gate.succeeded(address, counted_as);
            let place = gate.enter_as(account.id());
            session.place = Some(place.map_err(|_| Failure::no("LIMIT", "The account has too many sessions"))?);
            let seat = session.context.roster.enter(
                Arc::clone(&account),
                session.context.peer.clone(),
                session.context.settings.tls,
                Arc::clone(&session.ending),
            );
            session.seat = Some(seat);
            // What others share is looked for when the session first asks.
            let memory = session.context.memory.clone();
            session.account = Some(Arc::new(Everything::new(account, memory)));
            session.failed_logins = 0;
            let capabilities = any::capabilities(session);
            Ok(Answer::ok("Logged in").with_code(format!("CAPABILITY {capabilities}")))
        }
        // A suspended account looks like any wrong login: the answer must not confirm a guess.
        Err(Error::BadCredentials | Error::Suspended | Error::NotFound(_) | Error::Invalid(_)) => {
            refused(session, counted_as).await
        }
        Err(error) => Err(error.into()),
    }
}

/// The answer to every wrong login, after a pause that doubles with each of this session.
async fn refused(session: &mut Session, name: &str) -> Result<Answer, Failure> {
    session.failed_logins += 1;
    session.context.gate.failed(session.context.address, name);
    tracing::info!(peer = %session.context.peer, failed = session.failed_logins, "a login failed");
    let doubled = limits::IMAP_LOGIN_PAUSE_FIRST_MS << (session.failed_logins - 1).min(16);
    tokio::time::sleep(Duration::from_millis(doubled.min(limits::IMAP_LOGIN_PAUSE_LARGEST_MS))).await;
    if session.failed_logins >= limits::IMAP_LOGIN_FAILURES_MAX {
        return Err(Failure::Bye("too many failed logins"));
    }
    Ok(Answer::no("AUTHENTICATIONFAILED", "Wrong login name or password"))
}
