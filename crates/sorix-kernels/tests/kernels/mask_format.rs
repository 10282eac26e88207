//! Mask format v1 against its published vectors, and the generators against those of their authors.

use core::num::NonZeroU64;

use rand_core::{Rng, SeedableRng};
use sorix_kernels::backend::Backend;
use sorix_kernels::internal::philox4x32;
use sorix_kernels::stream::{AliasTable, LANES, Law, TILE, TileStream};
use sorix_kernels::{BitMask, DropRate, Engine, Keep, MaskKey, dispatch};

use crate::common::for_each_backend;

/// The fields of each line of a file of vectors, whose first line names them.
fn lines<const FIELDS: usize>(
    file: &'static str,
    header: &str,
    count: usize,
) -> Vec<[&'static str; FIELDS]> {
    let mut lines = file.lines();
    assert_eq!(lines.next(), Some(header));
    let fields = |line: &'static str| line.split(',').collect::<Vec<_>>().try_into();
    let lines: Vec<_> = lines.map(|line| fields(line).expect(line)).collect();
    assert_eq!(lines.len(), count);
    lines
}

/// 64-bit words of 16 hexadecimal digits each.
fn words(hex: &str) -> Vec<u64> {
    let word = |digits| u64::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(16).map(word).collect()
}

/// One line of `mask-format-v1.csv`.
struct Vector {
    key: MaskKey,
    rate: DropRate,
    first: u64,
    mask: BitMask,
}

fn vectors() -> Vec<Vector> {
    let file = include_str!("../data/mask-format-v1.csv");
    let parse = |[seed, offset, p, first, length, hex]: [&str; 6]| {
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        Vector {
            key: MaskKey::new(seed.parse().unwrap(), offset.parse().unwrap()),
            rate: DropRate::new(p.parse().unwrap()).unwrap(),
            first: first.parse().unwrap(),
            mask: BitMask::from_bytes(&bytes, length.parse().unwrap()).unwrap(),
        }
    };
    lines(file, "seed,offset,p,first,length,bytes", 226)
        .into_iter()
        .map(parse)
        .collect()
}

fn reproduces_the_vectors(backend: &'static dyn Backend) {
    for (i, vector) in vectors().iter().enumerate() {
        let mut made = BitMask::new(vector.mask.len());
        Engine::new(backend)
            .fill_mask(vector.rate, vector.key.window(vector.first), &mut made)
            .unwrap();
        let (name, line) = (backend.name(), i + 2);
        assert_eq!(made.words(), vector.mask.words(), "line {line}, {name}");
    }
}

#[test]
fn the_reference_reproduces_the_vectors() {
    reproduces_the_vectors(dispatch::by_name("reference").unwrap());
}

#[test]
fn every_backend_reproduces_the_vectors() {
    for_each_backend(|engine| reproduces_the_vectors(engine.backend()));
}

#[test]
fn thresholds_and_tables_are_those_of_the_vectors() {
    let file = include_str!("../data/mask-format-v1-laws.csv");
    for [p, expected, draws, limits, aliases] in lines(file, "p,T,draws,limits,aliases", 40) {
        let rate = DropRate::new(p.parse().unwrap()).unwrap();
        let (threshold, law) = match rate.keep() {
            Keep::Nothing => (0, None),
            Keep::By(rule) => {
                let threshold = rule.threshold();
                (threshold.get().into(), Some(Law::new(threshold)))
            }
            Keep::Everything => (1_u128 << 64, None),
        };
        assert_eq!(threshold.to_string(), expected, "p = {p}");
        let made = law.as_ref().map_or(0, Law::draws);
        assert_eq!(made.to_string(), draws, "p = {p}");
        let table = law.as_ref().and_then(Law::table);
        let (limit, alias) = table.map_or((&[][..], &[][..]), |AliasTable { limit, alias }| {
            (&limit[..], &alias[..])
        });
        assert_eq!(limit, words(limits), "p = {p}");
        let digit = |&alias: &u8| char::from_digit(alias.into(), 16).unwrap();
        assert_eq!(
            alias.iter().map(digit).collect::<String>(),
            aliases,
            "p = {p}"
        );
    }
}

#[test]
fn blocks_of_given_draws_are_those_of_the_vectors() {
    let file = include_str!("../data/mask-format-v1-blocks.csv");
    for (i, [threshold, draws, block]) in lines(file, "T,draws,words", 40).into_iter().enumerate() {
        let draws = words(draws);
        let (draws, []) = draws.as_chunks::<LANES>() else {
            panic!("line {}", i + 2)
        };
        let law = Law::new(threshold.parse::<NonZeroU64>().unwrap());
        let mut left = draws.iter();
        let made = law.block(|| *left.next().expect("a draw is left"));
        assert_eq!(made.as_slice(), words(block), "line {}", i + 2);
        assert_eq!(left.len(), 0, "line {}", i + 2);
    }
}

#[test]
fn philox_matches_random123() {
    // From `kat_vectors` of Random123.
    let ones = u64::MAX;
    assert_eq!(
        philox4x32([0, 0], 0),
        [0xe169c58d_6627e8d5, 0x9b00dbd8_bc57ac4c]
    );
    assert_eq!(
        philox4x32([ones, ones], ones),
        [0x41c83b0e_408f276d, 0x6d5451fd_a20bc7c6]
    );
    assert_eq!(
        philox4x32(
            [0x85a308d3_243f6a88, 0x03707344_13198a2e],
            0x299f31d0_a4093822
        ),
        [0x94fdcceb_d16cfe09, 0x24126ea1_5001e420]
    );
}

#[test]
fn xoshiro_matches_its_reference() {
    // The first outputs of the authors' C code from state 1, 2, 3, 4.
    let mut state = [0; 32];
    for (bytes, word) in state.chunks_exact_mut(8).zip(1_u64..) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut generator = rand_xoshiro::Xoshiro256PlusPlus::from_seed(state);
    let expected: [u64; 5] = [
        41_943_041,
        58_720_359,
        3_588_806_011_781_223,
        3_591_011_842_654_386,
        9_228_616_714_210_784_205,
    ];
    assert_eq!(expected.map(|_| generator.next_u64()), expected);
}

#[test]
fn keys_that_differ_give_other_masks() {
    let bits = |key: MaskKey, first| {
        let mut mask = BitMask::new(512);
        let rate = DropRate::new(0.5).unwrap();
        Engine::active()
            .unwrap()
            .fill_mask(rate, key.window(first), &mut mask)
            .unwrap();
        mask
    };
    let masks: std::collections::HashSet<BitMask> =
        [(0, 0), (1, 0), (0, 1), (1 << 32, 0), (0, 1 << 32)]
            .into_iter()
            .flat_map(|(seed, offset)| {
                [0, TILE, TILE << 32].map(|first| bits(MaskKey::new(seed, offset), first as u64))
            })
            .collect();
    assert_eq!(masks.len(), 15);
}

#[test]
fn tile_numbers_beyond_any_mask_begin_again() {
    let draw = |tile| TileStream::new(MaskKey::new(1, 2), tile).draw();
    assert_eq!(draw(1 << 60), draw(0));
    assert_eq!(draw(u64::MAX), draw((1 << 60) - 1));
    assert_ne!(draw(1), draw(0));
}
