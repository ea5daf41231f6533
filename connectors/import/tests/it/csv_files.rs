//! CSV files as spreadsheets and shops write them.

use heddle_import::{Format, Reason};
use heddle_schemas::consent::{Category, Says};

use crate::reading::{held, options, try_read};

#[test]
fn excels_csv_of_a_german_windows_is_read() {
    // "Speichern unter: CSV (Trennzeichen-getrennt)": semicolons, Windows-1252, CRLF, no mark.
    let text = "Vorname;Straße;Handy;Umsatz\r\nJürgen;Größe 5;0151 12345678;12,5\r\nZoë;\"A;B\";+43 664 1234567;\r\n";
    let bytes: Vec<u8> = text.chars().map(|sign| u8::try_from(u32::from(sign)).unwrap()).collect();
    let held = held(&bytes, "DE");
    assert_eq!(
        held.people(),
        [
            "+4915112345678 first_name=Jürgen straße=Größe 5 umsatz=12,5",
            "+436641234567 first_name=Zoë straße=A;B",
        ]
    );
    let format = Format::Csv { encoding: "windows-1252".into(), delimiter: ';' };
    assert_eq!(held.begun.unwrap().0, format);
}

#[test]
fn excels_unicode_text_is_read() {
    // "Unicode-Text": UTF-16 with mark, tabs.
    let text = "\u{feff}Имя\tТелефон\r\nАнна\t+7 916 123-45-67\r\n";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(held(&bytes, "").people(), ["+79161234567 first_name=Анна"]);
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    assert_eq!(held(&big, "").people(), ["+79161234567 first_name=Анна"]);
}

#[test]
fn google_sheets_export_is_read() {
    // UTF-8 without mark, commas, quotes where needed, embedded line ends.
    let text =
        "Name,Phone,Notes\r\n\"Silva, Ana\",+55 31 98888-7777,\"first\nsecond\"\r\nBo,'+4915112345678,\r\n";
    assert_eq!(
        held(text.as_bytes(), "").people(),
        ["+5531988887777 name=Silva, Ana notes=first\nsecond", "+4915112345678 name=Bo"]
    );
}

#[test]
fn every_bad_row_has_its_line_and_reason_and_the_others_are_read() {
    let text = "sep=;\nname;phone\nA;0151 12345678\nB;\nC;4,91512E+12\nD;\"0151 12345678\nE;0151/12345678\n\
                F;0151 12345679, 0151 12345670\nG;ask\n\nH;0049 151 12345677\n";
    let held = held(text.as_bytes(), "DE");
    assert_eq!(held.people(), ["+4915112345678 name=A", "+4915112345677 name=H"]);
    assert_eq!(held.duplicates, [7], "one person twice is one person, and the first row counts");
    assert_eq!(
        held.refused,
        [
            (4, Reason::NoNumber),
            (5, Reason::DigitsLost),
            (6, Reason::OpenQuote),
            (8, Reason::SeveralNumbers),
            (9, Reason::NotANumber),
        ]
    );
}

#[test]
fn consents_have_purpose_time_and_way() {
    let text = "phone,opt-in,purpose,opt-in date,opt-in source\n\
                +4915112345678,yes,marketing,2026-01-02,web form\n\
                +4915112345679,no,,2026-01-02,\n\
                +4915112345670,,,,\n\
                +4915112345671,yes,marketing,,\n\
                +4915112345672,yes,marketing,2027-01-02,\n";
    let held = held(text.as_bytes(), "");
    let said: Vec<_> =
        held.people.iter().map(|person| person.consent.as_ref().map(|consent| consent.says)).collect();
    assert_eq!(said, [Some(Says::Give), Some(Says::Stop), None]);
    let consent = held.people[0].consent.as_ref().unwrap();
    assert_eq!(
        (consent.purposes.as_slice(), consent.how.as_deref()),
        (&[Category::Marketing][..], Some("web form"))
    );
    assert_eq!(held.refused, [(5, Reason::NoConsentTime), (6, Reason::FutureConsent)]);
    assert!(held.people[0].values.is_empty(), "a consent is no value of a person");
}

#[test]
fn fixed_values_stand_for_columns_that_a_file_lacks() {
    let fixed = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut options = options("");
    options.choices.constants =
        vec![fixed("consent_purpose", "all"), fixed("consent_at", "2026-01-02"), fixed("shop", "Ulm")];
    let held = try_read(b"phone\n+4915112345678\n", &options).unwrap();
    assert_eq!(held.people(), ["+4915112345678 shop=Ulm"]);
    assert_eq!(held.people[0].consent.as_ref().unwrap().purposes, Category::ALL);
}

#[test]
fn a_file_that_is_no_list_is_refused_as_a_whole() {
    for (file, expected) in [
        (&b""[..], "empty"),
        (b"\n \n;;\n", "empty"),
        (b"%PDF-1.7 ...", "CSV or XLSX"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1 old", "Excel 97-2003"),
        (b"PK\x03\x04 cut off", "damaged"),
        (b"a\0b\0\0c,\x01\n", "CSV or XLSX"),
        (b"a,b\n1,2\n", "no column is known"),
        (b"Anna,+4915112345678\n", "no header"),
    ] {
        let error = try_read(file, &options("")).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
