//! Shares of equal two-bit hashes.

use palmgate_protocol::{CODE_BYTES, CODES_PER_TEMPLATE, Code};
use std::array::from_fn;
use zeroize::Zeroizing;

const HASHES: u32 = CODE_BYTES as u32 * 4;
const WORDS: usize = CODE_BYTES / 8;
/// Words that are worked on side by side: 256 bits, a whole number of vector registers.
const LANES: usize = 4;

type Lanes = [u64; LANES];

/// The largest share of equal hashes between any code of the probe and any code of the row.
pub(crate) fn best_share(probe: &[Code], row: &[Code; CODES_PER_TEMPLATE]) -> f32 {
    let row = Zeroizing::new(row.each_ref().map(words));
    let mut least = HASHES;
    for code in probe {
        let code = words(code);
        for reference in row.iter() {
            least = least.min(unequal(&code, reference));
        }
    }
    if probe.is_empty() { 0.0 } else { (HASHES - least) as f32 / HASHES as f32 }
}

fn words(code: &Code) -> [Lanes; WORDS / LANES] {
    let (bytes, _) = code.as_chunks::<8>();
    from_fn(|group| from_fn(|lane| u64::from_ne_bytes(bytes[group * LANES + lane])))
}

/// How many hashes differ. Counts of differing pairs are added up in ever wider fields (2, 4, 8
/// bits), which needs far fewer steps than a population count of every word.
fn unequal(a: &[Lanes; WORDS / LANES], b: &[Lanes; WORDS / LANES]) -> u32 {
    let differ = |group: usize| -> Lanes {
        from_fn(|lane| {
            let bits = a[group][lane] ^ b[group][lane];
            (bits | (bits >> 1)) & 0x5555_5555_5555_5555
        })
    };
    // At most 3 in a field of two bits, so at most 12 in four bits for the first six groups.
    let six = add(
        nibbles(add(add(differ(0), differ(1)), differ(2))),
        nibbles(add(add(differ(3), differ(4)), differ(5))),
    );
    let two = nibbles(add(differ(6), differ(7)));
    // At most 32 in each byte of a lane, 128 over the lanes.
    let sums = add(bytes(six), bytes(two));
    let total = sums.into_iter().fold(0_u64, u64::wrapping_add);
    let pairs = (total & 0x00ff_00ff_00ff_00ff).wrapping_add((total >> 8) & 0x00ff_00ff_00ff_00ff);
    (pairs.wrapping_mul(0x0001_0001_0001_0001) >> 48) as u32
}

fn add(a: Lanes, b: Lanes) -> Lanes {
    from_fn(|lane| a[lane].wrapping_add(b[lane]))
}

fn nibbles(pairs: Lanes) -> Lanes {
    const MASK: u64 = 0x3333_3333_3333_3333;
    pairs.map(|word| (word & MASK).wrapping_add((word >> 2) & MASK))
}

fn bytes(nibbles: Lanes) -> Lanes {
    const MASK: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    nibbles.map(|word| (word & MASK).wrapping_add((word >> 4) & MASK))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one_by_one(a: &Code, b: &Code) -> u32 {
        let hash = |code: &Code, i: usize| (code[i / 4] >> (2 * (i % 4))) & 3;
        (0..HASHES as usize).filter(|&i| hash(a, i) != hash(b, i)).count() as u32
    }

    #[test]
    fn every_count_from_none_to_all_is_exact() {
        let zeros = [0; CODE_BYTES];
        for differing in 0..=HASHES as usize {
            let mut code = zeros;
            for i in 0..differing {
                code[i / 4] |= (1 + (i % 3) as u8) << (2 * (i % 4));
            }
            assert_eq!(unequal(&words(&code), &words(&zeros)), differing as u32);
        }
    }

    proptest! {
        #[test]
        fn counts_are_those_of_a_look_at_each_hash(
            a in proptest::array::uniform32(any::<u64>()),
            b in proptest::array::uniform32(any::<u64>()),
            mask in any::<u64>(),
        ) {
            let code = |words: [u64; 32]| -> Code {
                from_fn(|i| words[i / 8].to_ne_bytes()[i % 8])
            };
            let (a, b) = (code(a), code(from_fn(|i| (a[i] & mask) | (b[i] & !mask))));
            prop_assert_eq!(unequal(&words(&a), &words(&b)), one_by_one(&a, &b));
        }
    }
}
