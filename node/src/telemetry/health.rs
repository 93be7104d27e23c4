//! Whether a node lives and whether it is ready, each with the reasons why not.

use serde::Serialize;

/// What a node says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Health {
    /// Why the process must be looked at or replaced: it will not get well by itself.
    pub dead: Vec<String>,
    /// Why it does not do all its work now: it may, later.
    pub unready: Vec<String>,
    /// What an operator should know although the node works.
    pub notes: Vec<String>,
}

/// The answer of one address, as JSON.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// "ok" or "failing".
    status: &'static str,
    reasons: Vec<&'a str>,
    notes: Vec<&'a str>,
}

impl Health {
    /// Nothing but a new process helps.
    pub fn is_live(&self) -> bool {
        self.dead.is_empty()
    }

    /// Whatever does not live is not ready either.
    pub fn is_ready(&self) -> bool {
        self.is_live() && self.unready.is_empty()
    }

    /// `/health/live`.
    pub fn live_json(&self) -> String {
        self.json(self.is_live(), self.dead.iter())
    }

    /// `/health/ready`.
    pub fn ready_json(&self) -> String {
        self.json(self.is_ready(), self.dead.iter().chain(&self.unready))
    }

    fn json<'a>(&'a self, ok: bool, reasons: impl Iterator<Item = &'a String>) -> String {
        let answer = Answer {
            status: if ok { "ok" } else { "failing" },
            reasons: reasons.map(String::as_str).collect(),
            notes: self.notes.iter().map(String::as_str).collect(),
        };
        serde_json::to_string(&answer).expect("texts in lists are JSON")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_live_is_not_ready_and_says_why_in_both() {
        let mut health = Health::default();
        assert_eq!(health.ready_json(), r#"{"status":"ok","reasons":[],"notes":[]}"#);
        health.notes.push("warm".into());
        health.unready.push("no leader".into());
        assert!(health.is_live() && !health.is_ready());
        assert_eq!(health.live_json(), r#"{"status":"ok","reasons":[],"notes":["warm"]}"#);
        health.dead.push("the \"log\" failed".into());
        assert!(!health.is_live() && !health.is_ready());
        assert_eq!(
            health.ready_json(),
            r#"{"status":"failing","reasons":["the \"log\" failed","no leader"],"notes":["warm"]}"#
        );
    }
}
