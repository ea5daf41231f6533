//! Handlers of the operations on contacts: consents, data-subject requests and hand-over.

use std::sync::Arc;

use heddle_actors::conversation::export::Reading;
use heddle_actors::intake::{consent, identity};
use heddle_actors::partition::publish;
use heddle_actors::privacy::erasure;
use heddle_actors::tenant::configuration::TenantsError;
use heddle_api::consents::Consents;
use heddle_api::contacts::{
    ConversationState, CorrectContact, Correction, EnterConsent, ExportContact, ForgetContact,
    HandleConversation, ListConversations, ListErasures, NAME_CHARACTERS, RestrictContact, ShowConsents,
    ShowErasure,
};
use heddle_api::content::{Document, List, Nothing};
use heddle_api::{Input, Operation};
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::record::inbound::{
    self, Correct, Handling, InboundEvent, InboundRecord, Restrict, SealedCorrection,
};
use heddle_schemas::record::{V, encode_for, log_aad};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::Topic;

use super::subject::Person;
use super::{Call, Handler, Named, OperationError, Operations, Subject, identity_error};
use crate::consents;

impl Operations {
    /// Returns the consents in force for a contact.
    pub(super) async fn consents_of(
        &self,
        id: &TenantId,
        contact: ContactId,
    ) -> Result<Consents, OperationError> {
        let record = consent::load(&*self.ports.state, id, contact).await?;
        let cipher = self.ports.keys.tenant(id).await?;
        Ok(consents::shown(id, &*cipher, contact, &record)?)
    }

    fn random_key(&self) -> MessageKey {
        MessageKey::from_bytes((self.ports.random)())
    }
}

impl Handler for ShowConsents {
    type Subject = Person;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        Person { tenant, contact, .. }: Person,
    ) -> Result<Consents, OperationError> {
        operations.consents_of(&tenant.id, contact).await
    }
}

impl Handler for ListConversations {
    type Subject = Person;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        person: Person,
    ) -> Result<List<ConversationState>, OperationError> {
        let mut items = Vec::new();
        for id in person.conversations() {
            let Some(Reading { kept, .. }) = Reading::begin(&operations.ports, &id).await? else { continue };
            let by =
                if kept.human_since.is_some() { inbound::Handler::Human } else { inbound::Handler::Agent };
            let restricted = kept.restricted_since.is_some();
            items.push(ConversationState { conversation: id, by, restricted });
        }
        Ok(List { items })
    }
}

/// Statement about a contact's consent. An unknown contact is created: an opt-out also holds for a person who has not
/// written yet.
pub struct Entered {
    statement: consent::Statement,
    contact: ContactId,
}

impl Subject<EnterConsent> for Entered {
    async fn find(operations: &Operations, input: &mut Input<EnterConsent>) -> Result<Self, OperationError> {
        let id = &input.path.tenant;
        operations.tenant(id)?;
        let (key, now) = (operations.random_key(), operations.ports.clock.now());
        let statement = consents::statement(input.body.clone(), key, now);
        let statement = statement.map_err(|why| OperationError::invalid("invalid_entry", why))?;
        let contact = match operations.named(&input.query.contact)? {
            Named::Id(contact) => identity::person(&*operations.ports.state, id, contact).await?.contact,
            Named::Met(kind, address) => {
                let identity = &operations.identity;
                let found = identity.find(id, kind, &address).await;
                match found.map_err(|error| identity_error(error, id))? {
                    Some(person) => person.contact,
                    None => {
                        let made = identity.resolve(id, kind, &address).await;
                        made.map_err(|error| identity_error(error, id))?
                    }
                }
            }
        };
        Ok(Self { statement, contact })
    }

    fn contact(&self) -> Option<ContactId> {
        Some(self.contact)
    }
}

impl Handler for EnterConsent {
    type Subject = Entered;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        Entered { statement, contact }: Entered,
    ) -> Result<Consents, OperationError> {
        let id = &input.path.tenant;
        let ports = &operations.ports;
        let cipher = ports.keys.tenant(id).await?;
        let events = consent::record(ports, id, &*cipher, contact, &statement).await?;
        if !events.is_empty() {
            ports.log.append(events).await?;
        }
        operations.consents_of(id, contact).await
    }
}

/// Valid correction of a known contact.
pub struct Corrected {
    person: Person,
    correction: SealedCorrection,
}

impl<O: Operation> Subject<O> for Corrected
where
    O: Operation<Body = Correction>,
    Person: Subject<O>,
{
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        let correction = checked(&input.body)?;
        Ok(Self { person: Person::find(operations, input).await?, correction })
    }

    fn contact(&self) -> Option<ContactId> {
        Some(self.person.contact)
    }
}

fn checked(correction: &Correction) -> Result<SealedCorrection, OperationError> {
    let Some(name) = &correction.name else { return Ok(SealedCorrection { name: None }) };
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARACTERS || name.chars().any(char::is_control) {
        let why =
            format!("the name must have 1 to {NAME_CHARACTERS} characters on one line; null removes it");
        return Err(OperationError::invalid("invalid_entry", why));
    }
    Ok(SealedCorrection { name: Some(name.to_owned()) })
}

impl Handler for CorrectContact {
    type Subject = Corrected;

    /// Besides numbers and ids, the name from the channel is the only stored fact about a person. Numbers and ids
    /// identify the contact: correcting one by hand would merge two people, so a wrong number needs an erasure, and a
    /// new one comes from the channel.
    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        Corrected { person, correction }: Corrected,
    ) -> Result<Nothing, OperationError> {
        let ports = &operations.ports;
        let at = ports.clock.now();
        let log = ports.keys.log(&person.tenant.id, at.day()).await?;
        let records = person.conversations().map(|conversation| {
            let key = operations.random_key();
            let place = log_aad(Topic::Inbound, &key);
            let sealed = encode_for(&correction, |plain| log.seal(&place, plain));
            let event = InboundEvent::Correct(Correct { key, sealed });
            publish::inbound(ports, &InboundRecord { v: V, conversation, at, event })
        });
        ports.log.append(records.collect()).await?;
        Ok(Nothing)
    }
}

impl Handler for RestrictContact {
    type Subject = Person;

    /// The restriction is in force once the earlier records of the contact's conversations are processed. A repeated
    /// call publishes it again.
    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        person: Person,
    ) -> Result<Consents, OperationError> {
        let (ports, restricted) = (&operations.ports, input.body.restricted);
        let tenant = &person.tenant.id;
        consent::restrict(ports, tenant, person.contact, restricted).await?;
        let records = person.conversations().map(|conversation| {
            let event = InboundEvent::Restrict(Restrict { key: operations.random_key(), restricted });
            publish::inbound(ports, &InboundRecord { v: V, conversation, at: ports.clock.now(), event })
        });
        ports.log.append(records.collect()).await?;
        operations.consents_of(tenant, person.contact).await
    }
}

impl Handler for ExportContact {
    type Subject = Person;

    async fn run(
        operations: &Operations,
        call: Call<'_>,
        _: Input<Self>,
        person: Person,
    ) -> Result<Document, OperationError> {
        Ok(Document(operations.export_contact(call, &person)))
    }
}

impl Handler for ForgetContact {
    type Subject = Person;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        Person { tenant, contact, .. }: Person,
    ) -> Result<Erasure, OperationError> {
        let accounts = tenant.accounts_ever().into_iter().map(|of| (of.channel, of.account));
        let erasure = erasure::ask(&operations.ports, &tenant.id, accounts, contact).await?;
        if operations.is_offline && !erasure.is_complete() {
            // No conversation runs that would destroy it in its turn: rows are removed when a node runs, and are
            // unreadable from now on.
            for contact in erasure.contacts() {
                operations.ports.keys.erase_contact(&tenant.id, contact, erasure.at).await?;
            }
        }
        Ok(erasure)
    }
}

impl Handler for ListErasures {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        _: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<List<Erasure>, OperationError> {
        let mut items = erasure::list(&operations.ports, &tenant.id).await?;
        items.sort_by_key(|erasure| erasure.requested_at);
        Ok(List { items })
    }
}

impl Handler for ShowErasure {
    type Subject = Arc<Tenant>;

    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        tenant: Arc<Tenant>,
    ) -> Result<Erasure, OperationError> {
        let id = input.path.erasure;
        let found = erasure::find(&operations.ports, &tenant.id, id).await?;
        found.ok_or_else(|| OperationError::unknown_erasure(&tenant.id, id))
    }
}

/// Conversation with a current or previous account of the tenant: of a contact that turned out to be another, the other's.
pub struct Conversation(ConversationId);

impl Subject<HandleConversation> for Conversation {
    async fn find(
        operations: &Operations,
        input: &mut Input<HandleConversation>,
    ) -> Result<Self, OperationError> {
        let conversation = input.path.id();
        let account = conversation.account();
        if !operations.tenant(&account.tenant)?.accounts_ever().contains(&account) {
            return Err(TenantsError::UnknownAccount(account).into());
        }
        let state = &*operations.ports.state;
        let contact = identity::person(state, &account.tenant, conversation.contact).await?.contact;
        Ok(Self(account.conversation(contact)))
    }
}

impl Handler for HandleConversation {
    type Subject = Conversation;

    /// The handling is in force once the earlier records of the conversation are processed.
    async fn run(
        operations: &Operations,
        _: Call<'_>,
        input: Input<Self>,
        Conversation(conversation): Conversation,
    ) -> Result<Nothing, OperationError> {
        let ports = &operations.ports;
        let event = InboundEvent::Handling(Handling { key: operations.random_key(), by: input.body.by });
        let record = InboundRecord { v: V, conversation, at: ports.clock.now(), event };
        ports.log.append(vec![publish::inbound(ports, &record)]).await?;
        Ok(Nothing)
    }
}
