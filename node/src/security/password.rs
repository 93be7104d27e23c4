//! Passwords: hashed and checked with argon2id, a few at a time.
//!
//! A check costs 19 MiB and tens of milliseconds of a core on purpose, so it runs on the blocking pool, behind a bound on how many
//! run and one on how many wait; whoever comes behind that is told Busy at once. A login that does not exist costs as much as a
//! wrong password: its check runs against a decoy, so that the time of an answer does not tell which addresses there are.
//!
//! What is absent: any rule about what a good password is (an operator sets them), and remembering them.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{Error as HashError, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use malle_proto::limits;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::env::Env;

const SALT_BYTES: usize = 16;

/// What a hash, and so a check of it, costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// What a guesser must pay.
    Full,
    /// The least that argon2 takes, for simulation: thousands of logins whose passwords nobody guesses.
    Least,
}

impl Effort {
    fn argon2(self) -> Argon2<'static> {
        let params = match self {
            Effort::Full => Params::default(),
            Effort::Least => Params::new(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST, None)
                .expect("the least parameters are parameters"),
        };
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
    }
}

/// Why a password was neither hashed nor checked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many wait already: again in a moment.
    #[error("too many password checks at once")]
    Busy,
    /// Longer than `limits::PASSWORD_MAX_BYTES`, or empty.
    #[error("a password has 1 to {} bytes", limits::PASSWORD_MAX_BYTES)]
    Length,
    /// The stored hash does not parse: nobody can log in with it.
    #[error("the stored hash is unusable: {0}")]
    Hash(String),
}

/// Hashes and checks passwords.
#[derive(Clone)]
pub struct Passwords {
    env: Env,
    effort: Effort,
    /// A place for each that runs.
    running: Arc<Semaphore>,
    /// A place for each that runs or waits.
    admitted: Arc<Semaphore>,
    /// What a login that does not exist is checked against.
    decoy: Arc<str>,
}

impl Passwords {
    /// Takes one hash's time, for the decoy.
    pub fn new(env: Env, effort: Effort) -> Passwords {
        let decoy = hash(effort, &env.bytes::<32>(), &env.bytes::<SALT_BYTES>())
            .expect("argon2 takes 32 bytes and a salt of 16 with its own parameters");
        Passwords {
            env,
            effort,
            running: Arc::new(Semaphore::new(limits::PASSWORD_CHECKS_AT_ONCE)),
            admitted: Arc::new(Semaphore::new(
                limits::PASSWORD_CHECKS_AT_ONCE + limits::PASSWORD_CHECKS_WAITING_MAX,
            )),
            decoy: decoy.into(),
        }
    }

    /// The PHC string of a new password.
    ///
    /// # Errors
    /// `Length`, `Busy`.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        check_length(&password)?;
        let salt = self.env.bytes::<SALT_BYTES>();
        let place = self.place().await?;
        let effort = self.effort;
        malle_rt::blocking(move || {
            let _place = place;
            hash(effort, password.as_bytes(), &salt)
        })
        .await
        .map_err(|error| PasswordError::Hash(error.to_string()))
    }

    /// Is it the password of the stored hash? Without a stored hash the answer is no, after the same time.
    ///
    /// # Errors
    /// Every [`PasswordError`].
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, PasswordError> {
        check_length(&password)?;
        let place = self.place().await?;
        let known = stored.is_some();
        let against = stored.unwrap_or_else(|| self.decoy.to_string());
        let checked = malle_rt::blocking(move || {
            let _place = place;
            let against = PasswordHash::new(&against)?;
            match Argon2::default().verify_password(password.as_bytes(), &against) {
                Ok(()) => Ok(true),
                Err(HashError::PasswordInvalid) => Ok(false),
                Err(error) => Err(error),
            }
        });
        match checked.await {
            Ok(right) => Ok(right && known),
            Err(error) => Err(PasswordError::Hash(error.to_string())),
        }
    }

    /// Waits for a place. It goes with the work, not with the caller: a caller that gives up does not free a core.
    async fn place(&self) -> Result<Place, PasswordError> {
        let admitted = self
            .admitted
            .clone()
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let running = self
            .running
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| PasswordError::Busy)?;
        Ok(Place {
            _admitted: admitted,
            _running: running,
        })
    }
}

struct Place {
    _admitted: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

fn check_length(password: &str) -> Result<(), PasswordError> {
    if (1..=limits::PASSWORD_MAX_BYTES).contains(&password.len()) {
        Ok(())
    } else {
        Err(PasswordError::Length)
    }
}

fn hash(effort: Effort, password: &[u8], salt: &[u8]) -> Result<String, HashError> {
    let hash = effort.argon2().hash_password_with_salt(password, salt)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Effort, PasswordError, Passwords};
    use crate::env::Env;
    use malle_proto::limits;

    fn passwords() -> Passwords {
        Passwords::new(Env::manual(0, 1).0, Effort::Full)
    }

    #[tokio::test]
    async fn only_the_right_password_opens_and_no_hash_comes_twice() {
        let passwords = passwords();
        let stored = passwords.hash("crème brûlée".into()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_ne!(stored, passwords.hash("crème brûlée".into()).await.unwrap());
        assert_eq!(
            passwords.verify("crème brûlée".into(), Some(stored.clone())).await,
            Ok(true)
        );
        assert_eq!(passwords.verify("creme brulee".into(), Some(stored)).await, Ok(false));
    }

    #[tokio::test]
    async fn an_unknown_login_is_checked_like_any_other_against_the_same_parameters() {
        let passwords = passwords();
        let stored = passwords.hash("x".into()).await.unwrap();
        let parameters = |hash: &str| hash.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(parameters(&stored), parameters(&passwords.decoy));
        assert_eq!(passwords.verify("x".into(), None).await, Ok(false));
        let decoy = passwords.decoy.to_string();
        assert_ne!(passwords.verify("x".into(), Some(decoy)).await, Ok(true));
    }

    #[tokio::test]
    async fn hostile_lengths_and_broken_hashes_have_their_own_answers() {
        let passwords = passwords();
        let long = "x".repeat(limits::PASSWORD_MAX_BYTES + 1);
        assert_eq!(passwords.verify(long.clone(), None).await, Err(PasswordError::Length));
        assert_eq!(passwords.hash(long).await, Err(PasswordError::Length));
        assert_eq!(passwords.hash(String::new()).await, Err(PasswordError::Length));
        let broken = passwords.verify("x".into(), Some("$argon2id$nonsense".into())).await;
        assert!(matches!(broken, Err(PasswordError::Hash(_))), "{broken:?}");
    }

    #[tokio::test]
    async fn who_comes_behind_the_waiting_is_told_busy_and_a_free_place_is_used() {
        let passwords = passwords();
        let all = limits::PASSWORD_CHECKS_AT_ONCE + limits::PASSWORD_CHECKS_WAITING_MAX;
        let places = passwords.admitted.clone().try_acquire_many_owned(all as u32).unwrap();
        assert_eq!(passwords.verify("x".into(), None).await, Err(PasswordError::Busy));
        drop(places);
        assert_eq!(passwords.verify("x".into(), None).await, Ok(false));
        assert_eq!(passwords.admitted.available_permits(), all, "every place came back");
    }
}
