//! Guarantees of envelope encryption beyond the port's contract, which the conformance suite pins.

use std::num::NonZeroU32;

use heddle_schemas::ports::log::StoreError;
use heddle_schemas::time::Timestamp;

use super::*;
use crate::SeededEntropy;
use heddle_memory::{Fault, ManualClock, MemoryDisk, MemoryStore, Operation, Outcome};

const PLACE: &[u8] = b"place";
const AT: Timestamp = Timestamp::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

struct Fixture {
    disk: Arc<MemoryDisk>,
    clock: Arc<ManualClock>,
    store: Arc<MemoryStore>,
}

impl Fixture {
    fn new() -> Self {
        Self::with(|_| Fault::NONE)
    }

    fn with(faults: impl Fn(Operation) -> Fault + Send + Sync + 'static) -> Self {
        let disk = MemoryDisk::new(NonZeroU32::MIN);
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_000)));
        let options = heddle_memory::Options { faults: Arc::new(faults), ..Default::default() };
        let store = Arc::new(MemoryStore::open_with(disk.clone(), clock.clone(), options));
        Self { disk, clock, store }
    }

    fn keys(&self, master: u8) -> EnvelopeKeys {
        EnvelopeKeys::new(self.store.clone(), self.clock.clone(), &master_key(master), Options::default())
    }

    fn rows(&self) -> usize {
        self.disk.rows(Timestamp::EPOCH).len()
    }
}

fn master_key(byte: u8) -> MasterKey {
    use base64::Engine as _;
    MasterKey::from_base64(&base64::engine::general_purpose::STANDARD.encode([byte; 32])).unwrap()
}

fn acme() -> TenantId {
    "acme".parse().unwrap()
}

const ANN: ContactId = ContactId::from_bytes([1; 16]);

fn is_gone<T: fmt::Debug>(result: &Result<T, KeysError>) -> bool {
    matches!(result, Err(KeysError::Gone { .. }))
}

#[tokio::test]
async fn another_master_key_is_refused_with_its_remedy_and_writes_nothing() {
    let fixture = Fixture::new();
    fixture.keys(1).verify_master().await.unwrap();
    let other = fixture.keys(2);
    let error = other.verify_master().await.unwrap_err();
    assert!(matches!(error, KeysError::Master { .. }));
    let ids = [1, 2].map(|byte| format!("{:08x}", master_key(byte).number()));
    let text = error.to_string();
    assert!(text.contains("set keys.master") && ids.iter().all(|id| text.contains(id)), "{text}");
    let unverified = other.contact(&acme(), ANN, Missing::Create).await;
    assert!(matches!(unverified, Err(KeysError::Master { .. })), "without a check at the start, too");
    assert_eq!(fixture.rows(), 1, "the check row only");
}

#[tokio::test]
async fn a_key_wrapped_by_another_master_is_refused_also_without_a_check_row() {
    let fixture = Fixture::new();
    fixture.keys(1).tenant(&acme()).await.unwrap();
    let row = Key::master_check();
    let check = fixture.store.get(&row).await.unwrap();
    fixture.store.compare_and_set(&row, check, None, None).await.unwrap();
    let refused = fixture.keys(2).tenant(&acme()).await;
    assert!(matches!(refused, Err(KeysError::Master { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_wrapped_key_that_was_moved_or_changed_does_not_open() {
    let fixture = Fixture::new();
    let (keys, globex) = (fixture.keys(1), "globex".parse().unwrap());
    keys.tenant(&acme()).await.unwrap();
    let stored = fixture.store.get(&Key::tenant_key(&acme())).await.unwrap();
    fixture.store.compare_and_set(&Key::tenant_key(&globex), None, stored, None).await.unwrap();
    assert!(matches!(keys.tenant(&globex).await, Err(KeysError::Unreadable { .. })));
}

#[tokio::test]
async fn a_stored_key_carries_version_and_master_and_no_key_in_the_clear() {
    let fixture = Fixture::new();
    let keys = fixture.keys(1);
    keys.tenant(&acme()).await.unwrap();
    let stored = fixture.store.get(&Key::tenant_key(&acme())).await.unwrap().unwrap();
    assert_eq!(stored.len(), 1 + 4 + 12 + 32 + 16);
    assert_eq!(stored[0], 1);
    assert_eq!(stored[1..5], master_key(1).number().to_be_bytes());
}

#[tokio::test]
async fn a_key_erased_elsewhere_is_used_no_longer_than_the_cache_keeps_it() {
    let fixture = Fixture::new();
    let (here, elsewhere) = (fixture.keys(1), fixture.keys(1));
    here.contact(&acme(), ANN, Missing::Create).await.unwrap();
    elsewhere.erase_contact(&acme(), ANN, AT).await.unwrap();
    let last_moment = Options::default().cache_for - Duration::from_micros(1);
    fixture.clock.advance(last_moment);
    here.contact(&acme(), ANN, Missing::Fail).await.unwrap();
    fixture.clock.advance(Duration::from_micros(1));
    assert!(is_gone(&here.contact(&acme(), ANN, Missing::Fail).await));
}

#[tokio::test]
async fn an_erasure_reaches_ciphers_that_left_the_cache_long_ago() {
    let fixture = Fixture::new();
    let keys = fixture.keys(1);
    let held = keys.contact(&acme(), ANN, Missing::Create).await.unwrap();
    let sealed = held.seal(PLACE, b"hello");
    fixture.clock.advance(2 * Options::default().cache_for);
    keys.contact(&acme(), ANN, Missing::Fail).await.unwrap();
    keys.erase_contact(&acme(), ANN, AT).await.unwrap();
    assert!(is_gone(&held.open(PLACE, &sealed)));
}

#[tokio::test]
async fn an_erasure_with_unknown_outcome_is_finished_by_the_next_try() {
    let fixture = Fixture::with({
        let swaps = std::sync::atomic::AtomicU32::new(0);
        move |operation| match operation {
            // The check row, the tenant's key, the contact's key, and then the erasure.
            Operation::CompareAndSet if swaps.fetch_add(1, Ordering::Relaxed) == 3 => {
                Fault::outcome(Outcome::FailsAfter)
            }
            _ => Fault::NONE,
        }
    });
    let keys = fixture.keys(1);
    let held = keys.contact(&acme(), ANN, Missing::Create).await.unwrap();
    let sealed = held.seal(PLACE, b"hello");
    let erased = keys.erase_contact(&acme(), ANN, AT).await;
    assert!(matches!(erased, Err(KeysError::Store(StoreError::Unavailable { .. }))), "{erased:?}");
    assert!(is_gone(&keys.contact(&acme(), ANN, Missing::Fail).await), "the row is read again");
    keys.erase_contact(&acme(), ANN, AT).await.unwrap();
    assert!(is_gone(&held.open(PLACE, &sealed)));
}

#[tokio::test(start_paused = true)]
async fn a_load_during_an_erasure_gives_no_cipher_of_the_erased_key() {
    // The load reads the row at once and hears of it late; the erasure comes in between.
    let slow = Arc::new(AtomicBool::new(false));
    let fixture = Fixture::with({
        let slow = slow.clone();
        move |operation| match operation {
            Operation::Get if slow.load(Ordering::Relaxed) => Fault { after: SECOND, ..Fault::NONE },
            _ => Fault::NONE,
        }
    });
    let (keys, acme) = (fixture.keys(1), acme());
    keys.contact(&acme, ANN, Missing::Create).await.unwrap();
    fixture.clock.advance(Options::default().cache_for);
    slow.store(true, Ordering::Relaxed);
    let (loaded, erased) = tokio::join!(keys.contact(&acme, ANN, Missing::Fail), async {
        // The tenant's row takes the first second, the contact's the next.
        tokio::time::sleep(SECOND * 3 / 2).await;
        slow.store(false, Ordering::Relaxed);
        keys.erase_contact(&acme, ANN, AT).await
    });
    erased.unwrap();
    assert!(is_gone(&loaded), "{loaded:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_concurrent_creators_the_second_uses_the_first_ones_key() {
    let fixture = Fixture::with(|operation| match operation {
        Operation::Get => Fault { after: SECOND, ..Fault::NONE },
        _ => Fault::NONE,
    });
    let (one, other, acme) = (fixture.keys(1), fixture.keys(1), acme());
    let made =
        tokio::join!(one.contact(&acme, ANN, Missing::Create), other.contact(&acme, ANN, Missing::Create),);
    let sealed = made.0.unwrap().seal(PLACE, b"hello");
    assert_eq!(made.1.unwrap().open(PLACE, &sealed).unwrap(), b"hello");
    assert_eq!(fixture.rows(), 3, "check, tenant, contact");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_hashes() {
    let hash = async |seed| {
        let fixture = Fixture::new();
        let options = Options { entropy: Arc::new(SeededEntropy::new(seed)), ..Options::default() };
        let keys = EnvelopeKeys::new(fixture.store.clone(), fixture.clock.clone(), &master_key(1), options);
        keys.tenant(&acme()).await.unwrap().hash("alias", b"1")
    };
    assert_eq!(hash(7).await, hash(7).await);
    assert_ne!(hash(7).await, hash(8).await);
    let fixture = [Fixture::new(), Fixture::new()];
    let [one, other] = fixture.each_ref().map(|fixture| fixture.keys(1));
    let by_default = [one.tenant(&acme()).await.unwrap(), other.tenant(&acme()).await.unwrap()];
    assert_ne!(by_default[0].hash("alias", b"1"), by_default[1].hash("alias", b"1"));
}

#[tokio::test]
async fn a_failing_store_is_reported_as_such() {
    let fixture = Fixture::with(|_| Fault::outcome(Outcome::FailsBefore));
    let failed = fixture.keys(1).verify_master().await;
    assert!(matches!(failed, Err(KeysError::Store(StoreError::Unavailable { .. }))), "{failed:?}");
}
