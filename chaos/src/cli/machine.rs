//! What this machine can do for the engine `proc`, and what dead runs left on it.

use harness::made;
use malle_chaos::proc::probe::probe as try_all;

use super::Ending;

/// Tries every ability and says what came of it.
pub fn probe() -> anyhow::Result<Ending> {
    for ability in try_all() {
        match &ability.missing {
            None => println!("{:<10} yes  {}", ability.name, ability.used_for),
            Some(reason) => println!(
                "{:<10} no   {} ({})",
                ability.name,
                ability.used_for,
                reason.replace('\n', "; ")
            ),
        }
    }
    Ok(Ending::Good)
}

/// Removes what was written down by runs that are gone, and nothing else.
pub fn clean() -> anyhow::Result<Ending> {
    let removed = made::clean();
    for thing in &removed {
        println!("removed {thing}");
    }
    println!("{} things removed", removed.len());
    Ok(Ending::Good)
}
