use super::*;
use palmgate_protocol::limits::MAX_PAYLOAD_BYTES;

#[tokio::test]
async fn a_terminal_and_the_gateway_reach_each_other_with_large_messages() {
    let store = Store::open();
    let mut gateway = store.gateway().await;
    let mut till = store.client("till-1").await;
    assert!(till.subscribe("palmgate/1/till-1/down").await);
    for size in [0, 1, 300 * 1024, MAX_PAYLOAD_BYTES] {
        let payload = vec![size as u8; size];
        let (sent, received) =
            tokio::join!(till.publish("palmgate/1/till-1/up", payload.clone()), gateway.message());
        sent.unwrap();
        assert_eq!(received.topic, "palmgate/1/till-1/up");
        assert!(received.payload == payload);
        let (sent, received) = tokio::join!(
            gateway.publish("palmgate/1/till-1/down", payload.clone()),
            till.message()
        );
        sent.unwrap();
        assert!(received.payload == payload);
    }
    assert_eq!(store.broker.clients(), 2);
    store.broker.shutdown().await;
    gateway.ended().await;
}

#[tokio::test]
async fn a_foreign_topic_ends_the_connection_and_delivers_nothing() {
    let store = Store::open();
    let mut gateway = store.gateway().await;
    let foreign = ["palmgate/1/till-2/up", "palmgate/1/till-1/down", "é", "$SYS/x", "a"];
    for (count, topic) in (1..).zip(foreign) {
        let mut till = store.client("till-1").await;
        till.publish(topic, "x").await.unwrap_err();
        store.expect(Reason::Topic, count).await;
    }
    let mut till = store.client("till-1").await;
    till.publish("palmgate/1/till-1/up", "mine").await.unwrap();
    assert_eq!(gateway.message().await.payload, "mine");
}

#[tokio::test]
async fn what_mqtt_allows_and_this_broker_does_not_ends_the_connection() {
    let store = Store::open();
    let cases = [
        (QoS::AtLeastOnce, true, 1, Reason::Retain),
        (QoS::ExactlyOnce, false, 1, Reason::QosTwo),
        (QoS::AtLeastOnce, false, MAX_PAYLOAD_BYTES + 1, Reason::TooLarge),
        (QoS::AtMostOnce, false, MAX_PAYLOAD_BYTES + 1024, Reason::TooLarge),
    ];
    for (qos, retain, size, reason) in cases {
        let before = store.broker.counters().of(reason);
        let mut till = store.client("till-1").await;
        till.requests.publish("palmgate/1/till-1/up", qos, retain, vec![1; size]).await.unwrap();
        till.ended().await;
        store.expect(reason, before + 1).await;
    }
}

#[tokio::test]
async fn a_refused_subscription_leaves_the_connection_and_grants_nothing() {
    let store = Store::open();
    let mut gateway = store.client("gateway").await;
    let mut till = store.client("till-1").await;
    for filter in ["#", "+/#", "palmgate/1/+/down", "palmgate/1/till-2/down", "$share/a/#"] {
        assert!(!till.subscribe(filter).await, "{filter}");
    }
    store.expect(Reason::Filter, 5).await;
    gateway.publish("palmgate/1/till-2/down", "for the other").await.unwrap();
    assert!(till.subscribe("palmgate/1/till-1/down").await);
    gateway.publish("palmgate/1/till-1/down", "for it").await.unwrap();
    assert_eq!(till.message().await.payload, "for it");
}

#[tokio::test]
async fn a_newer_connection_takes_the_place_of_the_older() {
    let store = Store::open();
    let mut gateway = store.client("gateway").await;
    let mut older = store.client("till-1").await;
    let mut newer = store.client("till-1").await;
    older.ended().await;
    store.expect(Reason::Displaced, 1).await;
    assert!(newer.subscribe("palmgate/1/till-1/down").await);
    gateway.publish("palmgate/1/till-1/down", "hello").await.unwrap();
    assert_eq!(newer.message().await.payload, "hello");
    assert_eq!(store.broker.clients(), 2);
}

#[tokio::test]
async fn a_terminal_that_was_away_gets_the_newest_of_what_it_missed() {
    const SIZE: usize = 40 * 1024;
    let store = Store::open();
    let mut gateway = store.client("gateway").await;
    let identity = store.certified("till-1");
    let connect = async || {
        let mut options = store.options("till-1", identity.clone());
        options.set_clean_session(false);
        let mut till = Client::new(options);
        let present = till.connected().await.unwrap();
        (till, present)
    };
    let (mut till, present) = connect().await;
    assert!(!present);
    assert!(till.subscribe("palmgate/1/till-1/down").await);
    till.requests.disconnect().await.unwrap();
    till.ended().await;
    store.expect(Reason::Left, 1).await;
    for number in 0..100u8 {
        gateway.publish("palmgate/1/till-1/down", vec![number; SIZE]).await.unwrap();
    }
    let (mut till, present) = connect().await;
    assert!(present, "the broker kept the session");
    let first = till.message().await.payload[0];
    for number in first + 1..100 {
        assert_eq!(till.message().await.payload[0], number, "in order, without a gap");
    }
    let kept = usize::from(100 - first) * SIZE;
    assert!((64 * 1024..=2 * (64 * 1024 + SIZE)).contains(&kept), "{kept} bytes were kept");

    till.requests.unsubscribe("palmgate/1/till-1/down").await.unwrap();
    till.until(|packet| matches!(packet, Packet::UnsubAck(_)).then_some(())).await.unwrap();
    gateway.publish("palmgate/1/till-1/down", "nobody reads this").await.unwrap();
    gateway.publish("palmgate/1/till-1/welcome", "nor this").await.unwrap();
    assert!(till.subscribe("palmgate/1/till-1/welcome").await);
    gateway.publish("palmgate/1/till-1/welcome", "but this").await.unwrap();
    assert_eq!(till.message().await.payload, "but this");
}

#[tokio::test]
async fn what_waits_for_the_gateway_is_bounded_and_the_newest() {
    let store = Store::with(Limits { backlog_bytes: 8 * MIB, ..Limits::default() });
    let mut options = store.options("gateway", store.certified("gateway"));
    options.set_clean_session(false);
    let mut gateway = Client::new(options);
    gateway.connected().await.unwrap();
    assert!(gateway.subscribe("palmgate/1/+/up").await);
    gateway.requests.disconnect().await.unwrap();
    gateway.ended().await;
    store.expect(Reason::Left, 1).await;
    let mut till = store.client("till-1").await;
    for number in 0..20u8 {
        till.publish("palmgate/1/till-1/up", vec![number; MIB]).await.unwrap();
    }
    assert!(gateway.connected().await.unwrap(), "the broker kept the session");
    let first = gateway.message().await.payload[0];
    for number in first + 1..20 {
        assert_eq!(gateway.message().await.payload[0], number);
    }
    assert!((7..=9).contains(&(20 - first)), "{} MiB were kept", 20 - first);
}

#[tokio::test]
async fn acknowledging_out_of_order_ends_that_connection_only() {
    let store = Store::open();
    let mut gateway = store.gateway().await;
    let mut till = store.raw_client("till-1").await;
    let mut subscribe = vec![0x82, 27, 0, 1, 0, 22];
    subscribe.extend_from_slice(b"palmgate/1/till-1/down\x01");
    till.write_all(&subscribe).await.unwrap();
    let mut granted = [0; 5];
    till.read_exact(&mut granted).await.unwrap();
    assert_eq!(granted, [0x90, 3, 0, 1, 1]);
    for payload in ["one", "two"] {
        gateway.publish("palmgate/1/till-1/down", payload).await.unwrap();
    }
    till.write_all(&[0x40, 2, 0, 2]).await.unwrap();
    let mut rest = Vec::new();
    let _ = till.read_to_end(&mut rest).await;
    store.expect(Reason::Unexpected, 1).await;
    let mut other = store.client("till-2").await;
    other.publish("palmgate/1/till-2/up", "served").await.unwrap();
    assert_eq!(gateway.message().await.payload, "served");
}

/// The router answers nobody who has not acknowledged a hundred messages, so acknowledgements have
/// to be read behind any number of messages that a client has under way itself.
#[tokio::test]
async fn a_client_that_owes_acknowledgements_may_be_owed_some() {
    const THERE: usize = 150;
    const BACK: usize = 90;
    let store = Store::open();
    let mut options = store.options("gateway", store.certified("gateway"));
    options.set_manual_acks(true);
    let mut gateway = Client::new(options);
    gateway.connected().await.unwrap();
    assert!(gateway.subscribe("palmgate/1/+/up").await);
    let mut till = store.client("till-1").await;
    for number in 0..THERE {
        till.publish("palmgate/1/till-1/up", number.to_string()).await.unwrap();
    }
    let mut unacknowledged = Vec::new();
    while unacknowledged.len() < 100 {
        unacknowledged.push(gateway.message().await);
    }
    let requests = gateway.requests.clone();
    for _ in 0..BACK {
        requests.publish("palmgate/1/till-1/down", QoS::AtLeastOnce, false, "x").await.unwrap();
    }
    for publish in &unacknowledged {
        requests.ack(publish).await.unwrap();
    }
    let mut received = unacknowledged.len();
    let mut answered = 0;
    while received < THERE || answered < BACK {
        let packet = gateway.until(|packet| match packet {
            Packet::Publish(publish) => Some(Some(publish.clone())),
            Packet::PubAck(_) => Some(None),
            _ => None,
        });
        match packet.await.unwrap() {
            Some(publish) => {
                requests.ack(&publish).await.unwrap();
                received += 1;
            }
            None => answered += 1,
        }
    }
}

#[tokio::test]
async fn pings_keep_a_connection_and_silence_ends_it() {
    let limits = Limits { keep_alive_min: Duration::from_secs(1), ..Limits::default() };
    let store = Store::with(limits);
    let mut till = store.raw(store.certified("till-1")).await;
    till.write_all(&connect("till-1", 2)).await.unwrap();
    till.read_exact(&mut [0; 4]).await.unwrap();
    for _ in 0..2 {
        sleep(Duration::from_millis(1900)).await;
        till.write_all(&[0xc0, 0]).await.unwrap();
        let mut answer = [0; 2];
        till.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, [0xd0, 0]);
    }
    let silent = Instant::now();
    assert!(till.read_u8().await.is_err());
    assert!(silent.elapsed() > Duration::from_secs(2));
    store.expect(Reason::Silent, 1).await;
}
