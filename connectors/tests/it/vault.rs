//! Tenants' keys wrapped by Vault's transit engine, against a stand-in on loopback.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_connectors::keys::vault::{self, Vault};
use heddle_connectors::keys::{
    EnvelopeKeys, LocalMaster, MasterKey, Masters, Options, Rewrapped, SystemEntropy, WrappedBy, Wrapper,
};
use heddle_memory::{ManualClock, MemoryDisk, MemoryStore};
use heddle_schemas::id::TenantId;
use heddle_schemas::ports::keys::{Keys as _, KeysError, TenantCipher};
use heddle_schemas::ports::state::{State as _, StoreError};
use heddle_schemas::sealed::Secret;
use heddle_schemas::table::Key;
use heddle_schemas::time::Timestamp;

use heddle_connectors_testing::vault::{TOKEN, Transit};

const PLACE: &[u8] = b"place";

struct Fixture {
    transit: Transit,
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    token: Arc<Mutex<String>>,
    registry: prometheus::Registry,
    calls: vault::Calls,
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

impl Fixture {
    async fn new() -> Self {
        let transit = Transit::start().await;
        transit.make("heddle", true);
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_000)));
        let store = Arc::new(MemoryStore::open(MemoryDisk::new(NonZeroU32::MIN), clock.clone()));
        let token = Arc::new(Mutex::new(TOKEN.to_owned()));
        let registry = prometheus::Registry::new();
        let calls = vault::Calls::register(&registry);
        Self { transit, store, clock, token, registry, calls }
    }

    fn vault(&self, name: &str) -> Vault {
        let token = self.token.clone();
        let token: vault::Token = Arc::new(move || Ok(Secret::new(token.lock().unwrap().clone())));
        let options = vault::Options { timeout: Duration::from_secs(2), ..vault::Options::default() };
        Vault::new(self.transit.key(name).parse().unwrap(), token, &options, self.calls.clone()).unwrap()
    }

    fn keys(&self, masters: Masters) -> EnvelopeKeys {
        EnvelopeKeys::with_masters(self.store.clone(), self.clock.clone(), masters, Options::default())
    }

    fn vaulted(&self) -> EnvelopeKeys {
        self.keys(Masters::new(Arc::new(self.vault("heddle")), Vec::new()).unwrap())
    }

    async fn row(&self) -> Vec<u8> {
        self.store.get(&Key::tenant_key(&acme())).await.unwrap().unwrap().to_vec()
    }

    /// Advances until the cache entry has expired, and the row is read again.
    fn minute(&self) {
        self.clock.advance(Options::default().cache_for);
    }

    fn metric(&self, call: &str, result: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families.iter().flat_map(|family| family.get_metric());
        let of = |metric: &&prometheus::proto::Metric| {
            let labels: Vec<_> = metric.get_label().iter().map(|label| label.value().to_owned()).collect();
            labels == [call, result]
        };
        metrics.filter(of).map(|metric| metric.get_counter().get_value()).sum()
    }
}

fn local(byte: u8) -> MasterKey {
    use base64::Engine as _;
    MasterKey::from_base64(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap()
}

fn local_wrapper(byte: u8) -> Arc<dyn Wrapper> {
    Arc::new(LocalMaster::new(format!("file:{byte}"), &local(byte), Arc::new(SystemEntropy)))
}

fn master(error: KeysError) -> String {
    match error {
        KeysError::Master { detail } => detail,
        other => panic!("{other:?}"),
    }
}

fn unavailable(error: KeysError) -> String {
    match error {
        KeysError::Store(StoreError::Unavailable { detail }) => detail,
        other => panic!("{other:?}"),
    }
}

fn sealed_by(tenant: &dyn TenantCipher) -> heddle_schemas::sealed::Sealed {
    tenant.seal(PLACE, b"hello")
}

#[tokio::test]
async fn stored_rows_hold_vaults_ciphertext_and_no_key() {
    let fixture = Fixture::new().await;
    fixture.vaulted().tenant(&acme()).await.unwrap();
    let row = fixture.row().await;
    assert_eq!(row[0], 2);
    assert_eq!(row[1..5], fixture.vault("heddle").number().to_be_bytes());
    assert!(row[5..].starts_with(b"vault:v1:"));
}

#[tokio::test]
async fn a_wrapped_key_that_was_moved_does_not_open_whether_vault_derives_or_not() {
    let fixture = Fixture::new().await;
    fixture.transit.make("plain", false);
    for name in ["heddle", "plain"] {
        let vault = fixture.vault(name);
        let wrapped = vault.wrap(PLACE, &[7; 32]).await.unwrap();
        assert_eq!(vault.open(PLACE, &wrapped).await.unwrap().to_vec(), [7; 32]);
        let moved = vault.open(b"elsewhere", &wrapped).await;
        assert!(matches!(moved, Err(KeysError::Unreadable { .. })), "{name}: {moved:?}");
        let renewed = vault.renew(PLACE, &wrapped).await.unwrap();
        assert_eq!(renewed, None, "{name}: it is wrapped by the newest version");
    }
}

#[tokio::test]
async fn a_new_version_rewraps_without_the_plain_key_passing_through() {
    let fixture = Fixture::new().await;
    let keys = fixture.vaulted();
    let sealed = sealed_by(&*keys.tenant(&acme()).await.unwrap());
    keys.masters().present().new_version().await.unwrap();
    let (encrypts, decrypts) = (fixture.transit.calls("encrypt"), fixture.transit.calls("decrypt"));
    assert_eq!(keys.rewrap_tenant(&acme()).await.unwrap(), Rewrapped::Done);
    assert_eq!(keys.rewrap_tenant(&acme()).await.unwrap(), Rewrapped::Already);
    assert_eq!(keys.rewrap_check().await.unwrap(), Rewrapped::Done);
    assert_eq!((encrypts, decrypts), (fixture.transit.calls("encrypt"), fixture.transit.calls("decrypt")));
    assert!(fixture.row().await[5..].starts_with(b"vault:v2:"));
    let number = fixture.vault("heddle").number();
    assert_eq!(
        keys.tenant_wrapped_by(&acme()).await.unwrap(),
        WrappedBy::Master { number, version: Some(2) }
    );
    // The old version may go: everything opens without it.
    fixture.transit.set_min_decryption("heddle", 2);
    assert_eq!(fixture.vaulted().tenant(&acme()).await.unwrap().open(PLACE, &sealed).unwrap(), b"hello");
}

#[tokio::test]
async fn a_version_retired_too_early_is_reported_with_its_remedy() {
    let fixture = Fixture::new().await;
    let keys = fixture.vaulted();
    keys.tenant(&acme()).await.unwrap();
    keys.masters().present().new_version().await.unwrap();
    fixture.transit.set_min_decryption("heddle", 2);
    let text = master(fixture.vaulted().tenant(&acme()).await.unwrap_err());
    assert!(text.contains("min_decryption_version") && text.contains("heddle keys rotate"), "{text}");
}

#[tokio::test]
async fn tenants_move_from_a_file_into_vault_and_back() {
    let fixture = Fixture::new().await;
    let before =
        EnvelopeKeys::new(fixture.store.clone(), fixture.clock.clone(), &local(1), Options::default());
    let sealed = sealed_by(&*before.tenant(&acme()).await.unwrap());
    let into = |present: Arc<dyn Wrapper>, previous: Vec<Arc<dyn Wrapper>>| {
        fixture.keys(Masters::new(present, previous).unwrap())
    };
    let vaulted = into(Arc::new(fixture.vault("heddle")), vec![local_wrapper(1)]);
    assert_eq!(vaulted.tenant(&acme()).await.unwrap().open(PLACE, &sealed).unwrap(), b"hello");
    assert_eq!(vaulted.rewrap_tenant(&acme()).await.unwrap(), Rewrapped::Done);
    assert_eq!(vaulted.rewrap_check().await.unwrap(), Rewrapped::Done);
    let alone = fixture.vaulted();
    assert_eq!(alone.tenant(&acme()).await.unwrap().open(PLACE, &sealed).unwrap(), b"hello");
    let text = master(before_again(&fixture).verify_master().await.unwrap_err());
    assert!(text.contains("Vault's key") && text.contains("keys.former"), "{text}");

    let back = into(local_wrapper(2), vec![Arc::new(fixture.vault("heddle"))]);
    assert_eq!(back.rewrap_tenant(&acme()).await.unwrap(), Rewrapped::Done);
    assert_eq!(back.rewrap_check().await.unwrap(), Rewrapped::Done);
    let after =
        EnvelopeKeys::new(fixture.store.clone(), fixture.clock.clone(), &local(2), Options::default());
    assert_eq!(after.tenant(&acme()).await.unwrap().open(PLACE, &sealed).unwrap(), b"hello");
}

fn before_again(fixture: &Fixture) -> EnvelopeKeys {
    EnvelopeKeys::new(fixture.store.clone(), fixture.clock.clone(), &local(1), Options::default())
}

#[tokio::test]
async fn each_fault_of_vault_is_reported_as_such_and_nothing_is_written() {
    let fixture = Fixture::new().await;
    let tried = async || fixture.vaulted().tenant(&acme()).await.unwrap_err();

    *fixture.token.lock().unwrap() = "hvs.wrong".into();
    let text = master(tried().await);
    assert!(text.contains("refuses the token") && text.contains("403, permission denied"), "{text}");
    assert!(!text.contains("hvs.wrong"), "a token is not repeated");
    *fixture.token.lock().unwrap() = TOKEN.into();

    fixture.transit.seal(true);
    let text = unavailable(tried().await);
    assert!(text.contains("sealed") && text.contains("unseal"), "{text}");
    fixture.transit.seal(false);

    fixture.transit.remove("heddle");
    let text = master(tried().await);
    assert!(text.contains("vault write -f transit/keys/heddle derived=true"), "{text}");

    fixture.transit.make_signing("heddle");
    let text = master(tried().await);
    assert!(text.contains("does not encrypt"), "{text}");
    fixture.transit.remove("heddle");
    fixture.transit.make("heddle", true);

    fixture.transit.stop().await;
    let text = unavailable(tried().await);
    assert!(text.contains("http://127.0.0.1") && text.contains("no connection"), "{text}");
    fixture.transit.resume().await;

    assert_eq!(fixture.store.get(&Key::tenant_key(&acme())).await.unwrap(), None);
    fixture.vaulted().tenant(&acme()).await.unwrap();
    assert!(fixture.metric("read", "unavailable") >= 2.0 && fixture.metric("read", "refused") >= 2.0);
}

#[tokio::test]
async fn a_node_goes_on_with_the_keys_it_holds_while_vault_is_away_and_takes_no_new_tenants() {
    let fixture = Fixture::new().await;
    let keys = fixture.vaulted();
    let sealed = sealed_by(&*keys.tenant(&acme()).await.unwrap());
    fixture.transit.stop().await;
    for _ in 0..30 {
        fixture.minute();
        assert_eq!(keys.tenant(&acme()).await.unwrap().open(PLACE, &sealed).unwrap(), b"hello");
    }
    unavailable(keys.tenant(&"new".parse().unwrap()).await.unwrap_err());
    // The background check fails.
    let failure = async {
        while fixture.metric("decrypt", "unavailable") < 1.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failure).await.unwrap();
    keys.tenant(&acme()).await.unwrap();
    fixture.transit.resume().await;
    keys.tenant(&"new".parse().unwrap()).await.unwrap();
}

#[tokio::test]
async fn vault_is_not_called_again_every_minute() {
    let fixture = Fixture::new().await;
    let keys = fixture.vaulted();
    keys.tenant(&acme()).await.unwrap();
    let calls = fixture.transit.calls("decrypt");
    for _ in 0..9 {
        fixture.minute();
        keys.tenant(&acme()).await.unwrap();
    }
    assert_eq!(fixture.transit.calls("decrypt"), calls);
}

#[tokio::test]
async fn an_erasure_is_seen_also_while_vault_is_away() {
    let fixture = Fixture::new().await;
    let (keys, elsewhere) = (fixture.vaulted(), fixture.vaulted());
    keys.tenant(&acme()).await.unwrap();
    fixture.transit.stop().await;
    elsewhere.erase_tenant(&acme()).await.unwrap();
    fixture.minute();
    assert!(matches!(keys.tenant(&acme()).await, Err(KeysError::Gone { .. })));
}

#[tokio::test]
async fn a_token_that_is_revoked_stops_a_running_node_within_the_stated_time() {
    let fixture = Fixture::new().await;
    let keys = fixture.vaulted();
    keys.tenant(&acme()).await.unwrap();
    fixture.transit.set_token("hvs.other");
    fixture.clock.advance(Options::default().ask_again);
    // This call starts the background check and still has the key.
    keys.tenant(&acme()).await.unwrap();
    let refused = async {
        loop {
            fixture.minute();
            match keys.tenant(&acme()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return error,
            }
        }
    };
    let text = master(tokio::time::timeout(Duration::from_secs(20), refused).await.unwrap());
    assert!(text.contains("refuses the token"), "{text}");
    // A renewed one is used at once.
    *fixture.token.lock().unwrap() = "hvs.other".into();
    keys.tenant(&acme()).await.unwrap();
}

#[tokio::test]
async fn nothing_that_is_printed_holds_the_token() {
    let fixture = Fixture::new().await;
    let printed = format!("{:?} {:?}", fixture.vault("heddle"), fixture.vaulted());
    assert!(!printed.contains(TOKEN) && printed.contains("transit/keys/heddle"), "{printed}");
}
