//! The gallery's cascade on what the palm model really gives: protected embeddings of photographed
//! hands, further captures of them simulated.
#![allow(clippy::unwrap_used)]

use palmgate_gallery::{Fusion, RowId, Shard, Vector, verify};
use palmgate_palm::{Extractor, Transform, parts, simulate::second_capture};
use palmgate_protocol::{
    Embedding, Purpose, Secret,
    terminal::{Band, Frame},
};
use std::{fs, path::Path};

const HANDS: usize = 48;
const PROBES: u64 = 3;

fn cosine(a: &Embedding, b: &Embedding) -> f64 {
    let dot = |a: &Embedding, b: &Embedding| -> f64 {
        a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn the_cascade_finds_every_palm_that_a_search_of_floats_finds() {
    let extractor = Extractor::load().unwrap();
    let transform =
        Transform::derive(&Secret::new([3; 32]), &"chain".parse().unwrap(), Purpose::Pay);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../palm/data/hands");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "JPG"));
    files.sort();
    let (mut references, mut probes) = (Vec::new(), Vec::new());
    for file in files.iter().take(HANDS) {
        let photograph = fs::read(file).unwrap();
        let capture = |picture| {
            extractor.capture(&[Frame { band: Band::Visible, picture, region_of: None }]).ok()
        };
        let Some(first) = capture(second_capture(&photograph, 0)) else { continue };
        references.push(transform.template(&[&first]).unwrap().embedding);
        let more = (1..=PROBES).filter_map(|seed| capture(second_capture(&photograph, seed)));
        probes.extend(more.map(|capture| transform.probe(&capture).embedding));
    }
    assert!(references.len() > HANDS * 3 / 4 && probes.len() > HANDS * 2);
    let shard = Shard::<256>::new(references.len());
    for (row, reference) in (0..).zip(&references) {
        shard.insert(RowId(row), &Vector::from_components(reference).unwrap(), &()).unwrap();
    }
    let mut found = 0;
    for threshold in [0.60f32, 0.70, 0.80, 0.90] {
        let plan = shard.plan(threshold, 1e-6).unwrap();
        for probe in &probes {
            let vector = Vector::from_components(probe).unwrap();
            let hits = shard.above(&[&vector], &plan, references.len()).unwrap();
            let mut rows: Vec<u64> = hits[0].iter().map(|hit| hit.row.0).collect();
            rows.sort_unstable();
            let cosines = references.iter().map(|reference| cosine(probe, reference));
            let above = (0u64..).zip(cosines).filter(|(_, c)| *c >= f64::from(threshold));
            let above: Vec<u64> = above.map(|(row, _)| row).collect();
            assert_eq!(rows, above, "at {threshold}");
            found += rows.len();
        }
    }
    assert!(found > probes.len(), "mates were found: {found}");
}

#[test]
fn the_gallery_and_the_palm_compare_codes_alike() {
    let extractor = Extractor::load().unwrap();
    let transform =
        Transform::derive(&Secret::new([3; 32]), &"chain".parse().unwrap(), Purpose::Pay);
    let hand = |name: &str, seed: u64| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../palm/data/hands");
        let picture = second_capture(&fs::read(folder.join(name)).unwrap(), seed);
        extractor.capture(&[Frame { band: Band::Visible, picture, region_of: None }]).unwrap()
    };
    let codes_only = Fusion { embedding_weight: 0.0, code_weight: 1.0, shortlist: 1 };
    let template = transform.template(&[&hand("IMG_4322.JPG", 0)]).unwrap();
    for (name, mated) in [("IMG_4322.JPG", true), ("IMG_1123.JPG", false)] {
        let probe = transform.probe(&hand(name, 1));
        let (_, share) = parts(&probe, &template);
        assert!((share - verify(&probe, &template, &codes_only)).abs() < 1e-6);
        assert_eq!(share > 0.5, mated, "{share}");
    }
}
