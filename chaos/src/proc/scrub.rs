//! Bytes that rotted on a disk must be found and repaired by the node that has it, also when nobody reads them.
//!
//! A node begins to read all its bodies a minute after its start, so the nodes in question are started again first.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use harness::until;

use super::disk::Flip;
use super::observe::Observer;
use super::world::World;
use crate::history::{Broken, Record, Recorder, Sample};

/// A minute until the scrub begins, and a round over what a run stores.
const ROUND: Duration = Duration::from_secs(180);

/// Waits until each node whose disk rotted has read everything and misses nothing, and compares what it found with what was changed.
///
/// # Errors
/// When a node does not start again. What was not found, or not repaired, is written to the history as broken.
pub async fn judge(
    world: &mut World,
    observer: &Observer,
    flips: &[(u32, Flip)],
    recorder: &Recorder,
) -> anyhow::Result<()> {
    let mut by_place: BTreeMap<u32, Vec<&Flip>> = BTreeMap::new();
    for (place, flip) in flips {
        by_place.entry(*place).or_default().push(flip);
    }
    for place in by_place.keys().copied() {
        observer.down(place);
        let process = world.at_mut(place)?.process.take();
        process.context("it is up")?.stop().await?;
        world.restart(place).await?;
        observer.up(place, world.at(place)?.node);
    }
    for (place, flips) in by_place {
        let done = until(format!("a whole scrub at place {place}"), ROUND, || async {
            let statuses = observer.ask(false).await;
            let scrub = statuses.get(&place).context("the node does not answer")?.scrub;
            anyhow::ensure!(scrub.rounds > 0, "{} bodies read until now", scrub.bodies);
            anyhow::ensure!(
                scrub.open == 0,
                "{} bodies are damaged and no peer gave them yet",
                scrub.open
            );
            Ok(Some(scrub))
        });
        let broken = |what: String| {
            let at_us = recorder.now_us();
            let place = Some(place);
            recorder.write(&Record::Broken(Broken { at_us, place, what }));
        };
        match done.await {
            Err(error) => broken(format!("{error:#}")),
            Ok(scrub) => {
                let log = std::fs::read_to_string(world.dir().join(format!("logs/node-{place}.log")))?;
                let found = flips.iter().filter(|flip| is_told(&log, flip)).count();
                if found < flips.len() {
                    broken(format!("{} bytes rotted and {found} were found", flips.len()));
                }
                let values = [
                    ("rotten_bytes", flips.len() as u64),
                    ("rotten_bytes_found", found as u64),
                    ("scrub_rotten", scrub.rotten),
                    ("scrub_repaired", scrub.repaired),
                ];
                recorder.write(&Record::Sample(Sample {
                    at_us: recorder.now_us(),
                    place,
                    values: values
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value))
                        .collect(),
                }));
            }
        }
    }
    Ok(())
}

/// Whether a line of the node's log names the place of a damaged copy, or a run of damaged bytes around it.
fn is_told(log: &str, flip: &Flip) -> bool {
    let number = |line: &str, before: &str| -> Option<u64> {
        let (_, rest) = line.split_once(before)?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let names = |line: &str| {
        let run = number(line, " from=").zip(number(line, " until="));
        run.is_some_and(|(from, until)| (from..until).contains(&flip.record))
            || number(line, " byte ") == Some(flip.record)
    };
    log.lines().any(|line| line.contains("ERROR") && names(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flip_is_found_by_the_place_that_an_error_names() {
        let flip = Flip {
            file: "volumes/0.seg".into(),
            record: 4160,
            byte: 4300,
        };
        let said = "2026 ERROR malle_node: a body is damaged error=the record at segment 1 byte 4160 is corrupt";
        assert!(is_told(said, &flip));
        assert!(!is_told(&said.replace("4160", "41600"), &flip));
        assert!(!is_told(&said.replace("ERROR", "INFO"), &flip));
        let run = "2026 ERROR malle_node: a volume is damaged segment=1 from=4096 until=4224";
        assert!(is_told(run, &flip));
        assert!(!is_told(&run.replace("4224", "4160"), &flip));
    }
}
