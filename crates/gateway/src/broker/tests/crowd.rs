use super::*;
use rumqttc::ConnectReturnCode;

async fn silent_connections(store: &Store, count: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        crowd.push(TcpStream::connect(store.broker.address()).await.unwrap());
    }
    crowd
}

/// As many connections as the system lets this process have, 5,000 at most.
fn many() -> usize {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let open = limit.maximum.map_or(usize::MAX, |most| usize::try_from(most).unwrap());
    open.saturating_sub(1_000).min(5_000)
}

#[tokio::test]
async fn five_thousand_silent_connections_do_not_hold_up_an_honest_terminal() {
    let store = Store::open();
    let mut gateway = store.gateway().await;
    let many = many();
    let mut crowd = silent_connections(&store, many / 2).await;
    for stream in silent_connections(&store, many - many / 2).await {
        crowd.push(stream);
        // Half of a handshake: the start of a TLS record that never ends.
        crowd.last_mut().unwrap().write_all(&[0x16, 3, 1, 2, 0, 1]).await.unwrap();
    }
    let start = Instant::now();
    let mut till = store.client("till-1").await;
    till.publish("palmgate/1/till-1/up", "through").await.unwrap();
    let took = start.elapsed();
    assert_eq!(gateway.message().await.payload, "through");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let limit = Limits::default().handshakes_per_address as u64;
    let crowded_out = store.broker.counters().of(Reason::CrowdedOut);
    assert!(crowded_out >= many as u64 - limit, "{crowded_out} gave way");
    println!("{many} silent connections: an honest one was through in {took:?}");
    drop(crowd);
}

#[tokio::test]
async fn a_full_house_still_has_room_for_the_gateway() {
    let store = Store::with(Limits { clients: 2, ..Limits::default() });
    let first = store.client("till-1").await;
    let _second = store.client("till-2").await;
    let mut third = Client::new(store.options("till-3", store.certified("till-3")));
    let refusal = third.connected().await.unwrap_err();
    let ConnectionError::ConnectionRefused(code) = *refusal else { panic!("{refusal}") };
    assert_eq!(code, ConnectReturnCode::ServiceUnavailable);
    store.expect(Reason::TooManyClients, 1).await;
    let _gateway = store.gateway().await;
    drop(first);
    store.expect(Reason::Lost, 1).await;
    third.connected().await.unwrap();
}

#[tokio::test]
async fn one_address_gets_its_share_of_connections_only() {
    let store = Store::with(Limits { clients_per_address: 2, ..Limits::default() });
    let _first = store.client("till-1").await;
    let _second = store.client("till-2").await;
    let mut third = Client::new(store.options("till-3", store.certified("till-3")));
    third.connected().await.unwrap_err();
    store.expect(Reason::TooManyFromAddress, 1).await;
}

#[tokio::test]
async fn a_terminal_that_reads_nothing_is_dropped_and_holds_nobody_up() {
    let limits = Limits { write_deadline: Duration::from_millis(500), ..Limits::default() };
    let store = Store::with(limits);
    let mut gateway = store.client("gateway").await;
    let mut deaf = store.raw_client("till-1").await;
    let mut subscribe = vec![0x82, 27, 0, 1, 0, 22];
    subscribe.extend_from_slice(b"palmgate/1/till-1/down\x01");
    deaf.write_all(&subscribe).await.unwrap();
    let mut other = store.client("till-2").await;
    assert!(other.subscribe("palmgate/1/till-2/down").await);
    for _ in 0..30 {
        gateway.publish("palmgate/1/till-1/down", vec![0; MIB]).await.unwrap();
    }
    gateway.publish("palmgate/1/till-2/down", "not held up").await.unwrap();
    assert_eq!(other.message().await.payload, "not held up");
    store.expect(Reason::SlowReader, 1).await;
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_an_honest_terminal_is_not() {
    let limits =
        Limits { bytes_per_second: MIB as u32, burst_bytes: MIB as u32, ..Limits::default() };
    let store = Store::with(limits);
    let mut gateway = store.gateway().await;
    let mut flooder = store.client("till-1").await;
    let mut honest = store.client("till-2").await;
    let drain = tokio::spawn(async move { while gateway.message().await.payload != "honest" {} });
    let flood = tokio::spawn(async move {
        for _ in 0..12 {
            flooder.publish("palmgate/1/till-1/up", vec![0; MIB / 4]).await.unwrap();
        }
    });
    let start = Instant::now();
    honest.publish("palmgate/1/till-2/up", "honest").await.unwrap();
    drain.await.unwrap();
    assert!(!flood.is_finished(), "it is through before the flood is");
    flood.await.unwrap();
    assert!(start.elapsed() > Duration::from_millis(1500), "3 MiB at 1 MiB/s after 1 MiB at once");
}
