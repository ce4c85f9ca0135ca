//! Writes `proto/src/messages/`, `proto/src/errors.rs` and `proto/tests/codecs/facts.txt` from Kafka's message schemas; see README.md.
//!
//! Usage: `codegen SCHEMAS PROTO`, where SCHEMAS holds a folder of schemas per jar and `errors.tsv`, and PROTO is the crate.

mod facts;
mod message;
mod names;
mod schema;
mod tables;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use schema::{Kind, Message};

fn main() -> io::Result<()> {
    let args: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [schemas, proto] = args.as_slice() else {
        return Err(io::Error::other("usage: codegen SCHEMAS PROTO"));
    };
    let messages = schema::read_all(schemas)?;
    let folder = proto.join("src/messages");
    let records_folder = folder.join("records");
    let live: Vec<&Message> = messages.iter().filter(|m| m.kind != Kind::Header && !m.versions().is_empty()).collect();
    let is_record = |m: &&&Message| matches!(m.kind, Kind::CoordinatorKey | Kind::CoordinatorValue);
    let records: Vec<&Message> = live.iter().filter(is_record).copied().collect();
    let others: Vec<&Message> = live.iter().filter(|m| !is_record(m)).copied().collect();

    let mut files = Vec::new();
    for (folder, messages) in [(&folder, &others), (&records_folder, &records)] {
        for m in messages {
            let file = folder.join(names::snake(&m.name)).with_extension("rs");
            files.push(write(file, &message::source(m))?);
        }
    }
    files.push(write(folder.join("mod.rs"), &tables::messages_mod(&others))?);
    files.push(write(folder.join("api_table.rs"), &tables::api_table(&messages))?);
    files.push(write(folder.join("codecs.rs"), &tables::codecs(&live))?);
    files.push(write(records_folder.join("mod.rs"), &tables::records_mod(&records))?);
    let errors = fs::read_to_string(schemas.join("errors.tsv"))?;
    files.push(write(proto.join("src/errors.rs"), &tables::errors(&errors, &messages))?);
    write(proto.join("tests/codecs/facts.txt"), &facts::facts(&live))?;
    format(&files)
}

fn write(path: PathBuf, text: &str) -> io::Result<PathBuf> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&path, text)?;
    Ok(path)
}

/// Formats what was written, with rustfmt's settings of the crate the files are in.
fn format<P: AsRef<Path>>(files: &[P]) -> io::Result<()> {
    let status = Command::new("rustfmt")
        .args(["--edition", "2024", "--config", "skip_children=true"])
        .args(files.iter().map(AsRef::as_ref))
        .status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("rustfmt failed")) }
}
