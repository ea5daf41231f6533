//! Keys read back, sort and say whose they are; descriptors agree with each other.

use super::*;
use crate::id::{
    AccountKey, CampaignId, Cause, ChunkId, ContactId, ConversationId, MessageKey, OutboundId, TenantId,
    TurnId,
};
use crate::time::Timestamp;
use crate::topic::{Topic, TopicPartition};

fn conversation(tenant: &str, contact: u8) -> ConversationId {
    ConversationId {
        tenant: tenant.parse().unwrap(),
        channel: crate::id::ChannelKind::Whatsapp,
        account: "1122".parse().unwrap(),
        contact: ContactId::from_bytes([contact; 16]),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "what stores do is tried here")]
fn a_key_reads_back_from_its_bytes() {
    let key = Key::history(&conversation("acme", 1), 7);
    let back = Key::from_bytes(key.as_bytes().clone()).unwrap();
    assert_eq!(back, key);
    assert_eq!(back.table(), Table::History);
    assert_eq!(back.row(), 7_u64.to_be_bytes());
    assert_eq!(back.partition(), Partition::history(&conversation("acme", 1)));
    assert_eq!(Key::stored(back.table(), back.tenant(), back.id(), back.row()), key);
}

#[test]
fn keys_begin_with_their_table_and_tenant() {
    let key = Key::history(&conversation("acme", 1), 7);
    let of = |tenant: &str| Table::History.prefix(Some(&tenant.parse().unwrap()));
    assert!(key.as_bytes().starts_with(&Table::History.prefix(None)));
    assert!(key.as_bytes().starts_with(&of("acme")));
    for other in ["acm", "acme1", "b"] {
        assert!(!key.as_bytes().starts_with(&of(other)), "{other}");
    }
}

#[test]
fn no_partition_begins_with_another() {
    let partitions = [
        Partition::history(&conversation("a", 1)),
        Partition::history(&conversation("a", 2)),
        Partition::history(&conversation("ab", 1)),
        Partition::deliveries(&conversation("a", 1)),
        Partition::documents(&"a".parse().unwrap()),
        Partition::documents(&"ab".parse().unwrap()),
    ];
    for (i, one) in partitions.iter().enumerate() {
        for (j, other) in partitions.iter().enumerate() {
            assert!(i == j || !other.as_bytes().starts_with(one.as_bytes()), "{one:?} {other:?}");
        }
    }
}

#[test]
fn a_key_says_what_it_was_made_of() {
    let of = conversation("acme", 7);
    let key = Key::history(&of, 1);
    assert_eq!((key.table(), key.tenant()), (Table::History, "acme"));
    let mut id = b"whatsapp/1122/".to_vec();
    id.extend([7; 16]);
    assert_eq!(key.id(), id);
    assert_eq!(key.of_agenda(), None);
    let partition = key.partition();
    assert_eq!((partition.table(), partition.tenant(), partition.id()), (Table::History, "acme", &*id));
    let document = Key::document(&"acme".parse().unwrap(), "faq");
    assert_eq!((document.tenant(), document.id(), document.row()), ("acme", &b""[..], &b"faq"[..]));
}

#[test]
fn a_key_says_whose_it_is() {
    // A contact's bytes may be anything, a slash too.
    let of = conversation("acme", b'/');
    let account = AccountKey { tenant: of.tenant.clone(), channel: of.channel, account: of.account.clone() };
    let turn = TurnId(MessageKey::from_bytes([3; 16]));
    let outbound = OutboundId::of_turn(of.contact, turn, 1);
    for key in [
        Key::head(&of),
        Key::history(&of, 1),
        Key::marker(&of, turn.0),
        Key::claim(&of, turn),
        Key::delivery(&of, &outbound),
        Key::tool(&of, turn, 1),
    ] {
        assert_eq!((key.conversation(), key.account()), (Some(of.clone()), None), "{key:?}");
        assert_eq!(key.about(), Some(of.contact), "{key:?}");
    }
    for key in [Key::send(&account, &outbound), Key::backlog(&account, 1)] {
        assert_eq!((key.conversation(), key.account()), (None, Some(account.clone())), "{key:?}");
    }
    let spent = SpentBy::new(of.contact, turn, 1);
    for key in [
        Key::send(&account, &outbound),
        Key::contact(&of.tenant, of.contact),
        Key::contact_key(&of.tenant, of.contact),
        Key::spend(&of.tenant, ChunkId::from_bytes([4; 16]), &spent),
    ] {
        assert_eq!(key.about(), Some(of.contact), "{key:?}");
    }
    for key in [Key::tenant_key(&of.tenant), Key::alias(&of.tenant, turn.0), Key::document(&of.tenant, "x")] {
        assert_eq!((key.about(), key.conversation(), key.account()), (None, None, None), "{key:?}");
    }
}

#[test]
fn an_agenda_says_whose_it_is() {
    for topic in Topic::ALL {
        let of = TopicPartition { topic, partition: 70_000 };
        let key = Key::agenda(of, Timestamp::from_secs(1), b"x");
        assert_eq!((key.of_agenda(), key.partition().of_agenda()), (Some(of), Some(of)));
        assert_eq!(key.tenant(), "");
    }
}

#[test]
fn an_outbound_id_reads_back_from_its_row() {
    let of = conversation("acme", 7);
    let turn = TurnId(MessageKey::from_bytes([3; 16]));
    let outbound = OutboundId::of_turn(of.contact, turn, 517);
    assert_eq!(OutboundId::from_row(Key::delivery(&of, &outbound).row()), Some(outbound));
    assert_eq!(OutboundId::from_row(&[0; 33]), None);
    // As the builds before campaigns wrote it.
    let stored = [&[7; 16][..], &[3; 16], &[2, 5]].concat();
    assert_eq!(OutboundId::from_row(&stored), Some(outbound));
    let outbound = OutboundId::of_campaign(of.contact, CampaignId::from_bytes([3; 16]), 2);
    assert_eq!(OutboundId::from_row(Key::delivery(&of, &outbound).row()), Some(outbound));
}

#[test]
fn what_a_turn_has_spent_is_in_the_row_that_it_always_had() {
    let of = conversation("acme", 7);
    let chunk = ChunkId::from_bytes([4; 16]);
    let by = SpentBy::new(of.contact, TurnId(MessageKey::from_bytes([3; 16])), 2);
    let stored = [&[7; 16][..], &[3; 16], &[2]].concat();
    assert_eq!(Key::spend(&of.tenant, chunk, &by).row(), stored);
    let by = SpentBy { cause: Cause::Campaign(CampaignId::from_bytes([3; 16])), ..by };
    assert_ne!(Key::spend(&of.tenant, chunk, &by).row(), stored);
}

#[test]
fn a_row_says_which_conversation_or_account_it_is_of() {
    let of = conversation("acme", b'/');
    let turn = TurnId(MessageKey::from_bytes([3; 16]));
    let outbound = OutboundId::of_turn(of.contact, turn, 1);
    let of_conversation = [
        Key::head(&of),
        Key::history(&of, 1),
        Key::marker(&of, turn.0),
        Key::claim(&of, turn),
        Key::delivery(&of, &outbound),
        Key::tool(&of, turn, 1),
    ];
    for key in of_conversation {
        assert_eq!((key.conversation(), key.account()), (Some(of.clone()), None), "{key:?}");
    }
    let account = of.account();
    for key in [Key::send(&account, &outbound), Key::backlog(&account, 7), Key::unknown(&account, &outbound)]
    {
        assert_eq!((key.conversation(), key.account()), (None, Some(account.clone())), "{key:?}");
    }
    let others = [Key::tenant_key(&of.tenant), Key::document(&of.tenant, "a/b")];
    assert!(others.iter().all(|key| key.conversation().is_none() && key.account().is_none()));
}

#[test]
fn a_parked_record_says_whom_it_is_for() {
    let of = conversation("acme", b'/');
    let entity = |key: String| key.split_once('/').unwrap().1.to_owned();
    let inbound = Partition::parked(&of.tenant, Topic::Inbound, &entity(of.to_string()));
    let key = inbound.row(&7_u64.to_be_bytes());
    assert_eq!((key.conversation(), key.account(), key.about()), (Some(of.clone()), None, Some(of.contact)));
    let account = of.account();
    let outbound = Partition::parked(&of.tenant, Topic::Outbound, &entity(account.to_string()));
    let key = outbound.row(&7_u64.to_be_bytes());
    assert_eq!((key.conversation(), key.account(), key.tenant()), (None, Some(account), "acme"));
    let held =
        Partition::held(TopicPartition { topic: Topic::Inbound, partition: 3 }).row(b"acme/pigeon/1/x");
    assert_eq!((held.conversation(), held.account(), held.tenant()), (None, None, ""));
}

#[test]
fn an_open_removal_says_whose_it_is() {
    let tenant: TenantId = "acme".parse().unwrap();
    assert_eq!(Key::open_removal(&tenant).of_open_removal(), Some(tenant.clone()));
    assert_eq!(Key::removal(&tenant).of_open_removal(), None);
}

#[test]
fn an_open_erasure_says_whose_it_is() {
    let (tenant, contact): (TenantId, _) = ("acme".parse().unwrap(), ContactId::from_bytes([b'/'; 16]));
    let key = Key::open_erasure(&tenant, contact);
    assert_eq!((key.of_open_erasure(), key.tenant()), (Some((tenant, contact)), ""));
    assert_eq!(
        Key::erasure(&"acme".parse().unwrap(), MessageKey::from_bytes([1; 16])).of_open_erasure(),
        None
    );
}

#[test]
fn agenda_rows_sort_by_due_time() {
    let partition = TopicPartition { topic: Topic::Inbound, partition: 3 };
    let early = Key::agenda(partition, Timestamp::from_secs(1), b"z");
    let late = Key::agenda(partition, Timestamp::from_secs(300), b"a");
    assert!(early < late);
}

#[test]
fn numbers_and_names_of_tables_never_change() {
    let stored = Table::ALL.map(|table| (table as u8, table.as_str()));
    let published = [
        (1, "head"),
        (2, "history"),
        (3, "marker"),
        (4, "claim"),
        (5, "delivery"),
        (6, "agenda"),
        (7, "send"),
        (8, "backlog"),
        (9, "alias"),
        (10, "contact"),
        (11, "key"),
        (12, "document"),
        (13, "quota"),
        (14, "spend"),
        (15, "tool"),
        (16, "limit"),
        (17, "erasure"),
        (18, "access"),
        (19, "sweep"),
        (20, "removal"),
        (21, "parked"),
        (22, "audience"),
        (23, "member"),
        (40, "request"),
    ];
    assert_eq!(stored[..published.len()], published);
}

#[test]
fn rows_that_a_deletion_removes_can_be_removed_by_someone() {
    for table in Table::with(|table| table.tenant_deletion.removes()) {
        let Descriptor { owner, written, .. } = table.descriptor();
        let by_owner = matches!(owner, Owner::Conversation | Owner::Account | Owner::Entity);
        assert!(by_owner || *written != Written::Fenced, "{table:?}: only its owner has the fence");
        assert!(Table::of_tenants().contains(&table), "{table:?} has rows of tenants");
    }
}

#[test]
fn rows_that_an_erasure_removes_are_found_by_their_contact() {
    for table in Table::ALL {
        let Descriptor { contact_erasure, contact, owner, .. } = table.descriptor();
        match contact_erasure {
            ContactErasure::Removed if *owner == Owner::Conversation => {
                assert_eq!(*contact, ContactIn::Conversation, "{table:?}");
            }
            // The record of the erasure takes those of a conversation by their key. Those of an account go where they
            // mention the contact, since a record has ids as text in every version.
            ContactErasure::Removed if *owner == Owner::Entity => {
                assert_eq!(*contact, ContactIn::Conversation, "{table:?}");
            }
            // The request for the erasure goes through the tenant's audiences.
            ContactErasure::Removed if *owner == Owner::Tenant => {
                assert_eq!(*contact, ContactIn::RowStart, "{table:?}");
            }
            ContactErasure::Removed => {
                assert!(
                    matches!(owner, Owner::Account | Owner::Partition),
                    "{table:?}: nothing deletes its rows"
                );
            }
            ContactErasure::Tombstone => assert_eq!(*contact, ContactIn::KeyId, "{table:?}"),
            ContactErasure::NotAbout => assert_eq!(*contact, ContactIn::Nowhere, "{table:?}"),
            ContactErasure::Kept(reason) => assert!(!reason.is_empty()),
        }
    }
}

#[test]
fn what_a_contacts_key_seals_goes_with_the_contact() {
    let sealed = Table::with(|table| {
        matches!(table.form, Form::Sealed { under: SealedUnder::Contact, .. } | Form::Thread { .. })
    });
    assert_eq!(sealed, [Table::History, Table::Tool, Table::Member]);
    for table in sealed {
        assert_eq!(
            table.descriptor().contact_erasure,
            ContactErasure::Removed,
            "{table:?} cannot be read any more"
        );
    }
}

#[test]
fn rows_with_a_retention_are_deleted_with_their_contact_and_exported() {
    for table in Table::with(|table| matches!(table.lifetime, Lifetime::Retention { .. })) {
        let Descriptor { contact_erasure, export, .. } = table.descriptor();
        assert_eq!(*contact_erasure, ContactErasure::Removed, "{table:?}");
        assert!(export.of_contact().is_some() && export.of_tenant().is_some(), "{table:?}");
    }
}

#[test]
fn the_tombstone_of_a_tenants_key_outlives_the_tenant_and_its_other_keys_do_not() {
    let of = conversation("acme", 7);
    assert!(Key::tenant_key(&of.tenant).outlives_tenant());
    assert!(Key::access(Some(&of.tenant), 1).outlives_tenant());
    assert!(!Key::contact_key(&of.tenant, of.contact).outlives_tenant());
    assert!(!Key::channel_key(&of.account()).outlives_tenant());
    assert!(!Key::quota(&of.tenant, "2026-11").outlives_tenant());
}

#[test]
fn a_conversation_owns_the_partitions_of_its_rows() {
    let of = conversation("acme", 7);
    let owned: Vec<_> = Partition::of_conversation(&of).collect();
    let turn = TurnId(MessageKey::from_bytes([3; 16]));
    let rows = [Key::head(&of), Key::history(&of, 1), Key::claim(&of, turn), Key::tool(&of, turn, 1)];
    for row in rows {
        assert!(owned.contains(&row.partition()), "{row:?}");
    }
    assert!(!owned.contains(&Partition::backlog(&of.account())));
}
