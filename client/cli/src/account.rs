//! `malle account`: accounts, by any of their addresses or by their id.

use anyhow::Context as _;
use clap::Subcommand;
use malle_client::{
    AccountChange, AccountId, AccountRecord, Client, NewAccount, NodeId, ShardId, Topology, Who, fresh_op_id,
};
use serde::Serialize;

use crate::context::Global;
use crate::exit::{Exit, Usage};
use crate::output;
use crate::password::{self, PasswordSource};

/// `malle account ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes an account. Without a password from you it gets one, which is printed once.
    Create {
        /// Its primary address.
        address: String,
        #[command(flatten)]
        password: PasswordSource,
        /// Make it without a password: it cannot log in until it has one.
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        no_password: bool,
        /// Bytes it may hold: 500M, 20G; the cluster's default else.
        #[arg(long, value_parser = quota)]
        quota: Option<u64>,
        /// Put it on this shard.
        #[arg(long)]
        shard: Option<u32>,
        /// Put it on a shard that is at home in this region.
        #[arg(long)]
        region: Option<String>,
    },
    /// Shows an account.
    Show {
        /// An address of it, or its id.
        account: String,
    },
    /// Says where an account lives.
    Locate {
        /// An address of it, or its id.
        account: String,
    },
    /// Changes an account.
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true)
        .args(["password_file", "password_stdin", "new_password", "quota", "suspend", "resume"]))]
    Set {
        /// An address of it, or its id.
        account: String,
        #[command(flatten)]
        password: PasswordSource,
        /// Give it a new password, which is printed once.
        #[arg(long, conflicts_with_all = ["password_file", "password_stdin"])]
        new_password: bool,
        /// Bytes it may hold: 500M, 20G.
        #[arg(long, value_parser = quota)]
        quota: Option<u64>,
        /// Refuse logins and mail.
        #[arg(long, conflicts_with = "resume")]
        suspend: bool,
        /// Take it up again.
        #[arg(long)]
        resume: bool,
    },
}

/// An account as it is printed.
#[derive(Debug, Serialize)]
pub struct Shown {
    id: String,
    shard: u32,
    state: &'static str,
    quota_bytes: u64,
    created_ms: u64,
    has_password: bool,
    addresses: Vec<ShownAddress>,
    /// Only when it was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownAddress {
    address: String,
    primary: bool,
    since_ms: u64,
}

#[derive(Debug, Serialize)]
struct Location {
    id: String,
    shard: u32,
    home_region: String,
    leader: Option<u64>,
    replicas: Vec<Replica>,
}

#[derive(Debug, Serialize)]
struct Replica {
    node: u64,
    region: String,
    address: String,
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    match verb {
        Verb::Create {
            address,
            password,
            no_password,
            quota,
            shard,
            region,
        } => {
            let given = password.read()?;
            let made = (given.is_none() && !no_password).then(password::made);
            let new = NewAccount {
                address,
                password: given.or_else(|| made.clone()),
                quota_bytes: quota,
                shard: shard.map(ShardId),
                region,
            };
            let record = global
                .connect()
                .await?
                .directory()
                .account_create(new, fresh_op_id())
                .await?;
            show(global, record, made)
        }
        Verb::Show { account } => {
            let record = find(&global.connect().await?, &account).await?;
            show(global, record, None)
        }
        Verb::Locate { account } => {
            let client = global.connect().await?;
            let record = find(&client, &account).await?;
            let location = location(&record, &client.directory().topology().await?);
            output::print(global.output, &location, location_text)?;
            Ok(Exit::Done)
        }
        Verb::Set {
            account,
            password,
            new_password,
            quota,
            suspend,
            resume,
        } => {
            let given = password.read()?;
            let made = new_password.then(password::made);
            let change = AccountChange {
                password: given.or_else(|| made.clone()),
                suspended: (suspend || resume).then_some(suspend),
                quota_bytes: quota,
            };
            let client = global.connect().await?;
            let id = find(&client, &account).await?.id;
            let record = client.directory().account_set(id, change, fresh_op_id()).await?;
            show(global, record, made)
        }
    }
}

/// The account that an operator names.
///
/// # Errors
/// [`malle_client::Error::NotFound`].
pub async fn find(client: &Client, named: &str) -> anyhow::Result<AccountRecord> {
    Ok(client.directory().account_show(who(named)).await?)
}

/// 32 hexadecimal digits are an id; whatever has an '@' is an address, and so is anything else.
fn who(named: &str) -> Who {
    match named.parse::<AccountId>() {
        Ok(id) => Who::Account(id),
        Err(_) => Who::Address(named.to_owned()),
    }
}

fn show(global: &Global, record: AccountRecord, password: Option<String>) -> anyhow::Result<Exit> {
    output::print(global.output, &shown(record, password), text)?;
    Ok(Exit::Done)
}

/// An account as it is printed.
pub fn shown(record: AccountRecord, password: Option<String>) -> Shown {
    let address = |address: malle_client::AddressRecord| ShownAddress {
        address: address.address,
        primary: address.primary,
        since_ms: address.since_ms,
    };
    Shown {
        id: record.id.to_string(),
        shard: record.shard.0,
        state: if record.suspended { "suspended" } else { "active" },
        quota_bytes: record.quota_bytes,
        created_ms: record.created_ms,
        has_password: record.has_password,
        addresses: record.addresses.into_iter().map(address).collect(),
        password,
    }
}

/// The same for people.
pub fn text(shown: &Shown) -> String {
    let mut rows = vec![("account", shown.id.clone())];
    for address in &shown.addresses {
        let name = if address.primary { "primary address" } else { "address" };
        rows.push((
            name,
            format!("{} (since {})", address.address, output::time(address.since_ms)),
        ));
    }
    rows.push(("state", shown.state.to_owned()));
    rows.push(("shard", shown.shard.to_string()));
    rows.push(("quota", output::size(shown.quota_bytes)));
    rows.push(("created", output::time(shown.created_ms)));
    match &shown.password {
        Some(password) => rows.push(("password", format!("{password} (shown this once)"))),
        None if !shown.has_password => rows.push(("password", "none: it cannot log in".to_owned())),
        None => {}
    }
    output::pairs(rows)
}

fn location(record: &AccountRecord, topology: &Topology) -> Location {
    let shard = topology.shards.iter().find(|shard| shard.id == record.shard);
    let replica = |id: &NodeId| {
        let node = topology.nodes.iter().find(|node| node.id == *id);
        Replica {
            node: id.0,
            region: node.map(|node| node.region.clone()).unwrap_or_default(),
            address: node.map(|node| node.client_address.clone()).unwrap_or_default(),
        }
    };
    Location {
        id: record.id.to_string(),
        shard: record.shard.0,
        home_region: shard.map(|shard| shard.home_region.clone()).unwrap_or_default(),
        leader: shard.and_then(|shard| shard.leader).map(|leader| leader.0),
        replicas: shard
            .map(|shard| shard.replicas.iter().map(replica).collect())
            .unwrap_or_default(),
    }
}

fn location_text(location: &Location) -> String {
    let mut rows = vec![
        ("account", location.id.clone()),
        ("shard", location.shard.to_string()),
        ("home region", location.home_region.clone()),
    ];
    for replica in &location.replicas {
        let leads = if location.leader == Some(replica.node) {
            ", leads"
        } else {
            ""
        };
        rows.push((
            "replica",
            format!("node {} ({}, {}{leads})", replica.node, replica.region, replica.address),
        ));
    }
    output::pairs(rows)
}

/// `500M`, `20G`, or plain bytes.
pub fn quota(text: &str) -> Result<u64, String> {
    let parse = || -> anyhow::Result<u64> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let shift = match unit {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            _ => return Err(Usage("unknown unit".to_owned()).into()),
        };
        let bytes = number.parse::<u64>()?.checked_mul(1 << shift).context("too large")?;
        // 0 means "the default" to the cluster: nobody asks for that with a figure.
        if bytes == 0 {
            Err(Usage("nothing fits into 0 bytes".to_owned()).into())
        } else {
            Ok(bytes)
        }
    };
    parse().map_err(|error| format!("{error}; a quota looks like 500M or 20G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_and_an_address_are_told_apart() {
        assert_eq!(who(&"0a".repeat(16)), Who::Account(AccountId([10; 16])));
        assert_eq!(who("u1@example.org"), Who::Address("u1@example.org".into()));
    }

    #[test]
    fn quotas_have_units() {
        assert_eq!(quota("20G"), Ok(20 << 30));
        assert_eq!(quota("1000"), Ok(1000));
        for bad in ["", "G", "20X", "0", "99999999999T"] {
            assert!(quota(bad).is_err(), "{bad}");
        }
    }
}
