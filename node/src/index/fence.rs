//! The fence around an engine that is not ours: its errors and panics become [`IndexError::Broken`], once and for good.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::IndexError;

/// Whether a store can still be believed.
pub(super) struct Fence {
    dir: PathBuf,
    /// Why the store is broken, once it is.
    broken: OnceLock<String>,
}

impl Fence {
    /// Around the store in this directory.
    pub fn around(dir: &Path) -> Fence {
        Fence {
            dir: dir.to_owned(),
            broken: OnceLock::new(),
        }
    }

    /// Why the store is broken; `None` while it is sound.
    pub fn broken(&self) -> Option<IndexError> {
        self.broken.get().map(|why| IndexError::Broken(why.clone()))
    }

    /// Declares the store broken.
    pub fn poison(&self, why: String) -> IndexError {
        tracing::error!(dir = %self.dir.display(), why, "the index is broken");
        // A second reason changes nothing: the first one stands.
        let _ = self.broken.set(why.clone());
        IndexError::Broken(why)
    }

    /// Runs one call into the engine. An error or panic poisons the store; a broken one is not called any more.
    pub fn guarded<T, E: Display>(&self, what: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, IndexError> {
        if let Some(broken) = self.broken() {
            return Err(broken);
        }
        match caught(work) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.poison(format!("{what}: {error}"))),
            Err(panic) => Err(self.poison(format!("{what}: {panic}"))),
        }
    }
}

/// Runs a call into the engine; a panic becomes its text.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        format!("the engine panicked: {text}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_breaks_the_store_for_good_and_the_engine_is_not_called_again() {
        let fence = Fence::around(Path::new("of/nothing"));
        assert_eq!(fence.guarded("get", || Ok::<_, String>(1)), Ok(1));
        let panicked = fence.guarded("get", || -> Result<(), String> { panic!("cannot find pid 7") });
        let Err(IndexError::Broken(why)) = panicked else {
            panic!("{panicked:?}");
        };
        assert!(why.contains("cannot find pid 7"), "{why}");
        let mut called = false;
        let later = fence.guarded("get", || {
            called = true;
            Ok::<_, String>(())
        });
        assert_eq!((later, called), (Err(IndexError::Broken(why)), false));
    }

    #[test]
    fn an_error_breaks_the_store_and_the_first_reason_stands() {
        let fence = Fence::around(Path::new("of/nothing"));
        let failed = fence.guarded("flush", || Err::<(), _>("no space"));
        assert_eq!(failed, Err(IndexError::Broken("flush: no space".into())));
        fence.poison("another".into());
        assert_eq!(fence.broken(), failed.err());
    }
}
