//! A gateway beside the demo's own, configured by the test.

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::binaries::binary;
use crate::cluster::{Cluster, Identity};
use crate::wait::until;

/// A gateway reaches its nodes and opens its ports in a moment.
const START: Duration = Duration::from_secs(60);

impl Cluster {
    /// Starts a gateway with both roles and these sections in its configuration, and waits until it answers at `address`. It ends with the
    /// cluster.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn gateway(&mut self, name: &str, sections: &str, address: &str) -> anyhow::Result<()> {
        let roles = ["lmtp", "imap"].map(str::to_owned).to_vec();
        let prefix = self.certificate(&Identity::Gateway(name.to_owned(), roles)).await?;
        let config = self.path().join(format!("{name}.toml"));
        let text = format!(
            "host = \"{name}.example.org\"\nendpoints = {:?}\n[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n{sections}",
            self.context.endpoints,
            self.context.ca,
            prefix.with_extension("pem"),
            prefix.with_extension("key"),
        );
        std::fs::write(&config, text)?;
        let log = File::create(config.with_extension("log"))?;
        let child = Command::new(binary("malle-gateway")?)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        self.extra.push(child);
        until(format!("the gateway {name}"), START, || async {
            Ok(Some(TcpStream::connect(address).await.map(drop)?))
        })
        .await
    }
}
