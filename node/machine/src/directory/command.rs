//! What can be asked of the directory, and its answers. These types are replicated and kept: append variants only at the end.

use malle_proto::{AccountId, ClusterId, NodeId, OpId, ShardId, limits};
use serde::{Deserialize, Serialize};

use super::growth::{LayoutChange, Standing, TaskStep};
use crate::planner::{Goal, Reason};

/// One entry of the directory's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// The proposer's clock, milliseconds since 1970; see the shard's.
    pub time_ms: u64,
    /// What to do.
    pub op: Op,
}
crate::first_version!(Command, 3);

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// First command of a cluster: its name, nodes, shards and first token key.
    Init {
        /// Drawn by the proposer.
        cluster: ClusterId,
        /// The trust domain of its certificates.
        name: String,
        /// The first nodes.
        nodes: Vec<Node>,
        /// The shards with their replicas.
        shards: Vec<Shard>,
        /// Signs login tokens (HMAC-SHA256).
        token_key: TokenKey,
    },
    /// Adds a node or changes its addresses. A retired id is refused.
    NodeSet {
        /// The node.
        node: Node,
    },
    /// The node will not come back. Refused while a shard names it.
    NodeRetire {
        /// Which.
        node: NodeId,
    },
    /// The replicas of a shard are these now (after its group's membership changed).
    ShardSet {
        /// The shard.
        shard: ShardId,
        /// Voters in order of preference.
        replicas: Vec<NodeId>,
        /// The shard's epoch before this; refused when it is another.
        epoch: u64,
    },
    /// A new token key; the two newest verify.
    TokenKeyAdd {
        /// The key.
        key: TokenKey,
    },
    /// A new account.
    AccountCreate {
        /// For repeats.
        op_id: OpId,
        /// Its id, drawn by the proposer.
        account: AccountId,
        /// Its first address, normalised.
        address: String,
        /// A PHC string of argon2id.
        password_hash: Option<String>,
        /// Bytes it may hold.
        quota_bytes: u64,
        /// Where; the shard with the fewest accounts when `None`, of `region` when that is set.
        shard: Option<ShardId>,
        /// See `shard`.
        region: Option<String>,
    },
    /// Changes what is `Some`.
    AccountSet {
        /// For repeats.
        op_id: OpId,
        /// Whose.
        account: AccountId,
        /// A PHC string of argon2id.
        password_hash: Option<String>,
        /// Suspend or resume.
        state: Option<AccountState>,
        /// Another quota.
        quota_bytes: Option<u64>,
    },
    /// One more address.
    AddressAdd {
        /// For repeats.
        op_id: OpId,
        /// Whose.
        account: AccountId,
        /// Normalised.
        address: String,
        /// Make it (also if it is there already) the primary one; the old one stays as an alias.
        primary: bool,
    },
    /// One address less; the primary one is refused.
    AddressRemove {
        /// For repeats.
        op_id: OpId,
        /// Whose.
        account: AccountId,
        /// Normalised.
        address: String,
    },
    /// One more application password: a name's second one is refused.
    AppPasswordAdd {
        /// For repeats.
        op_id: OpId,
        /// Whose.
        account: AccountId,
        /// What its owner calls it.
        name: String,
        /// SHA-256 over the account and the secret, which is drawn and long: it needs no slow hash.
        digest: [u8; 32],
        /// The bits of [`AppScopes`].
        scopes: u8,
    },
    /// One application password less.
    AppPasswordRemove {
        /// For repeats.
        op_id: OpId,
        /// Whose.
        account: AccountId,
        /// Which.
        name: String,
    },
    /// An account has granted something to another one, or is about to. May be repeated.
    SharingAdd {
        /// Who shares.
        owner: AccountId,
        /// With whom.
        guest: AccountId,
        /// Drawn by the proposer.
        mark: OpId,
    },
    /// Nothing is granted any more. Not done when somebody has added the pair since.
    SharingRemove {
        /// Who shared.
        owner: AccountId,
        /// With whom.
        guest: AccountId,
        /// As `read::sharing` gave it before it was seen that nothing is granted.
        mark: OpId,
    },
    /// Stages changes of the layout, with those that wait already.
    LayoutStage {
        /// Which.
        change: LayoutChange,
    },
    /// Makes what is staged the layout.
    LayoutApply {
        /// Of what is staged; refused when it is another.
        version: u64,
        /// The operator's name.
        by: String,
        /// The goal that the new layout may break; one that breaks it is refused otherwise.
        break_goal: Option<Goal>,
    },
    /// Forgets what is staged.
    LayoutRevert,
    /// What is to be done with a node.
    NodeStand {
        /// Which.
        node: NodeId,
        /// What.
        standing: Standing,
        /// The goal that may be broken by it.
        break_goal: Option<Goal>,
    },
    /// A node does not answer the directory's leader, or does again.
    NodeSilence {
        /// Which.
        node: NodeId,
        /// It does not.
        silent: bool,
    },
    /// A move of a replica begins. One of each shard at a time.
    TaskStart {
        /// Whose replica.
        shard: ShardId,
        /// The shard's epoch that the move was planned at; refused when it is another. 0 for the directory, which has none.
        epoch: u64,
        /// Who gets a replica.
        join: Option<NodeId>,
        /// Who loses its own.
        leave: Option<NodeId>,
        /// Why.
        reason: Reason,
        /// What is copied.
        bytes: u64,
    },
    /// A move has come further.
    TaskAdvance {
        /// Which.
        task: u64,
        /// Where it is; the same step again changes the note.
        step: TaskStep,
        /// What it waits for, for a person.
        note: String,
    },
}

/// What an application password is good for.
pub struct AppScopes;

impl AppScopes {
    /// To read mail.
    pub const MAIL: u8 = 1;
    /// To send mail.
    pub const SUBMISSION: u8 = 2;
    /// All there are.
    pub const ALL: u8 = 3;
}

/// A key for login tokens.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKey {
    /// Rising.
    pub id: u32,
    /// The secret.
    pub secret: [u8; 32],
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey {{ id: {}, secret: .. }}", self.id)
    }
}

/// A `malled`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its id.
    pub id: NodeId,
    /// Region.
    pub region: String,
    /// Zone within the region.
    pub zone: String,
    /// HOST:PORT for clients.
    pub client_address: String,
    /// HOST:PORT for peers.
    pub peer_address: String,
    /// Taken out for good.
    pub retired: bool,
}

/// A shard's place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// Its id, from 1.
    pub id: ShardId,
    /// Voters in order of preference for the leader. The first one of epoch 1 makes the group.
    pub replicas: Vec<NodeId>,
    /// Where its leader would best be.
    pub home_region: String,
    /// Rises with every change.
    pub epoch: u64,
}

/// May it be used?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountState {
    /// Yes.
    Active,
    /// No login, no delivery.
    Suspended,
}

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Every command about the machines, TokenKeyAdd, SharingAdd, SharingRemove.
    Done,
    /// The account that was made or changed.
    Account {
        /// Which.
        account: AccountId,
        /// From a receipt.
        repeated: bool,
    },
    /// Not done, and why.
    Refused(Refusal),
}
crate::first_version!(Outcome, 4);

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Init ran before.
    #[error("the cluster exists already")]
    Initialised,
    /// Init did not run yet.
    #[error("the cluster is not initialised")]
    NotInitialised,
    /// No such account.
    #[error("no such account")]
    NoAccount,
    /// The address belongs to an account.
    #[error("the address {0} is taken")]
    AddressTaken(String),
    /// The account does not have it.
    #[error("the account has no address {0}")]
    NoAddress(String),
    /// Not an address that malle takes.
    #[error("bad address {0}")]
    BadAddress(String),
    /// The primary address cannot be removed.
    #[error("{0} is the primary address")]
    PrimaryAddress(String),
    /// No such node, or retired.
    #[error("no node {0}")]
    NoNode(NodeId),
    /// The node still holds replicas.
    #[error("node {0} still holds shard {1}")]
    NodeInUse(NodeId, ShardId),
    /// No such shard, or none in the region.
    #[error("no such shard")]
    NoShard,
    /// Somebody changed it in between.
    #[error("the shard's epoch is {0}")]
    Epoch(u64),
    /// One of the bounds in `limits`.
    #[error("limit reached: {0}")]
    Limit(String),
    /// The id is another account's; ids are never reused.
    #[error("the account {0} exists already")]
    AccountExists(AccountId),
    /// The op id was used for another kind of operation.
    #[error("the op id {0} was used for another operation")]
    OpIdReused(OpId),
    /// The command makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The address was another account's, and rests: [`limits::ADDRESS_RESTS_MS`].
    #[error(
        "the address {0} was removed from another account less than {minutes} minutes ago and goes to nobody else before",
        minutes = limits::ADDRESS_RESTS_MS / 60_000
    )]
    AddressRests(String),
    /// The account has an application password of this name.
    #[error("there is an application password {0:?} already")]
    AppPasswordExists(String),
    /// The account has none of this name.
    #[error("there is no application password {0:?}")]
    NoAppPassword(String),
    /// Somebody else staged or applied in between: this is what is staged now.
    #[error("the version moved on: {0} is staged now; look at its plan")]
    LayoutVersion(u64),
    /// There is nothing to apply.
    #[error("nothing is staged; version {0} is applied")]
    NothingStaged(u64),
    /// It would put data at risk.
    #[error("{0}")]
    Unsafe(String),
    /// Another move of the shard is under way.
    #[error("task {0} moves a replica of the shard already")]
    TaskRunning(u64),
    /// No such task is known (any more).
    #[error("no task {0}")]
    NoTask(u64),
    /// The task cannot go there from where it is.
    #[error("task {0} is {1}")]
    TaskStep(u64, String),
}
