//! `malle address`.

use std::process::ExitCode;

use clap::Subcommand;
use malle_client::{Client, Who, fresh_op_id};

use crate::account::{shown, table};
use crate::output::{self, Format};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Gives an account one more address.
    Add {
        /// Any address of the account.
        account: String,
        /// The new one.
        address: String,
        /// Make it the primary one; the old one stays as an alias.
        #[arg(long)]
        primary: bool,
    },
    /// Takes an address away; the primary one is refused.
    Remove {
        /// The address.
        address: String,
    },
    /// What happened to an account's addresses.
    History {
        /// Any address of the account.
        account: String,
    },
}

/// Carries the verb out.
///
/// # Errors
/// What the directory says.
pub async fn run(verb: Verb, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let directory = client.directory();
    match verb {
        Verb::Add {
            account,
            address,
            primary,
        } => {
            let account = directory.account_show(Who::Address(account)).await?.id;
            let account = directory.address_add(account, &address, primary, fresh_op_id()).await?;
            output::print(format, &shown(account, None), table)?;
        }
        Verb::Remove { address } => {
            let account = directory.account_show(Who::Address(address.clone())).await?.id;
            let account = directory.address_remove(account, &address, fresh_op_id()).await?;
            output::print(format, &shown(account, None), table)?;
        }
        Verb::History { account } => {
            let record = directory.account_show(Who::Address(account)).await?;
            let history = record.history.clone();
            output::print(format, &shown(record, None), |_| {
                output::table(
                    ["WHEN (MS SINCE 1970)", "ADDRESS", "EVENT"],
                    history
                        .into_iter()
                        .map(|row| [row.time_ms.to_string(), row.address, row.event]),
                )
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
