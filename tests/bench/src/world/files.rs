//! Certificates and configuration files of a cluster, all in one directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use malle_client::{Node, NodeId};

use super::binaries::Binaries;

/// Trust domain of the certificates.
pub const CLUSTER_NAME: &str = "malle.bench";

/// Makes an authority and the certificates that it signs.
///
/// # Errors
/// When `malle cert` fails.
pub async fn certificates(binaries: &Binaries, path: &Path, nodes: usize) -> anyhow::Result<()> {
    let mut wanted = vec![
        format!("cert ca --cluster {CLUSTER_NAME} --out ca"),
        "cert operator bench --ca-dir ca --out operator".to_owned(),
        "cert gateway bench --role lmtp --role imap --ca-dir ca --out gateway".to_owned(),
    ];
    wanted.extend((1..=nodes).map(|id| format!("cert node {id} --ca-dir ca --out node-{id}")));
    for arguments in wanted {
        binaries.malle(path, &arguments).await?;
    }
    Ok(())
}

fn tls(path: &Path, name: &str) -> serde_json::Value {
    serde_json::json!({
        "ca": path.join("ca/ca.pem"),
        "cert": path.join(format!("{name}.pem")),
        "key": path.join(format!("{name}.key")),
    })
}

/// Where a node's configuration is.
pub fn node_file(path: &Path, id: NodeId) -> PathBuf {
    path.join(format!("node-{id}.toml"))
}

/// Writes a node's file; gives where its figures are if the build has any.
///
/// # Errors
/// When the build refuses it.
pub async fn node(
    binaries: &Binaries,
    path: &Path,
    node: &Node,
    timing: &str,
    metrics: &str,
) -> anyhow::Result<Option<String>> {
    let (id, file) = (node.id, node_file(path, node.id));
    let mut config = serde_json::json!({
        "node": id.0,
        "region": node.region,
        "zone": node.zone,
        "cluster": CLUSTER_NAME,
        "data_dir": path.join(format!("node-{id}")),
        "client_listen": node.client_address,
        "peer_listen": node.peer_address,
        "client_address": node.client_address,
        "peer_address": node.peer_address,
        "timing": timing,
        "tls": tls(path, &format!("node-{id}")),
    });
    let plain = toml::to_string(&config)?;
    config["telemetry"] = serde_json::json!({ "listen": metrics });
    fs::write(&file, toml::to_string(&config)?)?;
    // A build from before `[telemetry]` refuses what it does not know, and says so.
    let refused = binaries.refuses(&file).await?;
    if refused.as_ref().is_some_and(|said| said.contains("telemetry")) {
        fs::write(&file, plain)?;
        return Ok(None);
    }
    match refused {
        Some(said) => bail!("malled --check: {said}"),
        None => Ok(Some(metrics.into())),
    }
}

/// Writes the gateway's file; gives where.
///
/// # Errors
/// When it cannot be written.
pub fn gateway(path: &Path, endpoints: &[&str], lmtp: &str, imap: &str) -> anyhow::Result<PathBuf> {
    let config = serde_json::json!({
        "host": "localhost",
        "endpoints": endpoints,
        "tls": tls(path, "gateway"),
        "lmtp": { "listen": [lmtp] },
        "imap": { "listen": [imap], "plaintext_login": "loopback" },
    });
    let file = path.join("gateway.toml");
    fs::write(&file, toml::to_string(&config)?)?;
    Ok(file)
}
