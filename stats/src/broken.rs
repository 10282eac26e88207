//! The tests tested: masks that are deliberately wrong must fail, and those of sorix pass.

use sorix_kernels::{BitMask, DropRate, Error, MaskKey, MaskWindow};

use crate::plan::Plan;
use crate::report::Verdict;
use crate::stream::{BLOCK, Sorix, Source, TILE};

/// Few enough elements for a debug build.
fn plan() -> Plan {
    Plan {
        seed: 1,
        counted: 1 << 20,
        stream: 1 << 18,
        pair: 1 << 18,
        successive: 1 << 13,
    }
}

/// Masks of sorix, asked for something else than they should be, or changed afterwards.
struct Broken {
    name: &'static str,
    /// What must be among the failures.
    caught_by: &'static str,
    ask: fn(DropRate, MaskWindow) -> (DropRate, MaskWindow),
    change: fn(&mut [u64]),
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Source for Broken {
    fn fill(&self, rate: DropRate, at: MaskWindow, mask: &mut BitMask) -> Result<(), Error> {
        let (rate, at) = (self.ask)(rate, at);
        Sorix.fill(rate, at, mask)?;
        let len = mask.len();
        let mut words = std::mem::take(mask).into_words();
        (self.change)(&mut words);
        *mask = BitMask::from_words(words, len)?;
        Ok(())
    }
}

/// p rounded down to a multiple of 2^-`digits`, and not to 0.
fn quantised(rate: DropRate, digits: i32) -> DropRate {
    let steps = 2.0_f64.powi(digits);
    DropRate::new((rate.p() * steps).floor().max(1.0) / steps).expect("still a probability")
}

fn key(at: MaskWindow, seed: u64, offset: u64) -> MaskWindow {
    MaskKey::new(seed, offset).window(at.first)
}

const SOUND: Broken = Broken {
    name: "nothing wrong",
    caught_by: "",
    ask: |rate, at| (rate, at),
    change: |_| {},
};

/// Words of which about one bit in 64 is set, the same for every mask.
fn sparse(i: usize) -> u64 {
    1 << ((i as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58)
}

const BROKEN: [Broken; 17] = [
    Broken {
        name: "p in 8 bits, as FlashAttention has it",
        caught_by: "0.1, 2^20, ",
        ask: |rate, at| (quantised(rate, 8), at),
        ..SOUND
    },
    Broken {
        name: "p in nine digits",
        caught_by: "2^-30, 2^20, ",
        ask: |rate, at| (quantised(rate, 9), at),
        ..SOUND
    },
    Broken {
        name: "the offset does not matter",
        caught_by: "offset + 1: correlation",
        ask: |rate, at| (rate, key(at, at.key.seed, 0)),
        ..SOUND
    },
    Broken {
        name: "the seed does not matter",
        caught_by: "64 seeds: sum of correlations",
        ask: |rate, at| (rate, key(at, 0, at.key.offset)),
        ..SOUND
    },
    Broken {
        name: "the upper half of the offset does not matter",
        caught_by: "offset + 2^32: correlation",
        ask: |rate, at| (rate, key(at, at.key.seed, at.key.offset & 0xFFFF_FFFF)),
        ..SOUND
    },
    Broken {
        name: "seed and offset are added",
        caught_by: "seed + 1, offset - 1: correlation",
        ask: |rate, at| (rate, key(at, at.key.seed.wrapping_add(at.key.offset), 0)),
        ..SOUND
    },
    Broken {
        name: "the next offset goes on a block further",
        caught_by: "0.1, kept by position in the tile",
        ask: |rate, at| {
            let first = at.first.wrapping_add(at.key.offset % 4096 * BLOCK);
            (
                rate,
                MaskKey::new(at.key.seed, 0).window(first % (4 * TILE)),
            )
        },
        ..SOUND
    },
    Broken {
        name: "the index of an element has 32 bits",
        caught_by: "2^32 elements on: correlation",
        ask: |rate, at| (rate, at.key.window(at.first % (1 << 32))),
        ..SOUND
    },
    Broken {
        name: "one element in 64 repeats the one 8 before it",
        caught_by: "0.1, lag 8, along elements",
        change: |words| {
            for (i, word) in words.iter_mut().enumerate() {
                *word = *word & !sparse(i) | *word << 8 & sparse(i);
            }
        },
        ..SOUND
    },
    Broken {
        name: "the last lane of a block repeats the first",
        caught_by: "8 at distance 64 jointly",
        change: |words| {
            words
                .chunks_exact_mut(8)
                .for_each(|block| block[7] = block[0])
        },
        ..SOUND
    },
    Broken {
        name: "element 200 of a block is kept too often",
        caught_by: "kept by position in the block",
        change: |words| {
            for (i, block) in words.chunks_exact_mut(8).enumerate() {
                block[3] |= u64::from(i % 4 == 0) << 8;
            }
        },
        ..SOUND
    },
    Broken {
        name: "half of a block is the complement of the other",
        caught_by: "0.5, kept in a block",
        change: |words| {
            for block in words.chunks_exact_mut(8) {
                let (first, second) = block.split_at_mut(4);
                for (a, b) in first.iter().zip(second) {
                    *b = !a;
                }
            }
        },
        ..SOUND
    },
    Broken {
        name: "of three elements kept, the first of the nibble is never one",
        caught_by: "0.1, 4 of a nibble jointly, along elements",
        change: |words| {
            for (i, word) in words.iter_mut().enumerate() {
                // In one nibble of sixteen.
                let at = 4 * (i % 16);
                if (*word >> at & 15).count_ones() == 3 {
                    *word = *word & !(15 << at) | 0b1110 << at;
                }
            }
        },
        ..SOUND
    },
    Broken {
        name: "the fifth nibble of a lane has a law of its own",
        caught_by: "0.5, 4 of a nibble jointly, by position in the block, along elements",
        change: |words| {
            for word in words {
                // Every element is kept as often as before.
                let changed = match *word >> 16 & 15 {
                    0b0011 => 0b0101,
                    0b1100 => 0b1010,
                    other => other,
                };
                *word = *word & !(15 << 16) | changed << 16;
            }
        },
        ..SOUND
    },
    Broken {
        name: "the upper nibble of the first byte repeats in the second byte",
        caught_by: "0.1, 8 across bytes jointly, along elements",
        change: |words| {
            for word in words {
                *word = *word & !0xF00 | *word << 4 & 0xF00;
            }
        },
        ..SOUND
    },
    Broken {
        name: "a lane begins as the one before it ends",
        caught_by: "0.1, neighbours across lanes, along elements",
        change: |words| {
            for block in words.chunks_exact_mut(8) {
                for lane in 1..8 {
                    block[lane] = block[lane] & !1 | block[lane - 1] >> 63;
                }
            }
        },
        ..SOUND
    },
    Broken {
        name: "a drop makes the next element be kept",
        caught_by: "runs of dropped",
        change: |words| {
            for word in words {
                *word |= !*word << 1 & 0x1111_1111_1111_1111 << 1;
            }
        },
        ..SOUND
    },
];

#[test]
fn sound_masks_pass() {
    let verdict = Verdict::over(&plan().run(&SOUND).unwrap());
    assert_eq!(verdict.failures, [""; 0]);
    assert!(verdict.tests > 300, "{} tests", verdict.tests);
}

#[test]
fn every_defect_is_caught_by_the_test_that_is_there_for_it() {
    for broken in &BROKEN {
        let verdict = Verdict::over(&plan().run(broken).unwrap());
        let caught = verdict
            .failures
            .iter()
            .any(|failure| failure.contains(broken.caught_by));
        assert!(caught, "{broken:?}: {:#?}", verdict.failures);
    }
}
