//! `malle app-password`: passwords for single programs, beside an account's own.

use clap::{Subcommand, ValueEnum};
use malle_client::{AppPassword, fresh_op_id};
use serde::Serialize;

use crate::context::Global;
use crate::exit::Exit;
use crate::{account, output, password};

/// `malle app-password ...`
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Makes one, which is printed once.
    Add {
        /// An address of the account, or its id.
        account: String,
        /// What to call it: the program that gets it.
        name: String,
        /// What it is good for.
        #[arg(long = "for", value_enum, default_value = "both")]
        purpose: Purpose,
    },
    /// Takes one back: it logs nobody in from now on, and what it opened is closed within a minute.
    Remove {
        /// An address of the account, or its id.
        account: String,
        /// Which.
        name: String,
    },
    /// Those that an account has.
    List {
        /// An address of the account, or its id.
        account: String,
    },
}

/// What an application password is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// Reading mail.
    Imap,
    /// Sending mail.
    Submission,
    /// Both.
    Both,
}

#[derive(Debug, Serialize)]
struct Shown {
    app_passwords: Vec<ShownOne>,
    /// Only when it was made just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<String>,
}

#[derive(Debug, Serialize)]
struct ShownOne {
    name: String,
    imap: bool,
    submission: bool,
    created_ms: u64,
}

/// Runs a verb.
///
/// # Errors
/// What the cluster says.
pub async fn run(global: &Global, verb: Verb) -> anyhow::Result<Exit> {
    let client = global.connect().await?;
    let directory = client.directory();
    let (passwords, made) = match verb {
        Verb::Add { account, name, purpose } => {
            let id = account::find(&client, &account).await?.id;
            let wanted = AppPassword {
                name,
                mail: purpose != Purpose::Submission,
                submission: purpose != Purpose::Imap,
                created_ms: 0,
            };
            let secret = in_groups(&password::made());
            let passwords = directory.app_password_add(id, wanted, &secret, fresh_op_id()).await?;
            (passwords, Some(secret))
        }
        Verb::Remove { account, name } => {
            let id = account::find(&client, &account).await?.id;
            (directory.app_password_remove(id, &name, fresh_op_id()).await?, None)
        }
        Verb::List { account } => {
            let id = account::find(&client, &account).await?.id;
            (directory.app_passwords(id).await?, None)
        }
    };
    output::print(global.output, &shown(passwords, made), text)?;
    Ok(Exit::Done)
}

/// Five letters at a time, as people copy them.
fn in_groups(secret: &str) -> String {
    let letters: Vec<char> = secret.chars().collect();
    let groups: Vec<String> = letters.chunks(5).map(|group| group.iter().collect()).collect();
    groups.join("-")
}

fn shown(passwords: Vec<AppPassword>, password: Option<String>) -> Shown {
    let one = |one: AppPassword| ShownOne {
        name: one.name,
        imap: one.mail,
        submission: one.submission,
        created_ms: one.created_ms,
    };
    Shown {
        app_passwords: passwords.into_iter().map(one).collect(),
        password,
    }
}

fn text(shown: &Shown) -> String {
    let mut rows = Vec::new();
    for one in &shown.app_passwords {
        let purpose = match (one.imap, one.submission) {
            (true, true) => "reading and sending",
            (true, false) => "reading",
            _ => "sending",
        };
        rows.push((
            "app password",
            format!("{}, for {purpose} (since {})", one.name, output::time(one.created_ms)),
        ));
    }
    if let Some(password) = &shown.password {
        rows.push(("password", format!("{password} (shown this once)")));
    }
    output::pairs(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_shown_in_groups() {
        assert_eq!(in_groups("abcdefghijkmnpqrstuv"), "abcde-fghij-kmnpq-rstuv");
    }
}
