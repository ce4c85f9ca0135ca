//! What the broker's process uses: by its `/metrics`, or by its process id.

use crate::cli::client::ClientError;
use crate::metrics::{PROCESS_CPU_SECONDS, PROCESS_RESIDENT_BYTES};
use crate::process::Usage;
use std::time::Duration;

/// A scrape that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the usage is read.
pub(super) enum Meter {
    Process(i32),
    Metrics {
        http: reqwest::Client,
        url: String,
    },
    /// Neither is known: those columns stay empty.
    None,
}

impl Meter {
    /// By process id if there is one, else by `/metrics` if that answers.
    pub(super) async fn find(pid: Option<i32>, admin: &str) -> Result<Meter, ClientError> {
        if let Some(pid) = pid {
            return match Usage::of(pid) {
                Ok(_) => Ok(Meter::Process(pid)),
                Err(error) => Err(ClientError::Other(format!("process {pid}: {error}"))),
            };
        }
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build();
        let http = http.map_err(|error| ClientError::Other(error.to_string()))?;
        let meter = Meter::Metrics { http, url: format!("http://{admin}/metrics") };
        Ok(if meter.read().await.is_some() { meter } else { Meter::None })
    }

    pub(super) async fn read(&self) -> Option<Usage> {
        match self {
            Meter::Process(pid) => Usage::of(*pid).ok(),
            Meter::Metrics { http, url } => {
                let text = http.get(url).send().await.ok()?.text().await.ok()?;
                Some(Usage {
                    cpu_seconds: value(&text, PROCESS_CPU_SECONDS)?,
                    rss_bytes: value(&text, PROCESS_RESIDENT_BYTES)? as u64,
                })
            }
            Meter::None => None,
        }
    }
}

/// The value of a metric without labels.
fn value(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_scrape_of_this_process_tells_what_it_uses() {
        let text = Metrics::new().render();
        let cpu = value(&text, PROCESS_CPU_SECONDS).expect("CPU time");
        let rss = value(&text, PROCESS_RESIDENT_BYTES).expect("memory");
        assert!(cpu >= 0.0 && rss > 0.0, "{text}");
        assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    }
}
