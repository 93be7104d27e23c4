//! LIST and LSUB (RFC 3501 6.3.8 and 6.3.9, RFC 5258, RFC 5819, RFC 6154, RFC 8440).

use std::collections::BTreeSet;

use malle_client::{Mailbox, Rights, SpecialUse};

use super::super::parse::{ListQuery, ReturnOption};
use super::super::respond::{Answer, Failure, Output};
use super::super::session::Session;
use super::authenticated::tell_status;
use super::{account, acl, quota, rights};

/// After this many names the task lets others run: matching is work of the client's choosing.
const NAMES_AT_ONCE: usize = 200;

pub(super) async fn list(session: &mut Session, query: &ListQuery) -> Result<Answer, Failure> {
    if !query.extended && query.patterns.iter().all(String::is_empty) {
        // The question for the separator (RFC 3501 6.3.8).
        session
            .connection
            .output
            .untagged(format_args!("LIST (\\Noselect) \"/\" \"\""));
        return Ok(Answer::ok("Listed"));
    }
    let account = account(session)?;
    let patterns: Vec<String> = query
        .patterns
        .iter()
        .map(|pattern| format!("{}{pattern}", query.reference))
        .collect();
    let mailboxes = match &patterns[..] {
        [pattern] => account.mailboxes_within(pattern).await?,
        _ => account.mailboxes().await?,
    };
    let tree = Tree::of(&mailboxes, query);
    let tells_rights = query.returned.contains(&ReturnOption::MyRights);
    let status = query.returned.iter().find_map(|option| match option {
        ReturnOption::Status(items) => Some(items),
        _ => None,
    });
    for (index, mailbox) in mailboxes.iter().enumerate() {
        if index % NAMES_AT_ONCE == NAMES_AT_ONCE - 1 {
            tokio::task::yield_now().await;
            session.connection.flush_if_much().await?;
        }
        let selected = is_selected(mailbox, query);
        let for_children = query.recursive_match && tree.selected_parents.contains(&mailbox.name);
        if !(selected || for_children) || !patterns.iter().any(|pattern| matches(pattern, &mailbox.name)) {
            continue;
        }
        let out = &mut session.connection.output;
        tell_mailbox(out, mailbox, query, &tree, for_children);
        if tells_rights && !mailbox.no_select && rights(mailbox) != Rights::NONE {
            acl::tell_mine(out, &mailbox.name, rights(mailbox));
        }
        if let Some(items) = status
            && !mailbox.no_select
            && rights(mailbox).hold(Rights::READ)
        {
            let deleted_bytes = quota::deleted_bytes(&*account, mailbox, items).await?;
            tell_status(&mut session.connection.output, mailbox, items, deleted_bytes);
        }
    }
    Ok(Answer::ok("Listed"))
}

fn is_selected(mailbox: &Mailbox, query: &ListQuery) -> bool {
    let special = !matches!(mailbox.special_use, SpecialUse::None | SpecialUse::Inbox);
    (!query.select_subscribed || mailbox.subscribed) && (!query.select_special_use || special)
}

/// Which names have others below them.
struct Tree {
    parents: BTreeSet<String>,
    /// Parents of mailboxes that the selection options select.
    selected_parents: BTreeSet<String>,
}

impl Tree {
    fn of(mailboxes: &[Mailbox], query: &ListQuery) -> Tree {
        let mut tree = Tree {
            parents: BTreeSet::new(),
            selected_parents: BTreeSet::new(),
        };
        for mailbox in mailboxes {
            let selected = is_selected(mailbox, query);
            for parent in parents(&mailbox.name) {
                tree.parents.insert(parent.to_owned());
                if selected {
                    tree.selected_parents.insert(parent.to_owned());
                }
            }
        }
        tree
    }
}

fn parents(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

fn tell_mailbox(out: &mut Output, mailbox: &Mailbox, query: &ListQuery, tree: &Tree, for_children: bool) {
    let has_children = tree.parents.contains(&mailbox.name);
    let tell_subscribed = query.select_subscribed || query.returned.contains(&ReturnOption::Subscribed);
    let mut attributes = vec![if has_children {
        "\\HasChildren"
    } else {
        "\\HasNoChildren"
    }];
    attributes.extend(mailbox.no_select.then_some("\\Noselect"));
    attributes.extend((tell_subscribed && mailbox.subscribed).then_some("\\Subscribed"));
    attributes.extend(attribute(mailbox.special_use));
    out.raw(b"* LIST ");
    out.words(attributes.into_iter());
    out.raw(b" \"/\" ");
    out.mailbox(&mailbox.name);
    if for_children {
        let option = if query.select_subscribed {
            "SUBSCRIBED"
        } else {
            "SPECIAL-USE"
        };
        out.put(format_args!(" (\"CHILDINFO\" (\"{option}\"))"));
    }
    out.raw(b"\r\n");
}

/// A LIST answer that nobody asked for: the name of a mailbox, and what it was called or how the client spelled it (RFC 9051 6.3.9.7).
pub(super) fn tell_name(out: &mut Output, name: &str, old: Option<&str>) {
    tell_attributes(out, &[], name, old);
}

/// A LIST answer about a mailbox that changed (RFC 5465 5.4 and 5.5); `old`: what it was called.
pub(super) fn tell_changed(out: &mut Output, all: &[Mailbox], mailbox: &Mailbox, old: Option<&str>) {
    let below = |other: &Mailbox| {
        other
            .name
            .strip_prefix(&*mailbox.name)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    let mut attributes = vec![if all.iter().any(below) {
        "\\HasChildren"
    } else {
        "\\HasNoChildren"
    }];
    attributes.extend(mailbox.no_select.then_some("\\Noselect"));
    attributes.extend(mailbox.subscribed.then_some("\\Subscribed"));
    attributes.extend(attribute(mailbox.special_use));
    tell_attributes(out, &attributes, &mailbox.name, old);
}

/// A LIST answer about a mailbox that is there no more (RFC 5465 5.4).
pub(super) fn tell_gone(out: &mut Output, name: &str) {
    tell_attributes(out, &["\\NonExistent"], name, None);
}

fn tell_attributes(out: &mut Output, attributes: &[&str], name: &str, old: Option<&str>) {
    out.raw(b"* LIST ");
    out.words(attributes.iter().copied());
    out.raw(b" \"/\" ");
    out.mailbox(name);
    if let Some(old) = old {
        out.raw(b" (\"OLDNAME\" (");
        out.mailbox(old);
        out.raw(b"))");
    }
    out.raw(b"\r\n");
}

/// RFC 6154 2.
fn attribute(special_use: SpecialUse) -> Option<&'static str> {
    match special_use {
        SpecialUse::None | SpecialUse::Inbox => None,
        SpecialUse::Sent => Some("\\Sent"),
        SpecialUse::Drafts => Some("\\Drafts"),
        SpecialUse::Trash => Some("\\Trash"),
        SpecialUse::Junk => Some("\\Junk"),
        SpecialUse::Archive => Some("\\Archive"),
        SpecialUse::Flagged => Some("\\Flagged"),
        SpecialUse::All => Some("\\All"),
    }
}

/// RFC 3501 6.3.9: a parent that is not subscribed itself stands for its children where `%` stops above them.
pub(super) async fn lsub(session: &mut Session, reference: &str, pattern: &str) -> Result<Answer, Failure> {
    let pattern = format!("{reference}{pattern}");
    let mailboxes = account(session)?.mailboxes_within(&pattern).await?;
    let subscribed: Vec<&str> = mailboxes
        .iter()
        .filter(|mailbox| mailbox.subscribed)
        .map(|mailbox| &*mailbox.name)
        .collect();
    let mut names: BTreeSet<(&str, bool)> = subscribed.iter().map(|name| (*name, true)).collect();
    if pattern.contains('%') {
        let missing = subscribed
            .iter()
            .flat_map(|name| parents(name))
            .filter(|name| !subscribed.contains(name));
        names.extend(missing.map(|name| (name, false)));
    }
    for (index, (name, is_subscribed)) in names.into_iter().enumerate() {
        if index % NAMES_AT_ONCE == NAMES_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        if !matches(&pattern, name) {
            continue;
        }
        let out = &mut session.connection.output;
        out.raw(b"* LSUB ");
        out.words((!is_subscribed).then_some("\\Noselect").into_iter());
        out.raw(b" \"/\" ");
        out.mailbox(name);
        out.raw(b"\r\n");
    }
    Ok(Answer::ok("Listed"))
}

/// Does the pattern match the name? `*` stands for anything, `%` for anything without a separator; INBOX has no letter case. The time is
/// the product of both lengths, whatever the pattern: every prefix of the pattern is followed at once.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let inbox_end = if name == "INBOX" || name.starts_with("INBOX/") {
        5
    } else {
        0
    };
    // reached[i]: the first i characters of the pattern match the part of the name read so far.
    let mut reached = vec![false; pattern.len() + 1];
    reached[0] = true;
    pass_wildcards(&pattern, &mut reached);
    for (index, character) in name.chars().enumerate() {
        let mut next = vec![false; pattern.len() + 1];
        for (at, &wanted) in pattern.iter().enumerate().filter(|(at, _)| reached[*at]) {
            let same = wanted == character || (index < inbox_end && wanted.eq_ignore_ascii_case(&character));
            match wanted {
                '*' => next[at] = true,
                '%' if character != '/' => next[at] = true,
                '%' => {}
                _ if same => next[at + 1] = true,
                _ => {}
            }
        }
        pass_wildcards(&pattern, &mut next);
        reached = next;
    }
    reached[pattern.len()]
}

/// A wildcard may stand for nothing.
fn pass_wildcards(pattern: &[char], reached: &mut [bool]) {
    for (at, &wanted) in pattern.iter().enumerate() {
        if reached[at] && matches!(wanted, '*' | '%') {
            reached[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_stop_where_the_rfc_says() {
        for (pattern, name, expected) in [
            ("*", "a/b/c", true),
            ("%", "a", true),
            ("%", "a/b", false),
            ("a/%", "a/b", true),
            ("a/%", "a/b/c", false),
            ("a/*", "a/b/c", true),
            ("a*c", "a/b/c", true),
            ("a%c", "abc", true),
            ("%/%", "a/b", true),
            ("", "a", false),
            ("a", "A", false),
            ("inbox", "INBOX", true),
            ("in%", "INBOX", true),
            ("InBox/*", "INBOX/sub", true),
            ("inbox/SUB", "INBOX/sub", false),
            ("Envoy*", "Envoyés", true),
            ("*%*%*", "anything", true),
            ("a*b*c", "a-c", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_its_length() {
        let pattern = "*%".repeat(400) + "x";
        assert!(!matches(&pattern, &"a".repeat(1000)));
    }
}
