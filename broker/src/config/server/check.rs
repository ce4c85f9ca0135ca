//! What must hold between the settings of a process, and the typed result.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::alter::check_retention;
use super::super::broker::BrokerConfig;
use super::super::error::{ConfigError, Fault, Origin, Scope};
use super::super::layers::BrokerLayers;
use super::listener::{self, Listener};
use super::quorum::{self, QuorumConfig};
use super::{LogFormat, Read, Roles, ServerConfig};

/// Builds the configuration from settings that are valid each for itself.
pub(super) fn build(
    settings: BTreeMap<String, String>,
    origins: BTreeMap<String, Origin>,
) -> Result<ServerConfig, Vec<ConfigError>> {
    let mut check = Check { origins: &origins, errors: Vec::new() };
    let read = Read { layers: BrokerLayers { node: &(), cluster: &(), fixed: &settings } };
    let roles = check.roles(&read);
    let all = check.all_listeners(&read);
    let node_id = check.node_id(&read);
    let told = check.told(&read);
    let quorum = check.quorum(&read, roles, node_id, all.as_deref().unwrap_or_default(), told.as_deref());
    let (listeners, advertised) = all.map(|all| check.listeners(&read, roles, all, told)).unwrap_or_default();
    let inter_broker = check.inter_broker(&read, &listeners);
    let data_dirs = check.data_dirs(&read);
    let http = check.http(&read);
    let object_store = check.object_store(&read);
    check.broker(&read);
    if !check.errors.is_empty() {
        return Err(check.errors);
    }
    Ok(ServerConfig {
        node_id,
        roles,
        quorum,
        listeners,
        advertised,
        inter_broker,
        http,
        data_dirs,
        object_store,
        rack: read.optional("broker.rack"),
        log_filter: read.text("firn.log.filter"),
        log_format: if read.text("firn.log.format") == "json" { LogFormat::Json } else { LogFormat::Text },
        otlp_endpoint: read.optional("firn.otlp.endpoint"),
        settings,
        origins,
    })
}

/// Collects everything that is wrong.
struct Check<'a> {
    origins: &'a BTreeMap<String, Origin>,
    errors: Vec<ConfigError>,
}

impl Check<'_> {
    /// Notes that the value of `name` is wrong.
    fn invalid(&mut self, read: &Read<'_>, name: &str, why: String) {
        let value = Some(read.text(name));
        self.push(name, Fault::Invalid { name: name.to_owned(), value, why });
    }

    fn conflict(&mut self, name: &str, why: String) {
        self.push(name, Fault::Conflict { why });
    }

    fn push(&mut self, name: &str, fault: Fault) {
        let origin = self.origins.get(name).cloned().unwrap_or(Origin::Preset);
        self.errors.push(ConfigError { scope: Scope::Server(origin), fault });
    }

    fn roles(&mut self, read: &Read<'_>) -> Roles {
        let roles = read.items("process.roles");
        let has = |role: &str| roles.iter().any(|item| item == role);
        let roles = Roles { broker: has("broker"), controller: has("controller") };
        if !(roles.broker || roles.controller) {
            self.invalid(read, "process.roles", "a process is a broker, a controller, or both".to_owned());
        }
        roles
    }

    fn node_id(&mut self, read: &Read<'_>) -> i32 {
        let set = |name| read.optional(name).and_then(|id| id.parse::<i32>().ok());
        let (node, broker) = (set("node.id"), set("broker.id").filter(|&id| id >= 0));
        if let (Some(node), Some(broker)) = (node, broker)
            && node != broker
        {
            self.conflict("broker.id", format!("node.id ({node}) and broker.id ({broker}) are the same setting"));
        }
        node.or(broker).unwrap_or(0)
    }

    /// `listeners`; none if it cannot be read, which is said then.
    fn all_listeners(&mut self, read: &Read<'_>) -> Option<Vec<Listener>> {
        let all = listener::parse_all(&read.items("listeners"));
        all.map_err(|why| self.invalid(read, "listeners", why)).ok()
    }

    /// `advertised.listeners`, if it is set.
    fn told(&mut self, read: &Read<'_>) -> Option<Vec<Listener>> {
        const NAME: &str = "advertised.listeners";
        let text = read.optional(NAME)?;
        let items: Vec<String> = super::list(&text).map(str::to_owned).collect();
        match listener::parse_all(&items) {
            Ok(told) => Some(told),
            Err(why) => {
                self.conflict(NAME, format!("{NAME}: {why}"));
                None
            }
        }
    }

    fn quorum(
        &mut self,
        read: &Read<'_>,
        roles: Roles,
        node_id: i32,
        all: &[Listener],
        told: Option<&[Listener]>,
    ) -> QuorumConfig {
        const VOTERS: &str = "controller.quorum.voters";
        const BOOTSTRAP: &str = "controller.quorum.bootstrap.servers";
        let voters = quorum::parse_voters(&read.items(VOTERS)).unwrap_or_else(|why| {
            self.conflict(VOTERS, format!("{VOTERS}: {why}"));
            Vec::new()
        });
        let bootstrap = read.items(BOOTSTRAP);
        if let Some(wrong) = bootstrap.iter().find(|address| quorum::address_of(address).is_none()) {
            self.conflict(BOOTSTRAP, format!("{BOOTSTRAP}: {wrong} is not of the form host:port"));
        }
        let votes = voters.iter().find(|voter| voter.id == node_id);
        if !voters.is_empty() && roles.controller != votes.is_some() {
            let (part, way) = if roles.controller {
                ("a controller, and not among", "add it there, or name bootstrap servers only and add the voter later")
            } else {
                ("no controller, and among", "add controller to process.roles, or leave it out there")
            };
            self.conflict(VOTERS, format!("node {node_id} is {part} {VOTERS}: {way}"));
        }
        if !roles.controller && voters.is_empty() && bootstrap.is_empty() {
            let why = format!("a process that is no controller has to be told where one is: set {BOOTSTRAP}");
            self.conflict("process.roles", why);
        }
        let names = control_names(read);
        let listener = all.iter().find(|one| names.contains(&one.name)).filter(|_| roles.controller).cloned();
        if listener.is_none() && roles.controller && (voters.len() > 1 || !bootstrap.is_empty()) {
            let why = "a controller among others needs a listener for them: name one of listeners in \
                       controller.listener.names";
            self.conflict("controller.listener.names", why.to_owned());
        }
        let advertised = told
            .and_then(|told| told.iter().find(|one| names.contains(&one.name)).cloned())
            .or_else(|| listener.clone().filter(|one| !one.is_wildcard()));
        QuorumConfig { listener, advertised, voters, bootstrap }
    }

    fn listeners(
        &mut self,
        read: &Read<'_>,
        roles: Roles,
        all: Vec<Listener>,
        told: Option<Vec<Listener>>,
    ) -> (Vec<Listener>, Vec<Listener>) {
        let control = control_names(read);
        let bound_twice = listener::bound_twice(&all).map(Listener::bind_address);
        let listeners: Vec<Listener> = all.into_iter().filter(|one| !control.contains(&one.name)).collect();
        if listeners.is_empty() && roles.broker {
            self.invalid(read, "listeners", "there is no listener for clients".to_owned());
        }
        if !roles.broker && read.optional("listeners").is_some() && !listeners.is_empty() {
            let why = "a process that is no broker has listeners for controllers only (controller.listener.names)";
            self.invalid(read, "listeners", why.to_owned());
        }
        if let Some(address) = bound_twice {
            self.invalid(read, "listeners", format!("{address} is listened on twice"));
        }
        if !roles.broker {
            return (Vec::new(), Vec::new());
        }
        self.protocols(read, &listeners);
        let told = told.map(|told| told.into_iter().filter(|one| !control.contains(&one.name)).collect::<Vec<_>>());
        let advertised = self.advertised(read, &listeners, told.filter(|told| !told.is_empty()));
        (listeners, advertised)
    }

    fn inter_broker(&mut self, read: &Read<'_>, listeners: &[Listener]) -> String {
        const NAME: &str = "inter.broker.listener.name";
        let Some(name) = read.optional(NAME).map(|name| name.to_ascii_uppercase()) else {
            // Kafka's is the one that is called like its protocol.
            let named = listeners.iter().find(|one| one.name == "PLAINTEXT").or(listeners.first());
            return named.map(|one| one.name.clone()).unwrap_or_default();
        };
        if !listeners.is_empty() && listeners.iter().all(|one| one.name != name) {
            self.conflict(NAME, format!("{NAME}: {name} is not among the listeners"));
        }
        name
    }

    fn protocols(&mut self, read: &Read<'_>, listeners: &[Listener]) {
        let map = match listener::protocols(&read.items("listener.security.protocol.map")) {
            Ok(map) => map,
            Err(why) => return self.invalid(read, "listener.security.protocol.map", why),
        };
        for Listener { name, .. } in listeners {
            match map.get(name).map(String::as_str) {
                Some("PLAINTEXT") => {}
                Some(protocol) => {
                    let why = format!("{name} asks for {protocol}, and TLS and SASL are not supported yet");
                    self.invalid(read, "listeners", why);
                }
                None => {
                    let why = format!("{name} has no protocol in listener.security.protocol.map");
                    self.invalid(read, "listeners", why);
                }
            }
        }
    }

    fn advertised(&mut self, read: &Read<'_>, listeners: &[Listener], told: Option<Vec<Listener>>) -> Vec<Listener> {
        const NAME: &str = "advertised.listeners";
        let Some(advertised) = told else {
            if let Some(one) = listeners.iter().find(|one| one.is_wildcard()) {
                let why = format!(
                    "clients cannot be told to connect to {}: {NAME} has to name a host they can reach \
                     (--set {NAME}={}://HOST:{})",
                    one.host, one.name, one.port
                );
                self.invalid(read, "listeners", why);
            }
            return listeners.to_vec();
        };
        for one in &advertised {
            if !listeners.iter().any(|listener| listener.name == one.name) {
                self.conflict(NAME, format!("{NAME} names {}, which is not among the listeners", one.name));
            }
            if one.is_wildcard() {
                self.conflict(NAME, format!("{NAME}: clients cannot connect to {one}; name a host they can reach"));
            }
        }
        let missing = listeners.iter().find(|one| advertised.iter().all(|other| other.name != one.name));
        if let Some(missing) = missing.filter(|_| advertised.len() < listeners.len()) {
            let name = &missing.name;
            self.conflict(NAME, format!("{NAME} leaves out {name}: who connects there would be told of no broker"));
        }
        advertised
    }

    fn data_dirs(&mut self, read: &Read<'_>) -> Vec<PathBuf> {
        let name = if read.optional("log.dirs").is_some() { "log.dirs" } else { "log.dir" };
        let dirs: Vec<PathBuf> = read.items(name).into_iter().map(PathBuf::from).collect();
        if dirs.is_empty() {
            self.invalid(read, name, "there must be a data directory".to_owned());
        }
        for (at, dir) in dirs.iter().enumerate() {
            if dirs.iter().take(at).any(|earlier| earlier == dir) {
                self.invalid(read, name, format!("{} stands there twice", dir.display()));
            }
        }
        dirs
    }

    fn http(&mut self, read: &Read<'_>) -> Vec<String> {
        const NAME: &str = "firn.http.listeners";
        let addresses = read.items(NAME);
        for address in &addresses {
            let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                self.invalid(read, NAME, format!("{address} is not of the form host:port"));
            }
        }
        addresses
    }

    fn object_store(&mut self, read: &Read<'_>) -> Option<String> {
        const NAME: &str = "firn.object.store";
        let url = read.optional(NAME)?;
        let known = ["file:///", "s3://"].iter().any(|scheme| url.starts_with(scheme) && url.len() > scheme.len());
        if !known && url != "memory:" {
            let why = format!("{NAME}: {url} is neither file:///dir, nor s3://bucket/prefix, nor memory:");
            self.conflict(NAME, why);
        }
        Some(url)
    }

    /// Limits that bound each other.
    fn broker(&mut self, read: &Read<'_>) {
        let BrokerConfig { firn, groups, .. } = BrokerConfig::resolve(&read.layers);
        let parts = [
            firn.tail_cache_bytes,
            firn.request_memory_bytes,
            firn.chunk_cache_bytes,
            firn.remote_read_bytes,
            firn.upload_bytes,
        ];
        let sum = parts.iter().fold(0_usize, |sum, part| sum.saturating_add(*part));
        if sum > firn.memory_bytes {
            let names =
                "firn.tail.cache.bytes, firn.request.memory.bytes, firn.chunk.cache.bytes and firn.remote.read.bytes";
            let why = format!(
                "{names} together with what uploads take ({sum}) pass firn.memory.bytes ({})",
                firn.memory_bytes
            );
            self.conflict("firn.memory.bytes", why);
        }
        if firn.writeback_bytes > firn.tail_cache_bytes {
            let (part, whole) = (firn.writeback_bytes, firn.tail_cache_bytes);
            let why = format!("firn.writeback.bytes ({part}) is a part of firn.tail.cache.bytes ({whole})");
            self.conflict("firn.writeback.bytes", why);
        }
        if firn.journal_file_bytes.saturating_mul(4) > firn.journal_bytes {
            let (file, all) = (firn.journal_file_bytes, firn.journal_bytes);
            let why = format!("firn.journal.bytes ({all}) must hold four files of firn.journal.file.bytes ({file})");
            self.conflict("firn.journal.bytes", why);
        }
        if groups.min_session_timeout_ms > groups.max_session_timeout_ms {
            let (min, max) = (groups.min_session_timeout_ms, groups.max_session_timeout_ms);
            let why = format!("group.min.session.timeout.ms ({min}) is above group.max.session.timeout.ms ({max})");
            self.conflict("group.min.session.timeout.ms", why);
        }
        let scope = |name: &str| Scope::Server(self.origins.get(name).cloned().unwrap_or(Origin::Preset));
        self.errors.extend(check_retention(scope("log.retention.ms"), &read.layers).err());
    }
}

/// `controller.listener.names`, in capitals.
fn control_names(read: &Read<'_>) -> Vec<String> {
    read.items("controller.listener.names").iter().map(|name| name.to_ascii_uppercase()).collect()
}
