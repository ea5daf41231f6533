//! Section `[telemetry]`.

use serde::{Deserialize, Serialize};

/// Format of the process's log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Level of detail of the process's log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// The process's own log lines, on standard error. Whatever the level, none holds a message, a phone
/// number or a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Format of the lines.
    pub format: LogFormat,
    /// Highest level of Heddle's own lines; lines of libraries end at `warn`.
    pub level: LogLevel,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { format: LogFormat::Pretty, level: LogLevel::Info }
    }
}
