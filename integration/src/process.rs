//! A real `firn` process: started on ports that the system chooses, watched, ended one way or another.
//!
//! A process that a test lost sight of is killed when its handle is dropped.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

/// A start that takes longer has failed. Generous, for it may run beside many others.
const START: Duration = Duration::from_secs(60);
/// A command that does not end by then hangs.
const END: Duration = Duration::from_secs(60);
/// Another binary to test than the one built with the tests, such as a release.
const BINARY: &str = "FIRN_TEST_BINARY";

/// How to start a process.
#[derive(Clone, Debug)]
pub struct Firn {
    binary: PathBuf,
    arguments: Vec<String>,
    /// Begins the command line: what runs it where it is to run.
    before: Vec<String>,
    environment: Vec<(String, String)>,
    /// Standard error of all its processes, one after the other.
    log: PathBuf,
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The binary could not be run.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It ended instead of serving.
    #[error("it ended with {status} and said: {said}")]
    Ended {
        /// How.
        status: ExitStatus,
        /// Its whole log.
        said: String,
    },
    /// It neither ended nor served.
    #[error("it did not serve within {} s and said: {said}", START.as_secs())]
    Silent {
        /// Its whole log.
        said: String,
    },
}

/// What a process that ended by itself left.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Firn {
    /// `firn` with `arguments`. `built` is the binary that cargo built for the test; `FIRN_TEST_BINARY` names another. Standard error
    /// goes to `log`, which must not lie in a data directory.
    pub fn new(built: &str, log: &Path, arguments: &[&str]) -> Firn {
        let binary = std::env::var_os(BINARY).map_or_else(|| PathBuf::from(built), PathBuf::from);
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Firn { binary, arguments, before: Vec::new(), environment: Vec::new(), log: log.to_owned() }
    }

    /// The same with exactly this binary.
    #[must_use]
    pub fn binary(mut self, binary: &Path) -> Firn {
        binary.clone_into(&mut self.binary);
        self
    }

    /// `firn dev` on the data directory `data`, with ports that the system chooses.
    pub fn dev(built: &str, data: &Path) -> Firn {
        let log = data.with_extension("log");
        Firn::new(built, &log, &["dev", "--kafka", "127.0.0.1:0", "--http", "127.0.0.1:0"])
            .arg("--data")
            .arg(&data.display().to_string())
    }

    /// Standard error goes to `log` instead of a file beside the data directory.
    #[must_use]
    pub fn log_to(mut self, log: &Path) -> Firn {
        log.clone_into(&mut self.log);
        self
    }

    /// It is run by another command, such as `ip netns exec NAME`, which must become it.
    #[must_use]
    pub fn within(mut self, command: &[String]) -> Firn {
        command.clone_into(&mut self.before);
        self
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Firn {
        self.arguments.push(argument.to_owned());
        self
    }

    /// One more broker setting.
    #[must_use]
    pub fn set(self, name: &str, value: impl std::fmt::Display) -> Firn {
        self.arg("--set").arg(&format!("{name}={value}"))
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Firn {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(&self) -> Result<Running, StartError> {
        self.spawn()?.ready().await
    }

    /// Starts it without waiting.
    ///
    /// # Errors
    /// If the binary cannot be run.
    pub fn spawn(&self) -> io::Result<Starting> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut child = self.command().stdout(Stdio::piped()).stderr(log).spawn()?;
        let stdout = child.stdout.take().expect("standard output is piped");
        Ok(Starting { child, stdout: BufReader::new(stdout), log: self.log.clone() })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// If it cannot be run, or does not end.
    pub async fn finish(&self) -> io::Result<Finished> {
        self.feed(&[]).await
    }

    /// Runs it to its end with `input` as its standard input.
    ///
    /// # Errors
    /// If it cannot be run, or does not end.
    pub async fn feed(&self, input: &[u8]) -> io::Result<Finished> {
        let mut child = self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stdin = child.stdin.take().expect("standard input is piped");
        let fed = async move {
            // A command that does not read to the end has its reasons, which its output says.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let output = timeout(END, async { tokio::join!(fed, child.wait_with_output()).1 }).await;
        let output = output.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the command does not end"))??;
        Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts it with standard input, output and error in the caller's hands.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn open(&self) -> io::Result<Child> {
        self.command().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }

    /// Starts it with nobody at the other end of its standard output. Standard error goes to the log.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn open_unheard(&self) -> io::Result<Child> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        self.command().stdout(nobody()?).stderr(log).spawn()
    }

    /// Runs it to its end with nobody at the other end of its standard output and its standard error.
    ///
    /// # Errors
    /// If it cannot be run, or does not end.
    pub async fn finish_unheard(&self) -> io::Result<ExitStatus> {
        let mut child = self.command().stdout(nobody()?).stderr(nobody()?).spawn()?;
        let ended = timeout(END, child.wait()).await;
        ended.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the command does not end"))?
    }

    /// Starts it on a terminal: `shown` is what its standard output and error are.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn open_on(&self, shown: &File) -> io::Result<Child> {
        self.command().stdout(shown.try_clone()?).stderr(shown.try_clone()?).spawn()
    }

    /// What its processes have logged so far.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    fn command(&self) -> Command {
        let mut command = match self.before.split_first() {
            None => Command::new(&self.binary),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.binary);
                command
            }
        };
        command.args(&self.arguments).stdin(Stdio::null()).kill_on_drop(true);
        // Settings of whoever runs the tests are not ours.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FIRN_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What writes to a pipe that nobody reads.
fn nobody() -> io::Result<io::PipeWriter> {
    io::pipe().map(|(_reader, writer)| writer)
}

/// A process that may not serve yet.
#[derive(Debug)]
pub struct Starting {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Starting {
    /// Waits until it serves.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn ready(mut self) -> Result<Running, StartError> {
        let mut line = String::new();
        match timeout(START, self.stdout.read_line(&mut line)).await {
            Err(_) => return Err(StartError::Silent { said: read_log(&self.log) }),
            Ok(read) => {
                if read? == 0 {
                    let status = self.child.wait().await?;
                    return Err(StartError::Ended { status, said: read_log(&self.log) });
                }
            }
        }
        let Some((kafka, http)) = addresses(&line) else {
            return Err(StartError::Silent { said: line });
        };
        // Whatever else it prints is drained, or it would block on a full pipe.
        let mut stdout = self.stdout;
        tokio::spawn(async move {
            let mut rest = Vec::new();
            let _ = stdout.read_to_end(&mut rest).await;
        });
        Ok(Running { child: self.child, kafka, http, log: self.log })
    }

    /// The next line of its standard output; `None` at its end. For a command that prints while it runs.
    ///
    /// # Errors
    /// If nothing comes for too long.
    pub async fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = String::new();
        let read = timeout(START, self.stdout.read_line(&mut line)).await;
        let read = read.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it prints nothing more"))??;
        Ok((read > 0).then(|| line.trim_end_matches('\n').to_owned()))
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends: how it did.
    ///
    /// # Errors
    /// If it has not by then.
    pub async fn wait(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let ended = timeout(within, self.child.wait()).await;
        ended.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the process does not end"))?
    }

    /// Kills it, wherever its start has come to.
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }
}

/// Both addresses, Kafka's first, out of the line that says it serves. A controller serves no Kafka clients.
pub fn addresses(line: &str) -> Option<(Option<SocketAddr>, SocketAddr)> {
    let (kafka, rest) = match line.split_once("Kafka clients at ") {
        Some((_, rest)) => {
            let (kafka, rest) = rest.split_once(',')?;
            (Some(kafka.parse().ok()?), rest)
        }
        None => (None, line.split_once("is a controller")?.1),
    };
    let http = rest.split_once("http://")?.1.split_once('/')?.0;
    Some((kafka, http.parse().ok()?))
}

fn read_log(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A process that serves.
#[derive(Debug)]
pub struct Running {
    child: Child,
    kafka: Option<SocketAddr>,
    http: SocketAddr,
    log: PathBuf,
}

impl Running {
    /// Where Kafka clients connect.
    ///
    /// # Panics
    /// If it is a controller only.
    pub fn kafka(&self) -> SocketAddr {
        self.kafka.expect("a controller serves no Kafka clients")
    }

    /// Where metrics and health are served.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// The process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// What it, and those that ran before it under the same plan, have logged.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// If it has not by then.
    pub async fn wait(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let ended = timeout(within, self.child.wait()).await;
        ended.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the process does not end"))?
    }

    /// Ends it without warning (`kill -9`).
    ///
    /// # Errors
    /// If the system refuses.
    pub async fn kill(mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to end (SIGTERM); how it did, and how long that took.
    ///
    /// # Errors
    /// If it does not end `within`.
    pub async fn terminate(mut self, within: Duration) -> io::Result<(ExitStatus, Duration)> {
        let began = Instant::now();
        ask_to_end(&self.child)?;
        let status = self.wait(within).await?;
        Ok((status, began.elapsed()))
    }

    /// The most memory that was resident at a time, in bytes.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn peak_resident_bytes(&self) -> io::Result<u64> {
        self.status_kib("VmHWM:").map(|kib| kib * 1024)
    }

    /// A figure of `/proc/PID/status`, in KiB.
    fn status_kib(&self, name: &str) -> io::Result<u64> {
        let pid = self.child.id().ok_or_else(|| io::Error::other("the process has ended"))?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let figure = status.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
        figure.ok_or_else(|| io::Error::other(format!("no {name} for process {pid}")))
    }
}

/// Sends SIGTERM, if it still runs.
///
/// # Errors
/// If the system refuses.
pub fn ask_to_end(child: &Child) -> io::Result<()> {
    match child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
        Some(pid) => Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_it_serves_is_understood() {
        let line = "Firn serves Kafka clients at 127.0.0.1:45081, metrics at http://127.0.0.1:44869/metrics\n";
        let (kafka, http) = addresses(line).expect("both addresses");
        assert_eq!((kafka.map(|kafka| kafka.port()), http.port()), (Some(45081), 44869));
        let line = "Firn is a controller, metrics at http://127.0.0.1:44869/metrics\n";
        assert_eq!(addresses(line).map(|(kafka, http)| (kafka, http.port())), Some((None, 44869)));
        assert!(addresses("something else").is_none());
    }
}
