//! Output of commands: the only module of the engine that prints.

use std::io::{IsTerminal, Write as _};

use heddle_api::client::CallError;
use serde::Serialize;

use super::admin::Refused;
use crate::operations::OperationError;

/// Output of a command's results.
#[derive(Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Creates an output as JSON or as text.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Returns whether the output is JSON.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Returns whether standard output is a terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// Prints a result: its text, or the value as JSON.
    pub fn result(&mut self, value: &impl Serialize, text: impl FnOnce() -> String) {
        let text = match self.json {
            true => serde_json::to_string_pretty(value).expect("a result is always JSON"),
            false => text(),
        };
        self.line(&text);
    }

    /// Prints a line besides the result; none with JSON.
    pub fn say(&mut self, text: &str) {
        if !self.json {
            self.line(text);
        }
    }

    /// Prints a warning on standard error; none with JSON, whose standard error has only the fault.
    pub fn warn(&mut self, text: &str) {
        if !self.json {
            self.error_line(&format!("heddle: {text}"));
        }
    }

    /// Writes raw bytes of a streamed result.
    ///
    /// # Errors
    /// When standard output is closed: there is no use in going on.
    pub fn raw(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        std::io::stdout().write_all(bytes)
    }

    /// Asks the person at the terminal, on standard error; `None` without a terminal.
    pub fn ask(&self, question: &str) -> Option<String> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        // Without the question there is no answer.
        write!(std::io::stderr(), "{question}").and_then(|()| std::io::stderr().flush()).ok()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok()?;
        Some(answer.trim().to_owned())
    }

    /// Shows progress on a terminal, over the progress before; an empty text ends it.
    pub fn progress(&mut self, text: &str) {
        let mut terminal = std::io::stderr();
        if terminal.is_terminal() {
            // Progress that cannot be shown is not missed.
            let _ = write!(terminal, "\r\x1b[K{text}").and_then(|()| terminal.flush());
        }
    }

    /// Prints a fault and its causes on standard error, with its machine-readable code if it has one.
    pub fn fault(&mut self, error: &anyhow::Error, exit: u8) {
        let mut text = error.to_string();
        // Transparent errors repeat their source's message: each is printed once.
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
        // Standard error may be closed; the exit code reports the fault as well.
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn line(&mut self, text: &str) {
        // A closed pipe, as after `head`, is not a fault.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

/// Fault in its JSON form.
#[derive(Debug, Serialize)]
pub struct Fault<'a> {
    /// The fault, and how to mend it.
    pub message: &'a str,
    /// Machine-readable code of the fault, if an operation refused the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    /// The exit code.
    pub exit: u8,
}

/// Returns the code of the operation's error.
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

/// Aligns the cells of rows under their titles.
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
