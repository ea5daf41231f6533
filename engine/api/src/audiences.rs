//! Operations on a tenant's audiences: import, list, show, export, delete.

use std::time::Duration;

use heddle_schemas::audience::{AudienceHead, AudienceId, ImportCounts};
use heddle_schemas::audit::What;
use heddle_schemas::id::TenantId;
use heddle_schemas::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::content::{Csv, Lines, List, ListFile, Nothing};
use crate::operation::{NoParameters, Parameters, operations};
use crate::tenants::OfTenant;

/// Timeout for an import or an export.
const LONG: Duration = Duration::from_secs(24 * 3_600);
/// Size of an imported file, in bytes, at most.
pub const MAX_FILE: u64 = 1 << 30;

operations! {
    /// Lists the tenant's audiences by id.
    ListAudiences: GET "/v1/tenants/{tenant}/audiences" (OfTenant, NoParameters, Nothing) -> 200 List<Audience>;
        Tenant, Member, Never;

    /// Imports a CSV or XLSX file, and creates the audience if it is new. The answer is a stream with a line of JSON
    /// for each event: `mapping`, `rejected`, `progress`, and `done` or `failed` at the end. An import is an upsert: it
    /// can be repeated, and the same file again changes nothing.
    ImportAudience: POST "/v1/tenants/{tenant}/audiences/{audience}/import"
        (OfAudience, ImportOptions, ListFile) -> 200 Lines;
        Tenant, Member, Opened |input, contact| (!input.query.dry_run).then(|| What::AudienceImport {
            audience: input.path.audience.clone(),
        }),
        within LONG;

    /// Shows an audience with the number of its members.
    ShowAudience: GET "/v1/tenants/{tenant}/audiences/{audience}" (OfAudience, NoParameters, Nothing) -> 200 Audience;
        Tenant, Member, Never;

    /// Exports the members as CSV: their phone numbers and columns. A truncated file means that the export failed.
    ExportAudience: GET "/v1/tenants/{tenant}/audiences/{audience}/export"
        (OfAudience, NoParameters, Nothing) -> 200 Csv;
        Tenant, Admin, Opened |input, contact| Some(What::AudienceExport { audience: input.path.audience.clone() }),
        within LONG;

    /// Deletes an audience and its members. Contacts, consents and conversations stay.
    DeleteAudience: DELETE "/v1/tenants/{tenant}/audiences/{audience}"
        (OfAudience, NoParameters, Nothing) -> 200 Deleted;
        Tenant, Member, Around |input, contact| Some(What::AudienceDelete { audience: input.path.audience.clone() }),
        within Duration::from_secs(3_600);
}

/// Audience named in the path.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfAudience {
    /// The tenant's id.
    pub tenant: TenantId,
    /// The audience's id: 1 to 64 of `a-z`, `0-9`, `-` and `_`.
    pub audience: AudienceId,
}

impl Parameters for OfAudience {
    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.tenant)
    }
}

/// Options of an import.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImportOptions {
    /// Mapping of columns: lines of `NAME=HEADER`, or `NAME=#3` for the third column. `phone` is the phone number;
    /// `consent`, `consent_purpose`, `consent_at` and `consent_how` are the consent; other names are yours. Columns that
    /// are not named are guessed by their headers.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub map: String,
    /// Columns with one value for every row: lines of `NAME=VALUE`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// Headers of columns that are left out, one a line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub leave_out: String,
    /// Country of numbers without a country code, such as `DE`; that of the audience's last import by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Sheet of a workbook; the first visible one by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sheet: Option<String>,
    /// Order of dates with slashes: `day_first` or `month_first`. Without it, a date that could be two is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dates: Option<DateOrder>,
    /// True to read the whole file and store nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl Parameters for ImportOptions {}

/// Order of dates with slashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DateOrder {
    /// 31/12/2026.
    DayFirst,
    /// 12/31/2026.
    MonthFirst,
}

/// Audience, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Audience {
    /// Its id.
    pub id: AudienceId,
    /// Time of the first import, microseconds since 1970.
    pub created_at: Timestamp,
    /// Time at which the last import ended, microseconds since 1970; none while the first is under way, or after it
    /// failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub imported_at: Option<Timestamp>,
    /// Names of its members' columns.
    pub columns: Vec<String>,
    /// Country of the last import.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Number of members; not counted in a list of audiences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<u64>,
}

impl Audience {
    /// Returns an audience as it is shown.
    #[must_use]
    pub fn new(id: AudienceId, head: AudienceHead, members: Option<u64>) -> Self {
        let AudienceHead { created_at, imported_at, columns, country, .. } = head;
        Self { id, created_at, imported_at, columns: columns.into_iter().collect(), country, members }
    }
}

/// Result of a deletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// Number of members that were deleted.
    pub members: u64,
}

/// Column of an imported file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImportColumn {
    /// The header.
    pub header: String,
    /// The name under which it is kept; none where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// True where the name was guessed and not chosen.
    pub guessed: bool,
}

/// Line of an import's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ImportLine {
    /// Format and columns that were found: the first line.
    Mapping {
        /// The format, such as `csv, UTF-8, delimiter ";"`.
        format: String,
        /// The line of the header.
        header_line: u64,
        /// The file's columns.
        columns: Vec<ImportColumn>,
    },
    /// A row was refused.
    Rejected {
        /// The line on which the row begins; in a workbook, the number of the row.
        line: u64,
        /// The reason, as a stable name.
        reason: String,
        /// The reason in a sentence.
        detail: String,
        /// The row's cells.
        cells: Vec<String>,
    },
    /// Rows read so far.
    Progress {
        /// The number of rows.
        rows: u64,
    },
    /// The import has ended.
    Done {
        /// Numbers of rows by their effect.
        counts: ImportCounts,
        /// True where nothing was stored.
        dry_run: bool,
    },
    /// The import broke off. What was read before is stored; the import can be repeated.
    Failed {
        /// The fault, and how to mend it.
        detail: String,
    },
}
