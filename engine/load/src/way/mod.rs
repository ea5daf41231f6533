//! Ways into the engine. A way takes a parcel of messages for one account and says whether it was accepted:
//! durable, and so owed a reply.

mod kafka;
mod webhooks;

use self::kafka::Kafka;
use self::webhooks::Webhooks;
use crate::Error;
use crate::cast::Cast;
use crate::observed::Answer;
use crate::options::{Options, Way};
use crate::parcel::Parcel;

/// A way into the engine.
pub(crate) enum Ingress {
    /// Signed webhooks, as WhatsApp sends them.
    Webhooks(Webhooks),
    /// Records of topic ingress.
    Kafka(Kafka),
}

impl Ingress {
    /// The way that the options name; webhooks go to `base` where they name no other node.
    ///
    /// # Errors
    /// What is wrong with an address or a client.
    pub(crate) fn new(options: &Options, cast: &Cast, base: &str) -> Result<Self, Error> {
        Ok(match &options.way {
            Way::Webhooks { nodes } => {
                let alone = [base.to_owned()];
                let nodes = if nodes.is_empty() { &alone[..] } else { nodes };
                Self::Webhooks(Webhooks::new(nodes, cast, options)?)
            }
            Way::Kafka { connection, prefix } => Self::Kafka(Kafka::new(connection, prefix, options)?),
        })
    }

    /// Hands a parcel in.
    ///
    /// # Errors
    /// When it was not accepted, or is not known to be.
    pub(crate) async fn send(&self, parcel: &Parcel) -> Result<Answer, Answer> {
        match self {
            Self::Webhooks(webhooks) => webhooks.send(parcel).await,
            Self::Kafka(kafka) => kafka.send(parcel).await,
        }
    }
}
