//! The gallery against a naive search.

use palmgate_gallery::{
    Candidate, Fusion, Gallery, GalleryError, MAX_CANDIDATES, MAX_ROWS, RowId, VectorError, verify,
};
use palmgate_protocol::{
    CODE_BYTES, CODES_PER_TEMPLATE, CODES_PER_TURN, Code, EMBEDDING_DIMENSIONS, Embedding, Probe,
    Purpose, SHIFTS, Template,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

const FUSION: Fusion = Fusion { embedding_weight: 0.6, code_weight: 0.4, shortlist: 64 };

fn naive_cosine(a: &Embedding, b: &Embedding) -> f64 {
    let dot = |a: &Embedding, b: &Embedding| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths == 0.0 { 0.0 } else { dot(a, b) / lengths }
}

/// As the documentation of the kernels says it.
fn naive_share(probe: &[Code], row: &[Code]) -> f64 {
    let cost = |shift: usize| {
        let from_middle = |place: usize| (place as u32).abs_diff(6).pow(2);
        from_middle(shift / SHIFTS) + from_middle(shift % SHIFTS)
    };
    let equal = |a: &[u8], b: &[u8]| -> u32 {
        let pairs = a.iter().zip(b).map(|(a, b)| a ^ b);
        pairs.map(|differ| 4 - ((differ | differ >> 1) & 0x55).count_ones()).sum()
    };
    let at = |turn: &[Code], code: &Code| -> u32 {
        let shares: Vec<[u32; 4]> = turn
            .iter()
            .map(|other| [0, 64, 128, 192].map(|q| equal(&other[q..q + 64], &code[q..q + 64])))
            .collect();
        let inside = |place: usize| (1..SHIFTS - 1).contains(&place);
        let inner = (0..CODES_PER_TURN).filter(|at| inside(at / SHIFTS) && inside(at % SHIFTS));
        // Reversed, so that of equals the first is taken.
        let whole = |shift: &usize| 1024 + shares[*shift].iter().sum::<u32>() - cost(*shift);
        let best = inner.rev().max_by_key(whole).expect("shifts inside");
        let near = [best - SHIFTS, best, best + SHIFTS].map(|row| [row - 1, row, row + 1]);
        let near = near.as_flattened();
        let quadrant =
            |q: usize| near.iter().map(|shift| shares[*shift][q]).max().expect("nine shifts");
        (0..4).map(quadrant).sum::<u32>().saturating_sub(cost(best))
    };
    let turns = probe.chunks_exact(CODES_PER_TURN);
    let best = turns.flat_map(|turn| row.iter().map(move |code| at(turn, code))).max();
    f64::from(best.unwrap_or(0)) / 1024.0
}

fn naive_score(probe: &Probe, template: &Template, fusion: &Fusion) -> f64 {
    f64::from(fusion.embedding_weight) * naive_cosine(&probe.embedding, &template.embedding)
        + f64::from(fusion.code_weight) * naive_share(&probe.codes, &template.codes)
}

/// A vector and codes spread out from a seed.
fn bytes(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

fn template(seed: u64) -> Template {
    let mut bytes = bytes(seed);
    let mut next = || bytes.next().expect("endless");
    Template {
        embedding: std::array::from_fn(|_| next().cast_signed()),
        codes: std::array::from_fn(|_| std::array::from_fn(|_| next())),
    }
}

fn probe(seed: u64, turns: usize) -> Probe {
    let template = template(seed);
    let mut bytes = bytes(!seed);
    let mut next = || bytes.next().expect("endless");
    let mut all: Vec<Code> =
        (0..turns * CODES_PER_TURN).map(|_| std::array::from_fn(|_| next())).collect();
    if let Some(last) = all.last_chunk_mut::<CODES_PER_TURN>() {
        last[CODES_PER_TURN / 2] = template.codes[1];
    }
    Probe { embedding: template.embedding, codes: all }
}

fn rows(candidates: &[Candidate]) -> Vec<u64> {
    candidates.iter().map(|candidate| candidate.row.0).collect()
}

#[test]
fn a_palm_is_found_among_thousands_under_its_purpose_only() {
    let gallery = Gallery::new();
    for seed in 0..3000 {
        gallery.insert(RowId(seed), Purpose::Pay, &template(seed)).unwrap();
    }
    for seed in [0, 1023, 1024, 2999] {
        let found = gallery.identify(Purpose::Pay, &probe(seed, 2), &FUSION);
        assert_eq!(found[0].row, RowId(seed));
        assert!(found[0].score > 0.999 && found[1].score < 0.5, "one clear winner");
        assert_eq!(found.len(), MAX_CANDIDATES);
    }
    for other in [Purpose::Loyalty, Purpose::Entry, Purpose::Staff, Purpose::Roaming] {
        assert!(gallery.identify(other, &probe(7, 1), &FUSION).is_empty());
    }
}

#[test]
fn a_removed_person_is_gone_from_every_compartment() {
    let gallery = Gallery::new();
    for purpose in Purpose::MATCHED {
        gallery.insert(RowId(1), purpose, &template(1)).unwrap();
        gallery.insert(RowId(2), purpose, &template(2)).unwrap();
    }
    assert!(gallery.remove(RowId(1)) && !gallery.remove(RowId(1)));
    for purpose in Purpose::MATCHED {
        assert_eq!(gallery.len(purpose), 1);
        assert_eq!(rows(&gallery.identify(purpose, &probe(1, 1), &FUSION)), [2]);
    }
    assert!(gallery.remove(RowId(2)) && gallery.is_empty());
}

#[test]
fn a_row_is_refused_with_its_reason() {
    let gallery = Gallery::new();
    gallery.insert(RowId(1), Purpose::Pay, &template(1)).unwrap();
    let again = gallery.insert(RowId(1), Purpose::Pay, &template(2));
    assert_eq!(again, Err(GalleryError::DuplicateRow { row: RowId(1), purpose: Purpose::Pay }));
    let roaming = gallery.insert(RowId(1), Purpose::Roaming, &template(1));
    assert_eq!(roaming, Err(GalleryError::NotMatched { purpose: Purpose::Roaming }));
    assert_eq!(rows(&gallery.identify(Purpose::Pay, &probe(1, 1), &FUSION)), [1]);
    assert!(verify(&probe(1, 1), &template(1), &FUSION) > 0.999, "the first template stands");
}

#[test]
fn equal_scores_come_in_the_order_of_their_rows() {
    let gallery = Gallery::new();
    for row in (0..20).rev() {
        gallery.insert(RowId(row), Purpose::Pay, &template(9)).unwrap();
    }
    let found = gallery.identify(Purpose::Pay, &probe(9, 1), &FUSION);
    assert_eq!(rows(&found), [0, 1, 2, 3, 4, 5, 6, 7]);
    let narrow = Fusion { shortlist: 3, ..FUSION };
    assert_eq!(rows(&gallery.identify(Purpose::Pay, &probe(9, 1), &narrow)), [0, 1, 2]);
}

#[test]
fn degenerate_input_scores_nothing_instead_of_breaking() {
    let flat = |fill| Template {
        embedding: [fill; EMBEDDING_DIMENSIONS],
        codes: [[0; CODE_BYTES]; CODES_PER_TEMPLATE],
    };
    let gallery = Gallery::new();
    let refused = gallery.insert(RowId(1), Purpose::Pay, &flat(0));
    assert_eq!(refused, Err(GalleryError::Embedding(VectorError::ZeroLength)));
    gallery.insert(RowId(1), Purpose::Pay, &flat(1)).unwrap();
    let refused = gallery.replace(RowId(1), Purpose::Pay, &flat(0));
    assert_eq!(refused, Err(GalleryError::Embedding(VectorError::ZeroLength)));
    let nowhere = Probe { embedding: [0; EMBEDDING_DIMENSIONS], codes: Vec::new() };
    assert!(gallery.identify(Purpose::Pay, &nowhere, &FUSION).is_empty());
    let extreme = Probe { embedding: [-128; EMBEDDING_DIMENSIONS], codes: Vec::new() };
    let found = gallery.identify(Purpose::Pay, &extreme, &FUSION);
    assert!((found[0].score + FUSION.embedding_weight).abs() < 1e-6, "opposite ways");
    let nobody = Fusion { shortlist: 0, ..FUSION };
    assert!(gallery.identify(Purpose::Pay, &extreme, &nobody).is_empty());
    let unmeasured = Fusion { code_weight: f32::NAN, ..FUSION };
    assert_eq!(gallery.identify(Purpose::Pay, &extreme, &unmeasured).len(), 1);
}

#[test]
#[ignore = "takes 1 GiB of memory"]
fn a_full_compartment_refuses_the_next_row_and_still_searches() {
    let gallery = Gallery::new();
    for row in 0..MAX_ROWS as u64 {
        gallery.insert(RowId(row), Purpose::Pay, &template(row)).unwrap();
    }
    let beyond = gallery.insert(RowId(u64::MAX), Purpose::Pay, &template(1));
    assert_eq!(beyond, Err(GalleryError::Full { purpose: Purpose::Pay }));
    let last = MAX_ROWS as u64 - 1;
    assert_eq!(gallery.identify(Purpose::Pay, &probe(last, 1), &FUSION)[0].row, RowId(last));
    assert!(gallery.remove(RowId(0)));
    gallery.insert(RowId(u64::MAX), Purpose::Pay, &template(1)).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Few seeds for many rows, so that equal templates and equal scores occur.
    #[test]
    fn answers_are_those_of_a_naive_search(
        acts in proptest::collection::vec((0..60_u64, 0..40_u64, 0..4_usize, 0..4_u8), 0..120),
        wanted in 0..40_u64,
        turns in 0..3_usize,
        shortlist in 0..40_usize,
    ) {
        let gallery = Gallery::new();
        let mut model: BTreeMap<(Purpose, u64), Template> = BTreeMap::new();
        for (row, seed, purpose, act) in acts {
            let purpose = Purpose::MATCHED[purpose];
            if act == 0 {
                let replaced = gallery.replace(RowId(row), purpose, &template(seed));
                if let Some(known) = model.get_mut(&(purpose, row)) {
                    *known = template(seed);
                } else {
                    let unknown = GalleryError::UnknownRow { row: RowId(row), purpose };
                    prop_assert_eq!(replaced, Err(unknown));
                }
            } else if act == 1 {
                let before = model.len();
                model.retain(|(_, other), _| *other != row);
                prop_assert_eq!(gallery.remove(RowId(row)), model.len() < before);
            } else {
                let inserted = gallery.insert(RowId(row), purpose, &template(seed)).is_ok();
                prop_assert_eq!(inserted, !model.contains_key(&(purpose, row)));
                model.entry((purpose, row)).or_insert_with(|| template(seed));
            }
        }
        let fusion = Fusion { shortlist, ..FUSION };
        let other = probe(wanted + 1, turns);
        let probe = probe(wanted, turns);
        for purpose in Purpose::MATCHED {
            let together = gallery.identify_all(purpose, &[&other, &probe], &fusion);
            prop_assert!(together[0] == gallery.identify(purpose, &other, &fusion));
            prop_assert!(together[1] == gallery.identify(purpose, &probe, &fusion));
            let mut near: Vec<(f64, u64, f64)> = model
                .iter()
                .filter(|((other, _), _)| *other == purpose)
                .map(|((_, row), template)| {
                    let cosine = naive_cosine(&probe.embedding, &template.embedding);
                    (cosine, *row, naive_score(&probe, template, &fusion))
                })
                .collect();
            prop_assert_eq!(gallery.len(purpose), near.len());
            near.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            near.truncate(shortlist);
            near.sort_by(|a, b| b.2.total_cmp(&a.2).then(a.1.cmp(&b.1)));
            near.truncate(MAX_CANDIDATES);
            let found = gallery.identify(purpose, &probe, &fusion);
            prop_assert_eq!(rows(&found), near.iter().map(|each| each.1).collect::<Vec<_>>());
            for (candidate, (_, row, score)) in found.iter().zip(&near) {
                prop_assert!((f64::from(candidate.score) - score).abs() < 1e-5);
                let alone = verify(&probe, &model[&(purpose, *row)], &fusion);
                prop_assert!((alone - candidate.score).abs() < f32::EPSILON);
            }
        }
    }
}
