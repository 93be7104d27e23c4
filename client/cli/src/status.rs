//! What the answers of all nodes say of the cluster as a whole: is every group led, are its replicas there, equal and close behind?
//!
//! A pure function from answers to a report, so that each verdict has a test. Nodes answer one after the other and go on working: replicas
//! are compared only where they stand at the same log index, and a small lag is no fault.

use std::collections::{BTreeMap, BTreeSet};

use malle_client::{CollectStatus, GroupStatus, Layout, NodeId, NodeStatus, ScrubStatus, ShardId, Task, Topology};
use malle_proto::limits;
use serde::Serialize;

use crate::output;
use crate::shard::numbers;
use crate::task;

/// A replica further behind than this is catching up, not keeping up: about a second of the heaviest load.
const LAG_MAX_ENTRIES: u64 = 10_000;

/// The whole.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Nothing needs a look.
    pub healthy: bool,
    summary: String,
    cluster: String,
    cluster_id: String,
    /// What needs a look, one sentence each.
    problems: Vec<String>,
    nodes: Vec<NodeRow>,
    groups: Vec<GroupRow>,
    /// Moves of replicas that are under way.
    tasks: Vec<task::Row>,
}

impl Report {
    /// With what operators want of the nodes, and what moves.
    pub fn with_growth(mut self, layout: &Layout, tasks: Vec<Task>) -> Report {
        for known in &layout.nodes {
            let Some(row) = self.nodes.iter_mut().find(|row| row.id == known.id.0) else {
                continue;
            };
            row.standing = Some(known.standing.clone());
            match (row.state, known.standing.as_str()) {
                ("up", "draining") => row.state = "draining",
                ("up", "leaving") => row.state = "leaving",
                (_, "removed" | "dead") => row.state = "dead",
                _ => {}
            }
        }
        self.tasks = tasks
            .into_iter()
            .filter(|task| !task.is_over())
            .map(task::row)
            .collect();
        self
    }
}

#[derive(Debug, Serialize)]
struct NodeRow {
    id: u64,
    region: String,
    zone: String,
    address: String,
    /// "up", "draining", "leaving", "full" (its disk takes no new mail), "failed" (it takes no writes), "down", "dead" (its replicas are
    /// rebuilt elsewhere) or "retired".
    state: &'static str,
    /// What the directory says is done with it; `None` where it was not asked.
    standing: Option<String>,
    /// Why it is full, failed or down.
    why: Option<String>,
    version: Option<String>,
    uptime_ms: Option<u64>,
    disk_free_bytes: Option<u64>,
    disk_total_bytes: Option<u64>,
    /// Rows of all its views.
    rows: Option<u64>,
    bodies: Option<u64>,
    body_bytes: Option<u64>,
    scrub: Option<ScrubRow>,
    /// IP:PORT of its health and metrics.
    telemetry_address: Option<String>,
    collect: Option<CollectRow>,
}

/// What collection has done since the node's start, and how its volumes are.
#[derive(Debug, Serialize)]
struct CollectRow {
    rounds: u64,
    finished_ms: u64,
    freed: u64,
    freed_bytes: u64,
    carried_bytes: u64,
    volumes_freed: u64,
    volumes_freed_bytes: u64,
    /// Now: the volumes, what of them no body needs, and how many could not be emptied.
    volume_bytes: u64,
    garbage_bytes: u64,
    stuck: u64,
}

/// What the scrub has done since the node's start; times are milliseconds since 1970, 0 for never.
#[derive(Debug, Serialize)]
struct ScrubRow {
    running: bool,
    started_ms: u64,
    /// Read in the last round.
    bodies: u64,
    bytes: u64,
    rounds: u64,
    finished_ms: u64,
    took_ms: u64,
    /// Found: damaged, not given back by the disk, not there.
    rotten: u64,
    unreadable: u64,
    absent: u64,
    /// Of those: there again; not given by any peer yet.
    repaired: u64,
    open: u64,
}

#[derive(Debug, Serialize)]
struct GroupRow {
    shard: u32,
    leader: Option<u64>,
    term: u64,
    committed_index: u64,
    accounts: u64,
    rows: u64,
    /// "equal", "different", "moving" (no two replicas stand at the same index now) or "unknown" (not asked for).
    digests: &'static str,
    replicas: Vec<ReplicaRow>,
}

#[derive(Debug, Serialize)]
struct ReplicaRow {
    node: u64,
    /// The node's word, or "missing" when the node does not answer or does not hold the group.
    role: String,
    applied_index: Option<u64>,
    /// Committed entries that it has not applied.
    lag: Option<u64>,
    /// Every body named up to its applied index is there.
    bodies_complete: Option<bool>,
    digest: Option<String>,
    rebuilds: Option<u64>,
}

/// Puts the answers of all nodes together.
pub fn report(topology: &Topology, answers: Vec<(NodeId, Result<NodeStatus, String>)>) -> Report {
    let answers: BTreeMap<NodeId, Result<NodeStatus, String>> = answers.into_iter().collect();
    let mut problems = Vec::new();
    let nodes = topology
        .nodes
        .iter()
        .map(|node| node_row(node, answers.get(&node.id), &mut problems))
        .collect();
    let groups: Vec<GroupRow> = group_replicas(topology, &answers)
        .into_iter()
        .map(|(shard, replicas)| group_row(shard, &replicas, &answers, &mut problems))
        .collect();
    let up = answers
        .values()
        .filter(|answer| answer.as_ref().is_ok_and(|status| status.failed.is_none()))
        .count();
    let led = groups.iter().filter(|group| group.leader.is_some()).count();
    let word = if problems.is_empty() { "healthy" } else { "degraded" };
    let counts = format!(
        "{up} of {} nodes up, {led} of {} groups led",
        answers.len(),
        groups.len()
    );
    let summary = match problems.len() {
        0 if groups.iter().all(|group| group.digests == "equal") => format!("{word}: {counts}, replicas agree"),
        0 => format!("{word}: {counts}, not all replicas could be compared now"),
        1 => format!("{word}: {counts}, 1 problem"),
        many => format!("{word}: {counts}, {many} problems"),
    };
    Report {
        healthy: problems.is_empty(),
        summary,
        cluster: topology.cluster_name.clone(),
        cluster_id: topology.cluster.to_string(),
        problems,
        nodes,
        groups,
        tasks: Vec::new(),
    }
}

fn node_row(
    node: &malle_client::Node,
    answer: Option<&Result<NodeStatus, String>>,
    problems: &mut Vec<String>,
) -> NodeRow {
    let (state, why) = match answer {
        _ if node.retired => ("retired", None),
        Some(Ok(NodeStatus { failed: Some(why), .. })) => ("failed", Some(why.clone())),
        Some(Ok(NodeStatus {
            short_of_room: Some(why),
            ..
        })) => ("full", Some(format!("{why}; see docs/operations/disk-full.md"))),
        Some(Ok(_)) => ("up", None),
        Some(Err(why)) => ("down", Some(why.clone())),
        None => ("down", Some("it was not asked".to_owned())),
    };
    if let Some(why) = &why {
        problems.push(format!("node {} is {state}: {why}", node.id));
    }
    let status = answer.and_then(|answer| answer.as_ref().ok());
    if let Some(open) = status.map(|status| status.scrub.open).filter(|open| *open > 0) {
        problems.push(format!(
            "node {}: {open} bodies are damaged or missing there and no peer gave them yet; see its log, and docs/operations/scrub.md",
            node.id
        ));
    }
    let rows = status.map(|status| status.groups.iter().map(|group| group.rows).sum::<u64>());
    let whose = format!("node {} holds", node.id);
    problems.extend(rows.and_then(|rows| too_many_rows(&whose, rows, limits::ROWS_PER_NODE_AIM)));
    NodeRow {
        id: node.id.0,
        region: node.region.clone(),
        zone: node.zone.clone(),
        address: node.client_address.clone(),
        state,
        standing: None,
        why,
        version: status.map(|status| status.version.clone()),
        uptime_ms: status.map(|status| status.uptime_ms),
        disk_free_bytes: status.map(|status| status.disk_free_bytes),
        disk_total_bytes: status.map(|status| status.disk_total_bytes),
        rows,
        bodies: status.map(|status| status.bodies),
        body_bytes: status.map(|status| status.body_bytes),
        scrub: status.map(|status| scrub_row(&status.scrub)),
        telemetry_address: status.and_then(|status| status.telemetry_address.clone()),
        collect: status.map(|status| collect_row(&status.collect)),
    }
}

fn collect_row(collect: &CollectStatus) -> CollectRow {
    CollectRow {
        rounds: collect.rounds,
        finished_ms: collect.finished_ms,
        freed: collect.freed,
        freed_bytes: collect.freed_bytes,
        carried_bytes: collect.carried_bytes,
        volumes_freed: collect.volumes_freed,
        volumes_freed_bytes: collect.volumes_freed_bytes,
        volume_bytes: collect.volume_bytes,
        garbage_bytes: collect.garbage_bytes,
        stuck: collect.stuck,
    }
}

/// What the volumes take, and how much of it is garbage.
fn space_cell(collect: &CollectRow) -> String {
    let percent = (u128::from(collect.garbage_bytes) * 100).checked_div(u128::from(collect.volume_bytes));
    let size = output::size(collect.volume_bytes);
    format!("{size}, {}% garbage", percent.unwrap_or(0))
}

fn scrub_row(scrub: &ScrubStatus) -> ScrubRow {
    ScrubRow {
        running: scrub.running,
        started_ms: scrub.started_ms,
        bodies: scrub.bodies,
        bytes: scrub.bytes,
        rounds: scrub.rounds,
        finished_ms: scrub.finished_ms,
        took_ms: scrub.took_ms,
        rotten: scrub.rotten,
        unreadable: scrub.unreadable,
        absent: scrub.absent,
        repaired: scrub.repaired,
        open: scrub.open,
    }
}

/// What the scrub found, in few words: whole rounds first, for nothing found says little before the first.
fn scrub_cell(scrub: &ScrubRow) -> String {
    let found = scrub.rotten + scrub.unreadable + scrub.absent;
    let rounds = match scrub.rounds {
        1 => "1 round".to_owned(),
        rounds => format!("{rounds} rounds"),
    };
    match found {
        0 => format!("{rounds}, clean"),
        found => format!("{rounds}, {found} found, {} repaired", scrub.repaired),
    }
}

/// Which nodes should hold which group: as the directory says, and as the groups' own voters say, which for the directory itself is the
/// only source.
fn group_replicas(
    topology: &Topology,
    answers: &BTreeMap<NodeId, Result<NodeStatus, String>>,
) -> BTreeMap<ShardId, BTreeSet<NodeId>> {
    let mut replicas: BTreeMap<ShardId, BTreeSet<NodeId>> = BTreeMap::new();
    for shard in &topology.shards {
        replicas.entry(shard.id).or_default().extend(&shard.replicas);
    }
    for group in answers.values().flatten().flat_map(|status| &status.groups) {
        // Learners are expected nowhere, and are shown where they are.
        replicas.entry(group.shard).or_default().extend(&group.voters);
    }
    replicas
}

/// What each of these nodes says of the group.
fn held<'a>(
    shard: ShardId,
    replicas: &BTreeSet<NodeId>,
    answers: &'a BTreeMap<NodeId, Result<NodeStatus, String>>,
) -> Vec<(NodeId, Option<&'a GroupStatus>)> {
    let of = |node: &NodeId| answers.get(node).and_then(|answer| answer.as_ref().ok());
    let in_it = |status: &'a NodeStatus| status.groups.iter().find(|group| group.shard == shard);
    replicas.iter().map(|node| (*node, of(node).and_then(in_it))).collect()
}

fn group_row(
    shard: ShardId,
    replicas: &BTreeSet<NodeId>,
    answers: &BTreeMap<NodeId, Result<NodeStatus, String>>,
    problems: &mut Vec<String>,
) -> GroupRow {
    let held = held(shard, replicas, answers);
    let present = || {
        held.iter()
            .filter_map(|(node, group)| group.map(|group| (*node, group)))
    };
    let committed = present().map(|(_, group)| group.committed_index).max().unwrap_or(0);
    // A leader that was cut off may still believe that it leads: the higher term is right.
    let leader = present()
        .filter(|(_, group)| group.role == "leader")
        .max_by_key(|(_, group)| group.term);
    let digests = digests(present());
    if leader.is_none() {
        problems.push(format!("group {shard} has no leader"));
    }
    if digests == "different" {
        problems.push(format!(
            "group {shard}: replicas differ at the same log index; stop writing and keep all copies"
        ));
    }
    let many_rows = present().map(|(_, group)| group.rows).max().unwrap_or(0);
    problems.extend(too_many_rows(
        &format!("group {shard} has"),
        many_rows,
        limits::ROWS_PER_SHARD_AIM,
    ));
    let mut rows = Vec::new();
    for (node, group) in &held {
        let lag = group.map(|group| committed.saturating_sub(group.applied_index));
        let answered = answers.get(node).is_some_and(Result::is_ok);
        match (group, lag) {
            (None, _) if answered => problems.push(format!("node {node} does not hold group {shard}")),
            (Some(group), _) if matches!(group.role.as_str(), "rebuilding" | "failed" | "stopped") => {
                problems.push(format!("group {shard} is {} on node {node}", group.role));
            }
            (_, Some(lag)) if lag > LAG_MAX_ENTRIES => {
                problems.push(format!("group {shard} is {lag} entries behind on node {node}"));
            }
            _ => {}
        }
        rows.push(ReplicaRow {
            node: node.0,
            role: group.map_or("missing".to_owned(), |group| group.role.clone()),
            applied_index: group.map(|group| group.applied_index),
            lag,
            bodies_complete: group.map(|group| group.bodies_complete_through >= group.applied_index),
            digest: group.and_then(|group| group.digest).map(|digest| hex(&digest)),
            rebuilds: group.map(|group| group.rebuilds),
        });
    }
    GroupRow {
        shard: shard.0,
        leader: leader.map(|(node, _)| node.0),
        term: present().map(|(_, group)| group.term).max().unwrap_or(0),
        committed_index: committed,
        accounts: present().map(|(_, group)| group.accounts).max().unwrap_or(0),
        rows: many_rows,
        digests,
        replicas: rows,
    }
}

/// More rows than one should hold: a rebuild would take too long.
fn too_many_rows(whose: &str, rows: u64, aim: u64) -> Option<String> {
    (rows > aim).then(|| format!("{whose} {rows} rows, {aim} are the aim; see docs/operations/rows.md"))
}

fn digests<'a>(groups: impl Iterator<Item = (NodeId, &'a GroupStatus)>) -> &'static str {
    let mut by_index: BTreeMap<u64, Vec<[u8; 16]>> = BTreeMap::new();
    for (_, group) in groups {
        if let Some(digest) = group.digest {
            by_index.entry(group.applied_index).or_default().push(digest);
        }
    }
    let compared = || by_index.values().filter(|digests| digests.len() > 1);
    if compared().any(|digests| digests.iter().any(|digest| *digest != digests[0])) {
        "different"
    } else if compared().next().is_some() {
        "equal"
    } else if by_index.is_empty() {
        "unknown"
    } else {
        "moving"
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The report for people: the verdict, what is wrong, nodes, groups.
pub fn text(report: &Report) -> String {
    let colour = if report.healthy { "\x1b[32m" } else { "\x1b[33m" };
    let (word, rest) = report.summary.split_once(':').unwrap_or((&report.summary, ""));
    let mut text = format!("{colour}{word}\x1b[0m:{rest}\n");
    for problem in &report.problems {
        text.push_str(&format!("  - {problem}\n"));
    }
    text.push_str(&format!("\ncluster {} ({})\n\n", report.cluster, report.cluster_id));
    let header = [
        "NODE", "REGION", "STATE", "UPTIME", "VERSION", "DISK", "SPACE", "SCRUB", "ADDRESS",
    ];
    text.push_str(&output::table(header, report.nodes.iter().map(node_cells)));
    text.push_str("\n\n");
    let header = [
        "GROUP",
        "LEADER",
        "REPLICAS",
        "COMMITTED",
        "LAG",
        "DIGESTS",
        "BODIES",
        "ACCOUNTS",
        "ROWS",
    ];
    text.push_str(&output::table(header, report.groups.iter().map(group_cells)));
    if !report.tasks.is_empty() {
        text.push_str(&format!("\n\n{} replicas move:\n", report.tasks.len()));
        text.push_str(&task::table(&report.tasks));
    }
    text
}

fn or_dash(value: Option<String>) -> String {
    value.unwrap_or_else(|| "-".to_owned())
}

fn node_cells(node: &NodeRow) -> [String; 9] {
    let disk = node.disk_free_bytes.zip(node.disk_total_bytes);
    [
        node.id.to_string(),
        node.region.clone(),
        node.state.to_owned(),
        or_dash(node.uptime_ms.map(output::span)),
        or_dash(node.version.clone()),
        or_dash(disk.map(|(free, total)| format!("{} of {} free", output::size(free), output::size(total)))),
        or_dash(node.collect.as_ref().map(space_cell)),
        or_dash(node.scrub.as_ref().map(scrub_cell)),
        node.address.clone(),
    ]
}

fn group_cells(group: &GroupRow) -> [String; 9] {
    let nodes: Vec<u64> = group.replicas.iter().map(|replica| replica.node).collect();
    let lags = group
        .replicas
        .iter()
        .map(|replica| or_dash(replica.lag.map(|lag| lag.to_string())));
    let fetching = group
        .replicas
        .iter()
        .filter(|replica| replica.bodies_complete == Some(false))
        .count();
    [
        match group.shard {
            0 => "0 (directory)".to_owned(),
            shard => shard.to_string(),
        },
        group.leader.map_or("none".to_owned(), |leader| leader.to_string()),
        numbers(&nodes),
        group.committed_index.to_string(),
        lags.collect::<Vec<_>>().join(","),
        group.digests.to_owned(),
        match fetching {
            0 => "complete".to_owned(),
            some => format!("fetching on {some}"),
        },
        group.accounts.to_string(),
        group.rows.to_string(),
    ]
}

#[cfg(test)]
pub mod tests;
