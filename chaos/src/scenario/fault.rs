//! The faults of a scenario, as the file has them and as they are meant.
//!
//! The file has one flat table per fault, so that an unknown or misplaced field is an error with its line; [`FaultTable::fault`] turns it
//! into a [`Fault`], which has for each kind just what that kind needs. Every fault has a beginning and most have an end: a machine that is
//! killed is started again, a partition is healed.

use serde::{Deserialize, Serialize};

use super::select::Select;
use super::span::Span;

/// What a fault does to the machines that it hits. Its end undoes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// The process dies; what it wrote stays in the operating system. Its end starts it again.
    Kill,
    /// The machine loses its power: what was not synced is lost, torn or kept as chance has it. Its end starts it again.
    Powerloss,
    /// The process stops as planned, giving its groups away first. Its end starts it again.
    Stop,
    /// The process stands still, its sockets stay open. Its end lets it go on.
    Pause,
    /// Messages between machines are dropped.
    Partition {
        /// Which.
        shape: Shape,
        /// Clients do not reach the selected machines either.
        clients: bool,
    },
    /// The network of the selected machines gets worse.
    Net(Quality),
    /// The disk fails.
    Disk {
        /// How.
        what: DiskFault,
        /// Added to each sync by [`DiskFault::Slow`].
        delay_us: u64,
        /// How many records are damaged by [`DiskFault::Bitflip`].
        count: u64,
    },
    /// The clock jumps by so much, and goes at this rate (1000 is right). Its end sets it right.
    Clock {
        /// Forward, or back when negative.
        step_ms: i64,
        /// Thousandths of the right speed.
        rate_per_mille: u64,
    },
    /// The process dies and its disk is emptied. Its end starts an empty node under a new id and lets it replace the old one.
    Wipe,
    /// The leader of the group gives its leadership away. Has no end.
    Transfer {
        /// Which group; every one that the selected machines lead when `None`.
        group: Option<u32>,
    },
    /// Each selected machine is taken out of the voters of the group, and put back at the end.
    Membership {
        /// Which group.
        group: u32,
    },
    /// The machine has less: `proc` only.
    Squeeze {
        /// Of one processor; 0 is unbounded.
        cpu_pct: u64,
        /// Memory; 0 is unbounded.
        memory_mib: u64,
        /// Open files; 0 is unbounded.
        files: u64,
    },
}

impl Fault {
    /// Is it undone at some time? A leadership that was given away, a bit that changed, a sync that failed are not.
    pub fn has_end(&self) -> bool {
        match self {
            Fault::Transfer { .. } => false,
            Fault::Disk { what, .. } => !matches!(what, DiskFault::Bitflip | DiskFault::SyncEio),
            _ => true,
        }
    }

    /// A word for it.
    pub fn name(&self) -> String {
        let name = match self {
            Fault::Kill => "kill",
            Fault::Powerloss => "power cut",
            Fault::Stop => "planned stop",
            Fault::Pause => "pause",
            Fault::Partition { shape, .. } => return format!("partition {}", word(shape)),
            Fault::Net(_) => "bad network",
            Fault::Disk { what, .. } => return format!("disk {}", word(what)),
            Fault::Clock { .. } => "clock",
            Fault::Wipe => "wiped disk",
            Fault::Transfer { .. } => "transfer of leadership",
            Fault::Membership { .. } => "membership",
            Fault::Squeeze { .. } => "squeeze",
        };
        name.to_owned()
    }
}

/// As the file has it.
fn word(of: &impl Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// What happens to what goes from one machine to another: to messages in the simulated net, to packets on a wire. A line without faults is the
/// default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quality {
    /// Each is this much later.
    pub delay_us: u64,
    /// And up to this much more, so that they overtake each other.
    pub jitter_us: u64,
    /// Lost, of 1000.
    pub loss_per_mille: u64,
    /// Come twice, of 1000.
    pub duplicate_per_mille: u64,
    /// Come much later than those behind them, of 1000.
    pub reorder_per_mille: u64,
    /// Bandwidth in kilobits a second; 0 is unbounded.
    pub rate_kbit: u64,
}

impl Quality {
    /// This line with all that is wrong with another as well.
    pub fn and(self, other: Quality) -> Quality {
        let both = |one: u64, other: u64| (one + other).min(1000);
        let rates = [self.rate_kbit, other.rate_kbit];
        Quality {
            delay_us: self.delay_us + other.delay_us,
            jitter_us: self.jitter_us + other.jitter_us,
            loss_per_mille: both(self.loss_per_mille, other.loss_per_mille),
            duplicate_per_mille: both(self.duplicate_per_mille, other.duplicate_per_mille),
            reorder_per_mille: both(self.reorder_per_mille, other.reorder_per_mille),
            rate_kbit: rates.into_iter().filter(|rate| *rate > 0).min().unwrap_or(0),
        }
    }
}

/// How a disk fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskFault {
    /// The next sync fails, later ones succeed and lie.
    SyncEio,
    /// There is no space left.
    Full,
    /// Every sync takes longer.
    Slow,
    /// Nothing comes back until the end.
    Hang,
    /// Bits in stored records change. Has no end. At least one replica keeps a good copy of each.
    Bitflip,
    /// Syncs answer without syncing: a negative control, not a fault that malle can survive.
    LyingSync,
}

/// Which messages a partition drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// Each selected machine is alone.
    Isolate,
    /// The selected machines together, and the others together.
    Split,
    /// Two halves that see each other only through the first selected machine.
    Bridge,
    /// Each machine sees only its neighbours on a ring of all.
    Ring,
    /// The selected machines hear and are not heard.
    OnewayOut,
    /// The selected machines are heard and do not hear.
    OnewayIn,
}

/// What an engine must look after when it draws whom a fault hits. A fault that the guard forbids is written to the history as skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// A majority of all machines stays untouched.
    #[default]
    KeepQuorum,
    /// One machine stays untouched.
    KeepOneCopy,
    /// None.
    None,
}

/// One `[[fault]]` as the file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultTable {
    /// kill, powerloss, stop, pause, partition, net, disk, clock, wipe, transfer, membership, squeeze.
    pub kind: String,
    /// Whom it hits.
    #[serde(default)]
    pub select: Select,
    /// What must be left.
    #[serde(default)]
    pub guard: Guard,
    /// When it begins, from the start of the safety phase.
    pub at: Option<Span>,
    /// Again and again with this distance.
    pub every: Option<Span>,
    /// How often, with `every`; until the end of the safety phase when absent.
    pub times: Option<u32>,
    /// No beginning after this, with `every`.
    pub until: Option<Span>,
    /// How long it lasts.
    #[serde(rename = "for")]
    pub lasts: Option<Span>,
    /// The same for kill, powerloss, stop and wipe: when the machine is started again.
    pub restart_after: Option<Span>,
    /// Begins up to this much later, drawn from the seed.
    pub jitter: Option<Span>,
    shape: Option<Shape>,
    clients: Option<bool>,
    delay_ms: Option<u64>,
    jitter_ms: Option<u64>,
    loss_pct: Option<f64>,
    duplicate_pct: Option<f64>,
    reorder_pct: Option<f64>,
    rate_kbit: Option<u64>,
    what: Option<DiskFault>,
    count: Option<u64>,
    step_ms: Option<i64>,
    rate: Option<f64>,
    group: Option<u32>,
    cpu_pct: Option<u64>,
    memory_mib: Option<u64>,
    files: Option<u64>,
}

/// When a fault begins, and how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct When {
    /// First beginning, from the start of the safety phase.
    pub at: Span,
    /// Distance of the beginnings; `None` when there is one.
    pub every: Option<Span>,
    /// How many beginnings, at most.
    pub times: Option<u32>,
    /// No beginning after this.
    pub until: Option<Span>,
    /// How long; `None`: until the faults end.
    pub lasts: Option<Span>,
    /// Drawn on top of each beginning.
    pub jitter: Span,
}

fn per_mille(pct: Option<f64>) -> Result<u64, String> {
    match pct.unwrap_or(0.0) {
        pct if (0.0..=100.0).contains(&pct) => Ok((pct * 10.0).round() as u64),
        pct => Err(format!("{pct} is no percentage")),
    }
}

impl FaultTable {
    /// Which fields of its own a kind takes.
    fn fields_of(kind: &str) -> Result<&'static [&'static str], String> {
        Ok(match kind {
            "kill" | "powerloss" | "stop" | "wipe" => &["restart_after"],
            "pause" => &[],
            "partition" => &["shape", "clients"],
            "net" => &[
                "delay_ms",
                "jitter_ms",
                "loss_pct",
                "duplicate_pct",
                "reorder_pct",
                "rate_kbit",
            ],
            "disk" => &["what", "delay_ms", "count"],
            "clock" => &["step_ms", "rate"],
            "transfer" | "membership" => &["group"],
            "squeeze" => &["cpu_pct", "memory_mib", "files"],
            other => return Err(format!("{other:?} is no kind of fault")),
        })
    }

    fn given(&self) -> Vec<&'static str> {
        let given = [
            ("restart_after", self.restart_after.is_some()),
            ("shape", self.shape.is_some()),
            ("clients", self.clients.is_some()),
            ("delay_ms", self.delay_ms.is_some()),
            ("jitter_ms", self.jitter_ms.is_some()),
            ("loss_pct", self.loss_pct.is_some()),
            ("duplicate_pct", self.duplicate_pct.is_some()),
            ("reorder_pct", self.reorder_pct.is_some()),
            ("rate_kbit", self.rate_kbit.is_some()),
            ("what", self.what.is_some()),
            ("count", self.count.is_some()),
            ("step_ms", self.step_ms.is_some()),
            ("rate", self.rate.is_some()),
            ("group", self.group.is_some()),
            ("cpu_pct", self.cpu_pct.is_some()),
            ("memory_mib", self.memory_mib.is_some()),
            ("files", self.files.is_some()),
        ];
        given
            .into_iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| name)
            .collect()
    }

    /// What it does.
    ///
    /// # Errors
    /// An unknown kind, a field that this kind does not take, or one that it lacks.
    pub fn fault(&self) -> Result<Fault, String> {
        let kind = self.kind.as_str();
        let takes = FaultTable::fields_of(kind)?;
        if let Some(field) = self.given().into_iter().find(|field| !takes.contains(field)) {
            return Err(format!("a fault of kind {kind} takes no {field}"));
        }
        let needed = |what: &str| format!("a fault of kind {kind} needs {what}");
        Ok(match kind {
            "kill" => Fault::Kill,
            "powerloss" => Fault::Powerloss,
            "stop" => Fault::Stop,
            "wipe" => Fault::Wipe,
            "pause" => Fault::Pause,
            "partition" => Fault::Partition {
                shape: self.shape.ok_or_else(|| needed("shape"))?,
                clients: self.clients.unwrap_or(false),
            },
            "net" => Fault::Net(Quality {
                delay_us: self.delay_ms.unwrap_or(0) * 1_000,
                jitter_us: self.jitter_ms.unwrap_or(0) * 1_000,
                loss_per_mille: per_mille(self.loss_pct)?,
                duplicate_per_mille: per_mille(self.duplicate_pct)?,
                reorder_per_mille: per_mille(self.reorder_pct)?,
                rate_kbit: self.rate_kbit.unwrap_or(0),
            }),
            "disk" => self.disk(self.what.ok_or_else(|| needed("what"))?)?,
            "clock" => Fault::Clock {
                step_ms: self.step_ms.unwrap_or(0),
                rate_per_mille: (self.rate.unwrap_or(1.0).clamp(0.001, 1000.0) * 1000.0).round() as u64,
            },
            "transfer" => Fault::Transfer { group: self.group },
            "membership" => Fault::Membership {
                group: self.group.ok_or_else(|| needed("group"))?,
            },
            _ => Fault::Squeeze {
                cpu_pct: self.cpu_pct.unwrap_or(0),
                memory_mib: self.memory_mib.unwrap_or(0),
                files: self.files.unwrap_or(0),
            },
        })
    }

    fn disk(&self, what: DiskFault) -> Result<Fault, String> {
        let takes_delay = what == DiskFault::Slow;
        if self.delay_ms.is_some() != takes_delay {
            return Err("delay_ms belongs to a disk that is slow, and it needs one".to_owned());
        }
        if self.count.is_some() && what != DiskFault::Bitflip {
            return Err("count belongs to bitflip".to_owned());
        }
        Ok(Fault::Disk {
            what,
            delay_us: self.delay_ms.unwrap_or(0) * 1_000,
            count: self.count.unwrap_or(1),
        })
    }

    /// Whom it hits.
    ///
    /// # Errors
    /// When it selects nobody and its kind needs somebody.
    pub fn select(&self) -> Result<Select, String> {
        let ring = self.shape == Some(Shape::Ring);
        let named = self.kind == "transfer" && self.group.is_some();
        if self.select.0.is_empty() && !ring && !named {
            return Err("selects nobody".to_owned());
        }
        Ok(self.select.clone())
    }

    /// When it begins and ends.
    ///
    /// # Errors
    /// When the times contradict each other.
    pub fn when(&self) -> Result<When, String> {
        if self.restart_after.is_some() && self.lasts.is_some() {
            return Err("restart_after and for say the same".to_owned());
        }
        if self.every.is_none() && (self.times.is_some() || self.until.is_some()) {
            return Err("times and until belong to every".to_owned());
        }
        if self.every.is_some_and(|every| every.us() == 0) {
            return Err("every must be above 0".to_owned());
        }
        let Some(at) = self.at.or(self.every) else {
            return Err("has no time: at, or every".to_owned());
        };
        Ok(When {
            at,
            every: self.every,
            times: self.times,
            until: self.until,
            lasts: self.lasts.or(self.restart_after),
            jitter: self.jitter.unwrap_or_default(),
        })
    }
}
