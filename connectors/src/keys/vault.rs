//! HashiCorp Vault's transit engine as the wrapper of tenants' keys: the master key never leaves it.
//!
//! A wrapped key is bound to its place twice. The place is sent as `context`, which a key that was made with
//! `derived=true` is derived by; for other keys Vault ignores it. And the plaintext begins with the place's SHA-256,
//! which is compared when it is opened. `associated_data` would do as well, but `rewrap` takes none: what was encrypted
//! with it could be rewrapped only by letting the plain key pass through here.
//!
//! Calls that may be repeated (all but `rotate`) are retried once if no answer came; longer retries are the
//! caller's. An error names the status of a failed answer, and the first of its `errors`, cut short.
//!
//! Sources: <https://developer.hashicorp.com/vault/api-docs/secret/transit> (read, rotate, encrypt, decrypt and
//! rewrap; plaintext and context in base64; ciphertexts begin with `vault:v` and the key's version; encrypting
//! with the capability `create` makes a key that is missing) and `.../vault/api-docs` (`X-Vault-Token`,
//! `X-Vault-Request`, `{"errors": []}`, 403, 404, 429, 503 sealed). OpenBao's are the same; its
//! `builtin/logical/transit/path_rewrap.go` shows that `rewrap` takes `context` and no `associated_data`
//! and encrypts anew whatever the version was, its `sdk/helper/keysutil/policy.go` that `context` is ignored
//! for keys that are not derived.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use heddle_schemas::config::VaultKey;
use heddle_schemas::ports::keys::KeysError;
use heddle_schemas::ports::state::StoreError;
use heddle_schemas::sealed::Secret;
use prometheus::{IntCounterVec, Opts, Registry};
use reqwest::{Certificate, Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use heddle_keys::wrapper::{EXTERNAL_HEADER, Wrapper, external};

use crate::http;

/// Maximum length of an answer, in bytes. A key's versions are listed at some 30 bytes each.
const MAX_ANSWER: usize = 1 << 20;
/// Characters of Vault's message that are repeated.
const MESSAGE: usize = 200;
/// Before the second try.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes of the place's hash before the key in a plaintext.
const PLACE: usize = 32;

/// Configuration of calls to Vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Timeout of a connection. Default 2 s.
    pub connect_timeout: Duration,
    /// Timeout of a call. Default 5 s.
    pub timeout: Duration,
    /// The certificates, PEM, that Vault's is signed with; without them, those of the system.
    pub ca: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(2), timeout: Duration::from_secs(5), ca: None }
    }
}

/// Error of setting Vault up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The HTTP client.
    #[error("the HTTP client of Vault cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
    /// The certificates cannot be read.
    #[error("keys.ca: {}: {source}", path.display())]
    File {
        /// File that cannot be read.
        path: PathBuf,
        /// Operating system's error.
        source: std::io::Error,
    },
    /// The certificates are none.
    #[error("keys.ca: {} holds no certificate in PEM", path.display())]
    Certificates {
        /// File that holds no usable certificate.
        path: PathBuf,
    },
}

/// The token, read anew for each call; the error says why there is none.
pub type Token = Arc<dyn Fn() -> Result<Secret, String> + Send + Sync>;

/// Counts calls, of all keys of a process.
#[derive(Debug, Clone)]
pub struct Calls(IntCounterVec);

impl Calls {
    /// Creates the counters and registers them with the metrics of the process.
    ///
    /// # Panics
    /// If they are registered twice with one registry.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let calls = Opts::new("heddle_keys_vault_calls_total", "Calls of Vault's transit engine.");
        let calls = IntCounterVec::new(calls, &["call", "result"]).expect("the names are valid");
        registry.register(Box::new(calls.clone())).expect("each name is registered once");
        Self(calls)
    }
}

/// A key of Vault's transit engine.
pub struct Vault {
    client: Client,
    key: VaultKey,
    name: String,
    number: u32,
    token: Token,
    calls: Calls,
}

#[derive(Deserialize)]
struct Answer<T> {
    data: T,
}

#[derive(Deserialize)]
struct Ciphertext {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Plaintext {
    plaintext: String,
}

#[derive(Deserialize)]
struct Description {
    #[serde(default)]
    supports_encryption: bool,
    #[serde(default)]
    supports_decryption: bool,
}

/// Kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Encrypt,
    Decrypt,
    Rewrap,
    Rotate,
}

impl Call {
    fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Rewrap => "rewrap",
            Self::Rotate => "rotate",
        }
    }
}

impl Vault {
    /// # Errors
    /// [`SetupError`].
    pub fn new(key: VaultKey, token: Token, options: &Options, calls: Calls) -> Result<Self, SetupError> {
        let mut client = http::client().connect_timeout(options.connect_timeout).timeout(options.timeout);
        if let Some(path) = &options.ca {
            let pem =
                std::fs::read(path).map_err(|source| SetupError::File { path: path.clone(), source })?;
            let read = Certificate::from_pem_bundle(&pem).unwrap_or_default();
            if read.is_empty() {
                return Err(SetupError::Certificates { path: path.clone() });
            }
            client = read.into_iter().fold(client, reqwest::ClientBuilder::add_root_certificate);
        }
        // The host may be renamed, so it is not part of the number in ciphertexts.
        let id = Sha256::digest(format!("heddle/1/vault/{}/keys/{}", key.mount, key.name));
        Ok(Self {
            client: client.build()?,
            name: format!("vault:{key}"),
            number: u32::from_be_bytes([id[0], id[1], id[2], id[3]]),
            key,
            token,
            calls,
        })
    }

    fn path(&self, call: Call) -> String {
        let VaultKey { mount, name, .. } = &self.key;
        match call {
            Call::Read => format!("{mount}/keys/{name}"),
            Call::Rotate => format!("{mount}/keys/{name}/rotate"),
            call => format!("{mount}/{}/{name}", call.as_str()),
        }
    }

    async fn call(&self, call: Call, body: Option<&Value>) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let mut done = self.try_call(call, body).await;
        if matches!(done, Err(KeysError::Store(_))) && call != Call::Rotate {
            tokio::time::sleep(PAUSE).await;
            done = self.try_call(call, body).await;
        }
        let result = match &done {
            Ok(_) => "done",
            Err(KeysError::Store(_)) => "unavailable",
            Err(_) => "refused",
        };
        self.calls.0.with_label_values(&[call.as_str(), result]).inc();
        done
    }

    async fn try_call(&self, call: Call, body: Option<&Value>) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let token = (self.token)().map_err(|detail| KeysError::Master { detail })?;
        let method = if call == Call::Read { Method::GET } else { Method::POST };
        let url = format!("{}/v1/{}", self.key.base, self.path(call));
        let mut request = self.client.request(method, url).header("X-Vault-Request", "true");
        request = request.header("X-Vault-Token", token.expose());
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.not_answered(&error))?;
        let status = response.status();
        let body = http::read(response, MAX_ANSWER).await.map_err(|why| self.unavailable(why))?;
        if status.is_success() { Ok(Zeroizing::new(body)) } else { Err(self.refused(call, status, &body)) }
    }

    fn not_answered(&self, error: &reqwest::Error) -> KeysError {
        if error.is_builder() {
            let detail = "the token for Vault is no header's value; correct what keys.token names".into();
            return KeysError::Master { detail };
        }
        self.unavailable(match () {
            () if error.is_connect() => "no connection came about (address, TLS certificate, or it is down)",
            () if error.is_timeout() => "no answer came in time",
            () => "the connection was lost",
        })
    }

    fn unavailable(&self, why: &str) -> KeysError {
        let detail = format!("Vault at {}, which keeps the master key: {why}", self.key.base);
        KeysError::Store(StoreError::Unavailable { detail })
    }

    fn refused(&self, call: Call, status: StatusCode, body: &[u8]) -> KeysError {
        let message = message(body);
        let cause = if message.is_empty() {
            status.as_u16().to_string()
        } else {
            format!("{}, {message}", status.as_u16())
        };
        let (path, VaultKey { mount, name, base }) = (self.path(call), &self.key);
        let master = |detail: String| KeysError::Master { detail };
        let is_missing = message.contains("key not found") || message.contains("no handler for route");
        match status.as_u16() {
            401 | 403 => master(format!(
                "Vault at {base} refuses the token for {path} ({cause}): renew what keys.token names, or let its \
                 policy read {mount}/keys/{name} and update {mount}/encrypt/{name}, {mount}/decrypt/{name}, \
                 {mount}/rewrap/{name} (and {mount}/keys/{name}/rotate)"
            )),
            404 => master(missing(&self.key, &cause)),
            400 if is_missing => master(missing(&self.key, &cause)),
            400 if message.contains("disallowed by policy") => master(format!(
                "{} does not open with that version any more ({cause}): lower its min_decryption_version, run \
                 `heddle keys rotate`, and raise it again",
                self.name
            )),
            400 if matches!(call, Call::Decrypt | Call::Rewrap) => KeysError::Unreadable {
                detail: format!("{}: it was changed, moved, or wrapped by another key ({cause})", self.name),
            },
            412 | 429 | 500..=599 => self.unavailable(&match status.as_u16() {
                503 => format!("it is sealed or down ({cause}); unseal it"),
                _ => format!("it does not serve now ({cause})"),
            }),
            _ => master(format!("Vault at {base} does not take {path} ({cause})")),
        }
    }

    fn parsed<T: for<'de> Deserialize<'de>>(&self, body: &[u8]) -> Result<T, KeysError> {
        let answer: Result<Answer<T>, _> = serde_json::from_slice(body);
        answer
            .map(|answer| answer.data)
            .map_err(|_| self.unavailable("its answer is not one of the transit engine"))
    }

    fn ciphertext(&self, body: &[u8]) -> Result<Bytes, KeysError> {
        let Ciphertext { ciphertext } = self.parsed(body)?;
        match version(&ciphertext) {
            Some(_) => Ok(external(self.number, &ciphertext)),
            None => Err(self.unavailable("its answer is no ciphertext of the transit engine")),
        }
    }

    /// Returns the service's own ciphertext of a stored value.
    fn stored<'a>(&self, wrapped: &'a [u8]) -> Result<&'a str, KeysError> {
        let text = wrapped.get(EXTERNAL_HEADER..).and_then(|text| std::str::from_utf8(text).ok());
        text.ok_or_else(|| self.unreadable("it is cut short or changed"))
    }

    fn unreadable(&self, why: &str) -> KeysError {
        KeysError::Unreadable { detail: format!("{}: {why}", self.name) }
    }
}

fn missing(key: &VaultKey, cause: &str) -> String {
    let VaultKey { base, mount, name } = key;
    format!(
        "Vault at {base} has no transit key {name} at {mount} ({cause}): make it with `vault write -f \
         {mount}/keys/{name} derived=true`, or correct keys.master"
    )
}

/// The first of an answer's messages.
fn message(body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let first = body["errors"].get(0).and_then(Value::as_str).unwrap_or_default();
    first
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// The version in `vault:v3:...`.
fn version(ciphertext: &str) -> Option<u32> {
    let (version, rest) = ciphertext.strip_prefix("vault:v")?.split_once(':')?;
    if rest.is_empty() { None } else { version.parse().ok() }
}

#[async_trait]
impl Wrapper for Vault {
    fn number(&self) -> u32 {
        self.number
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_external(&self) -> bool {
        true
    }

    /// Reads the key, which is not made by mistake then, and has it encrypt and decrypt.
    async fn check(&self) -> Result<(), KeysError> {
        let body = self.call(Call::Read, None).await?;
        let Description { supports_encryption, supports_decryption } = self.parsed(&body)?;
        if !(supports_encryption && supports_decryption) {
            let detail =
                format!("{} is of a type that does not encrypt; make one of type aes256-gcm96", self.name);
            return Err(KeysError::Master { detail });
        }
        let (place, secret) = (b"check", [7; 32]);
        let wrapped = self.wrap(place, &secret).await?;
        if self.open(place, &wrapped).await?.as_slice() != secret {
            let detail = format!("{} opens something else than it wrapped", self.name);
            return Err(KeysError::Master { detail });
        }
        Ok(())
    }

    async fn wrap(&self, place: &[u8], secret: &[u8]) -> Result<Bytes, KeysError> {
        let plain = Zeroizing::new([&Sha256::digest(place)[..], secret].concat());
        let body = json!({ "plaintext": STANDARD.encode(&*plain), "context": STANDARD.encode(place) });
        let body = self.call(Call::Encrypt, Some(&body)).await?;
        self.ciphertext(&body)
    }

    async fn open(&self, place: &[u8], wrapped: &Bytes) -> Result<Zeroizing<Vec<u8>>, KeysError> {
        let body = json!({ "ciphertext": self.stored(wrapped)?, "context": STANDARD.encode(place) });
        let body = self.call(Call::Decrypt, Some(&body)).await?;
        let plain = Zeroizing::new(self.parsed::<Plaintext>(&body)?.plaintext);
        let plain = STANDARD.decode(&*plain).map(Zeroizing::new);
        let plain = plain.map_err(|_| self.unavailable("its answer is no base64"))?;
        let Some((bound, secret)) = plain.split_at_checked(PLACE) else {
            return Err(self.unreadable("Heddle did not wrap it"));
        };
        if !bool::from(bound.ct_eq(&Sha256::digest(place)[..])) {
            return Err(self.unreadable("it was moved"));
        }
        Ok(Zeroizing::new(secret.to_vec()))
    }

    async fn renew(&self, place: &[u8], wrapped: &Bytes) -> Result<Option<Bytes>, KeysError> {
        let body = json!({ "ciphertext": self.stored(wrapped)?, "context": STANDARD.encode(place) });
        let body = self.call(Call::Rewrap, Some(&body)).await?;
        let new = self.ciphertext(&body)?;
        // Vault encrypts anew also ciphertexts of the newest version.
        Ok(if self.version(&new) == self.version(wrapped) { None } else { Some(new) })
    }

    fn version(&self, wrapped: &[u8]) -> Option<u32> {
        version(self.stored(wrapped).ok()?)
    }

    async fn new_version(&self) -> Result<(), KeysError> {
        self.call(Call::Rotate, None).await.map(drop)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("name", &self.name).finish_non_exhaustive()
    }
}
