//! `firn tier`: over the broker's HTTP side.

use super::admin::{http, send, url};
use super::args::{Admin, TierCommand};
use super::client::ClientError;
use super::live::bytes;
use super::out;
use crate::http::TierPartition;
use std::time::Duration;

/// Beyond the timeout a flush was given, for the answer to arrive.
const ANSWER: Duration = Duration::from_secs(10);

/// Carries out one `firn tier` command.
pub(super) async fn run(command: TierCommand) -> Result<(), ClientError> {
    match command {
        TierCommand::Status { topic, json, at } => {
            let text = status(&at, topic.as_deref()).await?;
            if json {
                return out::print(format!("{text}\n"));
            }
            let partitions: Vec<TierPartition> =
                serde_json::from_str(&text).map_err(|error| ClientError::Other(error.to_string()))?;
            out::print(table(&partitions))
        }
        TierCommand::Flush { topic, timeout, at } => {
            flush(&at, &topic, timeout).await?;
            out::print(format!("{topic} is tiered\n"))
        }
    }
}

/// Uploads all of a topic that may be uploaded; an error names what holds it back at the end of `timeout`.
pub(super) async fn flush(at: &Admin, topic: &str, timeout: Duration) -> Result<(), ClientError> {
    let timeout_ms = timeout.as_millis().to_string();
    let query = [("topic", topic), ("timeout_ms", timeout_ms.as_str())];
    let request = http()?.post(url(at, "/v1/tier/flush")).query(&query).timeout(timeout + ANSWER);
    send(at, request).await.map(drop)
}

async fn status(at: &Admin, topic: Option<&str>) -> Result<String, ClientError> {
    let topic: Vec<(&str, &str)> = topic.map(|topic| ("topic", topic)).into_iter().collect();
    send(at, http()?.get(url(at, "/v1/tier")).query(&topic).timeout(ANSWER)).await
}

/// A line per partition. Ranges are inclusive at both ends.
fn table(partitions: &[TierPartition]) -> String {
    use std::fmt::Write;
    let range = |from: i64, to: i64| if from < to { format!("{from}..{}", to - 1) } else { "-".to_owned() };
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{:<28} {:>4} {:>21} {:>21} {:>10} {:>10} {:>8} {:>10} {:>8}",
        "topic", "part", "cold", "hot", "cold size", "hot size", "objects", "lag", "lag age"
    );
    for p in partitions {
        let _ = write!(
            out,
            "{:<28} {:>4} {:>21} {:>21} {:>10} {:>10} {:>8} {:>10} {:>7}s",
            p.topic,
            p.partition,
            range(p.log_start, p.tier_end),
            range(p.local_start, p.high_watermark),
            bytes(p.remote_bytes),
            bytes(p.local_bytes),
            p.objects,
            bytes(p.lag_bytes),
            p.lag_ms / 1_000,
        );
        if let Some(why) = &p.held_back_by {
            let _ = write!(out, "  held back: {why}");
        }
        out.push('\n');
    }
    out
}
