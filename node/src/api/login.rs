//! Logins: a password, an application password, or an access token of the identity provider becomes a login token for one gateway.
//!
//! Every failed login looks the same to its caller and costs the same, but for a token, whose signature says at once that it is none. Why
//! it failed is in the audit log of the node.

use malle_machine::directory::{AccountState, AppScopes, read};
use malle_proto::limits;
use malle_proto::v1::{
    CheckLoginsReply, CheckLoginsRequest, LoginPurpose, LoginReply, LoginRequest, RenewTokenRequest,
};

use super::app_passwords::digest;
use super::directory::{DirectoryApi, Who, find};
use super::error::Refused;
use super::standing::holds;
use crate::raft::Barrier;
use crate::security::password::PasswordError;
use crate::security::{Denied, Identity, Peer, Proof, Token, audit};

/// Who has proved to be whom.
struct Proved {
    account: read::Account,
    by: Proof,
    /// The same for a person.
    named: String,
}

/// An account that somebody wants to be, and what its passwords are compared with.
type Candidate = (read::Account, Option<String>, Vec<read::AppPassword>);

impl DirectoryApi {
    pub(super) async fn log_in(&self, peer: &Peer, request: LoginRequest) -> Result<LoginReply, Refused> {
        let Identity::Gateway { name, .. } = &peer.identity else {
            return Err(Refused::denied("logins come through gateways"));
        };
        let purpose = request.purpose();
        let login = request.login.clone();
        let proved = if request.bearer_token.is_empty() {
            self.by_password(request, purpose).await?
        } else {
            self.by_bearer_token(&request).await?
        };
        match proved {
            Ok(proved) => self.logged_in(proved, name, purpose).await,
            Err(reason) => {
                audit::login_refused(peer, &login, &reason);
                Err(Refused::bad_credentials())
            }
        }
    }

    /// The account whose password this is; inside, why it is nobody's.
    async fn by_password(
        &self,
        request: LoginRequest,
        purpose: LoginPurpose,
    ) -> Result<Result<Proved, String>, Refused> {
        let who = Who::Address(request.login);
        let found: Option<Candidate> = self
            .read(Barrier::Linearizable, move |view| {
                let Some(account) = find(view, &who)? else {
                    return Ok(None);
                };
                let hash = read::password_hash(view, account.id)?;
                let app_passwords = read::app_passwords(view, account.id)?;
                Ok(Some((account, hash, app_passwords)))
            })
            .await?;
        let (account, hash) = match found {
            Some((account, hash, app_passwords)) => {
                let scope = match purpose {
                    LoginPurpose::Submission => AppScopes::SUBMISSION,
                    LoginPurpose::Mail | LoginPurpose::Unspecified => AppScopes::MAIL,
                };
                let digest = digest(account.id, &request.password);
                // Digests of drawn secrets: that a comparison stops early tells nothing that helps to guess one.
                if let Some(known) = app_passwords.iter().find(|one| one.digest == digest) {
                    let wrong = || "an application password for something else".to_owned();
                    let fits = known.scopes & scope != 0;
                    let proved = Proved {
                        account,
                        by: Proof::of_app_password(&digest),
                        named: format!("application password {}", known.name),
                    };
                    return Ok(fits.then_some(proved).ok_or_else(wrong));
                }
                (Some(account), hash)
            }
            None => (None, None),
        };
        let by = hash.as_deref().map(Proof::of_password);
        let right = match self.passwords.verify(request.password, hash).await {
            // Nobody has such a password.
            Err(PasswordError::Length) => false,
            checked => checked?,
        };
        let wrong = || "wrong login name or password".to_owned();
        let proved = account.zip(by).map(|(account, by)| Proved {
            account,
            by,
            named: "password".into(),
        });
        Ok(proved.filter(|_| right).ok_or_else(wrong))
    }

    /// The account that an access token names; inside, why it names none.
    async fn by_bearer_token(&self, request: &LoginRequest) -> Result<Result<Proved, String>, Refused> {
        let Some(bearers) = &self.bearers else {
            return Ok(Err("no access tokens are taken here: [oauth] is not configured".into()));
        };
        let bearer = match bearers.open(&request.bearer_token, self.env.now_ms()) {
            Ok(bearer) => bearer,
            Err(error) => return Ok(Err(format!("an access token that is {error}"))),
        };
        let ends_ms = bearer.ends_ms;
        let (named, asked) = (bearer.address, request.login.clone());
        let (named, asked) = self
            .read(Barrier::Linearizable, move |view| {
                let named = find(view, &Who::Address(named))?;
                let asked = if asked.is_empty() {
                    named.clone()
                } else {
                    find(view, &Who::Address(asked))?
                };
                Ok((named, asked))
            })
            .await?;
        Ok(match (named, asked) {
            (Some(named), Some(asked)) if named.id == asked.id => Ok(Proved {
                account: named,
                by: Proof::AccessToken { ends_ms },
                named: "access token".into(),
            }),
            (Some(_), _) => Err("an access token for another account".into()),
            (None, _) => Err("an access token for nobody here".into()),
        })
    }

    async fn logged_in(&self, proved: Proved, gateway: &str, purpose: LoginPurpose) -> Result<LoginReply, Refused> {
        let mut reply = self.token(proved.account, gateway, proved.by).await?;
        reply.opened_by = proved.named;
        Ok(match purpose {
            // Who may send mail in somebody's name need not read it.
            LoginPurpose::Submission => LoginReply {
                token: Vec::new().into(),
                expires_ms: 0,
                ..reply
            },
            LoginPurpose::Mail | LoginPurpose::Unspecified => reply,
        })
    }

    async fn token(&self, account: read::Account, gateway: &str, proof: Proof) -> Result<LoginReply, Refused> {
        if account.state == AccountState::Suspended {
            return Err(Refused::suspended());
        }
        let keys = self.read(Barrier::Local, read::token_keys).await?;
        let key = keys
            .first()
            .ok_or_else(|| Refused::unavailable("the cluster is not initialised"))?;
        let expires_ms = self.env.now_ms() + limits::TOKEN_LIFETIME_MS;
        let token = Token {
            account: account.id,
            gateway: gateway.to_owned(),
            expires_ms,
            proof,
        };
        Ok(LoginReply {
            token: token.sign(key).into(),
            account: account.id.to_vec().into(),
            shard: account.shard.0,
            placement_epoch: account.placement_epoch,
            expires_ms,
            primary_address: account.primary_address,
            opened_by: String::new(),
        })
    }

    pub(super) async fn renew(&self, peer: &Peer, request: RenewTokenRequest) -> Result<LoginReply, Refused> {
        let Identity::Gateway { name, .. } = &peer.identity else {
            return Err(Refused::denied("tokens are for gateways"));
        };
        let keys = self.read(Barrier::Local, read::token_keys).await?;
        let token = Token::open(&request.token, &keys, self.env.now_ms(), name)
            .map_err(|error| Refused::from(Denied::Token(error)))?;
        let (proof, now_ms) = (token.proof, self.env.now_ms());
        let (account, holds) = self
            .read(Barrier::Linearizable, move |view| {
                Ok((read::account(view, token.account)?, holds(view, &token, now_ms)?))
            })
            .await?;
        let account = account.ok_or_else(|| Refused::not_found("the account is gone"))?;
        if account.state != AccountState::Suspended && !holds {
            return Err(Refused::token_expired());
        }
        self.token(account, name, proof).await
    }

    /// Which logins of a gateway are over. A majority is asked, once for all of them: nobody is sent away because a replica is behind.
    pub(super) async fn check_logins(
        &self,
        peer: &Peer,
        request: CheckLoginsRequest,
    ) -> Result<CheckLoginsReply, Refused> {
        let Identity::Gateway { name, .. } = &peer.identity else {
            return Err(Refused::denied("tokens are for gateways"));
        };
        if request.tokens.len() > limits::LOGINS_PER_CHECK_MAX {
            let most = limits::LOGINS_PER_CHECK_MAX;
            return Err(Refused::limit(format!("at most {most} logins in one question")));
        }
        let (name, now_ms) = (name.clone(), self.env.now_ms());
        let over = self
            .read(Barrier::Linearizable, move |view| {
                let keys = read::token_keys(view)?;
                let mut over = Vec::new();
                for (place, token) in request.tokens.iter().enumerate() {
                    // At the beginning of time no token has expired: what is asked here is not its age.
                    let holds = match Token::open(token, &keys, 0, &name) {
                        Ok(token) => holds(view, &token, now_ms)?,
                        Err(_) => false,
                    };
                    if !holds {
                        over.push(place as u32);
                    }
                }
                Ok(over)
            })
            .await?;
        Ok(CheckLoginsReply { over })
    }
}
