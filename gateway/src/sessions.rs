//! Sessions seen from outside: operators ask for them and end them ([`attend`]), and those whose login is over end by themselves ([`check`]).
//!
//! Both are tasks of the process that only know the roster and the client crate. Where malle does not answer, sessions go on as they are: the nodes
//! refuse what is over in any case.

use std::sync::Arc;
use std::time::Duration;

use malle_client::{Attendance, Client, Error, LoginProof, limits};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::imap::{Ending, Roster};

/// Pause before a node is attended again.
const ATTEND_PAUSE: Duration = Duration::from_secs(1);

/// Attends a node until the gateway stops: answers which sessions an account has here, and ends them when asked to.
pub async fn attend(client: Client, roster: Arc<Roster>, mut stop: watch::Receiver<bool>) {
    let forever = async {
        let mut told = false;
        loop {
            let error = match client.attend().await {
                Ok(attendance) => {
                    told = false;
                    answer(attendance, &roster).await
                }
                Err(error) => error,
            };
            // A node that stops sends everybody elsewhere: the first is no news, a series is told once.
            if !told {
                tracing::info!(%error, "no node is attended: operators do not see the sessions here");
                told = true;
            }
            sleep(ATTEND_PAUSE).await;
        }
    };
    tokio::select! {
        () = forever => {}
        () = stopped(&mut stop) => {}
    }
}

/// Answers until the stream ends, and says why it did.
async fn answer(mut attendance: Attendance, roster: &Roster) -> Error {
    loop {
        let question = match attendance.next().await {
            Ok(question) => question,
            Err(error) => return error,
        };
        let session = question.session.as_deref();
        let sessions = roster.sessions(question.account, session, question.end);
        if question.end {
            tracing::info!(account = %question.account, sessions = sessions.len(), "an operator ended sessions");
        }
        if let Err(error) = attendance.answer(&question, sessions).await {
            return error;
        }
    }
}

/// Ends, again and again until the gateway stops, the sessions whose login is over.
pub async fn check(client: Client, roster: Arc<Roster>, mut stop: watch::Receiver<bool>) {
    let forever = async {
        loop {
            sleep(Duration::from_millis(limits::LOGIN_CHECK_MS)).await;
            let logins = roster.logins();
            for some in logins.chunks(limits::LOGINS_PER_CHECK_MAX) {
                if let Err(error) = end_those_that_are_over(&client, some).await {
                    tracing::warn!(%error, "logins could not be checked; again soon");
                    break;
                }
            }
        }
    };
    tokio::select! {
        () = forever => {}
        () = stopped(&mut stop) => {}
    }
}

async fn end_those_that_are_over(client: &Client, some: &[(LoginProof, Arc<Ending>)]) -> Result<(), Error> {
    let proofs: Vec<LoginProof> = some.iter().map(|(proof, _)| proof.clone()).collect();
    let over = client.logins_over(&proofs).await?;
    if !over.is_empty() {
        tracing::info!(
            sessions = over.len(),
            "sessions end: what opened them was taken back or has run out"
        );
    }
    for (_, ending) in over.iter().filter_map(|&place| some.get(place)) {
        ending.end("what opened this session was taken back or has run out, log in again");
    }
    Ok(())
}

/// Waits until the process stops; for ever when nobody is left to say so.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
