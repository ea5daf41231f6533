//! The one place of the engine that prints.

use std::io::{IsTerminal, Write as _};

use serde::Serialize;

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

    /// What is wrong, on standard error: the fault and what caused it.
    pub fn fault(&mut self, error: &anyhow::Error) {
        let mut text = error.to_string();
        // Messages of transparent errors repeat their source's: each is said once.
        for cause in error.chain().skip(1).map(ToString::to_string) {
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        // Nobody may be there to read it, and the exit code says it too.
        let _ = writeln!(std::io::stderr(), "heddle: {text}");
    }

    fn line(&mut self, text: &str) {
        // A reader that has gone away, as `head` does, wants no more.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
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
