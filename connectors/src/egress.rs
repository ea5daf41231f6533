//! Addresses that tenants' configurations may make a node call: those of the public internet over https, and what the
//! operator allows beside them.
//!
//! A tenant sets the addresses of its models, its channels' APIs and its calendar. Addresses that this node can reach
//! and the internet cannot (itself, its network, its cloud's metadata) are not theirs to call. A host that is an
//! address is checked before each call, and a name's addresses when they are resolved for the connection: the address
//! that was checked is the one that is connected to.

use std::net::IpAddr;
use std::sync::Arc;

use heddle_schemas::network::Networks;
use reqwest::{ClientBuilder, Url};
use url::Host;

use crate::knowledge::crawl::address::{Checked, Rule, is_public};

/// Addresses that may be called.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Egress {
    allowed: Arc<Networks>,
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("allowed", &self.allowed).finish()
    }
}

/// Reason that an address may not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// No URL of an API.
    #[error("it is no https address, or has a user, a # or, before what is added to it, a ?")]
    Form,
    /// Not encrypted.
    #[error("it is http; only https may leave this machine's allowed networks")]
    Plaintext,
    /// Not public.
    #[error(
        "it is no address of the public internet; an operator allows others by security.private_addresses"
    )]
    Private,
}

impl Egress {
    /// Creates the rule: the public internet, and these networks, also over http.
    #[must_use]
    pub fn new(allowed: Networks) -> Self {
        Self { allowed: Arc::new(allowed) }
    }

    /// Creates the rule of a test or a bench on one machine.
    #[must_use]
    pub fn with_loopback() -> Self {
        Self::new(Networks::loopback())
    }

    fn permits(&self, address: IpAddr) -> bool {
        is_public(address) || self.allowed.contains(address)
    }

    /// Checks an address that paths are added to, or that has them, as far as is known before its name is resolved.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check(&self, base: &str) -> Result<(), Forbidden> {
        // What is added to one with `?` or `#` would be no path.
        if base.contains(['?', '#']) { Err(Forbidden::Form) } else { self.check_whole(base) }
    }

    /// Checks an address that is called as it is.
    ///
    /// # Errors
    /// [`Forbidden`].
    pub fn check_whole(&self, address: &str) -> Result<(), Forbidden> {
        let url = Url::parse(address).map_err(|_| Forbidden::Form)?;
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(Forbidden::Form);
        }
        let ip = match url.host() {
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            // RFC 6761, 6.3: it is loopback whatever resolves it.
            Some(Host::Domain(name)) if name == "localhost" || name.ends_with(".localhost") => {
                Some(std::net::Ipv4Addr::LOCALHOST.into())
            }
            Some(Host::Domain(_)) => None,
            None => return Err(Forbidden::Form),
        };
        if ip.is_some_and(|ip| !self.permits(ip)) {
            return Err(Forbidden::Private);
        }
        match url.scheme() {
            "https" => Ok(()),
            // In the clear only within what the operator allows.
            "http" if ip.is_some_and(|ip| self.allowed.contains(ip)) => Ok(()),
            "http" => Err(Forbidden::Plaintext),
            _ => Err(Forbidden::Form),
        }
    }

    /// Returns a client whose names resolve to permitted addresses only.
    pub(crate) fn client(&self) -> ClientBuilder {
        let this = self.clone();
        let rule: Rule = Arc::new(move |address| this.permits(address));
        crate::http::client().dns_resolver(Checked(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_to_the_public_internet_and_what_the_operator_allows() {
        let none = Egress::new(Networks::default());
        let own =
            Egress::new(["10.1.0.0/16", "127.0.0.1"].map(|text| text.parse().unwrap()).into_iter().collect());
        for good in
            ["https://graph.facebook.com/v21.0", "https://1.1.1.1/v1", "https://models.example:8443/v1"]
        {
            assert_eq!((none.check(good), own.check(good)), (Ok(()), Ok(())), "{good}");
        }
        for (address, why) in [
            ("http://graph.facebook.com/v21.0", Forbidden::Plaintext),
            ("http://1.1.1.1/", Forbidden::Plaintext),
            ("https://169.254.169.254/latest", Forbidden::Private),
            ("https://192.168.1.1/v1", Forbidden::Private),
            ("https://[::1]/v1", Forbidden::Private),
            ("https://[::ffff:10.2.0.1]/", Forbidden::Private),
            ("https://2130706434/", Forbidden::Private),
            ("https://[fe80::1]/", Forbidden::Private),
            ("https://models.example/v1?a=", Forbidden::Form),
            ("https://models.example/v1#", Forbidden::Form),
            ("https://user@models.example/v1", Forbidden::Form),
            ("ftp://models.example/", Forbidden::Form),
            ("models.example", Forbidden::Form),
        ] {
            assert_eq!((none.check(address), own.check(address)), (Err(why), Err(why)), "{address}");
        }
        assert_eq!(none.check_whole("https://site.example/hook?key=1"), Ok(()));
        assert_eq!(none.check_whole("https://site.example/hook#1"), Err(Forbidden::Form));
        for local in
            ["http://127.0.0.1:8080/v1", "http://10.1.2.3/v1", "https://10.1.2.3/v1", "http://localhost:9/v1"]
        {
            assert_eq!((none.check(local), own.check(local)), (Err(Forbidden::Private), Ok(())), "{local}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
        // The name is not checked here, as one would not be that resolves so only now.
        let refused = Egress::new(Networks::default()).client().build().unwrap().get(&url).send().await;
        assert!(refused.unwrap_err().is_connect());
        let accepted = tokio::spawn(async move { listener.accept().await.is_ok() });
        let allowed = Egress::with_loopback().client().build().unwrap();
        drop(tokio::time::timeout(std::time::Duration::from_millis(500), allowed.get(&url).send()).await);
        assert!(accepted.await.unwrap(), "it was only now connected to");
    }
}
