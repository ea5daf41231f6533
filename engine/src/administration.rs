//! What an operator may do with a node: tenants and their documents, dead letters.
//!
//! One set of operations behind the admin API and behind commands on a folder that no process has open, so
//! that both answer alike.

mod channels;
pub mod correction;
pub mod departure;
pub mod export;
pub mod promises;
pub mod rights;

use std::sync::Arc;

use heddle_actors::conversation::thread::ThreadError;
use heddle_actors::intake::consent;
use heddle_actors::intake::identity::{Identity, IdentityError};
use heddle_actors::partition::publish;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::audit_log::{AuditError, AuditLog};
use heddle_actors::privacy::security::Sighting;
use heddle_actors::tenant::configuration::{Tenants, TenantsError};
use heddle_actors::tenant::quota;
use heddle_connectors::keys::EnvelopeKeys;
use heddle_connectors::knowledge::extract::File;
use heddle_connectors::knowledge::extract::process::{Extractor, Place};
use heddle_schemas::audit::chain::{Noted, Verdict};
use heddle_schemas::audit::{Act, Entry, Note, Outcome, What, Who};
use heddle_schemas::consent::Says;
use heddle_schemas::contact::{ContactName, InvalidName};
use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, ConversationId, MessageKey, TenantId};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, KnowledgeError, Passage};
use heddle_schemas::ports::log::StoreError;
use heddle_schemas::record::V;
use heddle_schemas::record::inbound::{Handler, Handling, InboundEvent, InboundRecord};
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::Month;

use self::promises::Proving;
use crate::consents::{ConsentEntry, Consents};
use crate::dead_letters::{DeadLetters, DeadLettersError, Letter, LetterId, Replay, Replayed};
use crate::rotation::{self, KeysStatus, Rotate, Rotated};
use crate::usage::Usage;

/// Letters that an entry of the audit log names at most.
const LETTERS: usize = 100;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum AdministrationError {
    /// There is no such tenant.
    #[error("there is no tenant {0}; `heddle tenant list` shows those there are")]
    UnknownTenant(TenantId),
    /// Nobody has been met under this name.
    #[error("tenant {0} has met nobody of this name; give the number or id as the channel shows it")]
    UnknownContact(TenantId),
    /// There is no such erasure.
    #[error("tenant {0} has no erasure {1}; `heddle contact erasures` shows those there are")]
    UnknownErasure(TenantId, MessageKey),
    /// The tenant was deleted, or is being deleted.
    #[error("tenant {0} was deleted, and its id is not given out again: apply it under another id")]
    Deleted(TenantId),
    /// The tenant was not deleted.
    #[error("no tenant {0} was deleted; `heddle tenant deletions` shows those that were")]
    NotDeleted(TenantId),
    /// What is kept of a contact cannot be read.
    #[error(transparent)]
    Thread(#[from] ThreadError),
    /// What is entered about a contact's consent is wrong.
    #[error("{0}")]
    Entry(String),
    /// The tenant's keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The tenant's configuration.
    #[error(transparent)]
    Tenants(#[from] TenantsError),
    /// The tenant's documents.
    #[error(transparent)]
    Knowledge(#[from] KnowledgeError),
    /// Dead letters.
    #[error(transparent)]
    DeadLetters(#[from] DeadLettersError),
    /// Log or state.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The audit log; the operation was not begun.
    #[error("nothing was done: {0}")]
    Audit(#[from] AuditError),
    /// A file of the data folder.
    #[error("a file of the data folder cannot be searched: {0}")]
    Files(#[source] std::io::Error),
    /// The audit log, which was to be read.
    #[error("{0}")]
    AuditRead(#[source] AuditError),
}

/// What a name of a contact says.
enum Named {
    Id(ContactId),
    Met(ChannelKind, Address),
}

impl AdministrationError {
    fn of(error: IdentityError, tenant: &TenantId) -> Self {
        match error {
            IdentityError::Nameless => Self::UnknownContact(tenant.clone()),
            IdentityError::Store(error) => Self::Store(error),
            IdentityError::Keys(error) => Self::Keys(error),
        }
    }

    /// Whether the same may work later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Tenants(TenantsError::Store(error))
            | Self::Knowledge(KnowledgeError::Store(error))
            | Self::DeadLetters(DeadLettersError::Store(error))
            | Self::Keys(KeysError::Store(error))
            | Self::Thread(ThreadError::Store(error) | ThreadError::Keys(KeysError::Store(error)))
            | Self::Store(error) => error.is_transient() || matches!(error, StoreError::Closed),
            Self::Audit(error) | Self::AuditRead(error) => error.is_transient(),
            _ => false,
        }
    }

    /// What the audit log says of an operation that ended so.
    fn outcome(&self) -> Outcome {
        match self {
            Self::UnknownTenant(_)
            | Self::UnknownContact(_)
            | Self::Deleted(_)
            | Self::Tenants(
                TenantsError::Faults(_)
                | TenantsError::Taken { .. }
                | TenantsError::UnknownAccount(_)
                | TenantsError::Region { .. }
                | TenantsError::Retention { .. },
            )
            | Self::Knowledge(KnowledgeError::Unknown { .. } | KnowledgeError::Refused { .. })
            | Self::DeadLetters(DeadLettersError::Unknown(_) | DeadLettersError::Request(_)) => {
                Outcome::Refused
            }
            _ => Outcome::Failed,
        }
    }
}

/// In whose name operations are done, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who asks.
    pub who: Who,
    /// Why, if they say.
    pub why: Option<Note>,
}

impl By {
    /// The engine, by a rule.
    pub const ENGINE: Self = Self { who: Who::ENGINE, why: None };
}

/// The operations.
///
/// What changes something or reads personal data is in the audit log: an entry before it, without which it is
/// not done, and, where it changes something, one after it with its outcome. Where that one cannot be written,
/// the first stands alone, as after a crash, and says that it was begun.
#[derive(Clone)]
pub struct Administration {
    by: By,
    audit: AuditLog,
    tenants: Arc<Tenants>,
    ports: Ports,
    identity: Arc<Identity>,
    keys: Arc<EnvelopeKeys>,
    proving: Proving,
    /// What reads files.
    pub files: Arc<Extractor>,
    /// What could not be processed.
    pub dead_letters: DeadLetters,
}

impl Administration {
    /// Over these tenants, their documents and these dead letters.
    #[must_use]
    pub fn new(
        tenants: Arc<Tenants>,
        ports: Ports,
        keys: Arc<EnvelopeKeys>,
        files: Arc<Extractor>,
        dead_letters: DeadLetters,
        proving: Proving,
    ) -> Self {
        let identity = Arc::new(Identity::new(ports.clone()));
        let audit = AuditLog::new(ports.clone());
        Self { by: By::ENGINE, audit, tenants, ports, identity, keys, proving, files, dead_letters }
    }

    /// The same in somebody's name; without it, they are done in the engine's own.
    #[must_use]
    pub fn by(&self, by: By) -> Self {
        Self { by, ..self.clone() }
    }

    /// Writes into the audit log that an operation has come so far: of a tenant, or of no tenant. For what reads
    /// personal data it is called before, with [`Outcome::Begun`], and the operation is not done when it fails;
    /// what changes something is done within [`Administration::audited`].
    ///
    /// # Errors
    /// [`AdministrationError::Audit`].
    pub async fn record(
        &self,
        tenant: Option<&TenantId>,
        what: What,
        outcome: Outcome,
    ) -> Result<Entry, AdministrationError> {
        self.record_of(tenant, what, outcome, None).await
    }

    async fn record_of(
        &self,
        tenant: Option<&TenantId>,
        what: What,
        outcome: Outcome,
        began: Option<u64>,
    ) -> Result<Entry, AdministrationError> {
        let By { who, why } = self.by.clone();
        let act = Act { who, what, why, outcome, began, records: None };
        Ok(self.audit.append(tenant, act).await?)
    }

    /// Personal data of a tenant has been exported, so many records: of a contact, or (`None`) of all of its
    /// contacts. More than usual is an incident.
    pub fn exported(&self, tenant: &TenantId, contact: Option<ContactId>, records: u64) {
        self.ports.security.exported(tenant, contact, records);
    }

    /// Does what changes something: between an entry that says that it is begun, without which it is not done,
    /// and one that says what came of it.
    ///
    /// # Errors
    /// [`AdministrationError::Audit`] when nothing was done; those of the operation.
    pub async fn audited<T>(
        &self,
        tenant: Option<&TenantId>,
        what: What,
        operation: impl Future<Output = Result<T, AdministrationError>>,
    ) -> Result<T, AdministrationError> {
        let began = self.record(tenant, what.clone(), Outcome::Begun).await?;
        let number = began.body.number;
        let result = operation.await;
        let outcome = result.as_ref().map_or_else(AdministrationError::outcome, |_| Outcome::Done);
        if let Err(error) = self.record_of(tenant, what, outcome, Some(number)).await {
            // It has happened, and saying otherwise would be wrong. The entry before tells of it.
            tracing::error!(%error, number, ?tenant, "the outcome of an operation is not in the audit log");
        }
        result
    }

    /// What a tenant has used in a month; without one, in the one that it is in the tenant's time zone.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn usage(&self, id: &TenantId, month: Option<Month>) -> Result<Usage, AdministrationError> {
        let tenant = self.tenant(id)?;
        let now = self.ports.clock.now();
        let month = month.unwrap_or_else(|| tenant.hours.time_zone.month(now));
        Ok(Usage::of(&quota::usage(&self.ports, &tenant, month).await?))
    }

    /// Says who answers in a conversation from now on. It is in force once what the conversation received before
    /// is worked off.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn handle(&self, conversation: ConversationId, by: Handler) -> Result<(), AdministrationError> {
        let account = conversation.account();
        if !self.tenant(&account.tenant)?.accounts_ever().contains(&account) {
            return Err(TenantsError::UnknownAccount(account).into());
        }
        let id = conversation.tenant.clone();
        let what = match by {
            Handler::Human => What::ContactHandOver { conversation: conversation.clone() },
            Handler::Agent => What::ContactGiveBack { conversation: conversation.clone() },
        };
        self.audited(Some(&id), what, self.do_handle(conversation, by)).await
    }

    async fn do_handle(&self, conversation: ConversationId, by: Handler) -> Result<(), AdministrationError> {
        let key = MessageKey::from_bytes((self.ports.random)());
        let event = InboundEvent::Handling(Handling { key, by });
        let record = InboundRecord { v: V, conversation, at: self.ports.clock.now(), event };
        self.ports.log.append(vec![publish::inbound(&self.ports, &record)]).await?;
        Ok(())
    }

    /// Makes a configuration, secrets resolved, the tenant's own.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn apply(&self, mut tenant: Tenant) -> Result<Arc<Tenant>, AdministrationError> {
        // What is no configuration of a tenant that there can be begins no log.
        self.tenants.complete(&mut tenant)?;
        self.may_be_applied(&tenant.id).await?;
        let id = tenant.id.clone();
        let apply = async {
            let applied = self.tenants.apply(tenant).await;
            if let Err(TenantsError::Taken { kind, account }) = &applied
                && let Some(owner) = self.tenants.by_account(*kind, account)
            {
                self.ports.security.saw(Some(&owner.id), Sighting::CrossTenant);
            }
            Ok(applied?)
        };
        self.audited(Some(&id), What::TenantApply, apply).await
    }

    /// Every tenant, by id.
    #[must_use]
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.list()
    }

    /// One tenant.
    ///
    /// # Errors
    /// [`AdministrationError::UnknownTenant`].
    pub fn tenant(&self, id: &TenantId) -> Result<Arc<Tenant>, AdministrationError> {
        if let Some(tenant) = self.tenants.get(id) {
            return Ok(tenant);
        }
        self.tenants.check_region(id)?;
        Err(AdministrationError::UnknownTenant(id.clone()))
    }

    /// The contact that people call so. Its own id is taken as it is, whether it was ever met or not.
    ///
    /// # Errors
    /// [`AdministrationError::UnknownTenant`], [`AdministrationError::UnknownContact`], and when log or state
    /// cannot be read.
    pub async fn contact(
        &self,
        id: &TenantId,
        named: &ContactName,
    ) -> Result<ContactId, AdministrationError> {
        self.tenant(id)?;
        match self.named(named)? {
            Named::Id(contact) => Ok(contact),
            Named::Met(kind, address) => {
                let found = self.identity.find(id, kind, &address).await;
                let found = found.map_err(|error| AdministrationError::of(error, id))?;
                found.ok_or_else(|| AdministrationError::UnknownContact(id.clone()))
            }
        }
    }

    /// What a name of a contact says, read as its channel writes ids.
    fn named(&self, named: &ContactName) -> Result<Named, AdministrationError> {
        if let ContactName::Id(contact) = named {
            return Ok(Named::Id(*contact));
        }
        let profiles = self.ports.channels.values().map(|channel| channel.profile());
        match named.address(profiles) {
            Ok(Some((kind, address))) => Ok(Named::Met(kind, address)),
            Ok(None) | Err(InvalidName) => Err(AdministrationError::Entry(InvalidName.to_string())),
        }
    }

    /// What holds for a contact.
    ///
    /// # Errors
    /// As [`Administration::contact`].
    pub async fn consents(
        &self,
        id: &TenantId,
        named: &ContactName,
    ) -> Result<Consents, AdministrationError> {
        let contact = self.contact(id, named).await?;
        self.consents_of(id, contact).await
    }

    async fn consents_of(&self, id: &TenantId, contact: ContactId) -> Result<Consents, AdministrationError> {
        let record = consent::load(&*self.ports.state, id, contact).await?;
        let cipher = self.ports.keys.tenant(id).await?;
        Ok(Consents::of(id, &*cipher, contact, &record)?)
    }

    /// Enters what a contact said. One who has never been met is made: an opt-out holds for who is written to first.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn enter(
        &self,
        id: &TenantId,
        named: &ContactName,
        entry: ConsentEntry,
    ) -> Result<Consents, AdministrationError> {
        self.tenant(id)?;
        let key = MessageKey::from_bytes((self.ports.random)());
        let given = entry.says == Says::Give;
        let statement = entry.statement(key, self.ports.clock.now()).map_err(AdministrationError::Entry)?;
        let contact = match self.named(named)? {
            Named::Id(contact) => contact,
            Named::Met(kind, address) => self
                .identity
                .resolve(id, kind, &address)
                .await
                .map_err(|error| AdministrationError::of(error, id))?,
        };
        self.audited(Some(id), What::ContactConsent { contact, given }, async {
            let cipher = self.ports.keys.tenant(id).await?;
            let told = consent::record(&self.ports, id, &*cipher, contact, &statement).await?;
            if !told.is_empty() {
                self.ports.log.append(told).await?;
            }
            Ok(())
        })
        .await?;
        self.consents_of(id, contact).await
    }

    /// Wraps the keys of tenants by the present master key, those of one page.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn rotate(&self, asked: &Rotate) -> Result<Rotated, AdministrationError> {
        self.audited(None, What::KeysRotate, async {
            Ok(rotation::rotate(&self.keys, self.ids().await?, asked).await?)
        })
        .await
    }

    /// Which master keys wrap what.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn keys(&self) -> Result<KeysStatus, AdministrationError> {
        Ok(rotation::status(&self.keys, self.ids().await?).await?)
    }

    /// Whoever has a key: the engine, and every tenant there is by now, also if it was applied on another node a moment ago.
    async fn ids(&self) -> Result<Vec<TenantId>, AdministrationError> {
        self.tenants.catch_up().await?;
        let mut ids: Vec<_> = self.tenants.list().iter().map(|tenant| tenant.id.clone()).collect();
        // It is in no list of tenants, and has a key as they have, once its own audit log has begun.
        let engine = TenantId::engine();
        if self.ports.state.get(&Key::tenant_key(&engine)).await?.is_some() {
            ids.push(engine);
            ids.sort();
        }
        Ok(ids)
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn add(
        &self,
        id: &TenantId,
        document: Document,
    ) -> Result<DocumentSummary, AdministrationError> {
        self.tenant(id)?;
        let what = What::DocumentPut { document: document.id.clone() };
        self.audited(Some(id), what, async { Ok(self.ports.knowledge.put(id, document).await?) }).await
    }

    /// Keeps what a file says; `place` is from [`Administration::files`].
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn add_file(
        &self,
        id: &TenantId,
        place: Place<'_>,
        file: File,
    ) -> Result<DocumentSummary, AdministrationError> {
        self.tenant(id)?;
        let document = self.files.document(place, file).await?;
        self.add(id, document).await
    }

    /// Removes a document.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn remove(&self, id: &TenantId, document: &str) -> Result<(), AdministrationError> {
        self.tenant(id)?;
        let what = What::DocumentRemove { document: document.to_owned() };
        self.audited(Some(id), what, async { Ok(self.ports.knowledge.remove(id, document).await?) }).await
    }

    /// A dead letter. It may tell about people, so that somebody looked at it is written down first.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn letter(&self, id: LetterId) -> Result<Letter, AdministrationError> {
        self.record(None, What::LetterShow { letter: id.to_string() }, Outcome::Begun).await?;
        Ok(self.dead_letters.show(id).await?)
    }

    /// Puts originals of dead letters back on their way.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn replay(&self, replay: &Replay) -> Result<Replayed, AdministrationError> {
        if replay.dry_run {
            return Ok(self.dead_letters.replay(replay).await?);
        }
        let of_these = replay.ids.iter().flatten();
        let what = What::LettersReplay {
            letters: of_these.clone().take(LETTERS).map(ToString::to_string).collect(),
            named: of_these.count() as u64,
        };
        self.audited(None, what, async { Ok(self.dead_letters.replay(replay).await?) }).await
    }

    /// Entries of the audit log of a tenant, or of no tenant, from a number on.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn audit_log(
        &self,
        tenant: Option<&TenantId>,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Entry>, AdministrationError> {
        self.audit.entries(tenant, from, limit).await.map_err(AdministrationError::AuditRead)
    }

    /// Whether the audit log of a tenant, or of no tenant, is as it was written; `noted` are entries of it that
    /// somebody kept elsewhere.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn verify_audit_log(
        &self,
        tenant: Option<&TenantId>,
        noted: &[Noted],
    ) -> Result<Verdict, AdministrationError> {
        let verdict = self.audit.verify(tenant, noted).await.map_err(AdministrationError::AuditRead)?;
        if !verdict.holds() {
            let faults = verdict.faults.len() as u64 + verdict.more_faults;
            self.ports.security.saw(tenant, Sighting::AuditLog { faults });
        }
        Ok(verdict)
    }

    /// Begins an audit log anew behind a break.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn resume_audit_log(&self, tenant: Option<&TenantId>) -> Result<Entry, AdministrationError> {
        let By { who, why } = self.by.clone();
        let act = Act { who, what: What::Resume, why, outcome: Outcome::Done, began: None, records: None };
        Ok(self.audit.resume(tenant, act).await?)
    }

    /// A tenant's documents, by id.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn documents(&self, id: &TenantId) -> Result<Vec<DocumentSummary>, AdministrationError> {
        self.tenant(id)?;
        Ok(self.ports.knowledge.list(id).await?)
    }

    /// The passages that match best.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn search(
        &self,
        id: &TenantId,
        query: &str,
        limit: usize,
    ) -> Result<Vec<Passage>, AdministrationError> {
        self.tenant(id)?;
        Ok(self.ports.knowledge.search(id, query, limit).await?)
    }
}
