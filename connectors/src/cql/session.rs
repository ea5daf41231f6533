//! Connection to the cluster.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;

use super::statements::Profiles;
use super::{OpenError, Options, Tls};

/// Connects to a cluster.
pub(super) async fn connect(options: &Options, profiles: &Profiles) -> Result<Session, OpenError> {
    let mut builder = SessionBuilder::new()
        .known_nodes(&options.nodes)
        .connection_timeout(options.timeout)
        .default_execution_profile_handle(profiles.write.clone())
        .keyspaces_to_fetch([options.keyspace.as_str()]);
    if !options.user.is_empty() {
        builder = builder.user(&options.user, options.password.expose());
    }
    if let Some(tls) = &options.tls {
        builder = builder.tls_context(Some(context(tls)?));
    }
    let session = builder
        .build()
        .await
        .map_err(|source| OpenError::Connect { nodes: options.nodes.join(", "), source: source.into() })?;
    check_datacenter(options.datacenter.as_deref(), datacenters(&session))?;
    Ok(session)
}

/// Trusts the certificates of a file, and no others, and shows this node's own.
fn context(tls: &Tls) -> Result<Arc<ClientConfig>, OpenError> {
    let ca = &*tls.ca;
    let wrong = |why: String| OpenError::Certificates { path: ca.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?;
    let config = config.with_root_certificates(roots);
    let Some(client) = &tls.client else { return Ok(Arc::new(config.with_no_client_auth())) };
    let of = |path: &Path, why: String| OpenError::Certificates { path: path.to_owned(), why };
    let key = PrivateKeyDer::from_pem_file(&client.key);
    let key = key.map_err(|error| of(&client.key, error.to_string()))?;
    let config = config.with_client_auth_cert(certificates(&client.certificate)?, key);
    Ok(Arc::new(config.map_err(|error| of(&client.certificate, error.to_string()))?))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let wrong = |why: String| OpenError::Certificates { path: path.to_owned(), why };
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() { Err(wrong("it holds none".into())) } else { Ok(found) }
}

/// The datacenters of a cluster.
pub(super) fn datacenters(session: &Session) -> BTreeSet<String> {
    let state = session.get_cluster_state();
    state.get_nodes_info().iter().filter_map(|node| node.datacenter.clone()).collect()
}

fn check_datacenter(asked: Option<&str>, there: BTreeSet<String>) -> Result<(), OpenError> {
    let fits = match asked {
        Some(asked) => there.contains(asked),
        None => there.len() <= 1,
    };
    if fits {
        return Ok(());
    }
    let asked = asked.unwrap_or_default().to_owned();
    Err(OpenError::Datacenter { asked, there: there.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_reported() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "no certificate").unwrap();
        let only = |ca: &Path| Tls { ca: ca.to_owned(), client: None };
        let text = context(&only(file.path())).unwrap_err().to_string();
        assert!(text.contains(&file.path().display().to_string()) && text.contains("none"), "{text}");
        let text = context(&only(Path::new("/nowhere/ca.pem"))).unwrap_err().to_string();
        assert!(text.contains("/nowhere/ca.pem"), "{text}");
    }

    #[test]
    fn of_several_datacenters_one_must_be_named() {
        let there = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
        check_datacenter(None, there(&["dc1"])).unwrap();
        check_datacenter(Some("dc2"), there(&["dc1", "dc2"])).unwrap();
        let unnamed = check_datacenter(None, there(&["dc1", "dc2"])).unwrap_err().to_string();
        assert!(unnamed.contains("dc1, dc2") && unnamed.contains("is empty"), "{unnamed}");
        let unknown = check_datacenter(Some("eu"), there(&["dc1"])).unwrap_err().to_string();
        assert!(unknown.contains("it is eu"), "{unknown}");
    }
}
