//! What the node says of itself: log lines, figures and health.
//!
//! [`init`] starts the log; [`serve`] answers who monitors, with a [`Page`] of figures and the [`Health`] that an [`Observed`] gives. The
//! figures are drawn from the rooms when somebody scrapes them, so a room counts and knows nothing of metrics. Logs go to standard error, one line an event, for people or as JSON. Nothing here ever logs the content of a mail, a password, a
//! token or a key: rooms log ids, sizes and reasons.

mod health;
mod http;
mod page;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

pub use health::Health;
pub use http::{Observed, serve};
pub use page::{Histogram, Labels, Page};

/// Why logging does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("log.level: {0}")]
    Filter(String),
    /// Something else in this process logs already.
    #[error("logging: {0}")]
    Started(String),
}

/// Starts logging as the configuration says.
///
/// # Errors
/// When the filter does not parse, or logging was started before.
pub fn init(log: &Log) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    started.map_err(|error| TelemetryError::Started(error.to_string()))
}
