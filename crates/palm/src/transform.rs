use crate::calibration::calibration;
use crate::capture::Capture;
use crate::code::{DIRECTIONS, Responses, SIDE};
use crate::embed::{Vector, normalise};
use palmgate_protocol::terminal::CaptureProblem;
use palmgate_protocol::{
    CODE_BYTES, CODES_PER_TEMPLATE, Code, EMBEDDING_DIMENSIONS, Embedding, Name, Probe, Purpose,
    Secret, Template,
};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Hashes in a code, two bits each.
const HASHES: usize = CODE_BYTES * 4;
/// Places that one hash compares.
const CHOICES: usize = 4;
/// Pixels between two cells of the code's grid.
const CELL: usize = 2;
/// Cells by which a probe is shifted in each direction.
const SHIFTS: usize = 4;
/// Turns at which a probe is hashed, in degrees.
const TURNS: [f32; 3] = [-3.5, 0.0, 3.5];
/// Cells on a side of the grid that a code is taken from.
const WINDOW: usize = 30;
/// Cells on a side of the grid that a probe is shifted in.
const FIELD: usize = WINDOW + 2 * SHIFTS;

/// The keyed, renewable protection of templates (ISO/IEC 24745) for one tenant and purpose.
///
/// Everything is drawn from `ChaCha20` streams seeded with SHA-256 over a label, the tenant, the
/// purpose and the key, each preceded by its length:
///
/// - the embedding is multiplied by a random orthonormal basis, which keeps cosines under the same
///   key and makes them meaningless across keys;
/// - the line code becomes 1,024 index-of-maximum hashes (uniformly random permutation, Jin et al.
///   2018): each compares the answers at four random places and keeps which one is greatest. A
///   template holds the code of each enrolment capture; a probe is hashed at every small shift and
///   turn.
///
/// Without the key a template tells neither who it is nor, next to another template, whether both
/// are of one person. With the key *and* a template the palm's lines can be approximated: the keys
/// are guarded and destroyed accordingly.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Transform {
    /// Rows of an orthonormal basis.
    basis: Vec<f32>,
    /// For each hash, places in the field as `cell × DIRECTIONS + direction`, unshifted.
    places: Vec<[u16; CHOICES]>,
}

impl Transform {
    /// Derives the transform of a tenant's purpose from the tenant's key. Takes some milliseconds:
    /// keep the result.
    pub fn derive(key: &Secret<[u8; 32]>, tenant: &Name, purpose: Purpose) -> Self {
        Self {
            basis: basis(&mut stream("embedding", key, tenant, purpose)),
            places: places(&mut stream("code", key, tenant, purpose)),
        }
    }

    /// Protects one capture for comparison with templates made under the same transform.
    pub fn probe(&self, capture: &Capture) -> Probe {
        let mut codes = Vec::with_capacity(TURNS.len() * (2 * SHIFTS + 1).pow(2));
        for turn in TURNS {
            let field = Field::of(&capture.responses, turn);
            for row in 0..=2 * SHIFTS {
                for column in 0..=2 * SHIFTS {
                    codes.push(self.code(&field, row, column));
                }
            }
        }
        Probe { embedding: self.embedding(&capture.vector), codes }
    }

    /// Protects the captures of one hand as its reference: one to three, later ones are ignored.
    ///
    /// # Errors
    /// [`CaptureProblem::Inconsistent`] when two captures do not match each other, or are of a left
    /// and a right hand; [`CaptureProblem::NoHand`] when there is none.
    pub fn template(&self, captures: &[&Capture]) -> Result<Template, CaptureProblem> {
        let captures = &captures[..captures.len().min(CODES_PER_TEMPLATE)];
        let (first, rest) = captures.split_first().ok_or(CaptureProblem::NoHand)?;
        let mut mean = first.vector.clone();
        for (index, capture) in rest.iter().enumerate() {
            for earlier in &captures[..=index] {
                if !self.consistent(earlier, capture) {
                    return Err(CaptureProblem::Inconsistent);
                }
            }
            mean.iter_mut().zip(capture.vector.iter()).for_each(|(sum, value)| *sum += value);
        }
        normalise(&mut mean);
        let codes = std::array::from_fn(|i| self.reference(captures[i.min(rest.len())]));
        Ok(Template { embedding: self.embedding(&mean), codes })
    }

    fn reference(&self, capture: &Capture) -> Code {
        self.code(&Field::of(&capture.responses, 0.0), SHIFTS, SHIFTS)
    }

    fn consistent(&self, a: &Capture, b: &Capture) -> bool {
        let reference = Template {
            embedding: self.embedding(&a.vector),
            codes: [self.reference(a); CODES_PER_TEMPLATE],
        };
        let calibration = calibration();
        a.hand == b.hand && calibration.score(&self.probe(b), &reference) >= calibration.consistency
    }

    fn embedding(&self, vector: &Vector) -> Embedding {
        // The scale that the wire format fixes: 127·√8.
        let scale = 127.0 * 8f32.sqrt();
        let mut rows = self.basis.chunks_exact(EMBEDDING_DIMENSIONS);
        std::array::from_fn(|_| {
            let row = rows.next().expect("the basis has a row for each dimension");
            let value: f32 = row.iter().zip(vector.iter()).map(|(a, b)| a * b).sum();
            (value * scale).round().clamp(-127.0, 127.0) as i8
        })
    }

    /// The code of the window whose corner lies at cell (`row`, `column`) of the field.
    fn code(&self, field: &Field, row: usize, column: usize) -> Code {
        let shifted = &field.0[(row * FIELD + column) * DIRECTIONS..];
        let mut code = [0; CODE_BYTES];
        for (byte, group) in code.iter_mut().zip(self.places.chunks_exact(4)) {
            for (position, places) in group.iter().enumerate() {
                let [a, b, c, d] = places.map(|place| shifted[usize::from(place)]);
                let (low, high) = (u8::from(b > a), u8::from(d > c));
                let second = u8::from(c.max(d) > a.max(b));
                *byte |= (second << 1 | if second == 1 { high } else { low }) << (2 * position);
            }
        }
        code
    }
}

/// Responses sampled on the code's grid after a turn about the region's centre. Wiped on drop.
struct Field(Zeroizing<Vec<i16>>);

impl Field {
    fn of(responses: &Responses, degrees: f32) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let half = (FIELD as f32 - 1.0) / 2.0;
        let center = (SIDE as f32 - 1.0) / 2.0;
        // A turned palm's lines also change direction: a share of each answer moves to the next.
        let share = degrees * DIRECTIONS as f32 / 180.0;
        let mut field = Zeroizing::new(Vec::with_capacity(FIELD * FIELD * DIRECTIONS));
        for row in 0..FIELD {
            for column in 0..FIELD {
                let u = (column as f32 - half) * CELL as f32;
                let v = (row as f32 - half) * CELL as f32;
                let (x, y) = (center + u * cos - v * sin, center + u * sin + v * cos);
                let here = interpolate(&responses.0, x, y);
                field.extend((0..DIRECTIONS).map(|direction| {
                    let next =
                        if share >= 0.0 { direction + 1 } else { direction + DIRECTIONS - 1 };
                    let neighbour = here[next % DIRECTIONS];
                    let value = here[direction] + (neighbour - here[direction]) * share.abs();
                    (value * 16384.0).clamp(-32767.0, 32767.0) as i16
                }));
            }
        }
        Self(field)
    }
}

fn interpolate(responses: &[f32], x: f32, y: f32) -> [f32; DIRECTIONS] {
    let limit = SIDE as f32 - 1.001;
    let (x, y) = (x.clamp(0.0, limit), y.clamp(0.0, limit));
    let (column, row) = (x as usize, y as usize);
    let (fx, fy) = (x - column as f32, y - row as f32);
    let upper = &responses[(row * SIDE + column) * DIRECTIONS..][..2 * DIRECTIONS];
    let lower = &responses[((row + 1) * SIDE + column) * DIRECTIONS..][..2 * DIRECTIONS];
    std::array::from_fn(|i| {
        let above = upper[i] + (upper[i + DIRECTIONS] - upper[i]) * fx;
        let below = lower[i] + (lower[i + DIRECTIONS] - lower[i]) * fx;
        above + (below - above) * fy
    })
}

fn stream(label: &str, key: &Secret<[u8; 32]>, tenant: &Name, purpose: Purpose) -> ChaCha20Rng {
    let mut hash = Sha256::new();
    let parts: [&[u8]; 5] = [
        b"palmgate/1 palm transform",
        label.as_bytes(),
        tenant.as_str().as_bytes(),
        purpose.as_str().as_bytes(),
        key.expose(),
    ];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut seed: [u8; 32] = hash.finalize().into();
    let rng = ChaCha20Rng::from_seed(seed);
    seed.zeroize();
    rng
}

/// Orthonormal rows: near-normal random ones (sums of twelve uniforms, so that every machine gets
/// the same bits), made orthogonal one after the other.
fn basis(rng: &mut ChaCha20Rng) -> Vec<f32> {
    const N: usize = EMBEDDING_DIMENSIONS;
    let mut uniform = || f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5;
    let mut rows: Zeroizing<Vec<f64>> =
        Zeroizing::new((0..N * N).map(|_| (0..12).map(|_| uniform()).sum()).collect());
    for current in 0..N {
        let (done, rest) = rows.split_at_mut(current * N);
        let row = &mut rest[..N];
        for earlier in done.chunks_exact(N) {
            let dot: f64 = earlier.iter().zip(row.iter()).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(earlier).for_each(|(value, other)| *value -= dot * other);
        }
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        for value in row {
            *value /= length;
        }
    }
    rows.iter().map(|&value| value as f32).collect()
}

/// Four different places of the window for each hash.
fn places(rng: &mut ChaCha20Rng) -> Vec<[u16; CHOICES]> {
    const COUNT: u32 = (WINDOW * WINDOW * DIRECTIONS) as u32;
    let mut draw = || {
        // Rejection keeps the draw uniform.
        let limit = u32::MAX - u32::MAX % COUNT;
        let value = std::iter::repeat_with(|| rng.next_u32()).find(|&value| value < limit);
        let index = (value.expect("the stream does not end") % COUNT) as usize;
        let (cell, direction) = (index / DIRECTIONS, index % DIRECTIONS);
        ((cell / WINDOW * FIELD + cell % WINDOW) * DIRECTIONS + direction) as u16
    };
    (0..HASHES)
        .map(|_| {
            let mut chosen = [u16::MAX; CHOICES];
            for i in 0..CHOICES {
                chosen[i] = std::iter::repeat_with(&mut draw)
                    .find(|place| !chosen[..i].contains(place))
                    .expect("there are more places than choices");
            }
            chosen
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(key: u8, tenant: &str, purpose: Purpose) -> Transform {
        Transform::derive(&Secret::new([key; 32]), &tenant.parse().unwrap(), purpose)
    }

    #[test]
    fn the_basis_keeps_lengths_and_angles() {
        let basis = transform(1, "chain", Purpose::Pay).basis.clone();
        let rows: Vec<_> = basis.chunks_exact(EMBEDDING_DIMENSIONS).collect();
        for i in [0, 1, 100, 255] {
            for j in [0, 2, 100, 254] {
                let dot: f32 = rows[i].iter().zip(rows[j]).map(|(a, b)| a * b).sum();
                assert!((dot - f32::from(u8::from(i == j))).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn key_tenant_and_purpose_each_change_everything() {
        let base = transform(1, "chain", Purpose::Pay);
        assert!(base.places == transform(1, "chain", Purpose::Pay).places);
        for other in [
            transform(2, "chain", Purpose::Pay),
            transform(1, "chai", Purpose::Pay),
            transform(1, "chain", Purpose::Entry),
        ] {
            let same = base.places.iter().zip(&other.places).filter(|(a, b)| a == b).count();
            let dot: f32 = base.basis.iter().zip(&other.basis).map(|(a, b)| a * b).sum();
            assert!(same == 0 && (dot / 256.0).abs() < 0.05);
        }
    }

    #[test]
    fn every_place_lies_in_the_field_at_every_shift() {
        let far = transform(3, "chain", Purpose::Staff).places.iter().flatten().copied().max();
        let corner = (2 * SHIFTS * FIELD + 2 * SHIFTS) * DIRECTIONS;
        assert!(usize::from(far.unwrap()) + corner < FIELD * FIELD * DIRECTIONS);
    }
}
