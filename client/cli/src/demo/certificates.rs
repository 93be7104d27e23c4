//! The demo's certificates: an authority of its own, one certificate per process, and a self-signed one for mail clients.
//!
//! What exists is kept: a node that starts again is the same node.

use std::fs;

use anyhow::Context as _;
use malle_client::NodeId;

use super::layout::{CLUSTER, Layout};
use crate::cert::{self, Identity, Role};

/// Makes what is missing for the authority, the gateway, the operator, and mail clients.
pub fn make_common(layout: &Layout) -> anyhow::Result<()> {
    if !layout.path("ca/ca.pem").exists() {
        cert::make_ca(&layout.path("ca"), CLUSTER)?;
    }
    let gateway = Identity::Gateway {
        name: "demo".to_owned(),
        roles: vec![Role::Lmtp, Role::Imap],
    };
    make_leaf(layout, "gateway", &gateway)?;
    make_leaf(layout, "operator", &Identity::Operator("demo".to_owned()))?;
    make_public(layout)
}

/// Makes a node's certificate if it has none.
pub fn make_node(layout: &Layout, id: u64) -> anyhow::Result<()> {
    make_leaf(layout, &format!("node-{id}"), &Identity::Node(NodeId(id)))
}

fn make_leaf(layout: &Layout, name: &str, identity: &Identity) -> anyhow::Result<()> {
    let prefix = layout.path("certs").join(name);
    let files = ["pem", "key"].map(|ending| prefix.with_extension(ending));
    if files.iter().all(|file| file.exists()) {
        return Ok(());
    }
    // Half a pair is left of a run that was cut off; nothing ever used it.
    for file in files.iter().filter(|file| file.exists()) {
        fs::remove_file(file)?;
    }
    cert::make_leaf(&layout.path("ca"), &prefix, identity).with_context(|| format!("no certificate for {name}"))?;
    Ok(())
}

/// Mail clients know nothing of the cluster's authority: they get a certificate for this machine, signed by itself.
fn make_public(layout: &Layout) -> anyhow::Result<()> {
    if layout.path("gateway/public.pem").exists() && layout.path("gateway/public.key").exists() {
        return Ok(());
    }
    let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
    let made = rcgen::generate_simple_self_signed(names)?;
    layout.write("gateway/public.key", &made.signing_key.serialize_pem())?;
    layout.write("gateway/public.pem", &made.cert.pem())?;
    // Not a secret, and a mail client of another user has to be told to trust it.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(layout.path("gateway/public.pem"), fs::Permissions::from_mode(0o644))?;
    Ok(())
}
