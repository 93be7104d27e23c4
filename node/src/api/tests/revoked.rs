//! A login that is over opens nothing: the shard asks the directory, not the gateway.

use super::*;
use malle_machine::directory::AppScopes;

const STATUS: fn() -> Call = || {
    Call::AccountStatus(v1::AccountStatus {
        account: Bytes::copy_from_slice(ALICE.as_bytes()),
        consistency: None,
    })
};

impl World {
    async fn change(&self, op: directory::Op) {
        let directory = self.api.groups.get(ShardId::DIRECTORY).unwrap();
        let done = directory.propose_directory(op, soon()).await.unwrap();
        assert!(matches!(done, directory::Outcome::Account { .. }), "{done:?}");
    }

    fn token_by(&self, proof: Proof) -> Bytes {
        let token = Token {
            account: ALICE,
            gateway: "front".into(),
            expires_ms: START_MS + limits::TOKEN_LIFETIME_MS,
            proof,
        };
        token.sign(&self.key).into()
    }

    /// What a call with this token is told at the next look.
    async fn refused_at_the_next_look(&self, token: &Bytes) -> ErrorCode {
        self.ok(&imap(), token.clone(), STATUS()).await;
        self.api.standing.forget();
        self.refused(&imap(), token.clone(), STATUS()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_app_password_or_an_old_password_opened_is_closed_at_the_next_look() {
    let world = World::new().await;
    let digest = [7; 32];
    world
        .change(directory::Op::AppPasswordAdd {
            op_id: world.api.env.op_id(),
            account: ALICE,
            name: "phone".into(),
            digest,
            scopes: AppScopes::MAIL,
        })
        .await;
    let phone = world.token_by(Proof::of_app_password(&digest));
    let own = world.token(ALICE);
    world.ok(&imap(), phone.clone(), STATUS()).await;
    world.ok(&imap(), own.clone(), STATUS()).await;
    let stranger = world.token_by(Proof::of_app_password(&[8; 32]));
    assert_eq!(
        world.refused(&imap(), stranger, STATUS()).await,
        ErrorCode::TokenExpired
    );

    world
        .change(directory::Op::AppPasswordRemove {
            op_id: world.api.env.op_id(),
            account: ALICE,
            name: "phone".into(),
        })
        .await;
    assert_eq!(world.refused_at_the_next_look(&phone).await, ErrorCode::TokenExpired);
    world.ok(&imap(), own.clone(), STATUS()).await;

    world
        .change(directory::Op::AccountSet {
            op_id: world.api.env.op_id(),
            account: ALICE,
            password_hash: Some("$argon2id$1".into()),
            state: None,
            quota_bytes: None,
        })
        .await;
    assert_eq!(world.refused_at_the_next_look(&own).await, ErrorCode::TokenExpired);
    let new = world.token_by(Proof::of_password("$argon2id$1"));
    world.ok(&imap(), new, STATUS()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_access_token_opened_ends_with_it() {
    let world = World::new().await;
    let token = world.token_by(Proof::AccessToken {
        ends_ms: START_MS + 60_000,
    });
    world.ok(&imap(), token.clone(), STATUS()).await;
    world.clock.set_ms(START_MS + 60_000 + limits::CLOCK_SKEW_MS);
    assert_eq!(world.refused(&imap(), token, STATUS()).await, ErrorCode::TokenExpired);
}
