//! From TOML, environment and flags to one flat map of names, values and origins.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::super::error::{ConfigError, Fault, Origin, Scope};
use super::super::near::nearest;
use super::super::tables;
use super::Sources;

/// Values and where they were set, by name.
pub(super) type Set = BTreeMap<String, (String, Origin)>;

/// Lays the sources over each other, and says what could not be read of them.
pub(super) fn merge(sources: &Sources) -> (Set, Vec<ConfigError>) {
    let mut set = Set::new();
    let mut errors = Vec::new();
    for (name, value) in &sources.presets {
        set.insert(name.clone(), (value.clone(), Origin::Preset));
    }
    if let Some(text) = &sources.file {
        match text.parse::<Table>() {
            Ok(table) => flatten("", &table, &mut set, &mut errors),
            Err(error) => errors.push(at(Origin::File, Fault::Syntax { why: syntax(&error) })),
        }
    }
    read_environment(&sources.environment, &mut set, &mut errors);
    for (name, value) in &sources.flags {
        set.insert(name.trim().to_owned(), (value.clone(), Origin::Flag));
    }
    (set, errors)
}

fn at(origin: Origin, fault: Fault) -> ConfigError {
    ConfigError { scope: Scope::Server(origin), fault }
}

/// What the parser says, with the way out of its most likely complaint here.
fn syntax(error: &toml::de::Error) -> String {
    let said = error.to_string();
    let said = said.trim_end();
    if said.contains("extend value") || said.contains("cannot extend") || said.contains("dotted key") {
        format!("{said}\nA name that is the start of another one has to be quoted: \"max.connections.per.ip\" = 10")
    } else {
        said.to_owned()
    }
}

fn flatten(prefix: &str, table: &Table, set: &mut Set, errors: &mut Vec<ConfigError>) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&name, inner, set, errors),
            value => match scalar(value) {
                Some(text) => {
                    if set.insert(name.clone(), (text, Origin::File)).is_some_and(|(_, had)| had == Origin::File) {
                        errors.push(at(Origin::File, Fault::Duplicate { name }));
                    }
                }
                None => {
                    let why = "must be a text, a number, true or false, or a list of these".to_owned();
                    let value = Some(value.to_string());
                    errors.push(at(Origin::File, Fault::Invalid { name, value, why }));
                }
            },
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items
                .iter()
                .map(|item| match item {
                    Value::Array(_) => None,
                    item => scalar(item),
                })
                .collect();
            items.map(|items| items.join(","))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}

/// Variables of the client commands.
const CLIENT: [&str; 2] = ["FIRN_BOOTSTRAP", "FIRN_ADMIN"];
/// What Kubernetes sets in each pod for a service called firn, and what Firn's own test suites use.
const OTHERS: [&str; 3] = ["FIRN_SERVICE_", "FIRN_PORT", "FIRN_TEST_"];

fn read_environment(environment: &BTreeMap<String, String>, set: &mut Set, errors: &mut Vec<ConfigError>) {
    let ours = environment.iter().filter(|(variable, _)| {
        variable.starts_with("FIRN_")
            && !CLIENT.contains(&variable.as_str())
            && !OTHERS.iter().any(|prefix| variable.starts_with(prefix))
    });
    let mut names: Option<BTreeMap<String, &'static str>> = None;
    for (variable, value) in ours {
        let names = names.get_or_insert_with(variables);
        let origin = Origin::Environment(variable.clone());
        if let Some(name) = names.get(variable) {
            set.insert((*name).to_owned(), (value.clone(), origin));
            continue;
        }
        let near = nearest(&dotted(variable), names.values().copied());
        let hint = near.map(|name| format!("did you mean {}?", variable_of(name)));
        errors.push(at(origin, Fault::Unknown { name: dotted(variable), hint }));
    }
}

fn dotted(variable: &str) -> String {
    variable.trim_start_matches("FIRN_").to_ascii_lowercase().replace('_', ".")
}

/// The environment variable of a broker config.
pub(super) fn variable_of(name: &str) -> String {
    let own = name.strip_prefix("firn.").unwrap_or(name);
    format!("FIRN_{}", own.to_ascii_uppercase().replace('.', "_"))
}

/// All broker configs by their variable.
pub(super) fn variables() -> BTreeMap<String, &'static str> {
    tables::all_broker().map(|row| (variable_of(row.name), row.name)).collect()
}
