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
use super::super::respond::{Answer, Failure};
use super::super::session::Session;
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
    log_in(session, name, &password.0).await
}

/// RFC 3501 6.2.2 with PLAIN (RFC 4616) and the initial response of RFC 4959.
pub(super) async fn authenticate(
    session: &mut Session,
    mechanism: &str,
    initial: Option<Password>,
) -> Result<Answer, Failure> {
    if mechanism != "PLAIN" {
        return Err(Failure::no("CANNOT", "Only AUTHENTICATE PLAIN is known here"));
    }
    require_privacy(session)?;
    let response = match initial {
        Some(Password(initial)) if initial == b"=" => Vec::new(),
        Some(Password(initial)) => initial,
        None => {
            session.connection.output.raw(b"+ \r\n");
            session.connection.flush().await?;
            let deadline = Instant::now() + session.bounds().idle();
            session.connection.read_line(deadline).await.map_err(line_failure)?
        }
    };
    if response == b"*" {
        return Err(Failure::bad("AUTHENTICATE was cancelled"));
    }
    let plain = STANDARD
        .decode(&response)
        .map_err(|_| Failure::bad("The response is not base64"))?;
    let parts: Vec<&[u8]> = plain.split(|&byte| byte == 0).collect();
    let [authorize_as, name, password] = parts.as_slice() else {
        return Err(Failure::bad(
            "PLAIN wants authorization, name and password with NUL between them",
        ));
    };
    // Nobody may act for another one through this door.
    if !authorize_as.is_empty() && authorize_as != name {
        return refused(session, "").await;
    }
    log_in(session, name, password).await
}

/// What reading a bare line can end in.
pub(super) fn line_failure(error: FrameError) -> Failure {
    match error {
        FrameError::Gone(gone) => Failure::Gone(gone),
        FrameError::Lost(reason) => Failure::Bye(reason),
        FrameError::LiteralRefused { .. } | FrameError::LiteralTooLarge { .. } | FrameError::NoMemory { .. } => {
            Failure::Bye("no literal may stand here")
        }
    }
}

fn require_privacy(session: &Session) -> Result<(), Failure> {
    if session.context.settings.login_allowed() {
        return Ok(());
    }
    Err(Failure::no("PRIVACYREQUIRED", "Use TLS before you send a password"))
}

async fn log_in(session: &mut Session, name: &[u8], password: &[u8]) -> Result<Answer, Failure> {
    let bounded = name.len() <= limits::ADDRESS_MAX_BYTES && password.len() <= limits::PASSWORD_MAX_BYTES;
    let (Ok(name), Ok(password), true) = (std::str::from_utf8(name), std::str::from_utf8(password), bounded) else {
        return refused(session, "").await;
    };
    let (gate, address) = (Arc::clone(&session.context.gate), session.context.address);
    let Ok(wait) = gate.turn(address, name) else {
        tracing::info!(peer = %session.context.peer, "a login was refused: too many failed ones before it");
        return Err(Failure::no("LIMIT", "Too many failed logins, try again later"));
    };
    tokio::time::sleep(wait).await;
    match session.context.store.login(name, password).await {
        Ok(account) => {
            gate.succeeded(address, name);
            let place = gate.enter_as(account.id());
            session.place = Some(place.map_err(|_| Failure::no("LIMIT", "The account has too many sessions"))?);
            session.account = Some(account);
            session.failed_logins = 0;
            let capabilities = any::capabilities(session);
            Ok(Answer::ok("Logged in").with_code(format!("CAPABILITY {capabilities}")))
        }
        // A suspended account looks like any wrong login: the answer must not confirm a guess.
        Err(Error::BadCredentials | Error::Suspended | Error::NotFound(_) | Error::Invalid(_)) => {
            refused(session, name).await
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
