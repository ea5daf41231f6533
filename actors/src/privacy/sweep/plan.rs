//! Plan of a node's sweeps: which one its partitions need, and their progress. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use heddle_schemas::id::TenantId;
use heddle_schemas::topic::{Offset, TopicPartition};
use serde::{Deserialize, Serialize};

/// Up to where each partition of topic tenants counts, by its number; below these offsets.
pub(super) type Reached = BTreeMap<u32, Offset>;

/// Progress of a partition's sweeps, as stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Swept {
    /// Every change of retention below it has been applied to the rows of the partition.
    pub(super) through: Reached,
    /// Sweep under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) under_way: Option<UnderWay>,
}

/// Sweep under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UnderWay {
    /// The changes that it applies.
    pub(super) to: Reached,
    /// Tenant whose rows it walks over; all rows where several tenants have changed.
    pub(super) tenant: Option<TenantId>,
    /// The walk's place, in hexadecimal digits; none at its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    after: Option<String>,
}

impl UnderWay {
    /// The place to go on from.
    pub(super) fn after(&self) -> Option<Bytes> {
        // A value that is no position was not written by this code: the walk begins anew, which is harmless.
        self.after.as_ref().and_then(|after| hex::decode(after).ok()).map(Bytes::from)
    }

    /// Stores the position that was reached.
    pub(super) fn reached(&mut self, after: &Bytes) {
        self.after = Some(hex::encode(after));
    }
}

impl Swept {
    /// Returns true when a change in this record of topic tenants has still to be applied.
    pub(super) fn lacks(&self, (partition, offset): (u32, Offset)) -> bool {
        self.through.get(&partition).is_none_or(|through| offset >= *through)
    }

    /// Bounds the applied changes by those known when the partition was taken over: this node may have written by an
    /// older policy than its previous owner knew.
    pub(super) fn known(mut self, known: &Reached) -> Self {
        for (partition, through) in &mut self.through {
            *through = (*through).min(known.get(partition).copied().unwrap_or_default());
        }
        self
    }

    /// Ends the sweep under way.
    pub(super) fn finish(&mut self) {
        for (partition, to) in self.under_way.take().into_iter().flat_map(|under_way| under_way.to) {
            let through = self.through.entry(partition).or_default();
            *through = to.max(*through);
        }
    }
}

/// Returns the sweep for partitions that are behind, and true where it has to begin: one that all of them have under
/// way goes on from its position; else one begins that applies every change.
pub(super) fn next(
    behind: &BTreeMap<TopicPartition, Swept>,
    changed: &[(TenantId, (u32, Offset))],
) -> Option<(UnderWay, bool)> {
    let mut swept = behind.values();
    let first = swept.next()?.under_way.as_ref();
    if let Some(under_way) = first.filter(|first| swept.all(|other| other.under_way.as_ref() == Some(*first)))
    {
        return Some((under_way.clone(), false));
    }
    let mut to = Reached::new();
    let mut tenants = Vec::new();
    for (tenant, since) in changed {
        if behind.values().any(|swept| swept.lacks(*since)) {
            tenants.push(tenant);
            let reached = to.entry(since.0).or_default();
            *reached = (*reached).max(since.1 + 1);
        }
    }
    let tenant = if let [tenant] = tenants[..] { Some(tenant.clone()) } else { None };
    Some((UnderWay { to, tenant, after: None }, true))
}

#[cfg(test)]
mod tests {
    use heddle_schemas::topic::Topic;

    use super::*;

    fn at(partition: u32) -> TopicPartition {
        TopicPartition { topic: Topic::Inbound, partition }
    }

    fn changed(of: &[(&str, Offset)]) -> Vec<(TenantId, (u32, Offset))> {
        of.iter().map(|(tenant, offset)| (tenant.parse().unwrap(), (0, *offset))).collect()
    }

    #[test]
    fn a_sweep_goes_on_where_all_have_it_under_way_and_begins_where_one_has_not() {
        let changed = changed(&[("acme", 4), ("other", 2)]);
        let through = Swept { through: [(0, 3)].into(), under_way: None };
        let behind: BTreeMap<_, _> = [(at(0), through.clone()), (at(1), through.clone())].into();
        let (mut under_way, begins) = next(&behind, &changed).unwrap();
        assert!(begins);
        assert_eq!(
            (&under_way.to, under_way.tenant.as_ref().map(TenantId::as_str)),
            (&[(0, 5)].into(), Some("acme"))
        );
        under_way.reached(&Bytes::from_static(b"place"));
        let mut going = Swept { under_way: Some(under_way.clone()), ..through.clone() };
        let both: BTreeMap<_, _> = [(at(0), going.clone()), (at(1), going.clone())].into();
        assert_eq!(next(&both, &changed), Some((under_way.clone(), false)));
        assert_eq!(under_way.after(), Some(Bytes::from_static(b"place")));
        let one: BTreeMap<_, _> = [(at(0), going.clone()), (at(1), through)].into();
        assert!(next(&one, &changed).unwrap().1, "the other's rows before the place are not swept");
        going.finish();
        assert_eq!((going.lacks((0, 4)), going.lacks((0, 5)), going.under_way), (false, true, None));
        assert_eq!(next(&BTreeMap::new(), &changed), None);
    }

    #[test]
    fn one_that_was_never_swept_lacks_every_change_and_several_tenants_are_swept_together() {
        let behind: BTreeMap<_, _> = [(at(0), Swept::default())].into();
        let (under_way, _) = next(&behind, &changed(&[("acme", 4), ("other", 2)])).unwrap();
        assert_eq!((under_way.to, under_way.tenant), ([(0, 5)].into(), None));
    }

    #[test]
    fn a_new_owner_applies_again_what_it_did_not_know_when_it_took_over() {
        let swept = Swept { through: [(0, 9)].into(), under_way: None };
        assert!(!swept.clone().known(&[(0, 12)].into()).lacks((0, 8)));
        assert!(swept.clone().known(&[(0, 8)].into()).lacks((0, 8)));
        assert!(swept.known(&Reached::new()).lacks((0, 0)));
    }
}
