//! The way in: TCP, TLS, the certificate's name, CONNECT.

use super::{
    Limits, Reason,
    clients::Clients,
    hub::Hub,
    packets::{self, Packets},
    porch::Porch,
    reason::{Counters, Fault},
    rules,
    session::Session,
};
use crate::pressure::Pressure;
use bytes::BytesMut;
use palmgate_protocol::Name;
use rumqttd::protocol::{ConnAck, ConnectReturnCode, Packet};
use rustls::{CertificateError, ProtocolVersion, ServerConfig};
use std::{io, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use x509_parser::prelude::{FromDer, X509Certificate};

/// CONNECT with a client id of ours; a user name and password fit in, and are ignored.
const MAX_CONNECT: usize = 1024;
/// How long a refusal may take to be written.
const REFUSAL: Duration = Duration::from_secs(1);
/// Pause when the system gives no more sockets.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// What all connections share.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) counters: Arc<Counters>,
    pub(super) clients: Arc<Clients>,
    pub(super) porch: Arc<Porch>,
    pub(super) hub: Hub,
    pub(super) tls: watch::Receiver<Arc<ServerConfig>>,
    pub(super) pressure: Pressure,
}

/// What a certificate says about its holder, and by which configuration it was judged.
pub(super) struct Identity {
    pub(super) name: Name,
    pub(super) valid: Duration,
    pub(super) judged_by: Arc<ServerConfig>,
}

/// Who was refused: the name once a certificate has proved it.
struct Refused {
    name: Option<Name>,
    reason: Reason,
}

/// Lets clients in until the sender of `stop` is gone.
pub(super) async fn run(listener: TcpListener, shared: Arc<Shared>, mut stop: watch::Receiver<()>) {
    loop {
        let accepted = tokio::select! { biased;
            _ = stop.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::spawn(shared.clone().visit(stream, peer.ip()));
            }
            Err(error) => {
                tracing::warn!(%error, "the system refused a connection");
                sleep(EXHAUSTED).await;
            }
        }
    }
}

/// A resumed session would skip the look at the revocation list.
fn without_resumption(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

impl Shared {
    async fn visit(self: Arc<Self>, stream: TcpStream, address: IpAddr) {
        let mut place = self.porch.enter(address, &self.limits);
        let crowded_out = Err(Refused { name: None, reason: Reason::CrowdedOut });
        let admitted = tokio::select! { biased;
            () = place.lost() => crowded_out,
            admitted = self.admit(stream, address) => admitted,
        };
        drop(place);
        let (name, reason) = match admitted {
            Ok(session) => {
                let name = session.name.clone();
                self.counters.accept();
                tracing::info!(terminal = %name, "connected");
                (Some(name), session.serve(&self.limits, &self.counters, &self.pressure).await)
            }
            Err(Refused { name, reason }) => (name, reason),
        };
        self.counters.count(reason);
        log(name.as_ref(), reason);
    }

    async fn admit(
        &self,
        stream: TcpStream,
        address: IpAddr,
    ) -> Result<Session<TlsStream<TcpStream>>, Refused> {
        let tls = self.tls.borrow().clone();
        let handshake = timeout(self.limits.handshake_deadline, handshake(stream, tls)).await;
        let (stream, identity) = handshake
            .unwrap_or(Err(Reason::HandshakeTimeout))
            .map_err(|reason| Refused { name: None, reason })?;
        let name = identity.name.clone();
        self.connect(stream, address, identity)
            .await
            .map_err(|reason| Refused { name: Some(name), reason })
    }

    /// From the proven name to the session.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut stream: S,
        address: IpAddr,
        Identity { name, valid, judged_by }: Identity,
    ) -> Result<Session<S>, Reason> {
        let mut packets = Packets::new();
        let first = timeout(self.limits.connect_deadline, packets.next(&mut stream, MAX_CONNECT));
        let Ok(frame) = first.await.map_err(|_| Reason::ConnectTimeout)? else {
            return Err(Reason::NotConnect);
        };
        let Packet::Connect(connect, _, will, _, _) = frame.packet else {
            return Err(Reason::NotConnect);
        };
        let allowed = rules::connect(&name, &connect, will.as_ref(), &self.limits);
        let entered = async {
            let keep_alive = allowed?;
            let seat = self.clients.seat(&name, address, &self.limits).await?;
            // From here on `Broker::disconnect` finds the client. A revocation that came before
            // has replaced the configuration.
            if !Arc::ptr_eq(&judged_by, &self.tls.borrow()) {
                return Err(Reason::Outdated);
            }
            let link = self.hub.open(name.clone(), connect.clean_session).await?;
            Ok((keep_alive, seat, link))
        };
        let (keep_alive, seat, (uplink, downlink, acknowledgement)) = match entered.await {
            Ok(entered) => entered,
            Err(reason) => {
                refuse(&mut stream, reason).await;
                return Err(reason);
            }
        };
        let replied = timeout(self.limits.write_deadline, reply(&mut stream, acknowledgement));
        replied.await.map_err(|_| Reason::SlowReader)?.map_err(|_| Reason::Lost)?;
        Ok(Session { stream, packets, uplink, downlink, seat, name, keep_alive, valid })
    }
}

async fn handshake(
    stream: TcpStream,
    tls: Arc<ServerConfig>,
) -> Result<(TlsStream<TcpStream>, Identity), Reason> {
    // Without it, Nagle's algorithm and delayed acknowledgements add 40 ms to every answer.
    stream.set_nodelay(true).map_err(|_| Reason::Lost)?;
    let acceptor = TlsAcceptor::from(without_resumption(&tls));
    let stream = acceptor.accept(stream).await.map_err(|error| diagnose(&error))?;
    let connection = stream.get_ref().1;
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(Reason::HandshakeFailed);
    }
    let chain = connection.peer_certificates().ok_or(Reason::CertificateMissing)?;
    let leaf = chain.first().ok_or(Reason::CertificateMissing)?;
    // The clock that the verifier went by: the system's may have jumped.
    let now = tls.time_provider.current_time().ok_or(Reason::HandshakeFailed)?;
    let (name, valid) = identify(leaf, Duration::from_secs(now.as_secs()))?;
    Ok((stream, Identity { name, valid, judged_by: tls }))
}

fn diagnose(error: &io::Error) -> Reason {
    use CertificateError::{Expired, ExpiredContext, Revoked};
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match error {
        Some(rustls::Error::NoCertificatesPresented) => Reason::CertificateMissing,
        Some(rustls::Error::InvalidCertificate(problem)) => match problem {
            Revoked => Reason::CertificateRevoked,
            Expired | ExpiredContext { .. } => Reason::CertificateExpired,
            _ => Reason::CertificateForeign,
        },
        _ => Reason::HandshakeFailed,
    }
}

/// The verifier has checked signature and validity; this reads whom it is about.
fn identify(leaf: &[u8], now: Duration) -> Result<(Name, Duration), Reason> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| Reason::CertificateName)?;
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(Reason::CertificateName);
    };
    let name = name.as_str().ok().and_then(|name| name.parse().ok());
    let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    let valid = Duration::from_secs(end).saturating_sub(now);
    Ok((name.ok_or(Reason::CertificateName)?, valid))
}

/// Tells the client why, as far as MQTT 3.1.1 has a code for it. It may not listen.
async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, reason: Reason) {
    let code = match reason {
        Reason::ClientId => ConnectReturnCode::ClientIdentifierNotValid,
        Reason::TooManyClients | Reason::Busy | Reason::RouterLost => {
            ConnectReturnCode::ServiceUnavailable
        }
        _ => ConnectReturnCode::NotAuthorized,
    };
    let refusal = Packet::ConnAck(ConnAck { session_present: false, code }, None);
    let farewell = async {
        reply(stream, refusal).await?;
        stream.shutdown().await
    };
    let _ = timeout(REFUSAL, farewell).await;
}

async fn reply<S: AsyncWrite + Unpin>(stream: &mut S, packet: Packet) -> io::Result<()> {
    let mut out = BytesMut::new();
    packets::encode(packet, &mut out).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&out).await?;
    stream.flush().await
}

fn log(name: Option<&Name>, reason: Reason) {
    let terminal = name.map_or("-", Name::as_str);
    match reason.fault() {
        Fault::Stranger => tracing::debug!(terminal, %reason, "refused"),
        Fault::Terminal => tracing::warn!(terminal, %reason, "refused"),
        Fault::Network => tracing::info!(terminal, %reason, "connection ended"),
        Fault::Broker => tracing::error!(terminal, %reason, "connection ended"),
        Fault::Nobody => tracing::info!(terminal, %reason, "disconnected"),
    }
}
