//! Every statement on rows, prepared once.
//!
//! All of it is CQL that ScyllaDB and Apache Cassandra share. Reads and writes are idempotent: a
//! read may be sent a second time to another replica when the first is slow, and a write carries its
//! timestamp, so that repeating it writes the same cells. Conditional statements are neither repeated by
//! the driver nor given a timestamp: they take the server's.

use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use scylla::client::execution_profile::{ExecutionProfile, ExecutionProfileHandle};
use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::policies::retry::{DefaultRetryPolicy, FallthroughRetryPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use scylla::statement::prepared::PreparedStatement;
use scylla::statement::{Consistency, SerialConsistency};

use super::Options;
use super::place::Stored;

/// Time after which a read is sent to another replica too.
const SECOND_READ: Duration = Duration::from_millis(50);

/// A statement and its name in faults.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) what: String,
    pub(super) prepared: PreparedStatement,
}

/// Execution profiles of statements.
#[derive(Debug, Clone)]
pub(super) struct Profiles {
    read: ExecutionProfileHandle,
    pub(super) write: ExecutionProfileHandle,
    conditional: ExecutionProfileHandle,
}

impl Profiles {
    pub(super) fn new(options: &Options) -> Self {
        let mut balancing = DefaultPolicy::builder().token_aware(true);
        if let Some(datacenter) = &options.datacenter {
            balancing = balancing.prefer_datacenter(datacenter.clone()).permit_dc_failover(false);
        }
        let base = ExecutionProfile::builder()
            .load_balancing_policy(balancing.build())
            .consistency(Consistency::LocalQuorum)
            .serial_consistency(Some(SerialConsistency::LocalSerial))
            .request_timeout(Some(options.timeout))
            .retry_policy(Arc::new(DefaultRetryPolicy::new()))
            .build();
        let twice = SimpleSpeculativeExecutionPolicy { max_retry_count: 1, retry_interval: SECOND_READ };
        let read = base.to_builder().speculative_execution_policy(Some(Arc::new(twice))).build();
        let once = base.to_builder().retry_policy(Arc::new(FallthroughRetryPolicy::new())).build();
        Self { read: read.into_handle(), write: base.into_handle(), conditional: once.into_handle() }
    }
}

/// Execution profile of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Execution {
    Read,
    /// A read that settles conditional writes under way before it answers.
    SerialRead,
    Write,
    Conditional,
}

/// Prepares statements of a keyspace.
#[derive(Debug, Clone, Copy)]
pub(super) struct Preparer<'s> {
    pub(super) session: &'s Session,
    pub(super) keyspace: &'s str,
    pub(super) profiles: &'s Profiles,
}

impl Preparer<'_> {
    /// Prepares a statement; `{}` in it stands for the keyspace.
    pub(super) async fn prepare(
        &self,
        what: String,
        cql: String,
        execution: Execution,
    ) -> Result<Statement, PrepareError> {
        let mut prepared = self.session.prepare(cql.replace("{}", self.keyspace)).await?;
        let profile = match execution {
            Execution::Read | Execution::SerialRead => &self.profiles.read,
            Execution::Write => &self.profiles.write,
            Execution::Conditional => &self.profiles.conditional,
        };
        prepared.set_execution_profile_handle(Some(profile.clone()));
        prepared.set_is_idempotent(execution != Execution::Conditional);
        if execution == Execution::SerialRead {
            prepared.set_consistency(Consistency::LocalSerial);
        }
        Ok(Statement { what, prepared })
    }
}

/// The statements of one table.
#[derive(Debug)]
pub(super) struct OfTable {
    pub(super) get: Statement,
    pub(super) put: Statement,
    pub(super) delete: Statement,
    pub(super) scans: Option<Scans>,
    /// Reads all pages.
    pub(super) walk: Statement,
    pub(super) conditional: Option<Conditional>,
}

/// Scans from a row on, one way and the other.
#[derive(Debug)]
pub(super) struct Scans {
    forwards: [Statement; 2],
    backwards: [Statement; 2],
}

impl Scans {
    /// The one that runs this way and, with `bounded`, stops before a row.
    pub(super) fn statement(&self, reverse: bool, bounded: bool) -> &Statement {
        let scans = if reverse { &self.backwards } else { &self.forwards };
        &scans[usize::from(bounded)]
    }
}

/// Writes on a condition. A row's own end is part of it, so that one that has ended counts as absent; and
/// both columns are in every condition, because Apache Cassandra answers with those of the condition only.
#[derive(Debug)]
pub(super) struct Conditional {
    /// Reads a row after the writes in progress on it.
    pub(super) read: Statement,
    /// Sets a row that is not there.
    pub(super) set_absent: Statement,
    /// Sets a row of this value that has not ended.
    pub(super) set_live: Statement,
    /// Sets a row of exactly this value and end.
    pub(super) set_ended: Statement,
    /// Deletes a row of this value that has not ended.
    pub(super) delete_live: Statement,
}

impl OfTable {
    pub(super) async fn prepare(preparer: Preparer<'_>, stored: Stored) -> Result<Self, PrepareError> {
        let table = stored.name();
        let key = stored.columns().join(" = ? AND ") + " = ?";
        let columns = stored.columns().join(", ");
        let placeholders = vec!["?"; stored.columns().len()].join(", ");
        let statement =
            |verb: &str, cql: String, execution| preparer.prepare(format!("{verb} {table}"), cql, execution);
        let read = format!("SELECT value, expires FROM {{}}.{table} WHERE {key}");
        let get = statement("read", read.clone(), Execution::Read).await?;
        let put = format!(
            "INSERT INTO {{}}.{table} ({columns}, value, expires) VALUES ({placeholders}, ?, ?) USING TTL ?"
        );
        let put = statement("write", put, Execution::Write).await?;
        let delete = format!("DELETE FROM {{}}.{table} WHERE {key}");
        let delete = statement("delete", delete, Execution::Write).await?;
        let scans = match stored.scanned_within() {
            Some(within) => Some(Scans::prepare(preparer, stored, within).await?),
            None => None,
        };
        let walk = format!("SELECT {columns}, value, expires FROM {{}}.{table}");
        let walk = statement("walk over", walk, Execution::Read).await?;
        let conditional = if stored.is_conditional() {
            // Only cells make a row here, never an INSERT's marker: a marker without end would keep a row
            // without a value when cells with an end follow it.
            let set = format!("UPDATE {{}}.{table} USING TTL ? SET value = ?, expires = ? WHERE {key}");
            let delete = format!("DELETE FROM {{}}.{table} WHERE {key} IF value = ? AND expires > ?");
            let conditional = |cql: String| statement("conditional write", cql, Execution::Conditional);
            Some(Conditional {
                read: statement("serial read", read, Execution::SerialRead).await?,
                set_absent: conditional(format!("{set} IF value = null AND expires = null")).await?,
                set_live: conditional(format!("{set} IF value = ? AND expires > ?")).await?,
                set_ended: conditional(format!("{set} IF value = ? AND expires = ?")).await?,
                delete_live: conditional(delete).await?,
            })
        } else {
            None
        };
        Ok(Self { get, put, delete, scans, walk, conditional })
    }

    /// Prepares the statements of every table, in the order of [`Stored::ALL`].
    pub(super) async fn prepare_all(preparer: Preparer<'_>) -> Result<Vec<Self>, PrepareError> {
        try_join_all(Stored::ALL.map(|stored| Self::prepare(preparer, stored))).await
    }
}

impl Scans {
    async fn prepare(preparer: Preparer<'_>, stored: Stored, within: &[&str]) -> Result<Self, PrepareError> {
        let scan = |reverse: bool, bounded: bool| {
            let table = stored.name();
            let end = if bounded { " AND row < ?" } else { "" };
            let order = match reverse != stored.is_descending() {
                true => order(stored, if reverse { "DESC" } else { "ASC" }),
                false => String::new(),
            };
            let within = within.join(" = ? AND ");
            let cql = format!(
                "SELECT row, value, expires FROM {{}}.{table} WHERE {within} = ? AND row >= ?{end}{order}"
            );
            preparer.prepare(format!("scan {table}"), cql, Execution::Read)
        };
        Ok(Self {
            forwards: [scan(false, false).await?, scan(false, true).await?],
            backwards: [scan(true, false).await?, scan(true, true).await?],
        })
    }
}

/// Returns the order of rows. All its columns turn round together, also one that `=` fixes.
fn order(stored: Stored, direction: &str) -> String {
    match stored {
        Stored::Conversation => format!(" ORDER BY kind {direction}, row {direction}"),
        _ => format!(" ORDER BY row {direction}"),
    }
}
