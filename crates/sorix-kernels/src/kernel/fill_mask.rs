//! The bits of a window of a mask.

use crate::job::FillMask;
use crate::kernel::tile::{Nothing, Rule, TileWords, make, spans};
use crate::simd::{Kernel, Simd};

impl<S: Simd> Kernel<S> for FillMask<'_> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (key, first, len) = (self.window().key, self.window().first, self.len());
        let rule = Rule::new(simd, self.rule());
        let mut out = self.into_out();
        let TileWords(scratch) = &mut TileWords::new();
        for span in spans(first, len) {
            if span.has_own_words() {
                make(
                    simd,
                    key,
                    &rule,
                    &span,
                    span.own_words(&mut out),
                    &mut Nothing,
                );
            } else {
                make(simd, key, &rule, &span, scratch, &mut Nothing);
                out.write(span.at, span.bits(scratch));
            }
        }
    }
}
