//! `heddle tenant apply` of an existing tenant: differences, and the confirmation of what is removed.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const ACME: &str = r#"
id = "acme"
name = "Acme"
[quota]
messages_per_month = 100
[[channels]]
kind = "whatsapp"
account = "1001"
access_token = "token-one"
app_secret = "secret-one"
verify_token = "verify-one"
"#;

/// Runs the command without a terminal, on a store of this folder that no process has open.
fn heddle(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heddle"));
    let output = command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_removal_is_shown_and_needs_yes_and_additions_and_changes_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // No process listens at this address.
    std::fs::write(folder.join("heddle.toml"), "[http]\nlisten = \"127.0.0.1:9\"\n").unwrap();
    let apply = |text: &str, more: &[&str]| {
        std::fs::write(folder.join("acme.toml"), text).unwrap();
        heddle(folder, &[&["tenant", "apply", "acme.toml"], more].concat())
    };
    let (code, printed, fault) = apply(ACME, &[]);
    assert_eq!(code, 0, "{fault}");
    assert!(printed.starts_with("tenant acme is applied\n  webhook of 1001"), "{printed}");
    let (code, printed, _) = apply(ACME, &[]);
    assert!(code == 0 && printed.contains("is applied, without a change"), "{printed}");

    let second = "[[channels]]\nkind = \"whatsapp\"\naccount = \"1002\"\naccess_token = \"t\"\n\
                  app_secret = \"s\"\nverify_token = \"v\"\n";
    let more = format!("{ACME}{second}").replace("= 100", "= 200").replace("token-one", "token-two");
    let (code, printed, fault) = apply(&more, &[]);
    assert_eq!(code, 0, "{fault}");
    for line in [
        "~ quota.messages_per_month: 100 -> 200",
        "~ channels.whatsapp.1001.access_token: changed",
        "+ channels.whatsapp.1002",
        "+ channels.whatsapp.1002.app_secret: set",
    ] {
        assert!(printed.lines().any(|one| one == line), "{line}: {printed}");
    }
    assert!(!printed.contains("token-"), "{printed}");

    let (code, printed, fault) = apply(ACME, &[]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed.lines().any(|line| line == "- channels.whatsapp.1002"), "{printed}");
    assert!(fault.contains("--yes") && fault.contains("channels.whatsapp.1002"), "{fault}");
    let (_, listed, _) = heddle(folder, &["tenant", "list"]);
    assert!(listed.contains("whatsapp/1002"), "nothing was applied: {listed}");

    let (code, printed, fault) = apply(ACME, &["--json"]);
    assert!(code == 2 && printed.is_empty(), "{printed}");
    assert!(serde_json::from_str::<Value>(&fault).is_ok(), "{fault}");
    let (code, printed, fault) = apply(ACME, &["--json", "--yes"]);
    assert_eq!(code, 0, "{fault}");
    let applied: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(applied["id"], "acme");
    let removed: Vec<_> = applied["changes"].as_array().unwrap().iter().map(|one| &one["change"]).collect();
    assert!(removed.contains(&&Value::from("removed")), "{printed}");
    assert!(!printed.contains("token-"), "{printed}");
    let (_, listed, _) = heddle(folder, &["tenant", "list"]);
    assert!(!listed.contains("whatsapp/1002"), "{listed}");
}
