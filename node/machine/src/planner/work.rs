//! Shards and nodes while a plan is made: nodes by their place in a list, sets of places for replicas.

use std::collections::BTreeMap;

use malle_proto::{NodeId, ShardId};

use super::goal::{Goal, most_in_one};
use super::{Input, Move, Plan, Reason, Standing};

/// A node by its place in [`Work::nodes`].
pub type At = usize;

pub struct Node {
    pub id: NodeId,
    region: usize,
    zone: usize,
    pub weight: u64,
    pub standing: Standing,
    /// Replicas that it holds when the plan is done.
    pub load: u64,
}

pub struct Shard {
    pub id: ShardId,
    pub bytes: u64,
    pub busy: bool,
    home: Option<usize>,
    before: Vec<At>,
    /// Where its replicas stand when the plan is done.
    pub set: Vec<At>,
    /// The first reason for which it was touched, beside those that a node gives.
    reason: Option<Reason>,
}

/// What is wrong with a set of replicas, the worst first: smaller is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score {
    /// Replicas beyond what one loss may take.
    pub beyond_goal: usize,
    /// Pairs in one region.
    region_pairs: usize,
    not_at_home: bool,
    /// Pairs in one zone.
    zone_pairs: usize,
}

pub struct Work<'a> {
    input: &'a Input,
    /// By id; behind the known ones, those that only a shard names.
    pub nodes: Vec<Node>,
    /// By id.
    pub shards: Vec<Shard>,
    problems: Vec<String>,
}

impl<'a> Work<'a> {
    pub fn new(input: &'a Input) -> Self {
        let mut regions: BTreeMap<&str, usize> = BTreeMap::new();
        let mut zones: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut specs: Vec<_> = input.nodes.iter().collect();
        specs.sort_by_key(|node| node.id);
        let mut places: BTreeMap<NodeId, At> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(specs.len());
        for spec in specs {
            let (fresh_region, fresh_zone) = (regions.len(), zones.len());
            places.insert(spec.id, nodes.len());
            nodes.push(Node {
                id: spec.id,
                region: *regions.entry(&spec.region).or_insert(fresh_region),
                zone: *zones.entry((&spec.region, &spec.zone)).or_insert(fresh_zone),
                weight: spec.weight.into(),
                standing: if spec.weight == 0 {
                    Standing::Leaving
                } else {
                    spec.standing
                },
                load: 0,
            });
        }
        let mut specs: Vec<_> = input.shards.iter().collect();
        specs.sort_by_key(|shard| shard.id);
        let mut shards = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut before = Vec::with_capacity(spec.replicas.len());
            for replica in &spec.replicas {
                let at = *places.entry(*replica).or_insert_with(|| {
                    // Nobody knows where it stands: a region and a zone of its own, so that it is close to nobody.
                    nodes.push(Node {
                        id: *replica,
                        region: usize::MAX - nodes.len(),
                        zone: usize::MAX - nodes.len(),
                        weight: 0,
                        standing: Standing::Leaving,
                        load: 0,
                    });
                    nodes.len() - 1
                });
                nodes[at].load += 1;
                before.push(at);
            }
            shards.push(Shard {
                id: spec.id,
                bytes: spec.bytes,
                busy: spec.busy,
                home: regions.get(spec.home_region.as_str()).copied(),
                set: before.clone(),
                before,
                reason: None,
            });
        }
        Work {
            input,
            nodes,
            shards,
            problems: Vec::new(),
        }
    }

    pub fn score(&self, shard: usize, set: &[At]) -> Score {
        let (mut region_pairs, mut zone_pairs, mut beyond_goal) = (0, 0, 0);
        let most = most_in_one(self.input.replicas);
        for (place, &one) in set.iter().enumerate() {
            let before = |same: &dyn Fn(At) -> bool| set[..place].iter().filter(|&&other| same(other)).count();
            let in_region = before(&|other| self.nodes[other].region == self.nodes[one].region);
            let in_zone = before(&|other| self.nodes[other].zone == self.nodes[one].zone);
            region_pairs += in_region;
            zone_pairs += in_zone;
            let close = match self.input.goal {
                Goal::Node => 0,
                Goal::Zone => in_zone,
                Goal::Region => in_region,
            };
            beyond_goal += usize::from(close >= most);
        }
        let home = self.shards[shard].home;
        Score {
            beyond_goal,
            region_pairs,
            not_at_home: home.is_some_and(|home| set.iter().all(|&at| self.nodes[at].region != home)),
            zone_pairs,
        }
    }

    /// The set with `leave` out and `join` in.
    pub fn swapped(set: &[At], leave: Option<At>, join: Option<At>) -> Vec<At> {
        set.iter()
            .copied()
            .filter(|at| Some(*at) != leave)
            .chain(join)
            .collect()
    }

    /// Whether a node may be given a replica.
    pub fn takes(&self, at: At) -> bool {
        self.nodes[at].standing == Standing::Serving
    }

    pub fn change(&mut self, shard: usize, leave: Option<At>, join: Option<At>, reason: Reason) {
        let set = Self::swapped(&self.shards[shard].set, leave, join);
        self.shards[shard].set = set;
        self.shards[shard].reason.get_or_insert(reason);
        if let Some(at) = leave {
            self.nodes[at].load -= 1;
        }
        if let Some(at) = join {
            self.nodes[at].load += 1;
        }
    }

    /// The node whose replica beside those that stay is best: furthest apart, then least loaded for its weight, then the lowest id.
    pub fn best_join(&self, shard: usize, leave: Option<At>) -> Option<(Score, At)> {
        let set = &self.shards[shard].set;
        let able = (0..self.nodes.len()).filter(|at| self.takes(*at) && !set.contains(at));
        let scored = able.map(|at| (self.score(shard, &Self::swapped(set, leave, Some(at))), at));
        scored.min_by(|(score, a), (other, b)| {
            let (a, b) = (&self.nodes[*a], &self.nodes[*b]);
            let load = ((a.load + 1) * b.weight).cmp(&((b.load + 1) * a.weight));
            score.cmp(other).then(load)
        })
    }

    /// What must move. Each step may make room for another one, so a shard is mended until nothing changes any more: the number of dead, of
    /// leaving, of missing and of too close replicas only falls.
    pub fn mend(&mut self) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].busy || self.has_lost_its_majority(shard) {
                self.shards[shard].busy = true;
                continue;
            }
            let said = self.problems.len();
            loop {
                let before = self.shards[shard].set.clone();
                // What the last round could not do, this one may.
                self.problems.truncate(said);
                // The dead first: where there are too many replicas, living ones stay.
                self.replace_dead(shard);
                self.replace_leaving(shard);
                self.mend_count(shard);
                self.mend_goal(shard);
                if self.shards[shard].set == before {
                    break;
                }
            }
        }
    }

    /// No membership of such a shard can be changed: only a person can decide what becomes of it.
    fn has_lost_its_majority(&mut self, shard: usize) -> bool {
        let (dead, held) = (self.on(shard, Standing::Dead).len(), self.shards[shard].set.len());
        let lost = dead > 0 && (held - dead) * 2 <= held;
        if lost {
            let id = self.shards[shard].id;
            self.problems.push(format!(
                "shard {id} has lost its majority: {dead} of {held} replicas are dead"
            ));
        }
        lost
    }

    fn on(&self, shard: usize, standing: Standing) -> Vec<At> {
        let set = self.shards[shard].set.iter().copied();
        set.filter(|at| self.nodes[*at].standing == standing).collect()
    }

    fn replace_leaving(&mut self, shard: usize) {
        for at in self.on(shard, Standing::Leaving) {
            if self.shards[shard].set.len() > self.input.replicas {
                self.change(shard, Some(at), None, Reason::Leaving);
            } else if let Some((_, join)) = self.best_join(shard, Some(at)) {
                self.change(shard, Some(at), Some(join), Reason::Leaving);
            } else {
                self.no_place(shard, at);
            }
        }
    }

    fn replace_dead(&mut self, shard: usize) {
        for at in self.on(shard, Standing::Dead) {
            let now = self.score(shard, &self.shards[shard].set).beyond_goal;
            if self.shards[shard].set.len() > self.input.replicas {
                self.change(shard, Some(at), None, Reason::Dead);
                continue;
            }
            match self.best_join(shard, Some(at)) {
                Some((score, join)) if score.beyond_goal <= now => {
                    self.change(shard, Some(at), Some(join), Reason::Dead);
                }
                _ => self.no_place(shard, at),
            }
        }
    }

    fn mend_count(&mut self, shard: usize) {
        while self.shards[shard].set.len() < self.input.replicas {
            let Some((_, join)) = self.best_join(shard, None) else {
                let (id, has) = (self.shards[shard].id, self.shards[shard].set.len());
                self.problems.push(format!(
                    "shard {id} has {has} replicas of {}, and no node for another",
                    self.input.replicas
                ));
                return;
            };
            self.change(shard, None, Some(join), Reason::Count);
        }
        while self.shards[shard].set.len() > self.input.replicas {
            let set = &self.shards[shard].set;
            let worst = set.iter().copied().min_by(|&a, &b| {
                let alive = |at: At| self.nodes[at].standing != Standing::Dead;
                let score = |at| self.score(shard, &Self::swapped(set, Some(at), None));
                let (one, other) = (&self.nodes[a], &self.nodes[b]);
                let load = (other.load * one.weight).cmp(&(one.load * other.weight));
                alive(a).cmp(&alive(b)).then_with(|| score(a).cmp(&score(b))).then(load)
            });
            let Some(leave) = worst else { return };
            self.change(shard, Some(leave), None, Reason::Count);
        }
    }

    fn mend_goal(&mut self, shard: usize) {
        loop {
            let now = self.score(shard, &self.shards[shard].set);
            if now.beyond_goal == 0 {
                return;
            }
            match self.best_swap(shard) {
                Some((score, leave, join)) if score.beyond_goal < now.beyond_goal => {
                    self.change(shard, Some(leave), Some(join), Reason::Goal);
                }
                _ => {
                    let (id, goal) = (self.shards[shard].id, self.input.goal);
                    self.problems
                        .push(format!("shard {id} does not survive a {goal}, and no move mends it"));
                    return;
                }
            }
        }
    }

    /// The best of all ways to put one replica elsewhere. Dead ones stay: that the goal misses them is said already.
    pub fn best_swap(&self, shard: usize) -> Option<(Score, At, At)> {
        let alive = self.shards[shard].set.iter().copied();
        let alive = alive.filter(|at| self.nodes[*at].standing != Standing::Dead);
        alive
            .filter_map(|leave| {
                self.best_join(shard, Some(leave))
                    .map(|(score, join)| (score, leave, join))
            })
            .min_by_key(|(score, ..)| *score)
    }

    fn no_place(&mut self, shard: usize, at: At) {
        let (id, node, goal) = (self.shards[shard].id, self.nodes[at].id, self.input.goal);
        self.problems.push(format!(
            "shard {id}: no node may take the place of node {node} (goal: survive a {goal})"
        ));
    }

    /// The moves between the sets before and now, each replica straight to where it ends.
    pub fn finish(self) -> Plan {
        let mut moves: Vec<Move> = Vec::new();
        for shard in &self.shards {
            let gone = |from: &[At], to: &[At]| -> Vec<At> {
                let mut gone: Vec<At> = from.iter().copied().filter(|at| !to.contains(at)).collect();
                gone.sort_unstable();
                gone
            };
            let (leave, join) = (gone(&shard.before, &shard.set), gone(&shard.set, &shard.before));
            for place in 0..leave.len().max(join.len()) {
                let (leave, join) = (leave.get(place), join.get(place));
                let reason = match leave.map(|at| self.nodes[*at].standing) {
                    Some(Standing::Dead) => Reason::Dead,
                    Some(Standing::Leaving) => Reason::Leaving,
                    _ => shard.reason.unwrap_or(Reason::Count),
                };
                moves.push(Move {
                    shard: shard.id,
                    join: join.map(|at| self.nodes[*at].id),
                    leave: leave.map(|at| self.nodes[*at].id),
                    bytes: if join.is_some() { shard.bytes } else { 0 },
                    reason,
                });
            }
        }
        moves.sort_by_key(|one| (one.reason, one.bytes, one.shard));
        Plan {
            moves,
            problems: self.problems,
        }
    }
}
