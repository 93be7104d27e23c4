//! Threads (RFC 5256 3): which messages belong together, as trees.
//!
//! Pure: mails in, a [`Forest`] out. Nothing here recurses: how deep a thread is, strangers decide. A message whose ancestor is not among the
//! found ones stands under a place without a message only when it has siblings there, as the RFC asks.

use std::collections::{BTreeMap, HashMap};

use super::respond::Output;

/// A message that would come deeper than this begins a thread of its own.
const DEPTH_MAX: usize = 1000;

/// What threading needs of a message.
#[derive(Debug, Clone, Default)]
pub(super) struct Mail {
    /// Its sequence number or UID.
    pub(super) number: u32,
    /// When it was sent, milliseconds since 1970.
    pub(super) sent_ms: i64,
    pub(super) id: Option<Vec<u8>>,
    /// The ids that it names, oldest first.
    pub(super) references: Vec<Vec<u8>>,
    /// Folded.
    pub(super) base_subject: String,
    /// The subject says that it is a reply or forward.
    pub(super) is_reply: bool,
}

/// Threads, ordered as they are told.
#[derive(Debug, Default)]
pub(super) struct Forest {
    nodes: Vec<Node>,
    roots: Vec<usize>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// Index of the mail; `None` for a place without a message.
    mail: Option<usize>,
    children: Vec<usize>,
}

/// ORDEREDSUBJECT: one subject is one thread, all replies below its first message.
pub(super) fn by_subject(mails: &[Mail]) -> Forest {
    let mut subjects: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, mail) in mails.iter().enumerate() {
        subjects.entry(&mail.base_subject).or_default().push(index);
    }
    let mut forest = Forest::of(mails.len());
    for mut thread in subjects.into_values() {
        thread.sort_by_key(|&index| (mails[index].sent_ms, mails[index].number));
        let first = thread.remove(0);
        forest.nodes[first].children = thread;
        forest.roots.push(first);
    }
    forest.sort(mails);
    forest
}

/// REFERENCES.
pub(super) fn by_references(mails: &[Mail]) -> Forest {
    let mut forest = Links::of(mails).forest(mails.len());
    forest.sort(mails);
    forest.gather_subjects(mails);
    forest.sort(mails);
    forest
}

/// Message ids and who is whose parent (steps 1 and 2).
#[derive(Default)]
struct Links<'a> {
    places: HashMap<&'a [u8], usize>,
    mails: Vec<Option<usize>>,
    parents: Vec<Option<usize>>,
}

impl<'a> Links<'a> {
    fn of(mails: &'a [Mail]) -> Links<'a> {
        let mut links = Links::default();
        for (index, mail) in mails.iter().enumerate() {
            let known = mail.id.as_deref().map(|id| links.place(id));
            // A second message with an id that is taken is a message without one.
            let own = match known.filter(|&place| links.mails[place].is_none()) {
                Some(place) => place,
                None => links.empty_place(),
            };
            links.mails[own] = Some(index);
            let mut before = None;
            for reference in &mail.references {
                let place = links.place(reference);
                if let Some(parent) = before
                    && links.parents[place].is_none()
                {
                    links.link(parent, place);
                }
                before = Some(place);
            }
            if let Some(parent) = before {
                // What a message says of itself is better than what others said of it.
                links.link(parent, own);
            }
        }
        links
    }

    fn empty_place(&mut self) -> usize {
        self.mails.push(None);
        self.parents.push(None);
        self.mails.len() - 1
    }

    fn place(&mut self, id: &'a [u8]) -> usize {
        if let Some(&place) = self.places.get(id) {
            return place;
        }
        let place = self.empty_place();
        self.places.insert(id, place);
        place
    }

    /// Makes `parent` the parent of `child`, unless that were a circle or too deep.
    fn link(&mut self, parent: usize, child: usize) {
        let mut above = Some(parent);
        for _ in 0..DEPTH_MAX {
            match above {
                Some(place) if place == child => return,
                Some(place) => above = self.parents[place],
                None => {
                    self.parents[child] = Some(parent);
                    return;
                }
            }
        }
    }

    /// Steps 2 and 3: places without a message go, and their children move up. Only at the top may one stay, to hold several together.
    fn forest(&self, mails: usize) -> Forest {
        let mut forest = Forest::of(mails);
        let mut tops: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, mail) in self.mails.iter().enumerate() {
            let Some(mail) = *mail else { continue };
            let mut top = place;
            loop {
                match self.parents[top] {
                    None => {
                        tops.entry(top).or_default().push(mail);
                        break;
                    }
                    Some(parent) => match self.mails[parent] {
                        Some(above) => {
                            forest.nodes[above].children.push(mail);
                            break;
                        }
                        None => top = parent,
                    },
                }
            }
        }
        for children in tops.into_values() {
            let root = match children.as_slice() {
                [only] => *only,
                _ => forest.hold(children),
            };
            forest.roots.push(root);
        }
        forest
    }
}

impl Forest {
    fn of(mails: usize) -> Forest {
        let nodes = (0..mails).map(|mail| Node {
            mail: Some(mail),
            children: Vec::new(),
        });
        Forest {
            nodes: nodes.collect(),
            roots: Vec::new(),
        }
    }

    /// A place without a message above `children`.
    fn hold(&mut self, children: Vec<usize>) -> usize {
        self.nodes.push(Node { mail: None, children });
        self.nodes.len() - 1
    }

    fn is_empty_place(&self, node: usize) -> bool {
        self.nodes[node].mail.is_none()
    }

    /// The message that speaks for a node: its own, or its first child's.
    fn speaker(&self, node: usize) -> Option<usize> {
        let node = &self.nodes[node];
        node.mail.or_else(|| self.nodes[*node.children.first()?].mail)
    }

    /// Steps 4 and 6: siblings by the date they were sent, and then by number.
    fn sort(&mut self, mails: &[Mail]) {
        let moment = |mail: Option<usize>| mail.map(|index| (mails[index].sent_ms, mails[index].number));
        for node in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[node].children);
            children.sort_by_key(|&child| moment(self.speaker(child)));
            self.nodes[node].children = children;
        }
        let mut roots = std::mem::take(&mut self.roots);
        roots.sort_by_key(|&root| moment(self.speaker(root)));
        self.roots = roots;
    }

    /// Step 5: threads about the same subject become one.
    fn gather_subjects(&mut self, mails: &[Mail]) {
        let subject = |forest: &Forest, node| {
            forest
                .speaker(node)
                .map_or("", |mail| mails[mail].base_subject.as_str())
        };
        let is_reply = |forest: &Forest, node: usize| forest.nodes[node].mail.is_some_and(|mail| mails[mail].is_reply);
        let mut table: HashMap<&str, usize> = HashMap::new();
        for &root in &self.roots {
            let known = table.entry(subject(self, root)).or_insert(root);
            let emptier = self.is_empty_place(root) && !self.is_empty_place(*known);
            let original = is_reply(self, *known) && !is_reply(self, root);
            if emptier || (original && !self.is_empty_place(*known)) {
                *known = root;
            }
        }
        let mut gone = vec![false; self.nodes.len()];
        let mut made = Vec::new();
        for root in self.roots.clone() {
            let about = subject(self, root);
            let known = match table.get(about) {
                Some(&known) if known != root && !about.is_empty() => known,
                _ => continue,
            };
            gone[root] = true;
            if self.is_empty_place(root) {
                let children = std::mem::take(&mut self.nodes[root].children);
                self.nodes[known].children.extend(children);
            } else if self.is_empty_place(known) || (is_reply(self, root) && !is_reply(self, known)) {
                self.nodes[known].children.push(root);
            } else {
                gone[known] = true;
                let both = self.hold(vec![known, root]);
                made.push(both);
                table.insert(about, both);
            }
        }
        self.roots.retain(|&root| !gone[root]);
        self.roots.extend(made);
    }

    /// `thread-list`s: `(1 2 (3)(4 5))`.
    pub(super) fn write(&self, out: &mut Output, mails: &[Mail]) {
        enum Step {
            Thread(usize),
            End,
        }
        let mut steps: Vec<Step> = self.roots.iter().rev().map(|&root| Step::Thread(root)).collect();
        while let Some(step) = steps.pop() {
            let Step::Thread(mut node) = step else {
                out.raw(b")");
                continue;
            };
            out.raw(b"(");
            loop {
                if let Some(mail) = self.nodes[node].mail {
                    out.put(format_args!("{}", mails[mail].number));
                }
                match self.nodes[node].children.as_slice() {
                    [] => {
                        out.raw(b")");
                        break;
                    }
                    [only] => {
                        out.raw(b" ");
                        node = *only;
                    }
                    several => {
                        if !self.is_empty_place(node) {
                            out.raw(b" ");
                        }
                        steps.push(Step::End);
                        steps.extend(several.iter().rev().map(|&child| Step::Thread(child)));
                        break;
                    }
                }
            }
        }
    }
}

/// The message ids in a References or In-Reply-To field. A quoted left side means the same as a bare one (RFC 5256 2.1).
pub(super) fn message_ids(field: &[u8]) -> Vec<Vec<u8>> {
    let mut ids = Vec::new();
    let mut rest = field;
    while let Some(open) = rest.iter().position(|&byte| byte == b'<') {
        let inside = &rest[open + 1..];
        let Some(close) = inside.iter().position(|&byte| matches!(byte, b'<' | b'>')) else {
            break;
        };
        let id: Vec<u8> = inside[..close]
            .iter()
            .copied()
            .filter(|byte| !matches!(byte, b'"' | b'\\' | b' ' | b'\t' | b'\r' | b'\n'))
            .collect();
        if inside[close] == b'>' && id.contains(&b'@') {
            ids.push(id);
        }
        rest = &inside[close..];
    }
    ids
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::*;

    /// Number, references, subject; the id is the number, and so is the date.
    fn mail(number: u32, references: &[u32], subject: &str) -> Mail {
        let id = |number: u32| format!("{number}@x").into_bytes();
        let (base_subject, is_reply) = super::super::text::base_subject(subject);
        Mail {
            number,
            sent_ms: i64::from(number),
            id: Some(id(number)),
            references: references.iter().map(|&number| id(number)).collect(),
            base_subject,
            is_reply,
        }
    }

    fn written(forest: &Forest, mails: &[Mail]) -> String {
        let mut out = Output::default();
        forest.write(&mut out, mails);
        String::from_utf8(out.take()).unwrap()
    }

    fn threads(mails: &[Mail]) -> String {
        written(&by_references(mails), mails)
    }

    #[test]
    fn replies_stand_below_what_they_reply_to() {
        let mails = [
            mail(1, &[], "a"),
            mail(2, &[1], "b"),
            mail(3, &[1, 2], "c"),
            mail(4, &[1], "d"),
            mail(5, &[], "e"),
        ];
        assert_eq!(threads(&mails), "(1 (2 3)(4))(5)");
    }

    #[test]
    fn an_absent_ancestor_holds_several_but_never_one() {
        let several = [mail(1, &[90], "a"), mail(2, &[90], "b")];
        assert_eq!(threads(&several), "((1)(2))");
        let one = [mail(1, &[90, 91], "a"), mail(2, &[], "b")];
        assert_eq!(threads(&one), "(1)(2)");
        let between = [mail(1, &[], "a"), mail(2, &[1, 90], "b"), mail(3, &[1, 90], "c")];
        assert_eq!(threads(&between), "(1 (2)(3))");
    }

    #[test]
    fn circles_are_not_followed() {
        let mails = [mail(1, &[2], "a"), mail(2, &[1], "b"), mail(3, &[3], "c")];
        assert_eq!(threads(&mails), "(2 1)(3)");
    }

    #[test]
    fn one_subject_becomes_one_thread() {
        let reply = [mail(1, &[], "Re: Budget"), mail(2, &[], "Budget")];
        assert_eq!(threads(&reply), "(2 1)");
        let equals = [mail(1, &[], "Budget"), mail(2, &[], "budget"), mail(3, &[], "Budget")];
        assert_eq!(threads(&equals), "((1)(2)(3))");
        let held = [
            mail(1, &[90], "Budget"),
            mail(2, &[90], "Re: Budget"),
            mail(3, &[], "Re: budget"),
            mail(4, &[91], "Budget"),
            mail(5, &[91], "x"),
        ];
        assert_eq!(threads(&held), "((1)(2)(3)(4)(5))");
        let without = [mail(1, &[], ""), mail(2, &[], "")];
        assert_eq!(threads(&without), "(1)(2)");
    }

    #[test]
    fn two_messages_with_one_id_are_two_messages() {
        let mut mails = [mail(1, &[], "a"), mail(2, &[], "b"), mail(3, &[1], "c")];
        mails[1].id = mails[0].id.clone();
        assert_eq!(threads(&mails), "(1 3)(2)");
    }

    #[test]
    fn ordered_subject_puts_all_replies_below_the_first() {
        let mails = [
            mail(4, &[], "Re: b"),
            mail(3, &[], "b"),
            mail(1, &[], "c"),
            mail(2, &[], "a"),
            mail(5, &[], "Fwd: b"),
            mail(6, &[], "Re: a"),
        ];
        assert_eq!(written(&by_subject(&mails), &mails), "(1)(2 6)(3 (4)(5))");
    }

    #[test]
    fn a_chain_of_any_length_is_told() {
        let mails: Vec<Mail> = (1..5000u32).map(|number| mail(number, &[number + 1], "")).collect();
        let told = threads(&mails);
        for number in 1..5000 {
            let number = number.to_string();
            assert!(told.split(['(', ')', ' ']).any(|word| word == number));
        }
    }

    #[test]
    fn ids_are_found_in_their_brackets() {
        let ids = message_ids(b"<a@x> (c) <\"b c\"@x>\r\n <broken <d@x><nothing>");
        assert_eq!(ids, [b"a@x".to_vec(), b"bc@x".to_vec(), b"d@x".to_vec()]);
    }

    proptest! {
        #[test]
        fn every_message_is_told_once(references in proptest::collection::vec(proptest::collection::vec(1u32..25, 0..4), 0..20)) {
            let mails: Vec<Mail> = (1u32..)
                .zip(&references)
                .map(|(number, references)| mail(number, references, ["a", "Re: a", "b", ""][references.len() % 4]))
                .collect();
            for forest in [by_references(&mails), by_subject(&mails)] {
                let told = written(&forest, &mails);
                let mut numbers: Vec<u32> = told.split(['(', ')', ' ']).filter_map(|word| word.parse().ok()).collect();
                numbers.sort_unstable();
                prop_assert_eq!(numbers, (1..=u32::try_from(mails.len()).unwrap()).collect::<Vec<_>>());
                prop_assert_eq!(told.matches('(').count(), told.matches(')').count());
            }
        }
    }
}
