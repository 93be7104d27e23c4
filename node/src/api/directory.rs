//! The `Directory` service: who is where, accounts and addresses. Logins are in `login`, application passwords in `app_passwords`.

use std::sync::Arc;
use std::time::Duration;

use malle_machine::directory::{self, AccountState, Op, Outcome, read};
use malle_machine::view::{Fault, View};
use malle_proto::v1::directory_server::Directory;
use malle_proto::v1::{
    Account, AccountCreateRequest, AccountSetRequest, AccountShowRequest, Address, AddressAddRequest, AddressEvent,
    AddressRemoveRequest, AppPasswordAddRequest, AppPasswordListRequest, AppPasswordRemoveRequest, AppPasswords,
    CheckLoginsReply, CheckLoginsRequest, LoginReply, LoginRequest, Node, NodeState, RenewTokenRequest, ResolveReply,
    ResolveRequest, Shard, SharersReply, SharersRequest, TopologyReply, TopologyRequest, account_show_request,
    resolve_request,
};
use malle_proto::{AccountId, OpId, ShardId, limits, v1};
use tonic::{Request, Response, Status};

use super::error::{self, Refused};
use crate::env::Env;
use crate::raft::{Barrier, Group, Groups};
use crate::security::Call;
use crate::security::bearer::Bearers;
use crate::security::password::Passwords;

/// A call that brings no deadline of its own gets this one.
const DEADLINE: Duration = Duration::from_millis(limits::DEFAULT_DEADLINE_MS);

/// How much of a caller's text comes back in an answer.
const SHOWN_CHARS: usize = 80;

/// The `Directory` service.
#[derive(Clone)]
pub struct DirectoryApi {
    pub(super) groups: Arc<Groups>,
    pub(super) passwords: Passwords,
    pub(super) bearers: Option<Arc<Bearers>>,
    pub(super) env: Env,
}

/// Whom a caller means.
#[derive(Debug, Clone)]
pub(super) enum Who {
    Address(String),
    Account(AccountId),
}

/// An account with everything that belongs to it.
type Whole = (read::Account, Vec<read::Address>, Vec<read::AddressEvent>, bool);

impl DirectoryApi {
    /// Answers from the directory's replica here.
    pub fn new(groups: Arc<Groups>, env: Env, passwords: Passwords, bearers: Option<Arc<Bearers>>) -> Self {
        DirectoryApi {
            groups,
            passwords,
            bearers,
            env,
        }
    }

    fn group(&self) -> Result<Arc<Group>, Refused> {
        self.groups
            .get(ShardId::DIRECTORY)
            .ok_or_else(|| Refused::unavailable("the directory is not open here"))
    }

    pub(super) async fn read<T: Send + 'static>(
        &self,
        barrier: Barrier,
        look: impl FnOnce(&dyn View) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Refused> {
        Ok(self.group()?.read(barrier, malle_rt::now() + DEADLINE, look).await?)
    }

    pub(super) async fn change(&self, op: Op) -> Result<AccountId, Refused> {
        match self.group()?.propose_directory(op, malle_rt::now() + DEADLINE).await? {
            Outcome::Account { account, .. } => Ok(account),
            Outcome::Refused(refusal) => Err(refusal.into()),
            Outcome::Done => Err(Refused::internal("the directory answered without an account")),
        }
    }

    async fn whole(&self, who: Who) -> Result<Account, Refused> {
        let asked = match &who {
            Who::Address(address) => address.chars().take(SHOWN_CHARS).collect(),
            Who::Account(account) => account.to_string(),
        };
        let found: Option<Whole> = self
            .read(Barrier::Linearizable, move |view| {
                let Some(account) = find(view, &who)? else {
                    return Ok(None);
                };
                let addresses = read::addresses(view, account.id)?;
                let history = read::history(view, account.id)?;
                let has_password = read::password_hash(view, account.id)?.is_some();
                Ok(Some((account, addresses, history, has_password)))
            })
            .await?;
        found
            .map(account_of)
            .ok_or_else(|| Refused::not_found(format!("no account {asked}")))
    }

    async fn resolve_one(&self, request: ResolveRequest) -> Result<ResolveReply, Refused> {
        let who = match request.who {
            Some(resolve_request::Who::Address(text)) => Who::Address(text),
            Some(resolve_request::Who::Account(bytes)) => Who::Account(account_id(&bytes)?),
            None => return Err(Refused::invalid("an address or an account")),
        };
        let barrier = if request.linearizable {
            Barrier::Linearizable
        } else {
            Barrier::Local
        };
        let found = self.read(barrier, move |view| find(view, &who)).await?;
        let account = found.ok_or_else(|| Refused::not_found("no such address"))?;
        Ok(resolved(account))
    }

    async fn create(&self, request: AccountCreateRequest) -> Result<Account, Refused> {
        let address = normal(&request.address)?;
        let password_hash = match request.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let op = Op::AccountCreate {
            op_id: op_id(&request.op_id)?,
            account: self.env.account_id(),
            address,
            password_hash,
            quota_bytes: if request.quota_bytes == 0 {
                limits::DEFAULT_QUOTA_BYTES
            } else {
                request.quota_bytes
            },
            shard: (request.shard != 0).then_some(ShardId(request.shard)),
            region: (!request.region.is_empty()).then_some(request.region),
        };
        let account = self.change(op).await?;
        self.whole(Who::Account(account)).await
    }

    async fn set(&self, request: AccountSetRequest) -> Result<Account, Refused> {
        let state = match request.state.map(v1::AccountState::try_from) {
            None => None,
            Some(Ok(v1::AccountState::Active)) => Some(AccountState::Active),
            Some(Ok(v1::AccountState::Suspended)) => Some(AccountState::Suspended),
            Some(_) => return Err(Refused::invalid("a state is active or suspended")),
        };
        let password_hash = match request.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let op = Op::AccountSet {
            op_id: op_id(&request.op_id)?,
            account: account_id(&request.account)?,
            password_hash,
            state,
            quota_bytes: request.quota_bytes,
        };
        let account = self.change(op).await?;
        self.whole(Who::Account(account)).await
    }

    async fn topology_now(&self) -> Result<TopologyReply, Refused> {
        let group = self.group()?;
        let (cluster, nodes, shards) = self
            .read(Barrier::Local, |view| {
                Ok((read::cluster(view)?, read::nodes(view)?, read::shards(view)?))
            })
            .await?;
        let cluster =
            cluster.ok_or_else(|| Refused::unavailable("the cluster is not initialised; run: malle cluster init"))?;
        Ok(TopologyReply {
            cluster: cluster.id.to_vec().into(),
            cluster_name: cluster.name,
            nodes: nodes.into_iter().map(node_of).collect(),
            shards: shards
                .into_iter()
                .map(|(shard, accounts)| self.shard_of(shard, accounts))
                .collect(),
            directory_index: group.state().applied_index(),
        })
    }

    fn shard_of(&self, shard: directory::Shard, accounts: u64) -> Shard {
        let leader = self.groups.get(shard.id).and_then(|group| group.leader());
        Shard {
            id: shard.id.0,
            replicas: shard.replicas.iter().map(|node| node.0).collect(),
            home_region: shard.home_region,
            leader: leader.map_or(0, |node| node.0),
            epoch: shard.epoch,
            accounts,
        }
    }
}

pub(super) fn resolved(account: read::Account) -> ResolveReply {
    ResolveReply {
        account: account.id.to_vec().into(),
        shard: account.shard.0,
        placement_epoch: account.placement_epoch,
        state: state_of(account.state).into(),
        primary_address: account.primary_address,
    }
}

/// An address may stand as a bare local part while there is only one domain.
pub(super) fn find(view: &dyn View, who: &Who) -> Result<Option<read::Account>, Fault> {
    let text = match who {
        Who::Account(account) => return read::account(view, *account),
        Who::Address(text) => text,
    };
    let full = if text.contains('@') {
        text.clone()
    } else {
        match read::only_domain(view)? {
            Some(domain) => format!("{text}@{domain}"),
            None => return Ok(None),
        }
    };
    match read::normal_address(&full) {
        Some(address) => read::by_address(view, &address),
        None => Ok(None),
    }
}

fn normal(text: &str) -> Result<String, Refused> {
    let shown = || text.chars().take(SHOWN_CHARS).collect::<String>();
    read::normal_address(text).ok_or_else(|| Refused::invalid(format!("not an address that malle takes: {}", shown())))
}

pub(super) fn account_id(bytes: &[u8]) -> Result<AccountId, Refused> {
    AccountId::try_from(bytes).map_err(|error| Refused::invalid(error.to_string()))
}

pub(super) fn op_id(bytes: &[u8]) -> Result<OpId, Refused> {
    OpId::try_from(bytes).map_err(|error| Refused::invalid(error.to_string()))
}

fn state_of(state: AccountState) -> v1::AccountState {
    match state {
        AccountState::Active => v1::AccountState::Active,
        AccountState::Suspended => v1::AccountState::Suspended,
    }
}

fn node_of(node: directory::Node) -> Node {
    Node {
        id: node.id.0,
        region: node.region,
        zone: node.zone,
        client_address: node.client_address,
        peer_address: node.peer_address,
        state: if node.retired {
            NodeState::Retired
        } else {
            NodeState::Active
        }
        .into(),
    }
}

fn account_of((account, addresses, history, has_password): Whole) -> Account {
    Account {
        id: account.id.to_vec().into(),
        shard: account.shard.0,
        placement_epoch: account.placement_epoch,
        state: state_of(account.state).into(),
        quota_bytes: account.quota_bytes,
        created_ms: account.created_ms,
        addresses: addresses
            .into_iter()
            .map(|row| Address {
                address: row.address,
                primary: row.primary,
                since_ms: row.since_ms,
            })
            .collect(),
        history: history
            .into_iter()
            .map(|row| AddressEvent {
                time_ms: row.time_ms,
                address: row.address,
                event: row.event,
            })
            .collect(),
        has_password,
    }
}

#[tonic::async_trait]
impl Directory for DirectoryApi {
    async fn resolve(&self, request: Request<ResolveRequest>) -> Result<Response<ResolveReply>, Status> {
        error::permitted(&request, Call::Resolve)?;
        error::reply(self.resolve_one(request.into_inner()).await)
    }

    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginReply>, Status> {
        let (peer, _) = error::permitted(&request, Call::Login)?;
        error::reply(self.log_in(&peer, request.into_inner()).await)
    }

    async fn renew_token(&self, request: Request<RenewTokenRequest>) -> Result<Response<LoginReply>, Status> {
        let (peer, _) = error::permitted(&request, Call::RenewToken)?;
        error::reply(self.renew(&peer, request.into_inner()).await)
    }

    async fn check_logins(&self, request: Request<CheckLoginsRequest>) -> Result<Response<CheckLoginsReply>, Status> {
        let (peer, _) = error::permitted(&request, Call::CheckLogins)?;
        error::reply(DirectoryApi::check_logins(self, &peer, request.into_inner()).await)
    }

    async fn sharers(&self, request: Request<SharersRequest>) -> Result<Response<SharersReply>, Status> {
        let (peer, _) = error::permitted(&request, Call::Sharers)?;
        error::reply(DirectoryApi::sharers(self, &peer, request.into_inner()).await)
    }

    async fn account_create(&self, request: Request<AccountCreateRequest>) -> Result<Response<Account>, Status> {
        error::permitted(&request, Call::AccountCreate)?;
        error::reply(self.create(request.into_inner()).await)
    }

    async fn account_show(&self, request: Request<AccountShowRequest>) -> Result<Response<Account>, Status> {
        error::permitted(&request, Call::AccountShow)?;
        let who = match request.into_inner().who {
            Some(account_show_request::Who::Address(text)) => Who::Address(text),
            Some(account_show_request::Who::Account(bytes)) => Who::Account(account_id(&bytes)?),
            None => return Err(Refused::invalid("an address or an account").into()),
        };
        error::reply(self.whole(who).await)
    }

    async fn account_set(&self, request: Request<AccountSetRequest>) -> Result<Response<Account>, Status> {
        error::permitted(&request, Call::AccountSet)?;
        error::reply(self.set(request.into_inner()).await)
    }

    async fn address_add(&self, request: Request<AddressAddRequest>) -> Result<Response<Account>, Status> {
        error::permitted(&request, Call::AddressAdd)?;
        let request = request.into_inner();
        let op = Op::AddressAdd {
            op_id: op_id(&request.op_id)?,
            account: account_id(&request.account)?,
            address: normal(&request.address)?,
            primary: request.primary,
        };
        let account = self.change(op).await?;
        error::reply(self.whole(Who::Account(account)).await)
    }

    async fn address_remove(&self, request: Request<AddressRemoveRequest>) -> Result<Response<Account>, Status> {
        error::permitted(&request, Call::AddressRemove)?;
        let request = request.into_inner();
        let op = Op::AddressRemove {
            op_id: op_id(&request.op_id)?,
            account: account_id(&request.account)?,
            address: normal(&request.address)?,
        };
        let account = self.change(op).await?;
        error::reply(self.whole(Who::Account(account)).await)
    }

    async fn app_password_add(
        &self,
        request: Request<AppPasswordAddRequest>,
    ) -> Result<Response<AppPasswords>, Status> {
        error::permitted(&request, Call::AppPasswordAdd)?;
        error::reply(self.add_app_password(request.into_inner()).await)
    }

    async fn app_password_remove(
        &self,
        request: Request<AppPasswordRemoveRequest>,
    ) -> Result<Response<AppPasswords>, Status> {
        error::permitted(&request, Call::AppPasswordRemove)?;
        error::reply(self.remove_app_password(request.into_inner()).await)
    }

    async fn app_password_list(
        &self,
        request: Request<AppPasswordListRequest>,
    ) -> Result<Response<AppPasswords>, Status> {
        error::permitted(&request, Call::AppPasswordList)?;
        let account = account_id(&request.into_inner().account)?;
        error::reply(self.app_passwords(account).await)
    }

    async fn topology(&self, request: Request<TopologyRequest>) -> Result<Response<TopologyReply>, Status> {
        error::permitted(&request, Call::Topology)?;
        error::reply(self.topology_now().await)
    }
}
