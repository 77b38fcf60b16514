//! A bounded number of seeded mutations for every decoder.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use palmgate_fuzz::{TARGETS, Target, mls_seeds};
use peak_alloc::PeakAlloc;
use std::{fs, path::Path};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const INPUTS: u64 = 100_000;
/// A picture is decoded whole, which is slower.
const PICTURES: u64 = 3_000;
/// What one input may take: the largest picture that is decoded, or the largest message several
/// times.
const MOST_MEMORY: usize = 96 * 1024 * 1024;
const LARGEST: usize = 256 * 1024;

/// The generator `SplitMix64`, so that a failing input can be found again.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % bound
    }

    fn mutate(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        for _ in 0..=self.below(5) {
            let at = self.below(input.len().max(1));
            match self.below(8) {
                0 if at < input.len() => input[at] ^= 1 << self.below(8),
                1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][self.below(6)],
                2 => input.truncate(at),
                3 => input.insert(at.min(input.len()), self.below(256) as u8),
                4 => input.extend_from_within(at.min(input.len())..),
                5 => drop(input.splice(..at.min(input.len()), [])),
                6 => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len().max(1)).min(other.len());
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
                // A length that promises more than there is.
                _ => input.splice(at..at, [0x9b, 0, 0, 0, 1, 0, 0, 0, 0]).for_each(drop),
            }
        }
        input.truncate(LARGEST);
    }

    /// Well-formed CBOR of any shape: what the derived decoders have to tell from messages.
    fn cbor(&mut self, depth: usize, out: &mut Vec<u8>) {
        let kinds = if depth == 0 { 5 } else { 7 };
        match self.below(kinds) {
            0 => out.push(self.below(24) as u8),
            1 => out.extend([0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            2 => {
                let length = [0, 1, 16, 32, 200][self.below(5)];
                out.extend([0x58, length]);
                out.extend((0..length).map(|at| at.wrapping_mul(31)));
            }
            3 => out.extend(b"\x66till-1"),
            4 => out.push([0xf4, 0xf5, 0xf6, 0xf7, 0xfa][self.below(5)]),
            kind => {
                let items = self.below(8) as u8;
                out.push(if kind == 5 { 0x80 | items } else { 0xa0 | items });
                for _ in 0..items * if kind == 5 { 1 } else { 2 } {
                    self.cbor(depth - 1, out);
                }
            }
        }
    }
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let mut files: Vec<_> = fs::read_dir(&corpus).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut seeds: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    if target.name == "mls" {
        seeds.extend(mls_seeds());
    }
    assert!(!seeds.is_empty(), "{} is empty", corpus.display());
    seeds
}

#[test]
fn no_decoder_panics_or_takes_more_memory_than_it_may() {
    for target in &TARGETS {
        let seeds = seeds(target);
        for seed in &seeds {
            (target.feed)(seed);
        }
        let inputs = if target.name == "picture" { PICTURES } else { INPUTS };
        let mut most = 0;
        for number in 0..inputs {
            let mut random = Seeded(number);
            let mut input = seeds[random.below(seeds.len())].clone();
            if number % 4 == 0 {
                input.clear();
                random.cbor(4, &mut input);
            }
            if number % 8 != 0 {
                random.mutate(&mut input, &seeds);
            }
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            (target.feed)(&input);
            let took = MEMORY.peak_usage().saturating_sub(before);
            assert!(took <= MOST_MEMORY, "{} takes {took} bytes, input {number}", target.name);
            most = most.max(took);
        }
        println!("{:<10} {inputs} inputs, at most {} KiB", target.name, most / 1024);
    }
}
