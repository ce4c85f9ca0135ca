use std::sync::Arc;

use aws_sdk_s3::config::{BehaviorVersion, Credentials, SharedCredentialsProvider};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::judge::*;
use super::*;
use crate::store::AwsSettings;

fn rule(prefix: &str) -> LifecycleRule {
    LifecycleRule { id: "r".into(), enabled: true, prefix: prefix.into(), ..LifecycleRule::default() }
}

fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap()
}

#[test]
fn rules_that_eat_live_segments_are_found_by_their_prefix() {
    let expiring = |prefix: &str| LifecycleRule { expires: true, ..rule(prefix) };
    for (prefix, severity) in [
        ("", Severity::Broken),
        ("kafka", Severity::Broken),
        ("kafka/firn/cluster", Severity::Broken),
        ("other", Severity::Note),
        // A neighbour.
        ("kafka/firn2/", Severity::Note),
        ("kafka/firn", Severity::Broken),
    ] {
        assert_eq!(worst(&lifecycle(&[expiring(prefix)], "kafka/firn")), severity, "{prefix}");
    }
    let disabled = LifecycleRule { enabled: false, ..expiring("") };
    let tagged = LifecycleRule { tagged_only: true, ..expiring("") };
    assert_eq!(worst(&lifecycle(&[disabled, tagged], "kafka")), Severity::Note);
    let line = &lifecycle(&[expiring("kafka")], "kafka")[0].line;
    assert!(line.contains("'r'") && line.contains("remove it"), "{line}");
}

#[test]
fn archives_are_broken_and_cheaper_classes_a_warning() {
    let moving = |class: &str| LifecycleRule { transitions: vec![class.into()], ..rule("") };
    assert_eq!(worst(&lifecycle(&[moving("DEEP_ARCHIVE")], "p")), Severity::Broken);
    assert_eq!(worst(&lifecycle(&[moving("STANDARD_IA")], "p")), Severity::Warning);
    let clean = LifecycleRule { aborts_multipart: true, ..rule("") };
    assert_eq!(worst(&lifecycle(&[clean], "p")), Severity::Fine);
}

#[test]
fn versioning_needs_something_that_clears_up() {
    let clearing = LifecycleRule { expires_noncurrent: true, ..rule("") };
    assert_eq!(versioning(Versioning::Off, &[], "p").severity, Severity::Fine);
    assert_eq!(versioning(Versioning::On, &[], "p").severity, Severity::Warning);
    assert_eq!(versioning(Versioning::On, &[clearing], "p").severity, Severity::Fine);
}

#[test]
fn two_writes_tell_whether_conditions_are_honoured() {
    let severity = |first, second| conditional_writes(&first, &second).severity;
    assert_eq!(severity(Probe::Stored, Probe::Exists), Severity::Fine);
    assert_eq!(severity(Probe::Stored, Probe::Stored), Severity::Warning);
    assert_eq!(severity(Probe::NotImplemented, Probe::NotImplemented), Severity::Broken);
    assert_eq!(severity(Probe::Failed("x".into()), Probe::Failed("x".into())), Severity::Broken);
}

#[test]
fn a_wrong_region_says_which_one_to_set() {
    let finding = region(Some("eu-central-1"), "us-east-1");
    assert!(finding.severity == Severity::Broken && finding.line.contains("AWS_REGION=eu-central-1"));
    assert_eq!(region(Some("eu-central-1"), "eu-central-1").severity, Severity::Fine);
    assert_eq!(region(None, "us-east-1").severity, Severity::Fine);
}

/// What a small S3 over HTTP answers: by "METHOD path?query", the status and the body; 404 otherwise.
type Answers = &'static [(&'static str, u16, &'static str)];

struct Server {
    admin: BucketAdmin,
    seen: Arc<Mutex<Vec<String>>>,
}

async fn serve(answers: Answers, honours_conditions: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, answers, honours_conditions, Arc::clone(&log)));
        }
    });
    let config = aws_sdk_s3::config::Builder::new().behavior_version(BehaviorVersion::latest());
    let aws = AwsSettings { endpoint: Some(endpoint), region: "eu-west-1".to_owned() };
    let credentials = SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test"));
    Server { admin: BucketAdmin::with_config(config, aws, Some(credentials), "b", "/pre/"), seen }
}

async fn connection(mut stream: TcpStream, answers: Answers, honours: bool, log: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        while buffer.len() < head + length {
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let original = String::from_utf8_lossy(&buffer[..head]).into_owned();
        buffer.drain(..head + length);
        let mut words = original.split_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let target = target.split("x-id=").next().unwrap_or("").trim_end_matches(['?', '&']);
        let target = &target.replacen("/b/?", "/b?", 1);
        let target = if target == "/b/" { "/b" } else { target };
        let object = target.contains("firn-probe");
        let (status, body) = if object && method == "PUT" {
            let again = log.lock().iter().any(|seen| seen.starts_with("PUT"));
            let refused = again && honours && text.contains("if-none-match: *");
            (if refused { 412 } else { 200 }, "")
        } else if object {
            (204, "")
        } else {
            let known = answers.iter().find(|(request, _, _)| *request == format!("{method} {target}"));
            known.map_or((404, ""), |(_, status, body)| (*status, *body))
        };
        log.lock().push(format!("{method} {target}"));
        let region = if method == "HEAD" { "x-amz-bucket-region: eu-west-1\r\n" } else { "" };
        let answer = format!("HTTP/1.1 {status} X\r\n{region}content-length: {}\r\n\r\n", body.len());
        let body = if method == "HEAD" { "" } else { body };
        if stream.write_all(format!("{answer}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

fn severities(findings: &[Finding]) -> Vec<(Check, Severity)> {
    findings.iter().map(|finding| (finding.check, finding.severity)).collect()
}

#[tokio::test]
async fn a_good_bucket_over_the_wire() {
    const ANSWERS: Answers = &[
        ("HEAD /b", 200, ""),
        ("GET /b?versioning", 200, "<VersioningConfiguration/>"),
        (
            "GET /b?lifecycle",
            200,
            "<LifecycleConfiguration><Rule><ID>clean</ID><Filter><Prefix></Prefix></Filter><Status>Enabled</Status>\
             <AbortIncompleteMultipartUpload><DaysAfterInitiation>7</DaysAfterInitiation>\
             </AbortIncompleteMultipartUpload></Rule></LifecycleConfiguration>",
        ),
        (
            "GET /b?encryption",
            200,
            "<ServerSideEncryptionConfiguration><Rule><ApplyServerSideEncryptionByDefault>\
             <SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault></Rule>\
             </ServerSideEncryptionConfiguration>",
        ),
    ];
    let server = serve(ANSWERS, true).await;
    let findings = server.admin.check(Uuid::from_u128(7)).await;
    assert_eq!(worst(&findings), Severity::Fine, "{findings:#?}");
    assert_eq!(
        severities(&findings).into_iter().map(|(check, _)| check).collect::<Vec<_>>(),
        vec![
            Check::Reachable,
            Check::Region,
            Check::ConditionalWrites,
            Check::Versioning,
            Check::Lifecycle,
            Check::Encryption
        ]
    );
    let probe = "/b/pre/firn-probe-00000000-0000-0000-0000-000000000007";
    let seen = server.seen.lock().clone();
    assert!(seen.contains(&format!("DELETE {probe}")), "the probe is cleared away: {seen:?}");
}

#[tokio::test]
async fn a_bad_bucket_over_the_wire() {
    const ANSWERS: Answers = &[
        ("HEAD /b", 200, ""),
        ("GET /b?versioning", 200, "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"),
        (
            "GET /b?lifecycle",
            200,
            "<LifecycleConfiguration><Rule><ID>old</ID><Filter><Prefix>pre/</Prefix></Filter>\
             <Status>Enabled</Status><Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>",
        ),
        ("GET /b?encryption", 501, "<Error><Code>NotImplemented</Code></Error>"),
    ];
    let server = serve(ANSWERS, false).await;
    let findings = server.admin.check(Uuid::from_u128(7)).await;
    let found = severities(&findings);
    assert!(found.contains(&(Check::ConditionalWrites, Severity::Warning)), "{findings:#?}");
    assert!(found.contains(&(Check::Versioning, Severity::Warning)), "{findings:#?}");
    assert!(found.contains(&(Check::Lifecycle, Severity::Broken)), "{findings:#?}");
    assert!(found.contains(&(Check::Encryption, Severity::Fine)), "{findings:#?}");
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_can_be_created() {
    let server = serve(&[("PUT /b", 200, "")], true).await;
    let findings = server.admin.check(Uuid::from_u128(7)).await;
    assert_eq!(severities(&findings), vec![(Check::Reachable, Severity::Broken)]);
    assert!(findings[0].line.contains("does not exist") && findings[0].line.contains("--create"), "{}", findings[0]);
    server.admin.create().await.unwrap();
    assert!(server.seen.lock().contains(&"PUT /b".to_owned()));
}

#[tokio::test]
async fn refusals_say_what_is_missing() {
    let server = serve(&[("HEAD /b", 403, "")], true).await;
    let findings = server.admin.check(Uuid::from_u128(7)).await;
    assert!(findings[0].line.contains("AWS_ACCESS_KEY_ID"), "{}", findings[0]);
    let denied = serve(&[("PUT /b", 403, "<Error><Code>AccessDenied</Code></Error>")], true).await;
    let error = denied.admin.create().await.unwrap_err().to_string();
    assert!(error.contains("s3:CreateBucket"), "{error}");
}
