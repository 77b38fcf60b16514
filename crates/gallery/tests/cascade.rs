//! The cascade against the exhaustive scan, and the life of rows.

use palmgate_gallery::{Fusion, Gallery, Hit, Plan, RowId, SearchError, Shard, ShardError, Vector};
use palmgate_protocol::{CODE_BYTES, CODES_PER_TEMPLATE, Probe, Purpose, Template};
use proptest::prelude::*;

/// Numbers of a normal distribution, spread out from a seed.
fn normal(seed: u64) -> impl FnMut() -> f32 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        let sum: f32 = (0..4)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1 << 24) as f32 - 0.5
            })
            .sum();
        sum * 3_f32.sqrt()
    }
}

fn direction<const D: usize>(seed: u64) -> Vec<f32> {
    let mut next = normal(seed);
    let vector: Vec<f32> = (0..D).map(|_| next()).collect();
    let length = vector.iter().map(|each| each * each).sum::<f32>().sqrt();
    vector.into_iter().map(|each| each / length).collect()
}

/// A direction at a cosine of about `cosine` from another.
fn mate<const D: usize>(of: &[f32], cosine: f32, seed: u64) -> Vec<f32> {
    let away = direction::<D>(seed);
    let aside = (1.0 - cosine * cosine).sqrt();
    of.iter().zip(away).map(|(of, away)| cosine * of + aside * away).collect()
}

fn vector<const D: usize>(components: &[f32]) -> Vector<D> {
    Vector::from_floats(components).expect("a direction")
}

fn rows(hits: &[Hit]) -> Vec<u64> {
    hits.iter().map(|hit| hit.row.0).collect()
}

fn same(a: &[Hit], b: &[Hit]) -> bool {
    let parts = |hits: &[Hit]| -> Vec<(u64, u32)> {
        hits.iter().map(|hit| (hit.row.0, hit.cosine.to_bits())).collect()
    };
    parts(a) == parts(b)
}

fn filled<const D: usize>(rows: u64) -> Shard<D> {
    let shard = Shard::new(rows as usize);
    for row in 0..rows {
        shard.insert(RowId(row), &vector(&direction::<D>(row)), &()).expect("room");
    }
    shard
}

fn above(shard: &Shard<512>, probes: &[&Vector<512>], plan: &Plan) -> Vec<Vec<Hit>> {
    shard.above(probes, plan, 5).expect("rows")
}

/// Whether `found` is what the exhaustive scan finds at or above the threshold.
fn is_exact<const D: usize>(shard: &Shard<D>, threshold: f32, probes: &[Vector<D>]) {
    let plan = shard.plan(threshold, 1e-6).expect("in range");
    let probes: Vec<&Vector<D>> = probes.iter().collect();
    let mut oracle = shard.nearest(&probes, 5).expect("rows");
    for hits in &mut oracle {
        hits.retain(|hit| hit.cosine >= threshold);
    }
    let found = shard.above(&probes, &plan, 5).expect("rows");
    assert!(found.iter().zip(&oracle).all(|(found, oracle)| same(found, oracle)));
    assert!(oracle.iter().any(|hits| !hits.is_empty()), "something to find");
}

#[test]
fn the_cascade_finds_what_the_exhaustive_scan_finds() {
    fn check<const D: usize>(thresholds: &[(f32, bool)]) {
        let rows = 40_000;
        let shard = filled::<D>(rows);
        let probes: Vec<Vector<D>> = (0..40)
            .map(|i| {
                let row = (i * 999) % rows;
                let cosine = 0.5 + 0.012 * i as f32;
                vector(&mate::<D>(&direction::<D>(row), cosine, !row))
            })
            .collect();
        for (threshold, exhaustive) in thresholds {
            let plan = shard.plan(*threshold, 1e-6).unwrap();
            assert_eq!(plan.is_exhaustive(), *exhaustive, "{D} {threshold}");
            is_exact(&shard, *threshold, &probes);
        }
    }
    check::<256>(&[(0.3, true), (0.8, false)]);
    check::<512>(&[(0.3, true), (0.6, false)]);
    check::<1024>(&[(0.2, true), (0.5, false)]);
}

#[test]
fn rows_that_all_look_alike_are_scanned_in_full() {
    let shard = Shard::<512>::new(4000);
    let centre = direction::<512>(1);
    for row in 0..4000 {
        shard.insert(RowId(row), &vector(&mate::<512>(&centre, 0.9, row)), &()).unwrap();
    }
    let probes = [vector(&mate::<512>(&centre, 0.95, 7)), vector(&direction::<512>(3))];
    assert!(!shard.plan(0.7, 1e-6).unwrap().is_exhaustive());
    is_exact(&shard, 0.7, &probes);
}

/// Such a probe has no components that tell more than others.
#[test]
fn a_probe_of_equal_components_is_searched_in_full() {
    let shard = filled::<512>(2000);
    let flat: Vec<f32> = (0..512).map(|i| if i % 3 == 0 { 1.0 } else { -1.0 }).collect();
    assert!(shard.remove(RowId(7)));
    let length = (512_f32).sqrt();
    let unit: Vec<f32> = flat.iter().map(|each| each / length).collect();
    shard.insert(RowId(9999), &vector(&mate::<512>(&unit, 0.8, 1)), &()).unwrap();
    is_exact(&shard, 0.45, &[vector(&flat)]);
}

/// A place without a row has no sign set, as some probes have.
#[test]
fn places_without_a_row_are_passed_over() {
    let shard = filled::<256>(5000);
    (1..4999).for_each(|row| assert!(shard.remove(RowId(row))));
    let lowest: Vec<f32> = (0..256).map(|i| if i % 5 == 0 { -3.0 } else { 0.5 }).collect();
    let plan = shard.plan(0.7, 1e-6).unwrap();
    let found = shard.above(&[&vector(&lowest)], &plan, 9).unwrap();
    assert!(found[0].is_empty());
    is_exact(&shard, 0.7, &[vector(&direction::<256>(4999))]);
}

/// As embeddings are that use few of their dimensions: strangers look more alike than chance has it.
#[test]
fn vectors_that_fill_few_dimensions_are_found_too() {
    const FILLED: usize = 24;
    let columns: Vec<Vec<f32>> = (0..FILLED as u64).map(direction::<256>).collect();
    let spread = |seed: u64| -> Vec<f32> {
        let mut next = normal(seed);
        let weights: Vec<f32> = (0..FILLED).map(|_| next()).collect();
        let at = |i: usize| columns.iter().zip(&weights).map(|(c, w)| c[i] * w).sum();
        (0..256).map(at).collect()
    };
    let shard = Shard::<256>::new(20_000);
    for row in 0..20_000 {
        shard.insert(RowId(row), &vector(&spread(1000 + row)), &()).unwrap();
    }
    let probes: Vec<Vector<256>> = (0..200)
        .map(|i| {
            let (own, other) = (spread(1000 + i * 99), spread(500_000 + i));
            let near: Vec<f32> = own.iter().zip(other).map(|(a, b)| a + 0.6 * b).collect();
            vector(&near)
        })
        .collect();
    assert!(!shard.plan(0.7, 1e-6).unwrap().is_exhaustive());
    is_exact(&shard, 0.7, &probes);
}

#[test]
fn an_empty_shard_says_so_and_a_full_one_refuses() {
    let shard = Shard::<512>::new(1);
    let one = vector(&direction::<512>(1));
    let plan = shard.plan(0.7, 1e-6).unwrap();
    assert_eq!(shard.nearest(&[&one], 3).err(), Some(SearchError::Empty));
    assert_eq!(shard.above(&[&one], &plan, 3).err(), Some(SearchError::Empty));
    assert_eq!(shard.replace(RowId(1), &one, &()), Err(ShardError::Unknown(RowId(1))));
    shard.insert(RowId(1), &one, &()).unwrap();
    assert_eq!(shard.insert(RowId(1), &one, &()), Err(ShardError::Duplicate(RowId(1))));
    assert_eq!(shard.insert(RowId(2), &one, &()), Err(ShardError::Full(1)));
    assert_eq!(rows(&above(&shard, &[&one], &plan)[0]), [1]);
    assert!(shard.remove(RowId(1)) && shard.is_empty());
    assert_eq!(shard.above(&[&one], &plan, 3).err(), Some(SearchError::Empty));
    shard.insert(RowId(2), &one, &()).unwrap();
    assert!(shard.above(&[], &plan, 3).unwrap().is_empty());
}

#[test]
fn what_was_found_is_current_until_it_is_replaced_or_removed() {
    let shard = Shard::<512, [u8; 2]>::new(10);
    let one = vector(&direction::<512>(1));
    shard.insert(RowId(1), &one, &[4, 5]).unwrap();
    let find = || shard.nearest(&[&one], 1).unwrap()[0][0];
    let first = find();
    assert_eq!(shard.with_payload(&first, |payload| *payload), Some([4, 5]));
    shard.replace(RowId(1), &one, &[6, 7]).unwrap();
    assert!(!shard.is_current(&first), "another template");
    let second = find();
    assert_eq!(shard.with_payload(&second, |payload| *payload), Some([6, 7]));
    shard.remove(RowId(1));
    assert!(!shard.is_current(&second));
    shard.insert(RowId(1), &one, &[8, 9]).unwrap();
    assert!(!shard.is_current(&second), "the same place, another time");
}

fn template(seed: u64) -> Template {
    let components = direction::<256>(seed);
    let codes = [[seed as u8; CODE_BYTES]; CODES_PER_TEMPLATE];
    Template { embedding: std::array::from_fn(|i| (components[i] * 359.0) as i8), codes }
}

const FUSION: Fusion = Fusion { embedding_weight: 0.35, code_weight: 1.0, shortlist: 4 };

#[test]
fn a_swap_replaces_everything_or_nothing() {
    let gallery = Gallery::new();
    let probe = |seed| Probe { embedding: template(seed).embedding, codes: Vec::new() };
    let found = |seed| -> Vec<u64> {
        let found = gallery.identify(Purpose::Pay, &probe(seed), &FUSION);
        found.iter().map(|each| each.row.0).collect()
    };
    gallery.insert(RowId(1), Purpose::Pay, &template(1)).unwrap();
    gallery.insert(RowId(9), Purpose::Entry, &template(9)).unwrap();
    let (two, three) = (template(2), template(3));
    let twice = gallery.swap(Purpose::Pay, [(RowId(2), &two), (RowId(2), &three)]);
    assert!(twice.is_err() && found(1) == [1]);
    gallery.swap(Purpose::Pay, [(RowId(2), &two), (RowId(3), &three)]).unwrap();
    assert_eq!((found(2), found(3)), (vec![2, 3], vec![3, 2]));
    assert_eq!((gallery.len(Purpose::Pay), gallery.len(Purpose::Entry)), (2, 1));
    assert!(gallery.swap(Purpose::Roaming, [(RowId(2), &two)]).is_err());
    gallery.swap(Purpose::Pay, []).unwrap();
    assert!(found(2).is_empty());
    gallery.insert(RowId(4), Purpose::Pay, &two).unwrap();
    assert_eq!(found(2), [4]);
}

/// Every search sees the rows that stay, whatever comes and goes around them, and none sees a row
/// whose removal had returned before it began.
#[test]
fn searches_go_on_while_rows_come_and_go() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    let gallery = Gallery::new();
    for row in 0..1500 {
        gallery.insert(RowId(row), Purpose::Pay, &template(row)).unwrap();
    }
    let (gone, done) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let search = || {
            while !done.load(Ordering::SeqCst) {
                let gone = gone.load(Ordering::SeqCst);
                let found = |row| {
                    let probe = Probe { embedding: template(row).embedding, codes: Vec::new() };
                    let found = gallery.identify(Purpose::Pay, &probe, &FUSION);
                    found.iter().any(|candidate| candidate.row.0 == row)
                };
                assert!(found(1400), "nothing happens to this row");
                assert!(gone == 0 || !found(gone - 1), "removed before the search began");
            }
        };
        let searches = [scope.spawn(search), scope.spawn(search)];
        for row in 0..400 {
            assert!(gallery.remove(RowId(row)));
            gone.store(row + 1, Ordering::SeqCst);
            gallery.insert(RowId(10_000 + row), Purpose::Pay, &template(10_000 + row)).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        for search in searches {
            search.join().unwrap();
        }
    });
    assert_eq!(gallery.len(Purpose::Pay), 1500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_that_came_went_and_were_replaced_are_found_as_they_are(
        acts in proptest::collection::vec((0..40_u64, 0..1000_u64, 0..3_u8), 1..200),
        wanted in 0..1000_u64,
    ) {
        let shard = Shard::<512>::new(64);
        let mut model = std::collections::BTreeMap::new();
        for (row, seed, act) in acts {
            let new = vector(&direction::<512>(seed));
            match act {
                0 => prop_assert_eq!(shard.remove(RowId(row)), model.remove(&row).is_some()),
                1 => {
                    let replaced = shard.replace(RowId(row), &new, &()).is_ok();
                    prop_assert_eq!(replaced, model.contains_key(&row));
                    model.entry(row).and_modify(|known| *known = seed);
                }
                _ => {
                    let inserted = shard.insert(RowId(row), &new, &()).is_ok();
                    prop_assert_eq!(inserted, !model.contains_key(&row));
                    model.entry(row).or_insert(seed);
                }
            }
        }
        prop_assert_eq!(shard.len(), model.len());
        let wanted = model.values().next().copied().unwrap_or(wanted);
        let probe = vector(&direction::<512>(wanted));
        let plan = shard.plan(0.9, 1e-6).unwrap();
        let expected: Vec<u64> =
            model.iter().filter(|(_, seed)| **seed == wanted).map(|(row, _)| *row).collect();
        match shard.above(&[&probe], &plan, 64) {
            Ok(found) => prop_assert_eq!(rows(&found[0]), expected),
            Err(SearchError::Empty) => prop_assert!(model.is_empty()),
        }
    }
}
