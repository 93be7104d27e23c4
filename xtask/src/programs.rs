//! Programs that others wrote and the cluster tests use: mail clients, Postfix as a relay, and Dovecot to compare with.
//!
//! Where they are missing and this is Debian and the superuser asks, they are installed; else the tests that need them print SKIPPED with the
//! reason. Nothing is installed where all are there already, so a second run needs no network.

use std::path::Path;
use std::process::{Command, Stdio};

/// A file that a package brings, and the package.
const PROGRAMS: [(&str, &str); 10] = [
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/fetchmail", "fetchmail"),
    ("/usr/bin/mbsync", "isync"),
    ("/usr/bin/mutt", "mutt"),
    ("/usr/bin/neomutt", "neomutt"),
    ("/usr/bin/offlineimap", "offlineimap3"),
    ("/usr/lib/postfix/sbin/master", "postfix"),
    ("/usr/bin/script", "bsdutils"),
    ("/usr/bin/swaks", "swaks"),
    ("/usr/lib/dovecot/imap", "dovecot-imapd"),
];

/// Installs what is missing, as far as this machine allows it. What stays missing costs the tests that need it, and no more.
pub fn install_missing() {
    let packages = missing(|file| Path::new(file).exists());
    if packages.is_empty() {
        return;
    }
    let list = packages.join(" ");
    if !Path::new("/usr/bin/apt-get").exists() {
        return eprintln!("== programs: {list} not there, and no apt-get: their tests are skipped");
    }
    eprintln!("== programs: installing {list}");
    let apt_get = |arguments: &[&str]| {
        let ended = Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-q", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        ended.is_ok_and(|status| status.success())
    };
    // A machine that is fresh knows no package, or old ones; what then cannot be installed is told below.
    let _ = apt_get(&["update"]);
    // One by one: a package that this release does not have must not keep the others out.
    for package in packages {
        if !apt_get(&["install", "-y", "--no-install-recommends", package]) {
            eprintln!("== programs: {package} could not be installed: its tests are skipped");
        }
    }
}

fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let missing = PROGRAMS.iter().filter(|(file, _)| !is_there(file));
    missing.map(|(_, package)| *package).collect()
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn only_what_is_missing_is_asked_for() {
        assert_eq!(missing(|_| true), Vec::<&str>::new());
        assert_eq!(missing(|file| file != "/usr/bin/mbsync"), ["isync"]);
    }
}
