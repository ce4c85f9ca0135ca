//! `docs/configuration.md` is written from the table; this test fails when it is not what the table says.
//! `FIRN_TEST_UPDATE=1 cargo test -p broker --test config_reference` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use broker::config::definition::{Check, Definition, Effect, Preset, Update};
use broker::config::{synonyms, tables};

const INTRODUCTION: &str = "\
# Configuration

Firn is configured under Kafka's names, with Kafka's meaning. What has no counterpart in Kafka begins with `firn.`.
Everything has a default that is right for one machine; `firn dev` needs no file at all.

## Where settings come from

Later ones win: what the command itself chooses (`firn dev --kafka …`), the file of `firn server --config FILE`, the
environment, `--set NAME=VALUE`. What is altered while the broker runs (`kafka-configs`, any admin client) wins over all of
them, and a topic's own settings over the broker's defaults for topics.

- **File.** TOML. `log.retention.ms = 1000`, `[log.retention]` with `ms = 1000` under it, and `\"log.retention.ms\" = 1000`
  are the same. A name that is the start of another one (`max.connections` and `max.connections.per.ip`) has to be quoted
  when both are set. Lists are arrays, or texts with commas.
- **Environment.** The name in capitals, `_` for `.`, behind `FIRN_`: `FIRN_LOG_RETENTION_MS` sets `log.retention.ms`.
  Firn's own names do not repeat the prefix: `FIRN_OBJECT_STORE` sets `firn.object.store`.

A name that does not exist is an error, wherever it stands. `firn config check FILE` says what a file sets and what comes of it.

## What becomes of a setting

Every config of Kafka 4.3 is known. Firn acts on it, or takes it without effect and says why (here, and in the
documentation that admin clients show), or refuses any value but the default. None is ignored in silence.
";

#[test]
fn the_reference_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let expected = reference();
    if std::env::var_os("FIRN_TEST_UPDATE").is_some() {
        std::fs::write(&path, &expected).expect("docs can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(found == expected, "run this test with FIRN_TEST_UPDATE=1; the first difference is {differs:?}");
}

fn reference() -> String {
    let mut out = INTRODUCTION.to_owned();
    let topic: Vec<_> = tables::all_topic().filter(|row| !row.internal).collect();
    let broker: Vec<_> = tables::all_broker().filter(|row| !row.internal).collect();
    section(
        &mut out,
        "Topic settings",
        "All can be altered at any time.",
        &topic,
        |row| row.effect == Effect::Acted,
        true,
    );
    let own = |row: &Definition| row.name.starts_with("firn.") && row.effect == Effect::Acted;
    section(&mut out, "Broker settings of Firn", DYNAMIC, &broker, own, false);
    let kafkas = |row: &Definition| !row.name.starts_with("firn.") && row.effect == Effect::Acted;
    section(&mut out, "Broker settings of Kafka", DYNAMIC, &broker, kafkas, false);
    out.push_str("\n## Without effect\n\n| setting | why |\n|---|---|\n");
    let mut all: Vec<_> = topic.iter().chain(&broker).collect();
    all.sort_by_key(|row| row.name);
    all.dedup_by_key(|row| row.name);
    for row in &all {
        if let Effect::WithoutEffect(why) = row.effect {
            writeln!(out, "| `{}` | {why} |", row.name).expect("a text takes it");
        }
    }
    out.push_str("\n## Refused unless default\n\n| setting | why |\n|---|---|\n");
    for row in &all {
        if let Effect::Refused(why) = row.effect {
            writeln!(out, "| `{}` | {why} |", row.name).expect("a text takes it");
        }
    }
    out
}

const DYNAMIC: &str = "Those marked ◦ can be altered while the broker runs.";

fn section(
    out: &mut String,
    title: &str,
    note: &str,
    rows: &[&'static Definition],
    wanted: impl Fn(&Definition) -> bool,
    topic: bool,
) {
    let head = if topic {
        "| setting | type | default | broker's default | |\n|---|---|---|---|---|"
    } else {
        "| setting | type | default | |\n|---|---|---|---|"
    };
    writeln!(out, "\n## {title}\n\n{note}\n\n{head}").expect("a text takes it");
    for row in rows.iter().filter(|row| wanted(row)) {
        let default = match row.default {
            Preset::Value("") => "empty".to_owned(),
            Preset::Value("9223372036854775807" | "1.7976931348623157E308") => "unlimited".to_owned(),
            Preset::Value(value) => format!("`{value}`"),
            Preset::Null | Preset::Required => "unset".to_owned(),
        };
        let mark = if !topic && row.alterable() != Update::ReadOnly { " ◦" } else { "" };
        write!(out, "| `{}`{mark} | {} | {default} |", row.name, kind(row)).expect("a text takes it");
        if topic {
            let chain: Vec<String> = synonyms::of_topic(row.name).iter().map(|one| format!("`{}`", one.name)).collect();
            write!(out, " {} |", chain.join(", ")).expect("a text takes it");
        }
        writeln!(out, " {} |", row.doc.replace('|', "\\|")).expect("a text takes it");
    }
}

/// Type and bounds.
fn kind(row: &Definition) -> String {
    let name = row.kind.to_string().to_ascii_lowercase();
    match row.check {
        Check::AtLeast(from) => format!("{name} ≥ {from}"),
        Check::Between(from, to) => format!("{name} {from} … {to}"),
        Check::BetweenOr(from, to, or) => format!("{name} {from} … {to}, or {or}"),
        Check::Within(from, to) => format!("{name} {from} … {to}"),
        Check::OneOf(items) | Check::OneOfAnyCase(items) => items.join(", "),
        Check::EachOf(items) | Check::SomeOf(items) => format!("list of {}", items.join(", ")),
        Check::Any | Check::NotEmpty | Check::Throttled | Check::PerIp => name,
    }
}
