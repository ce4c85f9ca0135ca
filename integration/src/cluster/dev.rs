//! `firn dev --nodes N`: one command, several processes.

use crate::process::{Firn, StartError, Starting};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

/// Ends in order within 35 s. Generous, for tests run beside others on few cores.
const END: Duration = Duration::from_secs(70);

/// The line that says the cluster serves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Greeting {
    nodes: Vec<Member>,
}

/// A node, as the line names it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Node id.
    pub id: i32,
    /// Process id.
    pub pid: i32,
    /// Where Kafka clients connect.
    pub kafka: SocketAddr,
    /// Where metrics and health are served.
    pub http: SocketAddr,
}

impl Member {
    /// Sends its process a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = Pid::from_raw(self.pid).ok_or_else(|| io::Error::other("no process"))?;
        Ok(kill_process(pid, signal)?)
    }

    /// Whether its process is there. One that has ended and that nobody has asked how is not.
    pub fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        // The name in parentheses may hold anything; the state follows it.
        stat.is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X'])))
    }
}

/// The supervisor and its nodes. Dropping it kills the supervisor, and its nodes end with it.
#[derive(Debug)]
pub struct Dev {
    firn: Firn,
    supervisor: Starting,
    members: Vec<Member>,
}

impl Dev {
    /// Starts `nodes` nodes below the directory `data`, node 0 at the ports `kafka` and `http` of loopback, and waits until all serve.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(
        built: &str,
        data: &Path,
        nodes: usize,
        (kafka, http): (u16, u16),
        settings: &[(&str, &str)],
    ) -> Result<Dev, StartError> {
        let addresses = [format!("127.0.0.1:{kafka}"), format!("127.0.0.1:{http}"), nodes.to_string()];
        let [kafka, http, nodes] = addresses.each_ref().map(String::as_str);
        let log = data.with_extension("log");
        let arguments = ["dev", "--kafka", kafka, "--http", http, "--nodes", nodes, "--json", "--data"];
        let firn = Firn::new(built, &log, &arguments).arg(&data.display().to_string());
        let firn = settings.iter().fold(firn, |firn, (name, value)| firn.set(name, value));
        let mut supervisor = firn.spawn()?;
        let Some(line) = supervisor.line().await? else {
            let status = supervisor.wait(END).await?;
            return Err(StartError::Ended { status, said: firn.log() });
        };
        let greeting: Result<Greeting, _> = serde_json::from_str(&line);
        let greeting = greeting.map_err(|error| StartError::Silent { said: format!("{error} in {line}") })?;
        Ok(Dev { firn, supervisor, members: greeting.nodes })
    }

    /// The nodes, as they were named.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The supervisor's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.supervisor.pid()
    }

    /// What the supervisor and the nodes have logged so far.
    pub fn log(&self) -> String {
        self.firn.log()
    }

    /// Asks the supervisor to end (SIGTERM): what it printed after the first line, and how it ended.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn terminate(self) -> io::Result<(Vec<String>, ExitStatus)> {
        if let Some(pid) = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw) {
            kill_process(pid, Signal::TERM)?;
        }
        self.ended().await
    }

    /// Waits until the supervisor ends by itself: what it printed after the first line, and how it ended.
    ///
    /// # Errors
    /// If it does not.
    pub async fn ended(mut self) -> io::Result<(Vec<String>, ExitStatus)> {
        let mut lines = Vec::new();
        while let Some(line) = self.supervisor.line().await? {
            lines.push(line);
        }
        Ok((lines, self.supervisor.wait(END).await?))
    }

    /// Ends the supervisor without warning (`kill -9`).
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(self) -> io::Result<()> {
        self.supervisor.kill().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_it_serves_is_understood() {
        let line = r#"{"nodes":[{"id":0,"pid":7,"kafka":"127.0.0.1:9092","http":"127.0.0.1:9644"}]}"#;
        let greeting: Greeting = serde_json::from_str(line).expect("as promised");
        assert_eq!((greeting.nodes[0].id, greeting.nodes[0].pid, greeting.nodes[0].kafka.port()), (0, 7, 9092));
    }

    #[test]
    fn a_process_that_is_there_is_alive() {
        let pid = i32::try_from(std::process::id()).expect("small");
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        let member = Member { id: 0, pid, kafka: nowhere, http: nowhere };
        assert!(member.is_alive());
        assert!(!Member { pid: i32::MAX, ..member }.is_alive());
    }
}
