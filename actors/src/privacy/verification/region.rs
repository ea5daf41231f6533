//! Verification that the stores belong to the tenant's region.

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::promise::{Promise, Proof};
use heddle_schemas::record::decode;
use heddle_schemas::record::region::RegionRecord;
use heddle_schemas::record::tenants::TenantRecord;
use heddle_schemas::table::Key;
use heddle_schemas::tenant::Tenant;
use heddle_schemas::topic::{Topic, TopicPartition};

use crate::partition::commit::read;
use crate::ports::Ports;

/// Checks the region to which the state store and the topics are bound.
pub(super) async fn prove(ports: &Ports, tenant: &Tenant) -> Result<Proof, StoreError> {
    let mut proof = Proof::new(Promise::Region);
    let row = Key::region();
    match read(&ports.metrics, || ports.state.get(&row)).await? {
        None => proof.fault("the state store is bound to no region"),
        Some(stored) => bound(&stored, "the state store", tenant, &mut proof),
    }
    for partition in 0..ports.log.partitions(Topic::Tenants) {
        let partition = TopicPartition { topic: Topic::Tenants, partition };
        let (records, _) = read(&ports.metrics, || ports.log.snapshot(partition)).await?;
        for record in records.iter().filter(|record| !record.value.is_empty()) {
            if record.key == TenantId::engine().as_str() {
                bound(&record.value, "the topics", tenant, &mut proof);
            } else if record.key == tenant.id.as_str()
                && let Ok(stored) = decode::<TenantRecord>(&record.value)
                && stored.config.region != tenant.region
            {
                proof.fault(format!(
                    "{partition} at {}: the tenant is of region {:?} there, and its data is used here in {:?}",
                    record.offset, stored.config.region, tenant.region
                ));
            }
        }
    }
    Ok(proof)
}

fn bound(stored: &[u8], what: &str, tenant: &Tenant, proof: &mut Proof) {
    match decode::<RegionRecord>(stored) {
        Ok(found) if found.region == tenant.region => {
            proof.count(1);
            proof.saw(format!("{what} ({}, {}) belong to {:?}", found.state, found.log, found.region));
        }
        Ok(found) => proof.fault(format!(
            "{what} belong to region {:?}, and the tenant's data is to stay in {:?}",
            found.region, tenant.region
        )),
        Err(error) => proof.fault(format!("{what}: their region cannot be read: {error}")),
    }
}
