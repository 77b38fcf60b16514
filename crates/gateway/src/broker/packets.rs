//! MQTT packets on a byte stream: what arrives is bounded and checked before it is decoded.

use super::Reason;
use bytes::BytesMut;
use rumqttd::protocol::{
    Error, Packet, Protocol,
    v4::{self, V4},
};
use tokio::io::{AsyncRead, AsyncReadExt};

const DUPLICATE: u8 = 0b1000;

/// A decoded packet and what the codec keeps to itself.
pub(super) struct Frame {
    pub(super) packet: Packet,
    /// Of a PUBLISH; 0 otherwise.
    pub(super) qos: u8,
}

/// Bytes that have arrived and are not decoded yet.
pub(super) struct Packets(BytesMut);

impl Packets {
    pub(super) fn new() -> Self {
        Self(BytesMut::with_capacity(4096))
    }

    /// The next packet, of at most `max` bytes after its fixed header. Cancelling loses nothing.
    pub(super) async fn next<R: AsyncRead + Unpin>(
        &mut self,
        stream: &mut R,
        max: usize,
    ) -> Result<Frame, Reason> {
        loop {
            if let Some(frame) = decode(&mut self.0, max)? {
                return Ok(frame);
            }
            match stream.read_buf(&mut self.0).await {
                Ok(0) | Err(_) => return Err(Reason::Lost),
                Ok(_) => {}
            }
        }
    }
}

fn decode(buffer: &mut BytesMut, max: usize) -> Result<Option<Frame>, Reason> {
    let Some(&first) = buffer.first() else { return Ok(None) };
    let qos = check_first(first)?;
    match v4::check(buffer.iter(), max) {
        Ok(_) => {}
        Err(Error::InsufficientBytes(missing)) => {
            // Just what is missing: a payload keeps its whole buffer alive in the router's log.
            buffer.reserve(missing);
            return Ok(None);
        }
        Err(Error::PayloadSizeLimitExceeded(_)) => return Err(Reason::TooLarge),
        Err(_) => return Err(Reason::Malformed),
    }
    if first >> 4 == 3 {
        // The router would pass the sender's flag on to the receivers (MQTT-3.3.1-3).
        buffer[0] &= !DUPLICATE;
    }
    let packet = V4.read_mut(buffer, max).map_err(|_| Reason::Malformed)?;
    Ok(Some(Frame { packet, qos }))
}

/// Packets at the beginning of `bytes`, and why the next one is none.
pub(super) fn count(bytes: &[u8], max: usize) -> (usize, Option<Reason>) {
    let (mut buffer, mut packets) = (BytesMut::from(bytes), 0);
    loop {
        match decode(&mut buffer, max) {
            Ok(Some(_)) => packets += 1,
            Ok(None) => return (packets, None),
            Err(reason) => return (packets, Some(reason)),
        }
    }
}

/// Type and flags, by MQTT 3.1.1 section 2.2; the codec ignores the flags. The answer is the
/// quality of service of a PUBLISH.
fn check_first(first: u8) -> Result<u8, Reason> {
    let (kind, flags) = (first >> 4, first & 0x0f);
    match (kind, flags) {
        (3, _) => match (flags >> 1 & 0b11, flags & DUPLICATE != 0) {
            (0, true) | (3, _) => Err(Reason::Malformed),
            (2, _) => Err(Reason::QosTwo),
            (qos, _) => Ok(qos),
        },
        (1 | 4 | 12 | 14, 0) | (8 | 10, 0b0010) => Ok(0),
        (2 | 5 | 7 | 9 | 11 | 13, 0) | (6, 0b0010) => Err(Reason::Unexpected),
        _ => Err(Reason::Malformed),
    }
}

/// Appends `packet` to `out`. The answer is the packet identifier when it is a PUBLISH that the
/// client must acknowledge.
pub(super) fn encode(packet: Packet, out: &mut BytesMut) -> Result<Option<u16>, Reason> {
    let start = out.len();
    let published = matches!(packet, Packet::Publish(..));
    V4.write(packet, out).map_err(|_| Reason::RouterLost)?;
    Ok(if published { identifier(&out[start..]) } else { None })
}

/// The codec hides a PUBLISH's identifier: it stands behind the topic (MQTT 3.1.1 section 3.3.2).
fn identifier(publish: &[u8]) -> Option<u16> {
    if publish.first()? & 0b0110 == 0 {
        return None;
    }
    let (length_bytes, _) = v4::length(publish.get(1..)?.iter()).ok()?;
    let body = publish.get(1 + length_bytes..)?;
    let topic = usize::from(u16::from_be_bytes(*body.first_chunk()?));
    Some(u16::from_be_bytes(*body.get(2 + topic..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(bytes: &[u8]) -> Result<Option<Frame>, Reason> {
        decode(&mut BytesMut::from(bytes), 64)
    }

    #[test]
    fn flags_and_types_are_checked_before_the_body_arrives() {
        for (bytes, reason) in [
            (&[0x20u8][..], Reason::Unexpected), // CONNACK
            (&[0xb0], Reason::Unexpected),       // UNSUBACK
            (&[0x62], Reason::Unexpected),       // PUBREL
            (&[0x34], Reason::QosTwo),
            (&[0x36], Reason::Malformed), // QoS 3
            (&[0x38], Reason::Malformed), // duplicate of QoS 0
            (&[0x80], Reason::Malformed), // SUBSCRIBE without its flags
            (&[0x00], Reason::Malformed),
            (&[0xf0], Reason::Malformed),
            (&[0x30, 65], Reason::TooLarge),
            (&[0x30, 0xff, 0xff, 0xff, 0xff], Reason::Malformed),
        ] {
            assert_eq!(first(bytes).err(), Some(reason), "{bytes:x?}");
        }
        assert!(first(&[]).unwrap().is_none());
        assert!(first(&[0x30, 5, 0]).unwrap().is_none());
    }

    #[test]
    fn a_publish_keeps_its_identifier_and_loses_the_duplicate_flag() {
        let bytes = [0x3a, 6, 0, 1, b'a', 0x12, 0x34, b'!'];
        let frame = first(&bytes).unwrap().unwrap();
        assert_eq!(frame.qos, 1);
        let mut out = BytesMut::from(&b"earlier"[..]);
        assert_eq!(encode(frame.packet, &mut out).unwrap(), Some(0x1234));
        assert_eq!(out[7..], [0x32, 6, 0, 1, b'a', 0x12, 0x34, b'!']);
    }
}
