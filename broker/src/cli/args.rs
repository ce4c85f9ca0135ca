//! The command line as a person types it. What the commands do lives beside this file, one module each.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// Firn: a Kafka-compatible broker whose history lives in object storage.
#[derive(Debug, Parser)]
#[command(name = "firn", version, about, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run Firn on this machine, with everything it needs and no configuration.
    Dev(DevArgs),
    /// Run a node from a configuration file.
    Server(ServerArgs),
    /// Create, list, describe, alter and delete topics.
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Produce records: one per line of standard input, or one given by --value.
    Produce(ProduceArgs),
    /// Consume records of a topic.
    Consume(ConsumeArgs),
    /// See and steer what lies in the object store.
    #[command(subcommand)]
    Tier(TierCommand),
    /// Set up a cluster of several nodes, and tend it.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Look into the files of a data directory.
    #[command(subcommand)]
    Log(LogCommand),
    /// Check the object store before records depend on it.
    #[command(subcommand)]
    Bucket(BucketCommand),
    /// Check a configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Measure a running broker: throughput, latency, hot and cold reads.
    Bench(BenchArgs),
    /// Print a completion script for a shell.
    Completions {
        /// The shell to complete for.
        shell: clap_complete::Shell,
    },
}

/// What `dev` and `server` share.
#[derive(Debug, Clone, Args)]
pub struct Overrides {
    /// Set a broker setting under Kafka's name, such as num.partitions=3. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = key_value)]
    pub set: Vec<(String, String)>,
}

#[derive(Debug, Clone, Args)]
pub struct DevArgs {
    /// Where everything is kept.
    #[arg(long, value_name = "DIR", default_value = "./firn-data")]
    pub data: PathBuf,
    /// Where Kafka clients connect.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub kafka: String,
    /// Where metrics and health are served.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    pub http: String,
    /// Where cold records go: file:///DIR, memory: or s3://BUCKET/PREFIX (with the usual AWS_* variables).
    /// The folder `bucket` in the data directory when left out.
    #[arg(long, value_name = "URL")]
    pub object_store: Option<String>,
    /// Run a cluster of N nodes, each a process of its own. Node i, from 0, keeps its data in DIR/node-i and adds 10 i to
    /// every port.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    pub nodes: Option<u16>,
    /// With --nodes: say where the nodes are in one line of JSON once they serve.
    #[arg(long, requires = "nodes")]
    pub json: bool,
    #[command(flatten)]
    pub overrides: Overrides,
}

#[derive(Debug, Clone, Args)]
pub struct ServerArgs {
    /// The configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// End when this process does, which must be the parent.
    #[arg(long, value_name = "PID", hide = true)]
    pub parent: Option<i32>,
    #[command(flatten)]
    pub overrides: Overrides,
}

/// Where a client command finds the broker's Kafka listener.
#[derive(Debug, Clone, Args)]
pub struct Bootstrap {
    /// Brokers to ask first, as host:port separated by commas.
    #[arg(long, env = "FIRN_BOOTSTRAP", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    pub bootstrap: String,
}

/// Where a client command finds the broker's HTTP listener.
#[derive(Debug, Clone, Args)]
pub struct Admin {
    /// The HTTP address of a broker.
    #[arg(long, env = "FIRN_ADMIN", value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    pub admin: String,
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Prepare the data directories of a controller, before its first start. Brokers need no preparation.
    Format {
        /// The configuration file of the node.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// The cluster's id: the same on every node. One is drawn, and printed, when left out.
        #[arg(long, value_name = "ID")]
        cluster_id: Option<String>,
    },
    /// Show controllers, brokers, racks, and partitions that lack replicas or a leader.
    Status {
        /// Wait until so many brokers serve, every partition has a leader and all its replicas in sync, and nothing moves.
        #[arg(long, value_name = "BROKERS")]
        wait: Option<usize>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Admin,
    },
    /// Even out what brokers carry: racks, leaders, replicas, traffic and disk, with as few moves as possible.
    Rebalance {
        /// Show what would move, and why.
        #[arg(long, required_unless_present = "apply")]
        dry_run: bool,
        /// Move it, and wait until it is done. It goes on when this is interrupted.
        #[arg(long, conflicts_with = "dry_run")]
        apply: bool,
        /// Print the plan as JSON, and do not wait.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Admin,
    },
    /// Empty a broker, so that it can be stopped for good. May be interrupted and started again; once the broker is stopped, this takes
    /// it off the list.
    Decommission {
        /// Its node id.
        broker: i32,
        /// Take it back: the broker stays, and gets its share of replicas again.
        #[arg(long)]
        cancel: bool,
        /// Say how far it is, and what holds it, in a line of JSON each time that changes.
        #[arg(long, conflicts_with = "cancel")]
        json: bool,
        #[command(flatten)]
        at: Admin,
    },
    /// Give controllers a vote in the metadata quorum, or take it.
    #[command(subcommand)]
    Voter(VoterCommand),
}

#[derive(Debug, Subcommand)]
pub enum VoterCommand {
    /// Give a controller that runs a vote, as soon as it has caught up.
    Add {
        /// Its node id.
        id: i32,
        /// Where it listens to other nodes.
        #[arg(value_name = "HOST:PORT")]
        address: String,
        /// Its metadata directory, if only that one is meant.
        #[arg(long, value_name = "ID")]
        directory: Option<String>,
        #[command(flatten)]
        at: Admin,
    },
    /// Take the vote of a controller, whether it runs or not.
    Remove {
        /// Its node id.
        id: i32,
        /// Its metadata directory, if only that one is meant.
        #[arg(long, value_name = "ID")]
        directory: Option<String>,
        #[command(flatten)]
        at: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic.
    Create {
        /// Its name.
        name: String,
        /// How many partitions; the broker's num.partitions when left out.
        #[arg(long)]
        partitions: Option<i32>,
        /// Replicas of each partition; the broker's default when left out.
        #[arg(long)]
        replication_factor: Option<i16>,
        /// A topic setting. May be repeated.
        #[arg(long = "config", value_name = "NAME=VALUE", value_parser = key_value)]
        config: Vec<(String, String)>,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// List the topics.
    List {
        /// Internal topics, too.
        #[arg(long)]
        internal: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Show partitions, replicas, offsets and settings of a topic.
    Describe {
        /// Its name.
        name: String,
        /// Its id, too, which its folders and objects are called by.
        #[arg(long, short)]
        verbose: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Change settings or add partitions.
    Alter {
        /// Its name.
        name: String,
        /// A topic setting to set. May be repeated.
        #[arg(long = "config", value_name = "NAME=VALUE", value_parser = key_value)]
        config: Vec<(String, String)>,
        /// A topic setting to take back to its default. May be repeated.
        #[arg(long = "delete-config", value_name = "NAME")]
        delete_config: Vec<String>,
        /// The new, larger number of partitions.
        #[arg(long)]
        partitions: Option<i32>,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Delete a topic with all its records, hot and cold.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        at: Bootstrap,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic.
    pub topic: String,
    /// One record's value; lines of standard input when left out.
    #[arg(long)]
    pub value: Option<String>,
    /// The key of every record.
    #[arg(long, conflicts_with = "key_separator")]
    pub key: Option<String>,
    /// Split each line into key and value at the first occurrence of this.
    #[arg(long, value_name = "TEXT")]
    pub key_separator: Option<String>,
    /// A header of every record. May be repeated.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = key_value)]
    pub headers: Vec<(String, String)>,
    /// The partition; chosen by key, or round robin without one.
    #[arg(long)]
    pub partition: Option<i32>,
    /// Produce null for an empty value, which deletes its key from a compacted topic, and for an empty key.
    #[arg(long, short = 'Z')]
    pub empty_as_null: bool,
    /// The codec of the batches.
    #[arg(long, value_enum, default_value = "none")]
    pub compression: Compression,
    #[command(flatten)]
    pub at: Bootstrap,
}

/// Where consuming starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    Beginning,
    End,
    /// An offset, the same in every partition read.
    Offset(i64),
    /// The first record at or after this time, in Unix milliseconds.
    Timestamp(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConsumeFormat {
    /// The value, a line each.
    Value,
    /// Key, a tab, value.
    KeyValue,
    /// One JSON object per record, with partition, offset, timestamp, key, value and headers. Bytes that are no text are an object with
    /// one entry, base64.
    Json,
}

#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topic.
    pub topic: String,
    /// beginning, end, an offset, or @ and a Unix time in milliseconds.
    #[arg(long, default_value = "beginning", value_parser = parse_from)]
    pub from: From,
    /// Only this partition. May be repeated.
    #[arg(long)]
    pub partition: Vec<i32>,
    /// Only records with this key.
    #[arg(long)]
    pub key: Option<String>,
    /// End after so many records.
    #[arg(long, short = 'n', value_name = "RECORDS")]
    pub count: Option<u64>,
    /// Go on waiting for new records at the end of the topic.
    #[arg(long, short)]
    pub follow: bool,
    /// How a record is printed.
    #[arg(long, value_enum, default_value = "value")]
    pub format: ConsumeFormat,
    /// Print the headers before each record, as NAME:VALUE with commas between, and a tab (JSON has them anyway).
    #[arg(long)]
    pub headers: bool,
    #[command(flatten)]
    pub at: Bootstrap,
}

#[derive(Debug, Subcommand)]
pub enum TierCommand {
    /// Show per partition what is hot, what is cold and what waits.
    Status {
        /// Only this topic.
        topic: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Admin,
    },
    /// Upload all that may be uploaded, and wait until it is tiered.
    Flush {
        /// The topic.
        topic: String,
        /// Give up after so many seconds, naming what holds it back.
        #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
        timeout: Duration,
        #[command(flatten)]
        at: Admin,
    },
}

#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Print and verify a segment or journal file.
    Dump {
        /// The file.
        file: PathBuf,
        /// The records inside the batches, too.
        #[arg(long)]
        records: bool,
        /// Print JSON, a line per entry.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum BucketCommand {
    /// Verify that the bucket can carry a cluster's records.
    Check {
        /// The object store, as in `firn dev --object-store`.
        #[arg(value_name = "URL")]
        url: String,
        /// Create the bucket if it is not there.
        #[arg(long)]
        create: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read a configuration file as `firn server` would, and explain what it sets.
    Check {
        /// The file (TOML).
        file: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// MiB produced and read back in each throughput run.
    #[arg(long, default_value = "512", value_parser = clap::value_parser!(u64).range(4..))]
    pub mib: u64,
    /// Bytes of a record's value.
    #[arg(long, default_value = "1024")]
    pub record_bytes: usize,
    /// Partitions of the second throughput run; the first has one.
    #[arg(long, default_value = "8")]
    pub partitions: i32,
    /// Bytes of a batch, as a producer's batch.size.
    #[arg(long, default_value = "1000000")]
    pub batch_bytes: usize,
    /// Requests under way at a time at full speed.
    #[arg(long, default_value = "5")]
    pub in_flight: usize,
    /// A setting of the topics that are made. May be repeated.
    #[arg(long = "config", value_name = "NAME=VALUE", value_parser = key_value)]
    pub config: Vec<(String, String)>,
    /// MiB per second of the latency run.
    #[arg(long, default_value = "10")]
    pub rate_mib: u64,
    /// Seconds of the latency run.
    #[arg(long, default_value = "10")]
    pub seconds: u64,
    /// The broker's process id: its CPU time and memory are read there instead of from its /metrics.
    #[arg(long)]
    pub pid: Option<i32>,
    /// Leave out the cold reads.
    #[arg(long)]
    pub skip_cold: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub at: Bootstrap,
    #[command(flatten)]
    pub admin: Admin,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not of the form NAME=VALUE")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse().map(Duration::from_secs).map_err(|_| format!("`{text}` is not a number of seconds"))
}

fn parse_from(text: &str) -> Result<From, String> {
    let wrong = || format!("`{text}` is not beginning, end, an offset, or @ and a Unix time in milliseconds");
    match text {
        "beginning" => Ok(From::Beginning),
        "end" => Ok(From::End),
        _ => match text.strip_prefix('@') {
            Some(time) => time.parse().map(From::Timestamp).map_err(|_| wrong()),
            None => text.parse().ok().filter(|offset| *offset >= 0).map(From::Offset).ok_or_else(wrong),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn starts_of_consuming_are_read() {
        assert_eq!(parse_from("beginning"), Ok(From::Beginning));
        assert_eq!(parse_from("42"), Ok(From::Offset(42)));
        assert_eq!(parse_from("@1700000000000"), Ok(From::Timestamp(1_700_000_000_000)));
        assert!(parse_from("-3").is_err());
    }
}
