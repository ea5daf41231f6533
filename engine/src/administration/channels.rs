//! A tenant's channel accounts: how one is disconnected.

use heddle_schemas::audit::What;
use heddle_schemas::id::AccountKey;
use heddle_schemas::tenant::Tenant;

use super::{Administration, AdministrationError};

impl Administration {
    /// Disconnects a channel account: its credentials are erased, its webhooks refused, and what waits to be sent by
    /// it is withheld. What was said there stays for as long as the retention says. Doing it again does no harm;
    /// applying a configuration that has the account connects it again.
    ///
    /// # Errors
    /// [`AdministrationError`].
    pub async fn disconnect(&self, account: &AccountKey) -> Result<Tenant, AdministrationError> {
        let id = &account.tenant;
        self.tenant(id)?;
        let what = What::ChannelDisconnect { channel: account.channel, account: account.account.clone() };
        let disconnect = async { Ok((*self.tenants.disconnect(account).await?).clone()) };
        self.audited(Some(id), what, disconnect).await
    }
}
