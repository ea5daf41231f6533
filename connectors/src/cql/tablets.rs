//! ScyllaDB's tablets, which take no conditional writes before 2025.4.
//!
//! New keyspaces have tablets by default since 6.0, and "the LWT feature is not supported in keyspaces with tablets
//! enabled" until 2025.4 (docs.scylladb.com, branch 2025.3, features/lwt; scylladb#18066). So a keyspace is created
//! without them there, and one that has them is refused at start: each conditional write would fail.

use scylla::client::session::Session;

use super::OpenError;

/// Version of a ScyllaDB cluster: major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(u32, u32);

/// First version that knows tablets in a keyspace's options; the enterprise's line came to it by 2024.2.
const TABLETS: Version = Version(6, 0);
/// First version whose tablets take conditional writes.
const CONDITIONAL: Version = Version(2025, 4);

impl Version {
    /// Reads `2025.3.1-0.20250914.abcdef`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(['.', '-']).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    /// Returns true if a keyspace of it may have tablets that take no conditional writes.
    fn refuses(self) -> bool {
        let has_tablets = self >= TABLETS && !(Self(2024, 0)..Self(2024, 2)).contains(&self);
        has_tablets && self < CONDITIONAL
    }
}

/// Returns what `CREATE KEYSPACE` needs on this cluster beside the replication.
pub(super) async fn clause(session: &Session) -> &'static str {
    match version(session).await {
        Some(version) if version.refuses() => " AND tablets = {'enabled': false}",
        _ => "",
    }
}

/// Refuses a keyspace with tablets that take no conditional writes.
pub(super) async fn check(session: &Session, keyspace: &str) -> Result<(), OpenError> {
    let Some(version) = version(session).await.filter(|version| version.refuses()) else { return Ok(()) };
    let cql = "SELECT initial_tablets FROM system_schema.scylla_keyspaces WHERE keyspace_name = ?";
    let Ok(answer) = session.query_unpaged(cql, (keyspace,)).await else { return Ok(()) };
    let row = answer.into_rows_result().ok().and_then(|rows| rows.maybe_first_row::<(Option<i32>,)>().ok());
    // A keyspace without tablets has no number of them.
    match row.flatten() {
        Some((Some(_),)) => Err(OpenError::Tablets {
            keyspace: keyspace.to_owned(),
            version: format!("{}.{}", version.0, version.1),
        }),
        _ => Ok(()),
    }
}

/// The version of a ScyllaDB cluster; none of Cassandra, which has no such table.
async fn version(session: &Session) -> Option<Version> {
    let answer = session.query_unpaged("SELECT version FROM system.versions", ()).await.ok()?;
    let rows = answer.into_rows_result().ok()?;
    Version::parse(&rows.maybe_first_row::<(String,)>().ok()??.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyspaces_have_no_tablets_where_these_take_no_conditional_writes() {
        for (text, refuses) in [
            ("5.4.10-0.20241008", false),
            ("6.0.4-0.20240912", true),
            ("6.2.3-0.20250119", true),
            ("2024.1.12-0.20241018", false),
            ("2024.2.0-0.20241203", true),
            ("2025.1.0-0.20250325", true),
            ("2025.3.1-0.20250914", true),
            ("2025.4.0-0.20251120", false),
            ("2026.1.0", false),
        ] {
            assert_eq!(Version::parse(text).unwrap().refuses(), refuses, "{text}");
        }
        assert_eq!(Version::parse("nonsense"), None);
    }
}
