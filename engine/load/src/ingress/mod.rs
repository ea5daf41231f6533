//! Ingresses of the engine. Each sends a parcel of messages for one account and reports whether it was accepted,
//! that is durable, so that each message must get a reply.

mod kafka;
mod webhooks;

use self::kafka::Kafka;
use self::webhooks::Webhooks;
use crate::Error;
use crate::fixture::Fixture;
use crate::observed::Answer;
use crate::options::{Options, Way};
use crate::parcel::Parcel;

/// Ingress of the engine.
pub(crate) enum Ingress {
    /// Signed webhooks, as WhatsApp sends them.
    Webhooks(Webhooks),
    /// Records of topic ingress.
    Kafka(Kafka),
}

impl Ingress {
    /// Creates the ingress that the options name; webhooks go to `base` unless the options name other nodes.
    ///
    /// # Errors
    /// When an address is not valid, or a client cannot be set up.
    pub(crate) fn new(options: &Options, fixture: &Fixture, base: &str) -> Result<Self, Error> {
        Ok(match &options.way {
            Way::Webhooks { nodes } => {
                let alone = [base.to_owned()];
                let nodes = if nodes.is_empty() { &alone[..] } else { nodes };
                Self::Webhooks(Webhooks::new(nodes, fixture, options)?)
            }
            Way::Kafka { connection, prefix } => {
                Self::Kafka(Kafka::new(connection, prefix, fixture, options)?)
            }
        })
    }

    /// Sends a parcel.
    ///
    /// # Errors
    /// When the parcel was refused, or its acceptance is unknown.
    pub(crate) async fn send(&self, parcel: &Parcel) -> Result<Answer, Answer> {
        match self {
            Self::Webhooks(webhooks) => webhooks.send(parcel).await,
            Self::Kafka(kafka) => kafka.send(parcel).await,
        }
    }
}
