//! A conversation of a hundred thousand messages beside one of a hundred, on Kafka and CQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use heddle_actors::conversation::head::Head;
use heddle_actors::conversation::thread::{EntrySaid, Row, Thread};
use heddle_connectors::clock::SystemClock;
use heddle_engine::node::{Node, shut_down};
use heddle_memory::ScriptedResponder;
use heddle_memory::responder::Response;
use heddle_schemas::content::{Address, Content, Context};
use heddle_schemas::id::{ChannelKind, ConversationId, MessageKey};
use heddle_schemas::ports::channel::{Act, ChannelEvent, ReceivedMessage};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::ports::keys::Missing;
use heddle_schemas::ports::log::FetchLimit;
use heddle_schemas::ports::responder::Responder;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::record::inbound::{ActKind, InboundRecord, SealedAct};
use heddle_schemas::record::{decode, encode};
use heddle_schemas::sealed::Secret;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::{Topic, TopicPartition};
use heddle_simulator::graph::{self, GraphApi};

struct Site {
    node: Node,
    graph: GraphApi,
    /// Length of the history that the responder last received.
    read: Arc<AtomicUsize>,
    sent: AtomicUsize,
}

impl Site {
    async fn ask(&self, system: &heddle_actors::system::System, tenant: &Arc<Tenant>, who: &str) -> Duration {
        let (began, before) = (SystemClock.elapsed(), self.graph.counts().taken);
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let event = ChannelEvent::Message(ReceivedMessage {
            account: "1001".parse().unwrap(),
            id: format!("wamid.{number}"),
            from: Address { phone: Some(who.to_owned()), ..Address::default() },
            sent_at: SystemClock.now(),
            act: Act::Say(Content::Text { body: format!("question {number}") }),
            context: Context::default(),
        });
        system.reception.accept(ChannelKind::Whatsapp, tenant, vec![event]).await.unwrap();
        let answered = async {
            while self.graph.counts().taken == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), answered).await.expect("an answer comes");
        SystemClock.elapsed() - began
    }

    /// The conversations that have spoken so far.
    async fn conversations(&self) -> Vec<ConversationId> {
        let log = &self.node.ports.log;
        let mut found = Vec::new();
        for partition in 0..log.partitions(Topic::Inbound) {
            let partition = TopicPartition { topic: Topic::Inbound, partition };
            let limit = FetchLimit { records: 100, bytes: 1 << 20 };
            for record in log.fetch(partition, 0, limit, Duration::from_secs(1)).await.unwrap() {
                let record: InboundRecord = decode(&record.value).unwrap();
                if !found.contains(&record.conversation) {
                    found.push(record.conversation);
                }
            }
        }
        found
    }

    /// Adds `rows` rows of history to a conversation, which must be idle.
    async fn fill(&self, of: &ConversationId, rows: u64) {
        let ports = &self.node.ports;
        let stored = ports.state.get(&Key::head(of)).await.unwrap().unwrap();
        let mut head: Head = serde_json::from_slice(&stored).unwrap();
        let cipher = ports.keys.contact(&of.tenant, of.contact, Missing::Fail).await.unwrap();
        let (thread, expires) =
            (Thread::new(of.clone(), cipher), SystemClock.now().after(Duration::from_secs(86_400)));
        let row = |number: u64| {
            let mut key = [0; 16];
            key[..8].copy_from_slice(&number.to_be_bytes());
            let act = SealedAct {
                id: format!("old.{number}"),
                from: Address::default(),
                content: Some(Content::Text { body: "What was asked long ago, and what came of it.".into() }),
                emoji: None,
                context: Context::default(),
            };
            let entry = EntrySaid::Customer {
                key: MessageKey::from_bytes(key),
                at: SystemClock.now(),
                kind: ActKind::Say,
                target: None,
                act: Box::new(act),
            };
            thread.write(number, &Row { at: None, entries: vec![entry] }, expires)
        };
        let first = head.next_row;
        let batches: Vec<_> = (first..first + rows).step_by(200).collect();
        stream::iter(batches)
            .for_each_concurrent(8, |from| {
                let writes = (from..(from + 200).min(first + rows)).map(&row).collect();
                async move { ports.state.commit(Batch { writes, ..Batch::default() }).await.unwrap() }
            })
            .await;
        head.next_row = first + rows;
        let head = Write::put(Key::head(of), encode(&head));
        ports.state.commit(Batch { writes: vec![head], ..Batch::default() }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_of_a_hundred_thousand_messages_answers_as_fast_as_one_of_a_hundred() {
    let _alone = crate::whole_machine::alone().await;
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::open(crate::on_services::prepared("long", folder.path()).await).await.unwrap();
    let read = Arc::<AtomicUsize>::default();
    let length = read.clone();
    // As who asks an LLM.
    let responder: Arc<dyn Responder> = Arc::new(ScriptedResponder::new(true, move |question| {
        length.store(question.history.len(), Ordering::Release);
        Response::text(question, question.messages.join("\n"))
    }));
    node.ports.responders = Arc::new(move |_| responder.clone());
    let numbers = [("1001".parse().unwrap(), Secret::new("token"))].into();
    let options = graph::Options { numbers, ..graph::Options::default() };
    let graph = GraphApi::start(options, Arc::new(SystemClock)).await.unwrap();
    let site = Site { node, graph, read, sent: AtomicUsize::new(0) };
    let system = site.node.start().await.unwrap();
    let tenant = Tenant::from_toml(&format!(
        "id = \"acme\"\nname = \"A\"\n[agent]\nsettle = \"0s\"\n[[channels]]\nkind = \"whatsapp\"\naccount = \"1001\"\n\
         api_base = \"{}\"\naccess_token = \"token\"\napp_secret = \"s\"\nverify_token = \"v\"\n",
        site.graph.api_base()
    ));
    let tenant = system.tenants.apply(tenant.unwrap()).await.unwrap();
    system.intake_gate.set_open(true);
    site.ask(&system, &tenant, "4915112345601").await;
    let long = site.conversations().await.remove(0);
    site.ask(&system, &tenant, "4915112345602").await;
    let short = site.conversations().await.into_iter().find(|one| *one != long).unwrap();
    // Out of memory, so that what is asked next reads the thread anew.
    system.kill().await;
    site.fill(&long, 100_000).await;
    site.fill(&short, 100).await;

    let system = site.node.start().await.unwrap();
    system.intake_gate.set_open(true);
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..16 {
        for (place, who) in ["4915112345601", "4915112345602"].into_iter().enumerate() {
            let took = site.ask(&system, &tenant, who).await;
            times[place].push(took);
            assert!(site.read.load(Ordering::Acquire) >= 10, "what was said before is read");
        }
    }
    times.iter_mut().for_each(|times| times.sort());
    let [of_long, of_short] = times.map(|times| times[times.len() / 2]);
    println!("an answer takes {of_long:?} after 100,000 messages, {of_short:?} after 100");
    assert!(of_long < of_short * 2 + Duration::from_millis(50), "{of_long:?} {of_short:?}");
    assert!(shut_down(&site.node, system).await);
}
