//! The promises of every channel about webhooks, handshakes, addresses and credentials. Those about sending are in
//! `sends`.

use std::collections::BTreeSet;

use heddle_schemas::ports::channel::{Channel, ChannelAccount, HandshakeError, WebhookError};
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::Tenant;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

macro_rules! promises_of_a_channel {
    ($given:expr) => {
        crate::conformance::promises!(
            channel,
            &$given,
            [
                a_signed_body_is_taken_and_read,
                a_body_without_its_signature_is_refused,
                another_secret_does_not_sign,
                another_body_is_refused,
                a_body_that_is_no_json_is_told,
                a_handshake_is_answered_to_whoever_knows_the_token,
                an_address_reads_back_as_it_is_written,
                an_account_without_its_credentials_is_refused,
            ]
        );
    };
}
pub(crate) use promises_of_a_channel as promises;

/// Parameters of a request and the answer to them.
pub(crate) struct Handshake {
    pub(crate) query: &'static [(&'static str, &'static str)],
    pub(crate) answer: &'static str,
}

/// A channel with an account, a body that it signed, and names of contacts.
pub(crate) struct Given {
    pub(crate) channel: Box<dyn Channel>,
    pub(crate) account: ChannelAccount,
    pub(crate) body: &'static [u8],
    /// Of the delivery of that body, the signature last.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// The credential that signs.
    pub(crate) secret: &'static str,
    pub(crate) handshake: Option<Handshake>,
    /// Ids of contacts as people write them after the channel's name.
    pub(crate) ids: &'static [&'static str],
}

impl Given {
    /// The headers, with this in place of the signature.
    fn headers(&self, signature: Option<&str>) -> HeaderMap {
        let (last, others) = self.headers.split_last().unwrap();
        let others = others.iter().copied();
        let signed = signature.map(|signature| (last.0, signature));
        others
            .chain(signed)
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn signature(&self) -> &'static str {
        self.headers.last().unwrap().1
    }

    fn verify(&self, account: &ChannelAccount, body: &[u8]) -> Result<(), WebhookError> {
        self.channel.verify(account, &self.headers(Some(self.signature())), body)
    }

    fn with(&self, credential: &str, value: &str) -> ChannelAccount {
        let mut account = self.account.clone();
        account.credentials.set(credential, Secret::new(value));
        account
    }

    /// The faults of a tenant with this account.
    fn faults(&self, account: ChannelAccount) -> Vec<String> {
        let mut tenant = Tenant::from_toml("id = \"acme\"\nname = \"Acme\"").unwrap();
        tenant.channels.push(account);
        tenant.complete(&|_| Some(self.channel.profile())).err().map_or_else(Vec::new, |faults| faults.0)
    }
}

pub(crate) async fn a_signed_body_is_taken_and_read(given: &Given) {
    given.verify(&given.account, given.body).unwrap();
    given.channel.parse(&given.account.account, given.body).unwrap();
}

pub(crate) async fn a_body_without_its_signature_is_refused(given: &Given) {
    let mut changed = given.signature().to_owned();
    changed.pop();
    let longer = format!("{}0", given.signature());
    for signature in
        [None, Some(""), Some("sha256="), Some("v1,"), Some("nonsense"), Some(&*changed), Some(&*longer)]
    {
        let verified = given.channel.verify(&given.account, &given.headers(signature), given.body);
        assert_eq!(verified, Err(WebhookError::Signature), "{signature:?}");
    }
}

pub(crate) async fn another_secret_does_not_sign(given: &Given) {
    // The second one could be a secret of any channel.
    for secret in ["another", "whsec_QW5vdGhlciBzZWNyZXQgb2YgdGhpcyB0ZXN0", ""] {
        let verified = given.verify(&given.with(given.secret, secret), given.body);
        assert_eq!(verified, Err(WebhookError::Signature), "{secret:?}");
    }
    let bare = ChannelAccount { credentials: Default::default(), ..given.account.clone() };
    assert_eq!(given.verify(&bare, given.body), Err(WebhookError::Signature));
    assert_eq!(
        given.channel.verify(&bare, &HeaderMap::new(), b""),
        Err(WebhookError::Signature),
        "nothing signs for nothing"
    );
}

pub(crate) async fn another_body_is_refused(given: &Given) {
    if given.signature() == given.account.credential(given.secret).unwrap().expose() {
        // A scripted signature is of no body.
        return;
    }
    let body = [given.body, b" "].concat();
    assert_eq!(given.verify(&given.account, &body), Err(WebhookError::Signature));
}

pub(crate) async fn a_body_that_is_no_json_is_told(given: &Given) {
    for body in [&b""[..], b"nonsense", b"{", b"\xff"] {
        let read = given.channel.parse(&given.account.account, body);
        assert!(matches!(read, Err(WebhookError::Body(_))), "{read:?}");
    }
}

pub(crate) async fn a_handshake_is_answered_to_whoever_knows_the_token(given: &Given) {
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let Some(handshake) = &given.handshake else {
        let query = [("hub.mode", "subscribe"), ("hub.challenge", "1")].map(owned);
        assert_eq!(given.channel.handshake(&given.account, &query), Err(HandshakeError::Unsupported));
        return;
    };
    let query: Vec<_> = handshake.query.iter().copied().map(owned).collect();
    let ask = |account: &ChannelAccount, query: &[_]| given.channel.handshake(account, query);
    assert_eq!(ask(&given.account, &query), Ok(handshake.answer.to_owned()));
    assert_eq!(ask(&given.account, &[]), Err(HandshakeError::Refused));
    let bare = ChannelAccount { credentials: Default::default(), ..given.account.clone() };
    assert_eq!(ask(&bare, &query), Err(HandshakeError::Refused));
    for (name, _) in given.account.credentials.iter() {
        // Whichever of them it shows, another one does not do.
        let answered = ask(&given.with(name, "another"), &query);
        assert!(
            answered == Err(HandshakeError::Refused) || answered == Ok(handshake.answer.to_owned()),
            "{name}"
        );
    }
}

pub(crate) async fn an_address_reads_back_as_it_is_written(given: &Given) {
    let profile = given.channel.profile();
    let mut aliases = BTreeSet::new();
    for id in given.ids {
        let address = profile.read_id(id).unwrap_or_else(|| panic!("{id} is one of the channel's ids"));
        assert_eq!(profile.write_id(&address).as_deref(), Some(*id));
        assert!(profile.knows(&address));
        let found: Vec<_> =
            profile.ids.iter().filter_map(|kind| kind.alias(profile.kind, &address)).collect();
        assert_eq!(found.len(), 1, "{id}: {found:?}");
        assert!(aliases.insert(found), "{id} leads to somebody else");
    }
    for id in ["", "+", "+x"] {
        assert_eq!(profile.read_id(id), None, "{id:?}");
    }
}

pub(crate) async fn an_account_without_its_credentials_is_refused(given: &Given) {
    assert_eq!(given.faults(given.account.clone()), Vec::<String>::new());
    for spec in given.channel.profile().credentials {
        let faults = given.faults(given.with(spec.name, ""));
        assert_eq!(faults.len(), usize::from(spec.required), "{}: {faults:?}", spec.name);
        assert!(
            faults.iter().all(|fault| fault.starts_with(&format!("channels[0].{}: ", spec.name))),
            "{faults:?}"
        );
    }
    let faults = given.faults(given.with("acces_tokn", "x"));
    assert!(matches!(&faults[..], [fault] if fault.starts_with("channels[0].acces_tokn: ")), "{faults:?}");
}
