use crate::{
    RowId,
    kernel::{
        pages::Pages,
        signs::{BLOCK, BlockWord},
    },
    vector::Vector,
};
use bytemuck::Pod;
use std::{marker::PhantomData, ops::Range};
use zeroize::Zeroize;

/// Rows in a chunk: the signs of 512 dimensions fill one huge page.
pub(crate) const ROWS: usize = if cfg!(any(loom, miri)) { 16 } else { 1 << 15 };

/// A number of rows that never move, in memory of their own: what a search streams stands
/// together. A place without a row is wiped, and passed over by its generation.
pub(crate) struct Chunk<const D: usize, P> {
    pages: Pages,
    inverse_norms: Box<[f32]>,
    rows: Box<[RowId]>,
    /// Odd where a row stands; one more for every change.
    generations: Box<[u32]>,
    /// Places that ever had a row.
    used: usize,
    payload: PhantomData<P>,
}

impl<const D: usize, P: Pod> Chunk<D, P> {
    const WORDS: usize = D / 128;
    const FIRSTS: Range<usize> = 0..ROWS * D / 16;
    const SECONDS: Range<usize> = Self::FIRSTS.end..Self::FIRSTS.end + ROWS * D / 16;
    const VECTORS: Range<usize> = Self::SECONDS.end..Self::SECONDS.end + ROWS * D;
    const PAYLOADS: Range<usize> = Self::VECTORS.end..Self::VECTORS.end + ROWS * size_of::<P>();

    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            pages: Pages::new(Self::PAYLOADS.end)?,
            inverse_norms: vec![0.0; ROWS].into(),
            rows: vec![RowId(0); ROWS].into(),
            generations: vec![0; ROWS].into(),
            used: 0,
            payload: PhantomData,
        })
    }

    /// Places that ever had a row, in whole blocks.
    pub(crate) fn used(&self) -> usize {
        self.used
    }

    /// First halves of the signs, block by block, word by word.
    pub(crate) fn firsts(&self, rows: Range<usize>) -> &[BlockWord] {
        let blocks = rows.start / BLOCK..rows.end / BLOCK;
        let words: &[BlockWord] = bytemuck::cast_slice(&self.pages.bytes()[Self::FIRSTS]);
        &words[blocks.start * Self::WORDS..blocks.end * Self::WORDS]
    }

    /// Second halves of the signs, row by row.
    pub(crate) fn seconds(&self) -> &[u64] {
        bytemuck::cast_slice(&self.pages.bytes()[Self::SECONDS])
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
        let generation = self.generations[place];
        (generation % 2 == 1).then(|| (self.rows[place], generation))
    }

    pub(crate) fn payload(&self, place: usize) -> &P {
        let size = size_of::<P>();
        bytemuck::from_bytes(&self.pages.bytes()[Self::PAYLOADS][place * size..][..size])
    }

    /// Puts a row at a place, over the one that stands there.
    pub(crate) fn put(&mut self, place: usize, row: RowId, vector: &Vector<D>, payload: &P) {
        self.write(place, vector, payload);
        self.rows[place] = row;
        let step = if self.generations[place] % 2 == 1 { 2 } else { 1 };
        self.generations[place] = self.generations[place].wrapping_add(step);
        self.used = self.used.max((place + 1).next_multiple_of(BLOCK));
    }

    /// Wipes a place.
    pub(crate) fn wipe(&mut self, place: usize) {
        let size = size_of::<P>();
        let bytes = self.pages.bytes_mut();
        firsts_of::<D>(&mut bytes[Self::FIRSTS], place).for_each(Zeroize::zeroize);
        zeroize(&mut bytes[Self::SECONDS][place * D / 16..][..D / 16]);
        zeroize(&mut bytes[Self::VECTORS][place * D..][..D]);
        zeroize(&mut bytes[Self::PAYLOADS][place * size..][..size]);
        self.inverse_norms[place].zeroize();
        self.rows[place] = RowId(0);
        self.generations[place] = self.generations[place].wrapping_add(1) & !1;
    }

    fn write(&mut self, place: usize, vector: &Vector<D>, payload: &P) {
        let size = size_of::<P>();
        let bytes = self.pages.bytes_mut();
        for (to, from) in firsts_of::<D>(&mut bytes[Self::FIRSTS], place).zip(&vector.signs[0]) {
            *to = *from;
        }
        bytes[Self::SECONDS][place * D / 16..][..D / 16]
            .copy_from_slice(bytemuck::cast_slice(&vector.signs[1][..Self::WORDS]));
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
        let signs = self.pages.collapse(0..Self::SECONDS.end);
        let vectors = Self::VECTORS.start..Self::VECTORS.start + self.used * D;
        let vectors = self.pages.collapse(vectors);
        (signs.0 + vectors.0, signs.1 + vectors.1)
    }
}

/// The words of one row's first half, among those of its block.
fn firsts_of<const D: usize>(firsts: &mut [u8], place: usize) -> impl Iterator<Item = &mut u64> {
    let words: &mut [BlockWord] = bytemuck::cast_slice_mut(firsts);
    let words = &mut words[place / BLOCK * (D / 128)..][..D / 128];
    words.iter_mut().map(move |word| &mut word[place % BLOCK])
}

/// Word by word where it can: the writes are volatile, so no compiler joins bytes.
fn zeroize(bytes: &mut [u8]) {
    let (head, words, tail) = bytemuck::pod_align_to_mut::<u8, u64>(bytes);
    head.zeroize();
    words.zeroize();
    tail.zeroize();
}

impl<const D: usize, P> Drop for Chunk<D, P> {
    fn drop(&mut self) {
        // What was never used was never written, and to wipe it would take memory for it.
        let bytes = self.pages.bytes_mut();
        let mut start = 0;
        for each in [D / 16, D / 16, D, size_of::<P>()] {
            zeroize(&mut bytes[start..][..self.used * each]);
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
        let block = chunk.firsts(place / BLOCK * BLOCK..(place / BLOCK + 1) * BLOCK);
        block.iter().all(|word| word[place % BLOCK] == 0)
            && chunk.seconds()[place * 2..][..2] == [0; 2]
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
            chunk.put(place, RowId(place as u64), &vector(fill), &[fill as u8; 3]);
        }
        for place in [0, 7, 8, ROWS - 1] {
            let before = chunk.row(place).unwrap();
            assert!(!is_wiped(&chunk, place));
            chunk.wipe(place);
            assert!(is_wiped(&chunk, place));
            chunk.put(place, RowId(5), &vector(9), &[9; 3]);
            assert_ne!(chunk.row(place).unwrap().1, before.1, "another generation");
            chunk.wipe(place);
        }
        for place in [1, 6, 9, ROWS - 2] {
            let fill = 1 + (place % 100) as i8;
            assert_eq!(chunk.vectors(place..place + 1), [[fill; 256]]);
            assert_eq!(chunk.payload(place), &[fill as u8; 3]);
            assert_eq!(chunk.seconds()[place * 2..][..2], [u64::MAX; 2]);
        }
        chunk.wipe_all();
        assert!((0..ROWS).all(|place| is_wiped(&chunk, place)));
    }

    #[test]
    fn a_row_without_payload_takes_no_place_for_it() {
        let mut chunk = Chunk::<256, ()>::new().unwrap();
        chunk.put(3, RowId(1), &vector(1), &());
        assert_eq!((chunk.used(), chunk.row(3)), (BLOCK, Some((RowId(1), 1))));
        assert_eq!(chunk.payload(3), &());
    }
}
