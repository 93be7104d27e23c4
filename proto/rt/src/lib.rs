//! The one place that names the runtime: tokio, or the simulated one under the cargo feature `sim`.
//!
//! node, journal and client call these thin functions and never `tokio::spawn`, `tokio::time` or a thread's random source;
//! `cargo xtask check` holds them to it. tokio's channels and mutexes work under both runtimes and are used directly.
//! Absent on purpose: aborting a task. A task ends when the channel or the shutdown signal it listens to says so.

use std::future::Future;
use std::time::Duration;

use openraft_rt::{AsyncRuntime, Instant as _};

#[cfg(feature = "sim")]
pub mod sim;

/// The runtime of this build.
#[cfg(feature = "sim")]
pub type Runtime = sim::HostedRuntime;
/// The runtime of this build.
#[cfg(not(feature = "sim"))]
pub type Runtime = openraft_rt_tokio::TokioRuntime;

/// A point of monotonic time.
pub type Instant = <Runtime as AsyncRuntime>::Instant;
/// A spawned task; await it to learn how it ended. Dropping it lets the task run on.
pub type JoinHandle<T> = <Runtime as AsyncRuntime>::JoinHandle<T>;

/// The time ran out before the future was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

impl std::fmt::Display for Elapsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("deadline passed")
    }
}

impl std::error::Error for Elapsed {}

/// Starts a task.
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Runtime::spawn(future)
}

/// Waits this long.
pub async fn sleep(duration: Duration) {
    Runtime::sleep(duration).await;
}

/// Waits until this point.
pub async fn sleep_until(deadline: Instant) {
    Runtime::sleep_until(deadline).await;
}

/// The monotonic time now.
pub fn now() -> Instant {
    Instant::now()
}

/// The future's result, or [`Elapsed`] once `duration` has passed.
pub async fn timeout<F>(duration: Duration, future: F) -> Result<F::Output, Elapsed>
where
    F: Future + Send,
{
    Runtime::timeout(duration, future).await.map_err(|_| Elapsed)
}

/// The future's result, or [`Elapsed`] once `deadline` has passed.
pub async fn timeout_at<F>(deadline: Instant, future: F) -> Result<F::Output, Elapsed>
where
    F: Future + Send,
{
    Runtime::timeout_at(deadline, future).await.map_err(|_| Elapsed)
}

/// Fills `bytes` from the runtime's random source: seeded under simulation, so never for secrets.
pub fn random(bytes: &mut [u8]) {
    use rand::Rng as _;
    Runtime::thread_rng().fill_bytes(bytes);
}

/// A random number from `0..below`; 0 when `below` is 0. For jitter.
pub fn random_below(below: u64) -> u64 {
    let mut bytes = [0; 8];
    random(&mut bytes);
    if below == 0 {
        0
    } else {
        u64::from_le_bytes(bytes) % below
    }
}

/// Runs work that blocks (files, sled, hashing of large input) where it stalls nobody: on tokio's bounded blocking pool, in place
/// under simulation.
///
/// # Panics
/// When `work` panics: the panic goes on in the caller.
pub async fn blocking<T, F>(work: F) -> T
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    #[cfg(feature = "sim")]
    {
        sim::in_place(work).await
    }
    #[cfg(not(feature = "sim"))]
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down and took the work's place away: nobody is left to wait for the answer.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Takes something that happened into the trace of a simulated run; nothing otherwise.
pub fn trace(what: &[u64]) {
    #[cfg(feature = "sim")]
    sim::trace(what);
    #[cfg(not(feature = "sim"))]
    let _ = what;
}

/// Says that the blocking work under way takes this long; the moment at which it is done. Only simulated work is told so: real work takes
/// the time that it takes, and this is the present moment.
pub fn takes(duration: Duration) -> Instant {
    #[cfg(feature = "sim")]
    {
        sim::owe(duration)
    }
    #[cfg(not(feature = "sim"))]
    {
        let _ = duration;
        now()
    }
}
