//! `malle account`.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use malle_client::{AccountChange, AccountRecord, Client, NewAccount, ShardId, Who, fresh_op_id};
use serde::Serialize;

use crate::output::{self, Format};

/// Letters of a generated password: none that is mistaken for another.
const LETTERS: &[u8] = b"abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
/// 56 letters, 20 of them: 116 bits.
const PASSWORD_LETTERS: usize = 20;

/// Where a password comes from; never from the command line, which everybody on the machine can read.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct Password {
    /// The first line of this file.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The first line of standard input.
    #[arg(long)]
    password_stdin: bool,
    /// None: nobody can log in until one is set.
    #[arg(long)]
    no_password: bool,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes an account. Without a password it generates one and prints it, once.
    Create {
        /// Its first address.
        address: String,
        #[command(flatten)]
        password: Password,
        /// Bytes it may hold; 20 GiB by default.
        #[arg(long, value_name = "BYTES")]
        quota: Option<u64>,
        /// In this shard; in the one with the fewest accounts by default.
        #[arg(long)]
        shard: Option<u32>,
        /// In a shard of this region.
        #[arg(long)]
        region: Option<String>,
    },
    /// An account with its addresses and their history.
    Show {
        /// Any of its addresses.
        address: String,
    },
    /// Which shard, and which nodes, hold an account.
    Locate {
        /// Any of its addresses.
        address: String,
    },
    /// Changes an account.
    Set {
        /// Any of its addresses.
        address: String,
        /// The first line of this file becomes the password.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// No logins and no mail until resumed.
        #[arg(long, conflicts_with = "resume")]
        suspend: bool,
        /// Ends a suspension.
        #[arg(long)]
        resume: bool,
        /// Bytes it may hold.
        #[arg(long, value_name = "BYTES")]
        quota: Option<u64>,
    },
}

/// An account for printing.
#[derive(Debug, Serialize)]
pub struct Shown {
    id: String,
    addresses: Vec<String>,
    state: &'static str,
    shard: u32,
    quota_bytes: u64,
    has_password: bool,
    history: Vec<Event>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

#[derive(Debug, Serialize)]
struct Event {
    time_ms: u64,
    address: String,
    event: String,
}

#[derive(Debug, Serialize)]
struct Located {
    id: String,
    shard: u32,
    home_region: String,
    leader: Option<u64>,
    replicas: Vec<u64>,
}

/// An account for printing; `password` only when it was generated just now.
pub fn shown(account: AccountRecord, password: Option<String>) -> Shown {
    Shown {
        id: account.id.to_string(),
        addresses: account.addresses.into_iter().map(|row| row.address).collect(),
        state: if account.suspended { "suspended" } else { "active" },
        shard: account.shard.0,
        quota_bytes: account.quota_bytes,
        has_password: account.has_password,
        history: account
            .history
            .into_iter()
            .map(|row| Event {
                time_ms: row.time_ms,
                address: row.address,
                event: row.event,
            })
            .collect(),
        password,
    }
}

fn first_line(text: &str) -> anyhow::Result<String> {
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => bail!("the password is empty"),
    }
}

fn read_password(path: &PathBuf) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    first_line(&text)
}

/// A password that nobody chose.
pub fn generate_password() -> String {
    let mut letters = String::with_capacity(PASSWORD_LETTERS);
    while letters.len() < PASSWORD_LETTERS {
        let byte: u8 = rand::random();
        // Without the remainder of 256 every letter is as likely as another.
        let fair = usize::from(byte) < 256 - 256 % LETTERS.len();
        if fair {
            letters.push(char::from(LETTERS[usize::from(byte) % LETTERS.len()]));
        }
    }
    letters
}

impl Password {
    /// The password, and whether it was generated.
    fn take(self) -> anyhow::Result<(Option<String>, bool)> {
        if self.no_password {
            return Ok((None, false));
        }
        if let Some(path) = &self.password_file {
            return Ok((Some(read_password(path)?), false));
        }
        if self.password_stdin {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .context("cannot read the password")?;
            return Ok((Some(first_line(&text)?), false));
        }
        Ok((Some(generate_password()), true))
    }
}

/// Carries the verb out.
///
/// # Errors
/// What the directory says.
pub async fn run(verb: Verb, client: &Client, format: Format) -> anyhow::Result<ExitCode> {
    let directory = client.directory();
    match verb {
        Verb::Create {
            address,
            password,
            quota,
            shard,
            region,
        } => {
            let (password, generated) = password.take()?;
            let new = NewAccount {
                address,
                password: password.clone(),
                quota_bytes: quota,
                shard: shard.map(ShardId),
                region,
            };
            let account = directory.account_create(new, fresh_op_id()).await?;
            output::print(format, &shown(account, password.filter(|_| generated)), table)?;
        }
        Verb::Show { address } => {
            let account = directory.account_show(Who::Address(address)).await?;
            output::print(format, &shown(account, None), table)?;
        }
        Verb::Locate { address } => {
            let account = directory.account_show(Who::Address(address)).await?;
            let topology = directory.topology().await?;
            let Some(shard) = topology.shards.iter().find(|shard| shard.id == account.shard) else {
                bail!("the directory has no shard {}", account.shard);
            };
            let located = Located {
                id: account.id.to_string(),
                shard: shard.id.0,
                home_region: shard.home_region.clone(),
                leader: shard.leader.map(|node| node.0),
                replicas: shard.replicas.iter().map(|node| node.0).collect(),
            };
            output::print(format, &located, located_table)?;
        }
        Verb::Set {
            address,
            password_file,
            suspend,
            resume,
            quota,
        } => {
            let account = directory.account_show(Who::Address(address)).await?.id;
            let change = AccountChange {
                password: password_file.as_ref().map(read_password).transpose()?,
                suspended: (suspend || resume).then_some(suspend),
                quota_bytes: quota,
            };
            let account = directory.account_set(account, change, fresh_op_id()).await?;
            output::print(format, &shown(account, None), table)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An account as lines.
pub fn table(account: &Shown) -> String {
    let mut rows = vec![
        ["account".to_owned(), account.id.clone()],
        ["state".to_owned(), account.state.to_owned()],
        ["shard".to_owned(), account.shard.to_string()],
        ["quota".to_owned(), output::bytes(account.quota_bytes)],
    ];
    for (place, address) in account.addresses.iter().enumerate() {
        rows.push([if place == 0 { "address" } else { "alias" }.to_owned(), address.clone()]);
    }
    match &account.password {
        Some(password) => rows.push(["password".to_owned(), format!("{password} (shown only now)")]),
        None if !account.has_password => rows.push(["password".to_owned(), "none: nobody can log in".to_owned()]),
        None => {}
    }
    output::table(["", ""], rows)
        .lines()
        .skip(1)
        .map(|line| line.to_owned() + "\n")
        .collect()
}

fn located_table(located: &Located) -> String {
    let replicas: Vec<String> = located.replicas.iter().map(ToString::to_string).collect();
    output::table(
        ["ACCOUNT", "SHARD", "HOME", "LEADER", "REPLICAS"],
        [[
            located.id.clone(),
            located.shard.to_string(),
            located.home_region.clone(),
            located.leader.map_or("none".to_owned(), |leader| leader.to_string()),
            replicas.join(" "),
        ]],
    )
}

#[cfg(test)]
mod tests {
    use super::{PASSWORD_LETTERS, first_line, generate_password};

    #[test]
    fn generated_passwords_are_long_and_never_the_same() {
        let (a, b) = (generate_password(), generate_password());
        assert_eq!(a.len(), PASSWORD_LETTERS);
        assert_ne!(a, b);
    }

    #[test]
    fn a_password_is_the_first_line_and_not_empty() {
        assert_eq!(first_line("pass word \nrest").unwrap(), "pass word ");
        assert!(first_line("\nx").is_err());
        assert!(first_line("").is_err());
    }
}
