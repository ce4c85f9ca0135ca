//! `firn cluster`: how a cluster is, and what changes it, over the HTTP side of a broker.

use super::admin::{http, send, url};
use super::args::{Admin, ClusterCommand, VoterCommand};
use super::client::ClientError;
use super::live::bytes;
use super::out::{self, counted};
use crate::http::{BrokerRow, ClusterStatus, HoldRow, MovePlan};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// How long an answer may take. A change of voters takes as long as the new one needs to catch up.
const ANSWER: Duration = Duration::from_secs(40);
/// Between two looks at how far something is.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Looks at which the broker that is asked may be gone before one gives up: it may restart meanwhile.
const PATIENCE: u32 = 60;
/// Moves that are printed one by one.
const SHOWN: usize = 50;

/// Carries out one `firn cluster` command.
pub(super) async fn run(command: ClusterCommand) -> Result<(), ClientError> {
    match command {
        ClusterCommand::Format { .. } => Err(ClientError::Other("it is carried out without a broker".to_owned())),
        ClusterCommand::Status { wait, json, at } => {
            if let Some(brokers) = wait {
                follow(&at, |status| lacks(status, brokers)).await?;
            }
            let text = get(&at, "/v1/cluster").await?;
            if json { out::print(format!("{text}\n")) } else { out::print(status_text(&read(&text)?)) }
        }
        ClusterCommand::Rebalance { apply, json, at, .. } => rebalance(&at, apply, json).await,
        ClusterCommand::Decommission { broker, cancel: true, at, .. } => take_back(&at, broker).await,
        ClusterCommand::Decommission { broker, json, at, .. } => decommission(&at, broker, json).await,
        ClusterCommand::Voter(VoterCommand::Add { id, address, directory, at }) => {
            let (id, mut query) = (id.to_string(), vec![("address", address.as_str())]);
            query.push(("id", &id));
            query.extend(directory.as_deref().map(|directory| ("directory", directory)));
            post(&at, "/v1/cluster/voter/add", &query).await?;
            out::print(format!("controller {id} votes\n"))
        }
        ClusterCommand::Voter(VoterCommand::Remove { id, directory, at }) => {
            let id = id.to_string();
            let mut query = vec![("id", id.as_str())];
            query.extend(directory.as_deref().map(|directory| ("directory", directory)));
            post(&at, "/v1/cluster/voter/remove", &query).await?;
            out::print(format!("controller {id} does not vote any more\n"))
        }
    }
}

async fn get(at: &Admin, path: &str) -> Result<String, ClientError> {
    send(at, http()?.get(url(at, path)).timeout(ANSWER)).await
}

async fn post(at: &Admin, path: &str, query: &[(&str, &str)]) -> Result<String, ClientError> {
    send(at, http()?.post(url(at, path)).query(query).timeout(ANSWER)).await
}

fn read<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, ClientError> {
    serde_json::from_str(text).map_err(|error| ClientError::Other(error.to_string()))
}

async fn status(at: &Admin) -> Result<ClusterStatus, ClientError> {
    read(&get(at, "/v1/cluster").await?)
}

async fn rebalance(at: &Admin, apply: bool, json: bool) -> Result<(), ClientError> {
    let path = "/v1/cluster/rebalance";
    let text = if apply { post(at, path, &[]).await? } else { get(at, path).await? };
    if json {
        return out::print(format!("{text}\n"));
    }
    let plan: MovePlan = read(&text)?;
    out::print(plan_text(&plan))?;
    if !apply || (plan.moves.is_empty() && plan.leaders.is_empty()) {
        return Ok(());
    }
    follow(at, |status| (status.moving > 0).then(|| format!("{} partition(s) on the move", status.moving))).await?;
    out::print("done\n")
}

/// Prints what `left` says whenever that changes, until it says nothing more. The broker that is asked may be away for a while.
async fn follow(at: &Admin, left: impl Fn(&ClusterStatus) -> Option<String>) -> Result<ClusterStatus, ClientError> {
    let mut said = None;
    let mut failures = 0;
    loop {
        match status(at).await {
            Ok(status) => {
                failures = 0;
                let Some(now) = left(&status) else { return Ok(status) };
                if said.as_ref() != Some(&now) {
                    out::print(format!("{now}\n"))?;
                    said = Some(now);
                }
            }
            Err(error) => {
                failures += 1;
                if failures == PATIENCE {
                    return Err(error);
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// What a cluster of so many brokers lacks to be whole.
fn lacks(status: &ClusterStatus, brokers: usize) -> Option<String> {
    let serving = status.brokers.iter().filter(|row| row.state == "serving").count();
    if serving < brokers {
        return Some(format!("{serving} of {brokers} brokers serve"));
    }
    let ClusterStatus { under_replicated, offline, moving, .. } = status;
    (under_replicated + offline + moving > 0)
        .then(|| format!("{under_replicated} partition(s) under-replicated, {offline} offline, {moving} on the move"))
}

/// A broker, of which the cluster knows.
fn known(status: &ClusterStatus, broker: i32) -> Result<&BrokerRow, ClientError> {
    let row = find(status, broker);
    row.ok_or_else(|| ClientError::Other(format!("there is no broker {broker}; firn cluster status lists them")))
}

async fn take_back(at: &Admin, broker: i32) -> Result<(), ClientError> {
    known(&status(at).await?, broker)?;
    post(at, "/v1/cluster/drain", &[("broker", &broker.to_string()), ("cancel", "true")]).await?;
    out::print(format!("broker {broker} stays, and gets its share again\n"))
}

async fn decommission(at: &Admin, broker: i32, json: bool) -> Result<(), ClientError> {
    let before = status(at).await?;
    let row = known(&before, broker)?;
    let id = broker.to_string();
    if row.share != "leaving" {
        post(at, "/v1/cluster/drain", &[("broker", &id)]).await?;
    }
    let all = row.replicas;
    let left = |status: &ClusterStatus| {
        let row = find(status, broker).filter(|row| row.replicas > 0)?;
        Some(if json { progress_json(row, all, status) } else { progress(row, all, status) })
    };
    let after = follow(at, left).await?;
    let votes = after.controllers.iter().any(|controller| controller.id == broker && controller.role != "observer");
    let vote = if votes && !json {
        format!("It still votes in the metadata quorum: firn cluster voter remove {broker} takes its vote.\n")
    } else {
        String::new()
    };
    if find(&after, broker).is_some_and(|row| row.state == "down") {
        post(at, "/v1/cluster/forget", &[("broker", &id)]).await?;
        if json {
            return out::print(format!("{}\n", json!({"broker": broker, "state": "forgotten", "votes": votes})));
        }
        return out::print(format!("broker {broker} is out of the cluster\n{vote}"));
    }
    if json {
        return out::print(format!("{}\n", json!({"broker": broker, "state": "empty", "votes": votes})));
    }
    out::print(format!("broker {broker} is empty: stop it, then run this again to take it off the list\n{vote}"))
}

fn find(status: &ClusterStatus, broker: i32) -> Option<&BrokerRow> {
    status.brokers.iter().find(|row| row.id == broker)
}

/// How far the emptying of a broker is, that had `all` replicas.
fn progress(row: &BrokerRow, all: u64, status: &ClusterStatus) -> String {
    let gone = all.saturating_sub(row.replicas);
    let mut text = format!("broker {}: {gone} of {all} replica(s) gone, {} on the move", row.id, status.moving);
    for hold in held(status, row.id) {
        let _ = write!(text, "\n{}", hold_text(hold));
    }
    if !status.stalled.is_empty() {
        let _ = write!(
            text,
            "; {}: that is given up after a minute where it is in the way, and at once if you cancel it \
             (kafka-reassign-partitions.sh --cancel) or start the broker again",
            stalled(status)
        );
    }
    text
}

/// Why some replicas are still on a broker, and what helps, each in a line of its own.
fn hold_text(hold: &HoldRow) -> String {
    let (what, count) = (if hold.stuck { "stuck" } else { "still here" }, hold.partitions);
    // While all goes well they are others each time.
    let names = if hold.stuck { hold.names.join(", ") } else { String::new() };
    let named = match hold.names.len() as u64 {
        _ if names.is_empty() => String::new(),
        listed if listed < count => format!(" ({names}, ...)"),
        _ => format!(" ({names})"),
    };
    let hint = if hold.hint.is_empty() { String::new() } else { format!("\n    {}", hold.hint) };
    format!("  {what}: {count}{named}: {}{hint}", hold.why)
}

/// The same for programs.
fn progress_json(row: &BrokerRow, all: u64, status: &ClusterStatus) -> String {
    let holds: Vec<&HoldRow> = held(status, row.id).collect();
    let progress = json!({
        "broker": row.id, "state": "leaving", "replicas": row.replicas, "gone": all.saturating_sub(row.replicas),
        "moving": status.moving, "holds": holds,
    });
    progress.to_string()
}

fn held(status: &ClusterStatus, broker: i32) -> impl Iterator<Item = &HoldRow> {
    status.holds.iter().filter(move |hold| hold.broker == broker)
}

/// Names what is on its way to brokers that are down.
fn stalled(status: &ClusterStatus) -> String {
    let names: Vec<String> =
        status.stalled.iter().map(|(name, id)| format!("{name} waits for broker {id}, which is down")).collect();
    names.join(", ")
}

fn status_text(status: &ClusterStatus) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "cluster {}", status.cluster_id);
    let _ = writeln!(out, "\n{:>10} {:<9} {:<24} {:>7}", "controller", "role", "address", "behind");
    for row in &status.controllers {
        let address = if row.address.is_empty() { "-" } else { &row.address };
        let behind = row.behind.map_or("-".to_owned(), |behind| behind.to_string());
        let _ = writeln!(out, "{:>10} {:<9} {address:<24} {behind:>7}", row.id, row.role);
    }
    let _ = writeln!(
        out,
        "\n{:>10} {:<9} {:<8} {:<10} {:<24} {:>7} {:>8} {:>11} {:>20} {:>11} {:>11}",
        "broker", "state", "share", "rack", "address", "leaders", "replicas", "out of sync", "disk", "in/s", "out/s"
    );
    for row in &status.brokers {
        let disk = match (row.disk_used, row.disk_total) {
            (Some(used), Some(total)) => format!("{} of {}", bytes(used), bytes(total)),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            out,
            "{:>10} {:<9} {:<8} {:<10} {:<24} {:>7} {:>8} {:>11} {disk:>20} {:>11} {:>11}",
            row.id,
            row.state,
            row.share,
            row.rack.as_deref().unwrap_or("-"),
            row.address,
            row.leaders,
            row.replicas,
            row.out_of_sync,
            bytes(row.bytes_in),
            bytes(row.bytes_out),
        );
    }
    let _ = writeln!(
        out,
        "\n{} topic(s), {} partition(s): {} under-replicated, {} offline, {} on the move",
        status.topics, status.partitions, status.under_replicated, status.offline, status.moving
    );
    if !status.offline_names.is_empty() {
        let _ = writeln!(out, "offline: {}", status.offline_names.join(", "));
    }
    for row in status.brokers.iter().filter(|row| row.share == "leaving" && row.replicas > 0) {
        let _ = writeln!(out, "\nbroker {} is being emptied, {} left", row.id, counted(row.replicas, "replica"));
        for hold in held(status, row.id) {
            let _ = writeln!(out, "{}", hold_text(hold));
        }
    }
    if !status.stalled.is_empty() {
        let _ = writeln!(out, "on the move: {}", stalled(status));
    }
    out
}

fn plan_text(plan: &MovePlan) -> String {
    let mut out = String::new();
    if plan.moves.is_empty() && plan.leaders.is_empty() {
        out.push_str("nothing to move\n");
    }
    for step in plan.moves.iter().take(SHOWN) {
        let _ = writeln!(
            out,
            "move {}-{} from {} to {} ({}): {}",
            step.topic,
            step.partition,
            step.from,
            step.to,
            bytes(step.bytes),
            step.why
        );
    }
    if plan.moves.len() > SHOWN {
        let _ = writeln!(out, "and {} more", plan.moves.len() - SHOWN);
    }
    let mut handed: BTreeMap<(i32, i32), usize> = BTreeMap::new();
    for row in &plan.leaders {
        *handed.entry((row.from, row.to)).or_default() += 1;
    }
    for ((from, to), count) in handed {
        let _ = writeln!(out, "{count} partition(s) led by {to} instead of {from}");
    }
    for (name, broker) in &plan.stuck {
        let _ = writeln!(out, "{name} has to leave broker {broker}, and no other can take it");
    }
    if !plan.crowded.is_empty() {
        let _ = writeln!(out, "{} partition(s) keep two replicas in one rack", plan.crowded.len());
    }
    let _ = writeln!(out, "\n{:>6} {:>15} {:>15} {:>23} {:>23}", "broker", "leaders", "replicas", "in/s", "disk");
    for row in &plan.brokers {
        let counts = |(before, after): (u64, u64)| format!("{before} -> {after}");
        let sizes = |(before, after): (u64, u64)| format!("{} -> {}", bytes(before), bytes(after));
        let (leaders, replicas) = (counts(row.leaders), counts(row.replicas));
        let (traffic, disk) = (sizes(row.bytes_in), sizes(row.disk));
        let _ = writeln!(out, "{:>6} {leaders:>15} {replicas:>15} {traffic:>23} {disk:>23}", row.id);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{CarriedRow, LeaderRow, MoveRow};

    #[test]
    fn a_plan_says_what_moves_and_why() {
        let row = |topic: &str, why: &str| MoveRow {
            topic: topic.to_owned(),
            partition: 1,
            from: 0,
            to: 2,
            bytes: 2048,
            why: why.to_owned(),
        };
        let plan = MovePlan {
            moves: vec![row("a", "broker 0 has too many replicas")],
            leaders: vec![LeaderRow { topic: "b".to_owned(), partition: 0, from: 0, to: 1 }; 3],
            brokers: vec![CarriedRow {
                id: 0,
                leaders: (4, 1),
                replicas: (6, 5),
                bytes_in: (0, 0),
                disk: (4096, 2048),
            }],
            stuck: vec![("c-0".to_owned(), 1)],
            crowded: vec![],
        };
        let text = plan_text(&plan);
        assert!(text.starts_with("move a-1 from 0 to 2 (2048 B): broker 0 has too many replicas\n"), "{text}");
        assert!(text.contains("3 partition(s) led by 1 instead of 0\n"), "{text}");
        assert!(text.contains("c-0 has to leave broker 1, and no other can take it\n"), "{text}");
        assert!(text.contains("4 -> 1"), "{text}");
        assert!(plan_text(&MovePlan::default()).starts_with("nothing to move\n"));
    }

    #[test]
    fn progress_tells_what_holds_it_up() {
        let row = BrokerRow { id: 2, replicas: 3, ..BrokerRow::default() };
        let mut status = ClusterStatus { moving: 1, ..ClusterStatus::default() };
        assert_eq!(progress(&row, 10, &status), "broker 2: 7 of 10 replica(s) gone, 1 on the move");
        let hold = |broker: i32, stuck: bool, why: &str, hint: &str| HoldRow {
            broker,
            stuck,
            partitions: 2,
            names: vec!["a-0".to_owned()],
            why: why.to_owned(),
            hint: hint.to_owned(),
        };
        status.holds = vec![
            hold(2, true, "the disks are full", "make room"),
            hold(2, false, "they are copied", ""),
            hold(3, true, "something else", ""),
        ];
        let text = "\n  stuck: 2 (a-0, ...): the disks are full\n    make room\n  still here: 2: they are copied";
        assert_eq!(progress(&row, 10, &status), format!("broker 2: 7 of 10 replica(s) gone, 1 on the move{text}"));
        let told: serde_json::Value = serde_json::from_str(&progress_json(&row, 10, &status)).expect("JSON");
        assert_eq!((&told["gone"], &told["holds"][0]["hint"]), (&7.into(), &"make room".into()), "{told}");
        assert_eq!(told["holds"].as_array().map(Vec::len), Some(2));
        status.holds.clear();
        status.stalled.push(("t-0".to_owned(), 4));
        assert!(progress(&row, 10, &status).contains("; t-0 waits for broker 4, which is down: "));
    }
}
