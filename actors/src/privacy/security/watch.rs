//! Decision when security signals are an incident, and when it is published. Pure.
//!
//! Signals of one kind and tenant count together from the first one on, for a window; below the threshold they are
//! dropped after that. At the threshold an incident begins, which is published at once. From there on every signal
//! counts for it, and it is published again a window after its last publication, if anything was added. A window in
//! which nothing was added ends it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use heddle_schemas::config;
use heddle_schemas::id::{ContactId, MessageKey, TenantId};
use heddle_schemas::record::event::{Approximately, DataCategory, Incident, IncidentKind};
use heddle_schemas::time::Timestamp;

use super::{SecuritySignal, measure};

/// Kinds and tenants that are watched at once; signals beyond are counted by the metric alone.
const WATCHED: usize = 10_000;
/// Number of contacts of an incident that are counted exactly.
const PEOPLE: usize = 1_000;

/// The time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) at: Timestamp,
    pub(super) elapsed: Duration,
}

/// Signals of one kind and tenant.
#[derive(Debug)]
struct Seen {
    since: Duration,
    until: Duration,
    first: Timestamp,
    last: Timestamp,
    count: u64,
    data: BTreeSet<DataCategory>,
    people: BTreeSet<ContactId>,
    /// True when some contacts could not be identified, or there are more.
    more_people: bool,
    records: u64,
    incident: Option<MessageKey>,
    /// Time and count of its last publication.
    published: Option<(Duration, u64)>,
}

/// Everything that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    options: config::Security,
    seen: HashMap<(IncidentKind, TenantId), Seen>,
}

impl Watch {
    pub(super) fn new(options: config::Security) -> Self {
        Self { options, seen: HashMap::new() }
    }

    /// Adds a signal. Returns the incident that begins with it.
    pub(super) fn saw(
        &mut self,
        now: Now,
        tenant: &TenantId,
        signal: SecuritySignal<'_>,
        id: impl FnOnce() -> MessageKey,
    ) -> Option<MessageKey> {
        let kind = signal.kind();
        let key = (kind, tenant.clone());
        if !self.seen.contains_key(&key) && self.seen.len() >= WATCHED {
            self.forget(now);
            if self.seen.len() >= WATCHED {
                return None;
            }
        }
        let window = self.options.window;
        let seen = self.seen.entry(key).or_insert_with(|| Seen::new(now));
        if seen.is_over(now, window) {
            *seen = Seen::new(now);
        }
        seen.add(now, signal);
        if seen.incident.is_some() || !Self::is_incident(&self.options, kind, seen) {
            return None;
        }
        let id = id();
        seen.incident = Some(id);
        Some(id)
    }

    fn is_incident(options: &config::Security, kind: IncidentKind, seen: &Seen) -> bool {
        let threshold = match kind {
            IncidentKind::FailedDecryption => options.failed_decryptions.get(),
            IncidentKind::WebhookSignature => options.signatures.get(),
            IncidentKind::CrossTenant => options.cross_tenant.get(),
            IncidentKind::UnusualExport if seen.records >= options.export_records.get() => 0,
            IncidentKind::UnusualExport => options.exports.get(),
            IncidentKind::AuditLog | IncidentKind::ForeignRegion => 1,
        };
        seen.count >= threshold
    }

    fn forget(&mut self, now: Now) {
        let window = self.options.window;
        self.seen.retain(|_, seen| !seen.is_over(now, window));
    }

    /// Returns the incidents that are due; [`Watch::published`] records that they were published.
    pub(super) fn due(&mut self, now: Now) -> Vec<(TenantId, Incident)> {
        self.forget(now);
        let window = self.options.window;
        let due = self.seen.iter().filter(|(_, seen)| match seen.published {
            None => true,
            Some((at, count)) => count < seen.count && now.elapsed.saturating_sub(at) >= window,
        });
        due.filter_map(|((kind, tenant), seen)| Some((tenant.clone(), seen.incident(*kind)?))).collect()
    }

    /// Records that an incident was published, with this count.
    pub(super) fn published(
        &mut self,
        now: Now,
        tenant: &TenantId,
        kind: IncidentKind,
        (id, count): (MessageKey, u64),
    ) {
        let seen = self.seen.get_mut(&(kind, tenant.clone())).filter(|seen| seen.incident == Some(id));
        if let Some(seen) = seen {
            seen.published = Some((now.elapsed, count));
        }
    }
}

impl Seen {
    fn new(now: Now) -> Self {
        Self {
            since: now.elapsed,
            until: now.elapsed,
            first: now.at,
            last: now.at,
            count: 0,
            data: BTreeSet::new(),
            people: BTreeSet::new(),
            more_people: false,
            records: 0,
            incident: None,
            published: None,
        }
    }

    /// Returns true when a signal now belongs to something else: there was no incident within the window, or the
    /// incident has ended, and all of it was published.
    fn is_over(&self, now: Now, window: Duration) -> bool {
        match self.incident {
            None => now.elapsed.saturating_sub(self.since) >= window,
            Some(_) => {
                self.published.is_some_and(|(_, count)| count == self.count)
                    && now.elapsed.saturating_sub(self.until) >= window
            }
        }
    }

    fn add(&mut self, now: Now, signal: SecuritySignal<'_>) {
        self.until = now.elapsed;
        // The wall clock may go back; when it was seen last is not before when it was seen first.
        self.last = self.last.max(now.at);
        self.count += 1;
        self.records = self.records.saturating_add(signal.records());
        self.data.extend(signal.data());
        match signal.contact() {
            Some(contact) if self.people.len() < PEOPLE || self.people.contains(&contact) => {
                self.people.insert(contact);
            }
            None if signal.data().is_empty() => {}
            _ => self.more_people = true,
        }
    }

    fn incident(&self, kind: IncidentKind) -> Option<Incident> {
        Some(Incident {
            id: self.incident?,
            kind,
            first: self.first,
            last: self.last,
            count: self.count,
            data: self.data.clone(),
            people: Approximately { counted: self.people.len() as u64, or_more: self.more_people },
            records: Approximately { counted: self.records, or_more: false },
            measure: measure(kind),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::num::NonZeroU64;

    const WINDOW: u64 = 600;

    fn now(seconds: u64) -> Now {
        let elapsed = Duration::from_secs(seconds);
        Now { at: Timestamp::EPOCH.after(elapsed), elapsed }
    }

    fn contact(byte: u8) -> ContactId {
        ContactId::from_bytes([byte; 16])
    }

    /// Watch, and the incidents that it published.
    struct Harness {
        watch: Watch,
        ids: u128,
    }

    impl Harness {
        fn new() -> Self {
            let options =
                config::Security { signatures: NonZeroU64::new(3).unwrap(), ..config::Security::default() };
            Self { watch: Watch::new(options), ids: 0 }
        }

        fn saw(&mut self, at: u64, tenant: &str, signal: SecuritySignal<'_>) -> bool {
            self.ids += 1;
            let id = MessageKey::from_bytes(self.ids.to_be_bytes());
            self.watch.saw(now(at), &tenant.parse().unwrap(), signal, || id).is_some()
        }

        fn published(&mut self, at: u64) -> Vec<Incident> {
            let due = self.watch.due(now(at));
            for (tenant, incident) in &due {
                self.watch.published(now(at), tenant, incident.kind, (incident.id, incident.count));
            }
            due.into_iter().map(|(_, incident)| incident).collect()
        }
    }

    #[test]
    fn below_the_threshold_within_a_window_nothing_is_published() {
        let mut harness = Harness::new();
        for at in [0, 500, 600, 1_100, 1_200, 1_300] {
            assert!(!harness.saw(at, "acme", SecuritySignal::WebhookSignature), "{at}");
        }
        assert!(
            !harness.saw(1_400, "globex", SecuritySignal::WebhookSignature),
            "another tenant's do not count"
        );
        assert_eq!(harness.published(1_400), []);
        assert!(harness.saw(1_500, "acme", SecuritySignal::WebhookSignature), "the third since 1200");
        let published = harness.published(1_500);
        assert_eq!(
            (published.len(), published[0].count, published[0].measure),
            (1, 3, super::super::Measure::Refused)
        );
        assert_eq!((published[0].first, published[0].last), (now(1_200).at, now(1_500).at));
    }

    #[test]
    fn an_incident_that_goes_on_is_published_once_a_window_and_ends_in_a_quiet_one() {
        let mut harness = Harness::new();
        assert!(harness.saw(0, "acme", SecuritySignal::CrossTenant));
        let first = harness.published(0);
        for at in 1..=900 {
            assert!(!harness.saw(at, "acme", SecuritySignal::CrossTenant));
            let published = harness.published(at);
            assert_eq!(published.len(), usize::from(at == WINDOW), "{at}");
            if let [again] = &published[..] {
                assert_eq!((again.id, again.count, again.first), (first[0].id, 601, first[0].first));
            }
        }
        assert_eq!(harness.published(1_199), []);
        assert_eq!(harness.published(1_200)[0].count, 901, "the rest is published though nothing more came");
        assert_eq!(harness.published(5_000), []);
        assert!(harness.saw(5_000, "acme", SecuritySignal::CrossTenant), "another incident");
        assert_eq!(harness.published(5_000)[0].count, 1);
    }

    #[test]
    fn people_records_and_data_are_those_of_all_that_was_seen() {
        let mut harness = Harness::new();
        let data = &[DataCategory::Messages];
        harness.saw(0, "acme", SecuritySignal::FailedDecryption { contact: Some(contact(1)), data });
        harness.saw(1, "acme", SecuritySignal::FailedDecryption { contact: Some(contact(1)), data });
        harness.saw(2, "acme", SecuritySignal::FailedDecryption { contact: Some(contact(2)), data });
        let published = harness.published(2);
        assert_eq!(published[0].people, Approximately { counted: 2, or_more: false });
        assert_eq!(published[0].records.counted, 3);
        harness.saw(
            3,
            "acme",
            SecuritySignal::FailedDecryption { contact: None, data: &[DataCategory::Secrets] },
        );
        let published = harness.published(WINDOW + 2);
        assert_eq!(published[0].people, Approximately { counted: 2, or_more: true });
        assert_eq!(published[0].data, [DataCategory::Messages, DataCategory::Secrets].into());
    }

    #[test]
    fn one_large_export_is_unusual_and_so_are_many_small_ones() {
        let mut harness = Harness::new();
        assert!(!harness.saw(
            0,
            "acme",
            SecuritySignal::Export { contact: Some(contact(1)), records: 49_999 }
        ));
        assert!(harness.saw(1, "acme", SecuritySignal::Export { contact: Some(contact(1)), records: 1 }));
        for n in 1..20 {
            assert!(!harness.saw(
                2,
                "globex",
                SecuritySignal::Export { contact: Some(contact(n)), records: 3 }
            ));
        }
        assert!(harness.saw(2, "globex", SecuritySignal::Export { contact: Some(contact(20)), records: 3 }));
    }

    #[test]
    fn watched_kinds_are_bounded_and_ended_ones_make_room() {
        let mut harness = Harness::new();
        for n in 0..WATCHED {
            harness.saw(0, &format!("t{n}"), SecuritySignal::WebhookSignature);
        }
        assert!(!harness.saw(1, "acme", SecuritySignal::CrossTenant));
        assert_eq!(harness.watch.seen.len(), WATCHED);
        assert!(harness.saw(WINDOW, "acme", SecuritySignal::CrossTenant));
        assert_eq!(harness.watch.seen.len(), 1);
    }

    proptest! {
        /// For all sequences of signals: an incident is published at most once a window, and every signal since it
        /// began has been published in the end.
        #[test]
        fn events_are_no_flood_and_lose_nothing(gaps in prop::collection::vec(0_u64..900, 1..200)) {
            let mut harness = Harness::new();
            let (mut at, mut published, mut seen) = (0, Vec::new(), 0);
            for gap in gaps {
                for step in at..at + gap {
                    published.extend(harness.published(step).into_iter().map(|incident| (step, incident)));
                }
                at += gap;
                harness.saw(at, "acme", SecuritySignal::CrossTenant);
                seen += 1;
            }
            for step in at..=at + 2 * WINDOW {
                published.extend(harness.published(step).into_iter().map(|incident| (step, incident)));
            }
            let mut last: HashMap<MessageKey, u64> = HashMap::new();
            for (_, incident) in &published {
                last.insert(incident.id, incident.count);
            }
            prop_assert_eq!(last.values().sum::<u64>(), seen);
            for pair in published.windows(2) {
                let same = pair[0].1.id == pair[1].1.id;
                prop_assert!(!same || pair[1].0 - pair[0].0 >= WINDOW);
            }
        }
    }
}
