//! Sums as eight sums side by side: one alone waits for itself, and these are the same in every program.

const LANES: usize = 8;

/// As far as both go.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let length = a.len().min(b.len());
    let (a, b) = (&a[..length], &b[..length]);
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
    sums.into_iter().chain(rest).sum()
}

pub(crate) fn sum(values: &[f32]) -> f32 {
    let (values, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for values in values {
        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().chain(rest).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_out_at_any_length() {
        let values: Vec<f32> = (1..=40u8).map(f32::from).collect();
        for length in 0..=40usize {
            let whole = (length * (length + 1) / 2) as f32;
            assert!((sum(&values[..length]) - whole).abs() < 1e-3);
            assert!((dot(&values[..length], &[1.0; 40]) - whole).abs() < 1e-3);
        }
    }
}
