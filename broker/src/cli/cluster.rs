//! `firn cluster`: what sets up and tends a cluster of several nodes.

use super::{out, serve};
use crate::config::server::Sources;
use crate::node::{self, Host};
use proto::host::{Entropy, Spawner, SystemEntropy};
use proto::ids::TopicId;
use std::path::Path;

/// Longest cluster id, as Kafka's own are 22 characters.
const LONGEST_ID: usize = 64;

/// Prepares the data directories of a node.
pub(super) fn format(path: &Path, cluster_id: Option<String>) -> Result<(), String> {
    let file = std::fs::read_to_string(path)
        .map_err(|error| format!("the configuration file {} cannot be read: {error}", path.display()))?;
    let environment = std::env::vars().collect();
    let config = serve::load(&Sources { presets: vec![], file: Some(file), environment, flags: vec![] })?;
    // As Kafka writes it: the 22 characters of a UUID in base64.
    let cluster_id = cluster_id.unwrap_or_else(|| TopicId(SystemEntropy.uuid()).to_string());
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if cluster_id.is_empty() || cluster_id.len() > LONGEST_ID || !cluster_id.bytes().all(legal) {
        return Err(format!(
            "{cluster_id} is no cluster id: it has 1 to {LONGEST_ID} letters, digits, '_', '-' or '.'"
        ));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let host = Host::system(Spawner::single(runtime.handle().clone()));
    runtime.block_on(node::format(&config, &host, &cluster_id)).map_err(|error| error.to_string())?;
    let text = format!(
        "node {} is formatted for cluster {cluster_id}; give --cluster-id {cluster_id} on the other controllers\n",
        config.node_id
    );
    out::print(text).map_err(|error| error.to_string())
}
