//! The exchange of packets with a client that was let in.

use super::{
    Limits, Reason,
    clients::Seat,
    hub::Uplink,
    pace::Pace,
    packets::{self, Packets},
    reason::Counters,
    rules::{self, Verdict},
};
use crate::pressure::{self, Pressure};
use bytes::BytesMut;
use palmgate_protocol::{Name, limits::MAX_PAYLOAD_BYTES, topic::GATEWAY};
use rumqttd::{Notification, local::LinkRx, protocol::Packet};
use std::{
    collections::VecDeque,
    future,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{self, AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

/// A payload, its topic and identifier.
const MAX_PACKET: usize = MAX_PAYLOAD_BYTES + 256;
/// Answers that a client may have to wait for before more of it is read. The router answers nobody
/// who still has to acknowledge a hundred messages, and those acknowledgements come behind what
/// the client sends: this has to be more than any client has under way, or both wait for ever.
const MAX_OWED: usize = 1024;
/// Answers of our own that wait to be written.
const MAX_ANSWERS: usize = 64;
/// Bytes that are collected before they are written.
const WRITE_SIZE: usize = 64 * 1024;

/// A client that was let in. Fields are dropped in this order: the link before the seat.
pub(super) struct Session<S> {
    pub(super) stream: S,
    pub(super) packets: Packets,
    pub(super) uplink: Uplink,
    pub(super) downlink: LinkRx,
    pub(super) seat: Seat,
    pub(super) name: Name,
    pub(super) keep_alive: Duration,
    /// How long the certificate is still valid.
    pub(super) valid: Duration,
}

/// What the two directions of a session share.
struct Exchange<'a> {
    name: &'a Name,
    limits: &'a Limits,
    counters: &'a Counters,
    pressure: &'a Pressure,
    /// One permit for each answer that may still be owed.
    owed: Semaphore,
    /// Messages under way to the client, oldest first.
    unacknowledged: Mutex<VecDeque<u16>>,
}

/// How fast a terminal is read.
struct Paces {
    bytes: Pace,
    messages: Pace,
    /// While people wait.
    hands: Pace,
}

impl Paces {
    fn new(limits: &Limits, now: Instant) -> Self {
        let Limits { bytes_per_second, burst_bytes, .. } = *limits;
        let Limits { messages_per_second, burst_messages, .. } = *limits;
        Self {
            bytes: Pace::new(bytes_per_second, burst_bytes, now),
            messages: Pace::new(messages_per_second, burst_messages, now),
            hands: Pace::new(pressure::PER_SECOND, pressure::AT_ONCE, now),
        }
    }

    /// Counts a message; the answer is how long to wait before going on.
    fn charge(
        &mut self,
        terminal: &Name,
        bytes: usize,
        pressure: &Pressure,
        now: Instant,
    ) -> Duration {
        let wait = self.bytes.charge(bytes, now).max(self.messages.charge(1, now));
        // What is to spare is not charged: nobody pays later for having had it.
        if !pressure.is_on(now) {
            return wait;
        }
        let hands = self.hands.charge(1, now);
        if !hands.is_zero() {
            pressure.flooded(terminal, now);
        }
        wait.max(hands)
    }
}

impl<S: AsyncRead + AsyncWrite> Session<S> {
    /// Serves the client until one side ends it.
    pub(super) async fn serve(
        self,
        limits: &Limits,
        counters: &Counters,
        pressure: &Pressure,
    ) -> Reason {
        // The seat comes first, to be dropped last, whatever happens.
        let Self { mut seat, stream, packets, uplink, mut downlink, name, keep_alive, valid } =
            self;
        let exchange = Exchange {
            name: &name,
            limits,
            counters,
            pressure,
            owed: Semaphore::new(MAX_OWED),
            unacknowledged: Mutex::default(),
        };
        let (reader, writer) = io::split(stream);
        let (answers, answered) = mpsc::channel(MAX_ANSWERS);
        let silence = keep_alive.mul_f32(1.5);
        let reason = tokio::select! { biased;
            reason = seat.stopped() => reason,
            () = sleep(valid) => Reason::CertificateExpired,
            Err(reason) = exchange.receive(reader, packets, &uplink, answers, silence) => reason,
            Err(reason) = exchange.transmit(writer, &mut downlink, answered) => reason,
            else => Reason::Left,
        };
        drop(uplink);
        drop(seat);
        reason
    }
}

impl Exchange<'_> {
    /// From the client to the router.
    async fn receive(
        &self,
        mut reader: impl AsyncRead + Unpin,
        mut packets: Packets,
        uplink: &Uplink,
        answers: mpsc::Sender<Packet>,
        silence: Duration,
    ) -> Result<(), Reason> {
        let answer = async |packet| answers.send(packet).await.map_err(|_| Reason::Lost);
        let mut paces = Paces::new(self.limits, Instant::now());
        loop {
            let next = timeout(silence, packets.next(&mut reader, MAX_PACKET));
            match rules::judge(self.name, next.await.map_err(|_| Reason::Silent)??)? {
                Verdict::Forward { packet, answered, bytes } => {
                    // The gateway speaks for the whole store, at the pace of what it was asked.
                    if self.name.as_str() != GATEWAY {
                        let wait = paces.charge(self.name, bytes, self.pressure, Instant::now());
                        // A sleep of no length would still take a millisecond.
                        if !wait.is_zero() {
                            self.counters.hold_back();
                            sleep(wait).await;
                        }
                    }
                    if answered && let Ok(owed) = self.owed.acquire().await {
                        owed.forget();
                    }
                    uplink.send(packet).await?;
                }
                Verdict::Acknowledgement(identifier, packet) => {
                    self.acknowledge(identifier)?;
                    uplink.send(packet).await?;
                }
                Verdict::Unsubscribe(packet, acknowledgement) => {
                    uplink.unsubscribe(packet).await?;
                    answer(Packet::UnsubAck(acknowledgement, None)).await?;
                }
                Verdict::Refuse(refusal) => {
                    self.counters.count(Reason::Filter);
                    tracing::warn!(terminal = %self.name, reason = %Reason::Filter, "refused");
                    answer(Packet::SubAck(refusal, None)).await?;
                }
                Verdict::Leave => return Err(Reason::Left),
            }
        }
    }

    /// The router drops a client that acknowledges anything but its oldest message, so this is
    /// the place to find out (MQTT-4.6.0-2).
    fn acknowledge(&self, identifier: u16) -> Result<(), Reason> {
        let mut unacknowledged = self.unacknowledged.lock().unwrap_or_else(PoisonError::into_inner);
        match unacknowledged.pop_front() {
            Some(oldest) if oldest == identifier => Ok(()),
            _ => Err(Reason::Unexpected),
        }
    }

    /// From the router to the client.
    async fn transmit(
        &self,
        mut writer: impl AsyncWrite + Unpin,
        downlink: &mut LinkRx,
        mut answers: mpsc::Receiver<Packet>,
    ) -> Result<(), Reason> {
        let mut out = BytesMut::with_capacity(4096);
        loop {
            let packet = tokio::select! { biased;
                Some(answer) = answers.recv() => Some(answer),
                next = downlink.next() => match next.map_err(|_| Reason::RouterLost)? {
                    // The router waits until its last batch is written.
                    Some(Notification::Unschedule) => {
                        self.write(&mut writer, &mut out).await?;
                        downlink.wake().await.map_err(|_| Reason::RouterLost)?;
                        None
                    }
                    Some(notification) => self.passed_on(notification),
                    None => None,
                },
                () = future::ready(()), if !out.is_empty() => {
                    self.write(&mut writer, &mut out).await?;
                    None
                }
            };
            let Some(packet) = packet else { continue };
            if let Some(identifier) = packets::encode(packet, &mut out)? {
                self.unacknowledged
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push_back(identifier);
            }
            if out.len() >= WRITE_SIZE {
                self.write(&mut writer, &mut out).await?;
            }
        }
    }

    /// What the router wants the client to see, without the answers to our own requests.
    fn passed_on(&self, notification: Notification) -> Option<Packet> {
        let packet = Option::<Packet>::from(notification)?;
        match &packet {
            Packet::UnsubAck(..) => return None,
            Packet::SubAck(ack, _) if ack.pkid == 0 => return None,
            Packet::PubAck(..) | Packet::SubAck(..) | Packet::PingResp(..) => {
                self.owed.add_permits(1);
            }
            _ => {}
        }
        Some(packet)
    }

    /// Writes what was collected; a reader that is too slow for that loses its connection.
    async fn write(
        &self,
        writer: &mut (impl AsyncWrite + Unpin),
        out: &mut BytesMut,
    ) -> Result<(), Reason> {
        let write = async {
            writer.write_all(out).await?;
            writer.flush().await
        };
        let written = timeout(self.limits.write_deadline, write).await;
        written.map_err(|_| Reason::SlowReader)?.map_err(|_| Reason::Lost)?;
        out.clear();
        if out.capacity() > 4 * WRITE_SIZE {
            *out = BytesMut::with_capacity(4096);
        }
        Ok(())
    }
}
