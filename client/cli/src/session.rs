//! `malle session`: which sessions of mail programs an account has, and ending them.

use clap::Subcommand;
use malle_client::SessionsSeen;
use serde::Serialize;

use crate::context::Global;
use crate::exit::Exit;
use crate::{account, output};

/// `malle session ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The sessions that an account has now, at all gateways.
    List {
        /// An address of the account, or its id.
        account: String,
    },
    /// Ends sessions of an account. A mail program may log in again at once: to keep it out, take back its password, or suspend the account.
    Kick {
        /// An address of the account, or its id.
        account: String,
        /// Only this one, by its id.
        #[arg(long, value_name = "ID")]
        session: Option<String>,
    },
}

#[derive(Debug, Serialize)]
struct Shown {
    sessions: Vec<Row>,
    /// Gateways that did not answer: they may have more.
    silent_gateways: Vec<String>,
    /// Nodes that did not answer: gateways behind them were not asked.
    silent_nodes: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct Row {
    id: String,
    gateway: String,
    protocol: String,
    peer: String,
    tls: bool,
    opened_by: String,
    open_ms: u64,
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let client = global.connect().await?;
    let (account, seen) = match &verb {
        Verb::List { account } => {
            let id = account::find(&client, account).await?.id;
            (account, client.sessions().show(id).await?)
        }
        Verb::Kick { account, session } => {
            let id = account::find(&client, account).await?.id;
            (account, client.sessions().end(id, session.as_deref()).await?)
        }
    };
    let shown = shown(seen);
    output::print(global.output, &shown, text)?;
    let missing = shown.silent_gateways.len() + shown.silent_nodes.len();
    if missing > 0 {
        anstream::eprintln!("not all could be asked: {account} may have more sessions");
        return Ok(Exit::Degraded);
    }
    let named = matches!(&verb, Verb::Kick { session: Some(_), .. });
    Ok(if named && shown.sessions.is_empty() {
        Exit::NotFound
    } else {
        Exit::Done
    })
}

fn shown(seen: SessionsSeen) -> Shown {
    let mut shown = Shown {
        sessions: Vec::new(),
        silent_gateways: Vec::new(),
        silent_nodes: seen.silent_nodes.iter().map(|node| node.0).collect(),
    };
    for gateway in seen.gateways {
        let Some(sessions) = gateway.sessions else {
            shown.silent_gateways.push(gateway.gateway);
            continue;
        };
        shown.sessions.extend(sessions.into_iter().map(|session| Row {
            id: session.id,
            gateway: gateway.gateway.clone(),
            protocol: session.protocol,
            peer: session.peer,
            tls: session.tls,
            opened_by: session.opened_by,
            open_ms: session.open_ms,
        }));
    }
    shown
}

fn text(shown: &Shown) -> String {
    let mut text = output::table(
        ["ID", "GATEWAY", "PROTOCOL", "FROM", "OPEN FOR", "OPENED BY"],
        shown.sessions.iter().map(|row| {
            let protocol = if row.tls {
                format!("{} in TLS", row.protocol)
            } else {
                row.protocol.clone()
            };
            [
                row.id.clone(),
                row.gateway.clone(),
                protocol,
                row.peer.clone(),
                output::span(row.open_ms),
                row.opened_by.clone(),
            ]
        }),
    );
    for gateway in &shown.silent_gateways {
        text.push_str(&format!("\ngateway {gateway} did not answer"));
    }
    for node in &shown.silent_nodes {
        text.push_str(&format!("\nnode {node} did not answer"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use malle_client::{GatewaySessions, MailSession, NodeId};

    #[test]
    fn what_did_not_answer_is_told() {
        let session = MailSession {
            id: "5f00".into(),
            protocol: "imap".into(),
            peer: "192.0.2.1:4000".into(),
            tls: true,
            opened_by: "application password phone".into(),
            open_ms: 61_000,
        };
        let seen = SessionsSeen {
            gateways: vec![
                GatewaySessions {
                    gateway: "front".into(),
                    sessions: Some(vec![session]),
                },
                GatewaySessions {
                    gateway: "side".into(),
                    sessions: None,
                },
            ],
            silent_nodes: vec![NodeId(3)],
        };
        assert_eq!(
            text(&shown(seen)),
            "ID    GATEWAY  PROTOCOL     FROM            OPEN FOR  OPENED BY\n\
             5f00  front    imap in TLS  192.0.2.1:4000  1m 1s     application password phone\n\
             gateway side did not answer\n\
             node 3 did not answer"
        );
    }
}
