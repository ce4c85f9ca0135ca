//! The README's five minutes, typed as they stand there.

use integration::process::Firn;
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");
const README: &str = include_str!("../../README.md");
/// Five minutes are for a person.
const PATIENCE: Duration = Duration::from_secs(300);
/// What the README's records are counted to.
const RECORDS: i64 = 100_000;
/// Where this is set, the commands for kcat may not be skipped because it is not installed.
const NEEDS_KCAT: &str = "FIRN_TEST_NEEDS_KCAT";
/// The default of Kafka clients, which stands in commands that do not read our environment.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";

/// The shell blocks of the section whose heading begins so.
fn blocks(heading: &str) -> Vec<String> {
    let section = README.split("\n## ").find(|section| section.starts_with(heading));
    let section = section.unwrap_or_else(|| panic!("no section `{heading}` in README.md"));
    let fenced = section.split("```sh\n").skip(1);
    fenced.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// Runs a block in `folder`; what it prints. Every command must succeed, also in the middle of a pipe.
async fn typed(block: &str, folder: &Path, environment: &[(&str, String)]) -> String {
    let mut shell = Command::new("bash");
    shell.args(["-e", "-u", "-o", "pipefail", "-c", block]).current_dir(folder).stdin(Stdio::null());
    shell.env_remove("FIRN_TEST_BINARY").envs(environment.iter().map(|(name, value)| (name, value)));
    let output = timeout(PATIENCE, shell.kill_on_drop(true).output()).await.expect("it ends").expect("bash runs");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{block}\nended with {}:\n{said}{wrong}", output.status);
    said.into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_minutes_do_what_the_readme_says() {
    let home = tempfile::Builder::new().prefix("firn-readme-").tempdir().expect("a directory");
    // The block puts cargo's folder of releases on the path.
    let folder = home.path().join("target/release");
    std::fs::create_dir_all(&folder).expect("a directory");
    let binary = std::env::var("FIRN_TEST_BINARY").unwrap_or_else(|_| FIRN.to_owned());
    let binary = Path::new(&binary).canonicalize().expect("a binary");
    std::os::unix::fs::symlink(binary, folder.join("firn")).expect("a link");
    let running = Firn::dev(FIRN, &home.path().join("data")).start().await.expect("it starts");
    let environment = [("FIRN_BOOTSTRAP", running.kafka().to_string()), ("FIRN_ADMIN", running.http().to_string())];

    let blocks = blocks("Five minutes");
    let (kcat, firn): (Vec<String>, Vec<String>) = blocks.into_iter().partition(|block| block.contains("kcat "));
    assert!(!firn.is_empty() && !kcat.is_empty(), "the section shows both clients");
    let said = typed(&firn.concat(), home.path(), &environment).await;
    assert!(said.contains("flights is tiered"), "{said}");
    assert!(said.contains(r#"{"flight":1,"#), "the first record comes back: {said}");
    assert_eq!(said.lines().last().map(|count| count.trim().parse::<i64>()), Some(Ok(RECORDS)), "{said}");

    // The early offsets are in the object store, and no longer here.
    let deadline = Instant::now() + PATIENCE;
    let row = loop {
        let status = typed("target/release/firn tier status flights --json", home.path(), &environment).await;
        let status: Value = serde_json::from_str(&status).expect("JSON");
        if status[0]["local_start"].as_i64() > Some(RECORDS / 2) {
            break status[0].clone();
        }
        assert!(Instant::now() < deadline, "it does not go cold: {status}");
        sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((&row["log_start"], &row["tier_end"]), (&0.into(), &RECORDS.into()), "{row}");
    assert!(row["remote_bytes"].as_u64() > row["local_bytes"].as_u64(), "{row}");

    if Command::new("kcat").arg("-V").output().await.is_err() {
        assert!(std::env::var_os(NEEDS_KCAT).is_none(), "{NEEDS_KCAT} is set, and there is no kcat");
        println!("SKIPPED: kcat is not installed");
        return;
    }
    for block in kcat {
        assert!(block.contains(DEFAULT_ADDRESS), "{block}");
        let block = block.replace(DEFAULT_ADDRESS, &running.kafka().to_string());
        let said = typed(&block, home.path(), &[]).await;
        assert_eq!(said.lines().last().map(|count| count.trim().parse::<i64>()), Some(Ok(RECORDS)), "{said}");
    }
}
