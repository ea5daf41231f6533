//! Rotation of the master key at run time: rows are rewrapped one by one.
//!
//! Each row is changed by `compare_and_set` from the value that was opened, so a row that is created, rewrapped or
//! erased meanwhile is read again, and an erased tenant stays erased. A rotation that is interrupted anywhere
//! leaves every row whole, under one known key or the other; running it again does the rest. Tenants' keys stay
//! the same, so nothing else is written and no opened key has to be dropped.

use heddle_schemas::id::TenantId;
use heddle_schemas::ports::keys::{KeysError, aad};
use heddle_schemas::ports::state::Swap;
use heddle_schemas::table::Key;

use super::envelope::{COLUMN, ERASED, EnvelopeKeys};
use super::wrapper::number_of;

/// Outcome of rewrapping a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrapped {
    /// The row is now wrapped by the present master key.
    Done,
    /// The row was wrapped by it before.
    Already,
    /// The tenant has been erased.
    Erased,
    /// There is no key yet; the present master key will wrap it.
    Missing,
}

/// Key that wrapped a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WrappedBy {
    /// The master key of this number, and its version.
    Master {
        /// As ciphertexts carry it.
        number: u32,
        /// `None` for a key that has one only, and for one that is not known here.
        version: Option<u32>,
    },
    /// The tenant has been erased.
    Erased,
    /// There is no key yet.
    Missing,
}

impl EnvelopeKeys {
    /// Wraps a tenant's key by the newest version of the present master key.
    ///
    /// # Errors
    /// [`KeysError`]; the row is unchanged, or rewrapped if the store has lost the answer.
    pub async fn rewrap_tenant(&self, tenant: &TenantId) -> Result<Rewrapped, KeysError> {
        self.rewrap(&Key::tenant_key(tenant)).await
    }

    /// Rewraps the row by which the store knows its master key. This is the last step of a rotation: until then a
    /// node that does not know the previous key refuses to start.
    ///
    /// # Errors
    /// As [`EnvelopeKeys::rewrap_tenant`].
    pub async fn rewrap_check(&self) -> Result<Rewrapped, KeysError> {
        self.rewrap(&Key::master_check()).await
    }

    /// Returns the key that wrapped a tenant's.
    ///
    /// # Errors
    /// [`KeysError::Store`], [`KeysError::Unreadable`].
    pub async fn tenant_wrapped_by(&self, tenant: &TenantId) -> Result<WrappedBy, KeysError> {
        self.wrapped_by(&Key::tenant_key(tenant)).await
    }

    /// Returns the key that wrapped the row by which the store knows its master key.
    ///
    /// # Errors
    /// As [`EnvelopeKeys::tenant_wrapped_by`].
    pub async fn check_wrapped_by(&self) -> Result<WrappedBy, KeysError> {
        self.wrapped_by(&Key::master_check()).await
    }

    async fn rewrap(&self, row: &Key) -> Result<Rewrapped, KeysError> {
        self.verify_master().await?;
        let place = aad(row, COLUMN);
        let present = self.masters.present();
        let mut stored = self.state.get(row).await?;
        loop {
            let Some(old) = stored else { return Ok(Rewrapped::Missing) };
            if old == ERASED {
                return Ok(Rewrapped::Erased);
            }
            let by = self.masters.of(&old)?;
            let new = if by.number() == present.number() {
                let Some(new) = present.renew(&place, &old).await? else { return Ok(Rewrapped::Already) };
                new
            } else {
                let secret = by.open(&place, &old).await?;
                let new = present.wrap(&place, &secret).await?;
                // The previous ciphertext is about to be replaced: the new one must open.
                if present.open(&place, &new).await? != secret {
                    let detail = format!("{} opens something else than it wrapped", present.name());
                    return Err(KeysError::Master { detail });
                }
                new
            };
            match self.state.compare_and_set(row, Some(old), Some(new), None).await? {
                Swap::Done => return Ok(Rewrapped::Done),
                Swap::Found(found) => stored = found,
            }
        }
    }

    async fn wrapped_by(&self, row: &Key) -> Result<WrappedBy, KeysError> {
        let Some(stored) = self.state.get(row).await? else { return Ok(WrappedBy::Missing) };
        if stored == ERASED {
            return Ok(WrappedBy::Erased);
        }
        let Some(number) = number_of(&stored) else {
            let detail = format!("{row:?} is cut short, or of a version this build does not know");
            return Err(KeysError::Unreadable { detail });
        };
        let version = self.masters.known(number).and_then(|by| by.version(&stored));
        Ok(WrappedBy::Master { number, version })
    }
}

#[cfg(test)]
mod tests;
