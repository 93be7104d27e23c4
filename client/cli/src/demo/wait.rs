//! Bounded waiting: a condition is asked for until it holds, a deadline passes, or it can never hold.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep, timeout_at};

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// What one try came to. An error of the try itself ends the wait.
pub enum Try<T> {
    /// It holds.
    Done(T),
    /// Not yet, and why.
    NotYet(String),
}

/// Tries until done, at most `limit`.
///
/// # Errors
/// The try's own error, or at the deadline one that says what was missing last.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> anyhow::Result<Try<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    let mut missing = "no answer".to_owned();
    loop {
        match timeout_at(deadline, attempt()).await {
            Ok(Ok(Try::Done(value))) => return Ok(value),
            Ok(Ok(Try::NotYet(reason))) => missing = reason,
            Ok(Err(error)) => return Err(error.context(format!("while waiting for {what}"))),
            Err(_) => {}
        }
        if Instant::now() + PAUSE >= deadline {
            bail!("{what}: not within {} s; last: {missing}", limit.as_secs());
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_at_its_deadline_with_the_last_reason() {
        let mut tries = 0;
        let error = until::<()>("the moon", Duration::from_secs(2), async || {
            tries += 1;
            Ok(Try::NotYet(format!("clouds {tries}")))
        });
        let text = error.await.unwrap_err().to_string();
        assert!(text.starts_with("the moon: not within 2 s; last: clouds "), "{text}");
    }

    #[tokio::test]
    async fn an_error_ends_a_wait_at_once() {
        let ended = until::<()>("x", Duration::from_secs(3600), async || bail!("never"));
        assert!(ended.await.is_err());
    }
}
