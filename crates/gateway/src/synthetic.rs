//! Synthetic people: random protected templates that stand for members who never come. For load
//! tests and benchmarks, on a state directory that no gateway has used yet.

use crate::clock;
use palmgate_policy::{Origin, Profile};
use palmgate_protocol::{
    ClaimHandle, Custody, DAY, EMBEDDING_DIMENSIONS, Embedding, Hand, MemberId, Name, Pseudonym,
    Purpose, Secret, Template, cloud::Consent, encode_for_sealing,
};
use palmgate_seal::random;
use palmgate_vault::{Column, FileRoot, NewPerson, Vault};
use std::path::Path;

/// People stored at once.
const BATCH: usize = 2_000;

/// Fills the vault below `state_directory` with `count` people of `tenant`, in `operator` custody,
/// half of them enrolled for payments and half for entry.
///
/// # Errors
/// The directory cannot be used, or belongs to another tenant.
pub fn fill(state_directory: &Path, tenant: &Name, count: usize) -> Result<(), anyhow::Error> {
    crate::opened::private_directory(state_directory)?;
    let keeper = Box::new(FileRoot::new(state_directory.join("root")));
    let vault = Vault::open(&state_directory.join("vault"), tenant, keeper)?;
    let mut left = count;
    while left > 0 {
        let batch = left.min(BATCH);
        vault.insert((0..batch).map(person).collect())?;
        left -= batch;
    }
    Ok(())
}

fn person(number: usize) -> NewPerson {
    let purpose = if number.is_multiple_of(2) { Purpose::Pay } else { Purpose::Entry };
    let claim = ClaimHandle::from_random(random::bytes());
    let now = clock::now();
    let expires_at = now.after(180 * DAY);
    let profile = Profile {
        claim,
        custody: Custody::Operator,
        origin: Origin::Store,
        consents: vec![Consent {
            purpose,
            given_at: now,
            expires_at,
            notice: crate::NOTICE.into(),
            language: "fr".into(),
        }],
        hands: vec![(purpose, Hand::Right)],
        pseudonyms: vec![(purpose, Pseudonym::from_random(random::bytes()))],
        paused: false,
        authorisation: None,
        enrolled_at: now,
        expires_at,
        salt: random::bytes(),
        spent: palmgate_policy::Spent::default(),
        objected: false,
        replaces: None,
        released_at: None,
        exported: false,
    };
    let template = random_template().to_bytes();
    let columns = vec![
        (Column::Profile, encode_for_sealing(&profile)),
        (Column::Template(purpose, Hand::Right), Secret::new(template.expose().clone())),
    ];
    NewPerson { member: MemberId::from_random(random::bytes()), claim, columns }
}

/// A direction drawn evenly from the sphere (sums of uniform bytes are near enough to normal), and
/// random codes.
fn random_template() -> Template {
    let draws: [[u8; 8]; EMBEDDING_DIMENSIONS] = std::array::from_fn(|_| random::bytes());
    let normal = draws.map(|bytes| bytes.iter().map(|byte| f32::from(*byte) - 127.5).sum::<f32>());
    let length = normal.iter().map(|component| component * component).sum::<f32>().sqrt();
    let scale = 127.0 * 8.0_f32.sqrt() / length;
    let embedding: Embedding = normal.map(|component| (component * scale).round() as i8);
    Template { embedding, codes: std::array::from_fn(|_| random::bytes()) }
}
