//! Durable turns a second of the whole engine on Kafka and CQL, see [`heddle_benches::turn`], and beside them,
//! in the same run, the rates of the two drivers alone: a write of equally many rows and bytes in one batch, then one
//! record produced, with as much concurrency as the engine may have in progress. The writes of a turn are read back
//! from a few turns that run before.
//!
//! It runs against real servers and makes topics and a keyspace of its own, which it leaves: for servers that
//! serve nothing else. Prints one JSON object. `cluster_turn --help` lists the options.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use heddle_benches::cluster::{Opened, Servers};
use heddle_benches::turn::{Load, Turns};
use heddle_connectors::cluster::Cluster;
use heddle_schemas::ports::log::{FetchLimit, Log as _};
use heddle_schemas::topic::{Topic, TopicPartition};
use rdkafka::producer::{FutureProducer, FutureRecord};
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::batch::{Batch, BatchType};
use scylla::value::CqlValue;
use serde::Serialize;
use serde_json::{Value, json};

// As the binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    load: Load,
    #[command(flatten)]
    servers: Servers,
    /// Operations of the drivers alone.
    #[arg(long, default_value_t = 50_000)]
    raw: usize,
    /// Number of those operations at once.
    #[arg(long, default_value_t = 512)]
    at_once: usize,
}

/// Trial turns that show what a turn writes.
const TRIED: usize = 100;

/// Writes of one turn: the mean of some.
#[derive(Debug, Clone, Serialize)]
struct Shape {
    /// Bytes of a conversation's name.
    id: usize,
    history: Rows,
    /// Rows of table conversation, by kind.
    conversation: BTreeMap<i8, Rows>,
    /// Bytes of the reply's record in outbound.
    record: usize,
}

/// The name and the value of a row.
type Stored<'a> = (&'a [u8], &'a [u8]);

/// Rows of one kind in one turn.
#[derive(Debug, Clone, Copy, Serialize)]
struct Rows {
    rows: usize,
    name: usize,
    value: usize,
}

impl Rows {
    fn of(rows: &[Stored<'_>]) -> Self {
        let mean = |bytes: usize| bytes.div_ceil(rows.len().max(1));
        Self {
            rows: (rows.len() as f64 / TRIED as f64).round() as usize,
            name: mean(rows.iter().map(|(name, _)| name.len()).sum()),
            value: mean(rows.iter().map(|(_, value)| value.len()).sum()),
        }
    }
}

impl Shape {
    async fn read(arguments: &Arguments, keyspace: &str, store: &Cluster) -> anyhow::Result<Self> {
        let session = SessionBuilder::new().known_node(&arguments.servers.cql).build().await?;
        let query = format!("SELECT id, row, value FROM {keyspace}.history");
        let history = session.query_unpaged(query, ()).await?.into_rows_result()?;
        let history: Vec<_> = history.rows::<(Vec<u8>, Vec<u8>, Vec<u8>)>()?.collect::<Result<_, _>>()?;
        let query = format!("SELECT kind, row, value FROM {keyspace}.conversation");
        let rows = session.query_unpaged(query, ()).await?.into_rows_result()?;
        let rows: Vec<_> = rows.rows::<(i8, Vec<u8>, Vec<u8>)>()?.collect::<Result<_, _>>()?;
        let mut kinds: BTreeMap<i8, Vec<Stored<'_>>> = BTreeMap::new();
        for (kind, name, value) in &rows {
            kinds.entry(*kind).or_default().push((name, value));
        }
        let (mut records, mut bytes) = (0, 0);
        for partition in 0..arguments.load.partitions.get() {
            let partition = TopicPartition { topic: Topic::Outbound, partition };
            let limit = FetchLimit { records: TRIED, bytes: 1 << 20 };
            // From the beginning: as much as there is is enough.
            let (from, end) = (0, store.end(partition).await?);
            if from < end {
                for record in store.fetch(partition, from, limit, Duration::from_secs(5)).await? {
                    records += 1;
                    bytes += record.value.len();
                }
            }
        }
        anyhow::ensure!(records > 0 && !history.is_empty(), "the trial turns wrote no record or no history");
        let of_history: Vec<_> = history.iter().map(|(_, name, value)| (&name[..], &value[..])).collect();
        Ok(Self {
            id: history.iter().map(|(id, ..)| id.len()).sum::<usize>().div_ceil(history.len()),
            history: Rows::of(&of_history),
            conversation: kinds.iter().map(|(kind, rows)| (*kind, Rows::of(rows))).collect(),
            record: bytes.div_ceil(records),
        })
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let Opened { store, prefix, keyspace } = arguments.servers.open(arguments.load.partitions).await?;
    let turns = Arc::new(Turns::open(arguments.load.clone(), store.clone(), store.clone(), None).await?);
    turns.try_out(TRIED).await?;
    let shape = Shape::read(&arguments, &keyspace, &store).await?;
    let before = raw(&arguments, &prefix, &keyspace, &shape).await?;
    let mut result = turns.measure().await?;
    store.close().await;
    let after = raw(&arguments, &prefix, &keyspace, &shape).await?;
    let a_second = |raw: &Value| raw["a_second"].as_f64().unwrap_or(f64::NAN);
    let drivers = f64::midpoint(a_second(&before), a_second(&after));
    let warm = result["warm"]["turns_per_second"].as_f64().unwrap_or(f64::NAN);
    result["bench"] = "cluster_turn".into();
    result["a_turn_writes"] = serde_json::to_value(&shape)?;
    result["drivers_before"] = before;
    result["drivers_after"] = after;
    result["drivers_by_warm_turns"] = json!(drivers / warm);
    println!("{}", serde_json::to_string_pretty(&result)?);
    Ok(())
}

/// One batch written and then one record produced, again and again, by the drivers alone.
async fn raw(arguments: &Arguments, prefix: &str, keyspace: &str, shape: &Shape) -> anyhow::Result<Value> {
    let session = Arc::new(SessionBuilder::new().known_node(&arguments.servers.cql).build().await?);
    let producer: FutureProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &arguments.servers.kafka)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .create()?;
    let conversation = session
        .prepare(format!(
            "INSERT INTO {keyspace}.conversation (tenant, id, kind, row, value, expires) \
             VALUES ('raw', ?, ?, ?, ?, ?) USING TTL 864000"
        ))
        .await?;
    let history = session
        .prepare(format!(
            "INSERT INTO {keyspace}.history (tenant, id, row, value, expires) VALUES ('raw', ?, ?, ?, ?) \
             USING TTL 2592000"
        ))
        .await?;
    let mut batch = Batch::new(BatchType::Unlogged);
    for _ in 0..shape.history.rows {
        batch.append_statement(history.clone());
    }
    for rows in shape.conversation.values() {
        for _ in 0..rows.rows {
            batch.append_statement(conversation.clone());
        }
    }
    let (batch, topic) = (Arc::new(batch), format!("{prefix}events"));
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..arguments.at_once {
        let (session, producer, batch) = (session.clone(), producer.clone(), batch.clone());
        let (topic, next, raw) = (topic.clone(), next.clone(), arguments.raw);
        let partitions = i32::try_from(arguments.load.partitions.get())?;
        let (conversations, shape) = (arguments.load.conversations, shape.clone());
        workers.spawn(async move {
            let mut took = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= raw {
                    return anyhow::Ok(took);
                }
                let began = Instant::now();
                let id = format!("{:0width$}", number % conversations, width = shape.id).into_bytes();
                let named = |rows: &Rows, row: usize| {
                    format!("{number:0width$}{row}", width = rows.name).into_bytes()
                };
                let mut values: Vec<Vec<CqlValue>> = Vec::new();
                for row in 0..shape.history.rows {
                    values.push(vec![
                        CqlValue::Blob(id.clone()),
                        CqlValue::Blob(named(&shape.history, row)),
                        CqlValue::Blob(vec![7; shape.history.value]),
                        CqlValue::BigInt(i64::MAX),
                    ]);
                }
                for (kind, rows) in &shape.conversation {
                    for row in 0..rows.rows {
                        // The head is the one row without a name: written again and again.
                        let name = if rows.name == 0 { Vec::new() } else { named(rows, row) };
                        values.push(vec![
                            CqlValue::Blob(id.clone()),
                            CqlValue::TinyInt(*kind),
                            CqlValue::Blob(name),
                            CqlValue::Blob(vec![7; rows.value]),
                            CqlValue::BigInt(i64::MAX),
                        ]);
                    }
                }
                session.batch(&batch, values).await?;
                let payload = vec![7_u8; shape.record];
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
