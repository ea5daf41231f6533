//! Stand-in for Vault's transit engine, on loopback: it keeps versions of keys, requires the token, and opens
//! only what it encrypted.
//!
//! Answers and messages are Vault's (<https://developer.hashicorp.com/vault/api-docs/secret/transit>, and the
//! `errors` of `builtin/logical/transit`); its encryption is its own: a keystream and a tag of
//! HMAC-SHA-256, so that no code under test is used to test it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The token that is taken at first.
pub const TOKEN: &str = "hvs.stand-in";

struct TransitKey {
    derived: bool,
    versions: Vec<[u8; 32]>,
    min_decryption: usize,
    encrypts: bool,
}

struct Inner {
    keys: BTreeMap<String, TransitKey>,
    token: String,
    sealed: bool,
    calls: HashMap<String, usize>,
    nonces: u64,
}

/// A running stand-in.
pub struct Transit {
    inner: Arc<Mutex<Inner>>,
    address: SocketAddr,
    serving: Mutex<Option<JoinHandle<()>>>,
}

type Fault = (StatusCode, &'static str);

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

fn keystream(key: &[u8], nonce: &[u8], text: &[u8]) -> Vec<u8> {
    let block = |(i, chunk): (usize, &[u8])| {
        let pad = mac(key, &[b"stream", nonce, &i.to_be_bytes()]);
        chunk.iter().zip(pad).map(|(text, pad)| text ^ pad).collect::<Vec<_>>()
    };
    text.chunks(32).enumerate().flat_map(block).collect()
}

fn bad(message: &'static str) -> Fault {
    (StatusCode::BAD_REQUEST, message)
}

fn decoded(body: &Value, field: &str) -> Result<Vec<u8>, Fault> {
    STANDARD
        .decode(body[field].as_str().unwrap_or_default())
        .map_err(|_| bad("illegal base64 data at input byte 0"))
}

impl TransitKey {
    fn key(&self, version: usize, context: &[u8]) -> Result<[u8; 32], Fault> {
        let key = self.versions[version - 1];
        match (self.derived, context) {
            (false, _) => Ok(key),
            (true, []) => {
                Err(bad("missing 'context' for key derivation; the key was created using a derived key"))
            }
            (true, context) => Ok(mac(&key, &[b"derive", context])),
        }
    }

    fn encrypt(&self, nonce: u64, context: &[u8], plain: &[u8]) -> Result<String, Fault> {
        let version = self.versions.len();
        let (key, nonce) = (self.key(version, context)?, nonce.to_be_bytes());
        let sealed = keystream(&key, &nonce, plain);
        let tag = mac(&key, &[b"tag", &nonce, &sealed]);
        Ok(format!("vault:v{version}:{}", STANDARD.encode([&nonce[..], &tag, &sealed].concat())))
    }

    fn decrypt(&self, context: &[u8], ciphertext: &str) -> Result<Vec<u8>, Fault> {
        let rest = ciphertext.strip_prefix("vault:v").ok_or(bad("invalid ciphertext: no prefix"))?;
        let (version, sealed) =
            rest.split_once(':').ok_or(bad("invalid ciphertext: wrong number of fields"))?;
        let version: usize =
            version.parse().map_err(|_| bad("invalid ciphertext: version number could not be decoded"))?;
        let version = version.max(1);
        if version > self.versions.len() {
            return Err(bad("invalid ciphertext: version is too new"));
        }
        if version < self.min_decryption {
            return Err(bad("ciphertext or signature version is disallowed by policy (too old)"));
        }
        let sealed =
            STANDARD.decode(sealed).map_err(|_| bad("invalid ciphertext: could not decode base64"))?;
        if sealed.len() < 40 {
            return Err(bad("invalid ciphertext length"));
        }
        let (head, sealed) = sealed.split_at(40);
        let (nonce, tag) = head.split_at(8);
        let key = self.key(version, context)?;
        if mac(&key, &[b"tag", nonce, sealed]) != tag {
            return Err(bad("cipher: message authentication failed"));
        }
        Ok(keystream(&key, nonce, sealed))
    }

    fn described(&self) -> Value {
        json!({
            "type": "aes256-gcm96",
            "derived": self.derived,
            "latest_version": self.versions.len(),
            "min_decryption_version": self.min_decryption,
            "supports_encryption": self.encrypts,
            "supports_decryption": self.encrypts,
            "keys": (1..=self.versions.len()).map(|version| (version.to_string(), json!(1_442_851_412))).collect::<serde_json::Map<_, _>>(),
        })
    }
}

impl Inner {
    fn answer(
        &mut self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Value, Fault> {
        if self.sealed {
            return Err((StatusCode::SERVICE_UNAVAILABLE, "Vault is sealed"));
        }
        let token = headers.get("x-vault-token").and_then(|token| token.to_str().ok());
        if token != Some(&self.token) {
            return Err((StatusCode::FORBIDDEN, "permission denied"));
        }
        let path =
            path.strip_prefix("/v1/transit/").ok_or((StatusCode::NOT_FOUND, "no handler for route"))?;
        let parts: Vec<_> = path.split('/').collect();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        self.nonces += 1;
        let nonce = self.nonces;
        let (call, name) = match (method.as_str(), &parts[..]) {
            ("GET", ["keys", name]) => ("read", *name),
            ("POST" | "PUT", ["keys", name, "rotate"]) => ("rotate", *name),
            ("POST" | "PUT", [call @ ("encrypt" | "decrypt" | "rewrap"), name]) => (*call, *name),
            _ => return Err((StatusCode::METHOD_NOT_ALLOWED, "unsupported operation")),
        };
        *self.calls.entry(call.to_owned()).or_default() += 1;
        let key = self.keys.get_mut(name).ok_or(match call {
            "read" => (StatusCode::NOT_FOUND, ""),
            "rotate" => bad("key not found"),
            _ => bad("encryption key not found"),
        })?;
        let context = decoded(&body, "context")?;
        let ciphertext = body["ciphertext"].as_str().unwrap_or_default();
        match call {
            "read" => Ok(key.described()),
            "rotate" => {
                key.versions.push(new_key(name, key.versions.len()));
                Ok(key.described())
            }
            "encrypt" => {
                let plain = decoded(&body, "plaintext")?;
                Ok(
                    json!({ "ciphertext": key.encrypt(nonce, &context, &plain)?, "key_version": key.versions.len() }),
                )
            }
            "decrypt" => Ok(json!({ "plaintext": STANDARD.encode(key.decrypt(&context, ciphertext)?) })),
            _ => {
                let plain = key.decrypt(&context, ciphertext)?;
                Ok(
                    json!({ "ciphertext": key.encrypt(nonce, &context, &plain)?, "key_version": key.versions.len() }),
                )
            }
        }
    }
}

/// No two keys or versions are alike, and every run has the same.
fn new_key(name: &str, version: usize) -> [u8; 32] {
    mac(b"stand-in", &[name.as_bytes(), &version.to_be_bytes()])
}

async fn handle(
    State(inner): State<Arc<Mutex<Inner>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match inner.lock().unwrap().answer(&method, uri.path(), &headers, &body) {
        Ok(data) => Json(json!({ "request_id": "1", "lease_duration": 0, "data": data })).into_response(),
        // Vault answers so for a path at which it reads nothing.
        Err((status, "")) => (status, Json(json!({ "errors": [] }))).into_response(),
        Err((status, message)) => (status, Json(json!({ "errors": [message] }))).into_response(),
    }
}
impl Transit {
    /// Without any key.
    pub async fn start() -> Self {
        let inner = Inner {
            keys: BTreeMap::new(),
            token: TOKEN.to_owned(),
            sealed: false,
            calls: HashMap::new(),
            nonces: 0,
        };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { inner: Arc::new(Mutex::new(inner)), address, serving: Mutex::new(None) };
        this.serve(listener);
        this
    }

    fn serve(&self, listener: TcpListener) {
        let router = Router::new().fallback(handle).with_state(self.inner.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *self.serving.lock().unwrap() = Some(serving);
    }

    /// Stops listening.
    pub async fn stop(&self) {
        let serving = self.serving.lock().unwrap().take();
        if let Some(serving) = serving {
            serving.abort();
            let _ = serving.await;
        }
    }

    /// Listens again at the same address.
    pub async fn resume(&self) {
        self.serve(TcpListener::bind(self.address).await.unwrap());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Makes a key, if there is none.
    pub fn make(&self, name: &str, derived: bool) {
        let versions = vec![new_key(name, 0)];
        let key = TransitKey { derived, versions, min_decryption: 1, encrypts: true };
        self.inner().keys.entry(name.to_owned()).or_insert(key);
    }

    /// Removes a key.
    pub fn remove(&self, name: &str) {
        self.inner().keys.remove(name);
    }

    /// A key that only signs.
    pub fn make_signing(&self, name: &str) {
        self.make(name, false);
        self.inner().keys.get_mut(name).unwrap().encrypts = false;
    }

    /// Seals it, or unseals it.
    pub fn seal(&self, sealed: bool) {
        self.inner().sealed = sealed;
    }

    /// Takes this token from now on.
    pub fn set_token(&self, token: &str) {
        self.inner().token = token.to_owned();
    }

    /// Sets the oldest version that still opens.
    pub fn set_min_decryption(&self, name: &str, version: usize) {
        self.inner().keys.get_mut(name).unwrap().min_decryption = version;
    }

    /// Returns the number of calls of one kind.
    pub fn calls(&self, call: &str) -> usize {
        self.inner().calls.get(call).copied().unwrap_or_default()
    }

    /// Returns the address of a key, as a configuration names it.
    pub fn key(&self, name: &str) -> String {
        format!("http://{}/transit/keys/{name}", self.address)
    }
}

impl Drop for Transit {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }
}
