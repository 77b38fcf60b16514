//! Every order of events between a search and a writer. Run by
//! `RUSTFLAGS="--cfg loom" cargo test --release -p palmgate-gallery --test loom`.
#![cfg(loom)]

use loom::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};
use palmgate_gallery::{Fusion, Gallery, RowId};
use palmgate_protocol::{CODE_BYTES, CODES_PER_TEMPLATE, Probe, Purpose, Template};

const FUSION: Fusion = Fusion { embedding_weight: 0.35, code_weight: 1.0, shortlist: 2 };

fn template(fill: i8) -> Template {
    Template {
        embedding: std::array::from_fn(|i| if i % 2 == 0 { fill } else { 9 }),
        codes: [[0; CODE_BYTES]; CODES_PER_TEMPLATE],
    }
}

fn found(gallery: &Gallery) -> Vec<u64> {
    let probe = Probe { embedding: template(9).embedding, codes: Vec::new() };
    let found = gallery.identify(Purpose::Pay, &probe, &FUSION);
    found.iter().map(|each| each.row.0).collect()
}

/// Row 1 goes by `act`; rows 1 and 2 are there at first.
fn check(act: fn(&Gallery), after: &'static [u64]) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let gallery = Arc::new(Gallery::new());
        gallery.insert(RowId(1), Purpose::Pay, &template(9)).unwrap();
        gallery.insert(RowId(2), Purpose::Pay, &template(1)).unwrap();
        let acknowledged = Arc::new(AtomicBool::new(false));
        let writer = {
            let (gallery, acknowledged) = (gallery.clone(), acknowledged.clone());
            thread::spawn(move || {
                act(&gallery);
                acknowledged.store(true, Ordering::SeqCst);
            })
        };
        let before = acknowledged.load(Ordering::SeqCst);
        let seen = found(&gallery);
        assert!(seen == [1, 2] && !before || seen == after, "{seen:?}");
        writer.join().unwrap();
        assert_eq!(found(&gallery), after);
    });
}

#[test]
fn no_match_after_a_removal_was_acknowledged_and_who_stays_is_found() {
    check(|gallery| assert!(gallery.remove(RowId(1))), &[2]);
}

#[test]
fn no_old_template_after_a_replacement_was_acknowledged() {
    check(|gallery| gallery.replace(RowId(1), Purpose::Pay, &template(-9)).unwrap(), &[2, 1]);
}

#[test]
fn a_swap_is_seen_in_whole_or_not_at_all() {
    check(
        |gallery| {
            let (three, four) = (template(8), template(-9));
            gallery.swap(Purpose::Pay, [(RowId(3), &three), (RowId(4), &four)]).unwrap();
        },
        &[3, 4],
    );
}
