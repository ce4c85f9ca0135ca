//! The client commands as scripts use them: pipes that stay open, bytes that are no text, offsets that are not there.

use integration::client::Client;
use integration::process::{Finished, Firn, Running, addresses, ask_to_end};
use proto::records::{BatchBuilder, batches, for_each_record};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, sleep};

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
/// Nothing here takes long; this is when a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);
const TOPIC: &str = "lines";

async fn broker(home: &Path) -> (Running, Client) {
    let running = Firn::dev(FIRN, &home.join("data")).start().await.expect("starts");
    let mut client = Client::connect(running.kafka()).await.expect("connects");
    client.create_topic(TOPIC, 1, &[]).await.expect("created");
    (running, client)
}

fn firn(running: &Running, home: &Path, arguments: &[&str]) -> Firn {
    let at = running.kafka().to_string();
    Firn::new(FIRN, &home.join("commands.log"), &[arguments, &["--bootstrap", &at]].concat())
}

/// A record's key and value.
type Pair = (Option<Vec<u8>>, Option<Vec<u8>>);

/// All records of the topic, once there are `count`.
async fn records(client: &mut Client, count: usize) -> Vec<Pair> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let fetched = client.fetch(TOPIC, 0, 0, 1 << 20).await.expect("fetched");
        let mut found = Vec::new();
        for batch in batches(&fetched.records) {
            let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
            for_each_record(&batch.expect("whole"), 1 << 20, |record| found.push((own(record.key), own(record.value))))
                .expect("readable");
        }
        if found.len() >= count {
            return found;
        }
        assert!(Instant::now() < deadline, "{} of {count} records came", found.len());
        sleep(Duration::from_millis(20)).await;
    }
}

fn value(bytes: &[u8]) -> Pair {
    (None, Some(bytes.to_vec()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_that_stays_open_is_sent_as_it_comes() {
    let home = tempfile::tempdir().expect("a directory");
    let (running, mut client) = broker(home.path()).await;
    let mut command = firn(&running, home.path(), &["produce", TOPIC, "-Z"]).open().expect("runs");
    let mut pipe = command.stdin.take().expect("piped");
    pipe.write_all(b"first\nhalf a").await.expect("taken");
    assert_eq!(records(&mut client, 1).await, [value(b"first")], "while the pipe is open");
    pipe.write_all(b" line\n\xff\x00\xfe\n\nwithout an end").await.expect("taken");
    let expected = [value(b"first"), value(b"half a line"), value(b"\xff\x00\xfe"), (None, None)];
    assert_eq!(records(&mut client, 4).await, expected);
    drop(pipe);
    let ended = tokio::time::timeout(PATIENCE, command.wait_with_output()).await.expect("ends").expect("waited for");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(records(&mut client, 5).await.last(), Some(&value(b"without an end")));
    running.terminate(PATIENCE).await.expect("ends");
}

/// A line that cannot be taken ends the command, though the pipe stays open.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_line_does_not_wait_for_the_next() {
    let home = tempfile::tempdir().expect("a directory");
    let (running, mut client) = broker(home.path()).await;
    let arguments = ["produce", TOPIC, "--key-separator", ":", "-Z"];
    let mut command = firn(&running, home.path(), &arguments).open().expect("runs");
    let mut pipe = command.stdin.take().expect("piped");
    pipe.write_all(b"k\xff:v:w\nk:\n:\n").await.expect("taken");
    let expected = [(Some(b"k\xff".to_vec()), Some(b"v:w".to_vec())), (Some(b"k".to_vec()), None), (None, None)];
    assert_eq!(records(&mut client, 3).await, expected);
    pipe.write_all(b"no separator\n").await.expect("taken");
    let ended = tokio::time::timeout(PATIENCE, command.wait_with_output()).await.expect("ends").expect("waited for");
    assert!(!ended.status.success());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("has no `:`: no separator"));
    drop(pipe);
    running.terminate(PATIENCE).await.expect("ends");
}

async fn consume(running: &Running, home: &Path, more: &[&str]) -> Finished {
    firn(running, home, &[&["consume", TOPIC], more].concat()).finish().await.expect("ends")
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_printed_as_asked() {
    let home = tempfile::tempdir().expect("a directory");
    let (running, _client) = broker(home.path()).await;
    let arguments = ["produce", TOPIC, "--key", "k", "--value", "v", "--header", "a=1", "--header", "b=2"];
    let produced = firn(&running, home.path(), &arguments).finish().await.expect("ends");
    assert!(produced.status.success(), "{}", produced.stderr);
    let mut command = firn(&running, home.path(), &["produce", TOPIC, "-Z"]).open().expect("runs");
    let mut pipe = command.stdin.take().expect("piped");
    pipe.write_all(b"\xff\xfe\n\n").await.expect("taken");
    drop(pipe);
    assert!(command.wait().await.expect("ends").success());
    let text = consume(&running, home.path(), &["--headers", "--format", "key-value", "-n", "1"]).await;
    assert_eq!(text.stdout, "a:1,b:2\tk\tv\n");
    let plain = consume(&running, home.path(), &["-n", "1"]).await;
    assert_eq!(plain.stdout, "v\n");
    let rows: Vec<Value> = consume(&running, home.path(), &["--format", "json"])
        .await
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let headers = json!([{"name": "a", "value": "1"}, {"name": "b", "value": "2"}]);
    assert_eq!((&rows[0]["key"], &rows[0]["value"], &rows[0]["headers"]), (&json!("k"), &json!("v"), &headers));
    assert_eq!((&rows[1]["value"], &rows[2]["value"]), (&json!({"base64": "//4="}), &Value::Null));
    running.terminate(PATIENCE).await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_are_not_there_are_an_error_that_says_which_are() {
    let home = tempfile::tempdir().expect("a directory");
    let (running, _client) = broker(home.path()).await;
    let empty = consume(&running, home.path(), &["--from", "1"]).await;
    assert!(!empty.status.success());
    assert!(
        empty.stderr.contains("lines-0 cannot be read from offset 1: it is empty, and 0 will be the next"),
        "{}",
        empty.stderr
    );
    for _ in 0..3 {
        let produced = firn(&running, home.path(), &["produce", TOPIC, "--value", "v"]).finish().await.expect("ends");
        assert!(produced.status.success(), "{}", produced.stderr);
    }
    let beyond = consume(&running, home.path(), &["--from", "4"]).await;
    assert!(!beyond.status.success());
    assert!(
        beyond.stderr.contains("from offset 4: it has offsets 0 to 2, and 3 will be the next"),
        "{}",
        beyond.stderr
    );
    let end = consume(&running, home.path(), &["--from", "3"]).await;
    assert!(end.status.success() && end.stdout.is_empty(), "{}", end.stderr);
    let last = consume(&running, home.path(), &["--from", "2"]).await;
    assert_eq!(last.stdout, "v\n");
    running.terminate(PATIENCE).await.expect("ends");
}

/// Lines that fit into a batch each, but not together.
#[tokio::test(flavor = "multi_thread")]
async fn records_share_a_batch_only_if_the_topic_takes_it() {
    let home = tempfile::tempdir().expect("a directory");
    let (running, mut client) = broker(home.path()).await;
    client.create_topic("small", 1, &[("max.message.bytes", "20000")]).await.expect("created");
    for (topic, sizes) in [(TOPIC, &[500 << 10, 600 << 10, 1, 1_000_000][..]), ("small", &[12_000, 12_000, 19_900, 1])]
    {
        let lines: String = sizes.iter().map(|size| "x".repeat(*size) + "\n").collect();
        for codec in ["none", "lz4"] {
            let produce = firn(&running, home.path(), &["produce", topic, "--compression", codec]);
            let produced = produce.feed(lines.as_bytes()).await.expect("ends");
            assert!(produced.status.success(), "{topic}: {}", produced.stderr);
        }
        let read = firn(&running, home.path(), &["consume", topic]).finish().await.expect("ends");
        assert!(read.stdout == lines.repeat(2), "{topic}: {} bytes of {} twice", read.stdout.len(), lines.len());
    }
    running.terminate(PATIENCE).await.expect("ends");
}

/// As `firn topic list | head -1` does.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_went_away_is_no_failure() {
    let home = tempfile::tempdir().expect("a directory");
    let (running, _client) = broker(home.path()).await;
    let config = home.path().join("firn.toml");
    let text = "node.id = 1\nlisteners = \"PLAINTEXT://127.0.0.1:0\"\nlog.dirs = \"/nowhere\"\n";
    std::fs::write(&config, text).expect("written");
    let config = config.display().to_string();
    let segment = home.path().join("segment");
    let mut batch = BatchBuilder::new();
    batch.append(0, None, Some(b"v"), &[]);
    std::fs::write(&segment, batch.build()).expect("written");
    let segment = segment.display().to_string();
    let (kafka, http) = (running.kafka().to_string(), running.http().to_string());
    let commands: &[&[&str]] = &[
        &["topic", "create", "more"],
        &["topic", "list"],
        &["topic", "list", "--json"],
        &["topic", "describe", TOPIC],
        &["topic", "describe", TOPIC, "--json"],
        &["topic", "alter", "more", "--partitions", "9", "--config", "segment.bytes=1048576"],
        &["topic", "delete", "more"],
        &["produce", TOPIC, "--value", "v"],
        &["consume", TOPIC],
        &["tier", "status"],
        &["tier", "status", "--json"],
        &["tier", "flush", TOPIC],
        &["config", "check", &config],
        &["config", "check", &config, "--json"],
        &["bucket", "check", "memory:"],
        &["log", "dump", &segment],
        &["completions", "bash"],
        &["help"],
    ];
    let unheard = async |arguments: &[&str]| {
        let command = Firn::new(FIRN, Path::new("/dev/null"), arguments);
        let command = command.env("FIRN_BOOTSTRAP", &kafka).env("FIRN_ADMIN", &http);
        command.finish_unheard().await.expect("ends")
    };
    for command in commands {
        assert!(unheard(command).await.success(), "{command:?}");
    }
    // What failed has failed, heard or not.
    assert_eq!(unheard(&["topic", "describe", "nowhere"]).await.code(), Some(1));
    running.terminate(PATIENCE).await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_nobody_listens_to_serves() {
    let home = tempfile::tempdir().expect("a directory");
    let dev = Firn::dev(FIRN, &home.path().join("data"));
    let mut running = dev.open_unheard().expect("runs");
    let deadline = Instant::now() + PATIENCE;
    while !dev.log().contains("ready") {
        assert!(Instant::now() < deadline, "{}", dev.log());
        sleep(Duration::from_millis(20)).await;
    }
    ask_to_end(&running).expect("asked");
    let status = tokio::time::timeout(PATIENCE, running.wait()).await.expect("ends").expect("waited for");
    assert!(status.success(), "{status}: {}", dev.log());
}

/// All addresses are no address: a client that is told so connects to itself.
#[tokio::test(flavor = "multi_thread")]
async fn all_addresses_are_listened_on_only_when_clients_are_told_another() {
    let home = tempfile::tempdir().expect("a directory");
    let log = home.path().join("log");
    let data = home.path().join("data").display().to_string();
    let everywhere = ["dev", "--kafka", "0.0.0.0:0", "--http", "127.0.0.1:0", "--data", &data];
    let refused = Firn::new(FIRN, &log, &everywhere).finish().await.expect("ends");
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("--set advertised.listeners=PLAINTEXT://HOST:0"), "{}", refused.stderr);
    let told = Firn::new(FIRN, &log, &everywhere).set("advertised.listeners", "PLAINTEXT://127.0.0.1:0");
    let running = told.start().await.expect("starts");
    let at = ([127, 0, 0, 1], running.kafka().port()).into();
    Client::connect(at).await.expect("connects").create_topic(TOPIC, 1, &[]).await.expect("created");
    let at = format!("127.0.0.1:{}", running.kafka().port());
    let produced = Firn::new(FIRN, &log, &["produce", TOPIC, "--value", "v", "--bootstrap", &at]).finish().await;
    let produced = produced.expect("ends");
    assert!(produced.status.success(), "{}", produced.stderr);
    running.terminate(PATIENCE).await.expect("ends");
}

/// Writes to a terminal whose screen is not read until it takes nothing any more.
async fn fill(screen: &File) {
    const QUIET: usize = 20;
    let mut shown = shown(screen);
    rustix::io::ioctl_fionbio(&shown, true).expect("does not wait");
    // What it took may move on to where it is read from, and leave room again.
    let mut refused = 0;
    while refused < QUIET {
        match shown.write(&[b'.'; 64]) {
            Ok(_) => refused = 0,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                refused += 1;
                sleep(Duration::from_millis(5)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a process writes to, opened for the caller alone.
fn shown(screen: &File) -> File {
    let name = ptsname(screen, Vec::new()).expect("named");
    let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
    File::options().read(true).write(true).open(path).expect("opened")
}

/// Both ends of a new terminal of that size: what it shows, and what a process writes to.
fn terminal(columns: u16, rows: u16) -> (File, File) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&screen).expect("granted");
    unlockpt(&screen).expect("unlocked");
    tcsetwinsize(&screen, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).expect("sized");
    let screen = File::from(screen);
    let shown = shown(&screen);
    (screen, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_live_view_fits_into_its_terminal() {
    const COLUMNS: usize = 60;
    const HEAD: &str = "topic   ";
    let home = tempfile::tempdir().expect("a directory");
    let (mut screen, shown) = terminal(COLUMNS as u16, 12);
    let dev = Firn::dev(FIRN, &home.path().join("data"));
    let mut running = dev.open_on(&shown).expect("runs");
    drop(shown);
    let drawings = tokio::task::spawn_blocking(move || {
        let (mut seen, mut chunk) = (Vec::new(), [0; 4096]);
        // An error is how a terminal says that nobody writes to it any more.
        while let Ok(read @ 1..) = screen.read(&mut chunk) {
            seen.extend_from_slice(&chunk[..read]);
            if String::from_utf8_lossy(&seen).matches(HEAD).count() > 2 {
                break;
            }
        }
        String::from_utf8_lossy(&seen).into_owned()
    });
    let text = tokio::time::timeout(PATIENCE, drawings).await.expect("it is drawn again and again").expect("read");
    running.kill().await.expect("killed");
    let (_, drawn) = text.split_once(HEAD).unwrap_or_else(|| panic!("no live view in {text:?}"));
    let drawings: Vec<&str> = drawn.split(HEAD).collect();
    assert!(drawings.len() >= 3, "{text:?}");
    // The first two are whole, and each takes back as many lines as there were.
    for drawing in &drawings[..2] {
        let (lines, back) = drawing.split_once("\x1b[").expect("the next one begins by erasing");
        assert!(lines.lines().all(|line| line.chars().count() < COLUMNS), "{lines:?}");
        assert_eq!(back, format!("{}A\x1b[0J", lines.lines().count()));
    }
}

/// A terminal that stands still (Ctrl-S, a scrolled-back multiplexer) holds up neither records nor the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_that_stands_still_holds_up_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let (mut screen, terminal) = terminal(200, 50);
    // With plenty of log lines.
    let dev = Firn::dev(FIRN, &home.path().join("data")).set("firn.log.filter", "debug");
    let mut running = dev.open_on(&terminal).expect("runs");
    drop(terminal);
    let ready = tokio::task::spawn_blocking(move || {
        let (mut seen, mut chunk) = (String::new(), [0; 4096]);
        while let Ok(read @ 1..) = screen.read(&mut chunk) {
            seen += &String::from_utf8_lossy(&chunk[..read]);
            let (_, after) = seen.split_once("Firn serves").unwrap_or_default();
            if let Some((line, _)) = after.split_once("/metrics") {
                return (screen, addresses(&format!("{line}/metrics")).expect("both addresses").0.expect("a broker"));
            }
        }
        panic!("it does not serve: {seen}");
    });
    let (screen, kafka) = tokio::time::timeout(PATIENCE, ready).await.expect("it serves").expect("read");
    fill(&screen).await;
    let served = async {
        // Each leaves lines about connections that come and go.
        for at in 0..20 {
            let mut client = Client::connect(kafka).await.expect("connects");
            client.create_topic(&format!("t{at}"), 1, &[]).await.expect("created");
        }
    };
    tokio::time::timeout(PATIENCE, served).await.expect("served");
    ask_to_end(&running).expect("asked");
    let status = tokio::time::timeout(PATIENCE, running.wait()).await.expect("ends").expect("waited for");
    assert!(status.success(), "{status}");
    drop(screen);
}
