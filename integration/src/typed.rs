//! Commands of documents, typed as they stand there.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// The shell blocks of a document, or of a part of it.
pub fn blocks(text: &str) -> Vec<String> {
    let fenced = text.split("```sh\n").skip(1);
    fenced.map(|rest| rest.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// The section of a document whose heading of the second level begins so.
///
/// # Panics
/// If there is none.
pub fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let section = text.split("\n## ").find(|section| section.starts_with(heading));
    section.unwrap_or_else(|| panic!("no section `{heading}`"))
}

/// Runs a block in `folder`; what it prints. Every command must succeed, also in the middle of a pipe, and all of them `within`.
/// `shell` is bash and its arguments, or what runs it.
///
/// # Panics
/// With what was said if it fails.
pub async fn typed(
    shell: &[&str],
    block: &str,
    folder: &Path,
    environment: &[(&str, String)],
    within: Duration,
) -> String {
    let (program, arguments) = shell.split_first().unwrap_or((&"bash", &[]));
    let mut shell = Command::new(program);
    shell.args(arguments).args(["-e", "-u", "-o", "pipefail", "-c", block]).current_dir(folder).stdin(Stdio::null());
    shell.env_remove("FIRN_TEST_BINARY").envs(environment.iter().map(|(name, value)| (name, value)));
    let output = timeout(within, shell.kill_on_drop(true).output()).await.expect("it ends").expect("bash runs");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{block}\nended with {}:\n{said}{wrong}", output.status);
    said.into_owned()
}
