//! Section `[keys]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::sealed::Secret;
use crate::time::human;

/// The keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keys {
    /// The key-encryption key, which wraps tenants' keys from now on: 32 bytes in base64, as `file:PATH` or `env:NAME`;
    /// or a key of Vault's transit engine, which stays there, as `vault:` and a [`VaultKey`]. Empty: `master.key` in
    /// the data folder, created at first start.
    pub master: String,
    /// Previous key-encryption keys, which still open what they wrapped, in the same form as `master`. `heddle keys
    /// rotate` wraps that with the current one; `heddle keys status` reports when a previous one is not needed any
    /// more.
    pub former: Vec<String>,
    /// The token for Vault, `env:NAME` or `file:PATH`; a file is read again for each call, so that an agent
    /// may renew it.
    pub token: Secret,
    /// The certificates, PEM, that Vault's is signed with, where the system does not know them.
    pub ca: PathBuf,
    /// Longest duration of a call of Vault.
    #[serde(with = "human")]
    pub timeout: Duration,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            master: String::new(),
            former: Vec::new(),
            token: Secret::default(),
            ca: PathBuf::new(),
            timeout: Duration::from_secs(5),
        }
    }
}

/// Address of a key of Vault's transit engine: `https://HOST:PORT/MOUNT/keys/NAME`, such as
/// `https://vault.example.com:8200/transit/keys/heddle`. The mount may have several parts, a namespace first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultKey {
    /// Scheme, host and port.
    pub base: String,
    /// The mount of the engine, such as `transit`.
    pub mount: String,
    /// The key's name.
    pub name: String,
}

impl std::fmt::Display for VaultKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/keys/{}", self.base, self.mount, self.name)
    }
}

impl std::str::FromStr for VaultKey {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        const FORM: &str =
            "takes https://HOST:PORT/MOUNT/keys/NAME, such as https://vault:8200/transit/keys/heddle";
        let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
        let (host, path) = rest.split_once('/').ok_or(FORM)?;
        let (mount, name) = path.rsplit_once("/keys/").ok_or(FORM)?;
        // What a path takes as it is; Vault's names of keys are of these too.
        let plain = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
        };
        let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(is_host) || !mount.split('/').all(plain) || !plain(name) {
            return Err(FORM);
        }
        let here = ["127.0.0.1", "localhost", "[::1]"];
        let is_here =
            |at: &&str| host.strip_prefix(at).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'));
        match scheme {
            "https" => {}
            "http" if here.iter().any(is_here) => {}
            "http" => return Err("takes https: tenants' keys pass through; http only within this machine"),
            _ => return Err(FORM),
        }
        Ok(Self { base: format!("{scheme}://{host}"), mount: mount.to_owned(), name: name.to_owned() })
    }
}

impl Keys {
    pub(super) fn validate(&self, faults: &mut Vec<String>) {
        let all = std::iter::once(("keys.master", &self.master))
            .chain(self.former.iter().map(|previous| ("keys.former", previous)));
        let mut is_external = false;
        for (place, written) in all {
            if let Some(key) = written.strip_prefix("vault:") {
                is_external = true;
                if let Err(why) = key.parse::<VaultKey>() {
                    faults.push(format!("{place}: vault: {why}"));
                }
                continue;
            }
            let named =
                ["file:", "env:"].iter().any(|kind| written.len() > kind.len() && written.starts_with(kind));
            let is_default = written.is_empty() && place == "keys.master";
            if !(named || is_default) {
                faults.push(format!(
                    "{place}: takes file:PATH, env:NAME or vault:URL; the key itself does not belong into this file"
                ));
            }
        }
        for (i, previous) in self.former.iter().enumerate() {
            if *previous == self.master || self.former[..i].contains(previous) {
                // A key that was pasted into the file is not repeated.
                faults.push(format!("keys.former: the one at place {} is named twice", i + 1));
            }
        }
        let token = self.token.expose();
        match (is_external, token) {
            (true, "") => {
                faults.push("keys.token: is empty, and Vault asks for one; set env:NAME or file:PATH".into())
            }
            (_, "") => {}
            (_, token) if token.starts_with("env:") || token.starts_with("file:") => {}
            _ => faults.push(
                "keys.token: takes env:NAME or file:PATH; the token does not belong into this file".into(),
            ),
        }
        if self.timeout.is_zero() {
            faults.push("keys.timeout: is zero".to_owned());
        }
    }
}
