//! What happens to whoever does not keep to the rules: a typed answer, and never a fall.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{Cloud, Gateway, client, erasure_of, pay_and_roam, people::Person, problem};
use palmgate_cloud::{clock, provision};
use palmgate_protocol::{
    DAY, Probe, Purpose,
    cloud::{ClaimQuery, ProbeQuery, Registration, ShardApplied},
    encode,
    limits::MAX_SEALED_RECORD_BYTES,
};
use palmgate_seal::{
    envelope::{self, Label},
    pki::{Authority, Identity, Role},
    random,
};
use reqwest::{Method, StatusCode};
use std::time::Duration;

const POSTS: [&str; 6] = [
    "/v1/hello",
    "/v1/registrations",
    "/v1/shard/applied",
    "/v1/resolve/probe",
    "/v1/resolve/claim",
    "/v1/erasures",
];

#[tokio::test]
async fn malformed_requests_get_typed_problems() {
    let cloud = Cloud::start();
    let lyon = cloud.store("lyon").await;
    for path in POSTS {
        let is = async |body: Vec<u8>, expected: (u16, &str)| {
            let (status, kind) = problem(lyon.post(path, body).await).await;
            assert_eq!((status, kind.as_str()), expected, "{path}");
        };
        is(Vec::new(), (400, "malformed")).await;
        is(b"\xff\xff".to_vec(), (400, "malformed")).await;
        is([encode(&lyon.greeting()), vec![0]].concat(), (400, "malformed")).await;
        is(vec![0; 200_000], (413, "too-large")).await;
        let text = lyon.request(Method::POST, path).header("content-type", "text/plain");
        assert_eq!(problem(text.send().await.unwrap()).await, (415, "not-cbor".into()));
        assert_eq!(problem(lyon.get(path).await).await, (405, "method-not-allowed".into()));
    }
    for path in ["/", "/v1", "/v1/people", "/v1/erasures/", "/v2/hello"] {
        assert_eq!(problem(lyon.get(path).await).await, (404, "not-found".into()), "{path}");
    }
    let long = "0".repeat(66);
    for path in [
        "/v1/shard?held=-1",
        "/v1/shard?held=x",
        "/v1/shard?x=1",
        "/v1/erasures/zz",
        &format!("/v1/erasures/{long}"),
        "/v1/tombstones?after=",
    ] {
        assert_eq!(problem(lyon.get(path).await).await, (400, "malformed".into()), "{path}");
    }
    assert_eq!(lyon.get("/healthz").await.text().await.unwrap(), "ok\n");
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let cloud = Cloud::start();
    let lyon = cloud.store("lyon").await;
    let endless = raw(&lyon, |request| {
        request.extend_from_slice(b"POST /v1/hello HTTP/1.1\r\nhost: x\r\ncontent-type: application/cbor\r\ntransfer-encoding: chunked\r\n\r\n");
        for _ in 0..64 {
            request.extend_from_slice(b"400\r\n");
            request.extend_from_slice(&[0; 0x400]);
            request.extend_from_slice(b"\r\n");
        }
    })
    .await;
    assert!(endless.starts_with("HTTP/1.1 413"), "{endless}");
    assert!(endless.contains("urn:palmgate:problem:too-large"));
}

#[tokio::test]
async fn an_envelope_of_another_size_is_refused_before_it_is_opened() {
    let cloud = Cloud::start();
    let lyon = cloud.store("lyon").await;
    let person = Person::new();
    lyon.enrol(&person, pay_and_roam()).await;
    let good = lyon.query(&person, Purpose::Pay, &person);
    let sealed = |plain: &[u8]| {
        let (label, aad) = (Label::Probe, good.binding());
        envelope::seal(&lyon.matcher, label, &lyon.tenant, &aad, plain).unwrap()
    };
    let probe = person.probe().to_bytes();
    let padded = |to: usize| envelope::pad(probe.expose(), to).expose().clone();
    let mut changed = good.sealed.clone();
    changed[100] ^= 1;
    for (what, sealed, expected) in [
        // Sealed rightly, so that only its size can be the reason.
        ("less padding", sealed(&padded(4096)), (400, "malformed")),
        ("no padding", sealed(probe.expose()), (400, "malformed")),
        ("longer", sealed(&vec![0; Probe::PADDED_BYTES + 4096]), (400, "malformed")),
        ("no envelope", Vec::new(), (400, "malformed")),
        ("not sealed", padded(Probe::PADDED_BYTES), (400, "malformed")),
        ("the right size, changed", changed, (422, "record-refused")),
    ] {
        let query = encode(&ProbeQuery { sealed, ..copy(&good) });
        let refused = problem(lyon.post("/v1/resolve/probe", query).await).await;
        assert_eq!(refused, (expected.0, expected.1.into()), "{what}");
    }
    let good_registration = || lyon.operator(&Person::new(), pay_and_roam());
    let long = vec![0; MAX_SEALED_RECORD_BYTES];
    let (label, aad) = (Label::Registration, good_registration().binding());
    let sealed = envelope::seal(&lyon.matcher, label, &lyon.tenant, &aad, &long).unwrap();
    assert!(sealed.len() > MAX_SEALED_RECORD_BYTES && sealed.len() < MAX_SEALED_RECORD_BYTES + 256);
    let long = encode(&Registration { sealed, ..good_registration() });
    let refused = problem(lyon.post("/v1/registrations", long).await).await;
    assert_eq!(refused, (413, "too-large".into()));
    assert!(lyon.finds(&person).await, "and the right one is opened");
}

fn copy(query: &ProbeQuery) -> ProbeQuery {
    ProbeQuery { purpose: query.purpose, claim: query.claim, sealed: Vec::new() }
}

/// Sends bytes as they are over mutual TLS and reads what comes first.
async fn raw(gateway: &Gateway, write: impl Fn(&mut Vec<u8>)) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = gateway.connect().await;
    let mut request = Vec::new();
    write(&mut request);
    // The other side may hang up in the middle.
    let _ = stream.write_all(&request).await;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn changed_and_random_bodies_never_break_the_service() {
    let choices = "[limits]\nrequests_per_minute = 100000\nresolutions_per_minute = 100000\n";
    let cloud = Cloud::start_with(choices);
    let lyon = cloud.store("lyon").await;
    let person = Person::new();
    lyon.enrol(&person, pay_and_roam()).await;
    let valid = [
        encode(&lyon.greeting()),
        encode(&lyon.operator(&person, pay_and_roam())),
        encode(&ShardApplied { version: 1 }),
        encode(&lyon.query(&Person::new(), Purpose::Pay, &person)),
        encode(&ClaimQuery { claim: Person::new().claim }),
        encode(&erasure_of(&Person::new())),
    ];
    for (path, body) in POSTS.iter().zip(valid) {
        for _ in 0..60 {
            let mut body = body.clone();
            let [kind, value, a, b] = random::bytes::<4>();
            let place = usize::from(u16::from_be_bytes([a, b])) % body.len();
            match kind % 3 {
                0 => body[place] = value,
                1 => body.truncate(place),
                _ => body.insert(place, value),
            }
            let status = lyon.post(path, body).await.status();
            assert!(!status.is_server_error(), "{path}: {status}");
        }
    }
    assert_eq!(lyon.get("/healthz").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn nobody_comes_in_without_a_certificate_of_this_tenants_authority() {
    let cloud = Cloud::start();
    let url = format!("https://{}/healthz", cloud.address);
    let authority = std::fs::read_to_string(cloud.state().join("authority.pem")).unwrap();
    let without = client(None, &authority).get(&url).send().await;
    assert!(without.is_err());
    let stranger = Authority::generate("stranger", clock::now()).unwrap();
    let pending = Identity::generate();
    let name = "lyon".parse().unwrap();
    let certificate =
        stranger.issue(&pending.csr_der(), &name, Role::Client, clock::now(), DAY).unwrap();
    let chain = vec![certificate.der, stranger.certificate_der().clone()];
    let identity = pending.certified(chain).unwrap();
    assert!(client(Some(&identity), &authority).get(&url).send().await.is_err());
    let lyon = cloud.store("lyon").await;
    assert_eq!(lyon.get("/healthz").await.status(), StatusCode::OK, "the control");
}

#[tokio::test]
async fn a_renewed_store_has_two_certificates_until_it_is_reset() {
    let cloud = Cloud::start();
    let old = cloud.store("lyon").await;
    let bundle = tempfile::tempdir().unwrap();
    let state = cloud.state();
    provision::renew_store(&state, &old.name, bundle.path(), None, clock::now()).unwrap();
    let new = Gateway::read(bundle.path(), cloud.address);
    assert_eq!(old.get("/v1/directory").await.status(), StatusCode::OK);
    assert_eq!(new.get("/v1/directory").await.status(), StatusCode::OK);
    provision::reset_store(&state, &old.name).unwrap();
    let refused = problem(old.get("/v1/directory").await).await;
    assert_eq!(refused, (403, "certificate-not-current".into()));
    assert_eq!(new.get("/v1/directory").await.status(), StatusCode::OK);
    std::fs::remove_file(state.join("stores/lyon.toml")).unwrap();
    let refused = problem(new.get("/v1/directory").await).await;
    assert_eq!(refused, (403, "certificate-not-current".into()));
}

#[tokio::test]
async fn a_store_that_never_said_hello_is_told_so() {
    let cloud = Cloud::start();
    let lyon = cloud.silent_store("lyon");
    let shard = problem(lyon.get("/v1/shard?held=0").await).await;
    assert_eq!(shard, (409, "hello-first".into()));
    let claim = encode(&ClaimQuery { claim: Person::new().claim });
    let resolved = problem(lyon.post("/v1/resolve/claim", claim).await).await;
    assert_eq!(resolved, (409, "hello-first".into()));
}

#[tokio::test]
async fn too_many_requests_of_one_store_do_not_hurt_another() {
    let cloud = Cloud::start_with("[limits]\nrequests_per_minute = 20\n");
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let mut refused = 0;
    for _ in 0..40 {
        let answer = lyon.get("/v1/directory").await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap() >= 1);
            assert_eq!(problem(answer).await.1, "too-many-requests");
            refused += 1;
        }
    }
    assert!((18..=21).contains(&refused), "{refused}");
    assert_eq!(paris.get("/v1/directory").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_claim_cannot_be_tried_without_end_and_an_unknown_one_answers_alike() {
    let cloud = Cloud::start_with("[limits]\ntries_per_claim_per_hour = 3\n");
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let (person, unknown) = (Person::new(), Person::new());
    lyon.enrol(&person, pay_and_roam()).await;
    for claimed in [person, unknown] {
        let attempt = encode(&lyon.query(&claimed, Purpose::Pay, &Person::new()));
        for store in [&lyon, &paris, &lyon] {
            let answer = store.post("/v1/resolve/probe", attempt.clone()).await;
            assert_eq!(answer.status(), StatusCode::OK);
        }
        let answer = paris.post("/v1/resolve/probe", attempt).await;
        assert_eq!(problem(answer).await, (429, "too-many-requests".into()));
    }
}

#[tokio::test]
async fn a_stores_look_ups_have_a_bound_of_their_own() {
    let cloud = Cloud::start_with("[limits]\nresolutions_per_minute = 1\n");
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let (person, path) = (Person::new(), "/v1/resolve/probe");
    lyon.enrol(&person, pay_and_roam()).await;
    let attempt = |store: &Gateway| encode(&store.query(&Person::new(), Purpose::Pay, &person));
    let mut refused = 0;
    for _ in 0..10 {
        let answer = lyon.post(path, attempt(&lyon)).await;
        refused += usize::from(answer.status() == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused >= 8, "{refused}");
    let claim = encode(&ClaimQuery { claim: Person::new().claim });
    let answer = lyon.post("/v1/resolve/claim", claim).await;
    assert_eq!(problem(answer).await, (429, "too-many-requests".into()), "of both kinds together");
    assert_eq!(lyon.get("/v1/directory").await.status(), StatusCode::OK, "the rest goes on");
    assert_eq!(paris.post(path, attempt(&paris)).await.status(), StatusCode::OK, "and the others");
}

#[tokio::test]
async fn a_look_up_takes_whole_slots_of_time() {
    let cloud = Cloud::start();
    let lyon = cloud.store("lyon").await;
    for _ in 0..3 {
        let started = std::time::Instant::now();
        lyon.finds(&Person::new()).await;
        assert!(started.elapsed() >= Duration::from_millis(100));
    }
}

#[tokio::test]
async fn a_cloud_without_an_exception_keeps_no_readable_record() {
    let mut cloud = Cloud::start();
    let file = cloud.state().join("cloud.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("accept_operator = true", "accept_operator = false"))
        .unwrap();
    cloud.restart().await;
    let lyon = cloud.store("lyon").await;
    let registration = lyon.operator(&Person::new(), pay_and_roam());
    let refused = problem(lyon.post("/v1/registrations", encode(&registration)).await).await;
    assert_eq!(refused, (422, "custody-refused".into()));
    lyon.register(&Person::new().split(pay_and_roam(), common::in_a_month())).await;
}
