//! Who may not read a mail does not.

use harness::{Cluster, Identity, Imap, PASSWORD, account, mail};
use malle_client::{Class, Error, Who};

#[tokio::test]
async fn an_lmtp_certificate_reads_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let replies = cluster
        .lmtp()
        .await?
        .deliver("paul@example.net", &[&account(1)], &mail::plain("secret"))
        .await?;
    assert!(replies[0].is_done());

    let thief = cluster
        .client_as(&Identity::Gateway("thief".into(), vec!["lmtp".into()]))
        .await?;
    assert!(
        thief.resolve(&account(1)).await?.is_some(),
        "it may still find out where to deliver"
    );
    let denied =
        |error: Option<Error>, what: &str| assert!(matches!(error, Some(Error::Denied(_))), "{what}: {error:?}");
    denied(
        thief.login(&account(1), PASSWORD).await.err(),
        "a login with the right password",
    );
    denied(
        thief.directory().account_show(Who::Address(account(1))).await.err(),
        "an account",
    );
    denied(
        thief.cluster().checkpoint(malle_client::ShardId(1), None).await.err(),
        "an operator's call",
    );
    cluster.finish().await
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_login_are_refused_alike() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let gateway = cluster
        .client_as(&Identity::Gateway("front".into(), vec!["imap".into()]))
        .await?;
    let wrong = gateway.login(&account(1), "wrong").await.err();
    let unknown = gateway.login("nobody@example.org", "wrong").await.err();
    assert_eq!(wrong, Some(Error::BadCredentials));
    assert_eq!(unknown, wrong);
    assert_eq!(wrong.map(|error| error.class()), Some(Class::Refused));
    assert!(Imap::login(cluster.imap_address(), &account(1), "wrong").await.is_err());
    cluster.finish().await
}
