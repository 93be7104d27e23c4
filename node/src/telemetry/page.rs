//! One page of figures in the text format of OpenMetrics, made anew for every scrape.
//!
//! The rooms count for themselves, in plain numbers; whoever knows them all (`server`) puts the numbers on a [`Page`]. So no figure is
//! kept twice, and no room knows who scrapes. What must never stand in a label: an account, an address, a mailbox, or anything else
//! whose number grows with the mail; labels are shards, kinds and codes.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// Label names and values of one series.
pub type Labels = Vec<(&'static str, String)>;

/// What the text is, for the header of the answer.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Figures at one moment.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<Family>,
}

#[derive(Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    series: Vec<(Labels, Figure)>,
}

/// Durations in classes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Upper bound of each class in seconds, and how many fell into this class alone; the last bound is infinity.
    pub classes: Vec<(f64, u64)>,
    /// All of them together, in seconds.
    pub sum_seconds: f64,
}

#[derive(Debug)]
enum Figure {
    Counter(u64),
    Gauge(f64),
    Histogram(Histogram),
}

impl Page {
    /// A number that only rises. The text shows it as `<name>_total`.
    pub fn counter(&mut self, name: &'static str, help: &'static str, series: impl IntoIterator<Item = (Labels, u64)>) {
        let series = series
            .into_iter()
            .map(|(labels, value)| (labels, Figure::Counter(value)));
        self.family(name, help, MetricType::Counter, series.collect());
    }

    /// A number that rises and falls.
    pub fn gauge(&mut self, name: &'static str, help: &'static str, series: impl IntoIterator<Item = (Labels, f64)>) {
        let series = series.into_iter().map(|(labels, value)| (labels, Figure::Gauge(value)));
        self.family(name, help, MetricType::Gauge, series.collect());
    }

    /// Durations
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, Histogram)>,
    ) {
        let series = series
            .into_iter()
            .map(|(labels, value)| (labels, Figure::Histogram(value)));
        self.family(name, help, MetricType::Histogram, series.collect());
    }

    fn family(&mut self, name: &'static str, help: &'static str, kind: MetricType, series: Vec<(Labels, Figure)>) {
        self.families.push(Family {
            name,
            help,
            kind,
            series,
        });
    }

    /// The page as text.
    ///
    /// # Errors
    /// None in practice: a `String` takes every byte.
    pub fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for family in &self.families {
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, family.kind)?;
            for (labels, figure) in &family.series {
                if labels.is_empty() {
                    figure.write(&mut metric)?;
                } else {
                    figure.write(&mut metric.encode_family(labels)?)?;
                }
            }
        }
        Ok(())
    }
}

impl Figure {
    fn write(&self, encoder: &mut MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Figure::Counter(value) => encoder.encode_counter::<NoLabelSet, _, u64>(value, None),
            Figure::Gauge(value) => encoder.encode_gauge(value),
            Figure::Histogram(times) => {
                let count = times.classes.iter().map(|(_, count)| count).sum();
                encoder.encode_histogram::<NoLabelSet>(times.sum_seconds, count, &times.classes, None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_text_that_prometheus_reads() {
        let mut page = Page::default();
        page.counter("malle_syncs", "Syncs", [(vec![("kind", "log".to_owned())], 3)]);
        page.gauge("malle_free", "Free", [(Vec::new(), 1.5)]);
        let times = Histogram {
            classes: vec![(0.5, 2), (f64::INFINITY, 1)],
            sum_seconds: 4.25,
        };
        page.histogram(
            "malle_sync_seconds",
            "Durations",
            [(vec![("kind", "a\"b".to_owned())], times)],
        );
        let expected = "\
# HELP malle_syncs Syncs
# TYPE malle_syncs counter
malle_syncs_total{kind=\"log\"} 3
# HELP malle_free Free
# TYPE malle_free gauge
malle_free 1.5
# HELP malle_sync_seconds Durations
# TYPE malle_sync_seconds histogram
malle_sync_seconds_sum{kind=\"a\\\"b\"} 4.25
malle_sync_seconds_count{kind=\"a\\\"b\"} 3
malle_sync_seconds_bucket{le=\"0.5\",kind=\"a\\\"b\"} 2
malle_sync_seconds_bucket{le=\"+Inf\",kind=\"a\\\"b\"} 3
# EOF
";
        assert_eq!(page.into_text().unwrap(), expected);
    }
}
