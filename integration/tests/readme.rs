//! The README's five minutes, typed as they stand there.

use integration::process::Firn;
use integration::typed;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

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
    let environment = vec![("FIRN_BOOTSTRAP", running.kafka().to_string()), ("FIRN_ADMIN", running.http().to_string())];

    let blocks = typed::blocks(typed::section(README, "Five minutes"));
    let typed = |block: String, environment: Vec<(&'static str, String)>| {
        let home = home.path().to_owned();
        async move { typed::typed(&["bash"], &block, &home, &environment, PATIENCE).await }
    };
    let (kcat, firn): (Vec<String>, Vec<String>) = blocks.into_iter().partition(|block| block.contains("kcat "));
    assert!(!firn.is_empty() && !kcat.is_empty(), "the section shows both clients");
    let said = typed(firn.concat(), environment.clone()).await;
    assert!(said.contains("flights is tiered"), "{said}");
    assert!(said.contains(r#"{"flight":1,"#), "the first record comes back: {said}");
    assert_eq!(said.lines().last().map(|count| count.trim().parse::<i64>()), Some(Ok(RECORDS)), "{said}");

    // The early offsets are in the object store, and no longer here.
    let deadline = Instant::now() + PATIENCE;
    let row = loop {
        let status = typed("target/release/firn tier status flights --json".to_owned(), environment.clone()).await;
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
        let said = typed(block, vec![]).await;
        assert_eq!(said.lines().last().map(|count| count.trim().parse::<i64>()), Some(Ok(RECORDS)), "{said}");
    }
}
