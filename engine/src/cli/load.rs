//! `heddle load`: the command line of the crate `heddle-load`.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use heddle_connectors::clock::SystemClock;
use heddle_connectors::kafka::Connection;
use heddle_load::{Error, Load, Options, Pace, Screen, Until, Way};
use heddle_schemas::config::{Config, LogKind};

use super::Failure;
use super::admin::{Admin, Where};
use super::output::Output;
use crate::configuration;

/// Description of the output of `--json`, for `--help`; [`heddle_load::Report`] documents every field.
const FIELDS: &str = "\
With --json one object:
  rate_per_second, in_flight                what was asked for; the other is null
  way, tenants, conversations, skew, batch, settle_ms, per_number_per_second, seed
  send_seconds, bodies, messages_sent       the sending
  messages_accepted, accepted_per_second    a 200, or Kafka's confirmation: each must get a reply
  messages_refused, messages_unsent         not accepted; due but not sent in time, and in no percentile
  replied, replied_per_second               messages whose reply came
  lost, doubled, out_of_order               broken promises: exit code 1
  wrong, strangers, unowed                  replies to no question, to unknown recipients, to messages not accepted
  accept_latency_ms, reply_latency_ms       count, mean, p50, p99, p99_9, max; from when it was due
  answers                                   bodies by what became of them, such as a webhook's status
  graph_refused                             calls the simulated API refused, by error code
  cautions                                  what limits the meaning of the numbers";

/// Arguments of `heddle load`.
#[derive(Debug, Args)]
#[command(after_long_help = FIELDS)]
pub struct Arguments {
    #[command(flatten)]
    place: Where,
    #[command(flatten)]
    pace: PaceArguments,
    /// Duration of sending, such as 30s or 5m. Default 30s.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, conflicts_with = "messages")]
    duration: Option<Duration>,
    /// Number of messages to send.
    #[arg(long, value_name = "N")]
    messages: Option<NonZeroU64>,
    /// Number of tenants, with one WhatsApp number each.
    #[arg(long, value_name = "N", default_value = "20")]
    tenants: NonZeroU32,
    /// Number of conversations, spread over the tenants.
    #[arg(long, value_name = "M", default_value = "10000")]
    conversations: NonZeroU32,
    /// Exponent of Zipf's law for the choice of conversations; 0: all equally likely.
    #[arg(long, value_name = "S", default_value_t = 0.0)]
    skew: f64,
    /// Messages in one webhook, or published together.
    #[arg(long, value_name = "K", default_value = "1")]
    batch: NonZeroU32,
    /// Settle delay of the tenants; above 0 one turn may answer several messages.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "0ms")]
    settle: Duration,
    /// Limit of each number: messages a second, in and out together.
    #[arg(long, value_name = "N", default_value = "1000")]
    per_number: NonZeroU32,
    /// Make the simulated API refuse calls over the limits of a number and of a pair.
    #[arg(long)]
    enforce_limits: bool,
    /// Listen address of the simulated API, which the engine must be able to reach.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    graph_listen: SocketAddr,
    /// Target address of webhooks; several are used in turn. Default: `http.listen` of the configuration.
    #[arg(long = "webhooks", value_name = "URL")]
    webhooks: Vec<String>,
    /// Publish to topic ingress instead, as a connector does, on the brokers of log.brokers.
    #[arg(long, conflicts_with = "webhooks")]
    kafka: bool,
    /// Maximum webhooks, or groups of records published together, in flight.
    #[arg(long, value_name = "N", default_value = "256")]
    connections: NonZeroU32,
    /// Timeout for the answer to a webhook, or for Kafka's confirmation.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    timeout: Duration,
    /// Timeout for a reply, at the end and for each customer of --max.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    wait: Duration,
    /// Seed of choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave the tenants in the node; by default they are deleted at the end.
    #[arg(long)]
    keep_tenants: bool,
}

/// Choice of the loop.
#[derive(Debug, Args)]
struct PaceArguments {
    /// Messages a second, whatever the engine does (open loop).
    #[arg(long, value_name = "N", required_unless_present = "max")]
    rate: Option<NonZeroU32>,
    /// Maximum speed: customers ask, wait for the reply and ask again (closed loop).
    #[arg(long, conflicts_with = "rate")]
    max: bool,
    /// With --max: number of customers.
    #[arg(long, value_name = "N", default_value = "64", conflicts_with = "rate")]
    in_flight: NonZeroU32,
}

impl Arguments {
    fn options(&self, config: &Config) -> Result<Options, Failure> {
        let way = match (self.kafka, config.log.kind) {
            (false, _) => Way::Webhooks { nodes: self.webhooks.clone() },
            (true, LogKind::Kafka) => {
                let kafka = configuration::kafka(config);
                let connection = Connection { node: "load".into(), ..kafka.connection };
                Way::Kafka { connection, prefix: kafka.prefix }
            }
            (true, LogKind::Embedded) => {
                return Err(Failure::Usage(anyhow::anyhow!(
                    "--kafka needs brokers: pass a configuration with log.kind = \"kafka\" by --config"
                )));
            }
        };
        let PaceArguments { rate, in_flight, .. } = self.pace;
        let until = match (self.messages, self.duration) {
            (Some(messages), _) => Until::Messages(messages),
            (None, Some(duration)) => Until::Duration(duration),
            (None, None) => Options::default().until,
        };
        Ok(Options {
            pace: rate.map_or(Pace::Max { in_flight }, Pace::Rate),
            until,
            tenants: self.tenants,
            conversations: self.conversations,
            skew: self.skew,
            batch: self.batch,
            settle: self.settle,
            per_number: self.per_number,
            enforce_limits: self.enforce_limits,
            graph_listen: self.graph_listen,
            way,
            connections: self.connections,
            timeout: self.timeout,
            wait: self.wait,
            seed: self.seed,
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_usage() { Self::Usage(error.into()) } else { Self::Failed(error.into()) }
    }
}

/// Runs the load.
///
/// # Errors
/// When no node answers, or a message was lost, doubled or misordered.
pub async fn run(config: Config, arguments: Arguments, output: &mut Output) -> Result<(), Failure> {
    let options = arguments.options(&config)?;
    // Only a running node can be loaded, so the data folder is not tried.
    let hooks = format!("http://{}", config.http.listen);
    let base = arguments.place.url.unwrap_or_else(|| format!("http://{}", config.http.admin_address()));
    let place = Where { insecure: arguments.place.insecure, ..Where::at(&base) };
    let admin = Admin::find(config, &place).await?;
    let load = Arc::new(Load::start(&hooks, options, Arc::new(SystemClock)).await?);
    let prepared = load.prepare(&admin).await;
    if prepared.is_err() && !arguments.keep_tenants {
        // Those that were applied; the fault that matters is the one before.
        drop(load.remove(&admin).await);
    }
    prepared?;
    output.say(&format!("heddle load: node {base}, simulated Graph API at {}", load.graph_api()));
    for caution in load.cautions() {
        output.say(&format!("  note: {caution}"));
    }
    let stopping = tokio::spawn({
        let load = load.clone();
        async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                load.stop();
            }
        }
    });
    let screen = Screen::start(load.clone(), !output.is_json());
    let report = load.run().await;
    screen.stop();
    stopping.abort();
    let removed = if arguments.keep_tenants { Ok(()) } else { load.remove(&admin).await };
    admin.close().await;
    let report = report?;
    output.result(&report, || report.to_string());
    removed?;
    match report.is_clean() {
        true => Ok(()),
        false if report.messages_accepted == 0 => {
            Err(Failure::Failed(anyhow::anyhow!("nothing was accepted")))
        }
        false => Err(Failure::Failed(anyhow::anyhow!(
            "{} messages lost, {} doubled, {} out of order",
            report.lost,
            report.doubled,
            report.out_of_order
        ))),
    }
}
