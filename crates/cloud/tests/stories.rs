//! What stores and people may rely on, over real mutual TLS.
#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod common;

use common::{
    Cloud, Gateway, apart, erasure_of, in_a_month, pay_and_roam,
    people::{Person, purposes},
    read, resolution,
};
use palmgate_ledger::{Entry, EntryKind, Ledger};
use palmgate_protocol::{
    Purpose, TEMPLATE_BYTES, Timestamp,
    cloud::{ClaimQuery, ErasureState, MemberRecord, Resolution},
    decode, encode,
};
use palmgate_seal::{
    envelope::{self, Label},
    sign::SigningKey,
};
use reqwest::StatusCode;
use ring::{digest, hmac};
use std::{collections::BTreeSet, path::Path};

/// Each story is told of a cloud in one process and of one over PostgreSQL.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $story() {
                super::$story(super::Cloud::start()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $story() {
                super::$story(super::Cloud::start_on_postgres()).await;
            })*
        }
    };
}

stories! {
    a_shard_is_whole_then_a_difference_then_nothing,
    every_store_gets_its_own_shard_and_none_of_anothers,
    a_visited_store_knows_the_person_from_its_next_shard,
    a_hit_and_a_miss_have_one_size,
    only_the_claimed_person_who_roams_and_consented_is_found,
    an_erased_person_is_in_no_later_shard_or_answer_and_cannot_return,
    an_erasure_is_complete_when_every_store_that_had_the_person_says_so,
    a_split_record_comes_back_as_it_was_and_is_in_no_shard,
    stores_learn_of_forgotten_claims_that_were_never_registered,
    nothing_readable_about_anybody_is_on_any_disk,
    a_store_can_neither_take_over_nor_shadow_anothers_people,
    a_registration_whose_words_and_record_differ_is_refused,
    the_first_keys_of_a_store_stay_until_the_operator_resets_it,
    a_ledger_that_goes_on_is_cosigned_and_a_fork_is_not,
}

async fn a_shard_is_whole_then_a_difference_then_nothing(cloud: Cloud) {
    let mut lyon = cloud.store("lyon").await;
    let (first, second) = (Person::new(), Person::new());
    lyon.enrol(&first, pay_and_roam()).await;
    assert!(lyon.fetch().await);
    assert!(lyon.has(&first));
    assert!(!lyon.fetch().await);
    lyon.enrol(&second, pay_and_roam()).await;
    assert!(lyon.fetch().await);
    assert!(lyon.has(&first) && lyon.has(&second));
    assert_eq!(lyon.held.unwrap().0, 2);
    assert!(!lyon.fetch().await);
}

async fn every_store_gets_its_own_shard_and_none_of_anothers(cloud: Cloud) {
    let (mut lyon, mut paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let (of_lyon, of_paris) = (Person::new(), Person::new());
    lyon.enrol(&of_lyon, pay_and_roam()).await;
    paris.enrol(&of_paris, pay_and_roam()).await;
    lyon.fetch().await;
    paris.fetch().await;
    assert!(lyon.has(&of_lyon) && !lyon.has(&of_paris));
    assert!(paris.has(&of_paris) && !paris.has(&of_lyon));
}

async fn a_visited_store_knows_the_person_from_its_next_shard(cloud: Cloud) {
    let (lyon, mut paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let person = Person::new();
    lyon.enrol(&person, pay_and_roam()).await;
    paris.fetch().await;
    assert!(!paris.has(&person));
    let (answer, _) = paris.resolve(&paris.query(&person, Purpose::Pay, &person)).await;
    let Resolution::Found { sealed } = answer else { panic!("not found") };
    let aad = Resolution::binding(&person.claim);
    let record =
        envelope::open(&paris.key, Label::Resolution, &paris.tenant, &aad, &sealed).unwrap();
    let record: MemberRecord = decode(record.expose()).unwrap();
    assert!(record.member == person.member && record.claim == person.claim);
    assert!(envelope::open(&lyon.key, Label::Resolution, &lyon.tenant, &aad, &sealed).is_err());
    assert!(paris.fetch().await);
    assert!(paris.has(&person));
}

async fn a_hit_and_a_miss_have_one_size(cloud: Cloud) {
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let (small, large, split) = (Person::new(), Person::new(), Person::new());
    lyon.enrol(&small, pay_and_roam()).await;
    let all = purposes(Purpose::ALL);
    lyon.enrol(&large, all).await;
    lyon.register(&split.split(all, in_a_month())).await;
    let mut sizes = BTreeSet::new();
    for (person, found) in [(&small, true), (&large, true), (&Person::new(), false)] {
        let (answer, size) = paris.resolve(&paris.query(person, Purpose::Pay, person)).await;
        assert_eq!(matches!(answer, Resolution::Found { .. }), found);
        sizes.insert(size);
    }
    for claim in [split.claim, Person::new().claim] {
        let response = paris.post("/v1/resolve/claim", encode(&ClaimQuery { claim })).await;
        sizes.insert(resolution(response).await.1);
    }
    assert_eq!(sizes, BTreeSet::from([Resolution::WIRE_BYTES]));
}

async fn only_the_claimed_person_who_roams_and_consented_is_found(cloud: Cloud) {
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let (roams, stays) = (Person::new(), Person::new());
    lyon.enrol(&roams, pay_and_roam()).await;
    lyon.enrol(&stays, purposes([Purpose::Pay])).await;
    let cases = [
        ("right palm", paris.query(&roams, Purpose::Pay, &roams), true),
        ("somebody else's palm", paris.query(&roams, Purpose::Pay, &stays), false),
        ("another purpose", paris.query(&roams, Purpose::Loyalty, &roams), false),
        ("roaming as a purpose", paris.query(&roams, Purpose::Roaming, &roams), false),
        ("no roaming", paris.query(&stays, Purpose::Pay, &stays), false),
    ];
    for (case, query, found) in cases {
        let (answer, _) = paris.resolve(&query).await;
        assert_eq!(matches!(answer, Resolution::Found { .. }), found, "{case}");
    }
    assert!(lyon.finds(&stays).await, "at home no roaming is needed");
}

async fn an_erased_person_is_in_no_later_shard_or_answer_and_cannot_return(mut cloud: Cloud) {
    let (mut lyon, mut paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let person = Person::new();
    let registration = lyon.operator(&person, pay_and_roam());
    lyon.register(&registration).await;
    assert!(paris.finds(&person).await);
    lyon.fetch().await;
    paris.fetch().await;
    paris.erase(&person).await;
    for restarted in [false, true] {
        if restarted {
            cloud.restart().await;
            (lyon.address, paris.address) = (cloud.address, cloud.address);
            (lyon.held, paris.held) = (None, None);
        }
        assert!(lyon.fetch().await && paris.fetch().await);
        assert!(!lyon.has(&person) && !paris.has(&person));
        assert!(!lyon.finds(&person).await && !paris.finds(&person).await);
        let again = lyon.post("/v1/registrations", encode(&registration)).await;
        assert_eq!(common::problem(again).await, (410, "forgotten".into()));
    }
    let stranger = Person::new();
    let stolen = Person { claim: person.claim, ..stranger };
    let refused = lyon.operator(&stolen, pay_and_roam());
    let refused = lyon.post("/v1/registrations", encode(&refused)).await;
    assert_eq!(common::problem(refused).await, (410, "forgotten".into()));
}

async fn an_erasure_is_complete_when_every_store_that_had_the_person_says_so(cloud: Cloud) {
    let (mut lyon, mut paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let mut lille = cloud.store("lille").await;
    let person = Person::new();
    lyon.enrol(&person, pay_and_roam()).await;
    assert!(paris.finds(&person).await);
    for store in [&mut lyon, &mut paris, &mut lille] {
        store.fetch().await;
        store.confirm().await;
    }
    let asked = lyon.erase(&person).await;
    assert_eq!(asked.outstanding, [lyon.name.clone(), paris.name.clone()]);
    paris.confirm().await;
    assert_eq!(lyon.erasure(&person).await.outstanding.len(), 2, "an old version says nothing");
    paris.fetch().await;
    paris.confirm().await;
    assert_eq!(lyon.erasure(&person).await.outstanding, [lyon.name.clone()]);
    lyon.fetch().await;
    lyon.confirm().await;
    let done = lyon.erase(&person).await;
    assert!(done.outstanding.is_empty());
    assert_eq!(done.erased_at, asked.erased_at, "a repetition changes nothing");
    for state in [asked, done] {
        let bytes = state.signed_bytes(&erasure_of(&person).commitment);
        lyon.publisher.verify(ErasureState::LABEL, &bytes, &state.signature).unwrap();
    }
    let commitment = data_encoding::HEXLOWER.encode(&erasure_of(&person).commitment);
    let other = paris.get(&format!("/v1/erasures/{commitment}")).await;
    assert_eq!(common::problem(other).await, (404, "not-found".into()));
}

async fn a_split_record_comes_back_as_it_was_and_is_in_no_shard(cloud: Cloud) {
    let (mut lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let (roams, stays) = (Person::new(), Person::new());
    let registration = roams.split(pay_and_roam(), in_a_month());
    lyon.register(&registration).await;
    lyon.register(&stays.split(purposes([Purpose::Pay]), in_a_month())).await;
    lyon.fetch().await;
    assert!(lyon.members.is_empty());
    let asked = async |store: &Gateway, person: &Person| {
        let query = encode(&ClaimQuery { claim: person.claim });
        resolution(store.post("/v1/resolve/claim", query).await).await.0
    };
    let Resolution::Found { sealed } = asked(&paris, &roams).await else { panic!("not found") };
    assert!(sealed == registration.sealed);
    assert!(matches!(asked(&paris, &stays).await, Resolution::NotFound));
    assert!(matches!(asked(&lyon, &stays).await, Resolution::Found { .. }));
    assert!(!paris.finds(&roams).await, "the cloud cannot match what it cannot read");
    assert_eq!(lyon.erase(&roams).await.outstanding, [lyon.name.clone(), paris.name.clone()]);
    assert!(matches!(asked(&paris, &roams).await, Resolution::NotFound));
}

async fn stores_learn_of_forgotten_claims_that_were_never_registered(cloud: Cloud) {
    let (lyon, mut paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let person = Person::new();
    assert!(lyon.erase(&person).await.outstanding.is_empty());
    let page = paris.tombstones(0).await;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &page.key);
    let hash = |kind: u8, id: &[u8; 16]| {
        hmac::sign(&key, &[&[kind], id.as_slice()].concat()).as_ref().to_vec()
    };
    let claim = hash(2, person.claim.as_bytes());
    let hashes: Vec<_> = page.hashes.iter().map(|hash| hash.to_vec()).collect();
    assert!(hashes.contains(&claim) && hashes.contains(&hash(1, person.member.as_bytes())));
    assert!(!page.more && paris.tombstones(page.up_to).await.hashes.is_empty());
    paris.fetch().await;
    let mut sorted = hashes;
    sorted.sort();
    let sha = |parts: &[&[u8]]| digest::digest(&digest::SHA256, &parts.concat());
    let (a, b) = (sha(&[&[0], &sorted[0]]), sha(&[&[0], &sorted[1]]));
    assert_eq!(paris.tombstone_root, sha(&[&[1], a.as_ref(), b.as_ref()]).as_ref());
}

async fn nothing_readable_about_anybody_is_on_any_disk(mut cloud: Cloud) {
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let people: Vec<_> = (0..40).map(|_| Person::new()).collect();
    let mut needles: Vec<Vec<u8>> = vec![common::people::CARD_TOKEN.to_vec()];
    let mut control = Vec::new();
    for (index, person) in people.iter().enumerate() {
        if index % 2 == 0 {
            lyon.enrol(person, pay_and_roam()).await;
            assert!(paris.finds(person).await);
        } else {
            let registration = person.split(pay_and_roam(), in_a_month());
            lyon.register(&registration).await;
            needles.push(registration.sealed[..24].to_vec());
        }
        let template = person.template().to_bytes();
        let codes = &template.expose()[TEMPLATE_BYTES - 24..];
        needles.extend([codes.to_vec(), person.member.as_bytes().to_vec()]);
        needles.push(person.claim.as_bytes().to_vec());
        control.extend_from_slice(&encode(&person.record(
            pay_and_roam(),
            in_a_month(),
            in_a_month(),
        )));
    }
    for person in &people[..10] {
        lyon.erase(person).await;
    }
    cloud.stop().await;
    std::fs::write(cloud.state().join("control"), control).unwrap();
    let places = cloud.places();
    let found: Vec<_> = places.iter().flat_map(|place| search(place, &needles)).collect();
    let files: BTreeSet<_> = found.iter().map(|(file, _)| file.as_str()).collect();
    assert_eq!(files, BTreeSet::from(["control"]), "and the search finds what is there");
}

fn search(directory: &Path, needles: &[Vec<u8>]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(search(&entry.path(), needles));
        }
        if !kind.is_file() {
            continue;
        }
        let bytes = std::fs::read(entry.path()).unwrap();
        for (index, needle) in needles.iter().enumerate() {
            if bytes.windows(needle.len()).any(|window| window == *needle) {
                found.push((entry.file_name().into_string().unwrap(), index));
            }
        }
    }
    found
}

async fn a_store_can_neither_take_over_nor_shadow_anothers_people(cloud: Cloud) {
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let (person, other) = (Person::new(), Person::new());
    lyon.enrol(&person, pay_and_roam()).await;
    let same_claim = Person { claim: person.claim, ..other };
    for registration in [
        paris.operator(&person, pay_and_roam()),
        paris.operator(&same_claim, pay_and_roam()),
        lyon.operator(&same_claim, pay_and_roam()),
    ] {
        let refused = paris.post("/v1/registrations", encode(&registration)).await;
        assert_eq!(common::problem(refused).await, (409, "conflict".into()));
    }
    let mut erasure = erasure_of(&other);
    erasure.claim = person.claim;
    let refused = paris.post("/v1/erasures", encode(&erasure)).await;
    assert_eq!(common::problem(refused).await, (409, "conflict".into()));
    assert!(lyon.finds(&person).await);
}

async fn a_registration_whose_words_and_record_differ_is_refused(cloud: Cloud) {
    let lyon = cloud.store("lyon").await;
    let person = Person::new();
    let good = || lyon.operator(&person, pay_and_roam());
    let mut wrong = vec![
        palmgate_protocol::cloud::Registration { purposes: purposes([Purpose::Pay]), ..good() },
        palmgate_protocol::cloud::Registration { claim: Person::new().claim, ..good() },
        palmgate_protocol::cloud::Registration { expires_at: Timestamp::from_millis(1), ..good() },
        palmgate_protocol::cloud::Registration { sealed: vec![0; 900], ..good() },
    ];
    let mut changed = good();
    changed.sealed[60] ^= 1;
    wrong.push(changed);
    for registration in wrong {
        let refused = lyon.post("/v1/registrations", encode(&registration)).await;
        assert_eq!(common::problem(refused).await, (422, "record-refused".into()));
    }
    lyon.register(&good()).await;
}

async fn the_first_keys_of_a_store_stay_until_the_operator_resets_it(cloud: Cloud) {
    let lyon = cloud.store("lyon").await;
    let paris = cloud.store("paris").await;
    let directory = lyon.hello().await;
    let issuers: Vec<_> =
        directory.issuers.iter().map(|issuer| (issuer.store.clone(), issuer.verify_key)).collect();
    assert_eq!(
        issuers,
        [
            (lyon.name.clone(), lyon.signing.public().0),
            (paris.name.clone(), paris.signing.public().0),
        ]
    );
    let other = palmgate_protocol::cloud::Hello { seal_key: [9; 32], ..lyon.greeting() };
    let refused = lyon.post("/v1/hello", encode(&other)).await;
    assert_eq!(common::problem(refused).await, (409, "keys-changed".into()));
    let state = cloud.state();
    apart(|| palmgate_cloud::provision::reset_store(&state, &lyon.name).unwrap());
    let taken = lyon.post("/v1/hello", encode(&other)).await;
    assert_eq!(taken.status(), StatusCode::OK);
    let refused = lyon.post("/v1/hello", encode(&lyon.greeting())).await;
    assert_eq!(common::problem(refused).await, (409, "keys-changed".into()));
    let known: palmgate_protocol::cloud::Directory = read(lyon.get("/v1/directory").await).await;
    assert_eq!(known.issuers.len(), 2);
}

/// The body of C2SP tlog-witness.
fn asks(old: u64, path: &[[u8; 32]], checkpoint: &str) -> Vec<u8> {
    let path: Vec<String> = path.iter().map(|hash| data_encoding::BASE64.encode(hash)).collect();
    let lines = [vec![format!("old {old}")], path, vec![String::new()]].concat();
    format!("{}\n{checkpoint}", lines.join("\n")).into_bytes()
}

/// A ledger of a store with so many entries, all alike but for `rule`.
fn ledger(store: &Gateway, entries: usize, rule: &str) -> (tempfile::TempDir, Ledger) {
    let directory = tempfile::tempdir().unwrap();
    let key = SigningKey::from_pkcs8(store.signing.pkcs8().expose()).unwrap();
    let origin = palmgate_ledger::origin(&store.tenant, &store.name);
    let mut ledger = Ledger::open(directory.path(), &origin, key).unwrap();
    grow(&mut ledger, entries, rule);
    (directory, ledger)
}

fn grow(ledger: &mut Ledger, entries: usize, rule: &str) {
    for _ in 0..entries {
        let entry = Entry {
            at: Timestamp::from_millis(1_800_000_000_000),
            kind: EntryKind::Scan,
            terminal: None,
            purpose: None,
            outcome: "accepted".into(),
            rules: vec![rule.into()],
            pack: [0; 32],
            commitment: palmgate_ledger::NOBODY,
        };
        ledger.append(&entry).unwrap();
    }
    ledger.flush().unwrap();
}

async fn a_ledger_that_goes_on_is_cosigned_and_a_fork_is_not(cloud: Cloud) {
    let (lyon, paris) = (cloud.store("lyon").await, cloud.store("paris").await);
    let path = "/v1/witness/add-checkpoint";
    let (_directory, mut own) = ledger(&lyon, 3, "one");
    let first = own.checkpoint().to_owned();
    let cosigned = lyon.post(path, asks(0, &[], &first)).await;
    assert_eq!(cosigned.status(), StatusCode::OK);
    let line = cosigned.text().await.unwrap();
    assert!(line.contains("palmgate-witness/") && line.lines().count() == 1, "{line}");
    grow(&mut own, 4, "one");
    let proof = own.consistency(3, 7).unwrap().path;
    let second = own.checkpoint().to_owned();
    let wrong_size = lyon.post(path, asks(0, &[], &second)).await;
    assert_eq!(wrong_size.status(), StatusCode::CONFLICT);
    assert_eq!(wrong_size.headers()["content-type"], "text/x.tlog.size");
    assert_eq!(wrong_size.text().await.unwrap(), "3\n");
    assert_eq!(lyon.post(path, asks(3, &proof, &second)).await.status(), StatusCode::OK);

    let (_directory, fork) = ledger(&lyon, 7, "another");
    let forked = lyon.post(path, asks(7, &[], fork.checkpoint())).await;
    assert_eq!(forked.status(), StatusCode::CONFLICT, "another tree of the same size");
    let (_directory, longer) = ledger(&lyon, 9, "another");
    let proof = longer.consistency(7, 9).unwrap().path;
    let forked = lyon.post(path, asks(7, &proof, longer.checkpoint())).await;
    assert_eq!(common::problem(forked).await, (422, "not-consistent".into()));
    let rolled_back = lyon.post(path, asks(3, &[], &first)).await;
    assert_eq!(rolled_back.status(), StatusCode::CONFLICT);
    let of_another = paris.post(path, asks(0, &[], &second)).await;
    assert_eq!(common::problem(of_another).await, (403, "not-signed".into()));
    for malformed in [b"".to_vec(), b"old x\n\n".to_vec(), asks(9, &[], &second), vec![0xff; 40]] {
        assert_eq!(common::problem(lyon.post(path, malformed).await).await.0, 400);
    }
    let heads = lyon.get("/v1/witness/heads").await.text().await.unwrap();
    assert!(heads.starts_with(&second) && heads.contains("palmgate-witness/"), "{heads}");
}
