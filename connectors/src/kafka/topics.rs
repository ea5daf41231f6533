//! Required settings of the topics, the differences from them, and their creation.
//!
//! A topic is created once: the number of its partitions decides the partition of a conversation, so a
//! wrong number is refused and never changed. Settings of a topic are compared and can be set again.
//!
//! Settings that bound a record's age are refused if they are looser than `log.retention`: the brokers delete a
//! segment, the active one as well, when its newest record is older than `retention.ms`, and end one `segment.ms`
//! after its first record (`UnifiedLog.deleteRetentionMsBreachedSegments`, `LogSegment.shouldRoll` of apache/kafka).
//! The tenants are held against the same bound, [`retention::oldest`], so a topic within it keeps every promise.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use heddle_schemas::retention;
use heddle_schemas::topic::Topic;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::client::{Causes, Connection};
use super::names::Names;
use super::{OpenError, Options};

const REQUEST: Duration = Duration::from_secs(10);
/// Maximum time before a replaced record of a compacted topic becomes due for compaction.
const REPLACED: Duration = Duration::from_secs(86_400);

/// Required settings of the topics.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Copies of each partition.
    pub replication: u32,
    /// Retention of records.
    pub retention: Duration,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// The topic is not there.
    Missing {
        /// Its name.
        topic: String,
        /// The partitions it is to have.
        partitions: u32,
    },
    /// It has another number of partitions, which cannot be changed.
    Partitions {
        /// Its name.
        topic: String,
        /// Required number of partitions.
        wanted: u32,
        /// Actual number of partitions.
        found: usize,
    },
    /// It has too few copies: kafka-reassign-partitions corrects it.
    Replication {
        /// Its name.
        topic: String,
        /// Required replication factor.
        wanted: u32,
        /// The fewest of any partition.
        found: usize,
    },
    /// A setting differs.
    Setting {
        /// Its name.
        topic: String,
        /// The setting.
        setting: String,
        /// Required value.
        wanted: String,
        /// Actual value.
        found: String,
    },
}

impl Difference {
    /// Returns true if [`apply`] can correct it.
    #[must_use]
    pub fn is_mendable(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Setting { .. })
    }

    /// Returns true if the engine refuses to start: it would lose records, or keep them longer than promised.
    fn is_fatal(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Partitions { .. } => true,
            Self::Replication { .. } => true,
            Self::Setting { setting, wanted, found, .. } => match setting.as_str() {
                "retention.ms" | "segment.ms" => {
                    let millis = |text: &str| text.parse::<i64>().ok().filter(|&millis| millis >= 0);
                    millis(found).is_none_or(|found| millis(wanted).is_some_and(|wanted| found > wanted))
                }
                "min.insync.replicas" => found
                    .parse::<u32>()
                    .ok()
                    .is_none_or(|found| wanted.parse().is_ok_and(|wanted| found < wanted)),
                "cleanup.policy" | "unclean.leader.election.enable" => true,
                _ => false,
            },
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { topic, partitions } => {
                write!(f, "{topic}: is missing; it is to have {partitions} partitions")
            }
            Self::Partitions { topic, wanted, found } => write!(
                f,
                "{topic}: has {found} partitions, and log.partitions says {wanted}; a conversation's place \
                 depends on it, so set log.partitions to {found}, or another log.topic_prefix for a new \
                 generation of topics"
            ),
            Self::Replication { topic, wanted, found } => write!(
                f,
                "{topic}: has {found} copies, and log.replication says {wanted}: the loss of a disk would lose accepted \
                 records; kafka-reassign-partitions adds copies (log.replication = {found} is for development)"
            ),
            Self::Setting { topic, setting, wanted, found } => {
                write!(f, "{topic}: {setting} is {found}, and should be {wanted}")?;
                match setting.as_str() {
                    _ if !self.is_fatal() => Ok(()),
                    "retention.ms" | "segment.ms" => f.write_str(
                        ": records would be kept for longer than tenants are promised; `heddle topics apply` sets \
                         it, or raise log.retention, as far as every tenant's [retention] allows",
                    ),
                    "min.insync.replicas" | "unclean.leader.election.enable" => {
                        f.write_str(": accepted records could be lost with a broker; `heddle topics apply` sets it")
                    }
                    _ => f.write_str(
                        ": no record, or one that is still needed, would be deleted; `heddle topics apply` sets it",
                    ),
                }
            }
        }
    }
}

/// Returns the required settings of a topic.
fn settings(topic: Topic, policy: &Policy, max_record_bytes: usize) -> BTreeMap<&'static str, String> {
    let mut settings = BTreeMap::from([
        ("max.message.bytes", max_record_bytes.to_string()),
        // With three copies, a record on two is durable; with fewer copies one has to suffice.
        ("min.insync.replicas", if policy.replication >= 3 { "2" } else { "1" }.to_owned()),
        ("unclean.leader.election.enable", "false".to_owned()),
    ]);
    if topic.is_compacted() {
        settings.insert("cleanup.policy", "compact".to_owned());
        // Without a bound, what a tenant replaced stays until half of the topic is such. It also bounds the time for
        // which a segment takes records, of which the last one is never compacted; but only a further record ends it
        // (`max.compaction.lag.ms` in Kafka's TopicConfig).
        let lag = REPLACED.as_millis().to_string();
        settings.insert("max.compaction.lag.ms", lag.clone());
        settings.insert("delete.retention.ms", lag);
        return settings;
    }
    let kept = policy.retention;
    settings.insert("cleanup.policy", "delete".to_owned());
    settings.insert("retention.ms", kept.as_millis().to_string());
    // Records go a segment at a time, so a segment must not outlast the retention by much.
    settings.insert("segment.ms", retention::segment_age(kept).as_millis().to_string());
    settings
}

/// Returns the differences of the topics from their required settings.
///
/// # Errors
/// When the brokers do not answer.
pub async fn diff(options: &Options) -> Result<Vec<Difference>, OpenError> {
    let policy = &options.policy;
    let metadata = metadata(&options.connection).await?;
    let names = Names::new(&options.prefix, options.partitions.get());
    let mut differences = shape(&metadata, &names, policy.replication);
    let there: Vec<_> =
        Topic::ALL.into_iter().filter(|&topic| is_there(&metadata, names.of(topic))).collect();
    let admin = admin(&options.connection)?;
    let resources: Vec<_> = there.iter().map(|&topic| ResourceSpecifier::Topic(names.of(topic))).collect();
    if resources.is_empty() {
        return Ok(differences);
    }
    let described = admin.describe_configs(&resources, &timeouts()).await?;
    for (topic, described) in there.into_iter().zip(described) {
        let described = described.map_err(KafkaError::AdminOp)?;
        for (setting, wanted) in settings(topic, policy, options.max_record_bytes) {
            let found = described.get(setting).and_then(|entry| entry.value.clone()).unwrap_or_default();
            if found != wanted {
                let (topic, setting) = (names.of(topic).to_owned(), setting.to_owned());
                differences.push(Difference::Setting { topic, setting, wanted, found });
            }
        }
    }
    Ok(differences)
}

/// Creates missing topics and sets settings that differ. Returns the differences it has corrected.
///
/// # Errors
/// When the brokers do not answer, or refuse.
pub async fn apply(options: &Options) -> Result<Vec<Difference>, OpenError> {
    let policy = &options.policy;
    let names = Names::new(&options.prefix, options.partitions.get());
    let admin = admin(&options.connection)?;
    let mut mended = Vec::new();
    let mut differing = BTreeMap::new();
    for difference in diff(options).await? {
        match &difference {
            Difference::Missing { topic, partitions } => {
                let of = names.topic(topic).expect("only own topics differ");
                let settings = settings(of, policy, options.max_record_bytes);
                let replication = TopicReplication::Fixed(i32::try_from(policy.replication).unwrap_or(1));
                let mut new =
                    NewTopic::new(topic, i32::try_from(*partitions).unwrap_or(i32::MAX), replication);
                for (setting, value) in &settings {
                    new = new.set(setting, value);
                }
                for created in admin.create_topics([&new], &timeouts()).await? {
                    match created {
                        // Another process was faster.
                        Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                        Err((topic, error)) => return Err(refused(&topic, error)),
                    }
                }
                mended.push(difference);
            }
            Difference::Setting { topic, .. } => {
                differing.insert(topic.clone(), names.topic(topic).expect("only own topics differ"));
                mended.push(difference);
            }
            Difference::Partitions { .. } | Difference::Replication { .. } => {}
        }
    }
    for (name, topic) in differing {
        // All of a topic's settings are set at once: the request replaces the existing ones.
        let settings = settings(topic, policy, options.max_record_bytes);
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&name));
        for (setting, value) in &settings {
            change = change.set(setting, value);
        }
        for altered in admin.alter_configs([&change], &timeouts()).await? {
            altered.map_err(|(_, error)| refused(&name, error))?;
        }
    }
    if mended.iter().any(|one| matches!(one, Difference::Missing { .. })) {
        settled(options, &names).await?;
    }
    Ok(mended)
}

/// Waits until every broker that is contacted knows the new topics: their creation is acknowledged before that.
async fn settled(options: &Options, names: &Names) -> Result<(), OpenError> {
    for _ in 0..100 {
        let metadata = metadata(&options.connection).await?;
        if Topic::ALL.into_iter().all(|topic| is_there(&metadata, names.of(topic))) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(OpenError::Topics(vec!["the brokers have made topics but do not name them".to_owned()]))
}

/// Refuses to start on topics that are missing or cut otherwise.
pub(super) async fn check(options: &Options) -> Result<(), OpenError> {
    let differences = diff(options).await?;
    for difference in differences.iter().filter(|one| !one.is_fatal()) {
        tracing::warn!("{difference}; `heddle topics diff` shows details");
    }
    let faults: Vec<_> = differences.iter().filter(|one| one.is_fatal()).map(ToString::to_string).collect();
    if faults.is_empty() { Ok(()) } else { Err(OpenError::Topics(faults)) }
}

fn shape(metadata: &Metadata, names: &Names, replication: u32) -> Vec<Difference> {
    let mut differences = Vec::new();
    for topic in Topic::ALL {
        let name = names.of(topic);
        let wanted = names.partitions(topic);
        if !is_there(metadata, name) {
            differences.push(Difference::Missing { topic: name.to_owned(), partitions: wanted });
            continue;
        }
        let Some(found) = metadata.topics().iter().find(|found| found.name() == name) else { continue };
        let partitions = found.partitions();
        if partitions.len() != wanted as usize {
            let found = partitions.len();
            differences.push(Difference::Partitions { topic: name.to_owned(), wanted, found });
        }
        let copies = partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        if copies < replication as usize {
            let topic = name.to_owned();
            differences.push(Difference::Replication { topic, wanted: replication, found: copies });
        }
    }
    differences
}

fn is_there(metadata: &Metadata, name: &str) -> bool {
    metadata.topics().iter().any(|topic| topic.name() == name && !topic.partitions().is_empty())
}

async fn metadata(connection: &Connection) -> Result<Metadata, OpenError> {
    let consumer: BaseConsumer<Causes> = connection.config().create_with_context(Causes::default())?;
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(None, REQUEST);
        if metadata.is_err() {
            // What the client's threads log waits in its queue.
            for _ in 0..100 {
                drop(consumer.poll(Duration::ZERO));
            }
        }
        (metadata, consumer.context().take())
    });
    let brokers = connection.brokers.join(", ");
    match asked.await {
        Ok((Ok(metadata), _)) => Ok(metadata),
        Ok((Err(error), causes)) if causes.is_empty() => {
            Err(OpenError::Unreachable { brokers, why: error.to_string() })
        }
        Ok((Err(_), causes)) => {
            let why = causes.join("; ");
            // Both words are in librdkafka's lines of the phases that follow the connection.
            let refused = ["SSL", "SASL", "security.protocol", "uthentication", "Disconnected"];
            if refused.iter().any(|word| why.contains(word)) {
                Err(OpenError::Refused { brokers, why })
            } else {
                Err(OpenError::Unreachable { brokers, why })
            }
        }
        Err(error) => Err(OpenError::Unreachable { brokers, why: error.to_string() }),
    }
}

fn admin(connection: &Connection) -> Result<AdminClient<DefaultClientContext>, KafkaError> {
    connection.config().create()
}

fn timeouts() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST))
}

fn refused(topic: &str, error: RDKafkaErrorCode) -> OpenError {
    OpenError::Topics(vec![format!("{topic}: the brokers refuse: {error}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn differs(setting: &str, wanted: &str, found: &str) -> Difference {
        let [setting, wanted, found] = [setting, wanted, found].map(str::to_owned);
        Difference::Setting { topic: "heddle.inbound".to_owned(), setting, wanted, found }
    }

    #[test]
    fn what_lets_a_broker_lose_accepted_records_is_refused() {
        for (setting, wanted, found, is_fatal) in [
            ("min.insync.replicas", "2", "1", true),
            ("min.insync.replicas", "2", "", true),
            ("min.insync.replicas", "1", "2", false),
            ("unclean.leader.election.enable", "false", "true", true),
            ("max.message.bytes", "1000000", "2000000", false),
        ] {
            let difference = differs(setting, wanted, found);
            assert_eq!(difference.is_fatal(), is_fatal, "{difference}");
            assert!(!is_fatal || difference.to_string().contains("heddle topics apply"), "{difference}");
        }
        let copies = Difference::Replication { topic: "heddle.inbound".into(), wanted: 3, found: 1 };
        assert!(copies.is_fatal() && copies.to_string().contains("development"), "{copies}");
    }

    #[test]
    fn a_setting_that_lets_records_outlive_a_promise_is_refused_with_its_remedy() {
        for setting in ["retention.ms", "segment.ms"] {
            // Longer, unlimited, and empty.
            for found in ["86400001", "-1", ""] {
                let difference = differs(setting, "86400000", found);
                assert!(difference.is_fatal(), "{difference}");
                let text = difference.to_string();
                assert!(text.contains("heddle topics apply") && text.contains("log.retention"), "{text}");
            }
            let stricter = differs(setting, "86400000", "3600000");
            assert!(!stricter.is_fatal(), "{stricter}");
            assert!(stricter.to_string().ends_with("should be 86400000"), "{stricter}");
        }
        assert!(differs("cleanup.policy", "delete", "compact").is_fatal());
    }

    #[test]
    fn a_topic_that_is_as_it_has_to_be_keeps_records_no_longer_than_tenants_are_held_against() {
        let policy = Policy { replication: 1, retention: DAY };
        for topic in [Topic::Ingress, Topic::Inbound, Topic::Outbound, Topic::Events, Topic::Dlq] {
            let settings = settings(topic, &policy, 1_000_000);
            let millis = |setting: &str| settings[setting].parse::<u64>().unwrap();
            // The first record of a segment goes with the last, which came at most a segment's age later.
            let oldest = Duration::from_millis(millis("retention.ms") + millis("segment.ms"));
            assert!(oldest <= retention::oldest(DAY), "{topic}");
            assert_eq!(settings["cleanup.policy"], "delete");
        }
    }
}
