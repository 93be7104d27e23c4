//! `chaos`: runs scenarios against malle, judges what happened and shows it. `chaos/README.md` explains the verbs.
//!
//! Exit codes: 0, everything is as it should be; 1, a promise was broken, or a build that breaks one was not found out; 2, it could not be
//! run or judged; 3, nothing could be run on this machine, and the reason was said.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run() {
        Ok(ending) => ending.into(),
        Err(error) => {
            eprintln!("chaos: {error:#}");
            cli::Ending::NotRun.into()
        }
    }
}
