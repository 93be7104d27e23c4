//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Between two looks at a condition.
const PAUSE: Duration = Duration::from_millis(50);

/// Looks again and again until `look` answers `Ok(Some(_))`. An error of a look is no answer; the last one is told at the deadline.
///
/// # Errors
/// At the deadline, with what was waited for.
pub async fn until<T, F, L>(what: impl Display, deadline: Duration, mut look: L) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
    L: FnMut() -> F,
{
    let begun = Instant::now();
    let mut last = None;
    while begun.elapsed() < deadline {
        match tokio::time::timeout(deadline.saturating_sub(begun.elapsed()), look()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => last = None,
            Ok(Err(error)) => last = Some(error),
            Err(_) => break,
        }
        tokio::time::sleep(PAUSE).await;
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("waited {deadline:?} for {what}")),
        None => bail!("waited {deadline:?} for {what}"),
    }
}

/// Looks again and again, in code that has no runtime; whether it came true before the deadline.
pub fn patiently(deadline: Duration, mut look: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if look() {
            return true;
        }
        if begun.elapsed() >= deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The future's result, or an error that says what took too long.
///
/// # Errors
/// The future's own, or that the time is over.
pub async fn within<T>(
    what: impl Display,
    deadline: Duration,
    future: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(deadline, future).await {
        Ok(result) => result.with_context(|| what.to_string()),
        Err(_) => bail!("{what}: no end after {deadline:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_condition_that_comes_true_is_awaited() {
        let mut looks = 0;
        let counted = until("three looks", Duration::from_secs(10), || {
            looks += 1;
            let answer = (looks == 3).then_some(looks);
            async move { Ok(answer) }
        });
        assert_eq!(counted.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn a_condition_that_never_comes_true_says_what_and_why() {
        let error = until("rain", Duration::from_millis(80), || async {
            bail!("a clear sky") as anyhow::Result<Option<()>>
        });
        let text = format!("{:#}", error.await.unwrap_err());
        assert!(text.contains("rain") && text.contains("a clear sky"), "{text}");
    }

    #[tokio::test]
    async fn a_future_that_never_ends_is_given_up() {
        let error = within(
            "a word",
            Duration::from_millis(20),
            std::future::pending::<anyhow::Result<()>>(),
        )
        .await;
        assert!(error.unwrap_err().to_string().contains("a word"));
    }
}
