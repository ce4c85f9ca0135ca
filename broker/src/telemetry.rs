//! Logs and traces: structured logs, spans to an OTLP collector when one is configured.
//!
//! A request's span is `firn::request`; below it stand the journal and remote-tier steps, so that one trace shows a produce
//! through journal and acknowledgement, or a fetch into the object store. Without a collector no span is made.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::io::IsTerminal as _;
use std::time::Duration;
use tracing::Subscriber;
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// The target of every span that is meant for a trace.
pub const SPANS: &str = "firn::request";

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// What to log and where traces go.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub format: LogFormat,
    /// A filter such as `info,broker::journal=debug`; everything when empty.
    pub filter: String,
    /// The OTLP/HTTP endpoint of a collector, such as `http://127.0.0.1:4318/v1/traces`.
    pub otlp_endpoint: Option<String>,
}

/// How long a collector may take for what is still queued at the end: little, for the process is to be gone within 5 s of being told
/// to, most of which the logs may need.
const LAST_SPANS: Duration = Duration::from_millis(500);

/// Keeps exporting until dropped; what is still queued is sent then, if the collector takes it soon.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Why telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("the log filter `{filter}` cannot be read: {error}")]
    Filter { filter: String, error: String },
    #[error("the trace exporter for {endpoint} could not be set up: {error}")]
    Exporter { endpoint: String, error: String },
}

/// Installs the process's logger, whose lines go to `lines`, and, when configured, its trace exporter.
pub fn install(settings: &Settings, lines: BoxMakeWriter) -> Result<Telemetry, TelemetryError> {
    let provider = settings.otlp_endpoint.as_deref().map(exporter).transpose()?;
    let logger = logger(settings, lines)?;
    match &provider {
        Some(provider) => {
            let spans = tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("firn"))
                .with_filter(FilterFn::new(|meta| meta.is_span() && meta.target() == SPANS));
            logger.with(spans).init();
        }
        // Not a layer that is none: that would count as one that wants every span.
        None => logger.init(),
    }
    Ok(Telemetry { provider })
}

fn logger(
    settings: &Settings,
    lines: BoxMakeWriter,
) -> Result<impl Subscriber + for<'span> LookupSpan<'span> + Send + Sync + use<>, TelemetryError> {
    let wanted = &settings.filter;
    let filter = EnvFilter::try_new(wanted)
        .map_err(|error| TelemetryError::Filter { filter: wanted.clone(), error: error.to_string() })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(lines).with_ansi(std::io::stderr().is_terminal());
    let lines = match settings.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // Request spans are for traces; in log lines they would only repeat.
    let lines = lines.with_filter(filter).with_filter(FilterFn::new(|meta| meta.target() != SPANS));
    Ok(tracing_subscriber::registry().with(lines))
}

fn exporter(endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build();
    let exporter =
        exporter.map_err(|error| TelemetryError::Exporter { endpoint: endpoint.into(), error: error.to_string() })?;
    let resource = Resource::builder().with_service_name("firn").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown_with_timeout(LAST_SPANS)
        {
            tracing::warn!(%error, "some spans could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_collector_a_request_makes_no_span() {
        let settings = Settings { filter: "info".to_owned(), ..Settings::default() };
        let logger = logger(&settings, BoxMakeWriter::new(std::io::stderr)).expect("the filter can be read");
        tracing::subscriber::with_default(logger, || {
            assert!(tracing::info_span!(target: SPANS, "request").is_disabled());
            assert!(!tracing::info_span!("another").is_disabled(), "other spans are for log lines");
        });
    }
}
