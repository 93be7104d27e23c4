//! Commands of every state (RFC 3501 6.1, RFC 2971).

use super::super::respond::{APPEND_LIMIT_BYTES, Answer, Failure};
use super::super::session::Session;

/// What works, always. A name stands here only when all of its RFC does.
const CAPABILITIES: &str = "IMAP4rev1 IMAP4rev2 LITERAL+ SASL-IR ID ENABLE IDLE NAMESPACE CHILDREN SPECIAL-USE CREATE-SPECIAL-USE \
                            LIST-EXTENDED LIST-STATUS LIST-MYRIGHTS ACL RIGHTS=texk STATUS=SIZE UIDPLUS MULTIAPPEND REPLACE MOVE UNSELECT BINARY CONDSTORE QRESYNC OBJECTID SAVEDATE WITHIN \
                            ESEARCH SEARCHRES PARTIAL SORT SORT=DISPLAY ESORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES \
                            INPROGRESS NOTIFY PREVIEW UTF8=ACCEPT METADATA QUOTA QUOTA=RES-STORAGE";

/// The capabilities of this session now.
pub(in super::super) fn capabilities(session: &Session) -> String {
    let settings = session.context.settings;
    let mut capabilities = format!("{CAPABILITIES} APPENDLIMIT={APPEND_LIMIT_BYTES}");
    if session.account.is_some() {
        if !session.compressed {
            capabilities.push_str(" COMPRESS=DEFLATE");
        }
        return capabilities;
    }
    if settings.starttls_offered && !settings.tls {
        capabilities.push_str(" STARTTLS");
    }
    capabilities.push_str(match (settings.login_allowed(), settings.access_tokens) {
        (true, true) => " AUTH=PLAIN AUTH=OAUTHBEARER AUTH=XOAUTH2",
        (true, false) => " AUTH=PLAIN",
        (false, _) => " LOGINDISABLED",
    });
    capabilities
}

pub(super) fn capability(session: &mut Session) -> Answer {
    let capabilities = capabilities(session);
    session
        .connection
        .output
        .untagged(format_args!("CAPABILITY {capabilities}"));
    Answer::ok("These work")
}

/// Tells who we are, but not which version: that helps attackers more than users (RFC 2971 4).
pub(super) fn id(session: &mut Session) -> Answer {
    session
        .connection
        .output
        .untagged(format_args!("ID (\"name\" \"malle\")"));
    Answer::ok("Pleased to meet you")
}

/// RFC 4978 3. The stream is changed once the answer is sent.
pub(super) fn compress(session: &mut Session) -> Result<Answer, Failure> {
    if session.compressed {
        return Err(Failure::no("COMPRESSIONACTIVE", "DEFLATE is active already"));
    }
    if session.connection.has_input() {
        return Err(Failure::Bye("no command may follow COMPRESS before its answer"));
    }
    session.compressed = true;
    Ok(Answer::ok("DEFLATE is active"))
}

pub(super) fn logout(session: &mut Session) -> Answer {
    session.connection.output.untagged(format_args!("BYE Until next time"));
    Answer::ok("Logged out")
}
