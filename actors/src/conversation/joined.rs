//! Conversations of contacts that turned out to be this person: read through, and left as they are.
//!
//! A message names these contacts. The first that names one takes over how its conversation stood: the handler, the
//! restriction, the customer-service window, and the names to be masked. From then on a turn is shown the texts of both,
//! and a message that the other conversation has seen is not answered here once more.

use heddle_schemas::id::{ContactId, ConversationId};
use heddle_schemas::ports::keys::{KeysError, Missing};
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::record::inbound::CustomerAct;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use super::correct;
use super::draft::Draft;
use super::entity::{Conversation, ConversationState};
use super::export::{Kept, Reading};
use super::fault::Fault;
use super::head::Open;
use super::loaded::Loaded;
use super::thread::{Recent, Row, Thread, ThreadError};

/// State of conversations that are read through from now on.
#[derive(Default)]
pub(super) struct Joined {
    contacts: Vec<ContactId>,
    human_since: Option<Timestamp>,
    is_restricted: bool,
    customer_at: Option<Timestamp>,
    names: Vec<String>,
}

impl Conversation {
    fn of(&self, contact: ContactId) -> ConversationId {
        self.id.account().conversation(contact)
    }

    /// Reads the conversations of contacts that are new to this one.
    pub(super) async fn joined(
        &self,
        state: &ConversationState,
        act: &CustomerAct,
    ) -> Result<Option<Joined>, Fault> {
        let loaded = state.loaded.as_ref().expect("a record is applied after loading");
        let is_new =
            |contact: &&ContactId| !loaded.head.also.contains(contact) && **contact != self.id.contact;
        let mut joined = Joined::default();
        for contact in act.also.iter().filter(is_new) {
            joined.contacts.push(*contact);
            match Reading::begin(&self.context.ports, &self.of(*contact)).await {
                Ok(Some(reading)) => joined.add(reading.kept),
                Ok(None) => {}
                Err(error) if is_lasting(&error) => {
                    tracing::error!(%error, conversation = %self.id, "an earlier conversation cannot be read");
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok((!joined.contacts.is_empty()).then_some(joined))
    }

    /// Returns whether another conversation of the person has seen a message.
    pub(super) async fn is_seen_elsewhere(&self, act: &CustomerAct) -> Result<bool, StoreError> {
        for contact in act.also.iter().filter(|contact| **contact != self.id.contact) {
            let marker = Key::marker(&self.of(*contact), act.key);
            if self.context.ports.state.get(&marker).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the recent texts of all conversations of the person, without the messages of `except`.
    pub(super) async fn recent(
        &self,
        loaded: &Loaded,
        rows: usize,
        except: &[Open],
    ) -> Result<Recent, Fault> {
        let state = &*self.context.ports.state;
        let mut all = loaded.thread.last(state, rows).await?;
        for contact in &loaded.head.also {
            all.extend(self.last_of(*contact, rows).await?);
        }
        if !loaded.head.also.is_empty() {
            all.sort_by_key(|row| row.written());
            all.drain(..all.len().saturating_sub(rows));
        }
        Ok(Recent::of(all, except))
    }

    /// The last rows of another conversation of the person.
    async fn last_of(&self, contact: ContactId, rows: usize) -> Result<Vec<Row>, Fault> {
        let ports = &self.context.ports;
        let cipher = match ports.keys.contact(&self.id.tenant, contact, Missing::Fail).await {
            // It was erased, or has said nothing.
            Err(KeysError::Gone { .. }) => return Ok(Vec::new()),
            cipher => cipher?,
        };
        match Thread::new(self.of(contact), cipher).last(&*ports.state, rows).await {
            Err(error) if is_lasting(&error) => {
                tracing::error!(%error, conversation = %self.id, "an earlier conversation cannot be read");
                Ok(Vec::new())
            }
            last => Ok(last?),
        }
    }
}

/// Returns whether a repetition changes nothing: the person is answered without what cannot be read.
fn is_lasting(error: &ThreadError) -> bool {
    match error {
        ThreadError::Store(error) => !error.is_transient() && matches!(error, StoreError::Corrupt { .. }),
        ThreadError::Keys(KeysError::Gone { .. } | KeysError::Unreadable { .. }) => true,
        ThreadError::Keys(_) => false,
        ThreadError::Row { .. } => true,
    }
}

impl Joined {
    fn add(&mut self, kept: Kept) {
        let Kept { address, former_names, customer_at, human_since, restricted_since, .. } = kept;
        self.human_since = self.human_since.or(human_since);
        self.is_restricted |= restricted_since.is_some();
        self.customer_at = self.customer_at.max(Some(customer_at));
        self.names.extend(former_names.into_iter().chain(address.name));
    }

    /// Takes the state over.
    pub(super) fn apply(self, draft: &mut Draft, loaded: &Loaded, of: &ConversationId) {
        let now = draft.now;
        let head = &mut draft.machine.head;
        head.also.extend(self.contacts);
        if self.human_since.is_some() {
            head.hand_over(now);
        }
        if self.is_restricted {
            head.restrict(true, now);
        }
        head.customer_at = head.customer_at.max(self.customer_at.unwrap_or(head.customer_at));
        correct::remember_names(draft, loaded, of, &self.names);
    }
}
