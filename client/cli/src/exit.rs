//! How a command ends, for scripts: the exit codes, and errors that say what to do next.

use std::process::ExitCode;

use malle_client::Error;

/// Something failed.
pub const FAILED: u8 = 1;
// 2 is clap's: the command line makes no sense.
/// No node, or no leader, answered.
pub const UNREACHABLE: u8 = 3;
/// It works, but not all of it.
pub const DEGRADED: u8 = 4;
/// A safety check said no.
pub const REFUSED: u8 = 5;
/// There is no such thing.
pub const NOT_FOUND: u8 = 6;

/// The code of an error.
fn code(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<Error>() {
        Some(Error::Unavailable(_) | Error::Busy(_) | Error::AccountNotReady) => UNREACHABLE,
        Some(Error::NotFound(_)) => NOT_FOUND,
        Some(Error::Denied(_) | Error::Exists(_) | Error::Invalid(_) | Error::Limit(_)) => REFUSED,
        _ => FAILED,
    }
}

fn advice(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<Error>()? {
        Error::Unavailable(_) => {
            Some("are the nodes up? `malle cluster status` shows them; --endpoints names others to ask")
        }
        Error::Busy(_) | Error::AccountNotReady => Some("try again in a moment"),
        Error::Denied(_) => Some("operators need a certificate of /operator/<name>; see `malle cert operator --help`"),
        Error::Config(_) => Some("see --context, or --endpoints with --ca, --cert and --key"),
        _ => None,
    }
}

/// Prints an error and what to do next; gives the exit code.
pub fn explain(error: &anyhow::Error) -> ExitCode {
    anstream::eprintln!("malle: {error:#}");
    if let Some(advice) = advice(error) {
        anstream::eprintln!("  {advice}");
    }
    ExitCode::from(code(error))
}

#[cfg(test)]
mod tests {
    use super::{FAILED, NOT_FOUND, REFUSED, UNREACHABLE, code};
    use malle_client::Error;

    #[test]
    fn every_class_of_error_has_its_code() {
        let code_of = |error: Error| code(&anyhow::Error::from(error).context("while testing"));
        assert_eq!(code_of(Error::Unavailable("x".into())), UNREACHABLE);
        assert_eq!(code_of(Error::NotFound("x".into())), NOT_FOUND);
        assert_eq!(code_of(Error::Exists("x".into())), REFUSED);
        assert_eq!(code_of(Error::Internal("x".into())), FAILED);
        assert_eq!(code(&anyhow::anyhow!("x")), FAILED);
    }
}
