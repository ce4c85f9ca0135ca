//! What the nodes of `firn dev --nodes N` are told: addresses, voters, directories. Pure, but for the ports that the
//! system chooses.

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Between the ports of one node and those of the next.
const STEP: u16 = 10;

/// What is kept in the data directory, so that a cluster comes back as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cluster {
    /// Its id, for which the directories of the voters are formatted.
    pub(super) cluster_id: String,
    /// In the order of their ids, from 0.
    pub(super) nodes: Vec<Member>,
    /// How many of the first nodes vote in the metadata quorum from the beginning.
    pub(super) voters: usize,
    /// How many of the first nodes have served clients; all, if it does not say. The others came to nothing so far.
    #[serde(default)]
    pub(super) served: Option<usize>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) id: i32,
    /// host:port for Kafka clients and the other brokers.
    pub(super) kafka: String,
    /// host:port for the quorum. It stays what it was at the first start: the others know the voter by it.
    pub(super) control: String,
    /// host:port for metrics and health.
    pub(super) http: String,
}

/// What is asked for.
pub(super) struct Asked<'a> {
    pub(super) nodes: u16,
    /// Of node 0.
    pub(super) kafka: &'a str,
    /// Of node 0.
    pub(super) http: &'a str,
    /// If it is a new cluster.
    pub(super) cluster_id: &'a str,
}

/// How many of `nodes` nodes vote: an odd number, at most five, as more would only slow decisions.
const fn voters(nodes: u16) -> usize {
    match nodes {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

impl Cluster {
    /// The cluster that is asked for, on what was there `before`. `free` gives a free port of a host, for port 0.
    ///
    /// # Errors
    /// In one line, what cannot be had.
    pub(super) fn plan(
        asked: &Asked<'_>,
        before: Option<Cluster>,
        mut free: impl FnMut(&str) -> Result<u16, String>,
    ) -> Result<Cluster, String> {
        let known = before.as_ref().map_or(0, Cluster::least);
        let served = before.as_ref().map_or(0, |cluster| cluster.served.unwrap_or(cluster.nodes.len()));
        if usize::from(asked.nodes) < known {
            return Err(format!(
                "the data directory holds a cluster of {known} nodes: give --nodes {known}, or move everything off the \
                 last ones first (firn cluster decommission BROKER)"
            ));
        }
        let cluster_id = before.as_ref().map_or(asked.cluster_id, |cluster| &cluster.cluster_id).to_owned();
        let voters = before.as_ref().map_or(voters(asked.nodes), |cluster| cluster.voters);
        let mut nodes = Vec::new();
        for index in 0..asked.nodes {
            let before = before.as_ref().and_then(|cluster| cluster.nodes.get(usize::from(index)));
            let mut address = |name: &str, base: &str, offset: u16, known: Option<&String>| {
                let (host, port) = host_and_port(name, base)?;
                let port =
                    match (port, known) {
                        // Whatever the system chose is kept.
                        (0, Some(known)) => return Ok(known.clone()),
                        (0, None) => free(host)?,
                        (port, _) => index
                            .checked_mul(STEP)
                            .and_then(|step| step.checked_add(offset)?.checked_add(port))
                            .ok_or_else(|| format!("{name} {base}: the port of node {index} would be above 65535"))?,
                    };
                Ok::<_, String>(format!("{host}:{port}"))
            };
            let kafka = address("--kafka", asked.kafka, 0, before.map(|member| &member.kafka))?;
            let http = address("--http", asked.http, 0, before.map(|member| &member.http))?;
            let control = match before {
                Some(member) => member.control.clone(),
                None => address("--kafka", asked.kafka, 1, None)?,
            };
            nodes.push(Member { id: i32::from(index), kafka, control, http });
        }
        let served = (served < nodes.len()).then_some(served);
        Ok(Cluster { cluster_id, nodes, voters, served })
    }

    /// How many nodes there have to be: those that vote, and those that have served clients.
    pub(super) fn least(&self) -> usize {
        self.served.map_or(self.nodes.len(), |served| served.max(self.voters))
    }

    /// Whether a node is one of the first voters.
    pub(super) fn votes(&self, member: &Member) -> bool {
        usize::try_from(member.id).is_ok_and(|id| id < self.voters)
    }

    /// The configuration file of one node, whose data lie in `data`.
    pub(super) fn configuration(&self, member: &Member, data: &Path, object_store: &str) -> String {
        let votes = self.votes(member);
        let voters: Vec<String> =
            self.nodes.iter().take(self.voters).map(|voter| format!("{}@{}", voter.id, voter.control)).collect();
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let mut listeners = vec![format!("PLAINTEXT://{}", member.kafka)];
        let mut roles = "broker";
        if votes {
            listeners.push(format!("CONTROLLER://{}", member.control));
            roles = "broker,controller";
        }
        let mut text = String::from("# Written anew by each start of firn dev --nodes.\n");
        let mut set = |name: &str, value: String| _ = writeln!(text, "{name} = {value}");
        set("node.id", member.id.to_string());
        set("process.roles", quoted(roles));
        set("listeners", quoted(&listeners.join(",")));
        set("controller.listener.names", quoted("CONTROLLER"));
        set("controller.quorum.voters", quoted(&voters.join(",")));
        set("firn.http.listeners", quoted(&member.http));
        set("log.dirs", quoted(&data.display().to_string()));
        set("firn.object.store", quoted(object_store));
        text
    }
}

fn host_and_port<'a>(name: &str, address: &'a str) -> Result<(&'a str, u16), String> {
    let parsed = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parsed.ok_or_else(|| format!("{name} {address} is not of the form host:port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(nodes: u16) -> Asked<'static> {
        Asked { nodes, kafka: "127.0.0.1:9092", http: "127.0.0.1:9644", cluster_id: "new" }
    }

    fn no_port(_: &str) -> Result<u16, String> {
        Err("no port is to be chosen".to_owned())
    }

    fn plan(nodes: u16, before: Option<Cluster>) -> Cluster {
        Cluster::plan(&asked(nodes), before, no_port).expect("it can be had")
    }

    #[test]
    fn ports_rise_by_ten() {
        let cluster = plan(3, None);
        let told: Vec<_> =
            cluster.nodes.iter().map(|one| [one.kafka.as_str(), one.control.as_str(), one.http.as_str()]).collect();
        assert_eq!(
            told,
            [
                ["127.0.0.1:9092", "127.0.0.1:9093", "127.0.0.1:9644"],
                ["127.0.0.1:9102", "127.0.0.1:9103", "127.0.0.1:9654"],
                ["127.0.0.1:9112", "127.0.0.1:9113", "127.0.0.1:9664"],
            ]
        );
    }

    #[test]
    fn an_odd_number_votes_and_the_first_voters_stay() {
        let voters: Vec<usize> = (1..=6).map(|nodes| plan(nodes, None).voters).collect();
        assert_eq!(voters, [1, 1, 3, 3, 5, 5]);
        let grown = plan(5, Some(Cluster { served: None, ..plan(3, None) }));
        assert_eq!((grown.nodes.len(), grown.voters), (5, 3));
        let other = Asked { cluster_id: "other", ..asked(5) };
        assert_eq!(Cluster::plan(&other, Some(grown.clone()), no_port), Ok(grown));
    }

    #[test]
    fn voters_keep_their_address_when_clients_get_another() {
        let before = plan(3, None);
        let moved = Asked { kafka: "127.0.0.1:19092", ..asked(3) };
        let after = Cluster::plan(&moved, Some(before.clone()), no_port).expect("it can be had");
        assert_eq!(after.nodes[2].kafka, "127.0.0.1:19112");
        assert_eq!(after.nodes[2].control, before.nodes[2].control);
    }

    #[test]
    fn chosen_ports_are_kept() {
        let mut next = 40_000;
        let mut free = |_: &str| {
            next += 1;
            Ok(next)
        };
        let anywhere = Asked { kafka: "127.0.0.1:0", http: "127.0.0.1:0", ..asked(3) };
        let before = Cluster::plan(&anywhere, None, &mut free).expect("ports");
        assert_eq!(before.nodes[2].http, "127.0.0.1:40008");
        assert_eq!(Cluster::plan(&anywhere, Some(before.clone()), no_port), Ok(before));
    }

    #[test]
    fn a_cluster_does_not_shrink_by_itself() {
        let refused = Cluster::plan(&asked(2), Some(plan(3, None)), no_port).expect_err("too few");
        assert!(refused.contains("holds a cluster of 3 nodes: give --nodes 3"), "{refused}");
    }

    #[test]
    fn nodes_that_came_to_nothing_are_given_up() {
        let started = plan(3, None);
        assert_eq!((started.served, started.least()), (Some(0), 3));
        let serves = Cluster { served: None, ..started };
        let grown = plan(5, Some(serves.clone()));
        assert_eq!((grown.served, grown.least()), (Some(3), 3));
        assert_eq!(plan(3, Some(grown.clone())), serves);
        let grown = Cluster { served: None, ..grown };
        assert!(Cluster::plan(&asked(3), Some(grown), no_port).is_err(), "they have served");
    }

    #[test]
    fn what_cannot_be_an_address_is_named() {
        let error = |asked: Asked<'_>| Cluster::plan(&asked, None, no_port).expect_err("refused");
        assert_eq!(error(Asked { kafka: "here", ..asked(3) }), "--kafka here is not of the form host:port");
        assert_eq!(
            error(Asked { http: "[::1]:65530", ..asked(3) }),
            "--http [::1]:65530: the port of node 1 would be above 65535"
        );
    }

    #[test]
    fn a_node_is_configured_by_a_file_as_any_other() {
        let cluster = plan(4, None);
        let text = cluster.configuration(&cluster.nodes[1], Path::new("/data/\"odd\"/node-1"), "file:///data/bucket");
        let file: toml::Table = text.parse().expect("TOML");
        let get = |path: &[&str]| {
            let (last, tables) = path.split_last().expect("a name");
            let table = tables.iter().fold(&file, |table, name| table[*name].as_table().expect("a table"));
            table[*last].as_str().expect("a text").to_owned()
        };
        assert_eq!(get(&["process", "roles"]), "broker,controller");
        assert_eq!(get(&["listeners"]), "PLAINTEXT://127.0.0.1:9102,CONTROLLER://127.0.0.1:9103");
        assert_eq!(get(&["controller", "quorum", "voters"]), "0@127.0.0.1:9093,1@127.0.0.1:9103,2@127.0.0.1:9113");
        assert_eq!(get(&["log", "dirs"]), "/data/\"odd\"/node-1");
        let text = cluster.configuration(&cluster.nodes[3], Path::new("/data/node-3"), "memory:");
        let file: toml::Table = text.parse().expect("TOML");
        assert_eq!(file["process"]["roles"].as_str(), Some("broker"));
        assert_eq!(file["listeners"].as_str(), Some("PLAINTEXT://127.0.0.1:9122"));
    }
}
