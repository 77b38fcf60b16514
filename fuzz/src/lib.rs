//! Every decoder that faces a network, as a function of bytes that must not panic, hang, or take
//! more memory than its limit allows. `tests/mutated.rs` runs them on stable with the tests,
//! `libfuzzer/` under cargo-fuzz for as long as you like.

use palmgate_ledger::{Checkpoint, Entry, Evidence, note::Note, receipt};
use palmgate_protocol::{
    Biometric, Name, Probe, Roster, Template, Timestamp, cloud, decode,
    limits::MAX_FRAME_BYTES,
    pairing::{PairAnswer, PairRequest},
    terminal::{Answer, Band, Frame, Request},
    topic,
};
use palmgate_seal::{
    assertion, claim, mls,
    pairing::PairingCode,
    pki::{Authority, Identity, Role},
    sign::VerifyingKey,
};
use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

/// A decoder.
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Feeds it.
    pub feed: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "mqtt", feed: mqtt },
    Target { name: "terminal", feed: terminal },
    Target { name: "cloud", feed: cloud_messages },
    Target { name: "pairing", feed: pairing },
    Target { name: "mls", feed: mls_messages },
    Target { name: "token", feed: token },
    Target { name: "ledger", feed: ledger },
    Target { name: "picture", feed: picture },
];

/// Packets that a client of the embedded broker may send, and topics.
pub fn mqtt(bytes: &[u8]) {
    let _ = palmgate_gateway::broker::packets_in(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = (topic::parse(text), topic::may_publish("till-1", text));
        let _ = topic::may_subscribe("till-1", text);
    }
}

/// What terminals and gateways say to each other.
pub fn terminal(bytes: &[u8]) {
    let _ = decode::<Request>(bytes);
    let _ = decode::<Answer>(bytes);
    let _ = decode::<Roster>(bytes);
}

/// What gateways and clouds say to each other, and what a shard is made of.
pub fn cloud_messages(bytes: &[u8]) {
    let _ = decode::<cloud::Hello>(bytes);
    let _ = decode::<cloud::Directory>(bytes);
    let _ = decode::<cloud::MemberRecord>(bytes);
    let _ = decode::<cloud::Registration>(bytes);
    let _ = decode::<cloud::Shard>(bytes);
    let _ = decode::<cloud::ShardManifest>(bytes);
    let _ = decode::<cloud::ShardChunk>(bytes);
    let _ = decode::<cloud::ProbeQuery>(bytes);
    let _ = decode::<cloud::ClaimQuery>(bytes);
    let _ = decode::<cloud::Resolution>(bytes);
    let _ = decode::<cloud::SearchQuery>(bytes);
    let _ = decode::<cloud::SearchAnswer>(bytes);
    let _ = decode::<cloud::Erasure>(bytes);
    let _ = decode::<cloud::ErasureState>(bytes);
    let _ = decode::<cloud::Tombstones>(bytes);
    let _ = decode::<cloud::ShardApplied>(bytes);
    let _ = decode::<cloud::Removals>(bytes);
    let _ = (Template::from_bytes(bytes), Probe::from_bytes(bytes));
}

/// Requests and answers of pairing, and the code that a person types.
pub fn pairing(bytes: &[u8]) {
    let _ = decode::<PairRequest>(bytes);
    let _ = decode::<PairAnswer>(bytes);
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = PairingCode::parse(text);
        let _ = text.parse::<Name>();
    }
}

/// A store's authority, its gateway, and a session with a terminal.
struct Group {
    authority: Authority,
    gateway: Identity,
    session: Mutex<mls::Session>,
    seeds: [Vec<u8>; 3],
    now: Timestamp,
}

static GROUP: LazyLock<Group> = LazyLock::new(|| {
    // Key packages hold around the system's time.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    let authority = Authority::generate("store", now).expect("keys");
    let identity = |name: &str, role| {
        let (pending, name) = (Identity::generate(), name.parse().expect("a name"));
        let day = palmgate_protocol::DAY;
        let leaf = authority.issue(&pending.csr_der(), &name, role, now, day).expect("a request");
        pending.certified(vec![leaf.der, authority.certificate_der().clone()]).expect("a chain")
    };
    let gateway = identity(topic::GATEWAY, Role::Both { hosts: Vec::new() });
    let till = identity("till-1", Role::Client);
    let (joining, package) = mls::request_to_join(&till, now).expect("a key package");
    let admitted = mls::admit(&gateway, &package, authority.certificate_der(), now);
    let admitted = admitted.expect("a terminal of this store");
    let joined = joining.accept(&admitted.welcome, authority.certificate_der(), now);
    let message = joined.expect("a welcome").seal(b"message").expect("a session");
    let seeds = [package, admitted.welcome, message];
    Group { gateway, session: Mutex::new(admitted.session), seeds, authority, now }
});

/// Messages of a living group, to start from: their keys are new in each run.
pub fn mls_seeds() -> Vec<Vec<u8>> {
    GROUP.seeds.to_vec()
}

/// Key packages and messages that reach a gateway, Welcomes that reach a terminal.
pub fn mls_messages(bytes: &[u8]) {
    let group = &*GROUP;
    let authority = group.authority.certificate_der();
    let _ = mls::admit(&group.gateway, bytes, authority, group.now);
    let _ = group.session.lock().unwrap_or_else(PoisonError::into_inner).open(bytes);
}

/// Claim tokens and assertions (COSE). The first 32 bytes are the key that must have signed.
pub fn token(bytes: &[u8]) {
    let Some((key, token)) = bytes.split_first_chunk() else { return };
    let (key, tenant) = (VerifyingKey(*key), "tenant".parse().expect("a name"));
    let _ = claim::read(token, &[key], &tenant);
    let _ = assertion::read(token, &key);
}

/// Notes, checkpoints, entries, proofs and receipts.
pub fn ledger(bytes: &[u8]) {
    let _ = Entry::parse(bytes);
    let Ok(text) = str::from_utf8(bytes) else { return };
    let key = VerifyingKey([7; 32]);
    let _ = Note::parse(text);
    let _ = Checkpoint::verify(text, &key);
    let _ = receipt::verify(text, Some(&key));
    if let Ok(evidence) = Evidence::parse(text) {
        let _ = evidence.verify(&key);
    }
}

/// Pictures of hands.
pub fn picture(bytes: &[u8]) {
    if bytes.len() <= MAX_FRAME_BYTES {
        let picture = Biometric::new(bytes.to_vec());
        let _ =
            palmgate_palm::is_readable(&Frame { band: Band::Visible, picture, region_of: None });
    }
}
