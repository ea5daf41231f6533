//! Ingress by records of topic ingress, as a connector publishes them.

use futures::future::join_all;
use heddle_connectors::kafka::{Connection, Publisher};
use heddle_schemas::content::{Content, Context};
use heddle_schemas::id::ChannelKind;
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::record::ingress::{IngressEvent, IngressRecord, Label, Phone, Sender};
use heddle_schemas::record::{V, encode};

use crate::Error;
use crate::fixture::Fixture;
use crate::observed::Answer;
use crate::options::Options;
use crate::parcel::{Outgoing, Parcel};

/// Producer of a connector.
pub(crate) struct Kafka {
    publisher: Publisher,
    fixture: Fixture,
}

impl Kafka {
    /// Creates a producer for the brokers of this connection; topics' names begin with `prefix`.
    pub(super) fn new(
        connection: &Connection,
        prefix: &str,
        fixture: &Fixture,
        options: &Options,
    ) -> Result<Self, Error> {
        let publisher = Publisher::new(connection, prefix, options.timeout)
            .map_err(|error| Error::Producer(error.into()))?;
        Ok(Self { publisher, fixture: fixture.clone() })
    }

    pub(super) async fn send(&self, parcel: &Parcel) -> Result<Answer, Answer> {
        let published = parcel.messages.iter().map(|message| async {
            let phone = Fixture::phone(message.sent.conversation);
            self.publisher.publish(&phone, &record(&self.fixture, parcel.tenant, message, &phone)).await
        });
        match join_all(published).await.into_iter().collect() {
            Ok(()) => Ok("confirmed".into()),
            Err(StoreError::Full { .. }) => Err("the producer's buffer is full".into()),
            Err(_) => Err("not confirmed".into()),
        }
    }
}

/// Returns the record that a connector would publish for a message.
fn record(fixture: &Fixture, tenant: u32, message: &Outgoing, phone: &str) -> Vec<u8> {
    let label = |text: String| Label::new(text).expect("it is short and not empty");
    encode(&IngressRecord {
        v: V,
        tenant: fixture.tenant_id(tenant),
        channel: ChannelKind::Whatsapp,
        account: fixture.account(tenant),
        message_id: label(message.id.clone()),
        at: message.written_at,
        from: Some(Sender {
            phone: Phone::new(format!("+{phone}")),
            name: Some(label(message.name())),
            ..Sender::default()
        }),
        event: IngressEvent::Message {
            content: Content::Text { body: Fixture::question(message.sent.thing()) },
            context: Context::default(),
        },
    })
    .into()
}
