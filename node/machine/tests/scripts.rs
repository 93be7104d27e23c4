//! Plays `scripts/shard`. `cargo nextest run -p malle-machine --test scripts`; with `UPDATE_SCRIPTS=1` it takes the answers over.
//!
//! Every command is applied twice and must give the same; afterwards the whole shard is recounted and its digest, kept by writes, must be
//! the digest of a scan. A story therefore shows more than it says.
//!
//! Things have names. `body=b1` is a body of that name, `op=d1` an operation (a fresh one without it), `keys=m2,m1` are Message-IDs.
//! Mailboxes go by their names; a name that is gone still means the mailbox that had it last. Time stands still until `wait`.

mod script_format;
mod shard_player;

use std::path::Path;

#[test]
fn every_story_of_a_shard_is_told_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/shard");
    script_format::run_folder(&folder, 25, shard_player::ShardPlayer::default);
}
