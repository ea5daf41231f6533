//! The ways into the engine. A way takes a parcel of messages for one account and says whether it was accepted:
//! durable, and so owed a reply. What it was answered is a short text, such as `200`.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use futures::future::join_all;
use heddle_connectors::kafka::Publisher;
use heddle_schemas::content::{Content, Context};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::record::ingress::{IngressEvent, IngressRecord, Label, Phone, Sender};
use heddle_schemas::record::{V, encode};
use heddle_schemas::time::Timestamp;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde::Serialize;

use super::cast::Cast;
use super::options::{Options, Way};
use super::tally::Sent;
use crate::simulator::webhooks::signature;

/// Messages that leave together, for the account of one tenant.
pub(super) struct Parcel {
    pub(super) tenant: u32,
    pub(super) letters: Vec<Letter>,
}

/// A message on its way.
pub(super) struct Letter {
    pub(super) sent: Sent,
    /// The channel's id of it, unlike any other's.
    pub(super) id: String,
    /// In whole seconds.
    pub(super) written_at: Timestamp,
}

impl Parcel {
    /// Which messages it holds.
    pub(super) fn sent(&self) -> impl ExactSizeIterator<Item = Sent> + '_ {
        self.letters.iter().map(|letter| letter.sent)
    }
}

/// What a parcel was answered.
pub(super) type Answer = Cow<'static, str>;

/// A way in.
pub(super) enum IntakeGate {
    /// Signed webhooks, as WhatsApp sends them.
    Webhooks(Webhooks),
    /// Records of topic ingress.
    Kafka(Kafka),
}

impl IntakeGate {
    /// The way that the options name; webhooks go to `base` where they name no other node.
    ///
    /// # Errors
    /// What is wrong with an address or a client.
    pub(super) fn new(options: &Options, cast: &Cast, base: &str) -> anyhow::Result<Self> {
        Ok(match &options.way {
            Way::Webhooks { nodes } => {
                let alone = [base.to_owned()];
                let nodes = if nodes.is_empty() { &alone[..] } else { nodes };
                Self::Webhooks(Webhooks::new(nodes, cast, options)?)
            }
            Way::Kafka { connection, prefix } => {
                let publisher = Publisher::new(connection, prefix, options.timeout);
                Self::Kafka(Kafka { publisher: publisher.context("the producer of --kafka")? })
            }
        })
    }

    /// Hands a parcel in.
    ///
    /// # Errors
    /// When it was not accepted, or is not known to be.
    pub(super) async fn send(&self, parcel: &Parcel) -> Result<Answer, Answer> {
        match self {
            Self::Webhooks(webhooks) => webhooks.send(parcel).await,
            Self::Kafka(kafka) => kafka.send(parcel).await,
        }
    }
}

/// A connector's producer.
pub(super) struct Kafka {
    publisher: Publisher,
}

impl Kafka {
    async fn send(&self, parcel: &Parcel) -> Result<Answer, Answer> {
        let published = parcel.letters.iter().map(|letter| async {
            let phone = Cast::phone(letter.sent.conversation);
            self.publisher.publish(&phone, &record(parcel.tenant, letter, &phone)).await
        });
        match join_all(published).await.into_iter().collect() {
            Ok(()) => Ok("confirmed".into()),
            Err(StoreError::Full { .. }) => Err("the producer's buffer is full".into()),
            Err(_) => Err("not confirmed".into()),
        }
    }
}

/// The record that a connector would write of it.
fn record(tenant: u32, letter: &Letter, phone: &str) -> Vec<u8> {
    let label = |text: String| Label::new(text).expect("it is short and not empty");
    encode(&IngressRecord {
        v: V,
        tenant: Cast::tenant_id(tenant),
        channel: ChannelKind::Whatsapp,
        account: Cast::account(tenant),
        message_id: label(letter.id.clone()),
        at: letter.written_at,
        from: Some(Sender {
            phone: Phone::new(format!("+{phone}")),
            name: Some(label(name(letter))),
            ..Sender::default()
        }),
        event: IngressEvent::Message {
            content: Content::Text { body: Cast::question(letter.sent.thing()) },
            context: Context::default(),
        },
    })
    .into()
}

fn name(letter: &Letter) -> String {
    format!("Customer {}", letter.sent.conversation + 1)
}

/// Webhooks to the nodes, in turn.
pub(super) struct Webhooks {
    client: Client,
    /// Of each node, where each tenant's go.
    nodes: Vec<Vec<Url>>,
    turn: AtomicUsize,
    accounts: Vec<Account>,
}

struct Account {
    id: String,
    secret: String,
}

impl Webhooks {
    /// To the nodes at these addresses, at least one.
    fn new(nodes: &[String], cast: &Cast, options: &Options) -> anyhow::Result<Self> {
        let client = Client::builder()
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent("facebookexternalua")
            .pool_max_idle_per_host(options.connections.get() as usize)
            .build()?;
        let accounts: Vec<_> = (0..options.tenants.get())
            .map(|tenant| Account {
                id: Cast::account(tenant).to_string(),
                secret: cast.secret("secret", tenant).expose().to_owned(),
            })
            .collect();
        let urls = |node: &String| {
            let base = node.trim_end_matches('/');
            accounts.iter().map(|one| format!("{base}/webhooks/whatsapp/{}", one.id).parse()).collect()
        };
        let nodes = nodes.iter().map(urls).collect::<Result<_, _>>();
        let nodes = nodes.context("the addresses that webhooks go to")?;
        Ok(Self { client, nodes, turn: AtomicUsize::new(0), accounts })
    }

    async fn send(&self, parcel: &Parcel) -> Result<Answer, Answer> {
        let account = &self.accounts[parcel.tenant as usize];
        let body = body(&account.id, &parcel.letters);
        let signature = signature(&account.secret, &body);
        let node = self.turn.fetch_add(1, Ordering::Relaxed) % self.nodes.len();
        let request = self
            .client
            .post(self.nodes[node][parcel.tenant as usize].clone())
            .header(CONTENT_TYPE, "application/json")
            .header("x-hub-signature-256", signature)
            .body(body);
        let response = request.send().await.map_err(|error| Answer::from(fault(&error)))?;
        let status = response.status().as_u16();
        // Read, so that the connection can be used again.
        response.bytes().await.map_err(|error| Answer::from(fault(&error)))?;
        let answer = Answer::from(status.to_string());
        if status == 200 { Ok(answer) } else { Err(answer) }
    }
}

fn fault(error: &reqwest::Error) -> &'static str {
    match () {
        () if error.is_connect() => "no connection",
        () if error.is_timeout() => "timeout",
        () => "connection lost",
    }
}

#[derive(Serialize)]
struct Hook<'a> {
    object: &'static str,
    entry: [Entry<'a>; 1],
}

#[derive(Serialize)]
struct Entry<'a> {
    id: &'static str,
    changes: [Change<'a>; 1],
}

#[derive(Serialize)]
struct Change<'a> {
    field: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
struct Value<'a> {
    messaging_product: &'static str,
    metadata: Metadata<'a>,
    contacts: Vec<Contact>,
    messages: Vec<Message<'a>>,
}

#[derive(Serialize)]
struct Metadata<'a> {
    display_phone_number: &'static str,
    phone_number_id: &'a str,
}

#[derive(Serialize)]
struct Contact {
    profile: Profile,
    wa_id: String,
}

#[derive(Serialize)]
struct Profile {
    name: String,
}

#[derive(Serialize)]
struct Message<'a> {
    from: String,
    id: &'a str,
    timestamp: String,
    #[serde(rename = "type")]
    kind: &'static str,
    text: Text,
}

#[derive(Serialize)]
struct Text {
    body: String,
}

impl Contact {
    fn of(letter: &Letter) -> Self {
        Self { profile: Profile { name: name(letter) }, wa_id: Cast::phone(letter.sent.conversation) }
    }
}

impl<'a> Message<'a> {
    fn of(letter: &'a Letter) -> Self {
        Self {
            from: Cast::phone(letter.sent.conversation),
            id: &letter.id,
            timestamp: (letter.written_at.as_micros() / 1_000_000).to_string(),
            kind: "text",
            text: Text { body: Cast::question(letter.sent.thing()) },
        }
    }
}

/// The body, shaped as in
/// <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/text>.
fn body(account: &str, letters: &[Letter]) -> Bytes {
    let hook = Hook {
        object: "whatsapp_business_account",
        entry: [Entry {
            id: "102290129340398",
            changes: [Change {
                field: "messages",
                value: Value {
                    messaging_product: "whatsapp",
                    metadata: Metadata { display_phone_number: "15550783881", phone_number_id: account },
                    contacts: letters.iter().map(Contact::of).collect(),
                    messages: letters.iter().map(Message::of).collect(),
                },
            }],
        }],
    };
    serde_json::to_vec(&hook).expect("a webhook is always JSON").into()
}
