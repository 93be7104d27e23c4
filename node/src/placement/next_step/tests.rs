//! A model of a group, its members and the directory. The leader is killed after any step, another goes on; learners catch up, nodes fall
//! silent and come back, operators cancel. Whatever happens, the group never loses its majority, and every move ends.

use std::collections::BTreeSet;

use malle_machine::directory::{Task, TaskStep};
use malle_machine::planner::Reason;
use malle_proto::{NodeId, ShardId};

use super::{Facts, Next, next_step};

/// A small generator of our own: the seed is printed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn of(&mut self, nodes: &BTreeSet<NodeId>) -> NodeId {
        *nodes.iter().nth(self.below(nodes.len())).unwrap()
    }
}

struct World {
    task: Task,
    voters: BTreeSet<NodeId>,
    /// The change that is in the leader's log and not committed: it may yet be taken back.
    changing: Option<BTreeSet<NodeId>>,
    /// The change whose first step is committed, and of which nobody makes the second.
    unfinished: Option<BTreeSet<NodeId>>,
    members: BTreeSet<NodeId>,
    /// Has every row and body.
    level: BTreeSet<NodeId>,
    row: BTreeSet<NodeId>,
    leader: NodeId,
}

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn task(join: Option<u64>, leave: Option<u64>) -> Task {
    Task {
        id: 1,
        shard: ShardId(1),
        join: join.map(NodeId),
        leave: leave.map(NodeId),
        reason: Reason::Weight,
        bytes: 0,
        step: TaskStep::Planned,
        note: String::new(),
        started_ms: 0,
        changed_ms: 0,
    }
}

impl World {
    fn new(task: Task, voters: &[u64]) -> World {
        let voters = nodes(voters);
        World {
            task,
            changing: None,
            unfinished: None,
            members: voters.clone(),
            level: voters.clone(),
            row: voters.clone(),
            leader: *voters.first().unwrap(),
            voters,
        }
    }

    fn facts(&self) -> Facts {
        let lacks = self.task.join.is_some_and(|join| !self.level.contains(&join));
        Facts {
            leader: self.leader,
            voters: (self.changing.is_none() && self.unfinished.is_none()).then(|| self.voters.clone()),
            unfinished: self.unfinished.clone(),
            members: self.members.clone(),
            lacks: lacks.then(|| "rows".to_owned()),
            silent: BTreeSet::new(),
            row: Some(self.row.clone()),
        }
    }

    /// The leader's step, and what it leaves when it dies in the middle of it.
    fn act(&mut self, next: Next, dies: bool, chance: &mut Chance) {
        match next {
            Next::Say(step) => {
                assert!(self.task.step.leads_to(step), "{:?} -> {step:?}", self.task.step);
                self.task.step = step;
            }
            Next::Join(node) => drop(self.members.insert(node)),
            Next::HandOver => {
                let all = self.voters.iter().chain(self.unfinished.iter().flatten()).copied();
                let others = all.filter(|node| *node != self.leader).collect();
                self.leader = chance.of(&others);
            }
            Next::Switch(target) => {
                assert!(
                    target.is_subset(&self.level),
                    "a voter without rows or bodies: {target:?}"
                );
                assert!(target.contains(&self.leader), "a leader that takes its own vote away");
                if dies {
                    self.changing = Some(target);
                } else {
                    self.switch(target);
                }
            }
            Next::Drop(node) => {
                assert!(!self.voters.contains(&node), "a voter is not dropped");
                self.members.remove(&node);
                self.level.remove(&node);
            }
            Next::Wait(_) => {}
        }
    }

    fn switch(&mut self, target: BTreeSet<NodeId>) {
        self.unfinished = None;
        self.members = target.clone();
        self.level.retain(|node| target.contains(node));
        self.voters = target;
    }

    /// What else happens: learners catch up, a change is committed or taken back, the directory is told.
    fn go_on(&mut self, chance: &mut Chance) {
        if let Some(target) = self.changing.take() {
            match chance.below(3) {
                0 => self.switch(target),
                1 => self.unfinished = Some(target),
                _ => {}
            }
        } else if self.task.step >= TaskStep::Switched {
            // As `leaders` does: it tells the directory of settled voters, and not before a move has switched.
            self.row = self.voters.clone();
        }
        if let Some(join) = self.task.join.filter(|join| self.members.contains(join))
            && chance.one_in(3)
        {
            self.level.insert(join);
        }
    }
}

fn kinds() -> Vec<(Task, Vec<u64>)> {
    vec![
        (task(Some(4), Some(1)), vec![1, 2, 3]),
        (task(Some(4), Some(3)), vec![1, 2, 3]),
        (task(Some(4), None), vec![1, 2]),
        (task(None, Some(1)), vec![1, 2, 3, 4]),
        (task(Some(6), Some(2)), vec![1, 2, 3, 4, 5]),
        (task(Some(2), Some(1)), vec![1]),
    ]
}

/// Plays until the move is over; gives how many steps it took.
fn play(seed: u64, kind: usize, kills: bool, cancels: bool) -> World {
    let mut chance = Chance(seed);
    let (task, voters) = kinds().swap_remove(kind);
    let mut world = World::new(task, &voters);
    for _ in 0..400 {
        if world.task.step.is_over() {
            return world;
        }
        if cancels && chance.one_in(8) && world.task.step.leads_to(TaskStep::Cancelling) {
            world.task.step = TaskStep::Cancelling;
        }
        let next = next_step(&world.task, &world.facts());
        let dies = kills && chance.one_in(2);
        let half_way = world.unfinished.is_some();
        // Who dies in the second step leaves what the first one left.
        world.act(next, dies && !half_way, &mut chance);
        if dies {
            let voters = world
                .voters
                .iter()
                .chain(world.unfinished.iter().flatten())
                .copied()
                .collect();
            world.leader = chance.of(&voters);
        }
        world.go_on(&mut chance);
    }
    panic!("seed {seed}, kind {kind}: the move is {:?} for ever", world.task.step);
}

#[test]
fn a_move_ends_whoever_is_killed_after_which_step() {
    for seed in 0..500 {
        for kind in 0..kinds().len() {
            let world = play(seed, kind, true, false);
            let (task, _) = kinds().swap_remove(kind);
            let before = World::new(task.clone(), &kinds()[kind].1).voters;
            let wanted: BTreeSet<NodeId> = before
                .into_iter()
                .filter(|node| Some(*node) != task.leave)
                .chain(task.join)
                .collect();
            assert_eq!(world.task.step, TaskStep::Done, "seed {seed}, kind {kind}");
            assert_eq!(world.voters, wanted, "seed {seed}, kind {kind}");
            assert_eq!(world.row, wanted, "seed {seed}, kind {kind}: the directory knows");
            assert!(wanted.is_subset(&world.level), "seed {seed}, kind {kind}");
        }
    }
}

#[test]
fn a_cancelled_move_is_whole_or_undone_and_leaves_no_learner() {
    let (mut undone, mut whole) = (0, 0);
    for seed in 0..500 {
        for kind in 0..kinds().len() {
            let world = play(seed, kind, true, true);
            let before = nodes(&kinds()[kind].1);
            match world.task.step {
                TaskStep::Cancelled => {
                    undone += 1;
                    assert_eq!(world.voters, before, "seed {seed}, kind {kind}");
                    assert_eq!(
                        world.members, world.voters,
                        "seed {seed}, kind {kind}: a learner is left"
                    );
                }
                step => {
                    whole += 1;
                    assert_eq!(step, TaskStep::Done);
                    assert_eq!(world.row, world.voters, "seed {seed}, kind {kind}");
                }
            }
        }
    }
    assert!(undone > 100 && whole > 100, "both happen: {undone} and {whole}");
}

#[test]
fn nothing_is_switched_without_a_majority_that_answers() {
    let world = World::new(task(Some(4), Some(1)), &[1, 2, 3]);
    let mut facts = world.facts();
    let task = Task {
        step: TaskStep::CaughtUp,
        ..world.task
    };
    facts.leader = NodeId(2);
    facts.lacks = None;
    facts.members.insert(NodeId(4));
    facts.silent = nodes(&[3, 4]);
    assert!(matches!(next_step(&task, &facts), Next::Wait(_)));
    facts.silent = nodes(&[3]);
    assert_eq!(next_step(&task, &facts), Next::Switch(nodes(&[2, 3, 4])));
    facts.leader = NodeId(1);
    assert_eq!(next_step(&task, &facts), Next::HandOver);
    facts.voters = None;
    facts.unfinished = Some(nodes(&[2, 3, 4]));
    assert_eq!(
        next_step(&task, &facts),
        Next::HandOver,
        "this node would take its own vote away"
    );
    facts.leader = NodeId(2);
    assert_eq!(
        next_step(&task, &facts),
        Next::Switch(nodes(&[2, 3, 4])),
        "what was begun is ended"
    );
    facts.unfinished = None;
    assert!(
        matches!(next_step(&task, &facts), Next::Wait(_)),
        "a change is under way"
    );
}
