//! The ways into the engine. A way takes a parcel of messages for one account and says whether it was accepted:
//! durable, and so owed a reply.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde::Serialize;

use super::cast::Cast;
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
    /// Whole seconds since the epoch.
    pub(super) written_at: String,
}

impl Parcel {
    /// Which messages it holds.
    pub(super) fn sent(&self) -> impl ExactSizeIterator<Item = Sent> + '_ {
        self.letters.iter().map(|letter| letter.sent)
    }
}

/// Why a parcel was not accepted, or is not known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It was answered with this status.
    Status(u16),
    /// It was not answered.
    Fault(&'static str),
}

/// A way in.
pub(super) enum WayIn {
    /// Signed webhooks, as WhatsApp sends them.
    Webhooks(Webhooks),
}

impl WayIn {
    /// Hands a parcel in.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(super) async fn send(&self, parcel: &Parcel) -> Result<(), Refusal> {
        match self {
            Self::Webhooks(webhooks) => webhooks.send(parcel).await,
        }
    }
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
    /// To the nodes at these addresses, at least one; `connections` of them at once.
    ///
    /// # Errors
    /// What is wrong with an address or the HTTP client.
    pub(super) fn new(
        nodes: &[String],
        cast: &Cast,
        tenants: u32,
        connections: usize,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let client = Client::builder()
            .timeout(timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent("facebookexternalua")
            .pool_max_idle_per_host(connections)
            .build()?;
        let accounts: Vec<_> = (0..tenants)
            .map(|tenant| Account {
                id: Cast::account(tenant).to_string(),
                secret: cast.secret("secret", tenant).expose().to_owned(),
            })
            .collect();
        let urls = |node: &String| {
            let base = node.trim_end_matches('/');
            accounts.iter().map(|one| format!("{base}/webhooks/whatsapp/{}", one.id).parse()).collect()
        };
        let nodes = nodes.iter().map(urls).collect::<Result<_, _>>()?;
        Ok(Self { client, nodes, turn: AtomicUsize::new(0), accounts })
    }

    async fn send(&self, parcel: &Parcel) -> Result<(), Refusal> {
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
        let response = request.send().await.map_err(|error| Refusal::Fault(fault(&error)))?;
        let status = response.status().as_u16();
        // Read, so that the connection can be used again.
        response.bytes().await.map_err(|error| Refusal::Fault(fault(&error)))?;
        if status == 200 { Ok(()) } else { Err(Refusal::Status(status)) }
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
    timestamp: &'a str,
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
        let conversation = letter.sent.conversation;
        Self {
            profile: Profile { name: format!("Customer {}", conversation + 1) },
            wa_id: Cast::phone(conversation),
        }
    }
}

impl<'a> Message<'a> {
    fn of(letter: &'a Letter) -> Self {
        Self {
            from: Cast::phone(letter.sent.conversation),
            id: &letter.id,
            timestamp: &letter.written_at,
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
