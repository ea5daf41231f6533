//! The channels that the suites `channel` and `sends` run on. A channel is added here.

use std::sync::Arc;
use std::time::Duration;

use heddle_connectors::channels::Options;
use heddle_memory::ManualClock;
use heddle_schemas::content::Address;
use heddle_schemas::ports::channel::{ChannelAccount, ChannelProfile};
use heddle_schemas::ports::clock::Clock;
use heddle_schemas::sealed::Secret;
use heddle_schemas::time::Timestamp;

use crate::conformance::channel::{Given, Handshake};
use crate::conformance::sends::Sends;

/// The time of every channel here.
const NOW: Timestamp = Timestamp::from_secs(1_767_225_600);

/// Options of calls that wait a second at most.
fn hasty() -> Options {
    Options {
        timeout: Duration::from_secs(1),
        egress: heddle_connectors::egress::Egress::with_loopback(),
        ..Options::default()
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::starting_at(NOW))
}

fn account(profile: &ChannelProfile, secrets: &[(&str, &str)]) -> ChannelAccount {
    let secrets = secrets.iter().map(|(name, secret)| (*name, Secret::new(*secret)));
    ChannelAccount::new(profile.kind, "1122".parse().unwrap(), "http://127.0.0.1:9", secrets)
}

mod scripted {
    use heddle_connectors::channels::whatsapp::PROFILE;
    use heddle_memory::ScriptedChannel;
    use heddle_memory::channel::SIGNATURE;

    use super::*;

    crate::conformance::channel::promises!(Given {
        channel: Box::new(ScriptedChannel::default()),
        account: account(
            &PROFILE,
            &[("access_token", "EAAJB-token"), ("app_secret", "app-secret"), ("verify_token", "v")]
        ),
        body: br#"{"texts":[],"statuses":[]}"#,
        headers: &[(SIGNATURE, "app-secret")],
        secret: "app_secret",
        handshake: None,
        ids: &["16505551234"],
    });
}

mod whatsapp {
    use heddle_connectors::channels::whatsapp::{PROFILE, WhatsApp};

    use super::*;

    fn given() -> Given {
        Given {
            channel: Box::new(WhatsApp::new(&hasty(), clock()).unwrap()),
            account: account(
                &PROFILE,
                &[("access_token", "EAAJB-token"), ("app_secret", "app-secret"), ("verify_token", "ver1fy")],
            ),
            body: br#"{"object":"whatsapp_business_account","entry":[]}"#,
            // `openssl dgst -sha256 -hmac app-secret` of the body.
            headers: &[(
                "x-hub-signature-256",
                "sha256=d3e4f9da0ce6c71ab3dba55929b8eeeee2455349e534924ead19f98d143e904f",
            )],
            secret: "app_secret",
            handshake: Some(Handshake {
                query: &[
                    ("hub.mode", "subscribe"),
                    ("hub.challenge", "1158201444"),
                    ("hub.verify_token", "ver1fy"),
                ],
                answer: "1158201444",
            }),
            ids: &["16505551234", "US.13491208655302741918", "US.ENT.11815799212886844830"],
        }
    }

    fn sends() -> Sends {
        let Given { channel, account, .. } = given();
        let to = Address { phone: Some("16505551234".into()), ..Address::default() };
        Sends { channel, account, to, accepts: (r#"{"messages":[{"id":"wamid.1"}]}"#, "wamid.1") }
    }

    crate::conformance::channel::promises!(given());
    crate::conformance::sends::promises!(sends());
}

mod http {
    use heddle_connectors::channels::http::{Http, PROFILE};
    use heddle_schemas::content::ChatId;

    use super::*;

    fn given() -> Given {
        Given {
            channel: Box::new(Http::new(&hasty(), clock()).unwrap()),
            account: account(
                &PROFILE,
                &[
                    ("webhook_secret", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
                    ("signing_secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
                ],
            ),
            body: include_bytes!("../../../src/channels/http/fixtures/message.json").trim_ascii_end(),
            // By openssl, as deploy/examples/website-chat/post.sh does it.
            headers: &[
                ("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
                ("webhook-timestamp", "1767225600"),
                ("webhook-signature", "v1,Xtc882ftpU3VPBv6J8VHjNYc377rR7Yfov2qWi5y1KE="),
            ],
            secret: "webhook_secret",
            handshake: None,
            ids: &["1122/visitor-7", "1122/4915112345678", "1123/visitor-7", "1122/a/b"],
        }
    }

    fn sends() -> Sends {
        let Given { channel, account, .. } = given();
        let chat = Box::new(ChatId { account: account.account.clone(), id: "visitor-7".into() });
        let to = Address { chat: Some(chat), ..Address::default() };
        Sends { channel, account, to, accepts: (r#"{"id":"chat-4711"}"#, "chat-4711") }
    }

    crate::conformance::channel::promises!(given());
    crate::conformance::sends::promises!(sends());
}
