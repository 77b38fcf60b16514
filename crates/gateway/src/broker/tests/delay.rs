use super::*;

const SIZE: usize = 40 * 1024;
const ROUNDS: usize = 60;

/// What a quarter of the rounds took at most: other tests on the same cores make many rounds
/// long, a delayed acknowledgement makes nearly all.
fn quarter(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 4]
}

/// The same bytes through a bare TCP echo, without Nagle's algorithm.
async fn echo() -> Duration {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut buffer = vec![0; SIZE];
        while stream.read_exact(&mut buffer).await.is_ok() {
            stream.write_all(&buffer).await.unwrap();
        }
    });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = vec![7; SIZE];
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        stream.write_all(&buffer).await.unwrap();
        stream.read_exact(&mut buffer).await.unwrap();
        times.push(start.elapsed());
    }
    quarter(times)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_acknowledged_round_trip_does_not_wait_for_delayed_acknowledgements() {
    // Faster than a terminal may be, so that nothing but the network is waited for.
    let store = Store::with(Limits { messages_per_second: 10_000, ..Limits::default() });
    let mut gateway = store.gateway().await;
    let mut till = store.client("till-1").await;
    assert!(till.subscribe("palmgate/1/till-1/down").await);
    tokio::spawn(async move {
        loop {
            let asked = gateway.message().await.payload;
            let answer = gateway.publish("palmgate/1/till-1/down", asked).await;
            answer.unwrap();
        }
    });
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        till.publish("palmgate/1/till-1/up", vec![7; SIZE]).await.unwrap();
        assert_eq!(till.message().await.payload.len(), SIZE);
        times.push(start.elapsed());
    }
    let (broker, bare) = (quarter(times), echo().await);
    println!("round trip of 40 KiB: {broker:?} through the broker, {bare:?} bare");
    // A delayed acknowledgement costs 40 ms on Linux, twice in a round trip.
    assert!(broker < bare + Duration::from_millis(20), "{broker:?}, bare {bare:?}");
}
