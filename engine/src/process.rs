//! The process itself: what the operating system is asked for, so that secrets stay in it and descriptors suffice.

use std::path::Path;

use heddle_schemas::config::Http;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::http::Limits;

/// File descriptors kept for the store, outgoing calls and log files: connections never take them.
const KEPT_DESCRIPTORS: u64 = 256;
/// Most connections by default.
const CONNECTIONS_MAX: u64 = 4096;
/// Least connections, however few descriptors there are.
const CONNECTIONS_MIN: u64 = 16;
/// Connections of the admin address.
const ADMIN_CONNECTIONS: usize = 64;

/// Keeps secrets in the process: no core dump, no other process of the same user that reads its memory, and files
/// that only their owner may read. Called once, before anything else runs.
pub fn harden() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    // A process may always lower its limits, and mark itself.
    let _ = setrlimit(Resource::Core, none);
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

/// Takes the data folder from those who are neither its owner nor of its group. Builds before made it readable to all.
pub fn close_folder(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(folder) = std::fs::metadata(path) else { return };
    let mode = folder.permissions().mode();
    if mode & 0o007 == 0 {
        return;
    }
    let closed = std::fs::Permissions::from_mode(mode & !0o007);
    if let Err(error) = std::fs::set_permissions(path, closed) {
        tracing::warn!(path = %path.display(), %error, "every user may read the data folder; chmod 700 keeps them out");
    }
}

/// Raises the number of file descriptors to what the process may have, and returns it.
pub fn descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised,
        // Such as "no limit" where the system has one.
        Err(_) => limit,
    };
    limit.current.unwrap_or(u64::MAX)
}

/// Returns the limits of the public and of the admin listener, with this many descriptors.
#[must_use]
pub fn limits(http: &Http, descriptors: u64) -> (Limits, Limits) {
    let free = descriptors.saturating_sub(KEPT_DESCRIPTORS).max(2 * CONNECTIONS_MIN);
    let most = usize::try_from(free).unwrap_or(usize::MAX).saturating_sub(ADMIN_CONNECTIONS).max(1);
    let by_default = usize::try_from((free / 2).min(CONNECTIONS_MAX)).unwrap_or(usize::MAX);
    let connections = match http.connections {
        Some(wanted) if wanted.get() > most => {
            tracing::warn!(
                wanted,
                most,
                "http.connections is over what the file descriptors allow; raise LimitNOFILE"
            );
            most
        }
        Some(wanted) => wanted.get(),
        None => by_default,
    };
    let per_address =
        http.connections_per_address.map_or_else(|| (connections / 2).max(1), |count| count.get());
    let admin = Limits { connections: ADMIN_CONNECTIONS, per_address: ADMIN_CONNECTIONS };
    (Limits { connections, per_address }, admin)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_store() {
        let public = |http: &Http, descriptors| limits(http, descriptors).0;
        let http = Http::default();
        assert_eq!(public(&http, 1024), Limits { connections: 384, per_address: 192 });
        assert_eq!(public(&http, 1 << 20), Limits { connections: 4096, per_address: 2048 });
        assert_eq!(public(&http, 100), Limits { connections: 16, per_address: 8 });
        let wanted = Http { connections: NonZeroUsize::new(5000), ..http };
        assert_eq!(public(&wanted, 1024).connections, 1024 - 256 - 64);
        assert_eq!(public(&wanted, 1 << 20).connections, 5000);
    }
}
