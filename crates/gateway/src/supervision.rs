//! Looks after the embedded broker's listener, and opens it anew when it is dead.

use crate::{broker::Broker, metrics::Metrics, probe};
use rustls::ClientConfig;
use std::{sync::Arc, time::Duration};
use tokio::sync::{Mutex, watch};

/// Between two looks: a dead listener is found within twice this and a handshake's deadline.
const TICK: Duration = Duration::from_secs(3);

/// The embedded broker, until somebody takes it to shut it down.
pub(crate) type Embedded = Arc<Mutex<Option<Broker>>>;

/// Looks until `stop` changes. `tls` trusts the store's authority and shows no certificate.
pub(crate) async fn run(
    embedded: Embedded,
    tls: Arc<ClientConfig>,
    metrics: Arc<Metrics>,
    mut stop: watch::Receiver<bool>,
) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stop.changed() => return,
            _ = tick.tick() => {}
        }
        let Some(address) = embedded.lock().await.as_ref().map(Broker::address) else { return };
        let ip = if address.ip().is_unspecified() { [127, 0, 0, 1].into() } else { address.ip() };
        if probe::listens(&ip.to_string(), address.port(), Arc::clone(&tls)).await {
            continue;
        }
        let mut embedded = embedded.lock().await;
        let Some(broker) = embedded.as_mut() else { return };
        match broker.reopen().await {
            Ok(()) => tracing::error!(%address, "the broker's listener was dead; it is open anew"),
            Err(error) => tracing::error!(%error, "the broker's listener cannot be opened"),
        }
        metrics.listener_reopened();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Limits;
    use palmgate_protocol::{DAY, Timestamp};
    use palmgate_seal::pki::{self, Authority, ClientAuth, Identity, Role};
    use std::{
        net::TcpListener,
        time::{Instant, SystemTime, UNIX_EPOCH},
    };

    fn now() -> Timestamp {
        let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_dead_listener_is_opened_anew_and_a_living_one_left_alone() {
        let authority = Authority::generate("store", now()).unwrap();
        let pending = Identity::generate();
        let name = "gateway".parse().unwrap();
        let role = Role::Both { hosts: Vec::new() };
        let issued = authority.issue(&pending.csr_der(), &name, role, now(), DAY).unwrap();
        let chain = vec![issued.der, authority.certificate_der().clone()];
        let identity = pending.certified(chain).unwrap();
        let authority_der = authority.certificate_der().clone();
        let clients = ClientAuth::Required { authority_der: authority_der.clone(), revoked: None };
        let config = Arc::new(pki::server_config(&identity, clients).unwrap());
        let (_tls, tls_now) = watch::channel(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let broker = Broker::start(listener, tls_now, Limits::default()).unwrap();
        let port = broker.address().port();
        let client = Arc::new(pki::client_config(None, &authority_der).unwrap());
        let is_open = || probe::listens("127.0.0.1", port, Arc::clone(&client));
        assert!(is_open().await);
        broker.kill_listener();
        let begun = Instant::now();
        while is_open().await {
            assert!(begun.elapsed() < Duration::from_mins(1), "it does not die");
        }
        let embedded = Arc::new(Mutex::new(Some(broker)));
        let directory = tempfile::tempdir().unwrap();
        let metrics = Arc::new(Metrics::new(directory.path().to_owned()).unwrap());
        let (stop, stopping) = watch::channel(false);
        let looking =
            tokio::spawn(run(Arc::clone(&embedded), client.clone(), metrics.clone(), stopping));
        while !is_open().await {
            assert!(begun.elapsed() < Duration::from_mins(2), "nobody opens it");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let shown = String::from_utf8(metrics.expose(true)).unwrap();
        assert!(shown.contains("palmgate_broker_listener_reopened_total 1"), "{shown}");
        let _ = stop.send(true);
        looking.await.unwrap();
    }
}
