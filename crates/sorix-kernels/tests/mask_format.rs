//! Mask format v1 against its published vectors, and the generators against those of their authors.

use rand_core::{Rng, SeedableRng};
use sorix_kernels::stream::{TileStream, philox4x32};
use sorix_kernels::{BitMask, DropRate, Engine, MaskKey, dispatch};

/// One line of `mask-format-v1.csv`.
struct Vector {
    key: MaskKey,
    rate: DropRate,
    first: u64,
    mask: BitMask,
}

fn vectors() -> Vec<Vector> {
    let parse = |line: &str| {
        let fields: Vec<_> = line.split(',').collect();
        let [seed, offset, p, first, length, hex] = fields[..] else {
            panic!("{line}")
        };
        let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        Vector {
            key: MaskKey::new(seed.parse().unwrap(), offset.parse().unwrap()),
            rate: DropRate::new(p.parse().unwrap()).unwrap(),
            first: first.parse().unwrap(),
            mask: BitMask::from_bytes(&bytes, length.parse().unwrap()).unwrap(),
        }
    };
    let vectors: Vec<_> = include_str!("data/mask-format-v1.csv")
        .lines()
        .skip(1)
        .map(parse)
        .collect();
    assert_eq!(vectors.len(), 57);
    vectors
}

#[test]
fn every_backend_reproduces_the_vectors() {
    for &backend in dispatch::available() {
        println!("backend {}", backend.name());
        for (
            i,
            Vector {
                key,
                rate,
                first,
                mask,
            },
        ) in vectors().iter().enumerate()
        {
            let mut made = BitMask::new(mask.len());
            Engine::new(backend)
                .fill_mask(*rate, key.window(*first), &mut made)
                .unwrap();
            assert_eq!(
                made.words(),
                mask.words(),
                "vector {i}, backend {}",
                backend.name()
            );
        }
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
                [0, 8192, 8192 << 32].map(|first| bits(MaskKey::new(seed, offset), first))
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
