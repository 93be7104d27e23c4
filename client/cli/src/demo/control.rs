//! How `malle demo node ...` asks the running demo: one line each way over a socket in the demo's directory.
//!
//! The running demo is the one owner of the processes. The socket lies in a directory that only its owner may enter, so whoever can
//! ask could as well kill the processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::cluster::Cluster;

/// Whoever connects says what they want within this.
const REQUEST_MAX: Duration = Duration::from_secs(5);
/// A replacement copies a whole node.
const REPLY_MAX: Duration = Duration::from_secs(700);
/// Longest request or reply.
const LINE_MAX_BYTES: u64 = 16 * 1024;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Start a dead node.
    Start(u64),
    /// Kill a node with SIGKILL.
    Kill(u64),
    /// Wipe a node and bring another in its place.
    WipeReplace(u64),
}

impl Request {
    fn to_line(self) -> String {
        match self {
            Request::Start(id) => format!("start {id}\n"),
            Request::Kill(id) => format!("kill {id}\n"),
            Request::WipeReplace(id) => format!("wipe-replace {id}\n"),
        }
    }

    fn from_line(line: &str) -> anyhow::Result<Request> {
        let (verb, id) = line.trim_end().split_once(' ').context("want: VERB NODE")?;
        let id = id.parse().context("the node must be a number")?;
        match verb {
            "start" => Ok(Request::Start(id)),
            "kill" => Ok(Request::Kill(id)),
            "wipe-replace" => Ok(Request::WipeReplace(id)),
            _ => bail!("unknown request {verb}"),
        }
    }
}

/// Opens the socket. One that lies there is of a demo that is gone: the caller holds the directory's lock.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    UnixListener::bind(path).with_context(|| format!("cannot listen on {}; is the path too long?", path.display()))
}

/// Answers one connection.
pub async fn answer(stream: UnixStream, cluster: &mut Cluster) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    timeout(REQUEST_MAX, (&mut stream).take(LINE_MAX_BYTES).read_line(&mut line))
        .await
        .context("nothing was asked")??;
    let reply = match perform(&line, cluster).await {
        Ok(done) => format!("ok {done}\n"),
        Err(error) => format!("error {}\n", format!("{error:#}").replace('\n', "; ")),
    };
    timeout(REQUEST_MAX, stream.get_mut().write_all(reply.as_bytes()))
        .await
        .context("nobody takes the reply")??;
    Ok(())
}

async fn perform(line: &str, cluster: &mut Cluster) -> anyhow::Result<String> {
    match Request::from_line(line)? {
        Request::Start(id) => {
            cluster.start_node(id).await?;
            Ok(format!("node {id} runs"))
        }
        Request::Kill(id) => {
            cluster.kill_node(id).await?;
            Ok(format!("node {id} is dead"))
        }
        Request::WipeReplace(id) => {
            let new = cluster.wipe_and_replace_node(id).await?;
            Ok(format!("node {new} took the place of node {id}"))
        }
    }
}

/// Asks the demo that runs in `directory`; what it did.
pub async fn ask(directory: &Path, request: Request) -> anyhow::Result<String> {
    let path = directory.join("control.sock");
    let stream = UnixStream::connect(&path).await;
    let stream = stream.with_context(|| {
        format!(
            "no demo runs in {}; start one with `malle demo --dir`",
            directory.display()
        )
    })?;
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(request.to_line().as_bytes()).await?;
    let mut reply = String::new();
    timeout(REPLY_MAX, (&mut stream).take(LINE_MAX_BYTES).read_line(&mut reply))
        .await
        .context("the demo does not answer")??;
    let reply = reply.trim_end();
    if let Some(error) = reply.strip_prefix("error ") {
        bail!("{error}");
    }
    let done = reply.strip_prefix("ok ");
    ensure!(done.is_some(), "the demo went away before it answered");
    Ok(done.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_wire_and_rubbish_does_not() {
        for request in [Request::Start(2), Request::Kill(7), Request::WipeReplace(1)] {
            assert_eq!(Request::from_line(&request.to_line()).unwrap(), request);
        }
        for rubbish in ["", "start", "start x", "stop 1", "start 1 2"] {
            assert!(Request::from_line(rubbish).is_err(), "{rubbish}");
        }
    }

    #[tokio::test]
    async fn a_socket_of_a_demo_that_is_gone_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        drop(listen(&path).unwrap());
        assert!(path.exists());
        listen(&path).unwrap();
        let error = ask(&dir.path().join("elsewhere"), Request::Start(1)).await.unwrap_err();
        assert!(error.to_string().contains("no demo runs"));
    }
}
