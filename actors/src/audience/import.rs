//! Import of people into an audience.
//!
//! Contract: an import is an upsert by contact, so the same file again changes nothing, and an import that was
//! interrupted is repeated. What a row says of consent becomes evidence of the contact like any other, with the time
//! that the list gives it: an opt-out of later stays in force. A person who was erased is not brought back, unless there
//! is a consent of after the erasure. A number is resolved to its contact by [`Identity`], here and nowhere else.
//!
//! People of a batch are resolved at the same time, at most [`AT_ONCE`]; their rows are one commit. Before it, the
//! contact's alias, key and consent are durable, which do no harm without the row.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use heddle_schemas::audience::{
    AudienceHead, AudienceId, ImportCounts, MAX_AUDIENCES, MEMBER_COLUMN, Member,
};
use heddle_schemas::consent::{Category, Consent, ContactRecord, How, Says, Standing};
use heddle_schemas::contact::ContactName;
use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, MessageKey, TenantId};
use heddle_schemas::phone::PhoneNumber;
use heddle_schemas::ports::keys::{ContactCipher, KeysError, Missing, TenantCipher, aad};
use heddle_schemas::ports::log::NewRecord;
use heddle_schemas::ports::state::{Batch, Write};
use heddle_schemas::ports::update::Change;
use heddle_schemas::record::encode;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use super::{AudienceError, corrupt, find, head_of, list, open, remove};
use crate::intake::consent::{self, Statement};
use crate::intake::identity::{Identity, IdentityError};
use crate::partition::commit::{commit, read};
use crate::partition::update::update;
use crate::ports::Ports;

/// People of a batch that are resolved at the same time.
const AT_ONCE: usize = 256;

/// Person of a list.
#[derive(Debug, Clone)]
pub struct Row {
    /// The phone number and the values.
    pub member: Member,
    /// The consent that the row states.
    pub consent: Option<Claim>,
}

/// Consent or opt-out that a list states.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Consent or opt-out.
    pub says: Says,
    /// The purposes.
    pub purposes: Vec<Category>,
    /// The time, as the list gives it.
    pub at: Timestamp,
    /// The way, as the list puts it.
    pub how: Option<String>,
}

/// Import that is under way.
pub struct Import {
    ports: Ports,
    identity: Arc<Identity>,
    tenant: TenantId,
    audience: AudienceId,
    /// Contacts of this import: at most the people of one file, whose bound the reader of the file keeps.
    seen: HashSet<ContactId>,
    counts: ImportCounts,
}

/// Effect of a row on the audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Added,
    Changed,
    Unchanged,
    Erased,
    Ambiguous,
}

/// Row that is ready to be written.
struct Prepared {
    contact: ContactId,
    effect: Effect,
    write: Option<Write>,
    is_suppressed: bool,
    is_new_consent: bool,
    events: Vec<NewRecord>,
}

impl Import {
    /// Begins an import; creates the audience if it is new.
    ///
    /// # Errors
    /// [`AudienceError`].
    pub async fn begin(
        ports: Ports,
        identity: Arc<Identity>,
        tenant: TenantId,
        audience: AudienceId,
    ) -> Result<Self, AudienceError> {
        if find(&ports, &tenant, &audience).await?.is_none() {
            if list(&ports, &tenant).await?.len() >= MAX_AUDIENCES {
                return Err(AudienceError::TooMany);
            }
            let head = AudienceHead::new(ports.clock.now());
            update(&ports, &Key::audience(&tenant, &audience), |found| {
                Ok::<_, AudienceError>(match found {
                    Some(_) => Change::Keep(()),
                    None => Change::put(encode(&head), ()),
                })
            })
            .await?;
        }
        let (seen, counts) = (HashSet::new(), ImportCounts::default());
        Ok(Self { ports, identity, tenant, audience, seen, counts })
    }

    /// The counts so far.
    pub fn counts(&mut self) -> &mut ImportCounts {
        &mut self.counts
    }

    /// Writes a batch of people; when it returns they are durable.
    ///
    /// # Errors
    /// [`AudienceError`]; the batch may be written in part then.
    pub async fn apply(&mut self, rows: Vec<Row>) -> Result<(), AudienceError> {
        let cipher = self.ports.keys.tenant(&self.tenant).await?;
        let prepared: Vec<Prepared> =
            stream::iter(rows).map(|row| self.prepare(&*cipher, row)).buffered(AT_ONCE).try_collect().await?;
        let (mut writes, mut outputs, mut written) = (Vec::new(), Vec::new(), Vec::new());
        for one in prepared {
            outputs.extend(one.events);
            self.counts.consents += u64::from(one.is_new_consent);
            if !self.seen.insert(one.contact) {
                // Two ways to write the number of one person.
                self.counts.duplicates += 1;
                continue;
            }
            self.counts.suppressed +=
                u64::from(one.is_suppressed && !matches!(one.effect, Effect::Erased | Effect::Ambiguous));
            *match one.effect {
                Effect::Added => &mut self.counts.added,
                Effect::Changed => &mut self.counts.changed,
                Effect::Unchanged => &mut self.counts.unchanged,
                Effect::Erased => &mut self.counts.erased,
                Effect::Ambiguous => &mut self.counts.ambiguous,
            } += 1;
            written.extend(one.write.as_ref().map(|write| (one.contact, write.key.clone())));
            writes.extend(one.write);
        }
        if writes.is_empty() && outputs.is_empty() {
            return Ok(());
        }
        let batch = |_| Batch { writes: writes.clone(), outputs: outputs.clone(), ..Batch::default() };
        commit(&*self.ports.state, &self.ports.metrics, batch).await?;
        self.check(&written).await
    }

    /// Takes back what was written for contacts that were erased meanwhile, or into an audience that was deleted.
    async fn check(&self, written: &[(ContactId, Key)]) -> Result<(), AudienceError> {
        if find(&self.ports, &self.tenant, &self.audience).await?.is_none() {
            remove(&self.ports, written.iter().map(|(_, key)| key)).await?;
            return Err(AudienceError::Unknown(self.audience.clone()));
        }
        let mut erased = Vec::new();
        for (contact, key) in written {
            match self.ports.keys.contact(&self.tenant, *contact, Missing::Fail).await {
                Ok(_) => {}
                Err(KeysError::Gone { .. }) => erased.push(key),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(remove(&self.ports, erased.into_iter()).await?)
    }

    /// Ends the import: the head gets its columns.
    ///
    /// # Errors
    /// [`AudienceError`].
    pub async fn finish(
        self,
        columns: impl IntoIterator<Item = String>,
        country: Option<String>,
    ) -> Result<ImportCounts, AudienceError> {
        let columns: Vec<_> = columns.into_iter().collect();
        let key = Key::audience(&self.tenant, &self.audience);
        let now = self.ports.clock.now();
        update(&self.ports, &key, |found| {
            let found = found.ok_or_else(|| AudienceError::Unknown(self.audience.clone()))?;
            let mut head = head_of(&key, found)?;
            head.columns.extend(columns.iter().cloned());
            head.imported_at = Some(now);
            if country.is_some() {
                head.country.clone_from(&country);
            }
            Ok::<_, AudienceError>(Change::put(encode(&head), ()))
        })
        .await?;
        Ok(self.counts)
    }

    async fn prepare(&self, cipher: &dyn TenantCipher, row: Row) -> Result<Prepared, AudienceError> {
        let (kind, address) = self.address(&row.member.phone)?;
        // Other forms of the number lead to the person as well: a list does not write numbers as the channel does.
        let found = match self.identity.find(&self.tenant, kind, &address).await {
            Ok(Some(person)) => Ok(person.contact),
            Ok(None) => self.identity.resolve(&self.tenant, kind, &address).await,
            Err(error) => Err(error),
        };
        let contact = match found {
            Ok(contact) => contact,
            Err(IdentityError::Nameless) => return Err(AudienceError::NoPhones),
            Err(IdentityError::Ambiguous(contacts)) => {
                return Ok(Prepared::left_out(contacts[0], Effect::Ambiguous));
            }
            Err(IdentityError::Store(error)) => return Err(error.into()),
            Err(IdentityError::Keys(error)) => return Err(error.into()),
        };
        let (ports, tenant) = (&self.ports, &self.tenant);
        let before = consent::load(&*ports.state, tenant, contact).await?;
        let claim = row.consent.as_ref();
        let Some(key) = self.key(contact, claim, &before).await? else {
            return Ok(Prepared::left_out(contact, Effect::Erased));
        };
        let place = Key::member(tenant, &self.audience, contact);
        let stored = read(&ports.metrics, || ports.state.get(&place)).await?;
        let (effect, write) = upsert(&*key, place, stored, &row.member)?;
        let mut prepared = Prepared {
            contact,
            effect,
            write,
            is_suppressed: is_suppressed(&before),
            is_new_consent: false,
            events: Vec::new(),
        };
        if let Some(claim) = claim {
            let statement = claim.statement(cipher, contact);
            if !claim.is_in(&before, &statement) {
                prepared.events = consent::record(ports, tenant, cipher, contact, &statement).await?;
                prepared.is_new_consent = true;
                prepared.is_suppressed = is_suppressed(&consent::load(&*ports.state, tenant, contact).await?);
            }
        }
        Ok(prepared)
    }

    fn address(&self, phone: &str) -> Result<(ChannelKind, Address), AudienceError> {
        let Some(number) = PhoneNumber::of_channel(phone) else { return Err(AudienceError::NoPhones) };
        let profiles = self.ports.channels.values().map(|channel| channel.profile());
        let found = ContactName::Phone(number).address(profiles);
        found.ok().flatten().ok_or(AudienceError::NoPhones)
    }

    /// Returns the contact's key; `None` where the contact was erased and has not agreed since.
    async fn key(
        &self,
        contact: ContactId,
        claim: Option<&Claim>,
        before: &ContactRecord,
    ) -> Result<Option<Arc<dyn ContactCipher>>, AudienceError> {
        let (ports, tenant) = (&self.ports, &self.tenant);
        let is_willing = |erased_at: Timestamp| {
            let claimed = claim.filter(|claim| claim.says == Says::Give).map(|claim| claim.at);
            let given = before.consents.values().filter_map(|consent| Some(consent.given.as_ref()?.at));
            given.chain(claimed).any(|at| at > erased_at)
        };
        let found = match ports.keys.contact(tenant, contact, Missing::Fail).await {
            Ok(cipher) => cipher,
            Err(KeysError::Gone { .. }) => {
                let row = Key::contact_key(tenant, contact);
                let is_erased = read(&ports.metrics, || ports.state.get(&row)).await?.is_some();
                // A key is made for an erased contact only where a consent may be later than the erasure.
                if is_erased && !is_willing(Timestamp::EPOCH) {
                    return Ok(None);
                }
                ports.keys.contact(tenant, contact, Missing::Create).await?
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(found).filter(|cipher| cipher.erased_at().is_none_or(is_willing)))
    }
}

impl Prepared {
    fn left_out(contact: ContactId, effect: Effect) -> Self {
        Self { contact, effect, write: None, is_suppressed: true, is_new_consent: false, events: Vec::new() }
    }
}

impl Claim {
    fn statement(&self, cipher: &dyn TenantCipher, contact: ContactId) -> Statement {
        let purposes: Vec<_> = self.purposes.iter().map(|purpose| purpose.as_str()).collect();
        let said = format!("{contact}/{}/{}/{}", self.says.as_str(), purposes.join("+"), self.at.as_micros());
        let key: MessageKey = cipher.hash("import", said.as_bytes());
        Statement {
            says: self.says,
            categories: self.purposes.clone(),
            at: self.at,
            how: How::Import,
            key,
            text: self.how.clone(),
        }
    }

    /// Returns whether the evidence is recorded already, or evidence of later is.
    fn is_in(&self, record: &ContactRecord, statement: &Statement) -> bool {
        let kept = |consent: &Consent| match self.says {
            Says::Give => consent.given.clone(),
            Says::Stop => consent.stopped.clone(),
        };
        self.purposes.iter().all(|purpose| {
            let kept = record.consents.get(&(*purpose).into()).and_then(kept);
            kept.is_some_and(|kept| {
                (kept.at, kept.how, kept.key) >= (statement.at, statement.how.into(), statement.key)
            })
        })
    }
}

fn is_suppressed(record: &ContactRecord) -> bool {
    matches!(record.standing(Category::Marketing), Standing::Stopped | Standing::Restricted)
}

/// Compares a member with the stored one; returns the row to write where they differ.
fn upsert(
    cipher: &dyn ContactCipher,
    place: Key,
    stored: Option<Bytes>,
    member: &Member,
) -> Result<(Effect, Option<Write>), AudienceError> {
    let before = match stored {
        Some(stored) => open(cipher, &place, &Sealed::from_bytes(stored))?,
        None => None,
    };
    let effect = match before {
        Some(before) if before == *member => return Ok((Effect::Unchanged, None)),
        Some(_) => Effect::Changed,
        None => Effect::Added,
    };
    let plain = serde_json::to_vec(member).map_err(|_| corrupt(&place))?;
    let sealed = cipher.seal(&aad(&place, MEMBER_COLUMN), &plain);
    Ok((effect, Some(Write::put(place, sealed.into_bytes()))))
}
