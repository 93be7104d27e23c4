//! Heartbeats and elections.

use openraft::{Config, ConfigError, SnapshotPolicy};

use crate::controls;

/// A timing profile. A follower stands for election after the leader's lease (`election_max_ms`) and a random part of the range:
/// unplanned failover takes `election_max_ms` + U(min, max).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Pause between two heartbeats of an idle leader.
    pub heartbeat_ms: u64,
    /// Shortest election timeout.
    pub election_min_ms: u64,
    /// Longest election timeout, and the leader's lease.
    pub election_max_ms: u64,
}

impl Timing {
    /// One machine or one hall: the demo and the tests.
    pub const LOCAL: Timing = Timing {
        heartbeat_ms: 75,
        election_min_ms: 400,
        election_max_ms: 600,
    };
    /// Datacentres of one country, round trips below 20 ms.
    pub const WAN: Timing = Timing {
        heartbeat_ms: 250,
        election_min_ms: 1000,
        election_max_ms: 1500,
    };

    pub(super) fn config(self, cluster: &str, log_kept_entries: u64) -> Result<Config, ConfigError> {
        Config {
            cluster_name: cluster.to_owned(),
            heartbeat_interval: self.heartbeat_ms,
            heartbeat_min_interval: Some(self.heartbeat_ms * 4 / 5),
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            enable_pre_vote: Some(true),
            // A leader sends entries to its followers while it still syncs them itself, so they may be committed without its disk. If its
            // power is cut then, it comes back without them: leading on in the same term it would give their indexes to other entries.
            enable_leader_restore: Some(controls::is_on(controls::Control::LeadOn)),
            // Checkpoints are made by bytes of log, which raft does not count.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: log_kept_entries,
            replication_lag_threshold: log_kept_entries * 2,
            max_payload_entries: 256,
            max_append_entries: Some(1024),
            api_channel_size: Some(malle_proto::limits::PROPOSALS_PER_SHARD_MAX as u64),
            state_machine_channel_size: Some(64),
            install_snapshot_timeout: 10 * 60 * 1000,
            allow_log_reversion: Some(false),
            ..Config::default()
        }
        .validate()
    }
}
