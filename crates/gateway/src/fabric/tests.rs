//! What an attacker who records everything, owns the broker, or takes the disk can do with it.

use super::{
    Admission, Freshness, Inbound, Outbound,
    conversation::{Conversation, Shared},
};
use crate::{
    metrics::Metrics,
    pressure::{self, Pressure},
    store::Input,
    terminals::CurrentRoster,
};
use palmgate_protocol::{
    CaptureId, DAY, MemberId, Name, Purpose, PurposeSet, ScanChallenge, Timestamp, decode,
    encode_for_sealing,
    terminal::{Answer, AnswerBody, Intent, Payment, Refusal, Request, RequestBody, Scan},
    topic::{self, Channel},
};
use palmgate_seal::{
    mls::{self, Joining, Opened, Session},
    pki::{Authority, Identity, Role},
};
use palmgate_vault::{FileRoot, Vault};
use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

const RECORDED: usize = 10_000;

fn now() -> Timestamp {
    crate::clock::now()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn identity(authority: &Authority, name: &str, role: Role) -> (Identity, Vec<u8>) {
    let (pending, name) = (Identity::generate(), name.parse::<Name>().unwrap());
    let leaf = authority.issue(&pending.csr_der(), &name, role, now(), DAY).unwrap();
    let chain = vec![leaf.der, authority.certificate_der().clone()];
    (pending.certified(chain).unwrap(), leaf.serial)
}

fn copy(identity: &Identity) -> Identity {
    Identity::from_pem(&identity.chain_pem(), identity.key_pem().expose()).unwrap()
}

fn vault(directory: &Path) -> Arc<Vault> {
    let keeper = Box::new(FileRoot::new(directory.join("root")));
    Arc::new(Vault::open(&directory.join("vault"), &name("tenant"), keeper).unwrap())
}

/// A copy of a whole directory, as a backup of the disk has it.
fn snapshot(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            snapshot(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Everybody but these.
struct Admitted {
    gateway: Arc<Identity>,
    revoked: Vec<Vec<u8>>,
}

impl Admission for Admitted {
    fn own(&self) -> Arc<Identity> {
        Arc::clone(&self.gateway)
    }

    fn holds(&self, _: &Name, serial: &[u8]) -> bool {
        !self.revoked.iter().any(|revoked| revoked == serial)
    }

    fn learn(&self, _: &Name, _: &[u8], _: [u8; 32]) {}

    fn roster(&self) -> Option<Arc<CurrentRoster>> {
        None
    }
}

/// A gateway's side of one terminal, without a network.
struct Gateway {
    conversation: Conversation,
    requests: mpsc::Receiver<Inbound>,
    published: flume::Receiver<rumqttc::Request>,
    told: mpsc::UnboundedReceiver<Input>,
}

struct World {
    directory: TempDir,
    authority: Authority,
    gateway: Identity,
    till: Identity,
    serial: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let authority = Authority::generate("store", now()).unwrap();
        let (gateway, _) = identity(&authority, topic::GATEWAY, Role::Both { hosts: Vec::new() });
        let (till, serial) = identity(&authority, "till-1", Role::Client);
        Self { directory: tempfile::tempdir().unwrap(), authority, gateway, till, serial }
    }

    /// A gateway that has just started on what `directory` holds.
    fn start(&self, directory: &Path, revoked: &[&[u8]]) -> Gateway {
        self.start_with(directory, revoked, Purpose::MATCHED.into_iter().collect())
    }

    fn start_with(&self, directory: &Path, revoked: &[&[u8]], needed_for: PurposeSet) -> Gateway {
        let (requests, received) = mpsc::channel(2 * RECORDED);
        let (publish, published) = flume::unbounded();
        let (inputs, told) = mpsc::unbounded_channel();
        let shared = Shared {
            terminals: Arc::new(Admitted {
                gateway: Arc::new(copy(&self.gateway)),
                revoked: revoked.iter().map(|serial| serial.to_vec()).collect(),
            }),
            authority_der: self.authority.certificate_der().clone(),
            vault: vault(directory),
            client: rumqttc::AsyncClient::from_senders(publish),
            requests,
            inputs,
            metrics: Arc::new(Metrics::new(directory.to_owned()).unwrap()),
            freshness: Freshness { lifetime: Duration::from_mins(1), needed_for },
            pressure: Pressure::default(),
            anew: std::sync::Mutex::default(),
        };
        let conversation = Conversation::begin(Arc::new(shared), name("till-1"));
        Gateway { conversation, requests: received, published, told }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn asks_to_join(&self) -> (Joining, Vec<u8>) {
        mls::request_to_join(&self.till, now()).unwrap()
    }

    async fn joined(&self, gateway: &mut Gateway) -> (Session, Vec<u8>) {
        let (joining, package) = self.asks_to_join();
        gateway.conversation.join(&package).await;
        let welcome = gateway.welcome().expect("a welcome");
        let authority = self.authority.certificate_der();
        (joining.accept(&welcome, authority, now()).unwrap(), package)
    }
}

impl Gateway {
    /// What it published since the last look.
    fn published(&self) -> Vec<(Channel, Vec<u8>)> {
        let publish = |request| match request {
            rumqttc::Request::Publish(publish) => {
                let (_, channel) = topic::parse(&publish.topic).unwrap();
                Some((channel, publish.payload.to_vec()))
            }
            _ => None,
        };
        self.published.try_iter().filter_map(publish).collect()
    }

    /// The Welcome among it.
    fn welcome(&self) -> Option<Vec<u8>> {
        let welcome = |(channel, payload): &(Channel, Vec<u8>)| {
            *channel == Channel::Welcome && !payload.is_empty()
        };
        self.published().into_iter().find(welcome).map(|(_, payload)| payload)
    }

    /// Requests that reached the policy's door since the last look.
    fn accepted(&mut self) -> usize {
        std::iter::from_fn(|| self.requests.try_recv().ok()).count()
    }

    async fn hears(&mut self, messages: &[Vec<u8>]) -> usize {
        for message in messages {
            self.conversation.up(message, Instant::now()).await;
        }
        self.accepted()
    }
}

fn request(number: usize, body: RequestBody) -> Request {
    let capture =
        CaptureId::from_random(std::array::from_fn(|at| (number >> (8 * (at % 8))) as u8));
    Request::new(capture, now(), body)
}

/// Messages of a terminal, each sealed once. Somebody exercises a right in each: those are never
/// refused for being many.
fn sealed(session: &mut Session, count: usize) -> Vec<Vec<u8>> {
    let seal = |number| {
        let request = request(number, RequestBody::Scan(Scan::new(Intent::Erase, Vec::new())));
        session.seal(encode_for_sealing(&request).expose()).unwrap()
    };
    (0..count).map(seal).collect()
}

#[tokio::test]
async fn nothing_recorded_is_ever_accepted_again() {
    let world = World::new();
    let (live, backup) = (world.path().join("live"), world.path().join("backup"));
    let mut gateway = world.start(&live, &[]);
    let (mut till, package) = world.joined(&mut gateway).await;
    let record = sealed(&mut till, RECORDED);
    assert_eq!(gateway.hears(&record[..RECORDED / 2]).await, RECORDED / 2);
    snapshot(&live, &backup);
    assert_eq!(gateway.hears(&record[RECORDED / 2..]).await, RECORDED / 2, "the control");

    assert_eq!(gateway.hears(&record).await, 0, "in the same epoch");
    let session = &mut gateway.conversation.session.as_mut().unwrap().session;
    let change = session.self_update().unwrap();
    assert!(matches!(till.open(&change), Ok(Opened::Changed)));
    assert_eq!(gateway.hears(&record).await, 0, "in the next epoch");
    assert_eq!(gateway.hears(&sealed(&mut till, 3)).await, 3, "the terminal itself goes on");

    gateway.conversation.join(&package).await;
    assert_eq!(gateway.welcome(), None, "the same key package");
    drop(gateway);
    let mut gateway = world.start(&live, &[]);
    assert_eq!(gateway.hears(&record).await, 0, "after a restart");
    gateway.conversation.join(&package).await;
    assert_eq!(gateway.welcome(), None, "the same key package after a restart");
    world.joined(&mut gateway).await;
    assert_eq!(gateway.hears(&record).await, 0, "in the session after it");
    drop(gateway);

    let mut gateway = world.start(&backup, &[]);
    assert_eq!(gateway.hears(&record).await, 0, "after a backup came back");
    gateway.conversation.join(&package).await;
    assert_eq!(gateway.welcome(), None, "the same key package after a backup came back");
    let (mut till, _) = world.joined(&mut gateway).await;
    assert_eq!(gateway.hears(&record).await, 0, "in the session after it");
    assert_eq!(gateway.hears(&sealed(&mut till, 3)).await, 3, "the terminal itself goes on");
}

#[tokio::test]
async fn a_removed_terminal_is_never_heard_again_not_even_under_its_old_name() {
    let world = World::new();
    let mut gateway = world.start(world.path(), &[]);
    let (mut till, _) = world.joined(&mut gateway).await;
    let said = sealed(&mut till, RECORDED);
    assert_eq!(gateway.hears(&said[..1]).await, 1);
    drop(gateway);
    // Somebody paired a new terminal under the name.
    let mut gateway = world.start(world.path(), &[&world.serial]);
    for _ in 0..10 {
        gateway.conversation.join(&world.asks_to_join().1).await;
        assert_eq!(gateway.welcome(), None);
    }
    assert_eq!(gateway.hears(&said).await, 0);
    let (successor, _) = identity(&world.authority, "till-1", Role::Client);
    let (_, package) = mls::request_to_join(&successor, now()).unwrap();
    gateway.conversation.join(&package).await;
    assert!(gateway.welcome().is_some());
    assert_eq!(gateway.hears(&said).await, 0);
}

#[tokio::test]
async fn recorded_traffic_and_the_whole_box_afterwards_open_nothing() {
    let world = World::new();
    let mut gateway = world.start(world.path(), &[]);
    let (mut till, package) = world.joined(&mut gateway).await;
    let record = sealed(&mut till, 1_000);
    let copied = gateway.conversation.session.as_ref().unwrap().session.state();
    assert_eq!(gateway.hears(&record).await, 1_000);
    drop(gateway);

    let opens = |mut session: Session| record.iter().filter(|m| session.open(m).is_ok()).count();
    let control = Session::restore(copied.expose(), &world.gateway).unwrap();
    assert_eq!(opens(control), 1_000, "with the memory of that time everything opens");

    let vault = vault(world.path());
    let kept = vault.terminal_state(&name("till-1")).unwrap().expect("used key packages");
    assert!(Session::restore(kept.expose(), &world.gateway).is_err(), "no session is on disk");
    let authority = world.authority.certificate_der();
    let anew = mls::admit(&world.gateway, &package, authority, now()).unwrap();
    assert_eq!(opens(anew.session), 0, "the gateway's own keys only found other sessions");
}

#[tokio::test]
async fn a_flood_is_answered_busy_and_rights_come_through() {
    let world = World::new();
    let mut gateway = world.start(world.path(), &[]);
    let (mut till, _) = world.joined(&mut gateway).await;
    let mut challenges = first_challenges(&till).into_iter();
    let mut say = |number, intent| {
        let request = request(number, RequestBody::Scan(Scan::new(intent, Vec::new())));
        let request = Request { challenge: challenges.next(), ..request };
        till.seal(encode_for_sealing(&request).expose()).unwrap()
    };
    let flood: Vec<_> = (0..900).map(|number| say(number, Intent::Entry)).collect();
    let rights: Vec<_> = (900..1_000).map(|number| say(number, Intent::Erase)).collect();
    let _ = gateway.published();
    let taken = gateway.hears(&flood).await;
    assert_eq!(taken, 8, "as many as may be in work at once");
    let answers = gateway.published();
    assert_eq!(answers.len(), 900 - taken, "everybody else has an answer");
    for (_, answer) in answers {
        let Ok(Opened::Message(answer)) = till.open(&answer) else { panic!("unreadable") };
        let answer: Answer = decode(answer.expose()).unwrap();
        assert!(matches!(answer.body, AnswerBody::Busy));
    }
    assert_eq!(gateway.hears(&rights).await, 100);
}

/// Scans that reach the policy's door, of so many that are each answered at once.
async fn taken(world: &World, wait: bool, scans: usize) -> usize {
    let directory = world.path().join(if wait { "waiting" } else { "idle" });
    let mut gateway = world.start_with(&directory, &[], PurposeSet::default());
    let (mut till, _) = world.joined(&mut gateway).await;
    let mut taken = 0;
    for number in 0..scans {
        if wait {
            gateway.conversation.shared.pressure.raise(Instant::now());
        }
        let request = request(number, RequestBody::Scan(Scan::new(Intent::Entry, Vec::new())));
        let capture = request.capture;
        let message = till.seal(encode_for_sealing(&request).expose()).unwrap();
        taken += gateway.hears(&[message]).await;
        let answer = Answer::new(capture, AnswerBody::NotRecognised);
        let sent = tokio::sync::oneshot::channel().0;
        gateway.conversation.answer(Outbound { answer, about: None, sent }).await;
    }
    taken
}

#[tokio::test]
async fn while_people_wait_a_terminal_is_held_to_what_hands_can_do() {
    let world = World::new();
    assert_eq!(taken(&world, false, 50).await, 50, "what is to spare may be had");
    let begun = Instant::now();
    let held = taken(&world, true, 50).await;
    let (at_once, per_second) = (pressure::AT_ONCE, f64::from(pressure::PER_SECOND));
    let most = f64::from(at_once) + per_second * begun.elapsed().as_secs_f64();
    assert!(held >= at_once as usize && held as f64 <= most.ceil(), "{held} of at most {most}");
}

#[tokio::test]
async fn a_quiet_terminal_is_asked_for_new_keys_and_no_session_lasts_for_ever() {
    let world = World::new();
    let mut gateway = world.start(world.path(), &[]);
    let (mut till, _) = world.joined(&mut gateway).await;
    let hours = |hours| Instant::now() + Duration::from_hours(hours);
    let hints = |gateway: &Gateway| {
        let published = gateway.published();
        published.iter().filter(|(_, payload)| payload.is_empty()).count()
    };
    gateway.conversation.renew(Instant::now()).await;
    assert_eq!(hints(&gateway), 0);
    gateway.conversation.renew(hours(2)).await;
    assert_eq!(hints(&gateway), 1);
    assert_eq!(gateway.hears(&sealed(&mut till, 1)).await, 1, "the old keys serve until then");
    gateway.conversation.end_if_over(hours(25));
    assert!(gateway.conversation.session.is_none());
    assert_eq!(gateway.hears(&sealed(&mut till, 1)).await, 0);
    let (mut till, _) = world.joined(&mut gateway).await;
    assert_eq!(gateway.hears(&sealed(&mut till, 2)).await, 1, "one of the captures was decided");
}

#[tokio::test]
async fn a_doubled_message_does_not_make_the_terminal_join_again_and_an_old_state_does() {
    let world = World::new();
    let mut gateway = world.start(world.path(), &[]);
    let (mut till, _) = world.joined(&mut gateway).await;
    let old = till.state();
    let messages = sealed(&mut till, 20);
    assert_eq!(gateway.hears(&messages).await, 20);
    let _ = gateway.published();
    assert_eq!(gateway.hears(&messages).await, 0);
    assert_eq!(gateway.published(), Vec::new());
    let mut till = Session::restore(old.expose(), &world.till).unwrap();
    assert_eq!(gateway.hears(&sealed(&mut till, 1)).await, 0);
    assert_eq!(gateway.published(), [(Channel::Welcome, Vec::new())], "the hint to join");
}

#[tokio::test]
async fn after_an_erasure_the_persons_answers_are_wiped_and_the_session_begins_anew() {
    let begun = Instant::now().checked_sub(Duration::from_mins(1)).unwrap();
    let world = World::new();
    let mut gateway = world.start_with(world.path(), &[], PurposeSet::default());
    let (mut till, _) = world.joined(&mut gateway).await;
    assert!(matches!(gateway.told.try_recv(), Ok(Input::Joined(..))));
    let people = [1, 2].map(|number| MemberId::from_random([number; 16]));
    let say = |session: &mut Session, number, intent| {
        let request = request(number, RequestBody::Scan(Scan::new(intent, Vec::new())));
        session.seal(encode_for_sealing(&request).expose()).unwrap()
    };
    let asked = [0, 1].map(|number| say(&mut till, number, Intent::Entry));
    assert_eq!(gateway.hears(&asked).await, 2);
    let later = Instant::now() + Duration::from_mins(1);
    gateway.conversation.want_anew();
    let live = gateway.conversation.session.as_mut().unwrap();
    let joined = std::mem::replace(&mut live.joined, begun);
    gateway.conversation.begin_anew(Instant::now()).await;
    assert_eq!(gateway.published(), [], "somebody waits for an answer");
    gateway.conversation.session.as_mut().unwrap().joined = joined;
    for (number, member) in people.iter().enumerate() {
        let answer = Answer::new(request(number, RequestBody::Ping).capture, AnswerBody::Done);
        let (sent, _) = tokio::sync::oneshot::channel();
        gateway.conversation.answer(Outbound { answer, about: Some(*member), sent }).await;
    }
    assert_eq!(gateway.published().len(), 2);

    gateway.conversation.forget(&people[0]);
    let again = [0, 1].map(|number| say(&mut till, number, Intent::Entry));
    assert_eq!(gateway.hears(&again).await, 0, "both are decided");
    assert_eq!(gateway.published().len(), 1, "and only the other one's answer is repeated");

    gateway.conversation.begin_anew(Instant::now()).await;
    assert_eq!(gateway.published(), [], "the session is young");
    assert!(gateway.conversation.shared.takes_turn(later), "another terminal's");
    gateway.conversation.begin_anew(later).await;
    assert_eq!(gateway.published(), [], "one after the other");
    let later = later + Duration::from_secs(1);
    gateway.conversation.begin_anew(later).await;
    let hint = [(Channel::Welcome, Vec::new())];
    assert_eq!(gateway.published(), hint);
    gateway.conversation.begin_anew(later).await;
    assert_eq!(gateway.published(), [], "it was asked just now");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    gateway.conversation.begin_anew(later + Duration::from_mins(1)).await;
    assert_eq!(gateway.published(), hint, "and is asked again");
    let recorded = [say(&mut till, 7, Intent::Erase)];
    world.joined(&mut gateway).await;
    assert!(matches!(gateway.told.try_recv(), Ok(Input::Joined(..))));
    assert_eq!(gateway.hears(&recorded).await, 0, "the keys until then are gone");
    let _ = gateway.published();
    gateway.conversation.begin_anew(later + Duration::from_hours(1)).await;
    assert_eq!(gateway.published(), [], "nothing is wanted any more");
}

/// As both sides derive them.
fn first_challenges(session: &Session) -> Vec<ScanChallenge> {
    let exported = session.export(ScanChallenge::LABEL, ScanChallenge::FIRST_BYTES).unwrap();
    ScanChallenge::first(exported.expose()).collect()
}

/// A scan for `intent` under this number that names this challenge.
fn says(
    till: &mut Session,
    number: usize,
    intent: Intent,
    challenge: Option<ScanChallenge>,
) -> Vec<u8> {
    let request = request(number, RequestBody::Scan(Scan::new(intent, Vec::new())));
    let request = Request { challenge, ..request };
    till.seal(encode_for_sealing(&request).expose()).unwrap()
}

/// The one answer that was published since the last look.
fn answer(gateway: &Gateway, till: &mut Session) -> Answer {
    let [(Channel::Down, answer)] = &gateway.published()[..] else { panic!("one answer") };
    let Ok(Opened::Message(answer)) = till.open(answer) else { panic!("unreadable") };
    decode(answer.expose()).unwrap()
}

fn wants_a_challenge(answer: &Answer) -> bool {
    let reason = Refusal::ChallengeNeeded;
    matches!(answer.body, AnswerBody::Refused { reason: why } if why == reason)
}

#[tokio::test]
async fn a_scan_of_before_is_refused_with_challenges_and_nothing_is_decided_about_it() {
    let world = World::new();
    let mut gateway = world.start(world.path(), &[]);
    let (mut till, _) = world.joined(&mut gateway).await;
    let first = first_challenges(&till);
    let fresh = says(&mut till, 1, Intent::Entry, Some(first[0]));
    assert_eq!(gateway.hears(&[fresh]).await, 1, "the first ones need no message");
    assert!(gateway.published().is_empty());

    // Used, never given, and none at all.
    let old = [Some(first[0]), Some(ScanChallenge::from_random([9; 16])), None];
    let mut given = Vec::new();
    for (number, challenge) in (2..).zip(old) {
        let stale = says(&mut till, number, Intent::Entry, challenge);
        assert_eq!(gateway.hears(&[stale]).await, 0);
        let answer = answer(&gateway, &mut till);
        assert!(
            wants_a_challenge(&answer)
                && answer.capture == request(number, RequestBody::Ping).capture
        );
        given.extend(answer.challenges.unwrap().given);
    }
    assert!(given.len() >= 3, "each answer brings at least one");
    let again = says(&mut till, 2, Intent::Entry, Some(given[0]));
    assert_eq!(gateway.hears(&[again]).await, 1, "the same act, about a challenge of now");
    assert!(!given[1..].contains(&given[0]));

    let rights = [
        says(&mut till, 10, Intent::Erase, None),
        says(&mut till, 11, Intent::History, Some(first[0])),
    ];
    assert_eq!(gateway.hears(&rights).await, 2, "rights wait for no challenge");
}

#[tokio::test]
async fn challenges_end_with_their_session() {
    let world = World::new();
    let mut gateway = world.start(world.path(), &[]);
    let (till, _) = world.joined(&mut gateway).await;
    let first = first_challenges(&till);
    let (mut till, _) = world.joined(&mut gateway).await;
    assert!(first_challenges(&till).iter().all(|challenge| !first.contains(challenge)));
    let recorded = says(&mut till, 1, Intent::Entry, Some(first[0]));
    assert_eq!(gateway.hears(&[recorded]).await, 0);
    assert!(wants_a_challenge(&answer(&gateway, &mut till)));
}

/// A terminal of before knows no challenges: it names none, and skips those that it is given.
#[tokio::test]
async fn terminals_of_before_are_served_as_the_configuration_says() {
    let world = World::new();
    let pay = || {
        Intent::Pay(Payment {
            minor_units: 100,
            currency: "EUR".into(),
            payee: "Grocer".into(),
            nonce: [1; 16],
        })
    };
    for (needed_for, served) in
        [(PurposeSet::default().with(Purpose::Pay), 1), (Purpose::MATCHED.into_iter().collect(), 0)]
    {
        let directory = world.path().join(format!("{served}"));
        let mut gateway = world.start_with(&directory, &[], needed_for);
        let (mut till, _) = world.joined(&mut gateway).await;
        let loyalty = says(&mut till, 1, Intent::Loyalty, None);
        assert_eq!(gateway.hears(&[loyalty]).await, served);
        let _ = gateway.published();
        let payment = says(&mut till, 2, pay(), None);
        assert_eq!(gateway.hears(&[payment]).await, 0, "never for money");
        assert!(wants_a_challenge(&answer(&gateway, &mut till)));
        let ping = request(3, RequestBody::Ping);
        let ping = till.seal(encode_for_sealing(&ping).expose()).unwrap();
        assert_eq!(gateway.hears(&[ping]).await, 1);
        let stale = says(&mut till, 4, Intent::Loyalty, Some(ScanChallenge::from_random([9; 16])));
        assert_eq!(gateway.hears(&[stale]).await, 0, "who names one must name a good one");
    }
}
