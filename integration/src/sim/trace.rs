//! What happened in a run, as one number: equal numbers mean equal runs. On request also as text, for a person who looks for the place
//! where two runs part.

use parking_lot::Mutex;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Takes down every event of a process.
#[derive(Clone)]
pub struct Trace(Arc<Mutex<Sum>>);

struct Sum {
    crc: u32,
    lines: u64,
    text: Option<Box<dyn Write + Send>>,
    shown: Level,
    votes: Vec<Given>,
}

/// A vote that a voter of the quorum said it gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// Who gives it.
    pub voter: String,
    /// Which term the candidate wants to lead in.
    pub term: u64,
    /// The candidate.
    pub candidate: u64,
}

/// Where votes are traced, in the fields `term` and `candidate`.
const VOTES: &str = "controller::raft::serve";

impl Trace {
    /// Begins to take down what is traced from here on, for the rest of the process. Lines up to `shown` are also written to `text`.
    /// With `TRACE` everything is taken down; else what is loud is only as far as `INFO`.
    pub fn install(text: Option<Box<dyn Write + Send>>, shown: Level) -> Trace {
        let trace = Trace(Arc::new(Mutex::new(Sum { crc: 0, lines: 0, text, shown, votes: Vec::new() })));
        tracing_subscriber::registry().with(trace.clone()).init();
        trace
    }

    fn loudest(&self, loud: bool) -> Level {
        let shown = self.0.lock().shown;
        if shown == Level::TRACE {
            shown
        } else if loud {
            Level::INFO
        } else {
            Level::DEBUG
        }
    }

    /// Notes something that is not traced by whom it happens to.
    pub fn note(&self, line: &str) {
        self.0.lock().add(line, Level::INFO);
    }

    /// The votes that were given since this was asked last, in order.
    pub fn take_votes(&self) -> Vec<Given> {
        std::mem::take(&mut self.0.lock().votes)
    }

    /// The checksum over all lines so far, and how many there were.
    pub fn sum(&self) -> (u32, u64) {
        let sum = self.0.lock();
        (sum.crc, sum.lines)
    }
}

impl Sum {
    fn add(&mut self, line: &str, level: Level) {
        self.crc = crc32c::crc32c_append(self.crc, line.as_bytes());
        self.lines += 1;
        if level <= self.shown
            && let Some(text) = &mut self.text
        {
            // Whoever reads the text has gone: the run goes on.
            let _ = writeln!(text, "{line}");
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Trace {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        // Every message on the network, and every step of the quorum, are much to write down: their effects show in the rest, too.
        let loud = metadata.target() == "turmoil" || metadata.target().starts_with("openraft");
        *metadata.level() <= self.loudest(loud)
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        let metadata = event.metadata();
        let mut line = format!("{:>9.3} ", at.as_secs_f64() * 1000.0);
        let mut node = String::new();
        if let Some(span) = ctx.lookup_current()
            && let Some(name) = span.extensions().get::<NodeName>()
        {
            let _ = write!(line, "[{}] ", name.0);
            node.clone_from(&name.0);
        }
        if metadata.target() == VOTES {
            let mut vote = Vote::default();
            event.record(&mut vote);
            if let (Some(term), Some(candidate)) = (vote.term, vote.candidate) {
                self.0.lock().votes.push(Given { voter: node, term, candidate });
            }
        }
        let _ = write!(line, "{} {}:", metadata.level(), metadata.target());
        event.record(&mut Text(&mut line));
        self.0.lock().add(&line, *metadata.level());
    }

    fn on_new_span(&self, attributes: &tracing::span::Attributes<'_>, id: &tracing::span::Id, ctx: Context<'_, S>) {
        if attributes.metadata().name() == "node"
            && let Some(span) = ctx.span(id)
        {
            let mut name = String::new();
            attributes.record(&mut Text(&mut name));
            let name = name.trim().trim_start_matches("name=").trim_matches('"');
            span.extensions_mut().insert(NodeName(name.to_owned()));
        }
    }
}

struct NodeName(String);

#[derive(Default)]
struct Vote {
    term: Option<u64>,
    candidate: Option<u64>,
}

impl Visit for Vote {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "term" => self.term = Some(value),
            "candidate" => self.candidate = Some(value),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

struct Text<'a>(&'a mut String);

impl Visit for Text<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
