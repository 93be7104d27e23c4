//! What a client wants to do next, by the weights of its profile.

use crate::scenario::Profile;
use crate::seed::Chance;

/// A wish of a client; [`super::drive`] makes a call of it with what the client remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Deliver,
    /// A delivery that was made before, perhaps by another client, perhaps still on its way: the same op id.
    Redeliver,
    Append,
    Store,
    /// Only messages that did not change since they were seen.
    StoreUnchanged,
    /// Sets \Deleted.
    Discard,
    Expunge,
    Copy,
    Move,
    Create,
    Rename,
    Delete,
    List,
    Open,
    Fetch,
    Changes,
    Status,
    ReadBody,
}

const DELIVER: &[(u64, Intent)] = &[
    (70, Intent::Deliver),
    (12, Intent::Redeliver),
    (5, Intent::Append),
    (4, Intent::Open),
    (4, Intent::Fetch),
    (3, Intent::Changes),
    (2, Intent::ReadBody),
];
const IMAP: &[(u64, Intent)] = &[
    (10, Intent::Deliver),
    (8, Intent::Append),
    (26, Intent::Store),
    (6, Intent::StoreUnchanged),
    (8, Intent::Discard),
    (7, Intent::Expunge),
    (4, Intent::Copy),
    (5, Intent::Move),
    (1, Intent::List),
    (4, Intent::Open),
    (6, Intent::Fetch),
    (8, Intent::Changes),
    (3, Intent::Status),
    (4, Intent::ReadBody),
];
const POP: &[(u64, Intent)] = &[
    (20, Intent::Create),
    (12, Intent::Rename),
    (14, Intent::Delete),
    (14, Intent::List),
    (15, Intent::Append),
    (15, Intent::Deliver),
    (10, Intent::Status),
];

impl Intent {
    /// The next wish of a client of this profile.
    pub fn draw(profile: Profile, chance: &mut Chance) -> Intent {
        let weights = match profile {
            Profile::Deliver => DELIVER,
            Profile::Imap => IMAP,
            Profile::Pop => POP,
            Profile::Mix | Profile::Hot | Profile::Quota => match chance.below(10) {
                0..6 => DELIVER,
                _ => IMAP,
            },
        };
        let mut left = chance.below(weights.iter().map(|(weight, _)| weight).sum());
        for (weight, intent) in weights {
            if left < *weight {
                return *intent;
            }
            left -= weight;
        }
        Intent::Deliver
    }
}
