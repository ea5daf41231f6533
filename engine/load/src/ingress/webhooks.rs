//! Ingress by signed webhooks, as WhatsApp sends them.

use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use heddle_simulator::webhooks::signature;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url};
use serde::Serialize;

use crate::Error;
use crate::fixture::Fixture;
use crate::observed::Answer;
use crate::options::Options;
use crate::parcel::{Outgoing, Parcel};

/// Sender of webhooks to the nodes, in turn.
pub(crate) struct Webhooks {
    client: Client,
    /// Webhook addresses by node and tenant.
    nodes: Vec<Vec<Url>>,
    turn: AtomicUsize,
    accounts: Vec<Account>,
}

struct Account {
    id: String,
    secret: String,
}

impl Webhooks {
    /// Creates a sender to the nodes at these addresses, at least one.
    pub(super) fn new(nodes: &[String], fixture: &Fixture, options: &Options) -> Result<Self, Error> {
        let client = Client::builder()
            .timeout(options.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .tcp_nodelay(true)
            .user_agent("facebookexternalua")
            .pool_max_idle_per_host(options.connections.get() as usize)
            .build()
            .map_err(Error::Client)?;
        let accounts: Vec<_> = (0..options.tenants.get())
            .map(|tenant| Account {
                id: fixture.account(tenant).to_string(),
                secret: fixture.secret("secret", tenant).expose().to_owned(),
            })
            .collect();
        let urls = |node: &String| {
            let base = node.trim_end_matches('/');
            accounts.iter().map(|one| format!("{base}/webhooks/whatsapp/{}", one.id).parse()).collect()
        };
        let nodes = nodes.iter().map(urls).collect::<Result<_, _>>().map_err(Error::Address)?;
        Ok(Self { client, nodes, turn: AtomicUsize::new(0), accounts })
    }

    pub(super) async fn send(&self, parcel: &Parcel) -> Result<Answer, Answer> {
        let account = &self.accounts[parcel.tenant as usize];
        let body = body(&account.id, &parcel.messages);
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
        // Read to the end, so that the connection can be reused.
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
    fn of(message: &Outgoing) -> Self {
        Self { profile: Profile { name: message.name() }, wa_id: Fixture::phone(message.sent.conversation) }
    }
}

impl<'a> Message<'a> {
    fn of(message: &'a Outgoing) -> Self {
        Self {
            from: Fixture::phone(message.sent.conversation),
            id: &message.id,
            timestamp: (message.written_at.as_micros() / 1_000_000).to_string(),
            kind: "text",
            text: Text { body: Fixture::question(message.sent.thing()) },
        }
    }
}

/// Returns the body of a webhook, shaped as in
/// <https://developers.facebook.com/documentation/business-messaging/whatsapp/webhooks/reference/messages/text>.
fn body(account: &str, messages: &[Outgoing]) -> Bytes {
    let hook = Hook {
        object: "whatsapp_business_account",
        entry: [Entry {
            id: "102290129340398",
            changes: [Change {
                field: "messages",
                value: Value {
                    messaging_product: "whatsapp",
                    metadata: Metadata { display_phone_number: "15550783881", phone_number_id: account },
                    contacts: messages.iter().map(Contact::of).collect(),
                    messages: messages.iter().map(Message::of).collect(),
                },
            }],
        }],
    };
    serde_json::to_vec(&hook).expect("a webhook is always JSON").into()
}
