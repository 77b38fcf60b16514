//! What a client may send. Everything else ends here, before the router sees it.

use super::{Limits, Reason, packets::Frame};
use palmgate_protocol::{Name, limits::MAX_PAYLOAD_BYTES, topic};
use rumqttd::protocol::{
    Connect, LastWill, Packet, Publish, QoS, SubAck, Subscribe, SubscribeReasonCode, UnsubAck,
    UnsubAckReason, Unsubscribe,
};
use std::time::Duration;

/// Filters in one SUBSCRIBE or UNSUBSCRIBE: more than anybody's topics.
const MAX_FILTERS: usize = 8;

/// Checks CONNECT against the name in the certificate; the answer is the keep-alive.
pub(super) fn connect(
    name: &Name,
    connect: &Connect,
    will: Option<&LastWill>,
    limits: &Limits,
) -> Result<Duration, Reason> {
    let keep_alive = Duration::from_secs(connect.keep_alive.into());
    if connect.client_id != name.as_str() {
        Err(Reason::ClientId)
    } else if will.is_some() {
        Err(Reason::Will)
    } else if !(limits.keep_alive_min..=limits.keep_alive_max).contains(&keep_alive) {
        Err(Reason::KeepAlive)
    } else {
        Ok(keep_alive)
    }
}

/// What is to be done with a packet of an admitted client.
pub(super) enum Verdict {
    /// Goes to the router; of a PUBLISH with its size.
    Forward {
        packet: Packet,
        /// The router will answer it.
        answered: bool,
        bytes: usize,
    },
    /// Goes to the router when it acknowledges the oldest message under way.
    Acknowledgement(u16, Packet),
    /// Goes to the router, but is answered at once: the router answers it once for each filter,
    /// and not at all when there was no subscription.
    Unsubscribe(Unsubscribe, UnsubAck),
    /// Is answered without the router.
    Refuse(SubAck),
    /// The client says goodbye.
    Leave,
}

/// Judges a packet of the client `name`.
pub(super) fn judge(name: &Name, frame: Frame) -> Result<Verdict, Reason> {
    match frame.packet {
        Packet::Publish(publish, None) => judge_publish(name, publish, frame.qos),
        Packet::PubAck(ack, None) => {
            Ok(Verdict::Acknowledgement(ack.pkid, Packet::PubAck(ack, None)))
        }
        Packet::Subscribe(subscribe, None) => judge_subscribe(name, subscribe),
        Packet::Unsubscribe(unsubscribe, None) => judge_unsubscribe(name, unsubscribe),
        Packet::PingReq(ping) => {
            Ok(Verdict::Forward { packet: Packet::PingReq(ping), answered: true, bytes: 0 })
        }
        Packet::Disconnect(..) => Ok(Verdict::Leave),
        _ => Err(Reason::Unexpected),
    }
}

fn judge_publish(name: &Name, publish: Publish, qos: u8) -> Result<Verdict, Reason> {
    let allowed =
        str::from_utf8(&publish.topic).is_ok_and(|topic| topic::may_publish(name.as_str(), topic));
    if !allowed {
        return Err(Reason::Topic);
    }
    if publish.retain {
        return Err(Reason::Retain);
    }
    let bytes = publish.payload.len();
    if bytes > MAX_PAYLOAD_BYTES {
        return Err(Reason::TooLarge);
    }
    Ok(Verdict::Forward { packet: Packet::Publish(publish, None), answered: qos > 0, bytes })
}

/// All filters or none: a client that asks for one topic of somebody else gets nothing.
fn judge_subscribe(name: &Name, mut subscribe: Subscribe) -> Result<Verdict, Reason> {
    if subscribe.pkid == 0 || subscribe.filters.len() > MAX_FILTERS {
        return Err(Reason::Malformed);
    }
    let filters = &mut subscribe.filters;
    if !filters.iter().all(|filter| topic::may_subscribe(name.as_str(), &filter.path)) {
        let return_codes = vec![SubscribeReasonCode::Failure; filters.len()];
        return Ok(Verdict::Refuse(SubAck { pkid: subscribe.pkid, return_codes }));
    }
    for filter in filters.iter_mut().filter(|filter| filter.qos == QoS::ExactlyOnce) {
        filter.qos = QoS::AtLeastOnce;
    }
    Ok(Verdict::Forward { packet: Packet::Subscribe(subscribe, None), answered: true, bytes: 0 })
}

fn judge_unsubscribe(name: &Name, mut unsubscribe: Unsubscribe) -> Result<Verdict, Reason> {
    let asked = unsubscribe.filters.len();
    if unsubscribe.pkid == 0 || !(1..=MAX_FILTERS).contains(&asked) {
        return Err(Reason::Malformed);
    }
    unsubscribe.filters.retain(|filter| topic::may_subscribe(name.as_str(), filter));
    let answer = UnsubAck { pkid: unsubscribe.pkid, reasons: vec![UnsubAckReason::Success; asked] };
    Ok(Verdict::Unsubscribe(unsubscribe, answer))
}
