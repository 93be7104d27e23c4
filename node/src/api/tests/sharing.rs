//! The directory knows who shares with whom, before and for as long as something is granted.

use malle_machine::directory::read;
use malle_proto::v1::mailbox_change::Change;

use super::guests::id;
use super::*;
use crate::raft::Barrier;

impl World {
    /// Who shares with Bob.
    async fn sharers(&self) -> Vec<AccountId> {
        let directory = self.api.groups.get(ShardId::DIRECTORY).unwrap();
        let look = |view: &dyn malle_machine::View| read::sharers(view, BOB);
        let sharers = directory.read(Barrier::Linearizable, soon(), look).await.unwrap();
        sharers.into_iter().map(|account| account.id).collect()
    }

    async fn add_sharing(&self) {
        let op = directory::Op::SharingAdd {
            owner: ALICE,
            guest: BOB,
            mark: self.api.env.op_id(),
        };
        self.api.groups.propose_directory(op, soon()).await.unwrap();
    }

    fn granting_of(&self, name: &str, guest: AccountId, mode: v1::StoreMode, letters: &str) -> Call {
        let grant = v1::MailboxGrant {
            name: name.into(),
            guest: id(guest),
            mode: mode.into(),
            rights: u32::from(malle_proto::Rights::parse(letters).unwrap().0),
        };
        self.tree(ALICE, Change::Grant(grant))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_is_listed_from_the_first_grant_to_the_last() {
    let world = World::new().await;
    let change = async |name: &str, mode, letters: &str| {
        let call = world.granting_of(name, BOB, mode, letters);
        world.ok(&imap(), world.token(ALICE), call).await;
    };
    assert!(world.sharers().await.is_empty());
    change("INBOX", v1::StoreMode::Add, "lr").await;
    change("Sent", v1::StoreMode::Replace, "lr").await;
    assert_eq!(world.sharers().await, [ALICE]);
    change("INBOX", v1::StoreMode::Replace, "").await;
    change("Sent", v1::StoreMode::Remove, "r").await;
    assert_eq!(world.sharers().await, [ALICE], "the right l to Sent is left");
    change("Sent", v1::StoreMode::Remove, "l").await;
    assert!(world.sharers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_refused_leaves_no_pair_and_a_guest_makes_none_without_the_right_a() {
    let world = World::new().await;
    let stranger = AccountId([9; 16]);
    for (name, guest, code) in [
        ("Nothing", BOB, ErrorCode::NotFound),
        ("INBOX", ALICE, ErrorCode::Invalid),
        ("INBOX", stranger, ErrorCode::NotFound),
    ] {
        let call = world.granting_of(name, guest, v1::StoreMode::Add, "l");
        assert_eq!(world.refused(&imap(), world.token(ALICE), call).await, code, "{name}");
    }
    assert!(world.sharers().await.is_empty());
    // Bob gives himself nothing, and his asking makes no pair.
    let call = world.granting_of("INBOX", BOB, v1::StoreMode::Add, "l");
    assert_eq!(world.refused(&imap(), world.token(BOB), call).await, ErrorCode::Denied);
    assert!(world.sharers().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_a_crash_left_shows_nothing_and_goes_with_the_guests_next_list() {
    let world = World::new().await;
    world.add_sharing().await;
    assert_eq!(world.sharers().await, [ALICE]);
    let list = Call::MailboxList(v1::MailboxList {
        account: id(ALICE),
        consistency: None,
    });
    assert_eq!(world.refused(&imap(), world.token(BOB), list).await, ErrorCode::Denied);
    assert!(world.sharers().await.is_empty());
}
