//! Contacts by the names that people have for them.

use heddle_schemas::contact::ContactName;
use heddle_schemas::id::TenantId;

use crate::site::{Site, message, webhook};

#[tokio::test]
async fn a_contact_is_found_by_its_number_and_looking_for_one_makes_none() {
    let site = Site::with_acme().await;
    let administration = site.service.node.administration().await.unwrap();
    let acme: TenantId = "acme".parse().unwrap();
    let find = async |name: &str| {
        let name: ContactName = name.parse().unwrap();
        administration.contact(&acme, &name).await
    };
    assert!(find("+15551234").await.is_err(), "nobody of this number has written yet");
    let said = webhook(&[message("1001", "wamid.1", "hello")]);
    assert_eq!(site.post("1001", "s3cret", said).send().await.unwrap().status(), 200);
    let contact = find("+15551234").await.unwrap();
    for other in ["whatsapp:15551234", &contact.to_string()] {
        assert_eq!(find(other).await.unwrap(), contact, "{other}");
    }
    assert!(find("+15551235").await.is_err());
    assert!(find("whatsapp:US.15551234").await.is_err(), "a number is no user id");
}
