//! Log lines of the process, on standard error.
//!
//! Contract: at any level, no line holds a message, an address or a token. Heddle's own code never writes
//! one; libraries are limited to `warn`, since some print headers and bodies below it.

use heddle_schemas::config::{LogFormat, LogLevel, Telemetry};
use tracing::Subscriber;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

/// Heddle's own crates.
const OWN: [&str; 5] = ["heddle", "heddle_engine", "heddle_actors", "heddle_connectors", "heddle_schemas"];

/// Returns a subscriber that writes the process's lines to `writer`.
pub fn subscriber<W>(options: &Telemetry, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    Registry::default().with(layer(options, writer).with_filter(filter(options.level)))
}

/// Installs the subscriber of the process.
///
/// # Errors
/// When a subscriber is already installed.
pub fn install(options: &Telemetry) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    tracing::subscriber::set_global_default(subscriber(options, std::io::stderr))
}

fn layer<S, W>(options: &Telemetry, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match options.format {
        LogFormat::Pretty => layer.with_ansi(false).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

fn filter(level: LogLevel) -> Targets {
    let own = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let others = own.min(LevelFilter::WARN);
    Targets::new().with_default(others).with_targets(OWN.map(|name| (name, own)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn libraries_are_cut_off_at_warn_whatever_the_level() {
        let targets = filter(LogLevel::Trace);
        assert!(targets.would_enable("heddle_actors::account", &Level::TRACE));
        assert!(targets.would_enable("hyper::proto", &Level::WARN));
        assert!(!targets.would_enable("hyper::proto", &Level::INFO));
        let targets = filter(LogLevel::Error);
        assert!(!targets.would_enable("hyper::proto", &Level::WARN), "less of Heddle is less of all");
    }
}
