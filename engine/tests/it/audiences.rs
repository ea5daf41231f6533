//! `heddle audience` in the real process: on a data folder without a node, and on a running node.

use std::path::Path;

use serde_json::Value;

use crate::process::Node;

const PEOPLE: &str = "Vorname;Handy;Stadt\nJürgen;0151 12345678;Köln\nZoë;+43 664 1234567;Graz\n\
                      Otto;4,91512E+12;Ulm\nIda;;Ulm\nJürgen;0049 151 12345678;Bonn\n";

/// Imports a file, and returns the result's counts as (added, unchanged, duplicates, refused).
fn import(node: &Node, file: &Path, more: &[&str]) -> [u64; 4] {
    let arguments = ["--json", "audience", "import", "acme", "news", file.to_str().unwrap()];
    let (code, printed, fault) = node.output(&[&arguments, more].concat());
    assert_eq!(code, 0, "{fault}");
    let result: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(result["mapping"]["columns"][1]["name"], "phone");
    ["added", "unchanged", "duplicates", "refused"].map(|count| result["counts"][count].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_is_imported_exported_and_deleted_without_a_node_and_on_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let bytes: Vec<u8> = PEOPLE.chars().map(|sign| u8::try_from(u32::from(sign)).unwrap()).collect();
    std::fs::write(path("people.csv"), bytes).unwrap();
    std::fs::write(path("acme.toml"), "id = \"acme\"\nname = \"Acme\"\n").unwrap();
    let node = Node::new(folder.path(), "one", "");
    node.command(&["tenant", "apply", path("acme.toml").to_str().unwrap()]);

    let rejects = path("refused.csv");
    let more = ["--country", "DE", "--rejects", rejects.to_str().unwrap()];
    let dry = import(&node, &path("people.csv"), &["--country", "DE", "--dry-run"]);
    assert_eq!(dry, [0, 0, 1, 2], "a dry run stores nothing");
    assert_eq!(import(&node, &path("people.csv"), &more), [2, 0, 1, 2]);
    let refused = std::fs::read_to_string(&rejects).unwrap();
    let lines: Vec<_> = refused.lines().collect();
    assert_eq!(
        lines,
        [
            "line,reason,Vorname,Handy,Stadt",
            "4,digits_lost,Otto,\"4,91512E+12\",Ulm",
            "5,no_number,Ida,\"\",Ulm"
        ]
    );

    let running = node.start().await;
    assert_eq!(import(&node, &path("people.csv"), &[]), [0, 2, 1, 2], "with the country of before");
    let (_, shown, _) = node.output(&["--json", "audience", "show", "acme", "news"]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (shown["members"].as_u64(), &shown["columns"]),
        (Some(2), &serde_json::json!(["first_name", "stadt"]))
    );
    let (_, exported, _) = node.output(&["audience", "export", "acme", "news"]);
    let mut members: Vec<_> = exported.lines().skip(1).collect();
    members.sort_unstable();
    assert_eq!(members, ["+436641234567,Zoë,Graz", "+4915112345678,Jürgen,Köln"]);

    let file = path("people.csv");
    let wrong = ["audience", "import", "acme", "other", file.to_str().unwrap(), "--map", "city=Ort"];
    let (code, _, fault) = node.output(&wrong);
    assert!(code == 2 && fault.contains("\"Ort\"") && fault.contains("\"Stadt\""), "{code}: {fault}");
    let (code, _, fault) = node.output(&["audience", "show", "acme", "other"]);
    assert!(code == 1 && fault.contains("no audience other"), "a refused import creates none: {fault}");
    node.command(&["audience", "delete", "acme", "news"]);
    let (_, left, _) = node.output(&["--json", "audience", "list", "acme"]);
    assert_eq!(left.trim(), "[]");
    let many: String = (0..2_000).map(|number| format!("Ann;+49152{number:08};Ulm\n")).collect();
    std::fs::write(path("many.csv"), format!("Vorname;Handy;Stadt\n{many}")).unwrap();
    assert_eq!(import(&node, &path("many.csv"), &[]), [2_000, 0, 0, 0]);
    let words = ["15112345678", "6641234567", "Jürgen", "4915200000000"];
    node.assert_files_show_none_of(&words);
    // An import is no line of a node's log, which says little else here.
    let log = node.log_text();
    assert!(log.contains("ready"), "{log}");
    for word in words {
        assert!(!log.contains(word), "{word}");
    }
    drop(running);
}
