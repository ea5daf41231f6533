//! Real servers for tests: those that `HEDDLE_TEST_KAFKA` and `HEDDLE_TEST_CQL` name, or `deploy/local`'s,
//! started on demand and stopped after the last process that holds them.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// Addresses of the servers.
#[derive(Debug, Clone)]
pub struct Services {
    /// A Kafka broker.
    pub kafka: String,
    /// A node that speaks CQL.
    pub cql: String,
}

impl Services {
    /// Both, running.
    #[expect(clippy::disallowed_methods, reason = "tests take the servers' addresses from the environment")]
    pub fn get() -> &'static Self {
        static SERVICES: OnceLock<Services> = OnceLock::new();
        SERVICES.get_or_init(|| {
            let port = |name: &str, default: &str| std::env::var(name).unwrap_or_else(|_| default.to_owned());
            match (std::env::var("HEDDLE_TEST_KAFKA"), std::env::var("HEDDLE_TEST_CQL")) {
                (Ok(kafka), Ok(cql)) => Self { kafka, cql },
                _ => {
                    hold();
                    Self {
                        kafka: format!("127.0.0.1:{}", port("HEDDLE_KAFKA_PORT", "19092")),
                        cql: format!("127.0.0.1:{}", port("HEDDLE_CQL_PORT", "19042")),
                    }
                }
            }
        })
    }
}

fn hold() {
    run(&["hold", &std::process::id().to_string()]);
}

fn run(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/local/services");
    let done = Command::new(&script).args(arguments).env("HEDDLE_HELD", "1").output();
    let done = done.unwrap_or_else(|error| panic!("{} cannot be run: {error}", script.display()));
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{arguments:?}: {said}");
}

/// Kills a server as a power cut would, and starts it again.
pub fn restart(service: &str) {
    run(&["kill", service]);
    run(&["up", service]);
}
