//! `firn bucket check`: what would hurt later is said now, a line each.

use super::client::ClientError;
use proto::host::{Entropy, SystemEntropy};
use serde_json::json;
use tiering::bucket::{BucketAdmin, Finding, Severity};
use tiering::store::{AwsSettings, Location, Timeouts};

/// Checks the bucket of an object-store URL; fails if records could not be kept there.
pub(super) async fn check(url: &str, create: bool, json: bool) -> Result<(), ClientError> {
    let other = |error: &dyn std::fmt::Display| ClientError::Other(error.to_string());
    let location = Location::parse(url).map_err(|error| other(&error))?;
    let Location::S3 { bucket, prefix } = &location else {
        if json {
            print(&[], json);
        } else {
            println!("{url} is no bucket: there is nothing to check");
        }
        return Ok(());
    };
    // What the broker's own client would not take is found first.
    location.open(std::env::vars(), Timeouts::default()).map_err(|error| other(&error))?;
    let admin = BucketAdmin::connect(bucket, prefix, AwsSettings::from_env(std::env::vars())).await;
    if create {
        admin.create().await.map_err(|error| other(&error))?;
    }
    let findings = admin.check(SystemEntropy.uuid()).await;
    print(&findings, json);
    match findings.iter().filter(|finding| finding.severity == Severity::Broken).count() {
        0 => Ok(()),
        count => {
            Err(ClientError::Other(format!("{count} of {} checks failed: {url} cannot be used yet", findings.len())))
        }
    }
}

fn print(findings: &[Finding], json: bool) {
    if json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({"check": finding.check.to_string(), "severity": finding.severity.to_string(), "line": finding.line})
            })
            .collect();
        println!("{}", json!(rows));
        return;
    }
    for finding in findings {
        println!("{finding}");
    }
}
