//! Audiences: imports, consents that come with a list, erasure and deletion.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use heddle_actors::audience::import::{Claim, Import, Row};
use heddle_actors::audience::{self, AudienceError, Position};
use heddle_actors::intake::consent;
use heddle_actors::intake::identity::Identity;
use heddle_actors::ports::Ports;
use heddle_actors::privacy::erasure;
use heddle_schemas::audience::{AudienceId, ImportCounts, Member};
use heddle_schemas::consent::{Category, How, Says, Standing};
use heddle_schemas::content::Address;
use heddle_schemas::id::{ChannelKind, ContactId, MessageKey};
use heddle_schemas::ports::clock::Clock as _;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;
use heddle_testing::{Site, SiteBuilder, TenantBuilder};

const ANN: &str = "+4915700000001";
const BOB: &str = "+4915700000002";

fn tenant(name: &str, account: &str) -> Tenant {
    TenantBuilder::new(name).account(account).build()
}

fn acme() -> Tenant {
    tenant("acme", "1")
}

fn newsletter() -> AudienceId {
    "newsletter".parse().unwrap()
}

fn ports(site: &Site) -> Ports {
    site.with(|node| node.ports.clone())
}

fn row(phone: &str, city: &str) -> Row {
    let values = BTreeMap::from([("city".to_owned(), city.to_owned())]);
    Row { member: Member { phone: phone.to_owned(), values }, consent: None }
}

fn agreed(phone: &str, at: Timestamp) -> Row {
    let how = Some("web form".to_owned());
    let claim = Claim { says: Says::Give, purposes: vec![Category::Marketing], at, how };
    Row { consent: Some(claim), ..row(phone, "Ulm") }
}

async fn import(site: &Site, tenant: &Tenant, rows: Vec<Row>) -> ImportCounts {
    let identity = Arc::new(Identity::new(ports(site)));
    let mut import = Import::begin(ports(site), identity, tenant.id.clone(), newsletter()).await.unwrap();
    import.apply(rows).await.unwrap();
    import.finish(["city".to_owned()], Some("DE".to_owned())).await.unwrap()
}

async fn members(site: &Site, tenant: &Tenant) -> BTreeMap<String, String> {
    let (mut found, mut at) = (BTreeMap::new(), Some(Position::START));
    while let Some(position) = at {
        let page = audience::members(&ports(site), &tenant.id, &newsletter(), &position).await.unwrap();
        found.extend(page.0.into_iter().map(|(_, member)| (member.phone, member.values["city"].clone())));
        at = page.1;
    }
    found
}

async fn contact(site: &Site, phone: &str) -> ContactId {
    let address = Address { phone: Some(phone.trim_start_matches('+').to_owned()), ..Address::default() };
    let identity = Identity::new(ports(site));
    identity.find(&acme().id, ChannelKind::Whatsapp, &address).await.unwrap().unwrap().contact
}

async fn stop(site: &Site, contact: ContactId, at: Timestamp) {
    let ports = ports(site);
    let cipher = ports.keys.tenant(&acme().id).await.unwrap();
    let statement = consent::Statement {
        says: Says::Stop,
        categories: vec![Category::Marketing],
        at,
        how: How::Word,
        key: MessageKey::from_bytes([8; 16]),
        text: None,
    };
    consent::record(&ports, &acme().id, &*cipher, contact, &statement).await.unwrap();
}

async fn standing(site: &Site, contact: ContactId) -> Standing {
    consent::standing(&ports(site), &acme().id, contact, Category::Marketing).await.unwrap()
}

async fn erase(site: &Site, contact: ContactId) {
    let accounts = acme().channels.into_iter().map(|channel| (channel.kind, channel.account));
    let asked = erasure::ask(&ports(site), &acme().id, accounts, contact).await.unwrap();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let found = erasure::find(&ports(site), &acme().id, asked.id).await.unwrap().unwrap();
        if found.is_complete() {
            tokio::time::sleep(Duration::from_secs(600)).await;
            return;
        }
    }
    panic!("{asked:?} is not complete");
}

async fn start(tenants: &[Tenant]) -> Site {
    SiteBuilder::default().start(tenants).await
}

#[tokio::test(start_paused = true)]
async fn the_same_list_again_changes_nothing_and_another_one_changes_what_differs() {
    let site = start(&[acme()]).await;
    let list = || vec![row(ANN, "Ulm"), row(BOB, "Bonn"), row(ANN, "Kiel")];
    let first = import(&site, &acme(), list()).await;
    assert_eq!((first.added, first.duplicates), (2, 1), "one person twice: the first row counts");
    let again = import(&site, &acme(), list()).await;
    assert_eq!((again.added, again.changed, again.unchanged, again.duplicates), (0, 0, 2, 1));
    let other = import(&site, &acme(), vec![row(BOB, "Trier")]).await;
    assert_eq!((other.added, other.changed), (0, 1));
    let expected = BTreeMap::from([(ANN.to_owned(), "Ulm".to_owned()), (BOB.to_owned(), "Trier".to_owned())]);
    assert_eq!(members(&site, &acme()).await, expected);
    assert_eq!(audience::count(&ports(&site), &acme().id, &newsletter()).await.unwrap(), 2);
    let head = audience::find(&ports(&site), &acme().id, &newsletter()).await.unwrap().unwrap();
    assert_eq!((head.columns.len(), head.country.as_deref()), (1, Some("DE")));
}

#[tokio::test(start_paused = true)]
async fn an_imported_consent_never_beats_a_later_opt_out() {
    let site = start(&[acme()]).await;
    let now = site.clock.now();
    let before = Timestamp::from_micros(now.as_micros() - 1_000_000);
    let first = import(&site, &acme(), vec![agreed(ANN, before)]).await;
    assert_eq!((first.consents, first.suppressed), (1, 0));
    let ann = contact(&site, ANN).await;
    assert_eq!(standing(&site, ann).await, Standing::Given);
    stop(&site, ann, now).await;
    let again = import(&site, &acme(), vec![agreed(ANN, before)]).await;
    assert_eq!((again.unchanged, again.consents, again.suppressed), (1, 0, 1));
    assert_eq!(standing(&site, ann).await, Standing::Stopped);
}

#[tokio::test(start_paused = true)]
async fn an_erased_person_leaves_every_audience_and_is_not_brought_back_by_the_same_list() {
    let site = start(&[acme()]).await;
    let before = site.clock.now();
    import(&site, &acme(), vec![agreed(ANN, before), row(BOB, "Bonn")]).await;
    let ann = contact(&site, ANN).await;
    erase(&site, ann).await;
    assert_eq!(members(&site, &acme()).await.into_keys().collect::<Vec<_>>(), [BOB]);
    assert_eq!(audience::of_contact(&ports(&site), &acme().id, ann).await.unwrap(), BTreeMap::new());
    let again = import(&site, &acme(), vec![agreed(ANN, before), row(BOB, "Bonn")]).await;
    assert_eq!((again.erased, again.unchanged, again.added), (1, 1, 0));
    assert_eq!(audience::count(&ports(&site), &acme().id, &newsletter()).await.unwrap(), 1);
    let later = import(&site, &acme(), vec![agreed(ANN, site.clock.now())]).await;
    assert_eq!((later.erased, later.added), (0, 1), "a person may agree again");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_audience_takes_its_members_and_no_one_elses() {
    let globex = tenant("globex", "2");
    let site = start(&[acme(), globex.clone()]).await;
    for tenant in [acme(), globex.clone()] {
        import(&site, &tenant, vec![row(ANN, "Ulm"), row(BOB, "Bonn")]).await;
    }
    assert_eq!(audience::delete(&ports(&site), &acme().id, &newsletter()).await.unwrap(), 2);
    assert_eq!(members(&site, &acme()).await, BTreeMap::new());
    assert_eq!(members(&site, &globex).await.len(), 2);
    let again = audience::delete(&ports(&site), &acme().id, &newsletter()).await;
    assert!(matches!(again, Err(AudienceError::Unknown(_))));
}

#[tokio::test(start_paused = true)]
async fn an_import_into_an_audience_that_was_deleted_meanwhile_leaves_nothing() {
    let site = start(&[acme()]).await;
    let identity = Arc::new(Identity::new(ports(&site)));
    let begun = Import::begin(ports(&site), identity, acme().id, newsletter()).await;
    let mut import = begun.unwrap();
    import.apply(vec![row(ANN, "Ulm")]).await.unwrap();
    audience::delete(&ports(&site), &acme().id, &newsletter()).await.unwrap();
    assert!(matches!(import.apply(vec![row(BOB, "Bonn")]).await, Err(AudienceError::Unknown(_))));
    assert_eq!(audience::count(&ports(&site), &acme().id, &newsletter()).await.unwrap(), 0);
}
