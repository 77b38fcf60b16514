use crate::{
    RowId, kernel,
    rank::{Best, Ranked},
};
use palmgate_protocol::{
    CODE_BYTES, CODES_PER_TEMPLATE, Code, EMBEDDING_DIMENSIONS, Embedding, Template,
};
use std::collections::HashMap;
use zeroize::Zeroize;

/// Rows in one block: 1 MiB of templates.
const BLOCK_ROWS: usize = 1024;

/// The templates of one purpose, dense: the last row fills the place of a removed one.
///
/// They stand in blocks that never move, because a growing `Vec` would free its old memory with the
/// templates still in it.
#[derive(Default)]
pub(crate) struct Compartment {
    blocks: Vec<Block>,
    rows: Vec<RowId>,
    positions: HashMap<RowId, usize>,
}

/// Structure of arrays: the search streams the embeddings and touches few codes.
struct Block {
    embeddings: Box<[Embedding]>,
    inverse_norms: Box<[f32]>,
    codes: Box<[[Code; CODES_PER_TEMPLATE]]>,
}

impl Block {
    fn new() -> Self {
        Self {
            embeddings: vec![[0; EMBEDDING_DIMENSIONS]; BLOCK_ROWS].into(),
            inverse_norms: vec![0.0; BLOCK_ROWS].into(),
            codes: vec![[[0; CODE_BYTES]; CODES_PER_TEMPLATE]; BLOCK_ROWS].into(),
        }
    }

    fn wipe(&mut self, row: usize) {
        self.embeddings[row].zeroize();
        self.inverse_norms[row].zeroize();
        self.codes[row].as_flattened_mut().zeroize();
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.embeddings.as_flattened_mut().zeroize();
        self.inverse_norms.zeroize();
        self.codes.as_flattened_mut().as_flattened_mut().zeroize();
    }
}

impl Compartment {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn contains(&self, row: RowId) -> bool {
        self.positions.contains_key(&row)
    }

    pub(crate) fn codes(&self, position: usize) -> &[Code; CODES_PER_TEMPLATE] {
        let (block, row) = place(position);
        &self.blocks[block].codes[row]
    }

    /// The caller has checked that the row is new.
    pub(crate) fn push(&mut self, row: RowId, template: &Template) {
        let position = self.rows.len();
        if position == self.blocks.len() * BLOCK_ROWS {
            self.blocks.push(Block::new());
        }
        let (block, place) = place(position);
        let block = &mut self.blocks[block];
        block.embeddings[place].copy_from_slice(&template.embedding);
        block.inverse_norms[place] = kernel::dot::inverse_norm(&template.embedding);
        block.codes[place].copy_from_slice(&template.codes);
        self.rows.push(row);
        self.positions.insert(row, position);
    }

    pub(crate) fn remove(&mut self, row: RowId) -> bool {
        let Some(position) = self.positions.remove(&row) else { return false };
        let last = self.rows.len() - 1;
        self.rows.swap_remove(position);
        if position != last {
            self.positions.insert(self.rows[position], position);
            self.copy(last, position);
        }
        let (block, place) = place(last);
        self.blocks[block].wipe(place);
        self.blocks.truncate(last.div_ceil(BLOCK_ROWS));
        true
    }

    fn copy(&mut self, from: usize, to: usize) {
        let ((from_block, from), (to_block, to)) = (place(from), place(to));
        // Straight from row to row: a value in between would stay on the stack.
        if from_block == to_block {
            let block = &mut self.blocks[to_block];
            block.embeddings.copy_within(from..=from, to);
            block.inverse_norms.copy_within(from..=from, to);
            block.codes.copy_within(from..=from, to);
        } else {
            let [source, target] = self
                .blocks
                .get_disjoint_mut([from_block, to_block])
                .expect("two blocks of this compartment");
            target.embeddings[to].copy_from_slice(&source.embeddings[from]);
            target.inverse_norms[to] = source.inverse_norms[from];
            target.codes[to].copy_from_slice(&source.codes[from]);
        }
    }

    /// The `limit` rows with the largest cosines, best first. Scores are cosines times the length
    /// of `probe`, which orders them alike.
    pub(crate) fn nearest(
        &self,
        probe: &Embedding,
        limit: usize,
    ) -> impl Iterator<Item = Ranked> + use<> {
        let mut best = Best::of(limit);
        let mut products = [0; BLOCK_ROWS];
        let level = kernel::Level::best();
        for (number, rows) in self.rows.chunks(BLOCK_ROWS).enumerate() {
            let block = &self.blocks[number];
            kernel::dot::rows(level, probe, &block.embeddings[..rows.len()], &mut products);
            for (place, (product, norm)) in products.iter().zip(&*block.inverse_norms).enumerate() {
                let score = *product as f32 * norm;
                if score >= best.bar()
                    && let Some(row) = rows.get(place)
                {
                    let position = number * BLOCK_ROWS + place;
                    best.offer(Ranked { score, row: *row, position });
                }
            }
        }
        best.into_sorted()
    }
}

/// The block and the row in it.
const fn place(position: usize) -> (usize, usize) {
    (position / BLOCK_ROWS, position % BLOCK_ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(fill: u8) -> Template {
        Template {
            embedding: [fill.cast_signed(); EMBEDDING_DIMENSIONS],
            codes: [[fill; CODE_BYTES]; CODES_PER_TEMPLATE],
        }
    }

    fn is_wiped(block: &Block, row: usize) -> bool {
        block.embeddings[row] == [0; EMBEDDING_DIMENSIONS]
            && block.inverse_norms[row].to_bits() == 0
            && block.codes[row] == [[0; CODE_BYTES]; CODES_PER_TEMPLATE]
    }

    #[test]
    fn a_removed_row_leaves_no_byte_behind_and_the_others_stay() {
        let mut compartment = Compartment::default();
        let rows = BLOCK_ROWS + 3;
        for row in 0..rows {
            compartment.push(RowId(row as u64), &template(1 + (row % 100) as u8));
        }
        assert!(compartment.remove(RowId(7)) && !compartment.remove(RowId(7)));
        assert!(compartment.codes(7)[0][0] == 1 + ((rows - 1) % 100) as u8);
        assert!(is_wiped(&compartment.blocks[1], 2) && !is_wiped(&compartment.blocks[1], 1));
        for row in (BLOCK_ROWS..rows).rev() {
            compartment.remove(RowId(row as u64));
        }
        assert_eq!((compartment.len(), compartment.blocks.len()), (BLOCK_ROWS - 1, 1));
        assert!(is_wiped(&compartment.blocks[0], BLOCK_ROWS - 1));
        for (position, row) in compartment.rows.iter().enumerate() {
            assert_eq!(compartment.positions[row], position);
            assert_eq!(compartment.codes(position)[2][9], 1 + (row.0 % 100) as u8);
        }
    }
}
