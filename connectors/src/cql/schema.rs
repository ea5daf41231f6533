//! Keyspace and tables: the schema that this build works on, the differences of a cluster from it, and migrations.
//!
//! The tables are created by numbered migrations. Each is a list of statements that do nothing if they were
//! applied before, so an interrupted migration is run again; its number is recorded when it is
//! done, with a conditional write, and only missing migrations are run. Processes that apply at the same time
//! take turns, as soon as the table for that exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use heddle_schemas::ports::log::StoreError;
use scylla::client::session::Session;
use scylla::deserialize::row::DeserializeRow;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryRowsResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::Consistency;
use scylla::statement::unprepared::Statement;

use super::statements::Profiles;
use super::{OpenError, Options, Replication, fault, session, tablets};

/// The strategy that both databases have for every number of datacenters.
const STRATEGY: &str = "NetworkTopologyStrategy";
/// Time in seconds that a process that died while applying keeps others waiting.
const TURN: i32 = 60;
/// Time that a turn is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Interval between attempts to take a turn.
const PAUSE: Duration = Duration::from_millis(200);
/// The row of `schema_version` that stands for the turn; migrations begin at 1.
const TURN_ROW: i32 = 0;

/// Step from one version of the tables to the next. A published migration is never changed.
struct Migration {
    number: u32,
    tables: &'static [Table],
}

/// A table that a migration makes.
struct Table {
    name: &'static str,
    columns: &'static str,
    with: &'static str,
}

const VERSIONS: Table = Table {
    name: "schema_version",
    columns: "version int PRIMARY KEY, applied_at timestamp, holder text",
    with: "comment = 'Migrations that are done'",
};

/// Every migration, in order.
///
/// Tables whose rows are overwritten repeatedly, or expire each at its own time, are compacted by levels: a
/// read then touches one file a level. History is written once and expires in the order it was written in:
/// time windows drop whole files. Tombstones are kept for ten days (the default of both databases), so a node
/// may be down for that long before it must be repaired; where rows come and go by the second, for an
/// hour: an entry that comes back from a node that was down longer is checked once more and deleted.
const MIGRATIONS: [Migration; 4] = [FIRST, SPENDS, REGISTERS, MEMBERS];

const FIRST: Migration = Migration {
    number: 1,
    tables: &[
        Table {
            name: "conversation",
            columns: "tenant text, id blob, kind tinyint, row blob, value blob, expires bigint, \
                      PRIMARY KEY ((tenant, id), kind, row)",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 864000",
        },
        Table {
            name: "history",
            columns: "tenant text, id blob, row blob, value blob, expires bigint, \
                      PRIMARY KEY ((tenant, id), row)",
            with: "CLUSTERING ORDER BY (row DESC) AND compaction = {'class': 'TimeWindowCompactionStrategy', \
                   'compaction_window_unit': 'DAYS', 'compaction_window_size': '1'} \
                   AND gc_grace_seconds = 864000",
        },
        Table {
            name: "account",
            columns: "tenant text, id blob, row blob, value blob, expires bigint, \
                      PRIMARY KEY ((tenant, id), row)",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 3600",
        },
        Table {
            name: "send",
            columns: "tenant text, id blob, row blob, value blob, expires bigint, \
                      PRIMARY KEY ((tenant, id, row))",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 864000",
        },
        Table {
            name: "record",
            columns: "tenant text, id blob, kind tinyint, value blob, expires bigint, \
                      PRIMARY KEY ((tenant, id, kind))",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 864000",
        },
        Table {
            name: "document",
            columns: "tenant text, id blob, row blob, value blob, expires bigint, \
                      PRIMARY KEY ((tenant, id), row)",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 864000",
        },
        Table {
            name: "agenda",
            columns: "topic text, partition int, bucket bigint, row blob, value blob, expires bigint, \
                      PRIMARY KEY ((topic, partition, bucket), row)",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 3600",
        },
        Table {
            name: "agenda_bucket",
            columns: "topic text, partition int, bucket bigint, PRIMARY KEY ((topic, partition), bucket)",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 3600",
        },
        Table {
            name: "ownership",
            columns: "topic text, partition int, epoch bigint, owner text, lease bigint, block_end bigint, \
                      PRIMARY KEY ((topic, partition))",
            with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 864000",
        },
    ],
};

/// Quota spend: written twice within minutes, and kept until long after its month.
const SPENDS: Migration = Migration {
    number: 2,
    tables: &[Table {
        name: "spend",
        columns: "tenant text, id blob, row blob, value blob, expires bigint, PRIMARY KEY ((tenant, id), row)",
        with: "compaction = {'class': 'TimeWindowCompactionStrategy', 'compaction_window_unit': 'DAYS', \
               'compaction_window_size': '1'} AND gc_grace_seconds = 864000",
    }],
};

/// Erasures and the audit log: few rows, read in order, and never lost.
const REGISTERS: Migration = Migration {
    number: 3,
    tables: &[Table {
        name: "register",
        columns: "tenant text, id blob, kind tinyint, row blob, value blob, expires bigint, \
                  PRIMARY KEY ((tenant, id), kind, row)",
        with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 864000",
    }],
};

/// Members of audiences: written by imports, a million at a time, and read from the first to the last.
const MEMBERS: Migration = Migration {
    number: 4,
    tables: &[Table {
        name: "member",
        columns: "tenant text, id blob, row blob, value blob, expires bigint, PRIMARY KEY ((tenant, id), row)",
        with: "compaction = {'class': 'LeveledCompactionStrategy'} AND gc_grace_seconds = 864000",
    }],
};

/// The newest version.
const NEWEST: u32 = MIGRATIONS[MIGRATIONS.len() - 1].number;

impl Table {
    fn create(&self, keyspace: &str) -> String {
        let Self { name, columns, with } = self;
        format!("CREATE TABLE IF NOT EXISTS {keyspace}.{name} ({columns}) WITH {with}")
    }
}

/// Required replication of a keyspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This number of copies in every datacenter.
    Everywhere(NonZeroU32),
    /// The given number of copies in each of these datacenters, and none elsewhere.
    Exactly(BTreeMap<String, NonZeroU32>),
}

impl Wanted {
    /// As CQL's map.
    fn cql(&self) -> String {
        let factors = match self {
            Self::Everywhere(factor) => format!("'replication_factor': {factor}"),
            Self::Exactly(datacenters) => {
                let factors = datacenters.iter().map(|(name, factor)| format!("'{name}': {factor}"));
                factors.collect::<Vec<_>>().join(", ")
            }
        };
        format!("{{'class': '{STRATEGY}', {factors}}}")
    }

    /// Returns true if a keyspace is replicated so. Databases record `replication_factor` as one factor for
    /// each datacenter that existed.
    fn is(&self, found: &Replication, datacenters: &BTreeSet<String>) -> bool {
        if found.class != STRATEGY {
            return false;
        }
        match self {
            Self::Exactly(wanted) => {
                let wanted: BTreeMap<_, _> = wanted.iter().map(|(name, n)| (name.clone(), n.get())).collect();
                wanted == found.factors
            }
            Self::Everywhere(factor) => {
                let as_written = found.factors.get("replication_factor") == Some(&factor.get());
                let everywhere =
                    datacenters.iter().all(|name| found.factors.get(name) == Some(&factor.get()));
                as_written || everywhere && found.factors.values().all(|found| *found == factor.get())
            }
        }
    }
}

impl fmt::Display for Replication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let factors: Vec<_> = self.factors.iter().map(|(name, factor)| format!("{name}: {factor}")).collect();
        write!(f, "{} ({})", self.class, factors.join(", "))
    }
}

/// Something that a cluster lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The keyspace does not exist.
    Keyspace {
        /// The statement that makes it.
        cql: String,
    },
    /// The keyspace is replicated in another way than is configured.
    Replication {
        /// Current replication.
        found: Replication,
        /// Statement that changes it. Stored data gets to its new places by a repair.
        cql: String,
    },
    /// The table does not exist.
    Table {
        /// Its name.
        name: &'static str,
        /// The statement that makes it.
        cql: String,
    },
    /// A migration is not written down as done.
    Migration {
        /// Its number.
        number: u32,
    },
}

impl Change {
    /// The statement that makes it so; a migration's number is written down by `apply` itself.
    #[must_use]
    pub fn cql(&self) -> Option<&str> {
        match self {
            Self::Keyspace { cql } | Self::Replication { cql, .. } | Self::Table { cql, .. } => Some(cql),
            Self::Migration { .. } => None,
        }
    }

    fn is_before_turns(&self) -> bool {
        match self {
            Self::Keyspace { .. } => true,
            Self::Table { name, .. } => *name == VERSIONS.name,
            Self::Replication { .. } | Self::Migration { .. } => false,
        }
    }

    fn needs_turn(&self) -> bool {
        !self.is_before_turns() && !matches!(self, Self::Replication { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keyspace { .. } => f.write_str("create the keyspace"),
            Self::Replication { found, .. } => write!(f, "change the replication, which is {found}"),
            Self::Table { name, .. } => write!(f, "create the table {name}"),
            Self::Migration { number } => write!(f, "write down that migration {number} is done"),
        }
    }
}

/// The schema of a cluster.
#[derive(Debug)]
pub struct Schema {
    session: Session,
    keyspace: String,
    wanted: Wanted,
}

impl Schema {
    /// Connects to a cluster. The keyspace need not be there.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn connect(options: &Options, wanted: Wanted) -> Result<Self, OpenError> {
        // Tables take longer than rows.
        let options = Options { timeout: options.timeout.max(Duration::from_secs(30)), ..options.clone() };
        let session = session::connect(&options, &Profiles::new(&options)).await?;
        Ok(Self { session, keyspace: options.keyspace, wanted })
    }

    /// Returns the parts of the schema that the cluster lacks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn diff(&self) -> Result<Vec<Change>, OpenError> {
        let Self { session, keyspace, wanted } = self;
        let mut changes = Vec::new();
        match replication(session, keyspace).await? {
            None => {
                let (replication, tablets) = (wanted.cql(), tablets::clause(session).await);
                let cql = format!(
                    "CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = {replication}{tablets}"
                );
                changes.push(Change::Keyspace { cql });
            }
            Some(found) if !wanted.is(&found, &session::datacenters(session)) => {
                let cql = format!("ALTER KEYSPACE {keyspace} WITH replication = {}", wanted.cql());
                changes.push(Change::Replication { found, cql });
            }
            Some(_) => {}
        }
        let there = tables(session, keyspace).await?;
        let tables = [&VERSIONS].into_iter().chain(MIGRATIONS.iter().flat_map(|one| one.tables));
        let missing = tables.filter(|table| !there.contains(table.name));
        changes.extend(missing.map(|table| Change::Table { name: table.name, cql: table.create(keyspace) }));
        let done = done(session, keyspace, &there).await?;
        let missing = MIGRATIONS.iter().map(|migration| migration.number).filter(|one| !done.contains(one));
        changes.extend(missing.map(|number| Change::Migration { number }));
        Ok(changes)
    }

    /// Creates the parts that the cluster lacks, and returns the changes. Several processes may do this at once.
    ///
    /// # Errors
    /// [`OpenError`]; changes made until then stay, and the call may be repeated.
    pub async fn apply(&self) -> Result<Vec<Change>, OpenError> {
        let mut applied = Vec::new();
        // The table for turns comes first, without a turn.
        self.make_each(&mut applied, Change::is_before_turns).await?;
        if self.diff().await?.iter().any(Change::needs_turn) {
            let holder = self.session.session_id().to_string();
            self.take_turn(&holder).await?;
            let made = self.make_each(&mut applied, Change::needs_turn).await;
            let ended = self.end_turn(&holder).await;
            made?;
            ended?;
        }
        // Last, because with more copies than nodes there is no quorum for anything else.
        self.make_each(&mut applied, |change| matches!(change, Change::Replication { .. })).await?;
        Ok(applied)
    }

    async fn make_each(
        &self,
        applied: &mut Vec<Change>,
        which: impl Fn(&Change) -> bool,
    ) -> Result<(), OpenError> {
        for change in self.diff().await?.into_iter().filter(which) {
            self.make(&change).await?;
            applied.push(change);
        }
        Ok(())
    }

    async fn make(&self, change: &Change) -> Result<(), OpenError> {
        match change {
            Change::Migration { number } => {
                let number = i32::try_from(*number).unwrap_or(i32::MAX);
                let cql = "INSERT INTO {}.schema_version (version, applied_at) \
                           VALUES (?, toTimestamp(now())) IF NOT EXISTS";
                self.run(&change.to_string(), cql, (number,)).await.map(drop)
            }
            _ => {
                // The driver waits until all nodes agree on the schema.
                let cql = change.cql().unwrap_or_default().to_owned();
                let made = self.session.query_unpaged(cql, ()).await;
                made.map(drop).map_err(|error| fault::unavailable(&change.to_string(), &error).into())
            }
        }
    }

    async fn take_turn(&self, holder: &str) -> Result<(), OpenError> {
        let cql = "INSERT INTO {}.schema_version (version, holder) VALUES (?, ?) IF NOT EXISTS USING TTL ?";
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            let answer = self.run("take turns", cql, (TURN_ROW, holder, TURN)).await?;
            if super::conditional::Answer::read("take turns", answer)?.applied()? {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        let detail = format!("another process has been applying the schema for {PATIENCE:?}");
        Err(StoreError::Unavailable { detail }.into())
    }

    async fn end_turn(&self, holder: &str) -> Result<(), OpenError> {
        let cql = "DELETE FROM {}.schema_version WHERE version = ? IF holder = ?";
        self.run("end a turn", cql, (TURN_ROW, holder)).await.map(drop)
    }

    async fn run(
        &self,
        what: &str,
        cql: &str,
        values: impl SerializeRow,
    ) -> Result<scylla::response::query_result::QueryResult, OpenError> {
        let cql = cql.replace("{}", &self.keyspace);
        let answer = self.session.query_unpaged(cql, values).await;
        answer.map_err(|error| fault::unavailable(what, &error).into())
    }
}

/// Checks that a keyspace has the schema of this build.
pub(super) async fn check(session: &Session, keyspace: &str) -> Result<(), OpenError> {
    let lacks = |missing: String| OpenError::Schema { keyspace: keyspace.to_owned(), missing };
    if replication(session, keyspace).await?.is_none() {
        return Err(OpenError::Schema {
            keyspace: keyspace.to_owned(),
            missing: "everything: it is not there".into(),
        });
    }
    tablets::check(session, keyspace).await?;
    let there = tables(session, keyspace).await?;
    let done = done(session, keyspace, &there).await?;
    if let Some(&found) = done.last().filter(|&&newest| newest > NEWEST) {
        return Err(OpenError::Newer { keyspace: keyspace.to_owned(), found, known: NEWEST });
    }
    if let Some(migration) = MIGRATIONS.iter().find(|migration| !done.contains(&migration.number)) {
        return Err(lacks(format!("migration {}", migration.number)));
    }
    let mut tables = MIGRATIONS.iter().flat_map(|migration| migration.tables);
    match tables.find(|table| !there.contains(table.name)) {
        Some(table) => Err(lacks(format!("the table {}", table.name))),
        None => Ok(()),
    }
}

/// Reads the replication of a keyspace; `None` if it does not exist.
pub(super) async fn replication(
    session: &Session,
    keyspace: &str,
) -> Result<Option<Replication>, StoreError> {
    let what = "read replication";
    let cql = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = ?";
    let rows = select(session, what, cql, (keyspace,), Consistency::LocalOne).await?;
    let row = rows.maybe_first_row::<(BTreeMap<String, String>,)>();
    let Some((mut map,)) = row.map_err(|error| fault::corrupt(what, error))? else { return Ok(None) };
    let class = map.remove("class").unwrap_or_default();
    let class = class.rsplit('.').next().unwrap_or_default().to_owned();
    let factors = map.into_iter().map(|(name, factor)| {
        // A transient copy (`3/1`) is none that a quorum may count on.
        let factor = factor.split('/').next().unwrap_or_default().parse();
        Ok((name, factor.map_err(|error| fault::corrupt(what, error))?))
    });
    Ok(Some(Replication { class, factors: factors.collect::<Result<_, StoreError>>()? }))
}

/// The tables of a keyspace.
async fn tables(session: &Session, keyspace: &str) -> Result<BTreeSet<String>, StoreError> {
    let what = "read tables";
    let cql = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = ?";
    let rows = select(session, what, cql, (keyspace,), Consistency::LocalOne).await?;
    let names = all::<(String,)>(what, &rows)?;
    Ok(names.into_iter().map(|(name,)| name).collect())
}

/// The migrations that are done.
async fn done(
    session: &Session,
    keyspace: &str,
    there: &BTreeSet<String>,
) -> Result<BTreeSet<u32>, StoreError> {
    if !there.contains(VERSIONS.name) {
        return Ok(BTreeSet::new());
    }
    let what = "read schema_version";
    let cql = format!("SELECT version FROM {keyspace}.schema_version");
    let rows = select(session, what, &cql, (), Consistency::LocalQuorum).await?;
    let numbers = all::<(i32,)>(what, &rows)?.into_iter().map(|(number,)| number);
    Ok(numbers.filter(|&number| number != TURN_ROW).filter_map(|number| u32::try_from(number).ok()).collect())
}

async fn select(
    session: &Session,
    what: &str,
    cql: &str,
    values: impl SerializeRow,
    consistency: Consistency,
) -> Result<QueryRowsResult, StoreError> {
    let mut statement = Statement::new(cql);
    statement.set_consistency(consistency);
    statement.set_is_idempotent(true);
    let answer: Result<_, ExecutionError> = session.query_unpaged(statement, values).await;
    let answer = answer.map_err(|error| fault::unavailable(what, &error))?;
    answer.into_rows_result().map_err(|error| fault::corrupt(what, error))
}

fn all<R>(what: &str, rows: &QueryRowsResult) -> Result<Vec<R>, StoreError>
where
    R: for<'f> DeserializeRow<'f, 'f>,
{
    let rows = rows.rows::<R>().map_err(|error| fault::corrupt(what, error))?;
    rows.collect::<Result<_, _>>().map_err(|error| fault::corrupt(what, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(factors: &[(&str, u32)]) -> Replication {
        let factors = factors.iter().map(|&(name, factor)| (name.to_owned(), factor)).collect();
        Replication { class: STRATEGY.into(), factors }
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn replication_everywhere_is_so_many_in_each_datacenter() {
        let wanted = Wanted::Everywhere(NonZeroU32::new(3).unwrap());
        assert_eq!(wanted.cql(), "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}");
        assert!(wanted.is(&found(&[("dc1", 3)]), &names(&["dc1"])));
        assert!(!wanted.is(&found(&[("dc1", 3)]), &names(&["dc1", "dc2"])), "a datacenter came since");
        assert!(!wanted.is(&found(&[("dc1", 3), ("dc2", 2)]), &names(&["dc1", "dc2"])));
        let simple = Replication { class: "SimpleStrategy".into(), ..found(&[("replication_factor", 3)]) };
        assert!(!wanted.is(&simple, &names(&["dc1"])));
    }

    #[test]
    fn named_datacenters_are_exactly_those() {
        let wanted = Wanted::Exactly(BTreeMap::from([("dc1".to_owned(), NonZeroU32::new(3).unwrap())]));
        assert_eq!(wanted.cql(), "{'class': 'NetworkTopologyStrategy', 'dc1': 3}");
        assert!(wanted.is(&found(&[("dc1", 3)]), &names(&["dc1", "dc2"])));
        assert!(!wanted.is(&found(&[("dc1", 3), ("dc2", 3)]), &names(&["dc1", "dc2"])));
    }

    #[test]
    fn migrations_are_numbered_from_one_without_gaps() {
        let numbers: Vec<_> = MIGRATIONS.iter().map(|migration| migration.number).collect();
        assert_eq!(numbers, (1..=NEWEST).collect::<Vec<_>>());
    }
}
