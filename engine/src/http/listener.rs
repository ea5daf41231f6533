//! Listener that clients without a secret cannot exhaust: connections are limited in number, in all and from one
//! address, and in the time that they take for a request's headers. A connection between two requests waits for
//! headers too, so the same timeout closes idle ones. HTTP/1.1 only: over HTTP/2 one connection carries hundreds
//! of requests, past every limit of connections.
//!
//! Bodies are limited by whoever reads them ([`super::body`]).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::metrics::Metrics;

/// Timeout for a request's headers, from the accepted connection or the answer before on. HashiCorp Vault's too.
const HEADERS: Duration = Duration::from_secs(10);
/// Longest wait for the requests in flight when the server stops.
const STOP: Duration = Duration::from_secs(5);
/// Pause after a connection could not be accepted, as when file descriptors have run out.
const PAUSE: Duration = Duration::from_millis(200);
/// Bytes that headers may take.
const HEADER_BYTES: usize = 32 << 10;

/// Error of a server that cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("{key} = \"{address}\": {source}; stop the process that uses it, or set another address")]
pub struct ListenError {
    /// Configuration key of the address.
    pub key: &'static str,
    /// Requested address.
    pub address: SocketAddr,
    /// Error of the operating system.
    #[source]
    pub source: std::io::Error,
}

/// Binds the address, so that a conflict shows before anything has been started.
///
/// # Errors
/// [`ListenError`].
pub async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { key, address, source })
}

/// Numbers of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most at once; more wait to be accepted.
    pub connections: usize,
    /// Most at once from one address; more are closed.
    pub per_address: usize,
}

/// Running server.
pub struct Server {
    /// Listen address.
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: JoinHandle<()>,
}

impl Server {
    /// Serves on a bound address.
    ///
    /// # Errors
    /// The operating system's, where the listener has no address.
    pub fn start(
        listener: TcpListener,
        paths: Router,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (stop, stopped) = watch::channel(false);
        let gate = Gate {
            permits: Arc::new(Semaphore::new(limits.connections)),
            peers: Arc::default(),
            per_address: limits.per_address,
            metrics,
        };
        let ended = tokio::spawn(serve(listener, paths, gate, stopped));
        Ok(Self { address, stop, ended })
    }

    /// Accepts no more connections, answers the requests in flight, and stops.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // Idle connections are closed at once; a slow request has this long.
        drop(tokio::time::timeout(STOP, self.ended).await);
    }
}

/// Admission of connections.
struct Gate {
    permits: Arc<Semaphore>,
    /// Connections by address; at most as many entries as there are permits.
    peers: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    per_address: usize,
    metrics: Arc<Metrics>,
}

impl Gate {
    /// Waits until there is a place, then for a connection.
    async fn accept(&self, listener: &TcpListener) -> Option<(TcpStream, SocketAddr, Place)> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok((stream, peer)) => Some((stream, peer, self.place(peer.ip().to_canonical(), permit)?)),
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                None
            }
        }
    }

    fn place(&self, address: IpAddr, permit: OwnedSemaphorePermit) -> Option<Place> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = peers.entry(address).or_default();
        if *count >= self.per_address {
            self.metrics.connection_refused();
            return None;
        }
        *count += 1;
        drop(peers);
        self.metrics.connections(1);
        Some(Place { address, peers: self.peers.clone(), metrics: self.metrics.clone(), _permit: permit })
    }
}

/// Place of one connection, free again when it is dropped.
struct Place {
    address: IpAddr,
    peers: Arc<Mutex<BTreeMap<IpAddr, usize>>>,
    metrics: Arc<Metrics>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = peers.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                peers.remove(&self.address);
            }
        }
        self.metrics.connections(-1);
    }
}

async fn serve(listener: TcpListener, paths: Router, gate: Gate, mut stopped: watch::Receiver<bool>) {
    // As many as the gate has places.
    let mut connections = JoinSet::new();
    let stops = stopped.clone();
    loop {
        tokio::select! {
            // The handle of a dropped server has stopped it too.
            _ = stopped.wait_for(|stopped| *stopped) => break,
            Some(_) = connections.join_next() => {}
            accepted = gate.accept(&listener) => {
                if let Some((stream, peer, place)) = accepted {
                    connections.spawn(connection(stream, peer, paths.clone(), place, stops.clone()));
                }
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    paths: Router,
    place: Place,
    mut stopped: watch::Receiver<bool>,
) {
    // Answers are small: waiting for more to send would only delay them.
    drop(stream.set_nodelay(true));
    let paths = TowerToHyperService::new(paths);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        paths.call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADER_BYTES);
    let connection = http.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(stopped.wait_for(|stopped| *stopped).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, or one that was too slow.
        tracing::debug!(%error, "a connection ended");
    }
    drop(place);
}
