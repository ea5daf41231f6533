//! The binary as a child process, on one configuration and one address.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use crate::serving::site::holder_of;
use rustix::process::{Pid, Signal, kill_process};

/// Timeout until a node is ready.
const READY: Duration = Duration::from_secs(30);

/// A configuration and an address that processes come and go on.
pub(crate) struct Node {
    folder: PathBuf,
    name: String,
    port: u16,
    admin_port: u16,
    /// Build of `heddle` that it runs.
    binary: PathBuf,
}

/// A running process.
pub(crate) struct Running {
    child: Child,
    admin_url: String,
    operator: reqwest::Client,
}

/// A free port below those that the system gives out by itself: no other process gets it by chance
/// between two starts of the node.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 5_000).unwrap();
    (first..30_000)
        .find(|port| *port > TAKEN.load(Ordering::Relaxed) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .inspect(|port| TAKEN.store(*port, Ordering::Relaxed))
        .expect("one of 5,000 ports is free")
}

impl Node {
    /// Creates a node of this name; `more` adds to the harness's configuration.
    pub(crate) fn new(folder: &Path, name: &str, more: &str) -> Self {
        let binary = env!("CARGO_BIN_EXE_heddle").into();
        let (port, admin_port) = (free_port(), free_port());
        let node = Self { folder: folder.into(), name: name.to_owned(), port, admin_port, binary };
        node.configure(more);
        node
    }

    /// Writes its configuration anew.
    pub(crate) fn configure(&self, more: &str) {
        let Self { folder, name, port, admin_port, .. } = self;
        let config = format!(
            "data_dir = \"{data}\"\nhttp.listen = \"127.0.0.1:{port}\"\n\
             http.admin_listen = \"127.0.0.1:{admin_port}\"\nsecurity.private_addresses = [\"127.0.0.0/8\"]\nnode.name = \"{name}\"\n\
             telemetry.level = \"trace\"\ntelemetry.format = \"json\"\n{more}",
            data = folder.join("data").display(),
        );
        std::fs::write(folder.join(format!("{name}.toml")), config).unwrap();
    }

    /// Makes the node's next process and commands one of another build.
    pub(crate) fn install(&mut self, binary: &Path) {
        self.binary = binary.into();
    }

    /// The address of webhooks.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client that holds the admin token, which the first start makes.
    fn operator(&self) -> reqwest::Client {
        holder_of(&std::fs::read_to_string(self.folder.join("data/admin.token")).unwrap())
    }

    fn heddle(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.folder.join(format!("{}.toml", self.name))).stdin(Stdio::null());
        command
    }

    fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Runs a command that ends by itself, and well.
    pub(crate) fn command(&self, arguments: &[&str]) {
        let done = self.heddle().args(arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Runs a command that ends by itself: its exit code, what it printed, and what it said on standard error.
    #[allow(dead_code, reason = "not every test looks at faults")]
    pub(crate) fn output(&self, arguments: &[&str]) -> (i32, String, String) {
        let done = self.heddle().args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code().unwrap(), text(&done.stdout), text(&done.stderr))
    }

    /// Returns the turns and messages in the tenant's reported usage of this month.
    #[allow(dead_code, reason = "not every test of a process has a tenant of its own")]
    pub(crate) fn usage(&self, tenant: &str) -> (u64, u64) {
        let asked = self.heddle().args(["tenant", "usage", tenant, "--json"]).output().unwrap();
        let usage: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
        let total = |what: &str| usage["total"][what].as_u64().unwrap();
        (total("turns"), total("messages"))
    }

    /// Starts a node and waits until it is ready.
    pub(crate) async fn start(&self) -> Running {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut child = self.heddle().arg("serve").stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let ready = async {
            while !reqwest::get(format!("{}/readyz", self.url()))
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                let ended = child.try_wait().unwrap();
                assert!(ended.is_none(), "the node ended: {ended:?}\n{}", self.last_of_log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(READY, ready).await.is_ok(), "not ready:\n{}", self.last_of_log());
        Running {
            child,
            admin_url: format!("http://127.0.0.1:{}", self.admin_port),
            operator: self.operator(),
        }
    }

    fn last_of_log(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap();
        let lines: Vec<_> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Returns the last warnings and errors with this word.
    #[allow(dead_code, reason = "not every test looks there")]
    pub(crate) fn warnings_about(&self, word: &str) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let is_warning = |line: &&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
        let lines: Vec<_> = log.lines().filter(is_warning).filter(|line| line.contains(word)).collect();
        lines[lines.len().saturating_sub(5)..].iter().map(|line| (*line).to_owned()).collect()
    }

    /// Returns the node's log lines.
    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap()
    }

    #[allow(dead_code, reason = "not every test looks there")]
    pub(crate) fn assert_log_shows_none_of(&self, words: &[&str]) {
        let log = std::fs::read_to_string(self.log()).unwrap();
        assert!(log.lines().count() > 10, "a log that says nothing proves nothing");
        for word in words {
            let line = log.lines().find(|line| line.contains(word));
            assert!(line.is_none(), "{word} is in a log line: {line:?}");
        }
    }

    #[allow(dead_code, reason = "not every test looks there")]
    pub(crate) fn assert_files_show_none_of(&self, words: &[&str]) {
        let mut open = vec![self.folder.join("data")];
        let mut bytes = 0;
        while let Some(path) = open.pop() {
            if path.is_dir() {
                open.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
            let stored = std::fs::read(&path).unwrap();
            bytes += stored.len();
            for word in words {
                let found = stored.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!found, "{word} is in {}", path.display());
            }
        }
        assert!(bytes > 100_000, "files that hold nothing prove nothing");
    }
}

impl Running {
    /// Kills it, as a power cut would.
    #[allow(dead_code, reason = "not every test kills")]
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Asks it to stop and waits until it has, with exit code 0.
    pub(crate) fn terminate(mut self) {
        self.signal(Signal::TERM);
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "drained and ended with {ended}");
    }

    /// The sum of a metric's series.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self
            .operator
            .get(format!("{}/metrics", self.admin_url))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        text.lines().filter(of_it).filter_map(value).sum()
    }

    /// Returns the admin API's answer at a path.
    #[allow(dead_code, reason = "not every test asks")]
    pub(crate) async fn admin(&self, path: &str) -> serde_json::Value {
        let answer = self.operator.get(format!("{}/v1/{path}", self.admin_url)).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        answer.json().await.unwrap()
    }

    /// Returns all that is stored of a contact, for the output of a failing test.
    #[allow(dead_code, reason = "not every test uses it")]
    pub(crate) async fn export(&self, tenant: &str, contact: &str) -> Result<serde_json::Value, String> {
        let url = format!("{}/v1/tenants/{tenant}/contacts/export", self.admin_url);
        let request = self.operator.get(url).query(&[("contact", contact)]);
        let answer =
            request.timeout(Duration::from_secs(10)).send().await.map_err(|error| error.to_string())?;
        let (status, body) = (answer.status(), answer.text().await.map_err(|error| error.to_string())?);
        serde_json::from_str(&body).map_err(|_| format!("the export was answered with {status}: {body}"))
    }

    /// Returns the work in flight and the backlog, for the output of a failing test.
    #[allow(dead_code, reason = "not every test uses it")]
    pub(crate) async fn waiting(&self) -> String {
        let Ok(answer) = self.operator.get(format!("{}/metrics", self.admin_url)).send().await else {
            return "no answer".to_owned();
        };
        let text = answer.text().await.unwrap_or_default();
        let of = ["heddle_partition", "heddle_agenda", "heddle_account", "heddle_dlq", "heddle_store"];
        let lines = text.lines().filter(|line| of.iter().any(|name| line.starts_with(name)));
        let lines = lines.filter(|line| !line.ends_with(" 0") && !line.contains("_seconds"));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Waits until nothing is in work and nothing waits in the agenda.
    pub(crate) async fn settled(&self) {
        let quiet = async {
            while self.metric("heddle_partition_in_work_records").await > 0.0
                || self.metric("heddle_agenda_window_entries").await > 0.0
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(60), quiet).await.is_ok(), "work never ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that fails leaves no process behind; one that ended already cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
