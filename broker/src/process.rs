//! What a process uses, as the kernel counts it.

use procfs::process::Process;
use procfs::{ProcResult, page_size, ticks_per_second};

/// CPU time and memory of a process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// User and system time since its start, all threads.
    pub cpu_seconds: f64,
    /// Resident now.
    pub rss_bytes: u64,
}

impl Usage {
    /// Of this process.
    ///
    /// # Errors
    /// If `/proc` is not mounted.
    pub fn own() -> ProcResult<Usage> {
        Usage::from(&Process::myself()?)
    }

    /// Of the process `pid`.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn of(pid: i32) -> ProcResult<Usage> {
        Usage::from(&Process::new(pid)?)
    }

    fn from(process: &Process) -> ProcResult<Usage> {
        let stat = process.stat()?;
        Ok(Usage {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks_per_second() as f64,
            rss_bytes: stat.rss * page_size(),
        })
    }
}
