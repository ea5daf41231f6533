//! Durable turns a second of the whole engine on Kafka and CQL, see [`heddle_benches::turn`], and beside them,
//! in the same run, what the two drivers do alone: a write of as many rows and bytes in one batch, then one
//! record produced, as many at once as the engine may have in work.
//!
//! It runs against real servers and makes topics and a keyspace of its own, which it leaves: for servers that
//! serve nothing else. Prints one JSON object. `cluster_turn --help` says what can be set.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use heddle_benches::turn::{Asked, Turns};
use heddle_connectors::clock::SystemClock;
use heddle_connectors::cluster::{self, Cluster};
use heddle_connectors::cql::schema::{Schema, Wanted};
use heddle_connectors::cql::{self, Cql};
use heddle_connectors::kafka::{self, Connection, Kafka, topics};
use heddle_schemas::ports::log::Log as _;
use heddle_schemas::sealed::Secret;
use rdkafka::producer::{FutureProducer, FutureRecord};
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use serde_json::{Value, json};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    asked: Asked,
    /// A Kafka broker.
    #[arg(long, default_value = "127.0.0.1:19092")]
    kafka: String,
    /// A node that speaks CQL.
    #[arg(long, default_value = "127.0.0.1:19042")]
    cql: String,
    /// Operations of the drivers alone.
    #[arg(long, default_value_t = 50_000)]
    raw: usize,
    /// Of those at once.
    #[arg(long, default_value_t = 512)]
    at_once: usize,
}

/// Bytes of what one turn writes, as the engine's rows of this benchmark are: head, history row, marker, and
/// the record of a reply.
const HEAD: usize = 450;
const HISTORY: usize = 620;
const MARKER: usize = 16;
const REPLY: usize = 760;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let id = std::process::id();
    let of_cql = cql::Options {
        nodes: vec![arguments.cql.clone()],
        keyspace: format!("bench_{id}"),
        datacenter: None,
        user: String::new(),
        password: Secret::default(),
        tls: None,
        timeout: Duration::from_secs(20),
        in_flight: const { NonZeroUsize::new(512).unwrap() },
    };
    let of_kafka = kafka::Options {
        connection: Connection {
            brokers: vec![arguments.kafka.clone()],
            node: "bench".into(),
            client: BTreeMap::new(),
        },
        prefix: format!("bench.{id}."),
        partitions: arguments.asked.partitions,
        session_timeout: Duration::from_secs(30),
        handover: Duration::from_secs(5),
        max_record_bytes: 1_000_000,
        policy: topics::Policy { replication: 1, retention: Duration::from_secs(86_400) },
    };
    Schema::connect(&of_cql, Wanted::Everywhere(NonZeroU32::MIN)).await?.apply().await?;
    topics::apply(&of_kafka).await?;

    let before = raw(&arguments, &of_kafka.prefix, &of_cql.keyspace).await?;
    let clock = Arc::new(SystemClock);
    let kafka = Kafka::open(&of_kafka, clock.clone()).await?;
    let options = cluster::Options {
        owner: format!("bench/{id}"),
        lease: Duration::from_secs(10),
        longest_call: Duration::from_secs(1),
        handover: Duration::from_secs(5),
    };
    let store = Cluster::new(options, Arc::new(kafka), Cql::open(&of_cql).await?, clock);
    let mut seen = 0;
    loop {
        let assignment = store.assignment(seen).await?;
        seen = assignment.generation;
        if assignment.partitions.len() >= 2 * arguments.asked.partitions.get() as usize {
            break;
        }
    }
    let turns = Turns::open(arguments.asked.clone(), store.clone(), store.clone(), None).await?;
    let mut result = Arc::new(turns).measure().await?;
    store.close().await;
    let after = raw(&arguments, &of_kafka.prefix, &of_cql.keyspace).await?;
    let a_second = |raw: &Value| raw["a_second"].as_f64().unwrap_or(f64::NAN);
    let drivers = f64::midpoint(a_second(&before), a_second(&after));
    let warm = result["warm"]["turns_per_second"].as_f64().unwrap_or(f64::NAN);
    result["bench"] = "cluster_turn".into();
    result["drivers_before"] = before;
    result["drivers_after"] = after;
    result["drivers_by_warm_turns"] = json!(drivers / warm);
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

/// One batch written and then one record produced, again and again, by the drivers alone.
async fn raw(arguments: &Arguments, prefix: &str, keyspace: &str) -> anyhow::Result<Value> {
    let session = Arc::new(SessionBuilder::new().known_node(&arguments.cql).build().await?);
    let producer: FutureProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &arguments.kafka)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .create()?;
    let conversation = session
        .prepare(format!(
            "INSERT INTO {keyspace}.conversation (tenant, id, kind, row, value, expires) \
             VALUES (?, ?, ?, ?, ?, ?) USING TTL ?"
        ))
        .await?;
    let history = session
        .prepare(format!(
            "INSERT INTO {keyspace}.history (tenant, id, row, value, expires) VALUES (?, ?, ?, ?, ?) USING TTL ?"
        ))
        .await?;
    let mut batch = Batch::new(BatchType::Unlogged);
    batch.append_statement(history);
    batch.append_statement(conversation.clone());
    batch.append_statement(conversation);
    let (batch, topic) = (Arc::new(batch), format!("{prefix}events"));
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..arguments.at_once {
        let (session, producer, batch) = (session.clone(), producer.clone(), batch.clone());
        let (topic, next, raw) = (topic.clone(), next.clone(), arguments.raw);
        let partitions = i32::try_from(arguments.asked.partitions.get())?;
        let conversations = arguments.asked.conversations;
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= raw {
                    return anyhow::Ok(took);
                }
                let began = Instant::now();
                let id = format!("raw/{}", number % conversations).into_bytes();
                let row = number.to_be_bytes().to_vec();
                let values = (
                    ("raw", &id, &row, vec![7_u8; HISTORY], i64::MAX, 2_592_000_i32),
                    ("raw", &id, 3_i8, &row, vec![7_u8; MARKER], i64::MAX, 864_000_i32),
                    ("raw", &id, 1_i8, Vec::<u8>::new(), vec![7_u8; HEAD], i64::MAX, 0_i32),
                );
                session.batch(&batch, values).await?;
                let payload = vec![7_u8; REPLY];
                let record = FutureRecord::to(&topic)
                    .partition(i32::try_from(number)? % partitions)
                    .key(&id)
                    .payload(&payload);
                let sent = producer.send_result(record).map_err(|(error, _)| error)?;
                sent.await?.map_err(|(error, _)| error)?;
                took.push(began.elapsed());
            }
        });
    }
    let mut latency = Histogram::<u64>::new(3)?;
    while let Some(worker) = workers.join_next().await {
        for took in worker?? {
            latency.record(u64::try_from(took.as_micros())?)?;
        }
    }
    let millis = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(json!({
        "operations": arguments.raw,
        "at_once": arguments.at_once,
        "a_second": (arguments.raw as f64 / began.elapsed().as_secs_f64()).round(),
        "p50_ms": millis(0.5),
        "p99_ms": millis(0.99),
    }))
}
