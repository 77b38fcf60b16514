//! Inner products of embeddings.

use super::level::{Instructions, Level};

/// The inner product of `probe` with each of `rows`, exact: at most 2¹⁶ products of at most 2¹⁴
/// fit in 31 bits.
pub(crate) fn rows<const D: usize>(
    level: Level,
    probe: &[i8; D],
    rows: &[[i8; D]],
    products: &mut [i32],
) {
    const { assert!(D.is_multiple_of(64) && D < 1 << 16, "whole registers, no overflow") };
    match level.instructions() {
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 => super::avx512::dot_avx512(level, probe, rows, products),
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => super::avx2::dot_avx2(level, probe, rows, products),
        #[cfg(target_arch = "aarch64")]
        Instructions::Dotprod => super::aarch64::dot_dotprod(level, probe, rows, products),
        #[cfg(target_arch = "aarch64")]
        Instructions::Neon => super::aarch64::dot_neon(level, probe, rows, products),
        Instructions::Portable => {
            for (row, product) in rows.iter().zip(products) {
                *product = one(probe, row);
            }
        }
    }
}

/// The inner product of two vectors.
fn one<const D: usize>(probe: &[i8; D], row: &[i8; D]) -> i32 {
    probe
        .iter()
        .zip(row)
        .fold(0_i32, |sum, (&a, &b)| sum.wrapping_add(i32::from(a).wrapping_mul(i32::from(b))))
}

/// One over the Euclidean length; 0 for the zero vector, which then is like nothing.
pub(crate) fn inverse_norm<const D: usize>(level: Level, vector: &[i8; D]) -> f32 {
    let mut squared = [0];
    rows(level, vector, std::slice::from_ref(vector), &mut squared);
    if squared == [0] { 0.0 } else { (squared[0] as f32).sqrt().recip() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wide<const D: usize>(a: &[i8; D], b: &[i8; D]) -> i64 {
        a.iter().zip(b).map(|(&a, &b)| i64::from(a) * i64::from(b)).sum()
    }

    fn check<const D: usize>(bytes: &[i8]) -> Result<(), TestCaseError> {
        let (vectors, _) = bytes.as_chunks::<D>();
        let (probe, vectors) = vectors.split_first().expect("a probe");
        let expected: Vec<i64> = vectors.iter().map(|row| wide(probe, row)).collect();
        for level in Level::available() {
            let mut products = vec![i32::MIN; vectors.len()];
            rows(level, probe, vectors, &mut products);
            let products: Vec<i64> = products.into_iter().map(i64::from).collect();
            prop_assert_eq!(&products, &expected, "{:?}", level);
        }
        Ok(())
    }

    #[test]
    fn the_largest_and_least_components_do_not_overflow() {
        for (a, b) in [(-128, -128), (-128, 127), (127, -128), (127, 127)] {
            let bytes: Vec<i8> = [vec![a; 512], vec![b; 512 * 9]].concat();
            check::<512>(&bytes).unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

        #[test]
        fn every_kernel_gives_the_exact_products(
            bytes in proptest::collection::vec(any::<i8>(), 512..8000),
        ) {
            check::<256>(&bytes)?;
            check::<512>(&bytes)?;
        }
    }
}
