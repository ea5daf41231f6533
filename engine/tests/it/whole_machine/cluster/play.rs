//! The play: customers who ask, and a fault at a time.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::clock::SystemClock;
use heddle_schemas::id::AccountId;
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::topic::Topic;
use heddle_simulator::customers::{self, Customers, Question, Waiting};
use heddle_simulator::fault::Faults;
use heddle_simulator::graph::GraphApi;
use heddle_simulator::webhooks::{self, Webhooks};
use rustix::process::Signal;
use serde_json::Value;

use crate::process::Running;
use crate::stage::Stage;
use crate::whole_machine::cluster::site::{PARTITIONS, Site, Stored};
use heddle_connectors_testing::services;

/// Nodes that there are.
const NODES: usize = 3;
/// Longer than the session timeout and the lease together.
const ASLEEP: Duration = Duration::from_secs(12);
/// Timeout until every partition has an owner again.
const OWNED: Duration = Duration::from_secs(60);
/// Timeout until customers are answered again.
const RECOVERED: Duration = Duration::from_secs(90);
/// Timeout of a customer's answer. A killed database answers slowly for a minute or two on a small machine, and the
/// messages of that time wait for it.
const PATIENCE: Duration = Duration::from_secs(400);
/// Waiting questions that a failure explains.
const SHOWN: usize = 10;
/// Duration of a scene after its fault is over.
const AFTER: Duration = Duration::from_secs(2);

/// Fault of a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A node joins.
    Joins,
    /// A node is stopped in order, stays away until its partitions are taken over, and comes back.
    Leaves,
    /// A node is killed and comes back at once.
    Killed,
    /// A node is suspended until others have its partitions, and goes on as if nothing had happened.
    Sleeps,
    /// The broker is killed and comes back.
    Broker,
    /// The database is killed and comes back.
    Database,
    /// A node is stopped in order and comes back as another build, which writes these versions of records.
    Installed {
        /// Position of the node.
        node: usize,
        /// Build of `heddle`.
        binary: PathBuf,
        /// Value of `engine.write_version`; `None` leaves it out, for a build that does not know it.
        writes: Option<&'static str>,
    },
}

/// Settings of a play.
pub(crate) struct Options {
    /// Name of its topics and its keyspace.
    pub(crate) name: &'static str,
    /// Number of scenes.
    pub(crate) scenes: usize,
    /// Build of `heddle` that prepares topics and tables, and that nodes run at first.
    pub(crate) binary: PathBuf,
    /// Lines that the nodes' configuration has at first.
    pub(crate) config: String,
    /// Faults of the provider; `None` stands for a little of each.
    pub(crate) provider: Option<Faults>,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::Joins, Self::Killed, Self::Sleeps, Self::Leaves, Self::Broker, Self::Database];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Installed { node, binary, writes } => {
                let build = binary.file_stem().unwrap_or_default().display();
                return write!(f, "node {node} becomes {build}, writes {}", writes.unwrap_or("as it does"));
            }
            Self::Joins => "a node joins",
            Self::Leaves => "a node leaves and comes back",
            Self::Killed => "a node is killed (-9) and restarted",
            Self::Sleeps => "a node sleeps (SIGSTOP) and wakes as a zombie",
            Self::Broker => "the broker is killed and restarted",
            Self::Database => "the database is killed and restarted",
        })
    }
}

/// One line of the table.
struct Line {
    what: String,
    seconds: f64,
    answered: u64,
}

/// The play under way.
pub(crate) struct Play {
    site: Site,
    running: Vec<Option<Running>>,
    graph: GraphApi,
    webhooks: Webhooks,
    customers: Customers,
    lines: Vec<Line>,
    turn: usize,
    config: String,
    // Goes last: everything in it is in use.
    _folder: Folder,
}

/// The nodes' files, which are kept when the test fails.
struct Folder(tempfile::TempDir);

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.disable_cleanup(true);
            println!("the nodes' log lines are kept in {}", self.0.path().display());
        }
    }
}

fn accounts() -> Vec<AccountId> {
    (0..6).map(|number| format!("30{number:02}").parse().unwrap()).collect()
}

fn stage() -> Stage {
    Stage { tenant: "cluster", accounts: accounts(), word: "sesame" }
}

impl Play {
    /// Starts two nodes and enough customers for the scenes.
    pub(crate) async fn begin(options: Options) -> Self {
        let Options { name, scenes, binary, config, provider } = options;
        let folder = Folder(tempfile::tempdir().unwrap());
        let clock = Arc::new(SystemClock);
        let stage = stage();
        let mut of_provider = stage.provider();
        of_provider.faults = provider.unwrap_or(of_provider.faults);
        let graph = GraphApi::start(of_provider, clock.clone()).await.unwrap();
        let site = Site::new(folder.0.path(), NODES, name, &binary, &config);
        let (document, things) = crate::stage::catalogue();
        // One line each: while webhooks are refused and come again, a burst falls apart into turns, and its
        // second half asks for nothing that could be counted.
        let question = |(thing, price): &(&str, String)| {
            Question::new([&*format!("What does a {thing} cost?")]).expecting(price)
        };
        let questions = things.iter().map(question).collect();
        let (of_tenant, of_document) =
            (folder.0.path().join("tenant.toml"), folder.0.path().join("catalogue.md"));
        std::fs::write(&of_tenant, stage.file(&graph.api_base())).unwrap();
        std::fs::write(&of_document, document).unwrap();
        let first = site.nodes[0].start().await;
        site.nodes[0].command(&["tenant", "apply", of_tenant.to_str().unwrap()]);
        site.nodes[0].command(&["kb", "add", "cluster", of_document.to_str().unwrap()]);
        let mut running: Vec<_> = (0..NODES).map(|_| None).collect();
        running[1] = Some(site.nodes[1].start().await);
        running[0] = Some(first);

        let secrets: HashMap<_, _> =
            accounts().into_iter().map(|account| (account, stage.app_secret())).collect();
        let hooks = webhooks::Options {
            targets: site.urls(),
            longest_pause: Duration::from_millis(500),
            timeout: Duration::from_secs(3),
            ..webhooks::Options::new("", secrets)
        };
        let webhooks = Webhooks::start(hooks, &graph, clock.clone()).unwrap();
        let scenes = scenes.max(1);
        let cast = customers::Options {
            // A new owner of an account grants a person one message in six seconds and no burst, so that many
            // people with few questions make more load than few with many.
            customers: NonZeroUsize::new(60 * scenes).unwrap(),
            questions: NonZeroUsize::new(4).unwrap(),
            patience: Some(PATIENCE),
            // About as long as the scenes last: a fault without concurrent questions proves nothing.
            start: Duration::from_secs(18) * u32::try_from(scenes).unwrap(),
            think: Duration::from_millis(100)..Duration::from_millis(1_000),
            extras: 0.0,
            ..customers::Options::new(accounts(), questions)
        };
        let customers = Customers::start(cast, &graph, &webhooks, clock, None).unwrap();
        let lines = Vec::new();
        let mut play =
            Self { site, running, graph, webhooks, customers, lines, turn: 0, config, _folder: folder };
        play.scene("two nodes serve".to_owned(), None).await;
        play
    }

    /// One fault, in the middle of the load.
    pub(crate) async fn act(&mut self, fault: Fault) {
        let what = fault.to_string();
        self.scene(what, Some(fault)).await;
    }

    async fn scene(&mut self, what: String, fault: Option<Fault>) {
        let (began, before) = (SystemClock.elapsed(), self.graph.counts().taken);
        match fault {
            Some(fault) => self.fault(fault).await,
            None => self.owned(self.alive()).await,
        }
        self.goes_on().await;
        tokio::time::sleep(AFTER).await;
        assert!(self.graph.times_taken().into_values().all(|times| times == 1), "{what}: sent twice");
        let answered = self.graph.counts().taken - before;
        let seconds = (SystemClock.elapsed() - began).as_secs_f64();
        println!("{what}: {answered} messages in {seconds:.1} s");
        self.lines.push(Line { what, seconds, answered });
    }

    /// Waits until people are answered again.
    async fn goes_on(&self) {
        let before = self.graph.counts().taken;
        let more = async {
            while self.graph.counts().taken < before + 20 && !self.is_over() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        if tokio::time::timeout(RECOVERED, more).await.is_err() {
            self.explain().await;
            panic!("customers get no answers any more");
        }
    }

    fn is_over(&self) -> bool {
        let (answered, questions) = self.customers.progress();
        answered >= questions
    }

    /// The node whose turn it is to suffer.
    fn next(&mut self) -> usize {
        loop {
            self.turn = (self.turn + 1) % NODES;
            if self.running[self.turn].is_some() {
                return self.turn;
            }
        }
    }

    async fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Joins => {
                for node in 0..NODES {
                    if self.running[node].is_none() {
                        self.running[node] = Some(self.site.nodes[node].start().await);
                    }
                }
            }
            Fault::Leaves => {
                let node = self.next();
                self.running[node].take().unwrap().terminate();
                self.owned(self.alive()).await;
                self.running[node] = Some(self.site.nodes[node].start().await);
            }
            Fault::Killed => {
                let node = self.next();
                self.running[node].take().unwrap().kill();
                self.running[node] = Some(self.site.nodes[node].start().await);
            }
            Fault::Sleeps => {
                let node = self.next();
                self.running[node].as_ref().unwrap().signal(Signal::STOP);
                tokio::time::sleep(ASLEEP).await;
                self.running[node].as_ref().unwrap().signal(Signal::CONT);
            }
            Fault::Installed { node, binary, writes } => self.install(node, &binary, writes).await,
            Fault::Broker => tokio::task::block_in_place(|| services::restart("kafka")),
            Fault::Database => tokio::task::block_in_place(|| services::restart("cassandra")),
        }
        self.owned(self.alive()).await;
    }

    /// Stops a node and starts it as another build.
    async fn install(&mut self, node: usize, binary: &Path, writes: Option<&str>) {
        if let Some(running) = self.running[node].take() {
            running.terminate();
            self.owned(self.alive()).await;
        }
        let writes =
            writes.map(|writes| format!("engine.write_version = \"{writes}\"\n")).unwrap_or_default();
        self.site.configure(node, &format!("{}{writes}", self.config));
        let of_node = &mut self.site.nodes[node];
        of_node.install(binary);
        // As an operator does before a node of another build: tables that it adds are there when it starts.
        of_node.command(&["topics", "apply"]);
        of_node.command(&["schema", "apply"]);
        self.running[node] = Some(of_node.start().await);
    }

    fn alive(&self) -> usize {
        self.running.iter().flatten().count()
    }

    /// Waits until every partition has one owner, and each of `nodes` nodes a share.
    async fn owned(&self, nodes: usize) {
        let mut shares = Vec::new();
        let owned = async {
            loop {
                shares.clear();
                for running in self.running.iter().flatten() {
                    shares.push(running.metric("heddle_partition_owned").await as usize);
                }
                let busy = shares.iter().filter(|&&share| share > 0).count();
                if shares.iter().sum::<usize>() == Topic::CONSUMED.len() * PARTITIONS && busy >= nodes {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        assert!(tokio::time::timeout(OWNED, owned).await.is_ok(), "partitions are owned as {shares:?}");
    }

    /// Prints the work of each node, and the customers that wait, each with what a node stores of its conversation and
    /// has warned of it.
    async fn explain(&self) {
        for (name, running) in ('a'..).zip(&self.running) {
            let Some(running) = running else { continue };
            println!("node {name}:\n{}\n", running.waiting().await);
        }
        let waiting = self.customers.waiting();
        println!("{} questions wait for an answer; the oldest:", waiting.len());
        for Waiting { customer, account, contact, question, since } in waiting.iter().take(SHOWN) {
            println!("customer {customer} ({contact} to {account}), question {question}, for {since:.1?}");
            let Some(running) = self.running.iter().flatten().next() else { continue };
            match running.export(stage().tenant, contact).await {
                Ok(export) => self.explain_conversations(&export, account),
                Err(error) => println!("  {error}"),
            }
        }
    }

    fn explain_conversations(&self, export: &Value, account: &AccountId) {
        let of_account =
            |one: &&Value| one["conversation"].as_str().is_some_and(|id| id.contains(account.as_str()));
        for of in export["conversations"].as_array().into_iter().flatten().filter(of_account) {
            let id = of["conversation"].as_str().unwrap_or_default();
            let last = of["thread"].as_array().and_then(|thread| thread.last());
            println!("  {id}: the last entry of its thread is {}", last.unwrap_or(&Value::Null));
            println!("  its messages that wait to be sent are {}", of["waiting"]);
            for node in &self.site.nodes {
                node.warnings_about(id).iter().for_each(|line| println!("  {line}"));
            }
        }
    }

    /// Everybody is answered, everything is counted.
    pub(crate) async fn end(mut self) {
        let done = tokio::time::timeout(PATIENCE + AFTER, self.customers.done()).await;
        if done.is_err() || !self.customers.waiting().is_empty() {
            self.explain().await;
        }
        let progress = self.customers.progress();
        assert!(done.is_ok(), "{progress:?}");
        assert!(
            tokio::time::timeout(Duration::from_secs(60), self.webhooks.idle()).await.is_ok(),
            "{} webhooks were never taken",
            self.webhooks.open()
        );
        for running in self.running.iter().flatten() {
            running.settled().await;
            assert_eq!(running.metric("heddle_dlq_records_total").await, 0.0);
        }
        let used = self.site.nodes[0].usage(stage().tenant);
        for running in std::mem::take(&mut self.running).into_iter().flatten() {
            running.terminate();
        }
        let report = self.customers.report();
        let twice = self.graph.times_taken().into_values().filter(|times| *times > 1).count();
        println!("\n{:<48} {:>8} {:>10} {:>8}", "scene", "seconds", "answers", "per s");
        for Line { what, seconds, answered } in &self.lines {
            println!("{what:<48} {seconds:>8.1} {answered:>10} {:>8.1}", *answered as f64 / seconds);
        }
        println!(
            "\n{} messages, {} questions, {} replies; lost {}, doubled {}, out of order {}; webhooks retried {}, \
             duplicates sent {}; answers took p50 {:?}, p99 {:?}, max {:?}",
            report.messages,
            report.questions,
            report.replies,
            report.unanswered,
            report.doubled,
            report.out_of_order,
            report.webhooks.retried,
            report.duplicates,
            report.latency.p50,
            report.latency.p99,
            report.latency.max,
        );
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(twice, 0);
        // I5 holds whichever node decided a turn, and whichever part died meanwhile.
        assert_eq!(used, (report.replies, report.replies), "turns and messages used");
        // And so it is in the database: each message seen, each reply sent and reported, nothing left.
        let (messages, replies) = (report.messages.cast_signed(), report.replies.cast_signed());
        let expected = Stored { markers: messages, sends: replies, deliveries: replies, waiting: 0 };
        assert_eq!(self.site.stored().await, expected);
    }
}
