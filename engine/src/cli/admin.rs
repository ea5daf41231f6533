//! Access of commands to a node: through its admin API or, on the embedded store, directly to a data folder that no
//! process has open.

use std::sync::Arc;

use clap::Args;
use heddle_api::client::{CallError, Client};
use heddle_api::documents::AddDocument;
use heddle_api::operation::NoParameters;
use heddle_api::problem::ErrorKind;
use heddle_api::tenants::{ApplyTenant, CompareTenant, Configuration, OfTenant};
use heddle_api::{Input, Operation};
use heddle_connectors::keys::{Entropy as _, SystemEntropy};
use heddle_schemas::audit::{Means, Note, Who};
use heddle_schemas::config::{Config, StateKind};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::tenant::changes::TenantChanges;

use super::Failure;
use crate::admin_token;
use crate::node::Node;
use crate::operations::{Caller, Handler, OperationError, Operations, Rights};

/// Error code of a request that a node of another region must serve: the usage is correct.
const OTHER_REGION: &str = "other_region";

/// Options that locate the node and identify the caller.
#[derive(Debug, Clone, Default, Args)]
pub struct Where {
    /// Base address of a running node's admin API. Default: `http.admin_listen`, and the data folder itself if no node
    /// listens there.
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// Allow `--url` to be http to another machine, which shows the admin token to the network between.
    #[arg(long, global = true)]
    pub insecure: bool,
    /// Your name for the audit log, which records access to personal data and configuration.
    /// Default: the user of the operating system.
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub name: Option<Note>,
    /// Reason for the audit log: a line or a ticket, without phone numbers.
    #[arg(long, global = true, value_name = "TEXT")]
    pub why: Option<Note>,
}

impl Where {
    /// Creates the options of a node at this address.
    #[must_use]
    pub fn at(url: impl Into<String>) -> Self {
        Self { url: Some(url.into()), ..Self::default() }
    }

    /// Returns the caller of the command.
    fn caller(&self) -> Caller {
        // No name where the user account has none, as in some containers.
        let user = || whoami::username().ok()?.parse().ok();
        let name = self.name.clone().or_else(user);
        let who = Who { name, means: Means::Folder, address: None };
        Caller { who, why: self.why.clone(), rights: Rights::Operator }
    }
}

/// Node to administer.
pub enum Admin {
    /// A running node.
    Remote(Client),
    /// A data folder that no other process has open.
    Local(Arc<Node>, Box<Operations>, Caller),
}

/// Reaction to a data folder without a store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NoStore {
    Refuse,
    Create,
}

/// Returns whether the embedded store is configured and its folder holds none.
fn is_without_store(config: &Config) -> bool {
    config.state.kind == StateKind::Embedded && !config.data_dir.join("journal").exists()
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
            error @ (CallError::Address(_) | CallError::Plaintext(_)) => Self::Usage(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

/// Request that the node refused as not valid.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub(super) struct Refused {
    /// Machine-readable code of the fault.
    pub(super) code: String,
    detail: String,
}

impl Admin {
    /// Finds the node. Creates no store: a folder without one is most likely the wrong folder.
    ///
    /// # Errors
    /// When neither a running node nor a data folder with a store can be reached.
    pub async fn find(config: Config, place: &Where) -> Result<Self, Failure> {
        Self::find_or(config, place, NoStore::Refuse).await
    }

    /// Finds the node. Creates the store and its master key in a new data folder, for the first tenant.
    ///
    /// # Errors
    /// When neither a running node nor a data folder can be reached.
    pub async fn find_or_create(config: Config, place: &Where) -> Result<Self, Failure> {
        Self::find_or(config, place, NoStore::Create).await
    }

    async fn find_or(config: Config, place: &Where, no_store: NoStore) -> Result<Self, Failure> {
        let base = place.url.clone().unwrap_or_else(|| format!("http://{}", config.http.admin_address()));
        let caller = place.caller();
        let token = admin_token::of_command(&config).map_err(|error| Failure::Failed(error.into()))?;
        // An address that was configured is the operator's own choice.
        let insecure = place.insecure || place.url.is_none();
        let client = Client::new(&base, token.unwrap_or_default(), insecure)?;
        let client = client.named(caller.who.name.as_ref(), caller.why.as_ref());
        let mut challenge = [0; 32];
        SystemEntropy.key(&mut challenge);
        match client.check(&challenge).await {
            Ok(()) => Ok(Self::Remote(client)),
            Err(error) if error.is_nobody_there() && place.url.is_none() => {
                if no_store == NoStore::Refuse && is_without_store(&config) {
                    let folder = config.data_dir.display();
                    return Err(Failure::Failed(anyhow::anyhow!(
                        "no node answers at {base}, and {folder} holds no store; start a node, or name its \
                         configuration by --config or its address by --url"
                    )));
                }
                let node = Arc::new(Node::open(config).await?);
                let operations = node.administration().await?;
                Ok(Self::Local(node, Box::new(operations), caller))
            }
            Err(error @ (CallError::Unproven | CallError::NoToken)) => Err(Failure::Failed(
                anyhow::Error::new(error).context(format!("the node at {base} is not used")),
            )),
            Err(error) => {
                Err(Failure::Failed(anyhow::Error::new(error).context(format!("no node answers at {base}"))))
            }
        }
    }

    /// Closes the store, if this process has it open.
    pub async fn close(self) {
        if let Self::Local(node, ..) = self {
            node.close().await;
        }
    }

    /// Calls an operation.
    ///
    /// # Errors
    /// The operation's error, or that of the connection.
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

    /// Compares a tenant's configuration with its present one.
    ///
    /// # Errors
    /// As [`Admin::call`].
    pub async fn compare(&self, tenant: Tenant) -> Result<TenantChanges, Failure> {
        let path = OfTenant { tenant: tenant.id.clone() };
        self.call(CompareTenant, path, NoParameters {}, Configuration(tenant)).await
    }

    /// Applies a tenant's configuration.
    ///
    /// # Errors
    /// As [`Admin::call`].
    pub async fn apply(&self, tenant: Tenant) -> Result<Tenant, Failure> {
        let path = OfTenant { tenant: tenant.id.clone() };
        self.call(ApplyTenant, path, NoParameters {}, Configuration(tenant)).await
    }

    /// Stores a document.
    ///
    /// # Errors
    /// As [`Admin::call`].
    pub async fn add(&self, id: &TenantId, document: Document) -> Result<DocumentSummary, Failure> {
        self.call(AddDocument, OfTenant { tenant: id.clone() }, NoParameters {}, document).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reading_command_creates_no_store_and_no_master_key() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config { data_dir: folder.path().join("data"), ..Config::default() };
        // No process listens on port 9.
        config.http.admin_listen = Some("127.0.0.1:9".parse().unwrap());
        let refused = Admin::find(config.clone(), &Where::default()).await;
        let Err(Failure::Failed(error)) = refused else { panic!("an empty folder was opened") };
        assert!(error.to_string().contains("holds no store"), "{error}");
        assert!(!config.data_dir.exists(), "a read must not write");
        Admin::find_or_create(config.clone(), &Where::default()).await.unwrap().close().await;
        Admin::find(config, &Where::default()).await.unwrap().close().await;
    }
}
