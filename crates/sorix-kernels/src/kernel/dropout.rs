//! Forward and replay: the bits of a mask, and a pass over elements by them.
//!
//! Making the bits is bound by the generator's instructions and their latency, applying them by the
//! memory system, so the two are done at the same time: before each block, the elements of one that was
//! made before are done, and the processor, which looks some hundred instructions ahead, does both.
//!
//! Each pass that is done so has the making of bits compiled into it, for each dtype and instruction set, and for
//! elements in place, out of place and streamed. That is a third of a megabyte a pass, so passes with a
//! row, and those that decide by the elements, too, do without, and so does the portable instruction set: see
//! `SimdBackend`.

use crate::element::Element;
use crate::job::{Dropout, Update};
use crate::keep::KeepRule;
use crate::kernel::apply::Applying;
use crate::kernel::arithmetic::{Arithmetic, Compute, ReadBeside};
use crate::kernel::elements::{Elements, Write, with_elements};
use crate::kernel::tile::{Rule, TileWords, make, spans};
use crate::key::MaskWindow;
use crate::mask::BitSliceMut;
use crate::simd::{Fence, Kernel, Lanes, Simd};

impl<T: Element, S: Simd + Lanes<T>> Kernel<S> for Dropout<'_, T> {
    #[inline(always)]
    fn run(self, simd: S) {
        let (window, rule) = (self.window(), self.rule());
        let (update, out) = self.into_parts();
        let (pass, beside) = (update.pass(), update.beside());
        let compute = MakeAndApply {
            simd,
            window,
            rule,
            update,
            out,
        };
        pass.compute(simd, beside, compute);
    }
}

struct MakeAndApply<'a, T: Element, S> {
    simd: S,
    window: MaskWindow,
    rule: &'a KeepRule,
    update: Update<'a, T>,
    out: Option<BitSliceMut<'a>>,
}

impl<T: Element, S: Simd + Lanes<T>> Compute<T, S> for MakeAndApply<'_, T, S> {
    #[inline(always)]
    fn with<A: Arithmetic<T, S>>(self, arithmetic: A, beside: A::Beside) {
        if A::DECIDES || A::Beside::HAS_ROW {
            unreachable!("passes that are not interleaved are composed");
        }
        let Self {
            simd,
            window,
            rule,
            update,
            out,
        } = self;
        let fence = update.is_streaming().then(|| Fence::after(simd));
        with_elements!(update.into_buffers(), &fence, |write, elements| {
            dropout(simd, write, arithmetic, window, rule, elements, beside, out);
        });
    }
}

/// The kernel for elements that are read from one place and written to another, or rewritten.
#[inline(always)]
#[allow(
    clippy::too_many_arguments,
    reason = "what the job holds, taken apart so that the loop asks nothing"
)]
fn dropout<T: Element, S: Simd + Lanes<T>, A: Arithmetic<T, S>>(
    simd: S,
    write: impl Write<T, S>,
    arithmetic: A,
    window: MaskWindow,
    rule: &KeepRule,
    mut elements: impl Elements<T>,
    mut beside: A::Beside,
    mut out: Option<BitSliceMut<'_>>,
) {
    let rule = Rule::new(simd, rule);
    let (mut scratch, mut moved) = (TileWords::new(), None);
    for span in spans(window.first, elements.y().len()) {
        let now = (elements.take(span.len()), beside.take(span.len()));
        let mut applying = Applying::new(
            simd, write, arithmetic, now.0, now.1, span.begin, &mut moved,
        );
        let (blocks, copy) = match &mut out {
            Some(out) if span.has_own_words() => (span.own_words(out), false),
            out => (&mut scratch.0[..], out.is_some()),
        };
        make(simd, window.key, &rule, &span, blocks, &mut applying);
        applying.finish(blocks.as_flattened());
        if let Some(out) = &mut out
            && copy
        {
            out.write(span.at, span.bits(&scratch.0));
        }
    }
}
