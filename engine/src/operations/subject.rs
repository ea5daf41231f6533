//! What a call is about: found before anything is written down or done.

use std::sync::Arc;

use heddle_api::contacts::OfContact;
use heddle_api::problem::ErrorKind;
use heddle_api::{Input, Operation};
use heddle_schemas::id::ContactId;
use heddle_schemas::tenant::Tenant;

use super::{OperationError, Operations};

/// Something that a call of an operation is about.
pub trait Subject<O: Operation>: Sized + Send {
    /// Finds it. It changes nothing but what a first mention of a contact makes.
    ///
    /// # Errors
    /// [`OperationError`]: the call ends here, and leaves no entry in the audit log.
    fn find(
        operations: &Operations,
        input: &mut Input<O>,
    ) -> impl Future<Output = Result<Self, OperationError>> + Send;

    /// The contact that it is.
    fn contact(&self) -> Option<ContactId> {
        None
    }

    /// Whether it is as it was asked to be, so that nothing is left to be done or written down.
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

/// The tenant that the call names, which there is.
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

/// A contact that a tenant has met.
#[derive(Debug, Clone)]
pub struct Person {
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// The contact.
    pub contact: ContactId,
}

impl<O: Operation<Query = OfContact>> Subject<O> for Person {
    async fn find(operations: &Operations, input: &mut Input<O>) -> Result<Self, OperationError> {
        let tenant = operations.tenant(named(input)?)?;
        let contact = operations.contact(&tenant.id, &input.query.contact).await?;
        Ok(Self { tenant, contact })
    }

    fn contact(&self) -> Option<ContactId> {
        Some(self.contact)
    }
}

fn named<O: Operation>(input: &Input<O>) -> Result<&heddle_schemas::id::TenantId, OperationError> {
    let unnamed = || OperationError::new(ErrorKind::Internal, "no_tenant", "the operation names no tenant");
    input.tenant().ok_or_else(unnamed)
}
