//! Both services over pipes, with a store that knows two people.

use std::sync::Arc;

use malle_client::{AccountId, Error, Resolved, ShardId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::watch;

use super::{Context, Store, serve_map, serve_sasl};

#[derive(Clone)]
struct Fake;

impl Store for Fake {
    async fn resolve(&self, address: &str) -> Result<Option<Resolved>, Error> {
        let found = |primary: &str, suspended| {
            Ok(Some(Resolved {
                account: AccountId([1; 16]),
                shard: ShardId(1),
                suspended,
                primary_address: primary.to_owned(),
            }))
        };
        match address {
            "paul@example.org" | "p.martin@example.org" => found("paul@example.org", false),
            "frozen@example.org" => found("frozen@example.org", true),
            "broken@example.org" => Err(Error::Unavailable("no leader".into())),
            _ => Ok(None),
        }
    }

    async fn may_submit(&self, login: &str, password: &str) -> Result<String, Error> {
        match (login, password) {
            ("paul@example.org" | "p.martin@example.org", "secret") => Ok("paul@example.org".to_owned()),
            ("broken@example.org", _) => Err(Error::Unavailable("no leader".into())),
            _ => Err(Error::BadCredentials),
        }
    }
}

fn context() -> (Context<Fake>, watch::Sender<bool>) {
    let (stop, stopped) = watch::channel(false);
    let context = Context {
        store: Fake,
        gate: Arc::default(),
        stop: stopped,
    };
    (context, stop)
}

/// What a map answers to these bytes, all of it.
async fn mapped(queries: &[u8]) -> String {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let (context, _stop) = context();
    let service = tokio::spawn(serve_map(near, context));
    far.write_all(queries).await.unwrap();
    far.shutdown().await.unwrap();
    let mut answers = String::new();
    far.read_to_string(&mut answers).await.unwrap();
    service.await.unwrap();
    answers
}

fn netstring(text: &str) -> String {
    format!("{}:{text},", text.len())
}

#[tokio::test]
async fn maps_tell_whose_an_address_is() {
    for (query, answer) in [
        ("recipient p.martin@example.org", "OK paul@example.org"),
        ("recipient frozen@example.org", "OK frozen@example.org"),
        ("recipient nobody@example.org", "NOTFOUND "),
        ("recipient paul+lists@example.org", "OK paul@example.org"),
        ("login paul+lists+x@example.org", "OK paul@example.org"),
        ("recipient +paul@example.org", "NOTFOUND "),
        ("recipient example.org", "NOTFOUND "),
        ("recipient @example.org", "NOTFOUND "),
        ("recipient broken@example.org", "TEMP the directory does not answer"),
        ("login p.martin@example.org", "OK paul@example.org"),
        ("login frozen@example.org", "NOTFOUND "),
        ("other x@y", "PERM the maps here are recipient and login"),
        ("recipient", "PERM want the name of a map and a key"),
    ] {
        assert_eq!(mapped(netstring(query).as_bytes()).await, netstring(answer), "{query}");
    }
    let two = format!("{}{}", netstring("login a@b"), netstring("recipient paul@example.org"));
    let answers = format!("{}{}", netstring("NOTFOUND "), netstring("OK paul@example.org"));
    assert_eq!(mapped(two.as_bytes()).await, answers);
}

#[tokio::test]
async fn what_is_no_netstring_ends_the_connection() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"999999:x,",
        b"5:abcdef",
        b"-1:,",
        b":,",
        b"3:ab",
    ] {
        assert_eq!(mapped(bytes).await, "", "{bytes:?}");
    }
}

struct Client {
    io: BufReader<DuplexStream>,
    _stop: watch::Sender<bool>,
}

impl Client {
    async fn greeted() -> Client {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (context, stop) = context();
        tokio::spawn(serve_sasl(near, context));
        let mut client = Client {
            io: BufReader::new(far),
            _stop: stop,
        };
        let mut greeting = Vec::new();
        while greeting.last().is_none_or(|line| line != "DONE") {
            greeting.push(client.line().await);
        }
        assert_eq!(greeting[0], "VERSION\t1\t2");
        assert!(greeting.contains(&"MECH\tPLAIN\tplaintext".to_owned()));
        client.say("VERSION\t1\t2\nCPID\t42").await;
        client
    }

    async fn say(&mut self, line: &str) {
        self.io
            .get_mut()
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.io.read_line(&mut line).await.unwrap();
        line.trim_end_matches('\n').to_owned()
    }

    async fn ask(&mut self, line: &str) -> String {
        self.say(line).await;
        self.line().await
    }
}

/// paul@example.org and his password, as PLAIN has them.
const RIGHT: &str = "AHBhdWxAZXhhbXBsZS5vcmcAc2VjcmV0";
const WRONG: &str = "AHBhdWxAZXhhbXBsZS5vcmcAb3RoZXI=";
/// p.martin@example.org, secret, broken@example.org
const ALIAS: &str = "cC5tYXJ0aW5AZXhhbXBsZS5vcmc=";
const SECRET: &str = "c2VjcmV0";
const BROKEN: &str = "YnJva2VuQGV4YW1wbGUub3Jn";

#[tokio::test(start_paused = true)]
async fn a_password_lets_its_account_send() {
    let mut client = Client::greeted().await;
    let plain =
        |id: u32, answer: &str| format!("AUTH\t{id}\tPLAIN\tservice=smtp\tsecured\trip=192.0.2.1\tresp={answer}");
    assert_eq!(client.ask(&plain(1, RIGHT)).await, "OK\t1\tuser=paul@example.org");
    assert_eq!(client.ask(&plain(2, WRONG)).await, "FAIL\t2\tuser=paul@example.org");
    assert_eq!(client.ask(&plain(3, "!")).await, "FAIL\t3");
    assert_eq!(client.ask("AUTH\t4\tPLAIN\tservice=smtp").await, "CONT\t4\t");
    assert_eq!(
        client.ask(&format!("CONT\t4\t{RIGHT}")).await,
        "OK\t4\tuser=paul@example.org"
    );
    assert_eq!(client.ask("AUTH\t5\tCRAM-MD5\tservice=smtp").await, "FAIL\t5");
}

#[tokio::test(start_paused = true)]
async fn login_is_asked_for_name_and_password() {
    let mut client = Client::greeted().await;
    assert_eq!(
        client.ask("AUTH\t1\tLOGIN\tservice=smtp").await,
        "CONT\t1\tVXNlcm5hbWU6"
    );
    assert_eq!(client.ask(&format!("CONT\t1\t{ALIAS}")).await, "CONT\t1\tUGFzc3dvcmQ6");
    assert_eq!(
        client.ask(&format!("CONT\t1\t{SECRET}")).await,
        "OK\t1\tuser=paul@example.org"
    );
    assert_eq!(
        client
            .ask(&format!("AUTH\t2\tLOGIN\tservice=smtp\tresp={BROKEN}"))
            .await,
        "CONT\t2\tUGFzc3dvcmQ6"
    );
    assert_eq!(
        client.ask(&format!("CONT\t2\t{SECRET}")).await,
        "FAIL\t2\tuser=broken@example.org\ttemp"
    );
}

#[tokio::test(start_paused = true)]
async fn guessing_gets_slower_and_nonsense_ends_the_connection() {
    let mut client = Client::greeted().await;
    let before = tokio::time::Instant::now();
    for id in 0..8 {
        let line = format!("AUTH\t{id}\tPLAIN\trip=192.0.2.1\tresp={WRONG}");
        assert!(client.ask(&line).await.starts_with("FAIL"));
    }
    assert!(before.elapsed() > std::time::Duration::from_secs(15));
    assert_eq!(client.ask("EHLO x").await, "");
    let mut other = Client::greeted().await;
    other.say(&"x".repeat(20_000)).await;
    assert_eq!(other.line().await, "");
}
