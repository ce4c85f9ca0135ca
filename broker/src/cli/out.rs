//! What commands print. Whoever reads it may go away at any time, as `head` does: that is no failure of theirs.

use super::client::ClientError;
use std::fmt::Display;
use std::io::{self, Write};

/// Writes all of `text` to standard output, or as much as its reader wants.
///
/// # Errors
/// Those of standard output, but for a reader that went away.
pub(super) fn print(text: impl AsRef<[u8]>) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref()).and_then(|()| out.flush()).or_else(ended)
}

/// What an error of standard output means for the command: a reader that went away has seen enough.
///
/// # Errors
/// Any other.
pub(super) fn ended(error: io::Error) -> Result<(), ClientError> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(ClientError::Output(error)) }
}

/// Writes a line to standard error, if anybody reads it.
pub(super) fn note(line: impl Display) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// A number and what it counts, in as many words.
pub(super) fn counted(count: impl Into<u64>, what: &str) -> String {
    let count = count.into();
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
