use std::collections::BTreeMap;
use std::num::NonZeroU32;

use super::*;
use crate::sealed::Secret;

#[test]
fn every_fault_of_a_cql_store_is_reported() {
    let state = State {
        kind: StateKind::Cql,
        nodes: vec!["db1".into(), "db2:9042".into()],
        keyspace: "Heddle".into(),
        datacenters: BTreeMap::from([("dc1".to_owned(), NonZeroU32::MIN)]),
        datacenter: "dc2".into(),
        user: "heddle".into(),
        ..State::default()
    };
    let faults = Config { state, ..Config::default() }.validate().unwrap_err().to_string();
    for fault in ["\"db1\" is no host:port", "state.keyspace", "\"dc2\" is none of", "state.password"] {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
    assert!(!faults.contains("db2"), "{faults}");
    let state = State { kind: StateKind::Cql, ..State::default() };
    let log = Log { kind: LogKind::Kafka, ..Log::default() };
    Config { log, state, ..Config::default() }.validate().unwrap();
}

#[test]
fn files_of_a_process_and_shared_services_do_not_mix() {
    let state = State { kind: StateKind::Cql, ..State::default() };
    let faults = Config { state, ..Config::default() }.validate().unwrap_err().to_string();
    assert!(faults.contains("\"cql\" does not go with log.kind = \"embedded\""), "{faults}");
    let log = Log { kind: LogKind::Kafka, ..Log::default() };
    let faults = Config { log, ..Config::default() }.validate().unwrap_err().to_string();
    assert!(faults.contains("\"embedded\" does not go with log.kind = \"kafka\""), "{faults}");
}

#[test]
fn the_defaults_are_valid() {
    Config::default().validate().unwrap();
}

#[test]
fn the_admin_api_has_an_address_of_its_own_that_other_machines_do_not_reach() {
    assert_eq!(Http::default().admin_address(), SocketAddr::from(([127, 0, 0, 1], 8081)));
    let open = Http { listen: SocketAddr::from(([0, 0, 0, 0], 9000)), ..Http::default() };
    assert_eq!(open.admin_address(), SocketAddr::from(([127, 0, 0, 1], 9001)));
    let faults = |http: Http| Config { http, ..Config::default() }.validate().err().map(|e| e.to_string());
    assert_eq!(faults(open.clone()), None);
    let same = Http { admin_listen: Some(open.listen), ..open.clone() };
    assert!(faults(same).unwrap().contains("an address of its own"));
    let last = Http { listen: SocketAddr::from(([0, 0, 0, 0], 65_535)), ..open };
    assert!(faults(last).unwrap().contains("http.admin_listen: is not set"));
}

#[test]
fn a_token_that_can_be_guessed_is_refused() {
    let faults = |admin: &str, metrics: &str| {
        let (admin_token, metrics_token) = (Secret::new(admin), Secret::new(metrics));
        let http = Http { admin_token, metrics_token, ..Http::default() };
        Config { http, ..Config::default() }.validate().err().map(|faults| faults.to_string())
    };
    assert_eq!(faults("env:TOKEN", "file:/t"), None);
    assert_eq!(faults("0123456789abcdef", ""), None);
    assert!(faults("0123456789abcde", "").unwrap().contains("http.admin_token: has under 16 bytes"));
    assert!(faults("", "short").unwrap().contains("http.metrics_token: has under 16 bytes"));
}

#[test]
fn a_key_pasted_into_the_file_is_refused() {
    let keys = Keys {
        master: "AAAA".into(),
        former: vec!["BBBB".into(), "BBBB".into()],
        token: Secret::new("CCCC"),
        ..Keys::default()
    };
    let faults = Config { keys, ..Config::default() }.validate().unwrap_err().to_string();
    for fault in ["keys.master", "keys.former: takes", "place 2", "keys.token"] {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
    assert!(!["AAAA", "BBBB", "CCCC"].iter().any(|key| faults.contains(key)), "a key is not repeated");
}

#[test]
fn a_key_in_vault_is_written_as_its_address_and_needs_a_token() {
    let faults = |master: &str, token: &str| {
        let keys = Keys { master: master.into(), token: Secret::new(token), ..Keys::default() };
        Config { keys, ..Config::default() }.validate().err().map(|faults| faults.to_string())
    };
    let good = "vault:https://vault.example.com:8200/team/transit/keys/heddle";
    assert_eq!(faults(good, "env:VAULT_TOKEN"), None);
    assert_eq!(faults("vault:http://127.0.0.1:8200/transit/keys/heddle", "file:/run/token"), None);
    let key: VaultKey = good["vault:".len()..].parse().unwrap();
    assert_eq!(
        (&*key.base, &*key.mount, &*key.name),
        ("https://vault.example.com:8200", "team/transit", "heddle")
    );
    assert_eq!(key.to_string(), good["vault:".len()..]);
    assert!(faults(good, "").unwrap().contains("keys.token"));
    for (wrong, why) in [
        ("vault:http://vault:8200/transit/keys/heddle", "takes https"),
        ("vault:http://127.0.0.1.example.com/transit/keys/heddle", "takes https"),
        ("vault:https://vault:8200/transit/heddle", "MOUNT/keys/NAME"),
        ("vault:https://vault:8200/transit/keys/", "MOUNT/keys/NAME"),
        ("vault:https://vault:8200/keys/heddle", "MOUNT/keys/NAME"),
        ("vault:https://vault:8200/transit/keys/a?b", "MOUNT/keys/NAME"),
        ("vault:https://vault:8200/../keys/a", "MOUNT/keys/NAME"),
        ("vault:https://user@vault/transit/keys/a", "MOUNT/keys/NAME"),
        ("vault:ftp://vault/transit/keys/a", "MOUNT/keys/NAME"),
        ("vault:", "MOUNT/keys/NAME"),
    ] {
        let reported = faults(wrong, "env:VAULT_TOKEN").unwrap_or_default();
        assert!(reported.contains("keys.master") && reported.contains(why), "{wrong}: {reported}");
    }
}
