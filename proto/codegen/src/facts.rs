//! The schemas' facts as plain lines, from which the tests of the codecs make messages on their own: they share no code with the
//! generated codecs, so that an error in `message.rs` shows.
//!
//! `= Name VERSIONS FIRST_FLEXIBLE` begins a message; a field is a line indented by its depth: name, type, versions,
//! nullable versions, tag, default, with `-` for what is absent. Structures that fields share are written out at each of them.

use std::fmt::Write;

use crate::schema::{Field, Message, Versions};

/// All messages, one after the other.
pub(crate) fn facts(messages: &[&Message]) -> String {
    let mut out = String::new();
    for m in messages {
        let flexible = m.first_flexible().map_or("-".to_owned(), |v| v.to_string());
        writeln!(out, "= {} {} {flexible}", m.name, show(m.versions())).expect("a string grows");
        fields(&mut out, m, &m.fields, 1);
    }
    out
}

fn fields(out: &mut String, message: &Message, list: &[Field], depth: usize) {
    for f in list {
        let element = f.ty.trim_start_matches("[]");
        let is_struct = element.starts_with(char::is_uppercase);
        let ty = if is_struct { f.ty.replace(element, "struct") } else { f.ty.clone() };
        let tag = f.tag.map_or("-".to_owned(), |tag| tag.to_string());
        let default = match &f.default {
            serde_json::Value::String(text) if !text.is_empty() => text.clone(),
            serde_json::Value::Null | serde_json::Value::String(_) => "-".to_owned(),
            other => other.to_string(),
        };
        let (versions, null) = (show(f.versions()), show(f.nullable_versions()));
        writeln!(out, "{}{} {ty} {versions} {null} {tag} {default}", " ".repeat(depth), f.name)
            .expect("a string grows");
        if is_struct {
            let common = message.common_structs.iter().find(|c| c.name == element);
            fields(out, message, common.map_or(&f.fields, |c| &c.fields), depth + 1);
        }
    }
}

fn show(versions: Versions) -> String {
    match versions {
        v if v.is_empty() => "-".to_owned(),
        Versions { min, max: i16::MAX } => format!("{min}+"),
        Versions { min, max } => format!("{min}-{max}"),
    }
}
