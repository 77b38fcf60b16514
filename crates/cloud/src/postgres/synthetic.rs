//! A tenant full of people who do not exist, for measuring. Everything is sealed as it is for real
//! people; only the way in is shorter.

use super::{
    Postgres,
    database::Done,
    people::{EMBEDDING_ENTRY, Person},
    rows::{Column, Held, Member, due_at},
};
use crate::{layout::Layout, problem::Problem};
use palmgate_protocol::{
    Biometric, CODE_BYTES, CODES_PER_TEMPLATE, ClaimHandle, Custody, DAY, Embedding, Hand,
    MAX_PROBE_CODES, MemberId, Name, Probe, Pseudonym, Purpose, PurposeSet, Secret,
    TEMPLATE_FORMAT, Template, Timestamp,
    cloud::{Consent, MemberRecord, SealedPurpose},
    encode_for_sealing,
};
use palmgate_seal::random;
use postgres::Transaction;
use std::{error::Error, path::Path};

/// People written in one transaction.
const BATCH: u64 = 16_384;

/// The n-th person who does not exist: the same one whenever asked.
#[derive(Clone, Copy)]
pub struct Synthetic(pub u64);

impl Synthetic {
    fn bytes<const N: usize>(self, salt: u64) -> [u8; N] {
        let mut state = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt.rotate_left(32);
        // SplitMix64 (Steele, Lea, Flood 2014).
        let next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)).to_le_bytes()
        };
        let mut bytes = [0; N];
        let words: Vec<u8> = std::iter::repeat_with(next).take(N.div_ceil(8)).flatten().collect();
        bytes.copy_from_slice(&words[..N]);
        bytes
    }

    /// Who it is.
    pub fn member(self) -> MemberId {
        MemberId::from_random(self.bytes(1))
    }

    /// What they claim.
    pub fn claim(self) -> ClaimHandle {
        ClaimHandle::from_random(self.bytes(2))
    }

    /// Their palm as enrolled.
    pub fn template(self) -> Template {
        let signs = self.bytes::<{ size_of::<Embedding>() }>(3);
        let embedding = signs.map(|byte| if byte & 1 == 0 { 22 } else { -22 });
        let codes = self.bytes::<{ CODES_PER_TEMPLATE * CODE_BYTES }>(4);
        let mut template = Template { embedding, codes: [[0; CODE_BYTES]; CODES_PER_TEMPLATE] };
        let (chunks, _) = codes.as_chunks::<CODE_BYTES>();
        template.codes.copy_from_slice(chunks);
        template
    }

    /// Their palm as captured later: an eighth of the signs of the embedding differ, and one of the
    /// alignments has their code with every eighth byte changed.
    pub fn probe(self) -> Probe {
        let mut template = self.template();
        let noise = random::bytes::<{ size_of::<Embedding>() }>();
        for (component, noise) in template.embedding.iter_mut().zip(noise) {
            *component = if noise % 8 == 0 { -*component } else { *component };
        }
        let mut codes: Vec<_> =
            std::iter::repeat_with(random::bytes).take(MAX_PROBE_CODES).collect();
        codes[17] = template.codes[0];
        codes[17].iter_mut().step_by(8).for_each(|byte| *byte = !*byte);
        Probe { embedding: template.embedding, codes }
    }

    fn record(self, expires_at: Timestamp, now: Timestamp) -> MemberRecord {
        let consent = |purpose| Consent {
            purpose,
            given_at: now,
            expires_at,
            notice: "n1".into(),
            language: "fr".into(),
        };
        MemberRecord {
            member: self.member(),
            claim: self.claim(),
            format: TEMPLATE_FORMAT,
            consents: [Purpose::Pay, Purpose::Roaming].map(consent).into(),
            templates: vec![SealedPurpose {
                purpose: Purpose::Pay,
                hand: Hand::Right,
                template: self.template().to_bytes(),
            }],
            pseudonyms: vec![(Purpose::Pay, Pseudonym::from_random(self.bytes(5)))],
            card_token: Some(Biometric::new(self.bytes::<24>(6).to_vec())),
            expires_at,
        }
    }
}

/// Registers the people 0 to `members` − 1 with the stores in turn, in the stores' empty partition;
/// the shard of the first store has the first `held` of them.
///
/// # Errors
/// In words: what the database said.
pub fn load(
    state: &Path,
    store: &Name,
    (members, held): (u64, u64),
    now: Timestamp,
) -> Result<(), Box<dyn Error>> {
    let layout = Layout::new(state);
    let settings = layout.settings()?.database.ok_or("no [database]")?;
    let registry = Postgres::open(&layout, &settings, None)?;
    let mut first = 0;
    while first < members {
        let last = members.min(first + BATCH);
        let batch = || registry.database.run(|tx| registry.load(tx, store, first..last, held, now));
        batch().map_err(Problem::name)?;
        first = last;
    }
    Ok(())
}

impl Postgres {
    fn load(
        &self,
        tx: &mut Transaction<'_>,
        store: &Name,
        people: std::ops::Range<u64>,
        held: u64,
        now: Timestamp,
    ) -> Done<()> {
        let partition = self.partition_of(tx, store)?;
        self.lock_partition(tx, &partition)?;
        let purposes: PurposeSet = [Purpose::Pay, Purpose::Roaming].into_iter().collect();
        let expires_at = now.after(DAY * 1000);
        let mut rows = Vec::new();
        let keys = self.keyrings.add_many(tx, &partition, (people.end - people.start) as usize)?;
        for (number, (group, key, sealing)) in people.clone().zip(keys) {
            let person = Synthetic(number);
            let hash = self.fixed.member(&person.member());
            let holders = if number < held { vec![store.clone()] } else { Vec::new() };
            let row = Member {
                id: person.member(),
                claim: person.claim(),
                custody: Custody::Operator,
                purposes,
                expires_at,
                roaming_until: Some(expires_at),
                home: store.clone(),
                digest: [0; 32],
                holders,
            };
            let sealed_key = self.keyrings.sealed(&sealing, &hash, &key);
            let person_row = Person { partition: partition.clone(), hash, row, key };
            rows.push(self.synthetic_row(person, person_row, group, sealed_key, now));
        }
        self.insert(tx, &partition, &rows)?;
        let held = held.clamp(people.start, people.end);
        self.hold_synthetic(tx, store, people.start..held)?;
        tx.execute(
            "UPDATE partition SET operator_members = operator_members + $3 \
             WHERE tenant = $1 AND partition = $2",
            &[&self.tenant(), &partition.as_str(), &(people.end - people.start).cast_signed()],
        )?;
        Ok(())
    }

    fn synthetic_row(
        &self,
        person: Synthetic,
        at: Person,
        group: i32,
        sealed_key: Vec<u8>,
        now: Timestamp,
    ) -> SyntheticRow {
        let hash = at.hash;
        let record = encode_for_sealing(&person.record(at.row.expires_at, now));
        let mut embedding = Secret::new(Vec::with_capacity(EMBEDDING_ENTRY));
        embedding.expose_mut().extend([Purpose::Pay as u8, Hand::Right as u8]);
        let components = person.template().embedding;
        embedding.expose_mut().extend(components.iter().map(|each| each.cast_unsigned()));
        SyntheticRow {
            hash: hash.to_vec(),
            claim: self.fixed.claim(&at.row.claim).to_vec(),
            due_at: due_at(&at.row),
            member: Column::Member.seal(self.name(), &at.key, &hash, &at.row),
            record: Column::Record.seal_bytes(self.name(), &at.key, &hash, &record),
            embedding: Column::Embedding.seal_bytes(self.name(), &at.key, &hash, &embedding),
            group,
            sealed_key,
        }
    }

    /// COPY does not work with row-level security, so many rows go into one INSERT.
    fn insert(
        &self,
        tx: &mut Transaction<'_>,
        partition: &Name,
        rows: &[SyntheticRow],
    ) -> Done<()> {
        let (tenant, partition) = (self.tenant(), partition.as_str());
        let bytes = |column: fn(&SyntheticRow) -> &Vec<u8>| -> Vec<&[u8]> {
            rows.iter().map(|row| column(row).as_slice()).collect()
        };
        let hashes = bytes(|row| &row.hash);
        for ids in [&hashes, &bytes(|row| &row.claim)] {
            tx.execute(
                "INSERT INTO place (tenant, partition, id_hash, member_hash) \
                 SELECT $1, $2, i, h FROM unnest($3::bytea[], $4::bytea[]) AS new (i, h)",
                &[&tenant, &partition, ids, &hashes],
            )?;
        }
        let due: Vec<i64> = rows.iter().map(|row| row.due_at).collect();
        tx.execute(
            "INSERT INTO member (tenant, partition, member_hash, due_at, sealed) \
             SELECT $1, $2, h, d, s FROM unnest($3::bytea[], $4::bigint[], $5::bytea[]) \
             AS new (h, d, s)",
            &[&tenant, &partition, &hashes, &due, &bytes(|row| &row.member)],
        )?;
        for (table, sealed) in
            [("record", bytes(|row| &row.record)), ("embedding", bytes(|row| &row.embedding))]
        {
            tx.execute(
                &format!(
                    "INSERT INTO {table} (tenant, partition, member_hash, sealed) \
                     SELECT $1, $2, h, s FROM unnest($3::bytea[], $4::bytea[]) AS new (h, s)"
                ),
                &[&tenant, &partition, &hashes, &sealed],
            )?;
        }
        let groups: Vec<i32> = rows.iter().map(|row| row.group).collect();
        tx.execute(
            "INSERT INTO person_key (tenant, partition, member_hash, key_group, sealed) \
             SELECT $1, $2, h, g, s FROM unnest($3::bytea[], $4::integer[], $5::bytea[]) \
             AS new (h, g, s)",
            &[&tenant, &partition, &hashes, &groups, &bytes(|row| &row.sealed_key)],
        )?;
        Ok(())
    }

    fn hold_synthetic(
        &self,
        tx: &mut Transaction<'_>,
        store: &Name,
        people: std::ops::Range<u64>,
    ) -> Done<()> {
        let (mut handles, mut sealed) = (Vec::new(), Vec::new());
        for number in people {
            let member = Synthetic(number).member();
            let handle = self.fixed.handle(store, &member);
            let held = Held { member };
            sealed.push(Column::Holding.seal(self.name(), self.fixed.state(), &handle, &held));
            handles.push(handle);
        }
        let count = i64::try_from(handles.len()).map_err(Problem::internal)?;
        tx.execute(
            "WITH next AS (UPDATE store SET revision = revision + $5, rows = rows + $5 \
             WHERE tenant = $1 AND store = $2 RETURNING revision - $5 AS before) \
             INSERT INTO holding (tenant, store, handle, since, sealed) \
             SELECT $1, $2, h, before + n, s FROM next, unnest($3::bytea[], $4::bytea[]) \
             WITH ORDINALITY AS new (h, s, n)",
            &[&self.tenant(), &store.as_str(), &handles, &sealed, &count],
        )?;
        Ok(())
    }
}

struct SyntheticRow {
    hash: Vec<u8>,
    claim: Vec<u8>,
    due_at: i64,
    member: Vec<u8>,
    record: Vec<u8>,
    embedding: Vec<u8>,
    group: i32,
    sealed_key: Vec<u8>,
}
