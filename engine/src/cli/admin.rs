//! Where commands find a node: its admin API, or, on the embedded store, the folder no process has open.

use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use clap::Args;
use heddle_connectors::knowledge::extract::File;
use heddle_schemas::audit::chain::{Noted, Verdict};
use heddle_schemas::audit::{Entry, Means, Note, Who};
use heddle_schemas::config::Config;
use heddle_schemas::contact::ContactName;
use heddle_schemas::erasure::Erasure;
use heddle_schemas::id::{AccountKey, ConversationId, MessageKey, TenantId};
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::knowledge::{Document, DocumentSummary, KnowledgeError, Passage};
use heddle_schemas::promise::Proofs;
use heddle_schemas::record::inbound::Handler;
use heddle_schemas::removal::Removal;
use heddle_schemas::sealed::Secret;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::zone::Month;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Failure;
use crate::administration::export::Pieces;
use crate::administration::{Administration, AdministrationError, By};
use crate::consents::{ConsentEntry, Consents};
use crate::dead_letters::{DeadLettersError, Filters, Letter, LetterId, Page, Replay, Replayed};
use crate::http::admin::{ENTRIES, Handles, List};
use crate::http::asker;
use crate::http::rights::Restriction;
use crate::node::Node;
use crate::rotation::{KeysStatus, Rotate, Rotated};
use crate::usage::Usage;

/// How long the admin API may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How long an export may take: it is sent as it is read.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(24 * 3_600);
/// How long it may take for a file, which may wait for others to be read.
const FILE_TIMEOUT: Duration = Duration::from_secs(300);

/// How long it may take for an audit, which reads all that is stored.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(6 * 3_600);

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

    /// In whose name, and why.
    fn by(&self) -> By {
        // An account without a name of its own, as in some containers, leaves none.
        let user = || whoami::username().ok()?.parse().ok();
        let name = self.name.clone().or_else(user);
        By { who: Who { name, means: Means::Folder, address: None }, why: self.why.clone() }
    }
}

/// A node to administer.
pub enum Admin {
    /// One that runs.
    Remote(Remote),
    /// A folder that no process has open.
    Local(Arc<Node>, Box<Administration>),
}

/// An export that is coming in.
pub enum Export {
    /// From a running node.
    Remote(Response),
    /// From a folder that no process has open.
    Local(Pieces),
}

impl Export {
    /// The next piece; `None` when that was all.
    ///
    /// # Errors
    /// When it broke off: what came before is not all.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Remote(response) => response.chunk().await.map_err(|error| {
                let error = anyhow::Error::new(error.without_url());
                Failure::Failed(error.context("the export broke off; the node's log tells why"))
            }),
            Self::Local(pieces) => Ok(pieces.next().await?),
        }
    }
}

/// The admin API of a running node.
pub struct Remote {
    client: Client,
    base: String,
    token: Secret,
    by: HeaderMap,
}

impl From<AdministrationError> for Failure {
    fn from(error: AdministrationError) -> Self {
        match error {
            AdministrationError::Knowledge(KnowledgeError::Refused { .. })
            | AdministrationError::DeadLetters(DeadLettersError::Request(_))
            | AdministrationError::Entry(_)
            | AdministrationError::Keys(KeysError::Master { .. }) => Self::Usage(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

impl From<DeadLettersError> for Failure {
    fn from(error: DeadLettersError) -> Self {
        match error {
            DeadLettersError::Request(_) => Self::Usage(error.into()),
            error => Self::Failed(error.into()),
        }
    }
}

impl Admin {
    /// Finds the node.
    ///
    /// # Errors
    /// When there is neither a running one nor a folder that can be opened.
    pub async fn find(config: Config, place: &Where) -> Result<Self, Failure> {
        let base = place.url.clone().unwrap_or_else(|| format!("http://{}", config.http.listen));
        let remote = Remote::new(&base, config.http.admin_token.clone())?.by(&place.by());
        match remote.client.get(format!("{base}/healthz")).send().await {
            Ok(_) => Ok(Self::Remote(remote)),
            Err(error) if error.is_connect() && place.url.is_none() => {
                let node = Arc::new(Node::open(config).await?);
                let administration = node.administration().await?.by(place.by());
                Ok(Self::Local(node, Box::new(administration)))
            }
            Err(error) => {
                Err(Failure::Failed(anyhow::Error::new(error).context(format!("no node answers at {base}"))))
            }
        }
    }

    /// Leaves the node as it is found next.
    pub async fn close(self) {
        if let Self::Local(node, _) = self {
            node.close().await;
        }
    }

    /// Makes a configuration the tenant's own.
    ///
    /// # Errors
    /// What the node says.
    pub async fn apply(&self, tenant: Tenant) -> Result<Tenant, Failure> {
        match self {
            Self::Remote(remote) => {
                let path = format!("tenants/{}", tenant.id);
                remote.ask(Method::PUT, &path, &[], Some(tenant.to_json_exposed())).await
            }
            Self::Local(_, local) => Ok((*local.apply(tenant).await?).clone()),
        }
    }

    /// Every tenant, by id.
    ///
    /// # Errors
    /// What the node says.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, Failure> {
        match self {
            Self::Remote(remote) => {
                remote.ask::<List<Tenant>>(Method::GET, "tenants", &[], None).await.map(|list| list.items)
            }
            Self::Local(_, local) => Ok(local.tenants().iter().map(|tenant| (**tenant).clone()).collect()),
        }
    }

    /// One tenant.
    ///
    /// # Errors
    /// What the node says.
    pub async fn tenant(&self, id: &TenantId) -> Result<Tenant, Failure> {
        match self {
            Self::Remote(remote) => remote.ask(Method::GET, &format!("tenants/{id}"), &[], None).await,
            Self::Local(_, local) => Ok((*local.tenant(id)?).clone()),
        }
    }

    /// Deletes a tenant: under way when this returns.
    ///
    /// # Errors
    /// What the node says.
    pub async fn delete(&self, id: &TenantId) -> Result<Removal, Failure> {
        match self {
            Self::Remote(remote) => remote.ask(Method::DELETE, &format!("tenants/{id}"), &[], None).await,
            Self::Local(_, local) => Ok(local.delete(id).await?),
        }
    }

    /// Every deletion of a tenant, by id.
    ///
    /// # Errors
    /// What the node says.
    pub async fn deletions(&self) -> Result<Vec<Removal>, Failure> {
        match self {
            Self::Remote(remote) => {
                remote.ask::<List<_>>(Method::GET, "deletions", &[], None).await.map(|list| list.items)
            }
            Self::Local(_, local) => Ok(local.deletions().await?),
        }
    }

    /// Disconnects a channel account.
    ///
    /// # Errors
    /// What the node says.
    pub async fn disconnect(&self, account: &AccountKey) -> Result<Tenant, Failure> {
        match self {
            Self::Remote(remote) => {
                let AccountKey { tenant, channel, account } = account;
                let path = format!("tenants/{tenant}/channels/{channel}/{account}");
                remote.ask(Method::DELETE, &path, &[], None).await
            }
            Self::Local(_, local) => Ok(local.disconnect(account).await?),
        }
    }

    /// What a tenant has used in a month.
    ///
    /// # Errors
    /// What the node says.
    pub async fn usage(&self, id: &TenantId, month: Option<Month>) -> Result<Usage, Failure> {
        match self {
            Self::Remote(remote) => {
                let month = month.map(|month| month.to_string());
                let query: Vec<_> = month.iter().map(|month| ("month", month.as_str())).collect();
                remote.ask(Method::GET, &format!("tenants/{id}/usage"), &query, None).await
            }
            Self::Local(_, local) => Ok(local.usage(id, month).await?),
        }
    }

    /// Says who answers in a conversation from now on.
    ///
    /// # Errors
    /// What the node says.
    pub async fn handle(&self, conversation: ConversationId, by: Handler) -> Result<(), Failure> {
        match self {
            Self::Remote(remote) => {
                let ConversationId { tenant, channel, account, contact } = conversation;
                let path = format!("tenants/{tenant}/conversations/{channel}/{account}/{contact}/handling");
                let body = serde_json::to_value(Handles { by }).expect("it is always JSON");
                remote.ask::<()>(Method::PUT, &path, &[], Some(body)).await
            }
            Self::Local(_, local) => Ok(local.handle(conversation, by).await?),
        }
    }

    /// What a contact has consented to and opted out of; with an entry, once that is taken in.
    ///
    /// # Errors
    /// What the node says.
    pub async fn consents(
        &self,
        id: &TenantId,
        contact: &ContactName,
        entry: Option<ConsentEntry>,
    ) -> Result<Consents, Failure> {
        match (self, entry) {
            (Self::Remote(remote), entry) => {
                let method = if entry.is_some() { Method::POST } else { Method::GET };
                let body = entry.map(|entry| serde_json::to_value(entry).expect("an entry is always JSON"));
                let name = contact.to_string();
                let path = format!("tenants/{id}/contacts/consent");
                remote.ask(method, &path, &[("contact", &name)], body).await
            }
            (Self::Local(_, local), Some(entry)) => Ok(local.enter(id, contact, entry).await?),
            (Self::Local(_, local), None) => Ok(local.consents(id, contact).await?),
        }
    }

    /// All that is kept of a contact, piece by piece.
    ///
    /// # Errors
    /// What the node says.
    pub async fn export(&self, id: &TenantId, contact: &ContactName) -> Result<Export, Failure> {
        match self {
            Self::Remote(remote) => {
                let (path, name) = (format!("tenants/{id}/contacts/export"), contact.to_string());
                remote.stream(&path, &[("contact", &name)]).await
            }
            Self::Local(_, local) => Ok(Export::Local(local.export(id, contact).await?)),
        }
    }

    /// All that is kept of a tenant, piece by piece.
    ///
    /// # Errors
    /// What the node says.
    pub async fn export_tenant(&self, id: &TenantId) -> Result<Export, Failure> {
        match self {
            Self::Remote(remote) => remote.stream(&format!("tenants/{id}/export"), &[]).await,
            Self::Local(_, local) => Ok(Export::Local(local.export_tenant(id).await?)),
        }
    }

    /// Has what is kept of a contact stored and not used, or used again.
    ///
    /// # Errors
    /// What the node says.
    pub async fn restrict(
        &self,
        id: &TenantId,
        contact: &ContactName,
        restricted: bool,
    ) -> Result<Consents, Failure> {
        match self {
            Self::Remote(remote) => {
                let (path, name) = (format!("tenants/{id}/contacts/restriction"), contact.to_string());
                let body = serde_json::to_value(Restriction { restricted }).expect("it is always JSON");
                remote.ask(Method::PUT, &path, &[("contact", &name)], Some(body)).await
            }
            Self::Local(_, local) => Ok(local.restrict(id, contact, restricted).await?),
        }
    }

    /// Has a contact forgotten.
    ///
    /// # Errors
    /// What the node says.
    pub async fn forget(&self, id: &TenantId, contact: &ContactName) -> Result<Erasure, Failure> {
        match self {
            Self::Remote(remote) => {
                let (path, name) = (format!("tenants/{id}/contacts/forget"), contact.to_string());
                remote.ask(Method::POST, &path, &[("contact", &name)], None).await
            }
            Self::Local(_, local) => Ok(local.forget(id, contact).await?),
        }
    }

    /// Every erasure of a tenant's contacts, the newest last.
    ///
    /// # Errors
    /// What the node says.
    pub async fn erasures(&self, id: &TenantId) -> Result<Vec<Erasure>, Failure> {
        match self {
            Self::Remote(remote) => {
                let path = format!("tenants/{id}/erasures");
                remote.ask::<List<_>>(Method::GET, &path, &[], None).await.map(|list| list.items)
            }
            Self::Local(_, local) => Ok(local.erasures(id).await?),
        }
    }

    /// How far an erasure has come.
    ///
    /// # Errors
    /// What the node says.
    pub async fn erasure(&self, id: &TenantId, erasure: MessageKey) -> Result<Erasure, Failure> {
        match self {
            Self::Remote(remote) => {
                remote.ask(Method::GET, &format!("tenants/{id}/erasures/{erasure}"), &[], None).await
            }
            Self::Local(_, local) => Ok(local.erasure(id, erasure).await?),
        }
    }

    /// Wraps the keys of a page of tenants by the present master key.
    ///
    /// # Errors
    /// What the node says.
    pub async fn rotate(&self, asked: &Rotate) -> Result<Rotated, Failure> {
        match self {
            Self::Remote(remote) => {
                let body = serde_json::to_value(asked).expect("it is always JSON");
                remote.ask(Method::POST, "keys/rotate", &[], Some(body)).await
            }
            Self::Local(_, local) => Ok(local.rotate(asked).await?),
        }
    }

    /// Which master keys wrap what.
    ///
    /// # Errors
    /// What the node says.
    pub async fn keys(&self) -> Result<KeysStatus, Failure> {
        match self {
            Self::Remote(remote) => remote.ask(Method::GET, "keys", &[], None).await,
            Self::Local(_, local) => Ok(local.keys().await?),
        }
    }

    /// Keeps a document.
    ///
    /// # Errors
    /// What the node says.
    pub async fn add(&self, id: &TenantId, document: Document) -> Result<DocumentSummary, Failure> {
        match self {
            Self::Remote(remote) => {
                let body = serde_json::to_value(&document).expect("a document is always JSON");
                remote.ask(Method::POST, &format!("tenants/{id}/documents"), &[], Some(body)).await
            }
            Self::Local(_, local) => Ok(local.add(id, document).await?),
        }
    }

    /// Keeps what a file says.
    ///
    /// # Errors
    /// What the node says.
    pub async fn add_file(&self, id: &TenantId, file: File) -> Result<DocumentSummary, Failure> {
        match self {
            Self::Remote(remote) => {
                let path = format!("tenants/{id}/documents/file");
                let query = [("id", Some(&file.id)), ("title", file.title.as_ref())];
                let query: Vec<_> = query
                    .iter()
                    .filter_map(|(name, value)| Some((*name, value.as_ref()?.as_str())))
                    .collect();
                let mut request = remote.request(Method::POST, &path, &query).timeout(FILE_TIMEOUT);
                if let Some(content_type) = &file.content_type {
                    request = request.header(CONTENT_TYPE, content_type);
                }
                Remote::answer(request.body(file.bytes.clone())).await
            }
            Self::Local(_, local) => {
                let place = local.files.place().await;
                Ok(local.add_file(id, place, file).await?)
            }
        }
    }

    /// Removes a document.
    ///
    /// # Errors
    /// What the node says.
    pub async fn remove(&self, id: &TenantId, document: &str) -> Result<(), Failure> {
        match self {
            Self::Remote(remote) => {
                let path = format!("tenants/{id}/documents");
                remote.ask::<()>(Method::DELETE, &path, &[("id", document)], None).await
            }
            Self::Local(_, local) => Ok(local.remove(id, document).await?),
        }
    }

    /// A tenant's documents, by id.
    ///
    /// # Errors
    /// What the node says.
    pub async fn documents(&self, id: &TenantId) -> Result<Vec<DocumentSummary>, Failure> {
        match self {
            Self::Remote(remote) => {
                let path = format!("tenants/{id}/documents");
                remote.ask::<List<_>>(Method::GET, &path, &[], None).await.map(|list| list.items)
            }
            Self::Local(_, local) => Ok(local.documents(id).await?),
        }
    }

    /// The passages that match best.
    ///
    /// # Errors
    /// What the node says.
    pub async fn search(&self, id: &TenantId, query: &str, limit: usize) -> Result<Vec<Passage>, Failure> {
        match self {
            Self::Remote(remote) => {
                let body = json!({ "query": query, "limit": limit });
                let path = format!("tenants/{id}/search");
                remote.ask::<List<_>>(Method::POST, &path, &[], Some(body)).await.map(|list| list.items)
            }
            Self::Local(_, local) => Ok(local.search(id, query, limit).await?),
        }
    }

    /// Dead letters that match.
    ///
    /// # Errors
    /// What the node says.
    pub async fn letters(&self, filters: &Filters) -> Result<Page, Failure> {
        match self {
            Self::Remote(remote) => {
                let fields = serde_json::to_value(filters).expect("filters are always JSON");
                let fields = fields.as_object().into_iter().flatten().map(|(name, value)| {
                    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                    (name.as_str(), text)
                });
                let fields: Vec<_> = fields.collect();
                let query: Vec<_> = fields.iter().map(|(name, text)| (*name, text.as_str())).collect();
                remote.ask(Method::GET, "dlq", &query, None).await
            }
            Self::Local(_, local) => Ok(local.dead_letters.list(filters).await?),
        }
    }

    /// A dead letter.
    ///
    /// # Errors
    /// What the node says.
    pub async fn letter(&self, id: LetterId) -> Result<Letter, Failure> {
        match self {
            Self::Remote(remote) => remote.ask(Method::GET, &format!("dlq/{id}"), &[], None).await,
            Self::Local(_, local) => Ok(local.letter(id).await?),
        }
    }

    /// Puts originals of dead letters back on their way.
    ///
    /// # Errors
    /// What the node says.
    pub async fn replay(&self, replay: &Replay) -> Result<Replayed, Failure> {
        match self {
            Self::Remote(remote) => {
                let body = serde_json::to_value(replay).expect("a replay is always JSON");
                remote.ask(Method::POST, "dlq/replay", &[], Some(body)).await
            }
            Self::Local(_, local) => Ok(local.replay(replay).await?),
        }
    }
}

/// The audit log.
impl Admin {
    /// Entries from a number on, as many as there are up to [`ENTRIES`].
    ///
    /// # Errors
    /// What the node says.
    pub async fn audit_log(&self, tenant: Option<&TenantId>, from: u64) -> Result<Vec<Entry>, Failure> {
        match self {
            Self::Remote(remote) => {
                let from = from.to_string();
                let mut query = vec![("from", from.as_str())];
                query.extend(tenant.map(|tenant| ("tenant", tenant.as_str())));
                remote.ask::<List<_>>(Method::GET, "audit/log", &query, None).await.map(|list| list.items)
            }
            Self::Local(_, local) => Ok(local.audit_log(tenant, from, ENTRIES).await?),
        }
    }

    /// Whether everything holds that a tenant is promised; without one, what is no tenant's.
    ///
    /// # Errors
    /// What the node says.
    pub async fn prove(&self, tenant: Option<&TenantId>) -> Result<Proofs, Failure> {
        match self {
            Self::Remote(remote) => {
                let query: Vec<_> = tenant.map(|tenant| ("tenant", tenant.as_str())).into_iter().collect();
                Remote::answer(remote.request(Method::GET, "audit", &query).timeout(AUDIT_TIMEOUT)).await
            }
            Self::Local(_, local) => Ok(local.prove(tenant).await?),
        }
    }

    /// Whether a log is as it was written.
    ///
    /// # Errors
    /// What the node says.
    pub async fn verify_audit_log(
        &self,
        tenant: Option<&TenantId>,
        noted: &[Noted],
    ) -> Result<Verdict, Failure> {
        match self {
            Self::Remote(remote) => {
                let noted: Vec<_> = noted.iter().map(ToString::to_string).collect();
                let noted = (!noted.is_empty()).then(|| noted.join(","));
                let mut query: Vec<_> = noted.iter().map(|noted| ("noted", noted.as_str())).collect();
                query.extend(tenant.map(|tenant| ("tenant", tenant.as_str())));
                remote.ask(Method::GET, "audit/log/verification", &query, None).await
            }
            Self::Local(_, local) => Ok(local.verify_audit_log(tenant, noted).await?),
        }
    }

    /// Begins a log anew behind a break.
    ///
    /// # Errors
    /// What the node says.
    pub async fn resume_audit_log(&self, tenant: Option<&TenantId>) -> Result<Entry, Failure> {
        match self {
            Self::Remote(remote) => {
                let query: Vec<_> = tenant.map(|tenant| ("tenant", tenant.as_str())).into_iter().collect();
                remote.ask(Method::POST, "audit/log/resumption", &query, None).await
            }
            Self::Local(_, local) => Ok(local.resume_audit_log(tenant).await?),
        }
    }
}

impl Remote {
    /// Of the node at this address.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(base: &str, token: Secret) -> Result<Self, Failure> {
        let client = Client::builder().timeout(TIMEOUT).no_proxy().build();
        let client = client.map_err(|error| Failure::Failed(error.into()))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), token, by: HeaderMap::new() })
    }

    /// In somebody's name.
    #[must_use]
    pub fn by(self, by: &By) -> Self {
        let notes = [(asker::ACTOR, &by.who.name), (asker::REASON, &by.why)];
        let by = notes.into_iter().filter_map(|(header, note)| {
            let value = HeaderValue::from_bytes(note.as_ref()?.as_str().as_bytes()).ok()?;
            Some((HeaderName::from_static(header), value))
        });
        Self { by: by.collect(), ..self }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<T, Failure> {
        let mut request = self.request(method, path, query);
        if let Some(body) = body {
            request = request.json(&body);
        }
        Self::answer(request).await
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> RequestBuilder {
        let request = self.client.request(method, format!("{}/v1/{path}", self.base)).query(query);
        let request = request.headers(self.by.clone());
        if self.token.is_empty() { request } else { request.bearer_auth(self.token.expose()) }
    }

    /// An answer that is read as it comes, for as long as it takes.
    async fn stream(&self, path: &str, query: &[(&str, &str)]) -> Result<Export, Failure> {
        let request = self.request(Method::GET, path, query).timeout(EXPORT_TIMEOUT);
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        if status.is_success() {
            return Ok(Export::Remote(response));
        }
        Err(Self::refused(status, &response.bytes().await.map_err(failed)?))
    }

    async fn answer<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, Failure> {
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let bytes = response.bytes().await.map_err(failed)?;
        if status.is_success() {
            let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
            return serde_json::from_slice(bytes)
                .map_err(|error| Failure::Failed(anyhow!("the admin API's answer cannot be read: {error}")));
        }
        Err(Self::refused(status, &bytes))
    }

    fn refused(status: StatusCode, bytes: &[u8]) -> Failure {
        let problem: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let detail = problem["detail"].as_str().unwrap_or("no detail");
        let detail = anyhow!("{detail}");
        match status {
            StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => {
                Failure::Usage(detail)
            }
            _ => Failure::Failed(detail.context(format!("the node answered {status}"))),
        }
    }
}

fn failed(error: reqwest::Error) -> Failure {
    Failure::Failed(error.without_url().into())
}
