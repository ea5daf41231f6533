//! Part of a conversation's stored state that is held in memory.

use heddle_schemas::content::Address;
use heddle_schemas::ports::keys::{Missing, aad};
use heddle_schemas::record::dlq::DeadReason;
use heddle_schemas::record::version;
use heddle_schemas::retention::Kind;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;
use serde::de::DeserializeOwned;

use super::correct;
use super::entity::{Conversation, ConversationState};
use super::fault::{Fault, unparsed};
use super::head::{Corrected, Head};
use super::seen::Seen;
use super::thread::Thread;
use crate::partition::publish::Routes;

/// Loaded conversation.
pub(super) struct Loaded {
    pub(super) head: Head,
    pub(super) seen: Seen,
    pub(super) thread: Thread,
    pub(super) address: Address,
    /// Present where the name in `address` is a correction.
    pub(super) corrected: Option<Corrected>,
    /// Names that the person had before.
    pub(super) former_names: Vec<String>,
    pub(super) routes: Routes,
    /// Time of the contact's last erasure.
    pub(super) erased_at: Option<Timestamp>,
    /// True when the last decided turn is known to be published. A crash may have come between its decision and its
    /// publication, so the head alone does not show it.
    pub(super) published: bool,
}

impl Loaded {
    /// Names by which the person is known, beside the one in `address`.
    pub(super) fn other_names(&self) -> impl Iterator<Item = &String> {
        let shown = self.corrected.as_ref().and_then(|corrected| corrected.shown.as_ref());
        self.former_names.iter().chain(shown)
    }
}

impl Conversation {
    /// Returns true where a head may end while messages of it can be delivered once more.
    fn ends_before_markers(&self) -> bool {
        let tenant = self.context.tenants.get(&self.id.tenant);
        let messages = tenant.map(|tenant| tenant.retention.of(Kind::Messages));
        messages.is_some_and(|messages| messages < self.context.options.marker_ttl)
    }

    /// Reads the head and the contact's key, unless they are in memory. A contact that has none gets a key.
    pub(super) async fn load(&self, state: &mut ConversationState) -> Result<(), Fault> {
        self.load_with(state, Missing::Create).await
    }

    /// Reads the head and the contact's key, unless they are in memory, and loads nothing where no head is stored: a
    /// timer that outlived an erasure must not give the erased contact a key again.
    pub(super) async fn load_stored(&self, state: &mut ConversationState) -> Result<(), Fault> {
        self.load_with(state, Missing::Fail).await
    }

    async fn load_with(&self, state: &mut ConversationState, missing: Missing) -> Result<(), Fault> {
        if state.loaded.is_some() {
            return Ok(());
        }
        let ports = &self.context.ports;
        let key = Key::head(&self.id);
        let stored = ports.state.get(&key).await?;
        if stored.is_none() && missing == Missing::Fail {
            return Ok(());
        }
        let seen = async {
            match &stored {
                Some(_) => Ok::<_, Fault>(Seen::load(&*ports.state, &self.id).await?),
                None => Ok(Seen::none()),
            }
        };
        let cipher = async {
            ports.keys.contact(&self.id.tenant, self.id.contact, missing).await.map_err(Fault::from)
        };
        let (mut seen, cipher) = tokio::try_join!(seen, cipher)?;
        if stored.is_none() && (cipher.erased_at().is_some() || self.ends_before_markers()) {
            // Messages from before the erasure, or before the head ended, are known by their markers alone.
            seen = Seen::load(&*ports.state, &self.id).await?;
        }
        let head: Head = match &stored {
            Some(stored) if version::of(stored).is_some_and(|v| v > u64::from(Head::VERSION)) => {
                return Err(Fault::Newer("a later build wrote the head of the conversation".into()));
            }
            Some(stored) => parse(stored, "the head of a conversation")?,
            None => Head::new(),
        };
        let open = |sealed: &Sealed, column| Ok::<_, Fault>(cipher.open(&aad(&key, column), sealed)?);
        // The key was destroyed first, and the record that removes the rows is still to come: nothing of before is used.
        let is_from_before =
            cipher.erased_at().is_some_and(|erased_at| head.at.unwrap_or(head.customer_at) <= erased_at);
        let is_erased = is_from_before
            && head.address.as_ref().is_some_and(|sealed| open(sealed, correct::ADDRESS).is_err());
        let head = match is_erased {
            true => Head { next_row: head.next_row, ..Head::new() },
            false => head,
        };
        let address = match &head.address {
            Some(sealed) => parse(&open(sealed, correct::ADDRESS)?, "the address of a contact")?,
            None => Address::default(),
        };
        let corrected = match &head.corrected {
            Some(sealed) => parse(&open(sealed, correct::CORRECTED)?, "the correction of a contact")?,
            None => None,
        };
        let former_names = match &head.former_names {
            Some(sealed) => parse(&open(sealed, correct::FORMER_NAMES)?, "the previous names of a contact")?,
            None => Vec::new(),
        };
        let erased_at = cipher.erased_at();
        state.loaded = Some(Loaded {
            published: head.last.is_none(),
            head,
            seen,
            thread: Thread::new(self.id.clone(), cipher),
            address,
            corrected,
            former_names,
            routes: Routes::of(ports, &self.id),
            erased_at,
        });
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(plain: &[u8], what: &str) -> Result<T, Fault> {
    serde_json::from_slice(plain).map_err(|error| Fault::Dead {
        reason: DeadReason::Unreadable,
        detail: format!("{what}: {}", unparsed(&error)),
    })
}
