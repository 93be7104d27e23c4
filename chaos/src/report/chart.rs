//! The drawings of a run on one axis of time: availability by the second, a lane for each node, every call by what it took.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{escape, time};
use crate::figures::seconds;
use crate::history::{FaultEvent, FaultState, History, NodeEvent};
use crate::scenario::Fault;
use crate::workload::Outcome;

const WIDTH: f64 = 1200.0;
/// Room for names on the left.
const LEFT: f64 = 96.0;
/// Groups of a node that get a strip of their own.
const GROUPS_MAX: usize = 8;
/// Dots of one drawing. Calls that went wrong are drawn first, so what is left out went well.
const DOTS_MAX: usize = 8_000;

pub(super) const DONE: &str = "#2f9e44";
pub(super) const REFUSED: &str = "#f59f00";
pub(super) const UNKNOWN: &str = "#e03131";
pub(super) const LEADER: &str = "#1971c2";
pub(super) const FOLLOWER: &str = "#a5c8ea";
pub(super) const OTHER: &str = "#f0b35a";
pub(super) const DOWN: &str = "#868e96";

/// The colour of a fault.
pub(super) fn colour(fault: &Fault) -> &'static str {
    match fault {
        Fault::Kill | Fault::Powerloss | Fault::Wipe => "#212529",
        Fault::Stop | Fault::Membership { .. } | Fault::Transfer { .. } => "#495057",
        Fault::Pause => "#862e9c",
        Fault::Partition { .. } => "#e8590c",
        Fault::Net(_) => "#0b7285",
        Fault::Disk { .. } => "#c2255c",
        Fault::Clock { .. } => "#5f3dc4",
        Fault::Squeeze { .. } => "#5c940d",
    }
}

/// The axis that all drawings of a run share.
pub(super) struct Chart<'h> {
    history: &'h History,
    end_us: u64,
    violations: Vec<(u64, String)>,
}

impl<'h> Chart<'h> {
    /// Of a run; violations are marked in every drawing.
    pub fn of(history: &'h History, violations: Vec<(u64, String)>) -> Chart<'h> {
        let operations = history.operations.iter().map(|operation| operation.completed_us);
        let end_us = operations.max().unwrap_or(0).max(history.header.timeline.end_us).max(1);
        Chart {
            history,
            end_us,
            violations,
        }
    }

    fn x(&self, us: u64) -> f64 {
        LEFT + (WIDTH - LEFT - 12.0) * (us.min(self.end_us) as f64 / self.end_us as f64)
    }

    /// Phases below, the marks of violations above.
    fn framed(&self, height: f64, drawing: &str) -> String {
        let timeline = &self.history.header.timeline;
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\">", height + 36.0);
        let phases = [
            (0, timeline.safety_us, "warm-up"),
            (timeline.safety_us, timeline.heal_us, "faults"),
            (timeline.heal_us, timeline.liveness_us, "heal"),
            (timeline.liveness_us, timeline.end_us, "liveness"),
        ];
        for (at, (from, to, name)) in phases.into_iter().enumerate().filter(|(_, (from, to, _))| to > from) {
            let (x, width) = (self.x(from), self.x(to) - self.x(from));
            let opacity = if at % 2 == 1 { 0.07 } else { 0.02 };
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"0\" width=\"{width:.1}\" height=\"{height}\" fill=\"#868e96\" opacity=\"{opacity}\"/>"
            );
            // Below the seconds, and only where it fits: phases may be short.
            if width > 6.5 * name.len() as f64 {
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
                    x + 3.0,
                    height + 31.0
                );
            }
        }
        svg.push_str(drawing);
        for (us, what) in &self.violations {
            let _ = write!(
                svg,
                "<g><title>{}</title><line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{height}\" stroke=\"#e03131\" stroke-width=\"2\" stroke-dasharray=\"5 3\"/>\
                 <path d=\"M{x:.1} 0l-5 -0 5 8 5 -8z\" fill=\"#e03131\"/></g>",
                escape(what),
                x = self.x(*us)
            );
        }
        svg.push_str(&self.seconds_axis(height));
        svg.push_str("</svg>");
        svg
    }

    fn seconds_axis(&self, height: f64) -> String {
        let seconds = self.end_us / 1_000_000;
        let step = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600]
            .into_iter()
            .find(|step| seconds / step <= 12)
            .unwrap_or(1_200);
        let mut svg = format!("<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{height}\" y2=\"{height}\"/>");
        for second in (step..=seconds).step_by(step as usize) {
            let x = self.x(second * 1_000_000);
            let _ = write!(
                svg,
                "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{height}\" y2=\"{:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"end\">{second} s</text>",
                height + 4.0,
                height + 16.0
            );
        }
        svg
    }

    /// Calls that ended in each second, by outcome.
    pub fn availability(&self) -> String {
        const HEIGHT: f64 = 90.0;
        let seconds = seconds(self.history);
        let most = seconds
            .iter()
            .map(|second| second.done + second.refused + second.unknown)
            .max()
            .unwrap_or(0)
            .max(1);
        let mut svg = format!(
            "<text class=\"name\" x=\"0\" y=\"14\">calls a second</text><text x=\"{:.1}\" y=\"28\" text-anchor=\"end\">{most}</text>",
            LEFT - 4.0
        );
        for (at, second) in seconds.iter().enumerate() {
            let x = self.x(at as u64 * 1_000_000);
            let width = (self.x((at as u64 + 1) * 1_000_000) - x - 0.6).max(0.6);
            let mut y = HEIGHT;
            for (count, colour) in [
                (second.done, DONE),
                (second.refused, REFUSED),
                (second.unknown, UNKNOWN),
            ] {
                let height = HEIGHT * f64::from(count) / f64::from(most);
                y -= height;
                if count > 0 {
                    let _ = write!(
                        svg,
                        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\">\
                         <title>second {at}: {} done, {} refused, {} unknown</title></rect>",
                        second.done, second.refused, second.unknown
                    );
                }
            }
        }
        self.framed(HEIGHT, &svg)
    }

    /// A lane for each node: its role in each group, and the faults that hit it.
    pub fn lanes(&self) -> String {
        let mut groups: Vec<u32> = self
            .history
            .nodes
            .iter()
            .map(|event| event.group)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        groups.truncate(GROUPS_MAX);
        let strip = if groups.len() > 4 { 7.0 } else { 10.0 };
        let lane = (strip * groups.len() as f64).max(18.0) + 16.0;
        let mut svg = String::new();
        for (at, place) in self.history.header.places.iter().enumerate() {
            let top = at as f64 * (lane + 6.0);
            let _ = write!(
                svg,
                "<text class=\"name\" x=\"0\" y=\"{:.1}\">node {}</text><text x=\"0\" y=\"{:.1}\">{}</text>",
                top + 12.0,
                place.place,
                top + 26.0,
                escape(&place.region)
            );
            for (row, group) in groups.iter().enumerate() {
                svg.push_str(&self.roles(place.place, *group, top + 15.0 + row as f64 * strip, strip - 1.0));
            }
            svg.push_str(&self.faults_on(place.place, top, lane));
        }
        let height = self.history.header.places.len() as f64 * (lane + 6.0);
        self.framed(height, &svg)
    }

    fn roles(&self, place: u32, group: u32, y: f64, height: f64) -> String {
        let here = self
            .history
            .nodes
            .iter()
            .filter(|event| event.place == place && event.group == group);
        let events: Vec<&NodeEvent> = here.collect();
        let mut svg = String::new();
        for (at, event) in events.iter().enumerate() {
            let until = events.get(at + 1).map_or(self.end_us, |next| next.at_us);
            let colour = match event.role.as_str() {
                "leader" => LEADER,
                "follower" => FOLLOWER,
                "down" | "stopped" => DOWN,
                _ => OTHER,
            };
            let x = self.x(event.at_us);
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\">\
                 <title>group {group}: {} in term {} at index {}</title></rect>",
                (self.x(until) - x).max(0.5),
                escape(&event.role),
                event.term,
                event.applied
            );
            let new_term = at == 0 || events[at - 1].term != event.term;
            if event.role == "leader" && new_term && height >= 9.0 {
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:#fff;font-size:9px\">{}</text>",
                    x + 2.0,
                    y + height - 1.5,
                    event.term
                );
            }
        }
        svg
    }

    fn faults_on(&self, place: u32, top: f64, height: f64) -> String {
        let mut svg = String::new();
        let mut open: BTreeMap<u32, &FaultEvent> = BTreeMap::new();
        let mut draw = |event: &FaultEvent, until: u64| {
            let (x, colour) = (self.x(event.at_us), colour(&event.fault));
            let width = (self.x(until) - x).max(2.0);
            let name = escape(&event.fault.name());
            let _ = write!(
                svg,
                "<g><title>{name}, {} to {}</title><rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\" opacity=\"0.22\"/>\
                 <rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"4\" fill=\"{colour}\"/>",
                time(event.at_us),
                time(until),
                top + 10.0,
                height - 12.0,
                top + 10.0
            );
            if width > 5.0 * name.len() as f64 {
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" style=\"fill:{colour}\">{name}</text>",
                    x + 1.0,
                    top + 9.0
                );
            }
            svg.push_str("</g>");
        };
        for event in self.history.faults.iter().filter(|event| event.places.contains(&place)) {
            match event.event {
                FaultState::Began if event.fault.has_end() => drop(open.insert(event.step, event)),
                FaultState::Began => draw(event, event.at_us),
                FaultState::Ended => {
                    if let Some(began) = open.remove(&event.step) {
                        draw(began, event.at_us);
                    }
                }
                FaultState::Skipped(_) => {}
            }
        }
        for event in open.into_values() {
            draw(event, self.end_us);
        }
        svg
    }

    /// Every call by when it was asked and what it took, on a scale of powers of ten.
    pub fn calls(&self) -> String {
        const HEIGHT: f64 = 220.0;
        let y = |us: u64| HEIGHT - (HEIGHT - 8.0) * ((us.max(100) as f64 / 100.0).log10() / 5.5).min(1.0);
        let mut svg = String::from("<text class=\"name\" x=\"0\" y=\"14\">each call</text>");
        for (us, name) in [
            (1_000, "1 ms"),
            (10_000, "10 ms"),
            (100_000, "100 ms"),
            (1_000_000, "1 s"),
            (10_000_000, "10 s"),
        ] {
            let _ = write!(
                svg,
                "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                LEFT - 4.0,
                y(us) + 4.0,
                at = y(us)
            );
        }
        let mut operations: Vec<_> = self.history.operations.iter().collect();
        operations.sort_by_key(|operation| operation.outcome.done().is_some());
        let wrong = operations
            .iter()
            .filter(|operation| operation.outcome.done().is_none())
            .count()
            .min(DOTS_MAX);
        let stride = (operations.len() - wrong).div_ceil((DOTS_MAX - wrong).max(1)).max(1);
        let drawn = operations
            .iter()
            .enumerate()
            .filter(|(at, _)| *at < wrong || (at - wrong).is_multiple_of(stride));
        for (_, operation) in drawn.collect::<Vec<_>>().into_iter().rev() {
            let (colour, word) = match &operation.outcome {
                Outcome::Done { .. } => (DONE, "done".to_owned()),
                Outcome::Refused { code } => (REFUSED, format!("refused, {code}")),
                Outcome::Unknown { why } => (UNKNOWN, format!("unknown, {why}")),
            };
            let took = operation.completed_us.saturating_sub(operation.invoked_us);
            let radius = if colour == DONE { 1.6 } else { 2.6 };
            let _ = write!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius}\" fill=\"{colour}\" opacity=\"0.7\"><title>#{} {} by client {}: {}, {}</title></circle>",
                self.x(operation.invoked_us),
                y(took),
                operation.id,
                operation.call.kind(),
                operation.client,
                escape(&word),
                time(took)
            );
        }
        self.framed(HEIGHT, &svg)
    }
}
