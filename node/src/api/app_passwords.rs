//! Application passwords: operators make them, name them and take them back.

use malle_machine::directory::{AppScopes, Op, read};
use malle_proto::v1::{AppPassword, AppPasswordAddRequest, AppPasswordRemoveRequest, AppPasswords};
use malle_proto::{AccountId, limits};
use ring::digest::{Context, SHA256};

use super::directory::{DirectoryApi, account_id, op_id};
use super::error::Refused;
use crate::raft::Barrier;

/// What is kept of a secret. It was drawn from 100 bits, so that a quick hash is as good as a slow one; the account stands in it, so that
/// equal digests mean nothing. People copy secrets with blanks and dashes in them.
pub(super) fn digest(account: AccountId, secret: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(b"malle application password\0");
    context.update(&account.0);
    context.update(normal(secret).as_bytes());
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

fn normal(secret: &str) -> String {
    let counts = |c: &char| !matches!(c, ' ' | '-');
    secret.chars().filter(counts).map(|c| c.to_ascii_lowercase()).collect()
}

impl DirectoryApi {
    pub(super) async fn add_app_password(&self, request: AppPasswordAddRequest) -> Result<AppPasswords, Refused> {
        let account = account_id(&request.account)?;
        let length = normal(&request.secret).len();
        if !(limits::APP_PASSWORD_MIN_BYTES..=limits::PASSWORD_MAX_BYTES).contains(&length) {
            return Err(Refused::invalid(format!(
                "the secret of an application password is drawn, and has at least {} characters",
                limits::APP_PASSWORD_MIN_BYTES
            )));
        }
        let scope = |wanted, scope| if wanted { scope } else { 0 };
        let op = Op::AppPasswordAdd {
            op_id: op_id(&request.op_id)?,
            account,
            name: request.name,
            digest: digest(account, &request.secret),
            scopes: scope(request.mail, AppScopes::MAIL) | scope(request.submission, AppScopes::SUBMISSION),
        };
        self.change(op).await?;
        self.app_passwords(account).await
    }

    pub(super) async fn remove_app_password(&self, request: AppPasswordRemoveRequest) -> Result<AppPasswords, Refused> {
        let account = account_id(&request.account)?;
        let op = Op::AppPasswordRemove {
            op_id: op_id(&request.op_id)?,
            account,
            name: request.name,
        };
        self.change(op).await?;
        self.app_passwords(account).await
    }

    pub(super) async fn app_passwords(&self, account: AccountId) -> Result<AppPasswords, Refused> {
        let look = move |view: &dyn malle_machine::view::View| read::app_passwords(view, account);
        let passwords = self.read(Barrier::Linearizable, look).await?;
        let shown = |one: read::AppPassword| AppPassword {
            name: one.name,
            mail: one.scopes & AppScopes::MAIL != 0,
            submission: one.scopes & AppScopes::SUBMISSION != 0,
            created_ms: one.created_ms,
        };
        Ok(AppPasswords {
            passwords: passwords.into_iter().map(shown).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::digest;
    use malle_proto::AccountId;

    #[test]
    fn a_secret_is_copied_as_people_copy() {
        let (alice, bob) = (AccountId([1; 16]), AccountId([2; 16]));
        let kept = digest(alice, "abcde-fghij-kmnpq-rstuv");
        assert_eq!(digest(alice, "ABCDE fghij kmnpq rstuv"), kept);
        assert_ne!(digest(bob, "abcde-fghij-kmnpq-rstuv"), kept);
        assert_ne!(digest(alice, "abcde-fghij-kmnpq-rstuw"), kept);
    }
}
