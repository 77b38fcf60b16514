//! Inner products of embeddings.

use palmgate_protocol::{EMBEDDING_DIMENSIONS, Embedding};

/// A probe's embedding in the width that the products are formed in.
pub(crate) type Wide = [i16; EMBEDDING_DIMENSIONS];

pub(crate) fn widen(embedding: &Embedding) -> Wide {
    embedding.map(i16::from)
}

/// The exact inner product: 256 products of at most 2¹⁴ fit in 23 bits.
pub(crate) fn one(probe: &Wide, row: &Embedding) -> i32 {
    probe
        .iter()
        .zip(row)
        .fold(0_i32, |sum, (&a, &b)| sum.wrapping_add(i32::from(a).wrapping_mul(i32::from(b))))
}

/// The inner product of `probe` with each of `rows`.
pub(crate) fn rows(probe: &Wide, rows: &[Embedding], products: &mut [i32]) {
    for (row, product) in rows.iter().zip(products) {
        *product = one(probe, row);
    }
}

/// One over the Euclidean length; 0 for the zero vector, which then is like nothing.
pub(crate) fn inverse_norm(embedding: &Embedding) -> f32 {
    let squared = one(&widen(embedding), embedding);
    if squared == 0 { 0.0 } else { (squared as f32).sqrt().recip() }
}
