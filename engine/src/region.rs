//! Region of a node, and of the stores that it opens.
//!
//! Contract: a store takes the region of the first node that opens it and keeps it. A node of another region refuses
//! to start on it, and so does one whose keyspace and topics do not belong together; no tenant's data has been read or
//! written by then. The state store holds the region in a row, written if there is none. Topics can hold only records,
//! so with Kafka there is also a record in topic tenants, under a key that no tenant has.
//!
//! A store from before regions were bound is accepted as it is: its tenants name their region, and a node of another
//! region does not bind it.

use bytes::Bytes;
use heddle_schemas::config::{Config, LogKind};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::log::{Log, NewRecord, StoreError};
use heddle_schemas::ports::state::{State, Swap};
use heddle_schemas::record::region::RegionRecord;
use heddle_schemas::record::tenants::TenantRecord;
use heddle_schemas::record::{RecordError, V, decode, encode};
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use heddle_schemas::topic::{Topic, TopicPartition, tenant_partition};

/// Maximum number of tenants that an error names.
const NAMED: usize = 5;

/// Error of a node that refuses to start on its stores.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// The stores belong to another region.
    #[error(
        "{what} belongs to region {theirs:?}, and node.region is {here:?}: data of a region stays in it. Set \
         node.region = {theirs:?} to serve that data, or name stores of region {here:?}"
    )]
    Elsewhere {
        /// Keyspace, folder or topics.
        what: String,
        /// Region of the stores.
        theirs: String,
        /// Region of the node.
        here: String,
    },
    /// The topics belong to another keyspace.
    #[error(
        "the topics {topics:?}* are those of keyspace {theirs:?}, and state.keyspace is {here:?}: set it to {theirs:?}, \
         or another log.topic_prefix"
    )]
    Topics {
        /// Prefix of the topics' names.
        topics: String,
        /// Keyspace of the topics.
        theirs: String,
        /// Configured keyspace.
        here: String,
    },
    /// The stores hold tenants of other regions.
    #[error(
        "the stores have tenants of other regions than node.region = {here:?}, which they are not bound to yet: {named}; \
         set node.region to theirs. Stores hold the tenants of one region: where there are several, take the others \
         out with the version before"
    )]
    Tenants {
        /// Region of the node.
        here: String,
        /// Some of those tenants, with their regions.
        named: String,
    },
    /// The stored region cannot be decoded.
    #[error("the region of the stores cannot be read: {0}")]
    Unreadable(#[from] RecordError),
    /// The stores do not answer.
    #[error("the region of the stores cannot be read: {0}")]
    Store(#[from] StoreError),
}

impl RegionError {
    /// Returns whether the configuration does not match the stores.
    #[must_use]
    pub fn is_configured_wrongly(&self) -> bool {
        matches!(self, Self::Elsewhere { .. } | Self::Topics { .. } | Self::Tenants { .. })
    }
}

/// Binds stores to the node's region, or checks that they are bound to it.
///
/// # Errors
/// [`RegionError`].
pub async fn bind(
    config: &Config,
    state: &dyn State,
    log: &dyn Log,
    at: Timestamp,
) -> Result<(), RegionError> {
    let region = config.node.region.clone();
    let own = match config.log.kind {
        LogKind::Embedded => {
            RegionRecord { v: V, at, region, state: "embedded".into(), log: "embedded".into() }
        }
        LogKind::Kafka => RegionRecord {
            v: V,
            at,
            region,
            state: config.state.keyspace.clone(),
            log: config.log.topic_prefix.clone(),
        },
    };
    let what = match config.log.kind {
        LogKind::Embedded => format!("the folder {}", config.data_dir.display()),
        LogKind::Kafka => format!("keyspace {:?}", own.state),
    };
    bind_state(&own, &what, state, log).await?;
    if config.log.kind == LogKind::Kafka {
        bind_topics(&own, log).await?;
    }
    Ok(())
}

async fn bind_state(
    own: &RegionRecord,
    what: &str,
    state: &dyn State,
    log: &dyn Log,
) -> Result<(), RegionError> {
    let row = Key::region();
    let mut stored = state.get(&row).await?;
    loop {
        let found: Option<RegionRecord> = stored.as_deref().map(decode).transpose()?;
        match found {
            None => belongs_here(own, log).await?,
            Some(found) if found.region != own.region => {
                let (theirs, here) = (found.region, own.region.clone());
                return Err(RegionError::Elsewhere { what: what.to_owned(), theirs, here });
            }
            Some(found) if (&found.log, &found.state) == (&own.log, &own.state) => return Ok(()),
            // A new generation of topics.
            Some(found) => {
                tracing::info!(from = found.log, to = own.log, "the stores use other topics from now on")
            }
        }
        match state.compare_and_set(&row, stored, Some(encode(own)), None).await? {
            Swap::Done => return Ok(()),
            Swap::Found(found) => stored = found,
        }
    }
}

/// Checks that unbound stores hold no tenant of another region.
async fn belongs_here(own: &RegionRecord, log: &dyn Log) -> Result<(), RegionError> {
    let mut others = Vec::new();
    for partition in 0..log.partitions(Topic::Tenants) {
        let (records, _) = log.snapshot(TopicPartition { topic: Topic::Tenants, partition }).await?;
        // Unreadable records are reported when the tenants are loaded.
        let tenants = records.iter().filter_map(|record| decode::<TenantRecord>(&record.value).ok());
        let others_of = tenants.filter(|tenant| tenant.config.region != own.region);
        others.extend(others_of.map(|tenant| format!("{} ({:?})", tenant.config.id, tenant.config.region)));
    }
    if others.is_empty() {
        return Ok(());
    }
    others.truncate(NAMED);
    Err(RegionError::Tenants { here: own.region.clone(), named: others.join(", ") })
}

async fn bind_topics(own: &RegionRecord, log: &dyn Log) -> Result<(), RegionError> {
    let id = TenantId::engine();
    let partition = tenant_partition(Topic::Tenants, &id, log.partitions(Topic::Tenants));
    let key = Bytes::copy_from_slice(id.as_str().as_bytes());
    // Of two nodes that find nothing at the same time, the later record wins, and both read it.
    for _ in 0..2 {
        let (records, _) = log.snapshot(partition).await?;
        if let Some(record) = records.iter().find(|record| record.key == key) {
            let found: RegionRecord = decode(&record.value)?;
            if found.region != own.region {
                let (what, theirs) = (format!("topics {:?}*", own.log), found.region);
                return Err(RegionError::Elsewhere { what, theirs, here: own.region.clone() });
            }
            if found.state != own.state {
                let (topics, theirs) = (own.log.clone(), found.state);
                return Err(RegionError::Topics { topics, theirs, here: own.state.clone() });
            }
            return Ok(());
        }
        log.append(vec![NewRecord { partition, key: key.clone(), value: encode(own) }]).await?;
    }
    Err(StoreError::Unavailable { detail: "topic tenants does not show what was written to it".into() }
        .into())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use heddle_memory::{MemoryDisk, MemoryStore, TokioClock};

    use super::*;

    const AT: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn stores() -> Arc<MemoryStore> {
        let clock = Arc::new(TokioClock::starting_at(AT));
        Arc::new(MemoryStore::open(MemoryDisk::new(NonZeroU32::MIN), clock))
    }

    fn config(kind: LogKind, region: &str) -> Config {
        let mut config = Config::default();
        config.log.kind = kind;
        config.node.region = region.into();
        config
    }

    async fn bound(config: &Config, state: &Arc<MemoryStore>, log: &Arc<MemoryStore>) -> Result<(), String> {
        bind(config, &**state, &**log, AT).await.map_err(|error| {
            assert!(error.is_configured_wrongly(), "{error}");
            error.to_string()
        })
    }

    #[tokio::test]
    async fn the_first_node_binds_stores_and_one_of_another_region_is_told_what_to_do() {
        for kind in [LogKind::Embedded, LogKind::Kafka] {
            let store = stores();
            bound(&config(kind, "eu"), &store, &store).await.unwrap();
            bound(&config(kind, "eu"), &store, &store).await.unwrap();
            let why = bound(&config(kind, "us"), &store, &store).await.unwrap_err();
            assert!(
                why.contains("belongs to region \"eu\"") && why.contains("node.region = \"eu\""),
                "{why}"
            );
        }
    }

    #[tokio::test]
    async fn topics_of_another_region_or_keyspace_are_refused() {
        let (eu, us, topics) = (stores(), stores(), stores());
        bound(&config(LogKind::Kafka, "eu"), &eu, &topics).await.unwrap();
        let why = bound(&config(LogKind::Kafka, "us"), &us, &topics).await.unwrap_err();
        assert!(why.contains("topics \"heddle.\"* belongs to region \"eu\""), "{why}");
        let mut other = config(LogKind::Kafka, "eu");
        other.state.keyspace = "other".into();
        let why = bound(&other, &stores(), &topics).await.unwrap_err();
        assert!(why.contains("those of keyspace \"heddle\"") && why.contains("log.topic_prefix"), "{why}");
        // A new generation of topics belongs to the same keyspace.
        let mut next = config(LogKind::Kafka, "eu");
        next.log.topic_prefix = "heddle2.".into();
        let new_topics = stores();
        bound(&next, &eu, &new_topics).await.unwrap();
        let row: RegionRecord = decode(&eu.get(&Key::region()).await.unwrap().unwrap()).unwrap();
        assert_eq!((row.region.as_str(), row.log.as_str()), ("eu", "heddle2."));
    }

    #[tokio::test]
    async fn stores_from_before_are_not_bound_to_a_region_that_their_tenants_are_not_of() {
        let store = stores();
        let config_of =
            heddle_schemas::tenant::Tenant::from_toml("id = \"acme\"\nname = \"A\"\nregion = \"us\"\n");
        let tenant = TenantRecord {
            v: V,
            former: Vec::new(),
            retentions: 0,
            at: AT,
            config: config_of.unwrap(),
            secrets: heddle_schemas::sealed::Sealed::from_bytes(Bytes::new()),
            channels: std::collections::BTreeMap::new(),
            mac: None,
        };
        let partition = TopicPartition { topic: Topic::Tenants, partition: 0 };
        store
            .append(vec![NewRecord { partition, key: "acme".into(), value: encode(&tenant) }])
            .await
            .unwrap();
        let why = bound(&config(LogKind::Embedded, "eu"), &store, &store).await.unwrap_err();
        assert!(why.contains("acme (\"us\")"), "{why}");
        bound(&config(LogKind::Embedded, "us"), &store, &store).await.unwrap();
    }
}
