//! What the exit code tells a script, and what the next step is for a person.

use malle_client::Error;

use crate::layout::Sure;

/// Shown below every help text.
pub const HELP: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 nobody answers or no leader, \
                        4 degraded (cluster status) or not all could be asked (session), 5 refused by a safety check, 6 not found.";

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Failed for a reason without a code of its own.
    Failed = 1,
    /// The command line, the context file or the certificates make no sense. clap ends with the same code.
    Usage = 2,
    /// No node answers, or a group has no leader.
    Unreachable = 3,
    /// `cluster status`: it works, and something is not as it should be. `session`: not every gateway could be asked.
    Degraded = 4,
    /// What was asked for would put data at risk.
    Refused = 5,
    /// No such account, address, node or shard.
    NotFound = 6,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit as u8)
    }
}

/// The command line or the context lacks something.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// A safety check says no.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// For verbs that move data or give a node up: done with --yes only, and there is nobody to ask in a script.
///
/// # Errors
/// [`Usage`] without it.
pub fn confirmed(sure: Sure, what: &str) -> Result<(), Usage> {
    if sure.yes || sure.dry_run {
        return Ok(());
    }
    Err(Usage(format!("{what}: look at it with --dry-run, then give --yes")))
}

/// For verbs that change the machines: what the cluster refuses there, it refuses for safety.
pub fn guarded(error: Error) -> anyhow::Error {
    match error {
        Error::Invalid(text) | Error::Exists(text) => Refusal(text).into(),
        other => other.into(),
    }
}

impl Exit {
    /// The code for an error.
    pub fn of(error: &anyhow::Error) -> Exit {
        if error.downcast_ref::<Usage>().is_some() {
            return Exit::Usage;
        }
        if error.downcast_ref::<Refusal>().is_some() {
            return Exit::Refused;
        }
        match error.downcast_ref::<Error>() {
            Some(Error::Unavailable(_) | Error::Busy(_) | Error::DiskFull(_) | Error::AccountNotReady) => {
                Exit::Unreachable
            }
            Some(Error::NotFound(_)) => Exit::NotFound,
            Some(Error::Config(_)) => Exit::Usage,
            _ => Exit::Failed,
        }
    }
}

/// Says what to do next, where that is known.
pub fn advise(error: &anyhow::Error) {
    let advice = match error.downcast_ref::<Error>() {
        Some(Error::Unavailable(_)) => {
            "Are the nodes running, and are these their addresses? `malle cluster status` shows who answers; \
             a new cluster has to be made once with `malle cluster init`."
        }
        Some(Error::Busy(_)) => "The cluster has more to do than it takes at once: try again in a while.",
        Some(Error::DiskFull(_)) => {
            "Disks are full: `malle cluster status` shows which nodes; docs/operations/disk-full.md says what to do."
        }
        Some(Error::NotFound(_)) => "Look it up with `malle account show`, `malle node list` or `malle shard list`.",
        Some(Error::Denied(_)) => {
            "This needs an operator's certificate of the cluster: make one with `malle cert operator NAME --ca-dir DIR`."
        }
        Some(Error::Config(_)) => "Check --ca, --cert and --key, or the context file that names them.",
        Some(Error::Internal(_) | Error::Corrupt(_)) => {
            "The nodes' logs say more; `malle cluster status` shows which node."
        }
        _ => return,
    };
    anstream::eprintln!("{advice}");
}
