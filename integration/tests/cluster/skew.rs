//! Versions that do not go together. Whoever comes from such a version is told so in one line.

use crate::refusals::one_line;
use crate::stand::{FIRN, PATIENCE, alone, home};
use controller::command::FormCluster;
use controller::{ControllerHandle, ControllerNode, Machine, MemberConfig, Policy, Storage, Timings, Wire};
use integration::process::Firn;
use proto::host::{Entropy, Network, Spawner, SystemClock, SystemEntropy, TcpNetwork};
use proto::ids::{DirectoryId, NodeId};
use proto::metadata::{FEATURE, NEWEST_LEVEL};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Handle;

const CONTROLLER: NodeId = NodeId(100);

/// A controller in this process, the only one of its cluster, which is at `level` of the metadata's feature: its address.
async fn controller_at(home: &Path, level: i16) -> (ControllerNode, ControllerHandle, String) {
    let listener = TcpNetwork.listen("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("it listens").to_string();
    let member = MemberConfig {
        dir: home.join("controller"),
        node_id: CONTROLLER,
        directory: DirectoryId(SystemEntropy.uuid()),
        cluster_id: Some("skew".to_owned()),
        voters: BTreeMap::from([(CONTROLLER, address.clone())]),
        bootstrap: Vec::new(),
        timings: Timings::default(),
        policy: Policy::default(),
        duties: controller::duties::Settings::default(),
        has_been_member: false,
    };
    let machine = Machine {
        clock: Arc::new(SystemClock),
        entropy: Arc::new(SystemEntropy),
        spawner: Spawner::single(Handle::current()),
        network: Arc::new(TcpNetwork),
        wire: Wire::default(),
        storage: Storage::default(),
    };
    let (node, handle) = ControllerNode::start_member(member, listener, machine).await.expect("it starts");
    let features = vec![(FEATURE.to_owned(), level)];
    let form = handle.form_cluster(FormCluster { cluster_id: "skew".to_owned(), features });
    tokio::time::timeout(PATIENCE, form).await.expect("it leads").expect("formed");
    (node, handle, address)
}

/// A broker comes to a cluster that has switched on what only later versions understand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_older_than_what_its_cluster_has_switched_on_is_refused() {
    let _alone = alone().await;
    let home = home();
    let ahead = NEWEST_LEVEL + 1;
    let (node, _handle, address) = controller_at(home.path(), ahead).await;
    let text = format!(
        "node.id = 7\nprocess.roles = \"broker\"\nlisteners = \"PLAINTEXT://127.0.0.1:0\"\n\
         firn.http.listeners = \"127.0.0.1:0\"\nlog.dirs = \"{}\"\ncontroller.quorum.bootstrap.servers = \"{address}\"\n",
        home.path().join("broker").display(),
    );
    let file = home.path().join("broker.toml");
    std::fs::write(&file, text).expect("written");
    let server = ["server", "--config", &file.display().to_string()];
    let finished = Firn::new(FIRN, &home.path().join("log"), &server).finish().await.expect("it ends");
    let (understands, is_at) =
        (format!("levels 0 to {NEWEST_LEVEL}"), format!("the cluster is at level {ahead} of {FEATURE}"));
    one_line(&finished, &["node 7", &understands, &is_at, "install a Firn that understands it"]);
    node.shutdown().await;
}
