use super::*;
use crate::broker::Fault;
use rumqttc::{ConnectReturnCode, LastWill};

async fn refused(store: &Store, options: MqttOptions) -> Option<ConnectReturnCode> {
    let error = Client::new(options).connected().await.unwrap_err();
    let code = match *error {
        ConnectionError::ConnectionRefused(code) => Some(code),
        _ => None,
    };
    assert_eq!(store.broker.counters().accepted(), 0);
    code
}

#[tokio::test]
async fn only_the_name_in_the_certificate_is_let_in() {
    let store = Store::open();
    let code = refused(&store, store.options("till-2", store.certified("till-1"))).await;
    assert_eq!(code, Some(ConnectReturnCode::BadClientId));
    store.expect(Reason::ClientId, 1).await;
    let code = refused(&store, store.options("gateway", store.certified("till-1"))).await;
    assert_eq!(code, Some(ConnectReturnCode::BadClientId));
    store.client("till-1").await;
    assert_eq!(store.broker.counters().accepted(), 1);
}

#[tokio::test]
async fn missing_foreign_and_expired_certificates_are_refused() {
    let store = Store::open();
    let authority = store.authority.certificate_der();
    let nobody = pki::client_config(None, authority).unwrap();
    refused(&store, store.options("till-1", nobody)).await;
    store.expect(Reason::CertificateMissing, 1).await;

    let stranger = Authority::generate("another store", now()).unwrap();
    let foreign = issue(&stranger, "till-1").0;
    refused(&store, store.options("till-1", tls(&foreign, &store.authority))).await;
    store.expect(Reason::CertificateForeign, 1).await;

    let (expired, _) = issue_for(&store.authority, "till-1", Duration::ZERO);
    sleep(Duration::from_millis(1100)).await;
    refused(&store, store.options("till-1", tls(&expired, &store.authority))).await;
    store.expect(Reason::CertificateExpired, 1).await;
    assert_eq!(Reason::CertificateExpired.fault(), Fault::Terminal);
}

#[tokio::test]
async fn a_revoked_terminal_is_cut_off_and_stays_out() {
    let store = Store::open();
    let (identity, serial) = issue(&store.authority, "till-1");
    let mut till = Client::new(store.options("till-1", tls(&identity, &store.authority)));
    till.connected().await.unwrap();
    let mut other = store.client("till-2").await;

    store.revoke(&[serial]);
    store.broker.disconnect(&name("till-1"));
    till.ended().await;
    store.expect(Reason::Removed, 1).await;
    till.ended().await;
    store.expect(Reason::CertificateRevoked, 1).await;

    other.publish("palmgate/1/till-2/up", "still here").await.unwrap();
    store.client("till-1").await;
    assert_eq!(store.broker.counters().accepted(), 3, "a new certificate is let in");
}

#[tokio::test]
async fn a_revocation_between_handshake_and_connect_is_not_missed() {
    let store = Store::open();
    let (identity, serial) = issue(&store.authority, "till-1");
    let mut till = store.raw(tls(&identity, &store.authority)).await;
    // The server has finished its side when the other one reads nothing but silence.
    timeout(Duration::from_millis(200), till.read_u8()).await.unwrap_err();
    store.revoke(&[serial]);
    store.broker.disconnect(&name("till-1"));
    till.write_all(&connect("till-1", 60)).await.unwrap();
    let mut refusal = [0; 4];
    till.read_exact(&mut refusal).await.unwrap();
    assert_eq!(refusal, [0x20, 2, 0, 5]);
    store.expect(Reason::Outdated, 1).await;
    assert_eq!(store.broker.clients(), 0);
}

#[tokio::test]
async fn a_renewed_server_certificate_is_shown_to_new_connections() {
    let mut store = Store::open();
    let shown = async |store: &Store| {
        let stream = store.raw(store.certified("till-1")).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    };
    assert_eq!(&shown(&store).await, store.gateway.certificate_der());
    store.gateway = issue(&store.authority, "gateway").0;
    store.revoke(&[]);
    assert_eq!(&shown(&store).await, store.gateway.certificate_der());
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let store = Store::open();
    let (identity, _) = issue_for(&store.authority, "till-1", Duration::from_secs(3));
    let options = store.options("till-1", tls(&identity, &store.authority));
    let mut till = Client::new(options);
    till.connected().await.unwrap();
    till.ended().await;
    store.expect(Reason::CertificateExpired, 1).await;
}

#[tokio::test]
async fn wills_and_unbounded_keep_alives_are_refused() {
    let store = Store::open();
    let options = |change: &dyn Fn(&mut MqttOptions)| {
        let mut options = store.options("till-1", store.certified("till-1"));
        change(&mut options);
        options
    };
    let will = LastWill::new("palmgate/1/till-1/up", "gone", QoS::AtMostOnce, false);
    let code = refused(&store, options(&|o| _ = o.set_last_will(will.clone()))).await;
    assert_eq!(code, Some(ConnectReturnCode::NotAuthorized));
    store.expect(Reason::Will, 1).await;
    for (count, seconds) in [(1, 0), (2, 4), (3, 301)] {
        let keep_alive = Duration::from_secs(seconds);
        let code = refused(&store, options(&|o| _ = o.set_keep_alive(keep_alive))).await;
        assert_eq!(code, Some(ConnectReturnCode::NotAuthorized));
        store.expect(Reason::KeepAlive, count).await;
    }
}

#[tokio::test]
async fn whoever_does_not_say_connect_is_shown_out() {
    let limits = Limits { connect_deadline: Duration::from_millis(300), ..Limits::default() };
    let store = Store::with(limits);
    let mut hasty = store.raw(store.certified("till-1")).await;
    hasty.write_all(&publish("palmgate/1/till-1/up", 1, b"x")).await.unwrap();
    assert!(hasty.read_u8().await.is_err());
    store.expect(Reason::NotConnect, 1).await;
    let mut shy = store.raw(store.certified("till-1")).await;
    assert!(shy.read_u8().await.is_err());
    store.expect(Reason::ConnectTimeout, 1).await;
}
