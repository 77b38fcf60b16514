//! Mutual TLS: a connection becomes a [`Peer`] before a byte of HTTP is read.

use axum::{Extension, Router};
use axum_server::{
    accept::{Accept, NoDelayAcceptor},
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use palmgate_protocol::Name;
use palmgate_seal::pki;
use ring::digest::{SHA256, digest};
use rustls::{ServerConfig, pki_types::CertificateDer};
use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use crate::clock;

/// Connections that have not shown a certificate yet.
const MAX_HANDSHAKES: usize = 4096;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// Connections of one store.
const MAX_CONNECTIONS: usize = 32;

/// Who is at the other end of a connection. It holds the store's place until the connection ends.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) name: Name,
    /// SHA-256 of the certificate.
    pub(crate) fingerprint: [u8; 32],
    _place: Arc<OwnedSemaphorePermit>,
}

/// Lets in whoever holds a certificate of the tenant's authority.
#[derive(Clone)]
pub(crate) struct Doorkeeper {
    config: RustlsConfig,
    tls: RustlsAcceptor<NoDelayAcceptor>,
    authority: CertificateDer<'static>,
    handshakes: Arc<Semaphore>,
    places: Arc<Mutex<HashMap<Name, Arc<Semaphore>>>>,
}

type TlsStream = <RustlsAcceptor<NoDelayAcceptor> as Accept<TcpStream, Router>>::Stream;

impl Doorkeeper {
    pub(crate) fn new(config: ServerConfig, authority: CertificateDer<'static>) -> Self {
        let config = RustlsConfig::from_config(http1(config));
        let tls = RustlsAcceptor::new(config.clone())
            .handshake_timeout(HANDSHAKE_DEADLINE)
            .acceptor(NoDelayAcceptor::new());
        Self {
            config,
            tls,
            authority,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            places: Arc::default(),
        }
    }

    /// Shows another certificate from the next connection on.
    pub(crate) fn renew(&self, config: ServerConfig) {
        self.config.reload_from_config(http1(config));
    }

    fn peer(&self, certificate: &CertificateDer<'_>) -> io::Result<Peer> {
        let name = pki::verify(certificate, &self.authority, clock::now()).map_err(other)?;
        let hash = digest(&SHA256, certificate);
        let fingerprint = hash.as_ref().try_into().map_err(other)?;
        let place = self.place(&name).try_acquire_owned().map_err(other)?;
        Ok(Peer { name, fingerprint, _place: Arc::new(place) })
    }

    fn place(&self, name: &Name) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Arc::new(Semaphore::new(MAX_CONNECTIONS));
        places.entry(name.clone()).or_insert_with(fresh).clone()
    }
}

impl Accept<TcpStream, Router> for Doorkeeper {
    type Stream = TlsStream;
    type Service = Router;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, Self::Service)>> + Send>>;

    fn accept(&self, stream: TcpStream, routes: Router) -> Self::Future {
        let door = self.clone();
        Box::pin(async move {
            let waiting = door.handshakes.clone().try_acquire_owned().map_err(other)?;
            let (stream, routes) = door.tls.accept(stream, routes).await?;
            drop(waiting);
            let certificates = stream.get_ref().1.peer_certificates();
            let certificate = certificates.and_then(<[_]>::first);
            let peer = door.peer(certificate.ok_or(io::ErrorKind::PermissionDenied)?)?;
            Ok((stream, routes.layer(Extension(peer))))
        })
    }
}

fn http1(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}
