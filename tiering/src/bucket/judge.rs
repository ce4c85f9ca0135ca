//! What a bucket's settings mean for Firn: pure, one clear line each.

use super::{Check, Finding, Severity};

/// A lifecycle rule, reduced to what matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LifecycleRule {
    /// Its name, may be empty.
    pub id: String,
    /// Whether it is in force.
    pub enabled: bool,
    /// Objects whose key begins with this; empty for all.
    pub prefix: String,
    /// Whether it only matches objects with certain tags. Firn's have none.
    pub tagged_only: bool,
    /// Whether it deletes current objects, after an age or on a date.
    pub expires: bool,
    /// Storage classes that it moves current objects to.
    pub transitions: Vec<String>,
    /// Whether it removes versions that are no longer current.
    pub expires_noncurrent: bool,
    /// Whether it clears up uploads in parts that were never completed.
    pub aborts_multipart: bool,
}

impl LifecycleRule {
    /// Whether it matches any object under `prefix`.
    fn touches(&self, prefix: &str) -> bool {
        let place = folder(prefix);
        self.enabled && !self.tagged_only && (self.prefix.starts_with(&place) || place.starts_with(&self.prefix))
    }

    /// Whether it matches every object under `prefix`.
    fn covers(&self, prefix: &str) -> bool {
        self.enabled && !self.tagged_only && folder(prefix).starts_with(&self.prefix)
    }

    fn name(&self) -> String {
        if self.id.is_empty() { format!("for prefix '{}'", self.prefix) } else { format!("'{}'", self.id) }
    }
}

/// What all names under `prefix` begin with: `firn2/` is not under `firn`.
fn folder(prefix: &str) -> String {
    if prefix.is_empty() { String::new() } else { format!("{}/", prefix.trim_end_matches('/')) }
}

/// Classes from which an object has to be restored before it can be read.
const ARCHIVES: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

/// Rules that would take away or hide live objects under `prefix`, and what is missing.
pub fn lifecycle(rules: &[LifecycleRule], prefix: &str) -> Vec<Finding> {
    let finding = |severity, line| Finding { check: Check::Lifecycle, severity, line };
    let place = if prefix.is_empty() { "the whole bucket".to_owned() } else { format!("'{prefix}'") };
    let mut findings = Vec::new();
    for rule in rules.iter().filter(|rule| rule.touches(prefix)) {
        if rule.expires {
            findings.push(finding(
                Severity::Broken,
                format!(
                    "lifecycle rule {} deletes live segments under {place}: remove it or limit it to another prefix; \
                     retention.ms and retention.bytes decide how long Firn keeps data",
                    rule.name()
                ),
            ));
        }
        for class in &rule.transitions {
            let archive = ARCHIVES.contains(&class.as_str());
            let (severity, line) = if archive {
                (Severity::Broken, "from which nothing can be read without a restore: remove the transition")
            } else {
                (Severity::Warning, "where each read costs extra: good for history that is hardly ever read")
            };
            let line = format!("lifecycle rule {} moves segments under {place} to {class}, {line}", rule.name());
            findings.push(finding(severity, line));
        }
    }
    if !rules.iter().any(|rule| rule.aborts_multipart && rule.covers(prefix)) {
        findings.push(finding(
            Severity::Note,
            "no lifecycle rule clears up incomplete multipart uploads: add AbortIncompleteMultipartUpload \
             (7 days), or what a crash leaves of large uploads is billed for ever"
                .to_owned(),
        ));
    }
    if findings.iter().all(|finding| finding.severity == Severity::Note) {
        findings.insert(0, finding(Severity::Fine, format!("no lifecycle rule touches live segments under {place}")));
    }
    findings
}

/// Whether the bucket keeps old versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versioning {
    /// Deleting an object removes it.
    Off,
    /// Deleting an object hides it.
    On,
}

/// Versioning together with what clears up old versions.
pub fn versioning(versioning: Versioning, rules: &[LifecycleRule], prefix: &str) -> Finding {
    let cleared = rules.iter().any(|rule| rule.expires_noncurrent && rule.covers(prefix));
    let (severity, line) = match (versioning, cleared) {
        (Versioning::Off, _) => (Severity::Fine, "versioning is off: what Firn deletes is gone"),
        (Versioning::On, true) => {
            (Severity::Fine, "versioning is on, and a lifecycle rule clears up versions that are no longer current")
        }
        (Versioning::On, false) => (
            Severity::Warning,
            "versioning is on and nothing clears up old versions: what Firn deletes is still stored and billed; \
             add a lifecycle rule with NoncurrentVersionExpiration",
        ),
    };
    Finding { check: Check::Versioning, severity, line: line.to_owned() }
}

/// How the two probes with `If-None-Match: *` on one key ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Stored.
    Stored,
    /// Refused, because the object exists (412 or 409).
    Exists,
    /// The store does not know the condition (501, or 400).
    NotImplemented,
    /// Something else, in one line.
    Failed(String),
}

/// What two conditional writes say.
pub fn conditional_writes(first: &Probe, second: &Probe) -> Finding {
    let (severity, line) = match (first, second) {
        (Probe::Stored, Probe::Exists) => (Severity::Fine, "conditional writes are honoured".to_owned()),
        (Probe::Stored, Probe::Stored) => (
            Severity::Warning,
            "the store ignores If-None-Match: an existing object can be overwritten. Firn's names are unique, so its \
             own writes are safe; nothing else should write under its prefix"
                .to_owned(),
        ),
        (Probe::NotImplemented, _) | (_, Probe::NotImplemented) => (
            Severity::Broken,
            "the store refuses conditional writes (If-None-Match): use a version of it that has them".to_owned(),
        ),
        (Probe::Failed(error), _) | (_, Probe::Failed(error)) => {
            (Severity::Broken, format!("writing a probe object failed: {error}; the credentials need s3:PutObject"))
        }
        (Probe::Exists, _) => {
            (Severity::Broken, "a probe object of a new name was said to exist: this is not a sane store".to_owned())
        }
    };
    Finding { check: Check::ConditionalWrites, severity, line }
}

/// The bucket's region, if the store names one, against the one that requests are signed for.
pub fn region(bucket: Option<&str>, signed: &str) -> Finding {
    let (severity, line) = match bucket {
        Some(bucket) if bucket != signed => (
            Severity::Broken,
            format!("the bucket is in {bucket}, but requests are signed for {signed}: set AWS_REGION={bucket}"),
        ),
        Some(bucket) => (Severity::Fine, format!("the bucket is in {bucket}")),
        None => (Severity::Fine, format!("the store names no region; {signed} is used")),
    };
    Finding { check: Check::Region, severity, line }
}

/// The bucket's default encryption: the algorithm, None if there is none.
pub fn encryption(algorithm: Option<&str>) -> Finding {
    let (severity, line) = match algorithm {
        Some("aws:kms" | "aws:kms:dsse") => (
            Severity::Fine,
            "objects are encrypted with a KMS key; the credentials need kms:GenerateDataKey and kms:Decrypt".to_owned(),
        ),
        Some(algorithm) => (Severity::Fine, format!("objects are encrypted at rest ({algorithm})")),
        None => (
            Severity::Note,
            "the bucket has no default encryption: turn it on, or encrypt the disks below the store".to_owned(),
        ),
    };
    Finding { check: Check::Encryption, severity, line }
}
