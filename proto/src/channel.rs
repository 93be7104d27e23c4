//! The way of a call to a process of the cluster: where HTTP/2 over mTLS stands in the product, and a simulated wire in the simulator.
//!
//! Everything above it, the clients and services that `malle.v1` generates included, is the same in both.

use std::convert::Infallible;

/// What a caller sends.
pub type Asked = http::Request<tonic::body::Body>;
/// What comes back.
pub type Answered = http::Response<tonic::body::Body>;

/// Why nothing came back. What it stands for is its source, where gRPC looks for a status.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Broken {
    /// Because of this.
    pub fn by(error: impl std::error::Error + Send + Sync + 'static) -> Broken {
        Broken(Box::new(error))
    }
}

/// To one process: takes calls of any service, many at a time. Cheap to clone.
pub type Channel = tower::util::BoxCloneSyncService<Asked, Answered, Broken>;
/// The other end: what a process answers with.
pub type Services = tower::util::BoxCloneSyncService<Asked, Answered, Infallible>;
