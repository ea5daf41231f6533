//! The topics as an AsyncAPI document (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>), for
//! programs around the engine. What is in a record stays in its JSON Schema, which the document refers to.

use serde_json::{Map, Value, json};

use super::ingress::MAX_BYTES;
use crate::topic::Topic;

/// The document, checked in as `asyncapi.json` beside the folder of the JSON Schemas.
#[must_use]
pub fn document() -> Value {
    let each = |of: fn(Topic) -> Value| -> Map<String, Value> {
        Topic::ALL.into_iter().map(|topic| (topic.to_string(), of(topic))).collect()
    };
    let operations: Map<String, Value> = Topic::ALL
        .into_iter()
        .flat_map(|topic| {
            let (receives, sends) = actions(topic);
            let reads = receives.map(|why| (format!("{topic}.receive"), operation(topic, "receive", why)));
            reads.into_iter().chain(sends.map(|why| (format!("{topic}.send"), operation(topic, "send", why))))
        })
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Heddle topics",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What flows through Heddle's Kafka topics. Programs around it publish into `ingress` \
                and may read `events` and `dlq`; the other topics are the engine's own and described for \
                those who look after it. Every record is a JSON object with its version in `v`. Fields that \
                a reader does not know are to be ignored.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": each(channel),
        "operations": operations,
        "components": {
            "messages": each(message),
            "parameters": {
                "prefix": {
                    "description": "What the names of a cluster's topics begin with: `topic_prefix` in the \
                        configuration.",
                    "default": "heddle.",
                },
            },
        },
    })
}

/// Returns the actions of the engine on a topic: its reason to receive from it, and its reason to send to it.
fn actions(topic: Topic) -> (Option<&'static str>, Option<&'static str>) {
    match topic {
        Topic::Ingress => (
            Some(
                "Accepts records of third-party connectors: resolves the contact and writes them to inbound.",
            ),
            None,
        ),
        Topic::Inbound => (
            Some("Hands each record to its conversation."),
            Some("Writes records of webhooks and ingress, once the contact is resolved."),
        ),
        Topic::Outbound => (
            Some("Sends each message over its account."),
            Some("Writes the messages that conversations decided to send."),
        ),
        Topic::Tenants => (
            Some("Follows every tenant's configuration, on every node."),
            Some("Writes a tenant's configuration when it is applied."),
        ),
        Topic::Events => (None, Some("Publishes events, without content.")),
        Topic::Dlq => (None, Some("Dead-letters records that could not be processed, with the reason.")),
    }
}

fn operation(topic: Topic, action: &str, summary: &str) -> Value {
    let channel = format!("#/channels/{topic}");
    json!({
        "action": action,
        "channel": { "$ref": channel },
        "summary": summary,
        "messages": [{ "$ref": format!("{channel}/messages/{topic}") }],
    })
}

fn channel(topic: Topic) -> Value {
    let description = match topic {
        Topic::Ingress => format!(
            "Records of third-party connectors, with raw identity, by any partitioner. Order holds within a \
             partition, so all records of one sender need the same Kafka key. Publish with acks=all, and again \
             whenever no acknowledgement came: duplicates are recognised. At most {MAX_BYTES} bytes a record."
        ),
        Topic::Inbound => {
            "Records for conversations, one conversation in one partition. The partition is the \
                           first eight bytes of SHA-256 over the key, big-endian, modulo the partitions."
                .into()
        }
        Topic::Outbound => {
            "Commands to accounts, one account in one partition, computed as inbound's.".into()
        }
        Topic::Tenants => "The configuration of each tenant, secrets sealed. Compacted.".into(),
        Topic::Events => "Events, for analytics and billing. After a crash an event may be published twice, \
                          never differently."
            .into(),
        Topic::Dlq => {
            "Records that could not be processed: the reason and the origin. After a crash a record may be \
                       dead-lettered twice, under the same coordinates."
                .into()
        }
    };
    let mut kafka = json!({ "bindingVersion": "0.5.0" });
    if topic.is_compacted() {
        kafka["topicConfiguration"] = json!({ "cleanup.policy": ["compact"] });
    }
    json!({
        "address": format!("{{prefix}}{topic}"),
        "title": topic,
        "description": description,
        "parameters": { "prefix": { "$ref": "#/components/parameters/prefix" } },
        "messages": { topic.as_str(): { "$ref": format!("#/components/messages/{topic}") } },
        "bindings": { "kafka": kafka },
    })
}

fn message(topic: Topic) -> Value {
    let key = match topic {
        Topic::Ingress => {
            "The same for all records of one sender, such as the sender's id. Not read otherwise."
        }
        Topic::Inbound => "The conversation: tenant/channel/account/contact.",
        Topic::Outbound => "The account: tenant/channel/account.",
        Topic::Tenants => "The tenant. An empty value removes it.",
        Topic::Events => "The tenant.",
        Topic::Dlq => "The original's key; of a record of ingress, its coordinates.",
    };
    json!({
        "name": topic,
        "contentType": "application/json",
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": { "$ref": format!("./json/{topic}.json") },
        },
        "bindings": {
            "kafka": { "key": { "type": "string", "description": key }, "bindingVersion": "0.5.0" },
        },
    })
}
