//! Network addresses that a crawler may reach: public ones only.
//!
//! A page's links, its redirects and its name's addresses are chosen by third parties. Addresses that this machine can
//! reach but the internet cannot (itself, its network, its cloud's metadata) are not theirs to read.
//! Names are resolved here and only permitted addresses are passed on, so the address that was
//! checked is the one that is connected to, whatever the name resolves to next.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::Host;

/// Predicate of the addresses that may be reached.
pub type Rule = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Returns true if an address is one of the public internet: globally reachable by IANA's registries of
/// special-purpose addresses (<https://www.iana.org/assignments/iana-ipv4-special-registry> and
/// `iana-ipv6-special-registry`), multicast and addresses that carry another one excepted.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => is_public_v4(address),
            None => is_public_v6(address),
        },
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    /// Address at which a machine of Azure finds its host
    /// (<https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16>).
    const AZURE: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
    let reserved = match address.octets() {
        // This network, private use, shared (carrier-grade NAT), loopback, link-local, and from 224 on
        // multicast and reserved.
        [0 | 10 | 127, ..] | [100, 64..128, ..] | [169, 254, ..] | [172, 16..32, ..] | [192, 168, ..] => true,
        [224..=255, ..] => true,
        // Protocol assignments, documentation, 6to4 relays, benchmarking.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            true
        }
        _ => false,
    };
    !reserved && address != AZURE
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments with Teredo, documentation, 6to4, documentation.
        [0x2001, 0..0x200, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..0x1000, ..] => false,
        // All assigned addresses are in 2000::/3; loopback, unique local, link-local, multicast and NAT64 are not.
        [0x2000..0x4000, ..] => true,
        _ => false,
    }
}

/// Resolves names to addresses that may be reached.
pub(crate) struct Checked(pub(crate) Rule);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let rule = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> = found.filter(|address| rule(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, NOT_PUBLIC).into());
            }
            let addresses: Addrs = Box::new(allowed.into_iter());
            Ok(addresses)
        })
    }
}

/// Error text for an address that may not be reached.
pub(super) const NOT_PUBLIC: &str = "its address is not one of the public internet";

/// Checks the parts that are not resolved: the scheme, and a host that is an address.
pub(super) fn check(url: &Url, rule: &Rule) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{}: is no way to reach a page, http and https are", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it carries a password".into());
    }
    let address = match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address),
        Some(Host::Ipv6(address)) => IpAddr::V6(address),
        Some(Host::Domain(_)) => return Ok(()),
        None => return Err("it names no host".into()),
    };
    if rule(address) { Ok(()) } else { Err(NOT_PUBLIC.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        let public = ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1"];
        let other = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "203.0.113.7",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "2001:0:1::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff:1::1",
        ];
        for address in public {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in other {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn a_host_that_is_an_address_is_checked_however_it_is_written() {
        let rule: Rule = Arc::new(is_public);
        for url in ["http://127.0.0.1/", "http://2130706433/", "http://0x7f.1/", "http://[::1]/", "http://0/"]
        {
            assert_eq!(check(&url.parse().unwrap(), &rule), Err(NOT_PUBLIC.into()), "{url}");
        }
        assert!(check(&"ftp://acme.example/".parse().unwrap(), &rule).is_err());
        assert!(check(&"https://a:b@acme.example/".parse().unwrap(), &rule).is_err());
        assert_eq!(check(&"https://acme.example/".parse().unwrap(), &rule), Ok(()));
    }
}
