//! What need not move and would stand better elsewhere.

use std::collections::{BTreeMap, BTreeSet};

use super::work::{At, Work};
use super::{Reason, Standing};

/// Puts replicas further apart. Each change makes the score of its shard better, so it ends.
pub fn spread(work: &mut Work<'_>) {
    for shard in 0..work.shards.len() {
        if work.shards[shard].busy {
            continue;
        }
        loop {
            let now = work.score(shard, &work.shards[shard].set);
            match work.best_swap(shard) {
                Some((score, leave, join)) if score < now => {
                    work.change(shard, Some(leave), Some(join), Reason::Spread)
                }
                _ => break,
            }
        }
    }
}

/// Gives replicas of nodes that hold more than their weight to those that hold less, as long as no shard stands worse for it.
///
/// A change is made when it makes the sum of load^2 / weight smaller. A node that gave gets nothing, one that got gives nothing, and one
/// that found nothing to give is not asked again: each bounds the number of changes, and makes them few.
pub fn weigh(work: &mut Work<'_>) {
    let mut held: BTreeMap<At, Vec<usize>> = BTreeMap::new();
    for (place, shard) in work.shards.iter().enumerate() {
        for &at in shard.set.iter().filter(|_| !shard.busy) {
            held.entry(at).or_default().push(place);
        }
    }
    for shards in held.values_mut() {
        // The smallest first: as few bytes as possible.
        shards.sort_by_key(|&shard| (work.shards[shard].bytes, shard));
    }
    let mut moved = Moved::default();
    while let Some((from, to, shard)) = next(work, &held, &mut moved) {
        work.change(shard, Some(from), Some(to), Reason::Weight);
        moved.gave.insert(from);
        moved.got.insert(to);
        held.entry(from).or_default().retain(|&other| other != shard);
    }
}

#[derive(Default)]
struct Moved {
    gave: BTreeSet<At>,
    got: BTreeSet<At>,
    stuck: BTreeSet<At>,
}

/// The next change: from whoever holds most for its weight to whoever holds least and can take something of it.
fn next(work: &Work<'_>, held: &BTreeMap<At, Vec<usize>>, moved: &mut Moved) -> Option<(At, At, usize)> {
    let nodes = &work.nodes;
    let mut order: Vec<At> = (0..nodes.len()).filter(|&at| nodes[at].weight > 0).collect();
    // Ascending by load / weight; stable, so by id among equals.
    order.sort_by(|&a, &b| (nodes[a].load * nodes[b].weight).cmp(&(nodes[b].load * nodes[a].weight)));
    let asked = order.iter().rev().copied();
    let able = |at: &At| matches!(nodes[*at].standing, Standing::Serving | Standing::Draining);
    let givers: Vec<At> = asked
        .filter(|at| able(at) && !moved.got.contains(at) && !moved.stuck.contains(at))
        .collect();
    for from in givers {
        for &to in order.iter().filter(|&&at| work.takes(at) && !moved.gave.contains(&at)) {
            let (giver, taker) = (&nodes[from], &nodes[to]);
            // (load - 1)^2 / w + (load' + 1)^2 / w' < load^2 / w + load'^2 / w'
            if (2 * taker.load + 1) * giver.weight >= (2 * giver.load).saturating_sub(1) * taker.weight {
                continue;
            }
            if let Some(shard) = held
                .get(&from)
                .and_then(|shards| shards.iter().copied().find(|&shard| fits(work, shard, from, to)))
            {
                return Some((from, to, shard));
            }
        }
        moved.stuck.insert(from);
    }
    None
}

fn fits(work: &Work<'_>, shard: usize, from: At, to: At) -> bool {
    let set = &work.shards[shard].set;
    !set.contains(&to) && work.score(shard, &Work::swapped(set, Some(from), Some(to))) <= work.score(shard, set)
}
