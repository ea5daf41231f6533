//! Mapping from a file's header to the columns of people.
//!
//! Names of columns that the engine knows ([`PHONE`], the consent columns, names) are guessed from headers in several
//! languages; other columns keep their header, as a name in small letters. The caller's [`Choices`] come before every
//! guess. The result is shown before the first row is used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::known::KNOWN;
use crate::people::ImportError;
use crate::phone;
use crate::table::Row;

/// Column of the phone number.
pub const PHONE: &str = "phone";
/// Column that says yes or no.
pub const CONSENT: &str = "consent";
/// Column of the consent's purpose.
pub const CONSENT_PURPOSE: &str = "consent_purpose";
/// Column of the consent's time.
pub const CONSENT_AT: &str = "consent_at";
/// Column of the consent's way.
pub const CONSENT_HOW: &str = "consent_how";
/// Columns that are part of a consent and not values of a person.
pub const CONSENT_COLUMNS: [&str; 4] = [CONSENT, CONSENT_PURPOSE, CONSENT_AT, CONSENT_HOW];
/// Characters of a column's name, at most.
pub const NAME_CHARS: usize = 64;

/// Choices of the caller.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// Columns by name, each with the header that it is read from; `#3` is the third column.
    pub columns: Vec<(String, String)>,
    /// Columns with one value for every row.
    pub constants: Vec<(String, String)>,
    /// Headers of columns that are left out.
    pub left_out: Vec<String>,
}

/// Column of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Column {
    /// The header.
    pub header: String,
    /// The name under which it is kept; none where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// True where the name was guessed and not chosen.
    pub guessed: bool,
}

/// Mapping that is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mapping {
    /// The line of the header.
    pub header_line: u64,
    /// The file's columns, in their order.
    pub columns: Vec<Column>,
    /// Columns with one value for every row: name and value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constants: Vec<(String, String)>,
}

impl Mapping {
    /// The place of the column of this name.
    #[must_use]
    pub fn position(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name.as_deref() == Some(name))
    }

    /// The headers.
    #[must_use]
    pub fn headers(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.header.clone()).collect()
    }

    /// Finds the header among the first rows; returns the number of rows that it takes from the beginning, titles
    /// above it included.
    pub(crate) fn find(first: &[Row], choices: &Choices) -> Result<(Self, usize), ImportError> {
        let phone = choices.columns.iter().find(|(name, _)| name == PHONE).map(|(_, header)| header.as_str());
        let place = |row: &Row| match phone {
            Some(header) => place_of(&row.cells, header),
            None => guess_phone(&row.cells),
        };
        let Some((at, phone_at)) = first.iter().enumerate().find_map(|(at, row)| Some((at, place(row)?)))
        else {
            return Err(missing(first, phone));
        };
        let (headers, taken) = headers(first, at, phone_at);
        let mapping = Self {
            header_line: first[at].line,
            columns: columns(&headers, choices)?,
            constants: choices.constants.clone(),
        };
        Ok((mapping, taken))
    }
}

fn missing(first: &[Row], wanted: Option<&str>) -> ImportError {
    let cells = first.first().map_or(&[][..], |row| &row.cells[..]);
    // Cells of a person are not repeated in a message.
    let is_data = cells.iter().any(|cell| cell.chars().any(char::is_numeric) && looks_like_phone(cell));
    match (wanted, is_data) {
        (_, true) => ImportError::NoHeader,
        (Some(wanted), false) => {
            ImportError::UnknownColumn { wanted: wanted.to_owned(), headers: cells.to_vec() }
        }
        (None, false) => ImportError::NoPhoneColumn { headers: cells.to_vec() },
    }
}

fn looks_like_phone(cell: &str) -> bool {
    phone::read(cell, None).is_ok() || cell.chars().filter(char::is_ascii_digit).count() >= 7
}

/// The headers of a file: the row with the phone's header. Where cells of it are merged over several below, the row
/// below it has their names.
fn headers(first: &[Row], at: usize, phone_at: usize) -> (Vec<String>, usize) {
    let header = &first[at];
    let below = first.get(at + 1).filter(|below| {
        let names_a_gap = |column| header.cell(column).is_empty() && !below.cell(column).is_empty();
        below.cell(phone_at).is_empty() && (0..below.cells.len()).any(names_a_gap)
    });
    let Some(below) = below else {
        let names = (0..header.cells.len()).map(|column| header.cell(column).to_owned());
        return (names.collect(), at + 1);
    };
    let mut group = "";
    let width = header.cells.len().max(below.cells.len());
    let mut names: Vec<String> = Vec::with_capacity(width);
    for column in 0..width {
        if !header.cell(column).is_empty() {
            group = header.cell(column);
        }
        let own = below.cell(column);
        let name = match own.is_empty() {
            true => header.cell(column).to_owned(),
            false if names.iter().any(|name| name == own) => format!("{group} {own}"),
            false => own.to_owned(),
        };
        names.push(name);
    }
    (names, at + 2)
}

fn columns(headers: &[String], choices: &Choices) -> Result<Vec<Column>, ImportError> {
    let mut columns: Vec<_> =
        headers.iter().map(|header| Column { header: header.clone(), name: None, guessed: true }).collect();
    let place = |wanted: &str| {
        let unknown = || ImportError::UnknownColumn { wanted: wanted.to_owned(), headers: headers.to_vec() };
        place_of(headers, wanted).ok_or_else(unknown)
    };
    for (name, header) in &choices.columns {
        check_name(name)?;
        let at = place(header)?;
        if columns[at].name.is_some() || columns.iter().any(|column| column.name.as_ref() == Some(name)) {
            return Err(ImportError::MappedTwice { name: name.clone(), header: header.clone() });
        }
        columns[at] = Column { header: columns[at].header.clone(), name: Some(name.clone()), guessed: false };
    }
    for header in &choices.left_out {
        let at = place(header)?;
        columns[at].guessed = false;
    }
    for (name, _) in &choices.constants {
        check_name(name)?;
        if columns.iter().any(|column| column.name.as_ref() == Some(name)) || name == PHONE {
            return Err(ImportError::MappedTwice { name: name.clone(), header: "a fixed value".to_owned() });
        }
    }
    guess(&mut columns, headers, choices);
    Ok(columns)
}

/// Names the columns that no choice names.
fn guess(columns: &mut [Column], headers: &[String], choices: &Choices) {
    let is_taken = |columns: &[Column], name: &str| {
        columns.iter().any(|column| column.name.as_deref() == Some(name))
            || choices.constants.iter().any(|(constant, _)| constant == name)
    };
    for (name, known) in KNOWN {
        let open = |at: &usize| columns[*at].guessed && columns[*at].name.is_none();
        let rank = |at: usize| known.iter().position(|header| *header == plain(&headers[at]));
        let best = (0..columns.len()).filter(open).filter_map(|at| Some((rank(at)?, at))).min();
        if let Some((_, at)) = best.filter(|_| !is_taken(columns, name)) {
            columns[at].name = Some(name.to_owned());
        }
    }
    for at in 0..columns.len() {
        let own = slug(&headers[at]);
        if !columns[at].guessed || columns[at].name.is_some() || own.is_empty() {
            continue;
        }
        let free = (1..).map(|n| if n == 1 { own.clone() } else { format!("{own}_{n}") });
        columns[at].name = free.into_iter().find(|name| !is_taken(columns, name));
    }
}

fn guess_phone(headers: &[String]) -> Option<usize> {
    let (_, known) = KNOWN[0];
    let rank = |header: &String| known.iter().position(|known| *known == plain(header));
    headers.iter().enumerate().filter_map(|(at, header)| Some((rank(header)?, at))).min().map(|(_, at)| at)
}

/// The column that a caller means by a header, or by `#` and its number.
fn place_of(headers: &[String], wanted: &str) -> Option<usize> {
    if let Some(number) = wanted.strip_prefix('#').and_then(|number| number.parse::<usize>().ok()) {
        return number.checked_sub(1).filter(|at| *at < headers.len());
    }
    let exact = headers.iter().position(|header| header.trim() == wanted.trim());
    let wanted = plain(wanted);
    exact.or_else(|| headers.iter().position(|header| !wanted.is_empty() && plain(header) == wanted))
}

fn check_name(name: &str) -> Result<(), ImportError> {
    let is_name = !name.is_empty() && name.chars().count() <= NAME_CHARS && slug(name) == name;
    if is_name { Ok(()) } else { Err(ImportError::InvalidName(name.to_owned())) }
}

/// Small letters, with single spaces for everything else.
fn plain(header: &str) -> String {
    slug(header).replace('_', " ")
}

/// Name of a column: letters and digits in small letters, `_` for everything between.
fn slug(header: &str) -> String {
    let mut name = String::new();
    for sign in header.chars().flat_map(char::to_lowercase) {
        if sign.is_alphanumeric() || is_mark(sign) {
            name.push(sign);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    let name: String = name.trim_end_matches('_').chars().take(NAME_CHARS).collect();
    name.trim_end_matches('_').to_owned()
}

/// Combining marks belong to the letter before them.
fn is_mark(sign: char) -> bool {
    matches!(sign, '\u{300}'..='\u{36f}' | '\u{900}'..='\u{97f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(table: &[&[&str]]) -> Vec<Row> {
        let cells = |cells: &&[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        table.iter().zip(1..).map(|(row, line)| Row { line, cells: cells(row) }).collect()
    }

    fn names(table: &[&[&str]], choices: &Choices) -> (Vec<String>, usize) {
        let (mapping, taken) = Mapping::find(&rows(table), choices).unwrap();
        let names = mapping.columns.into_iter().map(|column| column.name.unwrap_or_default());
        (names.collect(), taken)
    }

    fn guessed(header: &[&str]) -> Vec<String> {
        names(&[header], &Choices::default()).0
    }

    #[test]
    fn headers_of_several_languages_are_known() {
        assert_eq!(guessed(&["Vorname", "Nachname", "Handy-Nr.", "Telefon"])[2..], ["handy_nr", "phone"]);
        assert_eq!(guessed(&["First Name", "Phone", "Mobile"]), ["first_name", "phone_2", "phone"]);
        assert_eq!(guessed(&["Prénom", "Nom", "Téléphone"]), ["first_name", "name", "phone"]);
        assert_eq!(guessed(&["Nombre", "Teléfono móvil"]), ["name", "phone"]);
        assert_eq!(guessed(&["Nome", "CELULAR"]), ["name", "phone"]);
        assert_eq!(guessed(&["Имя", "Номер телефона"]), ["first_name", "phone"]);
        assert_eq!(guessed(&["姓名", "手机号"]), ["name", "phone"]);
        assert_eq!(guessed(&["phone", "Opt-in", "opt_in_date"]), ["phone", "consent", "consent_at"]);
        assert_eq!(
            guessed(&["phone", "", "Kunden Nr.", "Kunden-Nr"]),
            ["phone", "", "kunden_nr", "kunden_nr_2"]
        );
    }

    #[test]
    fn titles_and_merged_headers_are_passed() {
        let titled: &[&[&str]] =
            &[&["Customers of May"], &["Contact", "", "Consent"], &["Phone", "Name", "Purpose"]];
        assert_eq!(
            names(titled, &Choices::default()),
            (vec!["phone".into(), "name".into(), "consent_purpose".into()], 3)
        );
        let merged: &[&[&str]] =
            &[&["Phone", "Home", "", "Work", ""], &["", "City", "Street", "City", "Street"]];
        let expected = ["phone", "city", "street", "work_city", "work_street"].map(String::from).to_vec();
        assert_eq!(names(merged, &Choices::default()), (expected, 2));
        let plain: &[&[&str]] = &[&["Phone", "Name"], &["", "Anna"]];
        assert_eq!(names(plain, &Choices::default()).1, 1, "a row without a number is no header");
    }

    #[test]
    fn a_choice_comes_before_the_guess() {
        let choice = |name: &str, header: &str| (name.to_owned(), header.to_owned());
        let choices = Choices {
            columns: vec![choice("phone", "Second"), choice("nick", "#1")],
            constants: vec![choice("consent_at", "2026-01-01")],
            left_out: vec!["note".to_owned()],
        };
        let header: &[&[&str]] = &[&["Name", "Phone", "second ", "Note", "consent at"]];
        assert_eq!(names(header, &choices).0, ["nick", "phone_2", "phone", "", "consent_at_2"]);
    }

    #[test]
    fn what_the_file_lacks_is_named() {
        let find = |table: &[&[&str]], columns: &[(&str, &str)]| {
            let columns =
                columns.iter().map(|(name, header)| ((*name).to_owned(), (*header).to_owned())).collect();
            Mapping::find(&rows(table), &Choices { columns, ..Choices::default() }).unwrap_err().to_string()
        };
        let unknown = find(&[&["Phone", "Name"]], &[("city", "Ort")]);
        assert!(unknown.contains("\"Ort\"") && unknown.contains("\"Name\""), "{unknown}");
        assert!(find(&[&["A", "B"]], &[]).contains("\"A\""));
        let data = find(&[&["Anna", "+4915112345678"]], &[]);
        assert!(!data.contains("Anna"), "a person's data is in no message: {data}");
        assert!(find(&[&["Phone", "Name"]], &[("Bad Name", "Name")]).contains("Bad Name"));
        assert!(find(&[&["Phone", "Name"]], &[("a", "Name"), ("b", "name")]).contains("twice"));
    }

    proptest! {
        #[test]
        fn no_header_panics(header in proptest::collection::vec("\\PC{0,12}", 0..8), wanted in "\\PC{0,6}") {
            let row = Row { line: 1, cells: header };
            let choices = Choices { columns: vec![("x".to_owned(), wanted)], ..Choices::default() };
            let _ = Mapping::find(std::slice::from_ref(&row), &choices);
            let _ = Mapping::find(&[row], &Choices::default());
        }
    }
}
