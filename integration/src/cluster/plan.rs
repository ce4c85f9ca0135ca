//! Which nodes a cluster has, and their configuration files.

use std::fmt::Write;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};

/// Controllers that are no brokers have ids from here on.
pub const CONTROLLERS_FROM: i32 = 100;

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// It serves clients.
    Broker,
    /// It votes in the metadata quorum.
    Controller,
    /// Both.
    Both,
}

impl Roles {
    /// Whether it serves clients.
    pub const fn serves(self) -> bool {
        matches!(self, Roles::Broker | Roles::Both)
    }

    /// Whether it votes.
    pub const fn controls(self) -> bool {
        matches!(self, Roles::Controller | Roles::Both)
    }

    const fn name(self) -> &'static str {
        match self {
            Roles::Broker => "broker",
            Roles::Controller => "controller",
            Roles::Both => "broker,controller",
        }
    }
}

/// Which nodes a cluster begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// So many nodes, from id 0, each of them both.
    Combined(i32),
    /// Brokers from id 0, controllers from [`CONTROLLERS_FROM`].
    Apart {
        /// How many controllers.
        controllers: i32,
        /// How many brokers.
        brokers: i32,
    },
}

impl Shape {
    /// Ids and roles.
    pub(super) fn nodes(self) -> Vec<(i32, Roles)> {
        match self {
            Shape::Combined(nodes) => (0..nodes).map(|id| (id, Roles::Both)).collect(),
            Shape::Apart { controllers, brokers } => {
                let controllers = (0..controllers).map(|id| (CONTROLLERS_FROM + id, Roles::Controller));
                controllers.chain((0..brokers).map(|id| (id, Roles::Broker))).collect()
            }
        }
    }
}

/// One node: who it is and where it listens. Addresses are `host:port`.
#[derive(Debug, Clone)]
pub(super) struct NodePlan {
    pub(super) id: i32,
    pub(super) roles: Roles,
    pub(super) data: PathBuf,
    pub(super) kafka: String,
    pub(super) control: String,
    pub(super) http: String,
}

impl NodePlan {
    pub(super) fn new(id: i32, roles: Roles, data: PathBuf, host: &str, ports: [u16; 3]) -> NodePlan {
        let [kafka, control, http] = ports.map(|port| format!("{host}:{port}"));
        NodePlan { id, roles, data, kafka, control, http }
    }

    /// The text of the file. `quorum` is the line that says where controllers are.
    pub(super) fn configuration(&self, bucket: &Path, quorum: &str, settings: &[(String, String)]) -> String {
        let mut listeners = Vec::new();
        if self.roles.serves() {
            listeners.push(format!("PLAINTEXT://{}", self.kafka));
        }
        if self.roles.controls() {
            listeners.push(format!("CONTROLLER://{}", self.control));
        }
        let mut text = format!("node.id = {}\n{quorum}\n", self.id);
        let mut set = |name: &str, value: &str| {
            let value = serde_json::Value::from(value);
            _ = writeln!(text, "{name} = {value}");
        };
        set("process.roles", self.roles.name());
        set("listeners", &listeners.join(","));
        set("controller.listener.names", "CONTROLLER");
        set("log.dirs", &self.data.display().to_string());
        set("firn.http.listeners", &self.http);
        set("firn.object.store", &format!("file://{}", bucket.display()));
        for (name, value) in settings {
            set(name, value);
        }
        text
    }
}

/// The first of `count` adjacent ports of loopback on which nothing listens. They lie below those that the system gives to outgoing
/// connections: a node that is down finds its port free when it comes back.
///
/// # Errors
/// If there are none.
pub fn free_ports(count: u16) -> io::Result<u16> {
    const FIRST: u16 = 12_000;
    const LAST: u16 = 32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Processes that run at the same time begin at different places.
    let process = u16::try_from(std::process::id().wrapping_mul(211) % u32::from(LAST - FIRST)).unwrap_or(0);
    for _ in 0..LAST - FIRST {
        let from = NEXT.fetch_add(count, Ordering::Relaxed).wrapping_add(process);
        let first = FIRST + from % (LAST - FIRST - count);
        let taken: io::Result<Vec<TcpListener>> =
            (first..first + count).map(|port| TcpListener::bind(("127.0.0.1", port))).collect();
        if taken.is_ok() {
            return Ok(first);
        }
    }
    Err(io::Error::other(format!("no {count} adjacent ports are free")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once() {
        let first = free_ports(3).expect("three ports");
        let second = free_ports(3).expect("three more");
        assert!(first.abs_diff(second) >= 3, "{first} and {second}");
    }

    #[test]
    fn a_controller_has_no_listener_for_clients() {
        let node = NodePlan::new(100, Roles::Controller, PathBuf::from("/data"), "10.0.0.1", [1, 2, 3]);
        let text = node.configuration(Path::new("/bucket"), "# nothing", &[("a.b".to_owned(), "c".to_owned())]);
        assert!(text.contains("listeners = \"CONTROLLER://10.0.0.1:2\"\n"), "{text}");
        assert!(text.contains("process.roles = \"controller\"\n") && text.contains("a.b = \"c\"\n"), "{text}");
    }
}
