//! Cross-tenant check: other tenants' keys must not open this tenant's data.

use heddle_schemas::ports::keys::{Keys, KeysError, Missing, aad};
use heddle_schemas::ports::state::Row;
use heddle_schemas::promise::Proof;
use heddle_schemas::sealed::Sealed;
use heddle_schemas::table::{Form, Key};
use heddle_schemas::tenant::Tenant;

use super::ProveError;
use crate::tenant::configuration::Tenants;

/// Rows that are tried.
const SAMPLES: usize = 20;
/// Other tenants whose keys are tried.
const OTHERS: usize = 10;

/// Column of a row whose whole value is a ciphertext.
fn column(key: &Key) -> Option<&'static str> {
    match key.table().descriptor().form {
        Form::Sealed { column, .. } | Form::Thread { column } => Some(column),
        Form::Ids(_) | Form::WrappedKey | Form::Record | Form::Json(_) => None,
    }
}

/// Tries other tenants' keys.
#[derive(Default)]
pub(super) struct CrossTenant {
    samples: Vec<Row>,
}

impl CrossTenant {
    pub(super) fn sample(&mut self, row: &Row) {
        if column(&row.key).is_some() && self.samples.len() < SAMPLES {
            self.samples.push(row.clone());
        }
    }

    pub(super) async fn prove(
        self,
        keys: &dyn Keys,
        tenants: &Tenants,
        tenant: &Tenant,
        proof: &mut Proof,
    ) -> Result<(), ProveError> {
        let others = tenants.list();
        let others: Vec<_> = others.iter().filter(|other| other.id != tenant.id).take(OTHERS).collect();
        for other in &others {
            // One without a key has none that could open anything.
            let cipher = match keys.tenant(&other.id).await {
                Ok(cipher) => cipher,
                Err(KeysError::Gone { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            for row in &self.samples {
                let sealed = Sealed::from_bytes(row.value.clone());
                let Some(column) = column(&row.key) else { continue };
                let place = aad(&row.key, column);
                let of_contact = match row.key.about() {
                    Some(contact) => match keys.contact(&other.id, contact, Missing::Fail).await {
                        Ok(cipher) => cipher.open(&place, &sealed).is_ok(),
                        Err(KeysError::Gone { .. }) => false,
                        Err(error) => return Err(error.into()),
                    },
                    None => false,
                };
                if of_contact || cipher.open(&place, &sealed).is_ok() {
                    proof.fault(format!("{:?}: a key of tenant {} opens it", row.key, other.id));
                }
            }
        }
        proof.saw(format!(
            "{} rows tried with the keys of {} other tenants",
            self.samples.len(),
            others.len()
        ));
        Ok(())
    }
}
