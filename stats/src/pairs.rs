//! Masks of different names say nothing about each other.

use sorix_kernels::{BitMask, DropRate, Error, MaskKey, MaskWindow};

use crate::finding::Finding;
use crate::joint::Joint;
use crate::keep::keep_probability;
use crate::law;
use crate::stream::{Along, CHUNK, Source, TILE};

/// Two windows to compare, given the key of the first.
type Partner = fn(MaskKey) -> MaskWindow;

/// The partners of the mask of (seed, offset): the nearest, those that differ in one high bit, and
/// those that a careless mix of the two numbers would confuse with it.
const PARTNERS: [(&str, Partner); 10] = [
    ("offset + 1", |k| MaskKey::new(k.seed, k.offset + 1).into()),
    ("seed + 1", |k| MaskKey::new(k.seed + 1, k.offset).into()),
    ("offset + 2^32", |k| {
        MaskKey::new(k.seed, k.offset + (1 << 32)).into()
    }),
    ("seed + 2^32", |k| {
        MaskKey::new(k.seed + (1 << 32), k.offset).into()
    }),
    ("offset + 2^63", |k| {
        MaskKey::new(k.seed, k.offset ^ 1 << 63).into()
    }),
    ("seed + 2^63", |k| {
        MaskKey::new(k.seed ^ 1 << 63, k.offset).into()
    }),
    ("seed and offset swapped", |k| {
        MaskKey::new(k.offset, k.seed).into()
    }),
    ("seed + 1, offset - 1", |k| {
        MaskKey::new(k.seed + 1, k.offset - 1).into()
    }),
    ("2^32 elements on", |k| k.window(1 << 32)),
    ("2^60 elements on", |k| k.window(1 << 60)),
];

/// Compares the mask of `key` with those of ten other names, element by element: the correlation, and
/// the four joint outcomes.
///
/// # Errors
///
/// As [`Source::fill`].
pub fn partners(
    source: &dyn Source,
    rate: DropRate,
    key: MaskKey,
    elements: u64,
) -> Result<Vec<Finding>, Error> {
    let keep = keep_probability(rate);
    let mut joint = [Joint::default(); PARTNERS.len()];
    for first in (0..elements).step_by(CHUNK as usize) {
        let len = CHUNK.min(elements - first) as usize;
        let (mut mask, mut other) = (BitMask::new(len), BitMask::new(len));
        source.fill(rate, key.window(first), &mut mask)?;
        for (joint, (_, partner)) in joint.iter_mut().zip(PARTNERS) {
            let at = partner(key).advance(first as usize)?;
            source.fill(rate, at, &mut other)?;
            for (&a, &b) in mask.words().iter().zip(other.words()) {
                joint.look(a, b);
            }
        }
    }
    let mut findings = Vec::new();
    for (joint, (name, _)) in joint.iter().zip(PARTNERS) {
        let correlation = law::normal(joint.z(keep));
        findings.push(Finding::new(format!("{name}: correlation"), correlation));
        if let Some(p_value) = joint.goodness_of_fit(keep) {
            findings.push(Finding::new(format!("{name}: joint counts"), p_value));
        }
    }
    Ok(findings)
}

/// Masks compared each with each.
const MASKS: u64 = 64;

/// Compares 64 successive masks, or tiles, each with each: the sum of the squared correlations, and
/// the largest one.
///
/// # Errors
///
/// As [`Source::fill`].
pub fn successive(
    source: &dyn Source,
    rate: DropRate,
    key: MaskKey,
    along: Along,
    elements: u64,
) -> Result<Vec<Finding>, Error> {
    let keep = keep_probability(rate);
    let mask = |index: u64| -> Result<Vec<u64>, Error> {
        let MaskKey { seed, offset } = key;
        let key = match along {
            Along::Elements | Along::Tiles => return tiles(source, rate, key, index, elements),
            Along::Offsets => MaskKey::new(seed, offset.wrapping_add(index)),
            Along::Seeds => MaskKey::new(seed.wrapping_add(index), offset),
        };
        let mut mask = BitMask::new(elements as usize);
        source.fill(rate, key.into(), &mut mask)?;
        Ok(mask.into_words())
    };
    let masks = (0..MASKS).map(mask).collect::<Result<Vec<_>, _>>()?;
    let mut squares = Vec::new();
    for (i, first) in masks.iter().enumerate() {
        for second in &masks[..i] {
            let mut joint = Joint::default();
            for (&a, &b) in first.iter().zip(second) {
                joint.look(a, b);
            }
            squares.push(joint.z(keep).powi(2));
        }
    }
    let largest = squares.iter().copied().fold(0.0, f64::max).sqrt();
    let pairs = squares.len() as f64;
    Ok(vec![
        Finding::new(
            format!("64 {along}: sum of correlations"),
            law::chi_square(squares.iter().sum(), pairs),
        ),
        Finding::new(
            format!("64 {along}: largest correlation"),
            (pairs * law::normal(largest)).min(1.0),
        ),
    ])
}

/// Tiles number `index`, `index + 64`, `index + 128` and so on of one mask.
fn tiles(
    source: &dyn Source,
    rate: DropRate,
    key: MaskKey,
    index: u64,
    elements: u64,
) -> Result<Vec<u64>, Error> {
    let mut words = Vec::new();
    let mut tile = BitMask::new(TILE as usize);
    for round in 0..elements / TILE {
        let first = (round * MASKS + index) * TILE;
        source.fill(rate, key.window(first), &mut tile)?;
        words.extend(tile.words());
    }
    Ok(words)
}
