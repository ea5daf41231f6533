//! Workbooks as Excel, Google Sheets and programs write them.

use heddle_import::{Format, Reason};

use crate::reading::{held, options, try_read};
use crate::xlsx::workbook;

/// Two header rows with merged cells; then numbers as numbers, as text, with a lost `+`, by a formula.
const ROWS: &str = r#"<sheetData>
<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1"/><c r="C1" t="s"><v>1</v></c><c r="D1"/></row>
<row r="2"><c r="A2" t="s"><v>2</v></c><c r="B2" t="s"><v>3</v></c><c r="C2" t="s"><v>4</v></c><c r="D2" t="s"><v>5</v></c></row>
<row r="3"><c r="A3"><v>4915112345678</v></c><c r="B3" t="s"><v>6</v></c><c r="C3" s="1"><v>46024</v></c><c r="D3" t="s"><v>7</v></c></row>
<row r="4"><c r="A4"><v>4.915112345679E12</v></c><c r="B4" t="inlineStr"><is><t>Ben</t></is></c><c r="C4" s="2"><v>46024.5</v></c><c r="D4" t="s"><v>7</v></c></row>
<row r="6"><c r="A6" t="str"><f>"+49"&amp;"15112345670"</f><v>+4915112345670</v></c><c r="B6"><v>12.5</v></c></row>
<row r="7"><c r="A7" t="e"><f>VLOOKUP(1,X:Y,2)</f><v>#N/A</v></c><c r="B7" t="b"><v>1</v></c></row>
<row r="8"><c r="B8" t="s"><v>6</v></c></row>
<row r="9"><c r="A9" t="s"><v>8</v></c><c r="B9" t="s"><v>6</v></c></row>
</sheetData><mergeCells count="2"><mergeCell ref="A1:B1"/><mergeCell ref="C1:D1"/></mergeCells>"#;
const STRINGS: [&str; 9] =
    ["Contact", "Consent", "Phone", "Name", "Consent date", "Purpose", "Anna", "marketing", "0151 12345672"];

#[test]
fn a_workbook_with_merged_headers_formulas_numbers_and_dates_is_read() {
    let held = held(&workbook(ROWS, &STRINGS), "DE");
    assert_eq!(
        held.people(),
        [
            "+4915112345678 name=Anna",
            "+4915112345679 name=Ben",
            "+4915112345670 name=12.5",
            "+4915112345672 name=Anna"
        ]
    );
    // 46024 is the 2 January 2026 of Excel's calendar.
    let at = |person: usize| held.people[person].consent.as_ref().map(|consent| consent.at);
    assert_eq!(at(0), heddle_import::consent::time("2026-01-02", None));
    assert_eq!(at(1), heddle_import::consent::time("2026-01-02T12:00:00", None));
    assert_eq!(held.refused, [(7, Reason::FormulaError), (8, Reason::NoNumber)]);
    let (format, mapping) = held.begun.unwrap();
    assert_eq!(format, Format::Xlsx { sheet: "People".into() }, "hidden sheets are passed");
    assert_eq!(mapping.header_line, 2);
}

#[test]
fn a_sheet_is_chosen_by_name() {
    let file = workbook(ROWS, &STRINGS);
    let mut options = options("DE");
    options.sheet = Some("Hidden".into());
    assert!(try_read(&file, &options).unwrap_err().to_string().contains("empty"));
    options.sheet = Some("Absent".into());
    assert!(try_read(&file, &options).unwrap_err().to_string().contains("People"));
}

#[test]
fn a_small_file_that_inflates_is_refused_before_it_is_held() {
    let cell = "x".repeat(1 << 20);
    let rows = format!(
        r#"<sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>{cell}</t></is></c></row></sheetData>"#
    );
    let error = try_read(&workbook(&rows, &[]), &options("")).unwrap_err().to_string();
    assert!(error.contains("too much text"), "{error}");
}

#[test]
fn a_workbook_that_is_cut_or_changed_anywhere_panics_nowhere() {
    let file = workbook(ROWS, &STRINGS);
    for at in (0..file.len()).step_by(7) {
        let _ = try_read(&file[..at], &options("DE"));
        let mut changed = file.clone();
        changed[at] ^= 0x5a;
        let _ = try_read(&changed, &options("DE"));
    }
}
