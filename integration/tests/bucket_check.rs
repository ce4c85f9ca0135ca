//! `firn bucket check` and a broker's start against buckets that are set up well, badly, or not there: one clear line each,
//! and an exit code for scripts.

use integration::client::Client;
use integration::process::{Finished, Firn};
use integration::s3::{BUCKET, BucketSettings, Conditions, Faults, S3Server};
use proto::records::BatchBuilder;
use std::path::Path;

const FIRN: &str = env!("CARGO_BIN_EXE_firn-under-test");

/// A check of `url` with these further arguments, in the server's environment with `changes`.
async fn check(server: &S3Server, url: &str, more: &[&str], changes: &[(&str, &str)]) -> Finished {
    let arguments: Vec<&str> = ["bucket", "check", url].iter().chain(more).copied().collect();
    let mut firn = Firn::new(FIRN, Path::new("/dev/null"), &arguments).env("AWS_EC2_METADATA_DISABLED", "true");
    for (name, value) in server.env() {
        firn = firn.env(&name, &value);
    }
    for (name, value) in changes {
        firn = firn.env(name, value);
    }
    firn.finish().await.expect("the command ends")
}

fn url() -> String {
    format!("s3://{BUCKET}/some/prefix")
}

async fn server(settings: BucketSettings) -> S3Server {
    let server = S3Server::start(1).await.expect("loopback has a free port");
    server.set_bucket(settings);
    server
}

/// The check fails, and the one line of `about` says all of `texts`.
fn fails(said: &Finished, about: &str, texts: &[&str]) {
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let line = said.stdout.lines().find(|line| line.starts_with(&format!("error: {about}: ")));
    let line = line.unwrap_or_else(|| panic!("no error about {about}: {said:?}"));
    for text in texts {
        assert!(line.contains(text), "no '{text}' in: {line}");
    }
    assert_eq!(said.stderr.lines().count(), 1, "{said:?}");
    assert!(said.stderr.contains("cannot be used yet"), "{said:?}");
}

#[tokio::test]
async fn a_good_bucket_passes_with_a_line_for_each_check() {
    let server = server(BucketSettings::default()).await;
    let said = check(&server, &url(), &[], &[]).await;
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    for about in ["reachable", "region", "conditional writes", "versioning", "lifecycle", "encryption"] {
        assert!(said.stdout.lines().any(|line| line.starts_with(&format!("ok: {about}: "))), "{about}: {said:?}");
    }
    assert!(server.objects().is_empty(), "the probe is cleared away");
}

#[tokio::test]
async fn scripts_read_json() {
    let server = server(BucketSettings { expiring: Some("some/".to_owned()), ..BucketSettings::default() }).await;
    let said = check(&server, &url(), &["--json"], &[]).await;
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let rows: Vec<serde_json::Value> = serde_json::from_str(&said.stdout).expect("JSON and nothing else");
    let lifecycle = rows.iter().find(|row| row["check"] == "lifecycle").expect("a row for each check");
    assert_eq!(lifecycle["severity"], "error");
    assert!(lifecycle["line"].as_str().is_some_and(|line| line.contains("tidy-up")), "{lifecycle}");
}

#[tokio::test]
async fn an_endpoint_where_nobody_listens_is_named() {
    let server = server(BucketSettings::default()).await;
    let said = check(&server, &url(), &[], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]).await;
    fails(&said, "reachable", &["cannot be reached", "http://127.0.0.1:9", "AWS_ENDPOINT_URL"]);
    let json = check(&server, &url(), &["--json"], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]).await;
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json.stdout).expect("JSON and nothing else");
    assert_eq!(rows[0]["severity"], "error");
    let creating = check(&server, &url(), &["--create"], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")]).await;
    assert_eq!((creating.status.code(), creating.stderr.lines().count()), (Some(1), 1), "{creating:?}");
    assert!(creating.stderr.contains("http://127.0.0.1:9"), "{creating:?}");
}

#[tokio::test]
async fn wrong_credentials_are_told_from_missing_ones() {
    let server = server(BucketSettings::default()).await;
    let wrong = check(&server, &url(), &[], &[("AWS_SECRET_ACCESS_KEY", "guessed")]).await;
    fails(&wrong, "reachable", &["denied", "AWS_ACCESS_KEY_ID"]);
    let empty = tempfile::tempdir().expect("a directory");
    let nowhere = empty.path().join("none").display().to_string();
    let none = [
        ("AWS_ACCESS_KEY_ID", ""),
        ("AWS_SECRET_ACCESS_KEY", ""),
        ("AWS_CONFIG_FILE", nowhere.as_str()),
        ("AWS_SHARED_CREDENTIALS_FILE", nowhere.as_str()),
    ];
    let missing = check(&server, &url(), &[], &none).await;
    fails(&missing, "reachable", &["there are no credentials", "AWS_ACCESS_KEY_ID"]);
}

/// A profile on disk is as good as variables, for the check and for a broker.
#[tokio::test]
async fn credentials_may_come_from_a_profile() {
    let home = tempfile::tempdir().expect("a directory");
    let server = server(BucketSettings::default()).await;
    let env: std::collections::BTreeMap<String, String> = server.env().into_iter().collect();
    let (key, secret) = (&env["AWS_ACCESS_KEY_ID"], &env["AWS_SECRET_ACCESS_KEY"]);
    let profile = home.path().join("credentials");
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    std::fs::write(&profile, text).expect("a file");
    let profile = profile.display().to_string();
    let from_profile =
        [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("AWS_SHARED_CREDENTIALS_FILE", profile.as_str())];
    let said = check(&server, &url(), &[], &from_profile).await;
    assert!(said.status.success(), "{said:?}");
    let mut firn = Firn::dev(FIRN, &home.path().join("data")).arg("--object-store").arg(&url());
    for (name, value) in server.env() {
        firn = firn.env(&name, &value);
    }
    for (name, value) in from_profile {
        firn = firn.env(name, value);
    }
    let running = firn.start().await.expect("it starts");
    let mut client = Client::connect(running.kafka()).await.expect("it serves");
    client.create_topic("snow", 1, &[]).await.expect("a new topic");
    let mut batch = BatchBuilder::new();
    batch.append(1_000, None, Some(b"flake"), &[]);
    client.produce("snow", 0, batch.build()).await.expect("hot records need no bucket");
    let admin = running.http().to_string();
    let flush = Firn::new(FIRN, Path::new("/dev/null"), &["tier", "flush", "snow", "--admin", &admin]);
    let said = flush.finish().await.expect("the command ends");
    assert!(said.status.success(), "{said:?}");
    assert_eq!(server.objects().len(), 1);
    running.terminate(std::time::Duration::from_secs(5)).await.expect("it ends in time");
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused_at_once() {
    let server = server(BucketSettings::default()).await;
    let said = check(&server, &url(), &[], &[("AWS_ENDPOINT_URL", "127.0.0.1:9000")]).await;
    assert_eq!((said.status.code(), said.stderr.lines().count()), (Some(1), 1), "{said:?}");
    assert!(
        said.stderr.contains("AWS_ENDPOINT_URL is '127.0.0.1:9000'") && said.stderr.contains("http://"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_missing_bucket_is_created_on_demand() {
    let server = server(BucketSettings::default()).await;
    let said = check(&server, "s3://another", &[], &[]).await;
    fails(&said, "reachable", &["'another' does not exist", "firn bucket check s3://another --create"]);
    let created = check(&server, "s3://another", &["--create"], &[]).await;
    assert!(created.status.success(), "{created:?}");
    assert!(created.stdout.lines().any(|line| line.starts_with("ok: reachable: ")), "{created:?}");
    let again = check(&server, "s3://another", &["--create"], &[]).await;
    assert!(again.status.success(), "one's own is as good as a new one: {again:?}");
}

#[tokio::test]
async fn a_bucket_elsewhere_says_which_region_to_set() {
    let server = server(BucketSettings { region: Some("eu-central-1".to_owned()), ..BucketSettings::default() }).await;
    let said = check(&server, &url(), &[], &[]).await;
    fails(&said, "region", &["eu-central-1", "us-east-1", "AWS_REGION=eu-central-1"]);
    assert_eq!(
        said.stdout.lines().filter(|line| line.starts_with("error")).count(),
        1,
        "one cause, one line: {said:?}"
    );
    let said = check(&server, &url(), &[], &[("AWS_REGION", "eu-central-1")]).await;
    assert!(said.status.success(), "{said:?}");
}

#[tokio::test]
async fn what_costs_or_endangers_records_is_said() {
    let expiring = server(BucketSettings { expiring: Some("some".to_owned()), ..BucketSettings::default() }).await;
    fails(&check(&expiring, &url(), &[], &[]).await, "lifecycle", &["'tidy-up'", "deletes live segments", "remove it"]);
    let elsewhere = server(BucketSettings { expiring: Some("logs/".to_owned()), ..BucketSettings::default() }).await;
    assert!(check(&elsewhere, &url(), &[], &[]).await.status.success());
    let refusing = server(BucketSettings { conditions: Conditions::Refused, ..BucketSettings::default() }).await;
    fails(&check(&refusing, &url(), &[], &[]).await, "conditional writes", &["If-None-Match"]);
    let others =
        BucketSettings { conditions: Conditions::Ignored, versioned: true, plain: true, ..BucketSettings::default() };
    let said = check(&server(others).await, &url(), &[], &[]).await;
    assert!(said.status.success(), "nothing is at risk: {said:?}");
    for line in ["warning: conditional writes: ", "warning: versioning: ", "note: encryption: "] {
        assert!(said.stdout.lines().any(|said| said.starts_with(line)), "{line}: {said:?}");
    }
}

#[tokio::test]
async fn a_store_that_refuses_everything_is_no_riddle() {
    let server = server(BucketSettings::default()).await;
    server.set_faults(Faults::DOWN);
    let said = check(&server, &url(), &[], &[]).await;
    fails(&said, "reachable", &["503"]);
}

#[tokio::test]
async fn what_is_no_bucket_needs_no_check_and_what_is_no_url_is_refused() {
    let server = server(BucketSettings::default()).await;
    let said = check(&server, "memory:", &[], &[]).await;
    assert!(said.status.success() && said.stdout.contains("nothing to check"), "{said:?}");
    let json = check(&server, "memory:", &["--json"], &[]).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json.stdout).ok(), Some(serde_json::json!([])));
    for wrong in ["bucket", "s3://", "ftp://x"] {
        let said = check(&server, wrong, &[], &[]).await;
        assert_eq!((said.status.code(), said.stderr.lines().count()), (Some(1), 1), "{said:?}");
        assert!(said.stderr.contains("s3://bucket/prefix"), "{said:?}");
    }
}

/// A broker starts whatever the bucket is like, and says the same line in its log.
#[tokio::test]
async fn a_broker_says_at_its_start_what_is_wrong_with_its_bucket() {
    let home = tempfile::tempdir().expect("a directory");
    let server = server(BucketSettings { expiring: Some(String::new()), ..BucketSettings::default() }).await;
    let mut firn = Firn::dev(FIRN, &home.path().join("data")).arg("--object-store").arg(&url());
    for (name, value) in server.env() {
        firn = firn.env(&name, &value);
    }
    let running = firn.start().await.expect("hot records need no bucket");
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let line = loop {
        let log = running.log();
        if let Some(line) = log.lines().find(|line| line.contains("'tidy-up' deletes live segments")) {
            break line.to_owned();
        }
        assert!(tokio::time::Instant::now() < deadline, "nothing is said: {log}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert!(line.contains("ERROR") || line.contains("error"), "{line}");
    running.terminate(std::time::Duration::from_secs(5)).await.expect("it ends in time");
}
