use crate::{
    RowId,
    kernel::{
        pages::Pages,
        signs::{self, Plane, SPAN},
    },
    vector::{Vector, wipe},
};
use bytemuck::Pod;
use std::{marker::PhantomData, ops::Range};
use zeroize::{Zeroize, Zeroizing};

/// Rows in a chunk: the signs of 512 dimensions fill one huge page.
pub(crate) const ROWS: usize = if cfg!(any(loom, miri)) { SPAN } else { 1 << 15 };
/// Rows whose signs are bits of the same words.
pub(crate) const TOGETHER: usize = 64;
/// Rows from which on it pays to turn their signs over together.
const MANY: usize = 8;

/// A number of rows that never move, in memory of their own: what a search streams stands
/// together. A place without a row is wiped, and passed over by its generation.
pub(crate) struct Chunk<const D: usize, P> {
    pages: Pages,
    inverse_norms: Box<[f32]>,
    rows: Box<[RowId]>,
    /// Odd where a row stands; one more for every change.
    generations: Box<[u32]>,
    /// The same, one bit a place.
    stands: Box<[Plane]>,
    /// Places that ever had a row.
    used: usize,
    payload: PhantomData<P>,
}

impl<const D: usize, P: Pod> Chunk<D, P> {
    const SIGNS: Range<usize> = 0..ROWS * D / 8;
    const VECTORS: Range<usize> = Self::SIGNS.end..Self::SIGNS.end + ROWS * D;
    const PAYLOADS: Range<usize> = Self::VECTORS.end..Self::VECTORS.end + ROWS * size_of::<P>();

    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            pages: Pages::new(Self::PAYLOADS.end)?,
            inverse_norms: vec![0.0; ROWS].into(),
            rows: vec![RowId(0); ROWS].into(),
            generations: vec![0; ROWS].into(),
            stands: vec![[0; _]; ROWS / SPAN].into(),
            used: 0,
            payload: PhantomData,
        })
    }

    /// Places that ever had a row.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// The signs of a span's rows, one plane a component, and which of its places have a row.
    pub(crate) fn span(&self, number: usize) -> (&[Plane], &Plane) {
        let planes: &[Plane] = bytemuck::cast_slice(&self.pages.bytes()[Self::SIGNS]);
        (&planes[number * D..][..D], &self.stands[number])
    }

    pub(crate) fn vectors(&self, rows: Range<usize>) -> &[[i8; D]] {
        let vectors: &[[i8; D]] = bytemuck::cast_slice(&self.pages.bytes()[Self::VECTORS]);
        &vectors[rows]
    }

    pub(crate) fn inverse_norms(&self, rows: Range<usize>) -> &[f32] {
        &self.inverse_norms[rows]
    }

    /// The row at a place and its generation; `None` where none stands.
    pub(crate) fn row(&self, place: usize) -> Option<(RowId, u32)> {
        let (row, generation) = self.last_row(place);
        (generation % 2 == 1).then_some((row, generation))
    }

    /// The same without a branch: the generation of a place without a row is even.
    pub(crate) fn last_row(&self, place: usize) -> (RowId, u32) {
        (self.rows[place], self.generations[place])
    }

    pub(crate) fn payload(&self, place: usize) -> &P {
        let size = size_of::<P>();
        bytemuck::from_bytes(&self.pages.bytes()[Self::PAYLOADS][place * size..][..size])
    }

    /// Puts rows at the places from `first` on, over those that stand there. At most the rest of
    /// [`TOGETHER`].
    pub(crate) fn put(&mut self, first: usize, rows: &[(RowId, &Vector<D>, &P)]) {
        self.put_signs(first, rows);
        for (place, (row, vector, payload)) in (first..).zip(rows) {
            self.write(place, vector, payload);
            self.rows[place] = *row;
            let step = if self.generations[place] % 2 == 1 { 2 } else { 1 };
            self.generations[place] = self.generations[place].wrapping_add(step);
            self.stands[place / SPAN][place % SPAN / 64] |= 1 << (place % 64);
        }
        self.used = self.used.max(first + rows.len());
    }

    fn put_signs(&mut self, first: usize, rows: &[(RowId, &Vector<D>, &P)]) {
        let signs = &mut self.pages.bytes_mut()[Self::SIGNS];
        let bit = first % TOGETHER;
        if rows.len() < MANY {
            for (place, (_, vector, _)) in (first..).zip(rows) {
                for (component, word) in signs_of::<D>(signs, place).enumerate() {
                    *word = *word & !(1 << (place % 64)) | vector.sign(component) << (place % 64);
                }
            }
            return;
        }
        let others = !(u64::MAX >> (TOGETHER - rows.len()) << bit);
        let mut words = signs_of::<D>(signs, first);
        for number in 0..D / 64 {
            let mut block = Zeroizing::new([0; 64]);
            for (to, (_, vector, _)) in block[bit..].iter_mut().zip(rows) {
                *to = vector.sign_words()[number];
            }
            signs::transpose(&mut block);
            // In this order, or a word would be taken for which the block has no signs.
            for (signs, word) in block.iter().zip(words.by_ref()) {
                *word = *word & others | signs;
            }
        }
    }

    /// Wipes a place.
    pub(crate) fn wipe(&mut self, place: usize) {
        let size = size_of::<P>();
        let bytes = self.pages.bytes_mut();
        for word in signs_of::<D>(&mut bytes[Self::SIGNS], place) {
            // Volatile, so that no compiler leaves it out.
            let others = *word & !(1 << (place % 64));
            word.zeroize();
            *word = others;
        }
        wipe(&mut bytes[Self::VECTORS][place * D..][..D]);
        wipe(&mut bytes[Self::PAYLOADS][place * size..][..size]);
        self.inverse_norms[place].zeroize();
        self.rows[place] = RowId(0);
        self.stands[place / SPAN][place % SPAN / 64] &= !(1 << (place % 64));
        self.generations[place] = self.generations[place].wrapping_add(1) & !1;
    }

    fn write(&mut self, place: usize, vector: &Vector<D>, payload: &P) {
        let size = size_of::<P>();
        let bytes = self.pages.bytes_mut();
        bytes[Self::VECTORS][place * D..][..D]
            .copy_from_slice(bytemuck::cast_slice(&vector.components));
        bytes[Self::PAYLOADS][place * size..][..size].copy_from_slice(bytemuck::bytes_of(payload));
        self.inverse_norms[place] = vector.inverse_norm;
    }

    /// Wipes every place.
    pub(crate) fn wipe_all(&mut self) {
        for place in 0..self.used {
            self.wipe(place);
        }
    }

    /// Huge pages that stand after they were asked for, and out of how many.
    pub(crate) fn collapse(&self) -> (usize, usize) {
        let signs = self.pages.collapse(Self::SIGNS);
        let vectors = Self::VECTORS.start..Self::VECTORS.start + self.used * D;
        let vectors = self.pages.collapse(vectors);
        (signs.0 + vectors.0, signs.1 + vectors.1)
    }
}

/// The words that one row's signs are bits of, component by component.
fn signs_of<const D: usize>(signs: &mut [u8], place: usize) -> impl Iterator<Item = &mut u64> {
    let planes: &mut [Plane] = bytemuck::cast_slice_mut(signs);
    let span = &mut planes[place / SPAN * D..][..D];
    span.iter_mut().map(move |plane| &mut plane[place % SPAN / 64])
}

impl<const D: usize, P> Drop for Chunk<D, P> {
    fn drop(&mut self) {
        // What was never used was never written, and to wipe it would take memory for it.
        let bytes = self.pages.bytes_mut();
        let mut start = 0;
        for (each, rows) in
            [(D / 8, self.used.next_multiple_of(SPAN)), (D, self.used), (size_of::<P>(), self.used)]
        {
            wipe(&mut bytes[start..][..rows * each]);
            start += ROWS * each;
        }
        self.inverse_norms.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Small = Chunk<256, [u8; 3]>;

    fn vector(fill: i8) -> Vector<256> {
        Vector::from_components(&[fill; 256]).unwrap()
    }

    fn is_wiped(chunk: &Small, place: usize) -> bool {
        let (planes, stands) = chunk.span(place / SPAN);
        let bit = |plane: &Plane| plane[place % SPAN / 64] >> (place % 64) & 1;
        planes.iter().chain([stands]).all(|plane| bit(plane) == 0)
            && chunk.vectors(place..place + 1) == [[0; 256]]
            && chunk.inverse_norms(place..place + 1)[0].to_bits() == 0
            && chunk.payload(place) == &[0; 3]
            && chunk.row(place).is_none()
    }

    #[test]
    fn a_wiped_place_holds_no_byte_of_its_row_and_its_neighbours_stay() {
        let mut chunk = Small::new().unwrap();
        for place in 0..ROWS {
            let fill = 1 + (place % 100) as i8;
            chunk.put(place, &[(RowId(place as u64), &vector(fill), &[fill as u8; 3])]);
        }
        for place in [0, 7, 8, ROWS - 1] {
            let before = chunk.row(place).unwrap();
            assert!(!is_wiped(&chunk, place));
            chunk.wipe(place);
            assert!(is_wiped(&chunk, place));
            chunk.put(place, &[(RowId(5), &vector(9), &[9; 3])]);
            assert_ne!(chunk.row(place).unwrap().1, before.1, "another generation");
            chunk.wipe(place);
        }
        for place in [1, 6, 9, ROWS - 2] {
            let fill = 1 + (place % 100) as i8;
            assert_eq!(chunk.vectors(place..place + 1), [[fill; 256]]);
            assert_eq!(chunk.payload(place), &[fill as u8; 3]);
            let (planes, stands) = chunk.span(place / SPAN);
            let bit = |plane: &Plane| plane[place % SPAN / 64] >> (place % 64) & 1;
            assert!(planes.iter().chain([stands]).all(|plane| bit(plane) == 1));
        }
        chunk.wipe_all();
        assert!((0..ROWS).all(|place| is_wiped(&chunk, place)));
    }

    #[test]
    fn rows_put_together_stand_as_if_put_one_by_one() {
        let of = |number: usize| {
            let components =
                std::array::from_fn(|i| (((number + 1) * (i + 7) % 251) as u8).cast_signed());
            Vector::<256>::from_components(&components).unwrap()
        };
        let vectors: Vec<_> = (0..TOGETHER).map(of).collect();
        let row = |at: usize| (RowId(at as u64), &vectors[at], &[7; 3]);
        let rows: Vec<_> = (0..TOGETHER).map(row).collect();
        for (first, count) in [(0, 64), (0, 7), (3, 8), (5, 59), (64, 9), (100, 28)] {
            let (mut one_by_one, mut together) = (Small::new().unwrap(), Small::new().unwrap());
            for chunk in [&mut one_by_one, &mut together] {
                for place in 0..3 * TOGETHER {
                    chunk.put(place, &[(RowId(9), &vector(1), &[1; 3])]);
                }
            }
            for (place, row) in (first..).zip(&rows[..count]) {
                one_by_one.put(place, std::slice::from_ref(row));
            }
            together.put(first, &rows[..count]);
            assert!(one_by_one.pages.bytes() == together.pages.bytes(), "{count} from {first}");
            assert_eq!(one_by_one.rows, together.rows);
            assert_eq!(one_by_one.generations, together.generations);
        }
    }

    #[test]
    fn a_row_without_payload_takes_no_place_for_it() {
        let mut chunk = Chunk::<256, ()>::new().unwrap();
        chunk.put(3, &[(RowId(1), &vector(1), &())]);
        assert_eq!((chunk.used(), chunk.row(3)), (4, Some((RowId(1), 1))));
        assert_eq!(chunk.payload(3), &());
    }
}
