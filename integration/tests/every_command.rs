//! Every command of the binary against one running broker, as a person or a script types it.
//!
//! Addresses reach the client commands by `FIRN_BOOTSTRAP` and `FIRN_ADMIN`, as documented; what they print is read
//! back, as JSON where a script would.

use integration::process::{Finished, Firn, Running};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
/// Nothing that is waited for here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A broker and somebody who types.
struct Desk {
    home: TempDir,
    data: PathBuf,
    broker: Firn,
    running: Running,
}

impl Desk {
    async fn new() -> Desk {
        let home = tempfile::Builder::new().prefix("firn-commands-").tempdir().expect("a directory");
        let data = home.path().join("data");
        let broker = Firn::dev(FIRN, &data).set("firn.tier.check.interval.ms", 50);
        let running = broker.start().await.expect("it starts");
        Desk { home, data, broker, running }
    }

    fn firn(&self, arguments: &[&str]) -> Firn {
        Firn::new(FIRN, &self.home.path().join("typed.log"), arguments)
            .env("FIRN_BOOTSTRAP", &self.running.kafka().to_string())
            .env("FIRN_ADMIN", &self.running.http().to_string())
    }

    /// What a command that must succeed prints.
    async fn ok(&self, arguments: &[&str]) -> String {
        self.fed(arguments, "").await
    }

    /// The same with something on standard input.
    async fn fed(&self, arguments: &[&str], input: &str) -> String {
        let finished = self.firn(arguments).feed(input.as_bytes()).await.expect("it ends");
        assert!(finished.status.success(), "{arguments:?}: {}", finished.stderr);
        finished.stdout
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let said = self.ok(arguments).await;
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {said}"))
    }

    /// What a command that must fail says, in one line.
    async fn fails(&self, arguments: &[&str]) -> String {
        one_line(arguments, self.firn(arguments).finish().await.expect("it ends"))
    }
}

fn one_line(what: &[&str], finished: Finished) -> String {
    let said = (finished.status.code(), finished.stderr.lines().count(), finished.stderr.starts_with("firn: "));
    assert_eq!(said, (Some(1), 1, true), "{what:?}: {}", finished.stderr);
    finished.stderr
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// All files below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn topics_are_created_listed_described_altered_and_deleted() {
    let desk = Desk::new().await;
    let made = desk.ok(&["topic", "create", "shop", "--partitions", "3", "--config", "retention.ms=86400000"]).await;
    assert!(made.contains("shop") && made.contains("3 partitions"), "{made}");
    desk.ok(&["topic", "create", "other"]).await;
    let listed = desk.ok(&["topic", "list"]).await;
    assert_eq!(lines(&listed), ["other\t1 partition", "shop\t3 partitions"]);
    let listed = desk.json(&["topic", "list", "--json"]).await;
    assert_eq!(listed[1]["name"], "shop");
    assert_eq!(listed[1]["partitions"], 3);
    assert_eq!(listed[1]["internal"], false);
    let described = desk.json(&["topic", "describe", "shop", "--json"]).await;
    assert_eq!(described["config"], serde_json::json!({"retention.ms": "86400000"}));
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(3));
    assert_eq!(described["id"], listed[1]["id"]);
    let text = desk.ok(&["topic", "describe", "shop"]).await;
    assert!(text.starts_with("shop: 3 partitions\n") && text.contains("retention.ms=86400000"), "{text}");
    assert!(text.lines().count() >= 6 && !text.contains(" id "), "{text}");
    assert!(desk.ok(&["topic", "describe", "shop", "--verbose"]).await.contains("\n  id "));
    let error = desk.fails(&["topic", "describe", "nothing"]).await;
    assert!(error.contains("topic nothing: there is no such topic"), "{error}");
    assert!(error.contains("(UNKNOWN_TOPIC_OR_PARTITION)"), "{error}");
    let wider = ["topic", "alter", "shop", "--partitions", "4", "--config", "segment.bytes=1048576"];
    desk.ok(&[&wider[..], &["--delete-config", "retention.ms"]].concat()).await;
    let described = desk.json(&["topic", "describe", "shop", "--json"]).await;
    assert_eq!(described["config"], serde_json::json!({"segment.bytes": "1048576"}));
    assert_eq!(described["partitions"].as_array().map(Vec::len), Some(4));
    assert!(desk.fails(&["topic", "alter", "shop"]).await.contains("nothing to change"));
    assert!(desk.fails(&["topic", "alter", "shop", "--partitions", "2"]).await.contains("INVALID_PARTITIONS"));
    assert!(desk.fails(&["topic", "create", "shop"]).await.contains("TOPIC_ALREADY_EXISTS"));
    desk.ok(&["topic", "delete", "shop"]).await;
    assert_eq!(desk.ok(&["topic", "list"]).await, "other\t1 partition\n");
}

#[tokio::test]
async fn what_is_produced_is_consumed_from_anywhere_in_any_form() {
    let desk = Desk::new().await;
    desk.ok(&["topic", "create", "notes", "--partitions", "1"]).await;
    let headers = ["--header", "source=desk", "--header", "source=twice"];
    desk.ok(&[&["produce", "notes", "--key", "k1", "--value", "one"][..], &headers].concat()).await;
    desk.fed(&["produce", "notes", "--key-separator", ":", "--compression", "zstd"], "k2:two\nk3:with: colon\n").await;
    desk.fed(&["produce", "notes", "--partition", "0"], "plain\n").await;
    assert_eq!(desk.ok(&["consume", "notes"]).await, "one\ntwo\nwith: colon\nplain\n");
    assert_eq!(desk.ok(&["consume", "notes", "--from", "beginning", "-n", "2"]).await, "one\ntwo\n");
    assert_eq!(desk.ok(&["consume", "notes", "--from", "2"]).await, "with: colon\nplain\n");
    assert_eq!(desk.ok(&["consume", "notes", "--from", "end"]).await, "");
    assert_eq!(desk.ok(&["consume", "notes", "--key", "k3"]).await, "with: colon\n");
    let keyed = desk.ok(&["consume", "notes", "--format", "key-value", "--partition", "0"]).await;
    assert_eq!(keyed, "k1\tone\nk2\ttwo\nk3\twith: colon\n\tplain\n");
    let rows = desk.ok(&["consume", "notes", "--format", "json"]).await;
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.iter().map(|row| row["offset"].as_i64()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
    assert_eq!((&rows[0]["key"], &rows[0]["value"], &rows[0]["partition"]), (&"k1".into(), &"one".into(), &0.into()));
    let header = |value: &str| serde_json::json!({"name": "source", "value": value});
    assert_eq!(rows[0]["headers"], Value::from(vec![header("desk"), header("twice")]));
    assert_eq!((&rows[3]["key"], &rows[3]["headers"]), (&Value::Null, &Value::from(Vec::<Value>::new())));
    // The first record at or after a time, and none after the last.
    let time = |row: &Value| row["timestamp"].as_i64().expect("a time");
    let since = time(&rows[3]);
    let expected: Vec<&str> =
        rows.iter().skip_while(|row| time(row) < since).map(|row| row["value"].as_str().expect("text")).collect();
    assert_eq!(lines(&desk.ok(&["consume", "notes", "--from", &format!("@{since}")]).await), expected);
    assert_eq!(desk.ok(&["consume", "notes", "--from", &format!("@{}", since + 1)]).await, "");
    assert!(desk.fails(&["consume", "notes", "--partition", "7"]).await.contains("no partition 7"));
    assert!(desk.fails(&["produce", "notes", "--partition", "7", "--value", "x"]).await.contains("no partition 7"));
}

#[tokio::test]
async fn following_goes_on_beyond_the_end_there_was_at_the_start() {
    let desk = Desk::new().await;
    desk.ok(&["topic", "create", "tail", "--partitions", "1"]).await;
    desk.fed(&["produce", "tail"], "before\n").await;
    let mut follower = desk.firn(&["consume", "tail", "--follow", "-n", "3"]).spawn().expect("it runs");
    assert_eq!(follower.line().await.expect("a line").as_deref(), Some("before"));
    // It has read to the end by now.
    desk.fed(&["produce", "tail"], "after\nlater\nnever asked for\n").await;
    assert_eq!(follower.line().await.expect("a line").as_deref(), Some("after"));
    assert_eq!(follower.line().await.expect("a line").as_deref(), Some("later"));
    assert_eq!(follower.line().await.expect("its end"), None);
}

#[tokio::test]
async fn the_tier_is_seen_and_flushed() {
    let desk = Desk::new().await;
    let small = ["--config", "segment.bytes=1048576", "--config", "local.retention.bytes=1"];
    desk.ok(&[&["topic", "create", "snow", "--partitions", "1"][..], &small].concat()).await;
    desk.ok(&["topic", "create", "stays", "--partitions", "1", "--config", "remote.storage.enable=false"]).await;
    let line = "x".repeat(1000);
    desk.fed(&["produce", "snow"], &format!("{line}\n").repeat(3000)).await;
    let flushed = desk.ok(&["tier", "flush", "snow", "--timeout", "30"]).await;
    assert!(flushed.contains("snow is tiered"), "{flushed}");
    let deadline = Instant::now() + PATIENCE;
    let row = loop {
        let status = desk.json(&["tier", "status", "snow", "--json"]).await;
        assert_eq!(status.as_array().map(Vec::len), Some(1), "{status}");
        if status[0]["local_start"].as_i64() > Some(0) {
            break status[0].clone();
        }
        assert!(Instant::now() < deadline, "does not go cold: {status}");
        sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((&row["topic"], &row["partition"], &row["log_start"]), (&"snow".into(), &0.into(), &0.into()));
    assert_eq!((&row["tier_end"], &row["high_watermark"]), (&3000.into(), &3000.into()));
    assert_eq!((&row["lag_bytes"], &row["held_back_by"]), (&0.into(), &Value::Null));
    assert!(row["objects"].as_u64() > Some(0) && row["remote_bytes"].as_u64() > Some(3_000_000), "{row}");
    let all = desk.json(&["tier", "status", "--json"]).await;
    let topics: Vec<_> = all.as_array().expect("rows").iter().map(|row| row["topic"].clone()).collect();
    assert!(topics.contains(&"snow".into()) && topics.contains(&"stays".into()), "{all}");
    let text = desk.ok(&["tier", "status", "snow"]).await;
    assert!(text.lines().count() == 2 && text.contains("0..2999"), "{text}");
    // What went cold comes back.
    assert_eq!(desk.ok(&["consume", "snow", "--from", "0", "-n", "1"]).await, format!("{line}\n"));
    assert!(desk.fails(&["tier", "flush", "nowhere"]).await.contains("nowhere"));
    assert!(desk.fails(&["tier", "status", "nowhere"]).await.contains("nowhere"));
    assert!(desk.fails(&["tier", "flush", "stays"]).await.contains("remote.storage.enable"));
}

#[tokio::test]
async fn files_of_a_data_directory_are_shown_and_verified() {
    let desk = Desk::new().await;
    desk.ok(&["topic", "create", "kept", "--partitions", "1", "--config", "remote.storage.enable=false"]).await;
    desk.fed(&["produce", "kept", "--key", "the-key"], "first\nsecond\n").await;
    // A journal is of interest after a crash.
    let Desk { home, data, broker, running } = desk;
    running.kill().await.expect("it is ours");
    let dump = |arguments: &[&str]| Firn::new(FIRN, Path::new("/dev/null"), &[&["log", "dump"], arguments].concat());
    let mut appended = 0;
    for journal in files(&data).iter().filter(|path| is_journal(path)) {
        let journal = journal.display().to_string();
        let text = dump(&[&journal]).finish().await.expect("it ends");
        assert!(text.status.success() && text.stdout.starts_with("journal file "), "{journal}: {text:?}");
        appended += text.stdout.matches("append: ").count();
        let rows = dump(&[&journal, "--json"]).finish().await.expect("it ends");
        assert!(rows.status.success(), "{journal}: {rows:?}");
        let first = rows.stdout.lines().next().map(serde_json::from_str::<Value>);
        assert!(first.is_some_and(|first| first.is_ok_and(|first| first["journal"].is_u64())), "{}", rows.stdout);
    }
    assert!(appended > 0, "no journal file shows what was appended");
    let running = broker.start().await.expect("it starts again");
    let (status, _) = running.terminate(PATIENCE).await.expect("it ends");
    assert!(status.success(), "{status}");
    let segments: Vec<PathBuf> =
        files(&data).into_iter().filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    let mut values = Vec::new();
    for segment in &segments {
        let path = segment.display().to_string();
        let rows = dump(&[&path, "--json", "--records"]).finish().await.expect("it ends");
        assert!(rows.status.success(), "{path}: {rows:?}");
        for line in rows.stdout.lines() {
            let row: Value = serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"));
            values.extend(row["value"].as_str().map(str::to_owned));
            assert!(row["value"].is_null() || row["key"] == "the-key", "{row}");
        }
    }
    assert_eq!(values, ["first", "second"]);
    // One wrong bit is found, and where.
    let segment = segments.iter().find(|path| std::fs::metadata(path).is_ok_and(|about| about.len() > 0));
    let mut bytes = std::fs::read(segment.expect("it holds the records")).expect("read");
    *bytes.last_mut().expect("not empty") ^= 1;
    let damaged = home.path().join("damaged.log");
    std::fs::write(&damaged, bytes).expect("written");
    let damaged = damaged.display().to_string();
    let said = one_line(&["damaged"], dump(&[&damaged]).finish().await.expect("it ends"));
    assert!(said.contains("is damaged at byte 0") && said.contains("CRC"), "{said}");
}

fn is_journal(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("journal-"))
}

#[tokio::test]
async fn a_configuration_file_is_checked_and_served() {
    let home = tempfile::tempdir().expect("a directory");
    let file = home.path().join("firn.toml");
    let text = format!(
        "node.id = 7\nlisteners = \"PLAINTEXT://127.0.0.1:0\"\nfirn.http.listeners = \"127.0.0.1:0\"\n\
         log.dirs = \"{}\"\nnum.partitions = 3\n",
        home.path().join("data").display()
    );
    std::fs::write(&file, &text).expect("written");
    let file = file.display().to_string();
    let log = home.path().join("log");
    let check = Firn::new(FIRN, &log, &["config", "check", &file]).finish().await.expect("it ends");
    assert!(check.status.success() && check.stdout.contains("num.partitions"), "{check:?}");
    assert!(check.stdout.lines().last().is_some_and(|last| last.contains("is good")), "{}", check.stdout);
    let check = Firn::new(FIRN, &log, &["config", "check", &file, "--json"]).finish().await.expect("it ends");
    let rows: Vec<Value> = serde_json::from_str(&check.stdout).unwrap_or_else(|error| panic!("{error}: {check:?}"));
    let row = rows.iter().find(|row| row["name"] == "num.partitions").expect("it is set");
    assert_eq!((&row["value"], &row["acted_on"]), (&"3".into(), &true.into()));
    let wrong = home.path().join("wrong.toml");
    std::fs::write(&wrong, text.replace("= 3", "= 0")).expect("written");
    let check = Firn::new(FIRN, &log, &["config", "check", &wrong.display().to_string()]).finish().await;
    assert!(one_line(&["config", "check"], check.expect("it ends")).contains("num.partitions"));

    let running = Firn::new(FIRN, &log, &["server", "--config", &file]).start().await.expect("it starts");
    let kafka = running.kafka().to_string();
    let create = Firn::new(FIRN, &log, &["topic", "create", "t", "--bootstrap", &kafka]).finish().await;
    let create = create.expect("it ends");
    assert!(create.stdout.contains("3 partitions"), "{create:?}");
    let describe = Firn::new(FIRN, &log, &["topic", "describe", "t", "--json", "--bootstrap", &kafka]).finish().await;
    let described: Value = serde_json::from_str(&describe.expect("it ends").stdout).expect("JSON");
    assert_eq!(described["partitions"][0]["leader"], 7);
    let (status, _) = running.terminate(PATIENCE).await.expect("it ends");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_small_bench_gives_all_figures_and_leaves_nothing() {
    let desk = Desk::new().await;
    let size = ["--mib", "4", "--partitions", "2", "--rate-mib", "1", "--seconds", "1"];
    let rows = desk.json(&[&["bench", "--json"][..], &size].concat()).await;
    let rows = rows.as_array().expect("rows");
    let figure = |begins: &str, name: &str| {
        let row = rows.iter().find(|row| row["figure"].as_str().is_some_and(|figure| figure.starts_with(begins)));
        let row = row.unwrap_or_else(|| panic!("no {begins} in {rows:?}"));
        row[name].as_f64().unwrap_or_else(|| panic!("no {name} in {row}"))
    };
    for (begins, name) in [
        ("before", "rss_bytes"),
        ("produce, 1 partition", "mib_per_s"),
        ("latency", "p50_ms"),
        ("latency", "p99_ms"),
        ("latency", "p999_ms"),
        ("consume, hot, 1 partition", "mib_per_s"),
        ("consume, cold", "mib_per_s"),
        ("consume, cold", "first_record_ms"),
    ] {
        assert!(figure(begins, name) > 0.0, "{begins}: {name}");
    }
    // The kernel counts in ticks of 10 ms: so little may take none.
    assert!(figure("produce, 2 partitions", "cpu_s_per_gib") >= 0.0);
    assert_eq!(desk.ok(&["topic", "list"]).await, "");
}

#[tokio::test]
async fn a_flag_wins_over_the_environment() {
    let desk = Desk::new().await;
    desk.ok(&["topic", "create", "there"]).await;
    let nowhere = "127.0.0.1:1";
    assert!(desk.fails(&["topic", "list", "--bootstrap", nowhere]).await.contains(nowhere));
    assert!(desk.fails(&["tier", "status", "--admin", nowhere]).await.contains(nowhere));
    let good = (desk.running.kafka().to_string(), desk.running.http().to_string());
    let wrong = |arguments: &[&str]| desk.firn(arguments).env("FIRN_BOOTSTRAP", nowhere).env("FIRN_ADMIN", nowhere);
    let list = wrong(&["topic", "list", "--bootstrap", &good.0]).finish().await.expect("it ends");
    assert!(list.stdout.starts_with("there"), "{list:?}");
    let status = wrong(&["tier", "status", "there", "--admin", &good.1]).finish().await.expect("it ends");
    assert!(status.status.success(), "{status:?}");
}

#[tokio::test]
async fn shells_complete_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = Firn::new(FIRN, Path::new("/dev/null"), &["completions", shell]).finish().await.expect("it ends");
        assert!(script.status.success(), "{shell}: {}", script.stderr);
        for command in ["dev", "server", "topic", "produce", "consume", "tier", "log", "bucket", "config", "bench"] {
            assert!(script.stdout.contains(command), "{shell} knows nothing of {command}");
        }
        for flag in ["delete-config", "key-separator", "object-store", "follow"] {
            assert!(script.stdout.contains(flag), "{shell} knows nothing of --{flag}");
        }
    }
}
