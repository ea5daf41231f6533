//! Contract of keys, over every store.

use std::sync::Arc;

use heddle_connectors::keys::vault::{self, Vault};
use heddle_connectors::keys::{EnvelopeKeys, MasterKey, Masters, Options};
use heddle_schemas::id::{AccountKey, ContactId, TenantId};
use heddle_schemas::ports::keys::{Cipher, ContactCipher, Keys, KeysError, Missing, aad};
use heddle_schemas::sealed::{Sealed, Secret};
use heddle_schemas::table::Key;
use heddle_schemas::time::{Day, Timestamp};

use crate::conformance::stores::{Fixture, Vaulted};

macro_rules! promises_of_keys {
    ($given:expr) => {
        crate::conformance::promises!(
            keys,
            $given,
            [
                a_sealed_value_opens_after_a_restart,
                a_ciphertext_moved_elsewhere_does_not_open,
                a_changed_ciphertext_does_not_open,
                the_same_text_is_never_sealed_alike,
                a_key_opens_nothing_of_another,
                a_log_ciphertext_names_its_day,
                tenants_and_domains_hash_apart,
                a_hash_is_the_same_after_a_restart,
                a_contact_without_a_key_gets_none_unasked,
                of_racing_makers_all_use_one_key,
                erasing_a_contact_is_at_once_and_for_good,
                a_contact_that_returns_gets_another_key,
                an_erasure_done_again_takes_nothing_that_came_after_it,
                a_disconnected_channels_credentials_never_open_again,
                a_channel_connected_again_gets_another_key_on_every_node,
                erasing_a_tenant_takes_every_key_below_it,
                an_erased_tenant_is_never_made_again,
                erasing_a_missing_owner_is_no_fault,
                another_master_key_is_refused,
                nothing_prints_a_key_or_a_text,
            ]
        );
    };
}
pub(crate) use promises_of_keys as promises;

const ANN: ContactId = ContactId::from_bytes([1; 16]);
const BEN: ContactId = ContactId::from_bytes([2; 16]);
const AT: Timestamp = Timestamp::from_secs(1_800_000_000);
const TODAY: Day = Day(20_454);
const PLACE: &[u8] = b"place";
const TEXT: &[u8] = b"I am allergic to nuts";

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn keys_under(fixture: &Fixture, master: &str) -> EnvelopeKeys {
    let master = MasterKey::from_base64(master).unwrap();
    let Some(Vaulted { transit, derived }) = &fixture.vault else {
        return EnvelopeKeys::new(fixture.state(), fixture.clock.clone(), &master, Options::default());
    };
    // Each master key has a counterpart in Vault.
    let name = format!("heddle-{:08x}", master.number());
    transit.make(&name, *derived);
    let token: vault::Token = Arc::new(|| Ok(Secret::new(heddle_connectors_testing::vault::TOKEN)));
    let calls = vault::Calls::register(&prometheus::Registry::new());
    let key = transit.key(&name).parse().unwrap();
    let vault = Vault::new(key, token, &vault::Options::default(), calls).unwrap();
    let masters = Masters::new(Arc::new(vault), Vec::new()).unwrap();
    EnvelopeKeys::with_masters(fixture.state(), fixture.clock.clone(), masters, Options::default())
}

fn keys(fixture: &Fixture) -> Arc<dyn Keys> {
    Arc::new(keys_under(fixture, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="))
}

async fn contact(keys: &dyn Keys, name: &str, contact: ContactId) -> Arc<dyn ContactCipher> {
    keys.contact(&tenant(name), contact, Missing::Create).await.unwrap()
}

fn is_gone<T: std::fmt::Debug>(result: Result<T, KeysError>) -> bool {
    matches!(result, Err(KeysError::Gone { .. }))
}

fn is_unreadable(opened: &Result<Vec<u8>, KeysError>) -> bool {
    matches!(opened, Err(KeysError::Unreadable { .. }))
}

pub(crate) async fn a_sealed_value_opens_after_a_restart(mut fixture: Fixture) {
    let acme = tenant("acme");
    let before = keys(&fixture);
    let by_tenant = before.tenant(&acme).await.unwrap().seal(PLACE, TEXT);
    let by_log = before.log(&acme, TODAY).await.unwrap().seal(PLACE, TEXT);
    let by_contact = contact(&*before, "acme", ANN).await.seal(PLACE, b"");
    drop(before);
    fixture.reopen().await;
    let after = keys(&fixture);
    assert_eq!(after.tenant(&acme).await.unwrap().open(PLACE, &by_tenant).unwrap(), TEXT);
    assert_eq!(after.log(&acme, TODAY).await.unwrap().open(PLACE, &by_log).unwrap(), TEXT);
    let ann = after.contact(&acme, ANN, Missing::Fail).await.unwrap();
    assert_eq!(ann.open(PLACE, &by_contact).unwrap(), b"");
}

pub(crate) async fn a_ciphertext_moved_elsewhere_does_not_open(fixture: Fixture) {
    let cipher = keys(&fixture).tenant(&tenant("acme")).await.unwrap();
    let place = |row: &str, column: &str| aad(&Key::document(&tenant("acme"), row), column);
    let sealed = cipher.seal(&place("row", "text"), TEXT);
    assert_eq!(cipher.open(&place("row", "text"), &sealed).unwrap(), TEXT);
    for elsewhere in [place("row", "title"), place("rov", "text"), place("rowt", "ext"), Vec::new()] {
        assert!(is_unreadable(&cipher.open(&elsewhere, &sealed)));
    }
}

pub(crate) async fn a_changed_ciphertext_does_not_open(fixture: Fixture) {
    let cipher = contact(&*keys(&fixture), "acme", ANN).await;
    let sealed = cipher.seal(PLACE, TEXT);
    for at in 0..sealed.as_bytes().len() {
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[at] ^= 1;
        assert!(is_unreadable(&cipher.open(PLACE, &Sealed::from_bytes(bytes))), "byte {at}");
        let cut = sealed.as_bytes()[..at].to_vec();
        assert!(is_unreadable(&cipher.open(PLACE, &Sealed::from_bytes(cut))), "cut at {at}");
    }
}

pub(crate) async fn the_same_text_is_never_sealed_alike(fixture: Fixture) {
    let cipher = contact(&*keys(&fixture), "acme", ANN).await;
    let (one, other) = (cipher.seal(PLACE, TEXT), cipher.seal(PLACE, TEXT));
    assert_ne!(one, other);
    assert!(!one.as_bytes().windows(4).any(|window| TEXT.windows(4).any(|text| text == window)));
}

pub(crate) async fn a_key_opens_nothing_of_another(fixture: Fixture) {
    let keys = keys(&fixture);
    let mut ciphers: Vec<Arc<dyn Cipher>> = Vec::new();
    for name in ["acme", "globex"] {
        ciphers.push(keys.tenant(&tenant(name)).await.unwrap());
        ciphers.push(keys.log(&tenant(name), Day(1)).await.unwrap());
        ciphers.push(keys.log(&tenant(name), TODAY).await.unwrap());
        ciphers.push(contact(&*keys, name, ANN).await);
        ciphers.push(contact(&*keys, name, BEN).await);
    }
    for (i, sealer) in ciphers.iter().enumerate() {
        let sealed = sealer.seal(PLACE, TEXT);
        for (j, opener) in ciphers.iter().enumerate() {
            let opened = opener.open(PLACE, &sealed);
            assert!(if i == j { opened.is_ok() } else { is_unreadable(&opened) }, "{sealer:?} {opener:?}");
        }
    }
}

pub(crate) async fn a_log_ciphertext_names_its_day(fixture: Fixture) {
    let cipher = keys(&fixture).log(&tenant("acme"), TODAY).await.unwrap();
    assert_eq!(cipher.seal(PLACE, TEXT).key_number(), Some(20_454));
}

pub(crate) async fn tenants_and_domains_hash_apart(fixture: Fixture) {
    let keys = keys(&fixture);
    let acme = keys.tenant(&tenant("acme")).await.unwrap();
    let globex = keys.tenant(&tenant("globex")).await.unwrap();
    let hash = acme.hash("alias", b"16505551234");
    assert_eq!(hash, acme.hash("alias", b"16505551234"));
    assert_ne!(hash, acme.hash("alias", b"16505551235"));
    assert_ne!(hash, acme.hash("message", b"16505551234"));
    assert_ne!(hash, globex.hash("alias", b"16505551234"));
}

pub(crate) async fn a_hash_is_the_same_after_a_restart(mut fixture: Fixture) {
    let hash = keys(&fixture).tenant(&tenant("acme")).await.unwrap().hash("alias", b"1");
    fixture.reopen().await;
    assert_eq!(keys(&fixture).tenant(&tenant("acme")).await.unwrap().hash("alias", b"1"), hash);
}

pub(crate) async fn a_contact_without_a_key_gets_none_unasked(fixture: Fixture) {
    let keys = keys(&fixture);
    assert!(is_gone(keys.contact(&tenant("acme"), ANN, Missing::Fail).await));
    assert!(is_gone(keys.contact(&tenant("acme"), ANN, Missing::Fail).await), "asking makes none");
    contact(&*keys, "acme", ANN).await;
    keys.contact(&tenant("acme"), ANN, Missing::Fail).await.unwrap();
    assert!(is_gone(keys.contact(&tenant("globex"), ANN, Missing::Fail).await));
}

pub(crate) async fn of_racing_makers_all_use_one_key(fixture: Fixture) {
    let makers: Vec<_> = (0..16)
        .map(|_| {
            let keys = keys(&fixture);
            tokio::spawn(async move { contact(&*keys, "acme", ANN).await })
        })
        .collect();
    let mut ciphers = Vec::new();
    for maker in makers {
        ciphers.push(maker.await.unwrap());
    }
    let sealed = ciphers[0].seal(PLACE, TEXT);
    for cipher in &ciphers {
        assert_eq!(cipher.open(PLACE, &sealed).unwrap(), TEXT);
    }
}

pub(crate) async fn erasing_a_contact_is_at_once_and_for_good(mut fixture: Fixture) {
    let keys = keys(&fixture);
    let (ann, ben) = (contact(&*keys, "acme", ANN).await, contact(&*keys, "acme", BEN).await);
    let sealed = ann.seal(PLACE, TEXT);
    keys.erase_contact(&tenant("acme"), ANN, AT).await.unwrap();
    assert!(is_gone(ann.open(PLACE, &sealed)), "a cipher handed out before is off");
    assert!(is_gone(keys.contact(&tenant("acme"), ANN, Missing::Fail).await));
    assert_eq!(ben.open(PLACE, &ben.seal(PLACE, TEXT)).unwrap(), TEXT, "others go on");
    drop(keys);
    fixture.reopen().await;
    assert!(is_gone(self::keys(&fixture).contact(&tenant("acme"), ANN, Missing::Fail).await));
}

pub(crate) async fn a_contact_that_returns_gets_another_key(fixture: Fixture) {
    let keys = keys(&fixture);
    let sealed = contact(&*keys, "acme", ANN).await.seal(PLACE, TEXT);
    keys.erase_contact(&tenant("acme"), ANN, AT).await.unwrap();
    let anew = contact(&*keys, "acme", ANN).await;
    assert!(is_unreadable(&anew.open(PLACE, &sealed)));
    assert_eq!(anew.open(PLACE, &anew.seal(PLACE, TEXT)).unwrap(), TEXT);
}

pub(crate) async fn an_erasure_done_again_takes_nothing_that_came_after_it(mut fixture: Fixture) {
    let keys = keys(&fixture);
    let before = contact(&*keys, "acme", ANN).await;
    assert_eq!(before.erased_at(), None);
    keys.erase_contact(&tenant("acme"), ANN, AT).await.unwrap();
    let anew = contact(&*keys, "acme", ANN).await;
    assert_eq!(anew.erased_at(), Some(AT), "so that older messages can be recognised");
    let sealed = anew.seal(PLACE, TEXT);
    keys.erase_contact(&tenant("acme"), ANN, AT).await.unwrap();
    assert_eq!(anew.open(PLACE, &sealed).unwrap(), TEXT);
    assert!(is_gone(before.open(PLACE, &before.seal(PLACE, TEXT))));
    drop(keys);
    fixture.reopen().await;
    let keys = self::keys(&fixture);
    keys.erase_contact(&tenant("acme"), ANN, AT).await.unwrap();
    let again = contact(&*keys, "acme", ANN).await;
    assert_eq!((again.open(PLACE, &sealed).unwrap().as_slice(), again.erased_at()), (TEXT, Some(AT)));
    let later = AT.after(std::time::Duration::from_secs(1));
    keys.erase_contact(&tenant("acme"), ANN, later).await.unwrap();
    assert!(is_gone(again.open(PLACE, &sealed)));
    assert_eq!(contact(&*keys, "acme", ANN).await.erased_at(), Some(later));
}

fn account(id: &str) -> AccountKey {
    id.parse().unwrap()
}

pub(crate) async fn a_disconnected_channels_credentials_never_open_again(mut fixture: Fixture) {
    let keys = keys(&fixture);
    let (one, other) = (account("acme/whatsapp/1001"), account("acme/whatsapp/1002"));
    assert!(is_gone(keys.channel(&one, Missing::Fail).await), "asking makes none");
    let cipher = keys.channel(&one, Missing::Create).await.unwrap();
    let sealed = cipher.seal(PLACE, TEXT);
    let kept = keys.channel(&other, Missing::Create).await.unwrap().seal(PLACE, TEXT);
    assert!(is_unreadable(&keys.channel(&other, Missing::Fail).await.unwrap().open(PLACE, &sealed)));
    keys.erase_channel(&one).await.unwrap();
    assert!(is_gone(cipher.open(PLACE, &sealed)), "a cipher handed out before is off");
    drop(keys);
    fixture.reopen().await;
    let keys = self::keys(&fixture);
    assert!(is_gone(keys.channel(&one, Missing::Fail).await));
    assert_eq!(keys.channel(&other, Missing::Fail).await.unwrap().open(PLACE, &kept).unwrap(), TEXT);
    keys.erase_channel(&one).await.unwrap();
}

pub(crate) async fn a_channel_connected_again_gets_another_key_on_every_node(fixture: Fixture) {
    let (here, there) = (keys(&fixture), keys(&fixture));
    let one = account("acme/whatsapp/1001");
    let sealed = here.channel(&one, Missing::Create).await.unwrap().seal(PLACE, TEXT);
    assert_eq!(there.channel(&one, Missing::Fail).await.unwrap().open(PLACE, &sealed).unwrap(), TEXT);
    here.erase_channel(&one).await.unwrap();
    assert!(
        is_gone(there.channel(&one, Missing::Fail).await),
        "no node goes on with what it has read before"
    );
    let anew = there.channel(&one, Missing::Create).await.unwrap();
    assert!(is_unreadable(&anew.open(PLACE, &sealed)));
    let sealed = anew.seal(PLACE, TEXT);
    assert_eq!(here.channel(&one, Missing::Fail).await.unwrap().open(PLACE, &sealed).unwrap(), TEXT);
}

pub(crate) async fn erasing_a_tenant_takes_every_key_below_it(mut fixture: Fixture) {
    let mut keys = keys(&fixture);
    let acme = tenant("acme");
    let held: [Arc<dyn Cipher>; 4] = [
        keys.tenant(&acme).await.unwrap(),
        keys.log(&acme, TODAY).await.unwrap(),
        keys.channel(&account("acme/whatsapp/1001"), Missing::Create).await.unwrap(),
        contact(&*keys, "acme", ANN).await,
    ];
    let sealed = held.each_ref().map(|cipher| cipher.seal(PLACE, TEXT));
    let other = contact(&*keys, "globex", ANN).await;
    keys.erase_tenant(&acme).await.unwrap();
    for (cipher, sealed) in held.iter().zip(&sealed) {
        assert!(is_gone(cipher.open(PLACE, sealed)), "{cipher:?}");
    }
    for _ in 0..2 {
        assert!(is_gone(keys.tenant(&acme).await));
        assert!(is_gone(keys.log(&acme, TODAY).await));
        assert!(is_gone(keys.contact(&acme, ANN, Missing::Fail).await));
        drop(keys);
        fixture.reopen().await;
        keys = self::keys(&fixture);
    }
    assert_eq!(other.open(PLACE, &other.seal(PLACE, TEXT)).unwrap(), TEXT, "other tenants go on");
}

pub(crate) async fn an_erased_tenant_is_never_made_again(fixture: Fixture) {
    let keys = keys(&fixture);
    keys.tenant(&tenant("acme")).await.unwrap();
    keys.erase_tenant(&tenant("acme")).await.unwrap();
    keys.erase_tenant(&tenant("acme")).await.unwrap();
    assert!(is_gone(keys.contact(&tenant("acme"), BEN, Missing::Create).await));
    assert!(is_gone(keys.tenant(&tenant("acme")).await));
}

pub(crate) async fn erasing_a_missing_owner_is_no_fault(fixture: Fixture) {
    let keys = keys(&fixture);
    keys.erase_contact(&tenant("acme"), ANN, AT).await.unwrap();
    keys.erase_tenant(&tenant("acme")).await.unwrap();
    assert!(is_gone(keys.tenant(&tenant("acme")).await));
}

pub(crate) async fn another_master_key_is_refused(fixture: Fixture) {
    keys(&fixture).tenant(&tenant("acme")).await.unwrap();
    let other = keys_under(&fixture, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let is_master = |error| matches!(error, KeysError::Master { .. });
    assert!(is_master(other.verify_master().await.unwrap_err()));
    assert!(is_master(other.tenant(&tenant("acme")).await.unwrap_err()));
    assert!(is_master(other.contact(&tenant("new"), ANN, Missing::Create).await.unwrap_err()));
    assert_eq!(fixture.state().get(&Key::tenant_key(&tenant("new"))).await.unwrap(), None);
    keys_under(&fixture, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").verify_master().await.unwrap();
}

pub(crate) async fn nothing_prints_a_key_or_a_text(fixture: Fixture) {
    let keys = keys(&fixture);
    let cipher = contact(&*keys, "acme", ANN).await;
    let sealed = cipher.seal(PLACE, TEXT);
    let error = cipher.open(b"elsewhere", &sealed).unwrap_err();
    let printed = format!("{cipher:?} {sealed:?} {error} {error:?}");
    let hidden =
        [hex::encode(TEXT), String::from_utf8(TEXT.to_vec()).unwrap(), hex::encode(sealed.as_bytes())];
    assert!(hidden.iter().all(|text| !printed.contains(text)), "{printed}");
}
