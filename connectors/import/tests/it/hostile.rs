//! Input that no program would write.

use proptest::prelude::*;

use crate::reading::{options, try_read};

proptest! {
    #[test]
    fn no_bytes_panic(file in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = try_read(&file, &options("DE"));
    }

    #[test]
    fn no_text_panics(rows in proptest::collection::vec("[\"',;\t0-9+.eE a-z\u{e4}-]{0,40}", 0..20)) {
        let mut file = "phone,name\n".to_owned();
        file.push_str(&rows.join("\n"));
        let _ = try_read(file.as_bytes(), &options("DE"));
    }

    #[test]
    fn each_row_is_a_person_a_duplicate_or_refused(
        numbers in proptest::collection::vec("(\\+49151[0-9]{8}|[0-9]{0,9}|x)", 1..60),
    ) {
        let mut file = "line,phone\n".to_owned();
        for number in &numbers {
            file.push_str(&format!("n,{number}\n"));
        }
        let held = try_read(file.as_bytes(), &options("DE")).unwrap();
        prop_assert_eq!(held.people.len() + held.duplicates.len() + held.refused.len(), numbers.len());
    }
}
