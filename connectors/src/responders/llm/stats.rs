//! Metrics of the calls to providers.

use std::time::Duration;

use heddle_schemas::ports::responder::Usage;
use heddle_schemas::tenant::Provider;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// Bounds of the histograms, in seconds.
const SECONDS: [f64; 10] = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];

/// Counters of a node's calls.
#[derive(Debug, Clone)]
pub(crate) struct Stats {
    calls: IntCounterVec,
    seconds: HistogramVec,
    waited: HistogramVec,
    tokens: IntCounterVec,
}

impl Stats {
    pub(super) fn new() -> Self {
        let counter = |name, help, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid")
        };
        let histogram = |name, help| {
            let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
            HistogramVec::new(options, &["provider"]).expect("the name is valid")
        };
        let calls = counter(
            "heddle_llm_calls_total",
            "Calls to providers by what became of them: answered, busy, passing (tried once more), failed, \
             lost (sent, and no answer came that can be read), left_alone (not made, after several failures).",
            &["provider", "result"],
        );
        // Each series exists from the start, so that its first rise shows.
        for provider in [Provider::Openai, Provider::Deepseek, Provider::Gemini] {
            for result in ["answered", "busy", "passing", "failed", "lost", "left_alone"] {
                calls.with_label_values(&[provider.as_str(), result]);
            }
        }
        Self {
            calls,
            seconds: histogram("heddle_llm_call_seconds", "How long a provider took to answer."),
            waited: histogram(
                "heddle_llm_wait_seconds",
                "How long a call waited for its key's requests and tokens.",
            ),
            tokens: counter(
                "heddle_llm_tokens_total",
                "Tokens used, as providers report them: input, output.",
                &["provider", "direction"],
            ),
        }
    }

    pub(super) fn call(&self, provider: Provider, result: &str) {
        self.calls.with_label_values(&[provider.as_str(), result]).inc();
    }

    pub(super) fn answered(&self, provider: Provider, took: Duration, usage: Usage) {
        self.call(provider, "answered");
        self.seconds.with_label_values(&[provider.as_str()]).observe(took.as_secs_f64());
        for (direction, tokens) in [("input", usage.input_tokens), ("output", usage.output_tokens)] {
            self.tokens.with_label_values(&[provider.as_str(), direction]).inc_by(tokens);
        }
    }

    pub(super) fn waited(&self, provider: Provider, time: Duration) {
        self.waited.with_label_values(&[provider.as_str()]).observe(time.as_secs_f64());
    }

    /// Has a registry read them.
    pub(crate) fn register(&self, registry: &Registry) {
        let all: [Box<dyn prometheus::core::Collector>; 4] = [
            Box::new(self.calls.clone()),
            Box::new(self.seconds.clone()),
            Box::new(self.waited.clone()),
            Box::new(self.tokens.clone()),
        ];
        for one in all {
            registry.register(one).expect("each name is registered once");
        }
    }
}
