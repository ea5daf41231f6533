//! A rotation loses no key, at whatever step it is interrupted and whatever is done meanwhile.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use heddle_schemas::id::ContactId;
use heddle_schemas::ports::keys::{Keys as _, Missing};
use heddle_schemas::ports::state::State as _;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::time::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::{LocalMaster, MasterKey, Masters, Options, SystemEntropy, Wrapper};
use heddle_memory::{self as memory, Fault, ManualClock, MemoryDisk, MemoryStore, Operation, Outcome};

const PLACE: &[u8] = b"place";
const ANN: ContactId = ContactId::from_bytes([1; 16]);

fn master(byte: u8) -> Arc<dyn Wrapper> {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
    let key = MasterKey::from_base64(&key).unwrap();
    Arc::new(LocalMaster::new(format!("file:{byte}"), &key, Arc::new(SystemEntropy)))
}

fn tenant(number: usize) -> TenantId {
    format!("t{number}").parse().unwrap()
}

type Faults = Arc<dyn Fn(Operation) -> Fault + Send + Sync>;

/// Store with injected faults, used by several nodes.
struct Fixture {
    store: Arc<MemoryStore>,
    clock: Arc<ManualClock>,
    faults: Arc<Mutex<Faults>>,
}

impl Fixture {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_000)));
        let faults: Arc<Mutex<Faults>> = Arc::new(Mutex::new(Arc::new(|_| Fault::NONE)));
        let asked = faults.clone();
        let options = memory::Options {
            faults: Arc::new(move |operation| {
                let faults = asked.lock().unwrap().clone();
                faults(operation)
            }),
            ..Default::default()
        };
        let disk = MemoryDisk::new(NonZeroU32::MIN);
        let store = Arc::new(MemoryStore::open_with(disk, clock.clone(), options));
        Self { store, clock, faults }
    }

    /// Creates a node that knows these keys, with an empty cache.
    fn keys(&self, present: u8, previous: &[u8]) -> EnvelopeKeys {
        let previous = previous.iter().map(|byte| master(*byte)).collect();
        let masters = Masters::new(master(present), previous).unwrap();
        EnvelopeKeys::with_masters(self.store.clone(), self.clock.clone(), masters, Options::default())
    }

    /// From now on it fails like this.
    fn fail(&self, faults: impl Fn(Operation) -> Fault + Send + Sync + 'static) {
        *self.faults.lock().unwrap() = Arc::new(faults);
    }

    /// Makes a tenant with a contact, and seals something by each of its keys.
    async fn sealed(&self, keys: &EnvelopeKeys, tenant: &TenantId) -> [Sealed; 2] {
        let contact = keys.contact(tenant, ANN, Missing::Create).await.unwrap();
        [keys.tenant(tenant).await.unwrap().seal(PLACE, b"hello"), contact.seal(PLACE, b"hello")]
    }

    async fn assert_opens(&self, keys: &EnvelopeKeys, tenant: &TenantId, sealed: &[Sealed; 2]) {
        assert_eq!(keys.tenant(tenant).await.unwrap().open(PLACE, &sealed[0]).unwrap(), b"hello");
        let contact = keys.contact(tenant, ANN, Missing::Fail).await.unwrap();
        assert_eq!(contact.open(PLACE, &sealed[1]).unwrap(), b"hello");
    }
}

/// Rewraps everything; the row by which the store knows its master key last.
async fn rotate(keys: &EnvelopeKeys, tenants: usize) -> Result<(), KeysError> {
    for number in 0..tenants {
        keys.rewrap_tenant(&tenant(number)).await?;
    }
    keys.rewrap_check().await.map(drop)
}

#[tokio::test]
async fn after_a_rotation_the_previous_key_is_not_needed_and_does_not_suffice() {
    let fixture = Fixture::new();
    let before = fixture.keys(1, &[]);
    let sealed = fixture.sealed(&before, &tenant(0)).await;
    let keys = fixture.keys(2, &[1]);
    fixture.assert_opens(&keys, &tenant(0), &sealed).await;
    let early = fixture.keys(2, &[]).verify_master().await.unwrap_err().to_string();
    assert!(early.contains("keys.former") && early.contains("set keys.master"), "{early}");
    assert_eq!(keys.rewrap_tenant(&tenant(0)).await.unwrap(), Rewrapped::Done);
    let still = fixture.keys(2, &[]).verify_master().await;
    assert!(matches!(still, Err(KeysError::Master { .. })), "the rotation is not at its end: {still:?}");
    assert_eq!(keys.rewrap_check().await.unwrap(), Rewrapped::Done);
    let number = master(2).number();
    for by in [keys.tenant_wrapped_by(&tenant(0)).await, keys.check_wrapped_by().await] {
        assert_eq!(by.unwrap(), WrappedBy::Master { number, version: None });
    }
    fixture.assert_opens(&fixture.keys(2, &[]), &tenant(0), &sealed).await;
    assert!(matches!(fixture.keys(1, &[]).tenant(&tenant(0)).await, Err(KeysError::Master { .. })));
    // A node that holds the opened key continues without reading the row.
    fixture.assert_opens(&before, &tenant(0), &sealed).await;
}

#[tokio::test]
async fn rotating_again_finds_it_done_and_leaves_the_erased_and_the_missing() {
    let fixture = Fixture::new();
    let keys = fixture.keys(1, &[]);
    fixture.sealed(&keys, &tenant(0)).await;
    keys.tenant(&tenant(1)).await.unwrap();
    keys.erase_tenant(&tenant(1)).await.unwrap();
    let keys = fixture.keys(2, &[1]);
    for expected in [Rewrapped::Done, Rewrapped::Already] {
        assert_eq!(keys.rewrap_tenant(&tenant(0)).await.unwrap(), expected);
        assert_eq!(keys.rewrap_tenant(&tenant(1)).await.unwrap(), Rewrapped::Erased);
        assert_eq!(keys.rewrap_tenant(&tenant(2)).await.unwrap(), Rewrapped::Missing);
    }
    assert_eq!(keys.tenant_wrapped_by(&tenant(1)).await.unwrap(), WrappedBy::Erased);
    assert_eq!(keys.tenant_wrapped_by(&tenant(2)).await.unwrap(), WrappedBy::Missing, "asking makes none");
}

#[tokio::test]
async fn the_same_key_twice_is_refused() {
    let same = Masters::new(master(1), vec![master(2), master(1)]).unwrap_err();
    assert!(same.to_string().contains("the same master key"), "{same}");
}

#[tokio::test]
async fn a_rotation_broken_off_at_each_step_of_the_store_loses_nothing_and_is_finished_by_the_next() {
    const TENANTS: usize = 3;
    for outcome in [Outcome::FailsBefore, Outcome::FailsAfter, Outcome::Full] {
        let mut broken = 0;
        for at in 0.. {
            let fixture = Fixture::new();
            let before = fixture.keys(1, &[]);
            let mut sealed = Vec::new();
            for number in 0..TENANTS {
                sealed.push(fixture.sealed(&before, &tenant(number)).await);
            }
            let steps = AtomicU32::new(0);
            fixture.fail(move |_| match steps.fetch_add(1, Ordering::Relaxed) {
                step if step == at => Fault::outcome(outcome),
                _ => Fault::NONE,
            });
            let rotated = rotate(&fixture.keys(2, &[1]), TENANTS).await;
            fixture.fail(|_| Fault::NONE);
            for (number, sealed) in sealed.iter().enumerate() {
                fixture.assert_opens(&fixture.keys(2, &[1]), &tenant(number), sealed).await;
            }
            rotate(&fixture.keys(2, &[1]), TENANTS).await.unwrap();
            for (number, sealed) in sealed.iter().enumerate() {
                fixture.assert_opens(&fixture.keys(2, &[]), &tenant(number), sealed).await;
            }
            broken += usize::from(rotated.is_err());
            // A fault beyond the last step has no effect.
            if at > 4 * u32::try_from(TENANTS).unwrap() {
                assert!(rotated.is_ok());
                break;
            }
        }
        // A row is read and then written; `Full` is for writes only.
        let writes = TENANTS + 1;
        let expected = if outcome == Outcome::Full { writes } else { 2 * writes + 1 };
        assert_eq!(broken, expected, "{outcome:?}");
    }
}

/// Operation on tenants during the rotation of the master key.
#[derive(Debug, Clone, Copy)]
enum Meanwhile {
    Uses(usize),
    Erases(usize),
    Rotates,
    /// By a node that still wraps by the previous key, but knows the new one.
    UsesByPrevious(usize),
    Restarts,
}

fn meanwhile() -> impl Strategy<Value = Meanwhile> {
    const TENANTS: usize = 4;
    prop_oneof![
        4 => (0..TENANTS).prop_map(Meanwhile::Uses),
        1 => (0..TENANTS).prop_map(Meanwhile::Erases),
        4 => Just(Meanwhile::Rotates),
        3 => (0..TENANTS).prop_map(Meanwhile::UsesByPrevious),
        1 => Just(Meanwhile::Restarts),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// Tenants are created, used and erased by two nodes at once, over a store that is slow by turns and fails
    /// before or after it has written, while two rotations run. What opened once opens until it is erased;
    /// what is erased stays so; and after one undisturbed rotation the previous key is not needed.
    #[test]
    fn a_concurrent_rotation_loses_no_key_and_revives_no_erased_one(
        actions in proptest::collection::vec((meanwhile(), 0_u64..40), 1..30),
        faults in proptest::collection::vec((0_u64..12, 0_u8..20), 16),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(race(actions, faults));
    }
}

async fn race(actions: Vec<(Meanwhile, u64)>, faults: Vec<(u64, u8)>) {
    let fixture = Fixture::new();
    fixture.keys(1, &[]).verify_master().await.unwrap();
    let steps = AtomicU32::new(0);
    fixture.fail(move |operation| {
        let step = steps.fetch_add(1, Ordering::Relaxed) as usize;
        let (delay, outcome) = faults[(step + operation as usize) % faults.len()];
        let half = Duration::from_millis(delay);
        let outcome = match outcome {
            0 => Outcome::FailsBefore,
            1 => Outcome::FailsAfter,
            _ => Outcome::Works,
        };
        Fault { before: half, after: half, outcome }
    });
    let (mut new, old) = (Arc::new(fixture.keys(2, &[1])), Arc::new(fixture.keys(1, &[2])));
    let made: Arc<Mutex<Vec<(usize, Sealed)>>> = Arc::default();
    let erased: Arc<Mutex<std::collections::BTreeSet<usize>>> = Arc::default();
    let mut running = Vec::new();
    for (action, pause) in actions {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match action {
            Meanwhile::Uses(number) | Meanwhile::UsesByPrevious(number) => {
                let node = if matches!(action, Meanwhile::Uses(_)) { new.clone() } else { old.clone() };
                let made = made.clone();
                running.push(tokio::spawn(async move {
                    if let Ok(keys) = node.tenant(&tenant(number)).await {
                        made.lock().unwrap().push((number, keys.seal(PLACE, b"hello")));
                    }
                }));
            }
            Meanwhile::Erases(number) => {
                let (node, erased) = (new.clone(), erased.clone());
                running.push(tokio::spawn(async move {
                    let mut tries = 0;
                    while node.erase_tenant(&tenant(number)).await.is_err() {
                        tries += 1;
                        assert!(tries < 1_000, "a store that always fails tests nothing");
                    }
                    erased.lock().unwrap().insert(number);
                }));
            }
            Meanwhile::Rotates => {
                let node = new.clone();
                running.push(tokio::spawn(async move {
                    for number in 0..4 {
                        // A failed row is left to the next rotation.
                        let _ = node.rewrap_tenant(&tenant(number)).await;
                    }
                    let _ = node.rewrap_check().await;
                }));
            }
            Meanwhile::Restarts => new = Arc::new(fixture.keys(2, &[1])),
        }
    }
    for one in running {
        one.await.unwrap();
    }
    fixture.fail(|_| Fault::NONE);
    let keys = fixture.keys(2, &[1]);
    rotate(&keys, 4).await.unwrap();
    let keys = fixture.keys(2, &[]);
    keys.verify_master().await.unwrap();
    let erased = erased.lock().unwrap().clone();
    for number in &erased {
        let gone = keys.tenant(&tenant(*number)).await;
        assert!(matches!(gone, Err(KeysError::Gone { .. })), "{number}: {gone:?}");
    }
    let made = made.lock().unwrap().clone();
    for (number, sealed) in made.iter().filter(|(number, _)| !erased.contains(number)) {
        assert_eq!(keys.tenant(&tenant(*number)).await.unwrap().open(PLACE, sealed).unwrap(), b"hello");
    }
}

#[tokio::test]
async fn a_store_from_before_rotation_opens() {
    // The layout as it was documented, computed by another implementation of HKDF and AES-GCM (Python's hmac and
    // cryptography): under the master key of 32 times 0x01 the check row and the key of tenant `acme`, which had
    // sealed `hello` at `place`.
    let fixture = Fixture::new();
    for (row, value) in
        [(Key::master_check(), BEFORE_CHECK), (Key::tenant_key(&"acme".parse().unwrap()), BEFORE_TENANT)]
    {
        let value = hex::decode(value).unwrap().into();
        assert_eq!(fixture.store.compare_and_set(&row, None, Some(value), None).await.unwrap(), Swap::Done);
    }
    let sealed = Sealed::from_bytes(hex::decode(BEFORE_SEALED).unwrap());
    let acme = "acme".parse().unwrap();
    for keys in [fixture.keys(1, &[]), fixture.keys(2, &[1])] {
        assert_eq!(keys.tenant(&acme).await.unwrap().open(PLACE, &sealed).unwrap(), b"hello");
    }
}

const BEFORE_CHECK: &str = "01d90bbb0f000102030405060708090a0bbbd40d80499fe21c6307bae4cbf80bce18dbaff2c194f831f41bc8a4\
     30ce08965e";
const BEFORE_TENANT: &str = "01d90bbb0f0c0d0e0f10111213141516177d13b552e3b1f18cdb7f3f0076c5a29d25754104b6ebc17cece660d0\
     4a62e295f54abade22b26426049b2a46352e2ff8";
const BEFORE_SEALED: &str = "010000000118191a1b1c1d1e1f2021222327531c0e5ffcb2d4c6376210f42f83fda987abee6d";
