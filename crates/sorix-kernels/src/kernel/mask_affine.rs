//! `y = x * scale + shift` where a mask keeps, a constant elsewhere.
//!
//! Written over whole groups of 64 in plain Rust, which the compiler turns into vectors of the
//! instruction set that it is inlined into. The 16-bit types are widened and rounded a group at a
//! time.

use crate::element::Element;
use crate::job::MaskAffine;
use crate::kernel::elements::{Elements, Group, with_elements};
use crate::mask::WORD;
use crate::simd::{Fence, GROUP, Kernel, Simd};

impl<T: Element, S: Simd> Kernel<S> for MaskAffine<'_, T> {
    #[inline(always)]
    fn run(self, _: S) {
        let (mask, scale, shift, dropped) =
            (self.mask(), self.scale(), self.shift(), self.dropped());
        let f = |bits: u64, i: usize, x: T| {
            let y = x.times_plus(scale, shift);
            if bits >> i & 1 == 1 { y } else { dropped }
        };
        with_elements!(
            self.into_buffers(),
            None::<&Fence<S>>,
            |_write, elements| {
                let mut elements = elements;
                let whole = mask.len() / WORD;
                for (i, mut group) in elements.take(whole * WORD).groups().enumerate() {
                    let (bits, x) = (mask.word(i), *group.x());
                    let y: [T; GROUP] = core::array::from_fn(|i| f(bits, i, x[i]));
                    *group.y() = y;
                }
                if !mask.len().is_multiple_of(WORD) {
                    let bits = mask.word(whole);
                    elements.update(|i, x| f(bits, i, x));
                }
            }
        );
    }
}
