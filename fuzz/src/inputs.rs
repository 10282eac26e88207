//! Rates, windows and backends for any input.

use arbitrary::{Arbitrary, Result, Unstructured};
use sorix::kernels::backend::Backend;
use sorix::kernels::stream::TILE;
use sorix::kernels::{DropRate, MaskKey, MaskWindow, dispatch};

/// A rate, more often than not one at which something changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate(pub(crate) DropRate);

impl<'a> Arbitrary<'a> for Rate {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let bits: u32 = u.arbitrary()?;
        let p = match u.int_in_range(0..=7)? {
            0 => 0.0,
            1 => 1.0,
            2 => 0.5,
            3 => 0.1,
            4 => f64::from(bits % 257) / 256.0,
            5 => (-f64::from(bits % 80)).exp2(),
            6 => 1.0 - (-f64::from(bits % 60)).exp2(),
            _ => f64::from(bits) / f64::from(u32::MAX),
        };
        Ok(Self(DropRate::new(p).expect("all of these are in [0, 1]")))
    }
}

/// A window: from the first element, near a tile's edge, near the last index, or anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window(pub(crate) MaskWindow);

impl<'a> Arbitrary<'a> for Window {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let near = u64::from(u.arbitrary::<u16>()?);
        let first = match u.int_in_range(0..=4)? {
            0 => 0,
            1 => near,
            2 => (near % 8 + 1) * TILE as u64 - near / 8 % 600,
            3 => u64::MAX - near,
            _ => u.arbitrary()?,
        };
        let key = match u.int_in_range(0..=2)? {
            0 => MaskKey::new(0, near % 3),
            1 => MaskKey::new(u64::MAX, u64::MAX),
            _ => MaskKey::new(u.arbitrary()?, u.arbitrary()?),
        };
        Ok(Self(key.window(first)))
    }
}

/// One of the backends of this machine, the oracle among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnyBackend(pub(crate) &'static dyn Backend);

impl<'a> Arbitrary<'a> for AnyBackend {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(*u.choose(dispatch::available())?))
    }
}

/// A length: mostly short, at times longer than a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length(pub(crate) usize);

impl<'a> Arbitrary<'a> for Length {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let most = match u.int_in_range(0..=15)? {
            0..=10 => 200,
            11..=14 => 1200,
            _ => 2 * TILE + 2000,
        };
        Ok(Self(u.int_in_range(0..=most)?))
    }
}

/// Something that is true once in a while, and false where the bytes run out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rarely(pub(crate) bool);

impl<'a> Arbitrary<'a> for Rarely {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(Self(u.int_in_range(0..=31)? == 31))
    }
}

/// At most `most` things.
pub(crate) fn bounded<'a, T>(
    u: &mut Unstructured<'a>,
    most: usize,
    mut item: impl FnMut(&mut Unstructured<'a>) -> Result<T>,
) -> Result<Vec<T>> {
    (0..u.int_in_range(0..=most)?).map(|_| item(u)).collect()
}

/// Up to four axes, of up to some thousand elements together.
#[derive(Clone, Debug)]
pub(crate) struct Shape(pub(crate) Vec<usize>);

impl<'a> Arbitrary<'a> for Shape {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let mut left = 6000;
        bounded(u, 4, |u| {
            let len: usize = match u.int_in_range(0..=7)? {
                0..=3 => u.int_in_range(0..=8)?,
                4..=6 => u.int_in_range(0..=70)?,
                _ => u.int_in_range(0..=6000)?,
            };
            let len = len.min(left);
            left /= len.max(1);
            Ok(len)
        })
        .map(Self)
    }
}
