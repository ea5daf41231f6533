//! AES-256-GCM under one key.
//!
//! Nonces are 96 random bits, for which NIST SP 800-38D, section 8.3, allows 2^32 messages a key. It
//! holds, because no key seals more:
//! - a contact's key seals what one person writes and is written to: at one message a second, 136 years;
//! - a tenant's keys seal its secrets and documents, and one wrapped key a contact;
//! - the master key wraps one key a tenant;
//! - a log key lives for one day, in which 2^32 messages are 49,710 a second without a pause. A
//!   WhatsApp number takes at most 1,000 messages a second, in and out together
//!   (<https://developers.facebook.com/docs/whatsapp/cloud-api/overview/#throughput>), so a tenant
//!   needs 24 upgraded numbers, saturated day and night, each message sealed twice, to come there.
//!   Beyond it nothing breaks suddenly: at 400,000 a second for a whole day two nonces would meet
//!   with a probability of 2^-27.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::derive::{Clear, Purpose, Root, mac128};
use super::entropy::Entropy;
use aes_gcm::aead::{Aead as _, AeadInOut as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use heddle_schemas::id::{AccountKey, ContactId, MessageKey, TenantId};
use heddle_schemas::ports::keys::{Cipher, ContactCipher, KeysError, TenantCipher};
use heddle_schemas::sealed::Sealed;
use heddle_schemas::time::{Day, Timestamp};

const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Owner of a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    Master,
    Tenant(TenantId),
    Log(TenantId, Day),
    Contact(TenantId, ContactId),
    Channel(AccountKey),
}

impl Owner {
    /// The tenant it belongs to.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Master => None,
            Self::Tenant(tenant) | Self::Log(tenant, _) | Self::Contact(tenant, _) => Some(tenant),
            Self::Channel(account) => Some(&account.tenant),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("the master key"),
            Self::Tenant(tenant) => write!(f, "the key of tenant {tenant}"),
            Self::Log(tenant, Day(day)) => write!(f, "the log key of tenant {tenant}, day {day}"),
            Self::Contact(tenant, contact) => write!(f, "the key of contact {contact} of tenant {tenant}"),
            Self::Channel(account) => write!(f, "the key of channel account {account}"),
        }
    }
}

/// Erasure flag of a key: one flag for all ciphers of an owner that are in use.
pub(super) type Erased = Arc<AtomicBool>;

/// Seals and opens under one key. Its key schedule is overwritten when it is dropped.
pub(super) struct AesCipher {
    cipher: Aes256Gcm,
    number: u32,
    owner: Owner,
    erased: Erased,
    /// Time at which the owner's previous key was erased.
    previous_erased_at: Option<Timestamp>,
    entropy: Arc<dyn Entropy>,
}

impl AesCipher {
    pub(super) fn new(
        key: &Clear,
        number: u32,
        owner: Owner,
        erased: Erased,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        let cipher = Aes256Gcm::new((&**key).into());
        Self { cipher, number, owner, erased, previous_erased_at: None, entropy }
    }

    /// Marks the cipher as following a key that was erased at that time.
    pub(super) fn following(self, previous_erased_at: Option<Timestamp>) -> Self {
        Self { previous_erased_at, ..self }
    }

    fn seal_with(&self, nonce: [u8; NONCE_BYTES], aad: &[u8], plain: &[u8]) -> Sealed {
        let mut bytes = Vec::with_capacity(Sealed::HEADER + plain.len() + TAG_BYTES);
        bytes.push(Sealed::VERSION);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(plain);
        let body = &mut bytes[Sealed::HEADER..];
        let tag = self.cipher.encrypt_inout_detached(&Nonce::from(nonce), aad, body.into());
        bytes.extend_from_slice(&tag.expect("a message is below AES-GCM's limit of 64 GiB"));
        Sealed::from_bytes(bytes)
    }

    fn unreadable(&self, why: &str) -> KeysError {
        KeysError::Unreadable { detail: format!("{}: {why}", self.owner) }
    }
}

impl Cipher for AesCipher {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Sealed {
        let mut nonce = [0_u8; NONCE_BYTES];
        self.entropy.nonce(&mut nonce);
        self.seal_with(nonce, aad, plain)
    }

    fn open(&self, aad: &[u8], sealed: &Sealed) -> Result<Vec<u8>, KeysError> {
        if self.erased.load(Ordering::Acquire) {
            return Err(KeysError::Gone { detail: format!("{} has been erased", self.owner) });
        }
        match sealed.key_number() {
            Some(number) if number == self.number => {}
            Some(number) => {
                let why = format!("it was sealed by number {number}, this is number {}", self.number);
                return Err(self.unreadable(&why));
            }
            None => return Err(self.unreadable("it is cut short, or of a version this build does not know")),
        }
        let (header, msg) = sealed.as_bytes().split_at(Sealed::HEADER);
        let mut nonce = [0_u8; NONCE_BYTES];
        nonce.copy_from_slice(&header[Sealed::HEADER - NONCE_BYTES..]);
        let plain = self.cipher.decrypt(&Nonce::from(nonce), Payload { msg, aad });
        plain.map_err(|_| self.unreadable("it was changed, moved, or sealed by another key"))
    }
}

impl ContactCipher for AesCipher {
    fn erased_at(&self) -> Option<Timestamp> {
        self.previous_erased_at
    }
}

impl fmt::Debug for AesCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { owner, number, .. } = self;
        f.debug_struct("AesCipher").field("owner", owner).field("number", number).finish_non_exhaustive()
    }
}

/// The number of the only key that a tenant or a contact has as long as keys are not rotated.
pub(super) const FIRST: u32 = 1;

/// A tenant's key, as the keys derived from it.
pub(super) struct TenantKeys {
    root: Root,
    seal: AesCipher,
    pub(super) wrap: AesCipher,
}

impl TenantKeys {
    pub(super) fn new(key: &Clear, tenant: &TenantId, erased: &Erased, entropy: &Arc<dyn Entropy>) -> Self {
        let root = Root::new(key);
        let cipher = |purpose| {
            let (key, owner) = (root.derive(purpose), Owner::Tenant(tenant.clone()));
            AesCipher::new(&key, FIRST, owner, erased.clone(), entropy.clone())
        };
        let (seal, wrap) = (cipher(Purpose::TenantSeal), cipher(Purpose::TenantWrap));
        Self { root, seal, wrap }
    }

    /// The log key of a day.
    pub(super) fn log(&self, tenant: &TenantId, day: Day, erased: Erased) -> AesCipher {
        let key = self.root.derive(Purpose::Log(day));
        AesCipher::new(&key, day.0, Owner::Log(tenant.clone(), day), erased, self.seal.entropy.clone())
    }
}

impl Cipher for TenantKeys {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Sealed {
        self.seal.seal(aad, plain)
    }

    fn open(&self, aad: &[u8], sealed: &Sealed) -> Result<Vec<u8>, KeysError> {
        self.seal.open(aad, sealed)
    }
}

impl TenantCipher for TenantKeys {
    fn hash(&self, domain: &str, input: &[u8]) -> MessageKey {
        mac128(&self.root.derive(Purpose::Hash(domain))[..], input)
    }
}

impl fmt::Debug for TenantKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantKeys").field("seal", &self.seal).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn cipher(key: &str) -> AesCipher {
        let mut bytes = Clear::default();
        hex::decode_to_slice(key, &mut bytes[..]).unwrap();
        AesCipher::new(&bytes, 7, Owner::Master, Erased::default(), Arc::new(SystemEntropy))
    }

    /// Checks against published test vectors: nonce, associated data, plaintext, ciphertext, tag.
    fn check(key: &str, [nonce, aad, plain, body, tag]: [&str; 5]) {
        let [nonce, aad, plain] = [nonce, aad, plain].map(|text| hex::decode(text).unwrap());
        let cipher = cipher(key);
        let sealed = cipher.seal_with(nonce.clone().try_into().unwrap(), &aad, &plain);
        let expected = format!("0100000007{}{body}{tag}", hex::encode(nonce));
        assert_eq!(hex::encode(sealed.as_bytes()), expected);
        assert_eq!(cipher.open(&aad, &sealed).unwrap(), plain);
    }

    #[test]
    fn messages_are_sealed_as_the_gcm_specification_says() {
        // McGrew, Viega: The Galois/Counter Mode of Operation, appendix B, test cases 13, 14 and 16.
        let zero = "0".repeat(64);
        let nonce = "0".repeat(24);
        check(&zero, [&nonce, "", "", "", "530f8afbc74536b9a963b4f1c4cb738b"]);
        let body = "cea7403d4d606b6e074ec5d3baf39d18";
        check(&zero, [&nonce, "", &"0".repeat(32), body, "d0d1c8a799996bf0265b98b5d48ab919"]);
        check(
            "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
            [
                "cafebabefacedbaddecaf888",
                "feedfacedeadbeeffeedfacedeadbeefabaddad2",
                "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                 1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
                "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                 8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
                "76fc6ece0f4e1768cddf8853bb2d551b",
            ],
        );
    }

    #[test]
    fn whichever_bit_is_flipped_it_does_not_open() {
        let cipher = cipher(&"5a".repeat(32));
        let sealed = cipher.seal(b"place", b"hello");
        for bit in 0..sealed.as_bytes().len() * 8 {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened = cipher.open(b"place", &Sealed::from_bytes(bytes));
            assert!(matches!(opened, Err(KeysError::Unreadable { .. })), "bit {bit}");
        }
    }

    #[test]
    fn a_truncated_ciphertext_does_not_open() {
        let cipher = cipher(&"5a".repeat(32));
        let sealed = cipher.seal(b"place", b"hello");
        for len in 0..sealed.as_bytes().len() {
            let cut = Sealed::from_bytes(sealed.as_bytes()[..len].to_vec());
            assert!(matches!(cipher.open(b"place", &cut), Err(KeysError::Unreadable { .. })), "{len} bytes");
        }
    }

    #[test]
    fn nonces_do_not_repeat() {
        let cipher = cipher(&"5a".repeat(32));
        let nonces: std::collections::BTreeSet<_> = (0..10_000)
            .map(|_| cipher.seal(b"", b"").as_bytes()[Sealed::HEADER - NONCE_BYTES..Sealed::HEADER].to_vec())
            .collect();
        assert_eq!(nonces.len(), 10_000);
    }

    #[test]
    fn a_cipher_prints_no_key() {
        let text = format!("{:?}", cipher(&"5a".repeat(32)));
        assert_eq!(text, "AesCipher { owner: Master, number: 7, .. }");
    }
}
