//! Where commands find a node: its admin API, or, on the embedded store, the folder no process has open.

use std::sync::Arc;

use clap::Args;
use heddle_api::client::{CallError, Client};
use heddle_api::documents::AddDocument;
use heddle_api::operation::NoParameters;
use heddle_api::problem::ErrorKind;
use heddle_api::tenants::{ApplyTenant, Configuration, OfTenant};
use heddle_api::{Input, Operation};
use heddle_schemas::audit::{Means, Note, Who};
use heddle_schemas::config::Config;
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary};
use heddle_schemas::tenant::Tenant;

use super::Failure;
use crate::node::Node;
use crate::operations::{Caller, Handler, OperationError, Operations, Rights};

/// The code of what another node has to be asked: the usage is right.
const OTHER_REGION: &str = "other_region";

/// Where to find the node.
#[derive(Debug, Clone, Default, Args)]
pub struct Where {
    /// The admin API of a running node; without it the configured address, and when nobody listens
    /// there the data folder itself.
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Who you are, for the audit log: what reads or changes personal data or configuration is written down.
    /// Without it, the user of the operating system.
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub name: Option<Note>,
    /// Why you do it, for the audit log: a line or a ticket, without phone numbers.
    #[arg(long, global = true, value_name = "TEXT")]
    pub why: Option<Note>,
}

impl Where {
    /// At this address.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// The caller of a command.
    fn caller(&self) -> Caller {
        // An account without a name of its own, as in some containers, leaves none.
        let user = || whoami::username().ok()?.parse().ok();
        let name = self.name.clone().or_else(user);
        let who = Who { name, means: Means::Folder, address: None };
        Caller { who, why: self.why.clone(), rights: Rights::Operator }
    }
}

/// A node to administer.
pub enum Admin {
    /// One that runs.
    Remote(Client),
    /// A folder that no process has open.
    Local(Arc<Node>, Box<Operations>, Caller),
}

impl From<OperationError> for Failure {
    fn from(error: OperationError) -> Self {
        match error.kind {
            ErrorKind::Invalid if error.code != OTHER_REGION => Self::Usage(error.into()),
            _ => Self::Failed(error.into()),
        }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(problem)
                if matches!(problem.status, 400 | 408 | 413 | 415 | 422) && problem.code != OTHER_REGION =>
            {
                Self::Usage(Refused { code: problem.code, detail: problem.detail }.into())
            }
            error => Self::Failed(error.into()),
        }
    }
}

/// A request that the node refused as it was put.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    /// What is wrong, for programs.
    pub(super) code: String,
    detail: String,
}

impl Admin {
    /// Finds the node.
    ///
    /// # Errors
    /// When there is neither a running one nor a folder that can be opened.
    pub async fn find(config: Config, place: &Where) -> Result<Self, Failure> {
        let base = place.url.clone().unwrap_or_else(|| format!("http://{}", config.http.listen));
        let caller = place.caller();
        let client = Client::new(&base, config.http.admin_token.clone())?;
        let client = client.named(caller.who.name.as_ref(), caller.why.as_ref());
        match client.check().await {
            Ok(()) => Ok(Self::Remote(client)),
            Err(error) if error.is_nobody_there() && place.url.is_none() => {
                let node = Arc::new(Node::open(config).await?);
                let operations = node.administration().await?;
                Ok(Self::Local(node, Box::new(operations), caller))
            }
            Err(error) => {
                Err(Failure::Failed(anyhow::Error::new(error).context(format!("no node answers at {base}"))))
            }
        }
    }

    /// Closes the store, where it is open here.
    pub async fn close(self) {
        if let Self::Local(node, ..) = self {
            node.close().await;
        }
    }

    /// Calls an operation.
    ///
    /// # Errors
    /// The operation's; those of the connection.
    pub async fn call<O: Handler>(
        &self,
        _: O,
        path: O::Path,
        query: O::Query,
        body: O::Body,
    ) -> Result<<O as Operation>::Output, Failure> {
        let input = Input::<O> { path, query, body };
        match self {
            Self::Remote(client) => Ok(client.call(input).await?),
            Self::Local(_, operations, caller) => Ok(operations.call(caller, input).await?),
        }
    }

    /// Makes a configuration the tenant's own.
    ///
    /// # Errors
    /// As [`Admin::call`].
    pub async fn apply(&self, tenant: Tenant) -> Result<Tenant, Failure> {
        let path = OfTenant { tenant: tenant.id.clone() };
        self.call(ApplyTenant, path, NoParameters {}, Configuration(tenant)).await
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// As [`Admin::call`].
    pub async fn add(&self, id: &TenantId, document: Document) -> Result<DocumentSummary, Failure> {
        self.call(AddDocument, OfTenant { tenant: id.clone() }, NoParameters {}, document).await
    }
}
