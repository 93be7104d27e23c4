//! What a logged-in account carries from call to call: the login token, and how far the session has seen.
//!
//! The token is signed by the directory for one account and one gateway and lives for [`limits::TOKEN_LIFETIME_MS`]. Half of that
//! after it was given, the next call renews it first; calls that come at the same moment go on with the old one, which is still good.
//! Its age is counted on the monotonic clock from the moment the answer came, so a wrong wall clock here changes nothing. The session's
//! MODSEQ is the highest that any answer told: `AtLeast` reads ask for it, which is how a session reads its own writes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use malle_proto::v1::directory_client::DirectoryClient;
use malle_proto::v1::{LoginReply, RenewTokenRequest};
use malle_proto::{AccountId, ModSeq, ShardId, limits};
use malle_rt::Instant;

use crate::core::Core;
use crate::error::Error;

/// See the module's header.
pub(crate) struct Session {
    pub(crate) account: AccountId,
    pub(crate) primary_address: String,
    /// For a person.
    pub(crate) opened_by: String,
    token: Mutex<Token>,
    renewing: AtomicBool,
    modseq: AtomicU64,
}

struct Token {
    bytes: Bytes,
    renew_at: Instant,
}

impl Token {
    fn new(bytes: Bytes) -> Token {
        Token {
            bytes,
            renew_at: malle_rt::now() + Duration::from_millis(limits::TOKEN_LIFETIME_MS / 2),
        }
    }
}

impl Session {
    pub(crate) fn new(account: AccountId, login: LoginReply) -> Session {
        Session {
            account,
            primary_address: login.primary_address,
            opened_by: login.opened_by,
            token: Mutex::new(Token::new(login.token)),
            renewing: AtomicBool::new(false),
            modseq: AtomicU64::new(0),
        }
    }

    /// The token for the next call, renewed when it is half through its life. That renewing fails is not yet this call's failure.
    pub(crate) async fn token(&self, core: &Core, deadline: Instant) -> Bytes {
        let (bytes, due) = self.with_token(|token| (token.bytes.clone(), malle_rt::now() >= token.renew_at));
        if !due || self.renewing.swap(true, Ordering::Acquire) {
            return bytes;
        }
        let _done = Renewing(&self.renewing);
        match self.renew(core, deadline).await {
            Ok(renewed) => renewed,
            Err(error) => {
                tracing::warn!(account = %self.account, %error, "the login token was not renewed");
                bytes
            }
        }
    }

    /// A new token now, because a node said that the old one has expired.
    pub(crate) async fn renew(&self, core: &Core, deadline: Instant) -> Result<Bytes, Error> {
        let message = RenewTokenRequest {
            token: self.with_token(|token| token.bytes.clone()),
        };
        let asked = core.ask(ShardId::DIRECTORY, deadline, message, |channel, request| async move {
            DirectoryClient::new(channel).renew_token(request).await
        });
        let bytes = asked.await?.token;
        self.with_token(|token| *token = Token::new(bytes.clone()));
        Ok(bytes)
    }

    /// The token as it is now, to ask about it.
    pub(crate) fn proof(&self) -> Bytes {
        self.with_token(|token| token.bytes.clone())
    }

    /// An answer told how far the account is.
    pub(crate) fn saw(&self, modseq: u64) {
        self.modseq.fetch_max(modseq, Ordering::AcqRel);
    }

    pub(crate) fn modseq(&self) -> ModSeq {
        ModSeq(self.modseq.load(Ordering::Acquire))
    }

    fn with_token<T>(&self, work: impl FnOnce(&mut Token) -> T) -> T {
        work(&mut self.token.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes the token look as old as it is when it is to be renewed.
    #[cfg(test)]
    pub(crate) fn age(&self) {
        self.with_token(|token| token.renew_at = malle_rt::now());
    }
}

/// Lets others renew again, also when the call was dropped in the middle.
struct Renewing<'a>(&'a AtomicBool);

impl Drop for Renewing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
