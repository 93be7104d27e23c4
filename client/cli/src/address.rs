//! `malle address`: which addresses lead to an account, now and before.

use clap::Subcommand;
use malle_client::{AddressEvent, fresh_op_id};
use serde::Serialize;

use crate::context::Global;
use crate::exit::Exit;
use crate::{account, output};

/// `malle address ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Gives an account one more address.
    Add {
        /// An address that it has, or its id.
        account: String,
        /// The new one.
        address: String,
        /// Make it the one that the account shows; the old one stays.
        #[arg(long)]
        primary: bool,
    },
    /// Takes an address from its account; the account keeps its mail.
    Remove {
        /// The address.
        address: String,
    },
    /// What happened to an account's addresses.
    History {
        /// An address that it has, or its id.
        account: String,
    },
}

#[derive(Debug, Serialize)]
pub struct History {
    account: String,
    events: Vec<Event>,
}

#[derive(Debug, Serialize)]
struct Event {
    time_ms: u64,
    address: String,
    event: String,
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let client = global.connect().await?;
    let record = match verb {
        Verb::Add {
            account,
            address,
            primary,
        } => {
            let id = account::find(&client, &account).await?.id;
            client
                .directory()
                .address_add(id, &address, primary, fresh_op_id())
                .await?
        }
        Verb::Remove { address } => {
            let id = account::find(&client, &address).await?.id;
            client.directory().address_remove(id, &address, fresh_op_id()).await?
        }
        Verb::History { account } => {
            let record = account::find(&client, &account).await?;
            output::print(global.output, &history(record.id.to_string(), record.history), text)?;
            return Ok(Exit::Done);
        }
    };
    output::print(global.output, &account::shown(record, None), account::text)?;
    Ok(Exit::Done)
}

/// A history as it is printed.
pub fn history(account: String, events: Vec<AddressEvent>) -> History {
    let event = |event: AddressEvent| Event {
        time_ms: event.time_ms,
        address: event.address,
        event: event.event,
    };
    History {
        account,
        events: events.into_iter().map(event).collect(),
    }
}

/// The same for people.
pub fn text(history: &History) -> String {
    let row = |event: &Event| [output::time(event.time_ms), event.event.clone(), event.address.clone()];
    output::table(["TIME", "EVENT", "ADDRESS"], history.events.iter().map(row))
}
