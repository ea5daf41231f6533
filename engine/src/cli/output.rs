//! The one place of the engine that prints.

use std::io::{IsTerminal, Write as _};

use heddle_api::client::CallError;
use serde::Serialize;

use super::admin::Refused;
use crate::operations::OperationError;

/// Where a command's results go.
#[derive(Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// As JSON, or as text.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Whether JSON is asked for.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person looks at it.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// A result: its text, or the value as JSON.
    pub fn result(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let text = match self.json {
            true => serde_json::to_string_pretty(value).expect("a result is always JSON"),
            false => text(),
        };
        self.line(&text);
    }

    /// A line beside the result; none with JSON.
    pub fn say(&mut self, text: &str) {
        if !self.json {
            self.line(text);
        }
    }

    /// Bytes as they are, of a result that is written piece by piece.
    ///
    /// # Errors
    /// When nobody reads them any more: there is no use in going on.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        std::io::stdout().write_all(bytes)
    }

    /// Asks who sits there, on standard error; `None` where nobody does.
    pub fn ask(&self, question: &str) -> Option<String> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        // Without the question nobody answers it.
        write!(std::io::stderr(), "{question}").and_then(|()| std::io::stderr().flush()).ok()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned())
    }

    /// Prints a fault and its causes on standard error, with its code for programs where it has one.
    pub fn fault(&mut self, error: &anyhow::Error, exit: u8) {
        let mut text = error.to_string();
        // Messages of transparent errors repeat their source's: each is said once.
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        match self.json {
            true => self.error(&Fault { message: &text, code: code(error).as_deref(), exit }),
            false => self.error_line(&format!("heddle: {text}")),
        }
    }

    /// Prints a fault as JSON on standard error: `{"error": {"message": ..., "code": ..., "exit": ...}}`.
    pub fn error(&mut self, fault: &Fault<'_>) {
        let fault = serde_json::json!({ "error": fault });
        self.error_line(&serde_json::to_string_pretty(&fault).expect("a fault is always JSON"));
    }

    fn error_line(&mut self, text: &str) {
        // Nobody may be there to read it, and the exit code says it too.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn line(&mut self, text: &str) {
        // A reader that has gone away, as `head` does, wants no more.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// A fault as JSON has it.
#[derive(Debug, Serialize)]
pub struct Fault<'a> {
    /// What is wrong, and what to do.
    pub message: &'a str,
    /// What is wrong, for programs: the code of the operation that refused, where one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    /// The exit code.
    pub exit: u8,
}

/// The code of what an operation refused.
fn code(error: &anyhow::Error) -> Option<String> {
    let code = error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<OperationError>() {
            return Some(error.code.to_owned());
        }
        if let Some(CallError::Refused(problem)) = cause.downcast_ref() {
            return Some(problem.code.clone());
        }
        cause.downcast_ref::<Refused>().map(|refused| refused.code.clone())
    });
    code.filter(|code| !code.is_empty())
}

/// Lines up the cells of rows under their titles.
#[must_use]
pub fn table<const N: usize>(titles: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| {
            let missing = width.saturating_sub(cell.chars().count());
            format!("{cell}{}", " ".repeat(missing))
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&titles.map(ToOwned::to_owned))];
    lines.extend(rows.iter().map(line));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_whatever_is_in_them() {
        let rows = [["é".into(), "1".into()], ["longer".into(), "22".into()]];
        assert_eq!(table(["name", "n"], &rows), "name    n\né       1\nlonger  22");
    }
}
