//! `chaos`: will attack every promise of `docs/consistency.md`. The plan stands in `chaos/README.md`; there is no scenario yet, and this
//! program says so instead of passing.

use std::process::ExitCode;

/// The exit code of a program that was asked for what it does not have.
const NO_SCENARIOS: u8 = 2;

fn main() -> ExitCode {
    eprintln!("chaos: there are no scenarios yet; chaos/README.md is the plan.");
    eprintln!("chaos: `cargo xtask demo --check` kills a leader under load today, tests/cluster does more.");
    ExitCode::from(NO_SCENARIOS)
}
