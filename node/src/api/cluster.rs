//! The `Cluster` service: what operators ask of the machines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use malle_journal::Disk;
use malle_machine::directory;
use malle_machine::planner::{self, Goal, Input, NodeSpec, ShardSpec, Standing};
use malle_proto::v1::cluster_server::Cluster;
use malle_proto::v1::{
    CheckpointReply, CheckpointRequest, InitReply, InitRequest, LeaderMoveReply, LeaderMoveRequest, NodeAddReply,
    NodeAddRequest, NodeReplaceReply, NodeReplaceRequest, NodeStatusReply, NodeStatusRequest,
};
use malle_proto::{NodeId, ShardId, limits, v1};
use malle_rt::Instant;
use tonic::{Request, Response, Status};

use super::error::{self, Refused};
use crate::bodies::{Bodies, Collector, Scrub};
use crate::env::Env;
use crate::placement::{ReplaceError, Replacements, Replicas, directory_input, directory_voters, register};
use crate::raft::{Barrier, Group, GroupError, Groups};
use crate::security::Call;

/// A step of an operator takes at most this long; the operator asks again.
const STEP: Duration = Duration::from_secs(30);
/// Moving the replicas of a node takes as long as its data: one call works this long, the next goes on.
const REPLACE: Duration = Duration::from_secs(120);
/// Time for the first leader of a new directory to be elected.
const FIRST_LEADER: Duration = Duration::from_secs(20);

/// What a node says of itself.
#[derive(Clone)]
pub struct NodeFacts {
    /// Its id.
    pub node: NodeId,
    /// Its region.
    pub region: String,
    /// Its disk.
    pub disk: Arc<dyn Disk>,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// Since when it runs.
    pub started: Instant,
    /// Where its health and metrics are.
    pub telemetry: Option<SocketAddr>,
}

/// The `Cluster` service.
#[derive(Clone)]
pub struct ClusterApi {
    pub(super) groups: Arc<Groups>,
    pub(super) replicas: Replicas,
    bodies: Arc<Bodies>,
    upkeep: Upkeep,
    replacements: Replacements,
    pub(super) env: Env,
    facts: NodeFacts,
}

/// What a node does to its bodies by itself.
#[derive(Clone)]
pub struct Upkeep {
    /// Reads them again and again.
    pub scrub: Arc<Scrub>,
    /// Lets go of those that nothing names.
    pub collector: Arc<Collector>,
}

impl ClusterApi {
    /// Answers for these groups.
    pub fn new(
        groups: Arc<Groups>,
        bodies: Arc<Bodies>,
        upkeep: Upkeep,
        replacements: Replacements,
        env: Env,
        facts: NodeFacts,
    ) -> Self {
        ClusterApi {
            groups,
            replicas: replacements.replicas(),
            bodies,
            upkeep,
            replacements,
            env,
            facts,
        }
    }

    pub(super) fn directory(&self) -> Result<Arc<Group>, Refused> {
        self.groups
            .get(ShardId::DIRECTORY)
            .ok_or_else(|| Refused::unavailable("the directory is not open here"))
    }

    fn group(&self, shard: u32) -> Result<Arc<Group>, Refused> {
        let shard = ShardId(shard);
        self.groups
            .get(shard)
            .ok_or_else(|| Refused::not_found(format!("no replica of shard {shard} on this node")))
    }

    async fn init_cluster(&self, request: InitRequest) -> Result<InitReply, Refused> {
        let nodes: Vec<directory::Node> = request.nodes.into_iter().map(node_of).collect::<Result<_, Refused>>()?;
        if !nodes.iter().any(|node| node.id == self.facts.node) {
            return Err(Refused::invalid(format!(
                "node {} must be one of the first nodes",
                self.facts.node
            )));
        }
        let shards = plan_shards(&nodes, request.shards, request.replicas)?;
        let directory = self.directory()?;
        let voters = first_voters(&nodes, self.facts.node);
        let members = nodes
            .iter()
            .filter(|node| voters.contains(&node.id))
            .map(|node| (node.id, node.peer_address.clone()))
            .collect();
        directory.initialize(members).await?;
        let deadline = malle_rt::now() + FIRST_LEADER;
        let cluster = self.env.cluster_id();
        let op = directory::Op::Init {
            cluster,
            name: request.cluster_name,
            nodes,
            shards,
            token_key: self.env.token_key(1),
        };
        loop {
            match self.groups.propose_directory(op.clone(), deadline).await {
                Ok(directory::Outcome::Refused(refusal)) => return Err(refusal.into()),
                Ok(_) => {
                    return Ok(InitReply {
                        cluster: cluster.to_vec().into(),
                    });
                }
                // The first election is still under way.
                Err(GroupError::NotLeader { .. } | GroupError::Unavailable(_)) if malle_rt::now() < deadline => {
                    malle_rt::sleep(Duration::from_millis(limits::RETRY_FIRST_MS)).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn status(&self) -> Result<NodeStatusReply, Refused> {
        let mut groups: Vec<v1::GroupStatus> = Vec::new();
        for group in self.groups.all() {
            let mut status = group.status();
            if group.shard() != ShardId::DIRECTORY {
                let deadline = malle_rt::now() + STEP;
                status.accounts = group
                    .read(Barrier::Local, deadline, malle_machine::shard::read::account_count)
                    .await?;
            }
            groups.push(status);
        }
        for (shard, reason) in self.groups.failed() {
            tracing::debug!(%shard, reason, "asked about a group that is not open");
            groups.push(v1::GroupStatus {
                shard: shard.0,
                role: "failed".into(),
                ..v1::GroupStatus::default()
            });
        }
        let (disk, data_dir) = (self.facts.disk.clone(), self.facts.data_dir.clone());
        let space = malle_rt::blocking(move || Ok((disk.free_bytes(&data_dir)?, disk.total_bytes(&data_dir)?))).await;
        let (disk_free_bytes, disk_total_bytes) =
            space.map_err(|error: std::io::Error| Refused::internal(format!("the data directory: {error}")))?;
        let (bodies, body_bytes) = self.bodies.counts();
        Ok(NodeStatusReply {
            node: self.facts.node.0,
            region: self.facts.region.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from((malle_rt::now() - self.facts.started).as_millis()).unwrap_or(u64::MAX),
            groups,
            failed: self.groups.duty().condemned().borrow().clone().unwrap_or_default(),
            disk_free_bytes,
            disk_total_bytes,
            bodies,
            body_bytes,
            telemetry_address: self
                .facts
                .telemetry
                .map(|address| address.to_string())
                .unwrap_or_default(),
            scrub: Some(super::convert::scrub(self.upkeep.scrub.report())),
            short_of_room: self.bodies.disk().shortage().unwrap_or_default(),
            collect: Some(super::convert::collect(self.upkeep.collector.report())),
        })
    }

    async fn replace(&self, request: NodeReplaceRequest) -> Result<NodeReplaceReply, Refused> {
        let node = node_of(
            request
                .node
                .ok_or_else(|| Refused::invalid("the new node is missing"))?,
        )?;
        let lost = NodeId(request.replaces);
        if node.id == lost {
            return Err(Refused::invalid(
                "a lost node comes back under a new id: its old log may lack what it acknowledged",
            ));
        }
        let deadline = malle_rt::now() + REPLACE;
        let moved = self.replacements.replace(node, lost, deadline).await?;
        Ok(NodeReplaceReply { groups_moved: moved })
    }

    async fn add(&self, request: NodeAddRequest) -> Result<NodeAddReply, Refused> {
        let node = node_of(request.node.ok_or_else(|| Refused::invalid("the node is missing"))?)?;
        let directory = self.directory()?;
        if !directory.is_leader() {
            return Err(GroupError::NotLeader {
                leader: directory.leader(),
            }
            .into());
        }
        register(&self.groups, node, malle_rt::now() + STEP).await?;
        Ok(NodeAddReply {})
    }
}

impl From<ReplaceError> for Refused {
    fn from(error: ReplaceError) -> Self {
        match error {
            ReplaceError::Group(error) => error.into(),
            ReplaceError::Refused(refusal) => refusal.into(),
            behind @ ReplaceError::Behind { .. } => Refused::unavailable(behind.to_string()),
        }
    }
}

fn node_of(node: v1::Node) -> Result<directory::Node, Refused> {
    if node.id == 0 || node.region.is_empty() || node.client_address.is_empty() || node.peer_address.is_empty() {
        return Err(Refused::invalid(
            "a node has an id from 1, a region, a client address and a peer address",
        ));
    }
    Ok(directory::Node {
        id: NodeId(node.id),
        region: node.region,
        zone: node.zone,
        client_address: node.client_address,
        peer_address: node.peer_address,
        retired: false,
    })
}

/// Spreads shards over the nodes: preferred leaders evenly, the other replicas where the planner puts them, as far apart as they can be and
/// evenly, too. The nodes take their turns in the order in which they are given.
fn plan_shards(nodes: &[directory::Node], shards: u32, replicas: u32) -> Result<Vec<directory::Shard>, Refused> {
    let replicas = replicas as usize;
    if replicas.is_multiple_of(2) || replicas == 0 || replicas > nodes.len() {
        return Err(Refused::invalid(format!(
            "{replicas} replicas on {} nodes: an odd number of at most all",
            nodes.len()
        )));
    }
    if shards == 0 || shards as usize * replicas > limits::GROUPS_PER_NODE_MAX * nodes.len() {
        return Err(Refused::invalid(format!(
            "{shards} shards do not fit on {} nodes",
            nodes.len()
        )));
    }
    let leader = |number: u32| &nodes[number as usize % nodes.len()];
    let made = planner::plan(&Input {
        goal: Goal::Node,
        replicas,
        nodes: nodes.iter().map(taker).collect(),
        shards: (0..shards)
            .map(|number| ShardSpec {
                id: ShardId(number + 1),
                replicas: vec![leader(number).id],
                home_region: leader(number).region.clone(),
                bytes: 0,
                busy: false,
            })
            .collect(),
        balance: false,
    });
    if let Some(problem) = made.problems.into_iter().next() {
        return Err(Refused::invalid(problem));
    }
    let mut joins: BTreeMap<ShardId, BTreeSet<NodeId>> = BTreeMap::new();
    for one in made.moves {
        joins.entry(one.shard).or_default().extend(one.join);
    }
    let plan = (0..shards).map(|number| {
        let (id, first) = (ShardId(number + 1), leader(number));
        let others = joins.remove(&id).unwrap_or_default();
        let turns = nodes
            .iter()
            .cycle()
            .skip(number as usize % nodes.len() + 1)
            .take(nodes.len());
        let others = turns.filter(|node| others.contains(&node.id)).map(|node| node.id);
        directory::Shard {
            id,
            replicas: std::iter::once(first.id).chain(others).collect(),
            home_region: first.region.clone(),
            epoch: 1,
        }
    });
    Ok(plan.collect())
}

/// Who votes in a new directory, the node that makes it among them: 3 or 5, as far apart as they can be. The others learn: the driver adds them.
fn first_voters(nodes: &[directory::Node], maker: NodeId) -> BTreeSet<NodeId> {
    let nodes: Vec<NodeSpec> = nodes.iter().map(taker).collect();
    let mut input = directory_input(&nodes, &BTreeSet::from([maker]), Goal::Node, "");
    input.replicas = directory_voters(&nodes, nodes.len());
    let joined = planner::plan(&input).moves.into_iter().filter_map(|one| one.join);
    joined.chain([maker]).collect()
}

/// A node of a new cluster: all of them take the same.
fn taker(node: &directory::Node) -> NodeSpec {
    NodeSpec {
        id: node.id,
        region: node.region.clone(),
        zone: node.zone.clone(),
        weight: 1,
        standing: Standing::Serving,
    }
}

#[tonic::async_trait]
impl Cluster for ClusterApi {
    async fn init(&self, request: Request<InitRequest>) -> Result<Response<InitReply>, Status> {
        error::permitted(&request, Call::ClusterInit)?;
        error::reply(self.init_cluster(request.into_inner()).await)
    }

    async fn node_status(&self, request: Request<NodeStatusRequest>) -> Result<Response<NodeStatusReply>, Status> {
        error::permitted(&request, Call::NodeStatus)?;
        error::reply(self.status().await)
    }

    async fn node_replace(&self, request: Request<NodeReplaceRequest>) -> Result<Response<NodeReplaceReply>, Status> {
        error::permitted(&request, Call::NodeReplace)?;
        error::reply(self.replace(request.into_inner()).await)
    }

    async fn node_add(&self, request: Request<NodeAddRequest>) -> Result<Response<NodeAddReply>, Status> {
        error::permitted(&request, Call::NodeAdd)?;
        error::reply(self.add(request.into_inner()).await)
    }

    async fn leader_move(&self, request: Request<LeaderMoveRequest>) -> Result<Response<LeaderMoveReply>, Status> {
        error::permitted(&request, Call::LeaderMove)?;
        let request = request.into_inner();
        error::reply(
            async {
                self.group(request.shard)?.transfer_leader(NodeId(request.to)).await?;
                Ok(LeaderMoveReply {})
            }
            .await,
        )
    }

    async fn layout_show(&self, request: Request<v1::LayoutShowRequest>) -> Result<Response<v1::LayoutReply>, Status> {
        error::permitted(&request, Call::LayoutShow)?;
        error::reply(self.show_layout().await)
    }

    async fn layout_stage(
        &self,
        request: Request<v1::LayoutStageRequest>,
    ) -> Result<Response<v1::LayoutReply>, Status> {
        error::permitted(&request, Call::LayoutStage)?;
        error::reply(self.stage_layout(request.into_inner()).await)
    }

    async fn layout_plan(
        &self,
        request: Request<v1::LayoutPlanRequest>,
    ) -> Result<Response<v1::LayoutPlanReply>, Status> {
        error::permitted(&request, Call::LayoutPlan)?;
        error::reply(self.plan_layout().await)
    }

    async fn layout_apply(
        &self,
        request: Request<v1::LayoutApplyRequest>,
    ) -> Result<Response<v1::LayoutReply>, Status> {
        let (peer, _) = error::permitted(&request, Call::LayoutApply)?;
        let by = peer.identity.to_string();
        error::reply(self.apply_layout(request.into_inner(), by).await)
    }

    async fn layout_revert(
        &self,
        request: Request<v1::LayoutRevertRequest>,
    ) -> Result<Response<v1::LayoutReply>, Status> {
        error::permitted(&request, Call::LayoutRevert)?;
        error::reply(self.revert_layout(request.into_inner()).await)
    }

    async fn node_stand(&self, request: Request<v1::NodeStandRequest>) -> Result<Response<v1::NodeStandReply>, Status> {
        error::permitted(&request, Call::NodeStand)?;
        error::reply(self.stand(request.into_inner()).await)
    }

    async fn task_list(&self, request: Request<v1::TaskListRequest>) -> Result<Response<v1::TaskListReply>, Status> {
        error::permitted(&request, Call::TaskList)?;
        error::reply(self.tasks().await)
    }

    async fn task_cancel(
        &self,
        request: Request<v1::TaskCancelRequest>,
    ) -> Result<Response<v1::TaskCancelReply>, Status> {
        error::permitted(&request, Call::TaskCancel)?;
        error::reply(self.cancel_task(request.into_inner()).await)
    }

    async fn checkpoint(&self, request: Request<CheckpointRequest>) -> Result<Response<CheckpointReply>, Status> {
        error::permitted(&request, Call::Checkpoint)?;
        let request = request.into_inner();
        error::reply(
            async {
                let index = self.group(request.shard)?.checkpoint(limits::LOG_KEPT_ENTRIES).await?;
                Ok(CheckpointReply { index })
            }
            .await,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::{first_voters, plan_shards};
    use malle_machine::directory::Node;
    use malle_proto::NodeId;

    fn node(id: u64, region: &str) -> Node {
        let address = format!("h{id}:1");
        Node {
            id: NodeId(id),
            region: region.into(),
            zone: "a".into(),
            client_address: address.clone(),
            peer_address: address,
            retired: false,
        }
    }

    #[test]
    fn a_new_directory_has_three_voters_in_three_regions_and_who_makes_it_is_one() {
        let nodes = [
            node(1, "n"),
            node(2, "n"),
            node(3, "c"),
            node(4, "c"),
            node(5, "s"),
            node(6, "s"),
        ];
        let ids = |nodes: &[Node], maker| -> Vec<u64> {
            first_voters(nodes, NodeId(maker)).into_iter().map(|id| id.0).collect()
        };
        assert_eq!(ids(&nodes, 2), [2, 3, 5]);
        assert_eq!(ids(&nodes[..2], 1), [1, 2]);
        assert_eq!(ids(&nodes[..3], 3), [1, 2, 3]);
    }

    #[test]
    fn replicas_stand_in_different_regions_and_leaders_are_spread() {
        let nodes = [
            node(1, "n"),
            node(2, "n"),
            node(3, "c"),
            node(4, "c"),
            node(5, "s"),
            node(6, "s"),
        ];
        let plan = plan_shards(&nodes, 12, 3).unwrap();
        for shard in &plan {
            let mut regions: Vec<&str> = shard
                .replicas
                .iter()
                .map(|id| nodes.iter().find(|node| node.id == *id).unwrap().region.as_str())
                .collect();
            regions.sort_unstable();
            assert_eq!(regions, ["c", "n", "s"], "shard {}", shard.id);
        }
        for node in &nodes {
            assert_eq!(plan.iter().filter(|shard| shard.replicas[0] == node.id).count(), 2);
            let held = plan.iter().filter(|shard| shard.replicas.contains(&node.id)).count();
            assert_eq!(held, 6, "node {} holds its share of 36 replicas", node.id);
        }
        let three = plan_shards(&nodes[..3], 3, 3).unwrap();
        let order: Vec<Vec<u64>> = three
            .iter()
            .map(|shard| shard.replicas.iter().map(|node| node.0).collect())
            .collect();
        assert_eq!(order, [[1, 2, 3], [2, 3, 1], [3, 1, 2]], "each node in turn");
        assert!(plan_shards(&nodes, 1, 2).is_err(), "an even number of replicas");
        assert!(plan_shards(&nodes, 1, 7).is_err(), "more replicas than nodes");
        assert!(plan_shards(&nodes, 0, 3).is_err(), "no shard");
    }
}
