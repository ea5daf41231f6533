//! Subject of a call, found before the audit entry is written or anything is done.

use std::sync::Arc;

use heddle_actors::intake::identity;
use heddle_api::contacts::OfContact;
use heddle_api::problem::ErrorKind;
use heddle_api::{Input, Operation};
use heddle_schemas::id::{ContactId, ConversationId};
use heddle_schemas::tenant::Tenant;

use super::{OperationError, Operations};

/// Subject of an operation's call.
pub trait Subject<O: Operation>: Sized + Send {
    /// Finds the subject. Changes nothing, except that the first mention of a contact may create it.
    ///
    /// # Errors
    /// [`OperationError`]: the call ends here, without an entry in the audit log.
    fn find(
        operations: &Operations,
        input: &mut Input<O>,
    ) -> impl Future<Output = Result<Self, OperationError>> + Send;

    /// Returns the contact, if the subject is one.
    fn contact(&self) -> Option<ContactId> {
        None
    }

    /// Returns whether the requested state is already reached, so that nothing is left to do or to record.
    fn is_settled(&self) -> bool {
        false
    }
}

/// The installation.
impl<O: Operation> Subject<O> for () {
    async fn find(_: &Operations, _: &mut Input<O>) -> Result<Self, OperationError> {
        Ok(())
    }
}

/// The existing tenant that the call names.
impl<O: Operation> Subject<O> for Arc<Tenant> {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        operations.tenant(named(input)?)
    }
}

/// The tenant that the call names, if it names one.
impl<O: Operation> Subject<O> for Option<Arc<Tenant>> {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        input.tenant().map(|id| operations.tenant(id)).transpose()
    }
}

/// Person that a tenant knows.
#[derive(Debug, Clone)]
pub struct Person {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// The contact.
    pub contact: ContactId,
    /// Contacts that turned out to be this one.
    pub also: Vec<ContactId>,
}

impl Person {
    /// Returns every possible conversation of the person, including those with disconnected accounts.
    pub fn conversations(&self) -> impl Iterator<Item = ConversationId> {
        let accounts = self.tenant.accounts_ever();
        let contacts: Vec<_> = std::iter::once(self.contact).chain(self.also.iter().copied()).collect();
        accounts.into_iter().flat_map(move |account| {
            contacts.clone().into_iter().map(move |contact| account.conversation(contact))
        })
    }
}

impl<O: Operation<Query = OfContact>> Subject<O> for Person {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        let tenant = operations.tenant(named(input)?)?;
        let identity::Person { contact, also } = operations.person(&tenant.id, &input.query.contact).await?;
        Ok(Self { tenant, contact, also })
    }

    fn contact(&self) -> Option<ContactId> {
        Some(self.contact)
    }
}

fn named<O: Operation>(input: &Input<O>) -> Result<&heddle_schemas::id::TenantId, OperationError> {
    let unnamed = || OperationError::new(ErrorKind::Internal, "no_tenant", "the operation names no tenant");
    input.tenant().ok_or_else(unnamed)
}
