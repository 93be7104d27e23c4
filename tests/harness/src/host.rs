//! Programs and processes of this machine, without unsafe code: what the C library would be called for is asked of a program.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Standard output of a program that must succeed.
///
/// # Errors
/// When it does not run or ends with another code; what it said on standard error is the reason.
pub fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("running {program}"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A path as an argument.
///
/// # Errors
/// When it is no text.
pub fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is no text", path.display()))
}

/// Sends a signal, for example `KILL`.
///
/// # Errors
/// When there is no such process.
pub fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    run("kill", &["-s", name, &pid.to_string()]).map(drop)
}

/// A process that ended is gone, or is a zombie until its parent looks. It is one already while some of its threads still end; until the
/// last of them has, its parent is not told.
pub fn is_gone(pid: u32) -> bool {
    // The 20th field is the number of threads.
    let is_zombie = |fields: Vec<String>| {
        fields.first().is_some_and(|state| state == "Z")
            && fields.get(17).is_some_and(|threads| threads == "0" || threads == "1")
    };
    fields(pid).is_none_or(is_zombie)
}

/// When a process began, in ticks since the machine did: with its id it names one process for ever, an id alone is used again.
pub fn begun(pid: u32) -> Option<u64> {
    // The 22nd field of the line (proc(5)); two of them stand before the state.
    fields(pid)?.get(19)?.parse().ok()
}

/// What the kernel says of a process, from its state on. Its name, which may hold anything, stands before in parentheses.
fn fields(pid: u32) -> Option<Vec<String>> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = line.rsplit_once(") ")?;
    Some(rest.split(' ').map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_never_was_is_gone_and_this_one_has_a_beginning() {
        assert!(is_gone(u32::MAX));
        assert!(!is_gone(std::process::id()));
        assert_eq!(begun(u32::MAX), None);
        assert!(begun(std::process::id()) > begun(1));
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let error = run("sh", &["-c", "echo no rain >&2; exit 3"]).unwrap_err();
        assert!(error.to_string().contains("no rain"), "{error}");
        assert_eq!(run("echo", &["rain"]).unwrap(), "rain\n");
    }
}
