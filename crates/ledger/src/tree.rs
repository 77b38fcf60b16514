use crate::merkle::{ConsistencyProof, Hash, InclusionProof, empty_root, node_hash, split};
use std::{cell::RefCell, collections::BTreeMap, convert::Infallible, ops::Range};

/// Leaves whose hashes are looked up together; their inner nodes are computed when needed. So few need
/// no cache.
pub(crate) const TILE: u64 = 8;
const TILE_NODES: usize = 2 * TILE as usize - 1;

/// Roots at the right edge that are kept.
const EDGES: usize = 256;

/// Nodes of a tree whose leaves come one by one: `0[k][i]` is the root over the `i`th `1 << k` of them,
/// as soon as all of these are there. Nothing is ever hashed twice.
#[derive(Default)]
struct Levels(Vec<Vec<Hash>>);

impl Levels {
    fn push(&mut self, mut node: Hash) {
        for level in 0.. {
            if level == self.0.len() {
                self.0.push(Vec::new());
            }
            let nodes = &mut self.0[level];
            nodes.push(node);
            match nodes.as_slice() {
                [.., left, right] if nodes.len().is_multiple_of(2) => node = node_hash(left, right),
                _ => return,
            }
        }
    }

    fn leaves(&self) -> &[Hash] {
        self.0.first().map_or(&[], Vec::as_slice)
    }

    fn node(&self, level: u32, number: usize) -> Hash {
        self.0[level as usize][number]
    }
}

/// The root over the leaves `start..end`, an aligned range or the beginning of one, out of nodes as
/// [`Levels`] has them.
fn root_over(start: u64, end: u64, node: &impl Fn(u32, usize) -> Hash) -> Hash {
    let width = end - start;
    if width.is_power_of_two() {
        return node(width.ilog2(), (start / width) as usize);
    }
    let middle = start + split(width);
    node_hash(&root_over(start, middle, node), &root_over(middle, end, node))
}

/// Goes down from `range` to the part of it that holds leaf `index` and has at most `width` leaves;
/// tells of each part that is left aside, as RFC 9162 splits them.
fn descend<E>(
    index: u64,
    range: Range<u64>,
    width: u64,
    mut aside: impl FnMut(Range<u64>) -> Result<(), E>,
) -> Result<Range<u64>, E> {
    let Range { mut start, mut end } = range;
    while end - start > width {
        let middle = start + split(end - start);
        if index < middle {
            aside(middle..end)?;
            end = middle;
        } else {
            aside(start..middle)?;
            start = middle;
        }
    }
    Ok(start..end)
}

/// A complete tile: its leaves, and level by level every node above them.
pub(crate) struct Tile([Hash; TILE_NODES]);

impl Tile {
    /// Hashes up the leaves.
    pub(crate) fn new(leaves: &[Hash; TILE as usize]) -> Self {
        let mut nodes = [Hash::default(); TILE_NODES];
        nodes[..leaves.len()].copy_from_slice(leaves);
        for node in leaves.len()..TILE_NODES {
            let left = 2 * (node - leaves.len());
            nodes[node] = node_hash(&nodes[left], &nodes[left + 1]);
        }
        Self(nodes)
    }

    pub(crate) const fn root(&self) -> &Hash {
        &self.0[TILE_NODES - 1]
    }

    fn node(&self, level: u32, number: usize) -> Hash {
        // Each level has half the nodes of the one below it, and all of them twice the leaves, less one.
        let twice = 2 * TILE as usize;
        self.0[twice - (twice >> level) + number]
    }
}

/// The inner nodes above the tiles, and the last, incomplete tile: eight bytes of memory for each
/// entry. Leaf hashes of complete tiles are asked back when a proof needs them.
#[derive(Default)]
pub(crate) struct Tree {
    /// Above the tiles, whose roots are the leaves here.
    above: Levels,
    /// The incomplete tile.
    tail: Levels,
    size: u64,
    /// Roots over ranges that are no complete subtree: those at the right edge of the sizes that were
    /// asked for last. What a range holds never changes.
    edges: RefCell<BTreeMap<(u64, u64), Hash>>,
}

impl Tree {
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Leaf hashes of the incomplete tile.
    pub(crate) fn tail(&self) -> &[Hash] {
        self.tail.leaves()
    }

    /// The root of the `number`th complete tile.
    pub(crate) fn tile_root(&self, number: u64) -> Option<&Hash> {
        self.above.leaves().get(usize::try_from(number).ok()?)
    }

    /// Adds a leaf.
    pub(crate) fn push(&mut self, leaf: Hash) {
        self.tail.push(leaf);
        self.size += 1;
        if self.size.is_multiple_of(TILE) {
            self.above.push(self.tail.node(TILE.ilog2(), 0));
            self.tail = Levels::default();
        }
    }

    pub(crate) fn root(&self) -> Hash {
        // From the right: the tail, then each complete subtree that stands alone on its level.
        let mut root = match self.tail.leaves().len() {
            0 => (self.size == 0).then(empty_root),
            width => Some(root_over(0, width as u64, &|at, number| self.tail.node(at, number))),
        };
        for nodes in &self.above.0 {
            if !nodes.len().is_multiple_of(2)
                && let Some(left) = nodes.last()
            {
                root = Some(root.map_or(*left, |right| node_hash(left, &right)));
            }
        }
        root.expect("a tree without tail has a subtree")
    }

    /// RFC 9162, section 2.1.3.1, for `index < size <= self.size()`, and the hash of the leaf. `tile`
    /// reads the leaf hashes of a complete tile.
    pub(crate) fn inclusion<E>(
        &self,
        index: u64,
        size: u64,
        tile: &mut dyn FnMut(u64) -> Result<Tile, E>,
    ) -> Result<(Hash, InclusionProof), E> {
        // One hash a level: a vector for the longest path of all would be a large piece of memory.
        let mut path = Vec::with_capacity((u64::BITS - size.leading_zeros()) as usize);
        let range = descend(index, 0..size, TILE, |aside| {
            path.push(self.subtree(aside.start, aside.end, tile)?);
            Ok(())
        })?;
        let number = range.start / TILE;
        let tile = if number == self.size / TILE { None } else { Some(tile(number)?) };
        let node = |level, number| match &tile {
            Some(tile) => tile.node(level, number),
            None => self.tail.node(level, number),
        };
        let leaf = index % TILE;
        let Ok(_) = descend(leaf, 0..range.end - range.start, 1, |aside| {
            path.push(root_over(aside.start, aside.end, &node));
            Ok::<_, Infallible>(())
        });
        path.reverse();
        Ok((node(0, leaf as usize), InclusionProof { index, size, path }))
    }

    /// RFC 9162, section 2.1.4.1, for `from <= to <= self.size()`.
    pub(crate) fn consistency<E>(
        &self,
        from: u64,
        to: u64,
        tile: &mut dyn FnMut(u64) -> Result<Tile, E>,
    ) -> Result<ConsistencyProof, E> {
        let mut path = Vec::new();
        if from == 0 || from == to {
            return Ok(ConsistencyProof { from, to, path });
        }
        let (mut start, mut end) = (0, to);
        while end != from {
            let middle = start + split(end - start);
            if from <= middle {
                path.push(self.subtree(middle, end, tile)?);
                end = middle;
            } else {
                path.push(self.subtree(start, middle, tile)?);
                start = middle;
            }
        }
        // The earlier root itself is known to the verifier.
        if start != 0 {
            path.push(self.subtree(start, end, tile)?);
        }
        path.reverse();
        Ok(ConsistencyProof { from, to, path })
    }

    /// The root over the leaves `start..end`, which is a range that RFC 9162 splits a tree into: it
    /// starts at a multiple of the least power of two that is not below its length.
    fn subtree<E>(
        &self,
        start: u64,
        end: u64,
        tile: &mut dyn FnMut(u64) -> Result<Tile, E>,
    ) -> Result<Hash, E> {
        if (end - start).is_power_of_two() {
            return self.hashed(start, end, tile);
        }
        if let Some(root) = self.edges.borrow().get(&(start, end)) {
            return Ok(*root);
        }
        let root = self.hashed(start, end, tile)?;
        let mut edges = self.edges.borrow_mut();
        if edges.len() >= EDGES {
            edges.clear();
        }
        edges.insert((start, end), root);
        Ok(root)
    }

    fn hashed<E>(
        &self,
        start: u64,
        end: u64,
        tile: &mut dyn FnMut(u64) -> Result<Tile, E>,
    ) -> Result<Hash, E> {
        let width = end - start;
        if width.is_power_of_two()
            && width >= TILE
            && let Some(nodes) = self.above.0.get((width / TILE).ilog2() as usize)
            && let Some(node) = nodes.get((start / width) as usize)
        {
            return Ok(*node);
        }
        if width <= TILE {
            let (number, from) = (start / TILE, start % TILE);
            if number == self.size / TILE {
                return Ok(root_over(from, from + width, &|at, number| self.tail.node(at, number)));
            }
            let tile = tile(number)?;
            return Ok(root_over(from, from + width, &|at, number| tile.node(at, number)));
        }
        let middle = start + split(width);
        Ok(node_hash(&self.subtree(start, middle, tile)?, &self.subtree(middle, end, tile)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle::{ProofError, leaf_hash, root_of};
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;

    /// The leaves, roots and proofs with which implementations of RFC 6962 are commonly tested.
    const LEAVES: [&str; 8] = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ];
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    const H01: &str = "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125";
    const H1: &str = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7";
    const H23: &str = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e";
    const H03: &str = "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7";
    const H4: &str = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b";
    const H45: &str = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a";
    const H67: &str = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0";
    const H47: &str = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4";

    fn hash(text: &str) -> Hash {
        HEXLOWER.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    /// A tree with the leaf hashes that a ledger keeps in its hash file.
    struct Whole {
        tree: Tree,
        leaves: Vec<Hash>,
    }

    impl Whole {
        fn new(leaves: impl IntoIterator<Item = Hash>) -> Self {
            let mut whole = Self { tree: Tree::default(), leaves: Vec::new() };
            for leaf in leaves {
                whole.tree.push(leaf);
                whole.leaves.push(leaf);
                let tail = whole.leaves.len() - whole.leaves.len() % TILE as usize;
                assert_eq!(whole.tree.tail(), &whole.leaves[tail..]);
            }
            whole
        }

        fn numbered(size: u64) -> Self {
            Self::new((0..size).map(|i| leaf_hash(&i.to_be_bytes())))
        }

        fn tiles(&self) -> impl FnMut(u64) -> Result<Tile, Infallible> {
            |number| Ok(Tile::new(&self.leaves.as_chunks().0[number as usize]))
        }

        fn inclusion(&self, index: u64, size: u64) -> InclusionProof {
            let Ok((leaf, proof)) = self.tree.inclusion(index, size, &mut self.tiles());
            assert_eq!(leaf, self.leaves[index as usize]);
            proof
        }

        fn consistency(&self, from: u64, to: u64) -> ConsistencyProof {
            let Ok(proof) = self.tree.consistency(from, to, &mut self.tiles());
            proof
        }

        fn root(&self, size: u64) -> Hash {
            root_of(&self.leaves[..size as usize])
        }
    }

    fn vectors() -> Whole {
        let leaf = |text: &str| leaf_hash(&HEXLOWER.decode(text.as_bytes()).unwrap());
        Whole::new(LEAVES.map(leaf))
    }

    #[test]
    fn the_known_trees_have_their_known_roots() {
        assert_eq!(Tree::default().root(), hash(ROOTS[0]));
        assert_eq!(empty_root(), hash(ROOTS[0]));
        let mut tree = Tree::default();
        for (leaf, root) in vectors().leaves.iter().zip(&ROOTS[1..]) {
            tree.push(*leaf);
            assert_eq!(tree.root(), hash(root));
        }
    }

    #[test]
    fn the_known_inclusion_proofs_are_made_and_verified() {
        let whole = vectors();
        for (index, size, path) in [
            (0, 1, vec![]),
            (0, 8, vec![H1, H23, H47]),
            (5, 8, vec![H4, H67, H03]),
            (2, 3, vec![H01]),
        ] {
            let proof = whole.inclusion(index, size);
            assert_eq!(proof.path, path.into_iter().map(hash).collect::<Vec<_>>());
            let (leaf, root) = (&whole.leaves[index as usize], hash(ROOTS[size as usize]));
            assert_eq!(proof.verify(leaf, size, &root), Ok(()));
        }
    }

    #[test]
    fn the_known_consistency_proofs_are_made_and_verified() {
        let whole = vectors();
        for (from, to, path) in [
            (1, 1, vec![]),
            (1, 8, vec![H1, H23, H47]),
            (6, 8, vec![H45, H67, H03]),
            (2, 5, vec![H23, H4]),
        ] {
            let proof = whole.consistency(from, to);
            assert_eq!(proof.path, path.into_iter().map(hash).collect::<Vec<_>>());
            let roots = (hash(ROOTS[from as usize]), hash(ROOTS[to as usize]));
            assert_eq!(proof.verify((from, &roots.0), (to, &roots.1)), Ok(()));
        }
    }

    #[test]
    fn every_proof_of_every_small_tree_holds() {
        let whole = Whole::numbered(70);
        for to in 0..=70 {
            for from in 0..=to {
                let proof = whole.consistency(from, to);
                let (earlier, later) = (whole.root(from), whole.root(to));
                assert_eq!(proof.verify((from, &earlier), (to, &later)), Ok(()), "{from} {to}");
            }
            for index in 0..to {
                let proof = whole.inclusion(index, to);
                let leaf = &whole.leaves[index as usize];
                assert_eq!(proof.verify(leaf, to, &whole.root(to)), Ok(()), "{index} {to}");
            }
        }
    }

    #[test]
    fn a_proof_for_the_wrong_place_is_refused_with_its_reason() {
        let whole = Whole::numbered(6);
        let (leaf, root) = (&whole.leaves[2], whole.root(6));
        let proof = whole.inclusion(2, 6);
        let checkpoint = ProofError::Size { proof: 6, checkpoint: 7 };
        assert_eq!(proof.verify(leaf, 7, &root), Err(checkpoint));
        let outside = InclusionProof { index: 6, ..proof.clone() };
        assert_eq!(outside.verify(leaf, 6, &root), Err(ProofError::Range { position: 6, size: 6 }));
        let empty = InclusionProof { index: 0, size: 0, path: vec![] };
        let nothing = ProofError::Range { position: 0, size: 0 };
        assert_eq!(empty.verify(leaf, 0, &empty_root()), Err(nothing));
        let backwards = ConsistencyProof { from: 6, to: 2, path: vec![] };
        let range = ProofError::Range { position: 6, size: 2 };
        assert_eq!(backwards.verify((6, &root), (2, &root)), Err(range));
        let largest = ConsistencyProof { from: u64::MAX - 1, to: u64::MAX, path: vec![root; 70] };
        assert!(largest.verify((u64::MAX - 1, &root), (u64::MAX, &root)).is_err());
        assert_eq!(proof.verify(&whole.leaves[3], 6, &root), Err(ProofError::Root));
    }

    /// Changes one thing about a list of hashes.
    fn mutate(path: &mut Vec<Hash>, kind: u8, at: usize, bit: usize) {
        match kind {
            0 => path.push(Hash::default()),
            1 => drop(path.pop()),
            2 if path.len() > 1 => path.rotate_left(1),
            3 => path.insert(at % (path.len() + 1), leaf_hash(b"inserted")),
            _ => {
                let at = at % path.len().max(1);
                if let Some(hash) = path.get_mut(at) {
                    hash[bit / 8 % 32] ^= 1 << (bit % 8);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn inclusion_proofs_hold_and_changed_ones_do_not(
            total in 1..2_000_u64,
            size in any::<prop::sample::Index>(),
            index in any::<prop::sample::Index>(),
            (kind, at, bit) in (0..5_u8, 0..12_usize, 0..256_usize),
        ) {
            let whole = Whole::numbered(total);
            prop_assert_eq!(whole.tree.root(), whole.root(total));
            let size = 1 + size.index(total as usize) as u64;
            let index = index.index(size as usize);
            let (leaf, root) = (whole.leaves[index], whole.root(size));
            let proof = whole.inclusion(index as u64, size);
            prop_assert_eq!(proof.verify(&leaf, size, &root), Ok(()));

            let mut changed = proof.clone();
            mutate(&mut changed.path, kind, at, bit);
            prop_assert_eq!(changed == proof, changed.verify(&leaf, size, &root).is_ok());
            let moved = InclusionProof { index: (index as u64 + 1) % size, ..proof.clone() };
            prop_assert_eq!(size == 1, moved.verify(&leaf, size, &root).is_ok());
            let (mut other_leaf, mut other_root) = (leaf, root);
            other_leaf[bit / 8] ^= 1 << (bit % 8);
            other_root[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(proof.verify(&other_leaf, size, &root).is_err());
            prop_assert!(proof.verify(&leaf, size, &other_root).is_err());
        }

        #[test]
        fn consistency_proofs_hold_and_changed_ones_do_not(
            total in 1..2_000_u64,
            to in any::<prop::sample::Index>(),
            from in any::<prop::sample::Index>(),
            (kind, at, bit) in (0..5_u8, 0..12_usize, 0..256_usize),
        ) {
            let whole = Whole::numbered(total);
            let to = 1 + to.index(total as usize) as u64;
            let from = from.index(to as usize + 1) as u64;
            let (earlier, later) = (whole.root(from), whole.root(to));
            let proof = whole.consistency(from, to);
            prop_assert_eq!(proof.verify((from, &earlier), (to, &later)), Ok(()));

            let mut changed = proof.clone();
            mutate(&mut changed.path, kind, at, bit);
            let holds = changed.verify((from, &earlier), (to, &later)).is_ok();
            prop_assert_eq!(changed == proof, holds);
            let (mut other_earlier, mut other_later) = (earlier, later);
            other_earlier[bit / 8] ^= 1 << (bit % 8);
            other_later[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(proof.verify((from, &other_earlier), (to, &later)).is_err());
            // Every tree begins with the empty one.
            prop_assert_eq!(from == 0, proof.verify((from, &earlier), (to, &other_later)).is_ok());
        }
    }
}
