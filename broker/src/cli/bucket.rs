//! `firn bucket check`: what would hurt later is said now, a line each.

use super::client::ClientError;
use super::out;
use proto::host::{Entropy, SystemEntropy};
use serde_json::json;
use tiering::bucket::{BucketAdmin, Finding, Severity};
use tiering::store::{AwsSettings, Location, Timeouts};

/// Checks the bucket of an object-store URL; fails if records could not be kept there.
pub(super) async fn check(url: &str, create: bool, json: bool) -> Result<(), ClientError> {
    let other = |error: &dyn std::fmt::Display| ClientError::Other(error.to_string());
    let location = Location::parse(url).map_err(|error| other(&error))?;
    let Location::S3 { bucket, prefix } = &location else {
        let nothing = format!("{url} is no bucket: there is nothing to check\n");
        return out::print(if json { text(&[], json) } else { nothing });
    };
    // What the broker's own client would not take is found first.
    location.open(std::env::vars(), Timeouts::default()).map_err(|error| other(&error))?;
    let admin = BucketAdmin::connect(bucket, prefix, AwsSettings::from_env(std::env::vars())).await;
    if create {
        admin.create().await.map_err(|error| other(&error))?;
    }
    let findings = admin.check(SystemEntropy.uuid()).await;
    out::print(text(&findings, json))?;
    match findings.iter().filter(|finding| finding.severity == Severity::Broken).count() {
        0 => Ok(()),
        count => {
            Err(ClientError::Other(format!("{count} of {} checks failed: {url} cannot be used yet", findings.len())))
        }
    }
}

fn text(findings: &[Finding], json: bool) -> String {
    if json {
        let rows: Vec<_> = findings
            .iter()
            .map(|finding| {
                json!({"check": finding.check.to_string(), "severity": finding.severity.to_string(), "line": finding.line})
            })
            .collect();
        return format!("{}\n", json!(rows));
    }
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}
