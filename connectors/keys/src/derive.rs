//! HKDF-SHA-256 and HMAC-SHA-256, and every label in use.
//!
//! One key is never used for two purposes: each purpose has its own label, and a label with a
//! variable part ends with it, so no two are alike (RFC 5869, section 3.2).

use heddle_schemas::id::MessageKey;
use heddle_schemas::time::Day;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of every key here.
pub(super) const KEY_BYTES: usize = 32;

/// A key in the clear; overwritten when it is dropped.
pub(super) type Clear = Zeroizing<[u8; KEY_BYTES]>;

/// Purpose of a derived key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// Wraps tenants' keys; from the master key.
    MasterWrap,
    /// Identifies the master key without revealing it; from the master key.
    MasterId,
    /// Seals a tenant's secrets and documents; from the tenant's key.
    TenantSeal,
    /// Wraps contacts' keys; from the tenant's key.
    TenantWrap,
    /// Seals a tenant's log records of a day; from the tenant's key.
    Log(Day),
    /// Hashes ids of a domain; from the tenant's key.
    Hash(&'a str),
}

impl Purpose<'_> {
    fn info(self) -> Vec<u8> {
        match self {
            Self::MasterWrap => b"heddle/1/master/wrap".to_vec(),
            Self::MasterId => b"heddle/1/master/id".to_vec(),
            Self::TenantSeal => b"heddle/1/tenant/seal".to_vec(),
            Self::TenantWrap => b"heddle/1/tenant/wrap".to_vec(),
            Self::Log(day) => [&b"heddle/1/log/"[..], &day.0.to_be_bytes()].concat(),
            Self::Hash(domain) => [&b"heddle/1/hash/"[..], domain.as_bytes()].concat(),
        }
    }
}

/// A key from which others are derived.
pub(super) struct Root(Hkdf<Sha256>);

impl Root {
    pub(super) fn new(key: &Clear) -> Self {
        // The keys are uniformly random, so no salt is needed (RFC 5869, section 3.1).
        Self(Hkdf::new(None, &key[..]))
    }

    /// The key for a purpose.
    pub(super) fn derive(&self, purpose: Purpose<'_>) -> Clear {
        expand(&self.0, &purpose.info())
    }
}

fn expand(hkdf: &Hkdf<Sha256>, info: &[u8]) -> Clear {
    let mut key = Clear::default();
    hkdf.expand(info, &mut key[..]).expect("32 bytes are below HKDF's limit of 255 hashes");
    key
}

/// HMAC-SHA-256, its first 128 bits.
pub(super) fn mac128(key: &[u8], input: &[u8]) -> MessageKey {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(input);
    let full = mac.finalize().into_bytes();
    let mut first = [0_u8; 16];
    first.copy_from_slice(&full[..16]);
    MessageKey::from_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_derived_as_rfc_5869_says() {
        // Appendix A.1, the first 32 bytes.
        let salt = hex::decode("000102030405060708090a0b0c").unwrap();
        let info = hex::decode("f0f1f2f3f4f5f6f7f8f9").unwrap();
        let key = expand(&Hkdf::new(Some(&salt), &[0x0b; 22]), &info);
        assert_eq!(hex::encode(&key[..]), "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf");
        // Appendix A.3, no salt, the first 32 bytes.
        let key = expand(&Hkdf::new(None, &[0x0b; 22]), &[]);
        assert_eq!(hex::encode(&key[..]), "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d");
    }

    #[test]
    fn ids_are_hashed_as_rfc_4231_says() {
        // Section 4.6, the case that is cut to 128 bits.
        let hash = mac128(&[0x0c; 20], b"Test With Truncation");
        assert_eq!(hash.to_string(), "a3b6167473100ee06e0c796c2955552b");
        // Section 4.3, its first 128 bits.
        let hash = mac128(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hash.to_string(), "5bdcc146bf60754e6a042426089575c7");
    }

    #[test]
    fn no_two_purposes_share_a_key() {
        let root = Root::new(&Clear::new([7; KEY_BYTES]));
        let purposes = [
            Purpose::MasterWrap,
            Purpose::MasterId,
            Purpose::TenantSeal,
            Purpose::TenantWrap,
            Purpose::Log(Day(1)),
            Purpose::Log(Day(2)),
            Purpose::Hash("message"),
            Purpose::Hash("alias"),
            Purpose::Hash(""),
        ];
        let keys: std::collections::BTreeSet<_> = purposes.map(|purpose| *root.derive(purpose)).into();
        assert_eq!(keys.len(), purposes.len());
    }
}
