//! Files, environments and flags, good and bad.

use std::path::PathBuf;

use super::sources::{variable_of, variables};
use super::*;

fn from(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<ServerConfig, Vec<String>> {
    let own = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let sources = Sources {
        presets: Vec::new(),
        file: Some(file.to_owned()),
        environment: own(environment).into_iter().collect(),
        flags: own(flags),
    };
    ServerConfig::load(&sources).map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

fn only_error(file: &str, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    let mut errors = from(file, environment, flags).expect_err("an error");
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0)
}

#[test]
fn nothing_at_all_is_a_working_configuration() {
    let config = ServerConfig::load(&Sources::default()).expect("defaults hold");
    assert_eq!((config.node_id, config.roles), (0, Roles { broker: true, controller: true }));
    assert_eq!(config.listeners, [Listener { name: "PLAINTEXT".into(), host: "127.0.0.1".into(), port: 9092 }]);
    assert_eq!(config.advertised, config.listeners);
    assert_eq!(config.data_dirs, [PathBuf::from("./firn-data")]);
    assert_eq!((config.http.as_slice(), config.object_store), (&["127.0.0.1:9644".to_owned()][..], None));
    assert!(config.settings.is_empty());
}

#[test]
fn tables_dotted_and_quoted_names_are_the_same() {
    let file = r#"
        node.id = 3
        listeners = ["PLAINTEXT://:9092", "INSIDE://[::1]:9192"]
        "max.connections" = 10
        "max.connections.per.ip" = 5
        [log]
        dirs = "/a, /b"
        retention.hours = 5
        [firn]
        object.store = "s3://bucket/prefix"
        tier.max.lag.ms = 60000
        [listener.security]
        protocol.map = "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT"
    "#;
    let config = from(file, &[], &[]).expect("valid");
    assert_eq!(config.node_id, 3);
    assert_eq!(config.data_dirs, [PathBuf::from("/a"), PathBuf::from("/b")]);
    assert_eq!(config.object_store.as_deref(), Some("s3://bucket/prefix"));
    let binds: Vec<String> = config.listeners.iter().map(Listener::bind_address).collect();
    assert_eq!(binds, ["0.0.0.0:9092", "[::1]:9192"]);
    let broker = config.broker();
    assert_eq!((broker.net.max_connections, broker.net.max_connections_per_ip), (10, 5));
    assert_eq!(broker.topic_defaults.retention_ms, Some(5 * 3_600_000));
    assert_eq!(broker.topic_defaults.tier_max_lag_ms, 60_000);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "num.partitions = 2\nlog.retention.ms = 1000\nlog.segment.bytes = 2000000";
    let environment = [("FIRN_NUM_PARTITIONS", "3"), ("FIRN_LOG_RETENTION_MS", "2000"), ("HOME", "/root")];
    let config = from(file, &environment, &[("num.partitions", "4"), ("num.partitions", "5")]).expect("valid");
    let broker = config.broker();
    assert_eq!((broker.num_partitions, broker.topic_defaults.retention_ms), (5, Some(2000)));
    let explained: Vec<(String, String, String)> = config
        .explain()
        .into_iter()
        .map(|one| (one.definition.name.to_owned(), one.value.clone(), one.origin.to_string()))
        .collect();
    let expected = [
        ("log.retention.ms", "2000", "environment FIRN_LOG_RETENTION_MS"),
        ("log.segment.bytes", "2000000", "file"),
        ("num.partitions", "5", "--set"),
    ];
    assert_eq!(explained, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
}

#[test]
fn presets_yield_to_everything() {
    let presets = vec![("log.dirs".to_owned(), "/preset".to_owned()), ("num.partitions".to_owned(), "9".to_owned())];
    let sources = Sources { presets, flags: vec![("num.partitions".to_owned(), "2".to_owned())], ..Sources::default() };
    let config = ServerConfig::load(&sources).expect("valid");
    assert_eq!((config.data_dirs.as_slice(), config.broker().num_partitions), (&[PathBuf::from("/preset")][..], 2));
}

#[test]
fn every_config_has_one_variable() {
    assert_eq!(variables().len(), tables::all_broker().count());
    assert_eq!(variable_of("log.retention.ms"), "FIRN_LOG_RETENTION_MS");
    assert_eq!(variable_of("firn.object.store"), "FIRN_OBJECT_STORE");
    let config = from("", &[("FIRN_OBJECT_STORE", "memory:"), ("FIRN_FLUSH", "os")], &[]).expect("valid");
    assert_eq!(config.object_store.as_deref(), Some("memory:"));
}

#[test]
fn unknown_names_are_errors_with_a_suggestion() {
    let error = only_error("log.retention.mss = 5", &[], &[]);
    assert!(error.starts_with("file: ") && error.contains("did you mean log.retention.ms?"), "{error}");
    let error = only_error("retention.ms = 5", &[], &[]);
    assert!(error.contains("log.retention.ms is its default for all topics"), "{error}");
    let error = only_error("", &[("FIRN_LOG_RETENTON_MS", "5")], &[]);
    assert!(error.contains("did you mean FIRN_LOG_RETENTION_MS?"), "{error}");
    let error = only_error("", &[], &[("num_partitions", "5")]);
    assert!(error.starts_with("--set: ") && error.contains("did you mean num.partitions?"), "{error}");
    let client =
        [("FIRN_BOOTSTRAP", "x"), ("FIRN_ADMIN", "y"), ("FIRN_SERVICE_HOST", "10.0.0.1"), ("FIRN_PORT_9092_TCP", "z")];
    assert!(from("", &client, &[]).is_ok());
}

#[test]
fn nodes_of_a_cluster_are_told_of_its_quorum() {
    let both = r#"
        node.id = 1
        listeners = "PLAINTEXT://:9102,CONTROLLER://:9103"
        advertised.listeners = "PLAINTEXT://b:9102,CONTROLLER://b:9103"
        controller.listener.names = "CONTROLLER"
        controller.quorum.voters = "0@a:9093, 1@b:9103, 2@c:9113"
    "#;
    let config = from(both, &[], &[]).expect("valid");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.advertised[0].host, "b");
    assert_eq!(config.inter_broker, "PLAINTEXT");
    assert_eq!(config.quorum.listener.as_ref().map(|one| one.port), Some(9103));
    assert_eq!(config.quorum.advertised.as_ref().map(|one| one.host.as_str()), Some("b"));
    assert_eq!(config.quorum.voters[2], Voter { id: 2, address: "c:9113".into() });
    let controller = "process.roles = \"controller\"\nnode.id = 2\nlisteners = \"CONTROLLER://c:1\"\n\
                      controller.listener.names = \"CONTROLLER\"\ncontroller.quorum.voters = \"2@c:1\"";
    let config = from(controller, &[], &[]).expect("valid");
    assert!(config.listeners.is_empty() && config.quorum.is_shared());
    let broker = "process.roles = \"broker\"\nnode.id = 7\ncontroller.quorum.bootstrap.servers = \"a:9093,b:9103\"";
    let config = from(broker, &[], &[]).expect("valid");
    assert_eq!((config.quorum.bootstrap.len(), config.quorum.listener), (2, None));
    assert!(!from("", &[], &[]).expect("valid").quorum.is_shared());
}

#[test]
fn wrong_values_are_all_reported() {
    let errors = from("num.partitions = 0\nlog.retention.ms = \"soon\"", &[], &[("firn.flush", "never")]);
    let errors = errors.expect_err("three errors");
    assert_eq!(errors.len(), 3, "{errors:?}");
    assert!(errors.iter().any(|error| error.contains("num.partitions: must be at least 1")), "{errors:?}");
}

#[test]
fn what_firn_cannot_do_is_refused_and_not_ignored() {
    for file in [
        "ssl.keystore.location = \"/k\"",
        "sasl.enabled.mechanisms = \"PLAIN\"",
        "authorizer.class.name = \"x.Y\"",
        "listeners = \"SSL://:9092\"",
    ] {
        assert!(from(file, &[], &[]).is_err(), "{file}");
    }
    // Setting the default is no harm.
    assert!(from("ssl.client.auth = \"none\"", &[], &[]).is_ok());
}

#[test]
fn settings_must_go_together() {
    for (file, part) in [
        ("controller.quorum.voters = \"a:1\"", "id@host:port"),
        ("controller.quorum.voters = \"0@a:1,0@b:1\"", "named twice"),
        ("controller.quorum.voters = \"1@a:1\"", "node 0 is a controller, and not among"),
        ("process.roles = \"broker\"\ncontroller.quorum.voters = \"0@a:1\"", "node 0 is no controller, and among"),
        ("process.roles = \"broker\"", "set controller.quorum.bootstrap.servers"),
        ("controller.quorum.bootstrap.servers = \"a\"\nprocess.roles = \"broker\"", "host:port"),
        ("controller.quorum.voters = \"0@a:1,1@b:1\"", "needs a listener"),
        (
            "process.roles = \"controller\"\nlisteners = \"PLAINTEXT://a:1\"",
            "a process that is no broker has listeners for controllers only",
        ),
        ("inter.broker.listener.name = \"INSIDE\"", "INSIDE is not among the listeners"),
        ("listeners = \"localhost:9092\"", "NAME://host:port"),
        ("listeners = \"PLAINTEXT://::1:9092\"", "brackets"),
        ("listeners = \"A://:9092\"", "no protocol"),
        ("listeners = [\"PLAINTEXT://:1\", \"PLAINTEXT://:2\"]", "twice"),
        (
            "listeners = [\"PLAINTEXT://a:1\", \"B://a:1\"]\nlistener.security.protocol.map = \"PLAINTEXT:PLAINTEXT,B:PLAINTEXT\"",
            "listened on twice",
        ),
        ("listeners = \"PLAINTEXT://0.0.0.0:9092\"", "--set advertised.listeners=PLAINTEXT://HOST:9092"),
        ("listeners = \"PLAINTEXT://[::]:9092\"", "cannot be told to connect"),
        (
            "listeners = [\"PLAINTEXT://:1\", \"B://:2\"]\nlistener.security.protocol.map = \"PLAINTEXT:PLAINTEXT,B:PLAINTEXT\"\nadvertised.listeners = \"B://b:2\"",
            "leaves out PLAINTEXT",
        ),
        ("advertised.listeners = \"PLAINTEXT://0.0.0.0:9092\"", "cannot connect"),
        ("advertised.listeners = \"OTHER://host:9092\"", "not among the listeners"),
        ("node.id = 1\nbroker.id = 2", "same setting"),
        ("log.dirs = [\"/a\", \"/a\"]", "twice"),
        ("firn.object.store = \"ftp://x\"", "neither"),
        ("firn.http.listeners = \"nowhere\"", "host:port"),
        ("firn.memory.bytes = 67108864\nfirn.tail.cache.bytes = 67108864", "pass firn.memory.bytes"),
        ("firn.writeback.bytes = 1073741824", "part of"),
        ("firn.journal.bytes = 67108864", "four files"),
        ("group.min.session.timeout.ms = 5000000", "above"),
        ("log.retention.ms = 1000\nlog.local.retention.ms = 2000", "above"),
        ("log.retention.ms = 2020-01-01", "must be a text"),
        ("num.partitions 5", "TOML"),
    ] {
        let error = only_error(file, &[], &[]);
        assert!(error.contains(part), "{file}: {error}");
    }
}

#[test]
fn what_is_advertised_may_differ_from_what_is_listened_on() {
    let file = r#"
        listeners = ["PLAINTEXT://0.0.0.0:9092", "OUTSIDE://0.0.0.0:9093"]
        advertised.listeners = ["OUTSIDE://broker.example.org:443", "PLAINTEXT://:9092"]
        listener.security.protocol.map = "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT"
    "#;
    let config = from(file, &[], &[]).expect("valid");
    let advertised: Vec<String> = config.advertised.iter().map(Listener::to_string).collect();
    assert_eq!(advertised, ["OUTSIDE://broker.example.org:443", "PLAINTEXT://:9092"]);
    // Two listeners may stand behind one address.
    let same = "advertised.listeners = [\"OUTSIDE://h:1\", \"PLAINTEXT://h:1\"]";
    let lines: Vec<&str> = file.lines().filter(|line| !line.contains("advertised")).collect();
    assert!(from(&format!("{}\n{same}", lines.join("\n")), &[], &[]).is_ok());
}

#[test]
fn no_http_listener_serves_none() {
    assert!(from("firn.http.listeners = []", &[], &[]).expect("valid").http.is_empty());
    assert!(from("", &[("FIRN_HTTP_LISTENERS", "")], &[]).expect("valid").http.is_empty());
    let two = from("firn.http.listeners = [\"127.0.0.1:1\", \"127.0.0.1:2\"]", &[], &[]).expect("valid");
    assert_eq!(two.http.len(), 2);
}

#[test]
fn a_clash_of_dotted_names_says_what_to_do() {
    let error = only_error("max.connections = 10\nmax.connections.per.ip = 5", &[], &[]);
    assert!(error.contains("has to be quoted"), "{error}");
}

#[test]
fn explanations_hide_secrets_and_say_what_has_no_effect() {
    let config = from("num.io.threads = 4", &[], &[]).expect("valid");
    let text = config.explain()[0].to_string();
    assert!(
        text.contains("num.io.threads = 4") && text.contains("default 8") && text.contains("Without effect"),
        "{text}"
    );
}
