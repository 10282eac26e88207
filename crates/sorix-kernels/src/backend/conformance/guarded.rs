//! Outputs with memory around them, and what inputs are made of.

use half::{bf16, f16};

use super::Difference;
use crate::element::Element;
use crate::mask::{BitMask, BitSliceMut};

/// An output with memory around it that a kernel must leave alone.
pub(super) struct Guarded<T> {
    memory: Vec<T>,
    begin: usize,
    len: usize,
}

impl<T: Sample> Guarded<T> {
    /// Elements that begin `misaligned` bytes after a multiple of 64.
    pub(super) fn new(len: usize, misaligned: usize) -> Self {
        let line = 64 / size_of::<T>();
        let memory = vec![T::sample(1); len + 4 * line];
        let to_line = (64 - memory.as_ptr().addr() % 64) % 64;
        let begin = line + (to_line + misaligned) / size_of::<T>();
        Self { memory, begin, len }
    }

    pub(super) fn slice(&mut self) -> &mut [T] {
        &mut self.memory[self.begin..][..self.len]
    }

    /// Compares by bits; but if `any_nan`, one NaN is as good as another.
    pub(super) fn compare(mut self, want: &[T], any_nan: bool) -> Result<(), Difference> {
        for (index, (got, want)) in self.slice().iter().zip(want).enumerate() {
            #[allow(clippy::eq_op, reason = "a NaN is what is not equal to itself")]
            let both_nan = got != got && want != want;
            let (expected, got) = (want.bits(), got.bits());
            if got != expected && !(any_nan && both_nan) {
                return Err(Difference::Element {
                    index,
                    expected,
                    got,
                });
            }
        }
        let (before, rest) = self.memory.split_at(self.begin);
        let mut around = before.iter().chain(&rest[self.len..]);
        let canary = T::sample(1).bits();
        if around.any(|x| x.bits() != canary) {
            return Err(Difference::OutOfBounds);
        }
        Ok(())
    }
}

/// The same for a mask, whose words hold arbitrary bits beforehand.
pub(super) struct GuardedBits {
    words: Vec<u64>,
    len: usize,
}

impl GuardedBits {
    const AROUND: usize = 8;
    const CANARY: u64 = 0xA5A5_5A5A_C3C3_3C3C;

    pub(super) fn new(len: usize) -> Self {
        Self {
            words: vec![Self::CANARY; len.div_ceil(64) + 2 * Self::AROUND],
            len,
        }
    }

    pub(super) fn slice(&mut self) -> BitSliceMut<'_> {
        let end = self.words.len() - Self::AROUND;
        BitSliceMut::new(&mut self.words[Self::AROUND..end], self.len)
            .expect("as many words as the bits need")
    }

    pub(super) fn compare(mut self, want: &BitMask) -> Result<(), Difference> {
        let got = self.slice();
        let differs = got
            .as_slice()
            .iter()
            .zip(want)
            .position(|(got, want)| got != want);
        if let Some(index) = differs {
            let expected = want.get(index) == Some(true);
            return Err(Difference::Bit { index, expected });
        }
        let end = self.words.len() - Self::AROUND;
        let mut around = self.words[..Self::AROUND].iter().chain(&self.words[end..]);
        if around.any(|&word| word != Self::CANARY) {
            return Err(Difference::OutOfBounds);
        }
        Ok(())
    }
}

/// Values that multiplication and rounding treat in every way there is.
pub(super) trait Sample: Element {
    fn from_f64(x: f64) -> Self;

    fn bits(self) -> u64 {
        let mut bits = [0; 8];
        bits[..size_of::<Self>()].copy_from_slice(bytemuck::bytes_of(&self));
        u64::from_ne_bytes(bits)
    }

    /// Special values every third time, else bits at random, which makes NaNs of all kinds.
    fn sample(i: usize) -> Self {
        const SPECIAL: [f64; 16] = [
            1.0,
            -1.0,
            0.0,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e-40,
            -6e-8,
            65504.0,
            3.0e38,
            1e-310,
            1.5,
            -0.1,
            5.960_464_477_539_063e-8,
            1.797e308,
        ];
        if i.is_multiple_of(3) {
            return Self::from_f64(SPECIAL[i / 3 % SPECIAL.len()]);
        }
        let hash = (i as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
        bytemuck::pod_read_unaligned(&hash.to_ne_bytes()[..size_of::<Self>()])
    }
}

impl Sample for f32 {
    fn from_f64(x: f64) -> Self {
        x as f32
    }
}

impl Sample for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
}

impl Sample for bf16 {
    fn from_f64(x: f64) -> Self {
        bf16::from_f64(x)
    }
}

impl Sample for f16 {
    fn from_f64(x: f64) -> Self {
        f16::from_f64(x)
    }
}
