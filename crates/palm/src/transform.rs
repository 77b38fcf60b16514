use crate::capture::Capture;
use crate::code::{DIRECTIONS, Responses, SIDE};
use crate::embed::{Vector, normalise};
use crate::scoring::scoring;
use crate::sums::dot;
use crate::wiped::Wiped;
use palmgate_protocol::terminal::CaptureProblem;
use palmgate_protocol::{
    CODES_PER_TEMPLATE, CODES_PER_TURN, Code, EMBEDDING_DIMENSIONS, Embedding, MAX_PROBE_TURNS,
    Name, Probe, Purpose, QUADRANT_BYTES, QUADRANTS, SHIFTS, Secret, Template,
};
use pulp::{Arch, Simd, WithSimd};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Hashes of a quadrant, two bits each.
const HASHES: usize = QUADRANT_BYTES * 4;
/// Places that one hash compares.
const CHOICES: usize = 4;
/// Pixels between two cells of the code's grid.
const CELL: usize = 2;
/// Turns at which a probe is hashed, in degrees.
const TURNS: [f32; MAX_PROBE_TURNS] = [-4.0, 0.0, 4.0];
/// Cells on a side of a quadrant.
const BLOCK: usize = 14;
/// Cells on a side of the grid that a probe is shifted in: two quadrants and the shifts.
const FIELD: usize = 2 * BLOCK + SHIFTS - 1;
/// Shifts along a row that are worked on at once; those beyond [`SHIFTS`] are thrown away.
const LANES: usize = 16;

/// The keyed, renewable protection of templates (ISO/IEC 24745) for one tenant and purpose.
///
/// Everything is drawn from `ChaCha20` streams seeded with SHA-256 over a label, the tenant, the
/// purpose and the key, each preceded by its length:
///
/// - the embedding is multiplied by a random orthonormal basis, which keeps cosines under the same
///   key and makes them meaningless across keys;
/// - the line code becomes 1,024 index-of-maximum hashes (uniformly random permutation, Jin et al.
///   2018), 256 for each quadrant of the palm: each compares the answers to one line direction at
///   four random cells of its quadrant and keeps which one is greatest. A template holds the code of
///   each enrolment capture; a probe is hashed at every shift of up to six cells of 1/40 of the
///   region and at three turns. A comparison takes the shift that fits the whole palm best, and
///   then lets each quadrant move by one cell more, so that a palm that bends is still met.
///
/// What it protects against: without the key a template tells neither who it is nor, next to a
/// template under another key, whether both are of one person (measured in `tests/protection.rs`).
/// What it does not: with the key *and* a template the palm's lines can be approximated, since each
/// hash is an inequality between answers; and under one key a code compares with every other. A
/// probe holds the code at 507 places and tells more than a template. The keys are guarded and
/// destroyed accordingly.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Transform {
    /// Rows of an orthonormal basis.
    basis: Vec<f32>,
    /// For each hash, quadrant by quadrant, places in the field at the first shift.
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
        let turned = TURNS.map(|turn| self.codes(&Field::of(&capture.responses, turn)));
        let codes = turned.iter().flat_map(|codes| codes.iter().copied()).collect();
        Probe { embedding: self.embedding(&capture.vector), codes }
    }

    /// Protects the captures of one hand as its reference: one to three, later ones are ignored.
    ///
    /// # Errors
    /// [`CaptureProblem::Inconsistent`] when two captures do not match each other, or are of a left
    /// and a right hand; [`CaptureProblem::NoHand`] when there is none.
    pub fn template(&self, captures: &[&Capture]) -> Result<Template, CaptureProblem> {
        let captures = &captures[..captures.len().min(CODES_PER_TEMPLATE)];
        for (index, capture) in captures.iter().enumerate() {
            if !captures[..index].iter().all(|earlier| self.consistent(earlier, capture)) {
                return Err(CaptureProblem::Inconsistent);
            }
        }
        self.unchecked_template(captures).ok_or(CaptureProblem::NoHand)
    }

    /// A template of captures that need not match each other; `None` of none. For calibration only.
    #[doc(hidden)]
    pub fn unchecked_template(&self, captures: &[&Capture]) -> Option<Template> {
        let (first, rest) = captures.split_first()?;
        let mut mean = first.vector.clone();
        for capture in rest {
            mean.iter_mut().zip(capture.vector.iter()).for_each(|(sum, value)| *sum += value);
        }
        normalise(&mut mean);
        let codes: Vec<Code> = captures.iter().map(|capture| self.reference(capture)).collect();
        let codes = std::array::from_fn(|i| codes[i.min(rest.len())]);
        Some(Template { embedding: self.embedding(&mean), codes })
    }

    /// The inversion attack on the embedding: what it was, if this is the key.
    #[cfg(test)]
    pub(crate) fn inverted_embedding(&self, template: &Template) -> Vec<f64> {
        let mut inverted = vec![0.0; EMBEDDING_DIMENSIONS];
        let rows = self.basis.chunks_exact(EMBEDDING_DIMENSIONS);
        for (row, value) in rows.zip(template.embedding) {
            for (sum, factor) in inverted.iter_mut().zip(row) {
                *sum += f64::from(*factor) * f64::from(value);
            }
        }
        inverted
    }

    /// The inversion attack on the code: each place (column and row in the picture of answers,
    /// direction) that a hash compared, and whether its answer was the greatest, if this is the key.
    #[cfg(test)]
    pub(crate) fn inverted_lines(&self, template: &Template) -> Vec<((usize, usize, usize), bool)> {
        let corner = ((SIDE as f32 - 1.0) - (FIELD as f32 - 1.0) * CELL as f32) / 2.0;
        let pixel = |cell: usize| ((cell + SHIFTS / 2) * CELL) as f32 + corner;
        let mut seen = Vec::with_capacity(HASHES * CHOICES);
        for (hash, places) in self.places.iter().enumerate() {
            let greatest = template.codes[0][hash / 4] >> (2 * (hash % 4)) & 3;
            for (choice, place) in places.iter().enumerate() {
                let (direction, cell) =
                    (usize::from(*place) / (FIELD * FIELD), usize::from(*place) % (FIELD * FIELD));
                let at = (pixel(cell % FIELD) as usize, pixel(cell / FIELD) as usize, direction);
                seen.push((at, choice == usize::from(greatest)));
            }
        }
        seen
    }

    fn reference(&self, capture: &Capture) -> Code {
        const AT_REST: usize = SHIFTS / 2 * FIELD + SHIFTS / 2;
        let field = Field::of(&capture.responses, 0.0);
        let hash = |places: &[u16; CHOICES]| {
            greatest(places.map(|place| field.0[usize::from(place) + AT_REST])) as u8
        };
        std::array::from_fn(|byte| {
            let group = self.places[4 * byte..][..4].iter().map(hash).enumerate();
            group.fold(0, |byte, (position, hash)| byte | hash << (2 * position))
        })
    }

    fn consistent(&self, a: &Capture, b: &Capture) -> bool {
        let reference = Template {
            embedding: self.embedding(&a.vector),
            codes: [self.reference(a); CODES_PER_TEMPLATE],
        };
        let scoring = scoring();
        a.hand == b.hand && scoring.score(&self.probe(b), &reference) >= scoring.consistency
    }

    fn embedding(&self, vector: &Vector) -> Embedding {
        // The scale that the wire format fixes: 127·√8.
        let scale = 127.0 * 8f32.sqrt();
        let mut rows = self.basis.chunks_exact(EMBEDDING_DIMENSIONS);
        std::array::from_fn(|_| {
            let row = rows.next().expect("the basis has a row for each dimension");
            (dot(row, &vector[..]) * scale).round().clamp(-127.0, 127.0) as i8
        })
    }

    /// The code at every shift in the field, row by row.
    fn codes(&self, field: &Field) -> Wiped<Code> {
        let mut codes = Wiped::zeros(CODES_PER_TURN);
        Arch::new().dispatch(Hashing { places: &self.places, field, codes: &mut codes });
        codes
    }
}

/// Every hash at every shift.
struct Hashing<'a> {
    places: &'a [[u16; CHOICES]],
    field: &'a Field,
    codes: &'a mut [Code],
}

impl WithSimd for Hashing<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "the caller chooses the instructions")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (index, group) in self.places.chunks_exact(4).enumerate() {
            let mut bytes = [[0i16; LANES]; SHIFTS];
            for (position, places) in group.iter().enumerate() {
                for (row, bytes) in bytes.iter_mut().enumerate() {
                    let [a, b, c, d] = places.map(|place| self.field.run(usize::from(place), row));
                    for lane in 0..LANES {
                        let hash = greatest([a[lane], b[lane], c[lane], d[lane]]);
                        bytes[lane] |= hash << (2 * position);
                    }
                }
            }
            for (codes, bytes) in self.codes.chunks_exact_mut(SHIFTS).zip(bytes) {
                codes.iter_mut().zip(bytes).for_each(|(code, byte)| code[index] = byte as u8);
            }
        }
    }
}

/// Index of the greatest value; the first of equals. Without branches, so that the compiler makes
/// it one comparison for all shifts of a row.
#[inline]
const fn greatest([a, b, c, d]: [i16; CHOICES]) -> i16 {
    let (first, first_at) = if b > a { (b, 1) } else { (a, 0) };
    let (second, second_at) = if d > c { (d, 3) } else { (c, 2) };
    if second > first { second_at } else { first_at }
}

/// Responses sampled on the code's grid after a turn about the region's centre, one plane for each
/// direction. Wiped on drop.
struct Field(Wiped<i16>);

impl Field {
    fn of(responses: &Responses, degrees: f32) -> Self {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let half = (FIELD as f32 - 1.0) / 2.0;
        let center = (SIDE as f32 - 1.0) / 2.0;
        // A turned palm's lines also change direction: a share of each answer moves to the next.
        let share = degrees * DIRECTIONS as f32 / 180.0;
        let mut field = Wiped::zeros(FIELD * FIELD * DIRECTIONS + LANES);
        for cell in 0..FIELD * FIELD {
            let u = ((cell % FIELD) as f32 - half) * CELL as f32;
            let v = ((cell / FIELD) as f32 - half) * CELL as f32;
            let (x, y) = (center + u * cos - v * sin, center + u * sin + v * cos);
            let here = interpolate(&responses.0, x, y);
            for direction in 0..DIRECTIONS {
                let next = if share >= 0.0 { direction + 1 } else { direction + DIRECTIONS - 1 };
                let neighbour = here[next % DIRECTIONS];
                let value = here[direction] + (neighbour - here[direction]) * share.abs();
                let value = (value * 16384.0).clamp(-32767.0, 32767.0) as i16;
                field[direction * FIELD * FIELD + cell] = value;
            }
        }
        Self(field)
    }

    /// The answers at `place`, `row` cells further down, at each shift to the right.
    #[inline]
    fn run(&self, place: usize, row: usize) -> &[i16; LANES] {
        self.0[place + row * FIELD..].first_chunk().expect("places are drawn within the field")
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

/// Four different cells of its own quadrant for each hash, quadrant by quadrant, all answering to one
/// direction: answers to different directions differ in size on every palm.
fn places(rng: &mut ChaCha20Rng) -> Vec<[u16; CHOICES]> {
    // Rejection keeps the draw uniform.
    let mut below = |count: u32| {
        let limit = u32::MAX - u32::MAX % count;
        let value = std::iter::repeat_with(|| rng.next_u32()).find(|&value| value < limit);
        (value.expect("the stream does not end") % count) as usize
    };
    let mut hash = |quadrant: usize| {
        let plane = below(DIRECTIONS as u32) * FIELD * FIELD;
        let corner = quadrant / 2 * BLOCK * FIELD + quadrant % 2 * BLOCK;
        let mut chosen = [u16::MAX; CHOICES];
        for i in 0..CHOICES {
            let draw = || {
                let cell = below((BLOCK * BLOCK) as u32);
                (plane + corner + cell / BLOCK * FIELD + cell % BLOCK) as u16
            };
            chosen[i] = std::iter::repeat_with(draw)
                .find(|place| !chosen[..i].contains(place))
                .expect("there are more cells than choices");
        }
        chosen
    };
    (0..QUADRANTS * HASHES).map(|index| hash(index / HASHES)).collect()
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
        for key in 0..20 {
            let transform = transform(key, "chain", Purpose::Staff);
            for place in transform.places.iter().flatten().copied().map(usize::from) {
                let (row, column) = (place % (FIELD * FIELD) / FIELD, place % FIELD);
                assert!(place < FIELD * FIELD * DIRECTIONS);
                assert!(row < 2 * BLOCK && column < 2 * BLOCK);
            }
        }
    }

    #[test]
    fn a_hash_names_the_greatest_of_its_places() {
        for greatest_at in 0..CHOICES {
            let mut values = [-5, 3, 3, -7];
            values[greatest_at] = 9;
            assert_eq!(usize::try_from(greatest(values)), Ok(greatest_at));
        }
        assert_eq!(greatest([4, 4, 4, 4]), 0);
    }

    #[test]
    fn a_shifted_palm_is_found_at_the_shift_that_undoes_it() {
        let wave = |row: usize, column: usize, direction: usize| {
            let mixed = (row * 31 + column * 57 + direction * 101) as f32;
            (mixed * 0.37).sin() * (mixed * 0.011).cos()
        };
        let responses = |down: usize, right: usize| {
            let at = |i: usize| (i / DIRECTIONS / SIDE, i / DIRECTIONS % SIDE, i % DIRECTIONS);
            let values = (0..SIDE * SIDE * DIRECTIONS).map(at);
            let values = values.map(|(row, column, d)| wave(row + down, column + right, d));
            Responses(Wiped::new(values.collect()))
        };
        let transform = transform(4, "chain", Purpose::Pay);
        let still = transform.codes(&Field::of(&responses(0, 0), 0.0));
        let moved = transform.codes(&Field::of(&responses(2 * CELL, CELL), 0.0));
        let centre = CODES_PER_TURN / 2;
        assert!(moved[centre] == still[centre + 2 * SHIFTS + 1] && moved[centre] != still[centre]);
    }
}
