//! Who may not read a mail does not.

use std::time::Duration;

use harness::{Cluster, Identity, Imap, PASSWORD, account, mail, until};
use malle_client::{AccountChange, AppPassword, Class, Error, NodeId, Who, fresh_op_id};

/// A gateway attends a node a second after it has one.
const SOON: Duration = Duration::from_secs(20);
/// What is taken back is over by then.
const MINUTE: Duration = Duration::from_secs(60);

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

/// Of the identity provider that the node's own tests believe, too.
const JWK: &str = include_str!("../../node/src/security/bearer/rsa.jwk.json");
/// For u1@example.org, until 2100.
const TOKEN: &str = include_str!("../../node/src/security/bearer/rsa.jwt");

#[tokio::test]
async fn an_access_token_opens_its_account_and_no_other() -> anyhow::Result<()> {
    let mut cluster = Cluster::start().await?;
    let front = Identity::Gateway("front".into(), vec!["imap".into()]);
    let gateway = cluster.client_as(&front).await?;
    let token = TOKEN.trim();
    let before = gateway.login_with_token("", token).await.err();
    assert_eq!(
        before,
        Some(Error::BadCredentials),
        "nobody is believed who is not named"
    );

    let keys = cluster.path().join("jwks.json");
    std::fs::write(&keys, format!("{{\"keys\":[{JWK}]}}"))?;
    let oauth = format!(
        "\n[oauth]\nissuer = \"https://id.example.org\"\naudience = \"malle\"\njwks = {:?}\n",
        keys.display().to_string()
    );
    for node in [1, 2, 3].map(NodeId) {
        cluster.stop(node).await?;
        cluster.restart_with(node, &oauth).await?;
    }
    for name in ["", "u1@example.org"] {
        let opened = gateway.login_with_token(name, token).await?;
        assert_eq!(opened.primary_address(), account(1));
        assert!(opened.mailboxes().await?.iter().any(|mailbox| mailbox.name == "INBOX"));
    }
    let other = gateway.login_with_token(&account(2), token).await.err();
    assert_eq!(other, Some(Error::BadCredentials));
    let forged = gateway.login_with_token("", &token.replacen("e", "f", 1)).await.err();
    assert_eq!(forged, Some(Error::BadCredentials));
    cluster.finish().await
}

#[tokio::test]
async fn an_app_password_opens_what_it_is_for_until_it_is_taken_back() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let operator = cluster.operator().await?;
    let directory = operator.directory();
    let gateway = cluster
        .client_as(&Identity::Gateway("front".into(), vec!["imap".into()]))
        .await?;
    let id = directory.account_show(Who::Address(account(1))).await?.id;
    let (phone, printer) = ("abcde-fghij-kmnpq-rstuv", "zzzzz-yyyyy-xxxxx-wwwww");
    for (name, secret, mail) in [("phone", phone, true), ("printer", printer, false)] {
        let wanted = AppPassword {
            name: name.into(),
            mail,
            submission: !mail,
            created_ms: 0,
        };
        directory.app_password_add(id, wanted, secret, fresh_op_id()).await?;
    }
    let refused = Some(Error::BadCredentials);
    let mut imap = Imap::login(cluster.imap_address(), &account(1), "abcdefghijkmnpqrstuv").await?;
    imap.select("INBOX").await?;
    assert_eq!(gateway.may_submit(&account(1), phone).await.err(), refused);
    assert_eq!(gateway.may_submit(&account(1), printer).await?, account(1));
    assert_eq!(gateway.login(&account(1), printer).await.err(), refused);
    assert_eq!(gateway.login(&account(2), phone).await.err(), refused, "another's");
    assert_eq!(gateway.may_submit(&account(1), PASSWORD).await?, account(1));

    let left = directory.app_password_remove(id, "phone", fresh_op_id()).await?;
    assert_eq!(
        left.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
        ["printer"]
    );
    assert_eq!(gateway.login(&account(1), phone).await.err(), refused);
    assert!(gateway.login(&account(1), PASSWORD).await.is_ok());
    cluster.finish().await
}

#[tokio::test]
async fn operators_see_and_end_sessions_and_what_a_lost_password_opened_ends_by_itself() -> anyhow::Result<()> {
    let cluster = Cluster::start().await?;
    let operator = cluster.operator().await?;
    let directory = operator.directory();
    let id = directory.account_show(Who::Address(account(1))).await?.id;
    let mut opened = Vec::new();
    for (name, secret) in [
        ("phone", "abcde-fghij-kmnpq-rstuv"),
        ("tablet", "zzzzz-yyyyy-xxxxx-wwwww"),
    ] {
        let wanted = AppPassword {
            name: name.into(),
            mail: true,
            submission: false,
            created_ms: 0,
        };
        directory.app_password_add(id, wanted, secret, fresh_op_id()).await?;
        opened.push(Imap::login(cluster.imap_address(), &account(1), secret).await?);
    }
    let mut own = Imap::login(cluster.imap_address(), &account(1), PASSWORD).await?;
    let mut stranger = Imap::login(cluster.imap_address(), &account(2), PASSWORD).await?;
    let sessions = operator.sessions();
    let seen = until("three sessions", SOON, || async {
        let seen = sessions.show(id).await?;
        let told: Vec<_> = seen
            .gateways
            .iter()
            .filter_map(|one| one.sessions.clone())
            .flatten()
            .collect();
        Ok((told.len() == 3 && seen.silent_nodes.is_empty()).then_some(told))
    })
    .await?;
    let mut by: Vec<&str> = seen.iter().map(|session| session.opened_by.as_str()).collect();
    by.sort_unstable();
    assert_eq!(
        by,
        ["application password phone", "application password tablet", "password"]
    );

    let phone = seen.iter().find(|session| session.opened_by.ends_with("phone"));
    let phone = phone.map(|session| session.id.clone());
    let ended = sessions.end(id, phone.as_deref()).await?;
    let ended: usize = ended
        .gateways
        .iter()
        .filter_map(|one| one.sessions.as_ref().map(Vec::len))
        .sum();
    assert_eq!(ended, 1);
    let [phone, tablet] = &mut opened[..] else {
        anyhow::bail!("two were opened")
    };
    let bye = phone.farewell(SOON).await?;
    assert!(bye.contains("ended by an operator"), "{bye}");

    // Not in IDLE, no mailbox selected: nobody asks the store for this session.
    directory.app_password_remove(id, "tablet", fresh_op_id()).await?;
    let bye = tablet.farewell(MINUTE).await?;
    assert!(bye.contains("taken back"), "{bye}");
    own.command("NOOP").await?.ok()?;

    let denied = cluster
        .client_as(&Identity::Gateway("front".into(), vec!["imap".into()]))
        .await?
        .sessions()
        .show(id)
        .await
        .err();
    assert!(matches!(denied, Some(Error::Denied(_))), "{denied:?}");

    let change = AccountChange {
        password: Some("another".into()),
        ..AccountChange::default()
    };
    directory.account_set(id, change, fresh_op_id()).await?;
    let bye = own.farewell(MINUTE).await?;
    assert!(bye.contains("taken back"), "{bye}");
    stranger.command("NOOP").await?.ok()?;
    cluster.finish().await
}
