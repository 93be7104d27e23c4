//! Whom a fault hits: `leader:g3 + random:1`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One part of a selection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// Where group N is led, at the time of the fault.
    Leader(u32),
    /// A replica of group N that does not lead, at the time of the fault.
    Follower(u32),
    /// Machine N, counted from 1 in the order of the topology.
    Node(u32),
    /// Every machine of a region.
    Region(String),
    /// This many others, drawn from the seed.
    Random(u32),
    /// Every machine.
    All,
}

/// A selection: every machine that one of the selectors names, once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Select(pub Vec<Selector>);

fn parse(text: &str) -> Option<Selector> {
    if text == "all" {
        return Some(Selector::All);
    }
    let (kind, what) = text.split_once(':')?;
    let group = || what.strip_prefix('g')?.parse().ok();
    match kind {
        "leader" => group().map(Selector::Leader),
        "follower" => group().map(Selector::Follower),
        "node" => what.parse().ok().map(Selector::Node),
        "random" => what.parse().ok().filter(|&count| count > 0).map(Selector::Random),
        "region" => (!what.is_empty()).then(|| Selector::Region(what.to_owned())),
        _ => None,
    }
}

impl FromStr for Select {
    type Err = String;

    fn from_str(text: &str) -> Result<Select, String> {
        let part = |part: &str| {
            parse(part.trim()).ok_or_else(|| {
                format!(
                    "{part:?} selects nobody: leader:gN, follower:gN, node:N, region:NAME, random:N or all, joined by +"
                )
            })
        };
        text.split('+').map(part).collect::<Result<_, _>>().map(Select)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selector::Leader(group) => write!(f, "leader:g{group}"),
            Selector::Follower(group) => write!(f, "follower:g{group}"),
            Selector::Node(place) => write!(f, "node:{place}"),
            Selector::Region(name) => write!(f, "region:{name}"),
            Selector::Random(count) => write!(f, "random:{count}"),
            Selector::All => f.write_str("all"),
        }
    }
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, selector) in self.0.iter().enumerate() {
            write!(f, "{}{selector}", if at == 0 { "" } else { " + " })?;
        }
        Ok(())
    }
}

impl Serialize for Select {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Select {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Select, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Select::default());
        }
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_read_and_written() {
        let text = "leader:g3 + follower:g0 + node:2 + region:us + random:1 + all";
        assert_eq!(text.parse::<Select>().unwrap().to_string(), text);
    }

    #[test]
    fn nobody_is_no_selection() {
        for text in [
            "",
            "leader",
            "leader:3",
            "random:0",
            "node:x",
            "region:",
            "leader:g1 +",
            "boss:g1",
        ] {
            assert!(text.parse::<Select>().is_err(), "{text}");
        }
    }
}
