//! The gradients of dropout of `silu(gate) * up`.

use super::{Apply, Update};
use crate::buffers::Buffers;
use crate::element::Element;
use crate::error::LengthError;
use crate::function::Function;
use crate::mask::BitSlice;
use crate::pass::Pass;
use crate::rate::DropRate;

/// Elements that are done at a time: what lies between stays in the level 1 cache.
const CHUNK: usize = 1024;

/// From the gradient of the result make those of gate and up.
#[derive(Debug)]
pub(crate) struct SwigluBackward<'a, T> {
    rate: DropRate,
    // Invariant: all that there is of these is as long as the mask.
    pub(super) mask: BitSlice<'a>,
    pub(super) gate: &'a [T],
    pub(super) up: &'a [T],
    pub(super) dy: &'a [T],
    pub(super) d_gate: Option<&'a mut [T]>,
    pub(super) d_up: Option<&'a mut [T]>,
}

impl<'a, T: Element> SwigluBackward<'a, T> {
    pub(crate) fn new(
        rate: DropRate,
        mask: BitSlice<'a>,
        [gate, up, dy]: [&'a [T]; 3],
        d_gate: Option<&'a mut [T]>,
        d_up: Option<&'a mut [T]>,
    ) -> Result<Self, LengthError> {
        let len = gate.len();
        LengthError::check("up", len, up.len())?;
        LengthError::check("gradient", len, dy.len())?;
        LengthError::check("mask", len, mask.len())?;
        for (what, out) in [("gradient of gate", &d_gate), ("gradient of up", &d_up)] {
            let out = out.as_ref().map_or(len, |out| out.len());
            LengthError::check(what, len, out)?;
        }
        Ok(Self {
            rate,
            mask,
            gate,
            up,
            dy,
            d_gate,
            d_up,
        })
    }

    /// Where the gradients go.
    pub(crate) fn into_outputs(self) -> impl Iterator<Item = &'a mut [T]> {
        [self.d_gate, self.d_up].into_iter().flatten()
    }

    /// The first `mid` elements and the rest.
    pub(super) fn split_at(self, mid: usize) -> (Self, Self) {
        let halves = |all: &'a [T]| all.split_at(mid);
        let halves_mut = |all: Option<&'a mut [T]>| all.map(|all| all.split_at_mut(mid)).unzip();
        let ((mask, mask_after), (gate, gate_after)) = (self.mask.split_at(mid), halves(self.gate));
        let ((up, up_after), (dy, dy_after)) = (halves(self.up), halves(self.dy));
        let (d_gate, d_gate_after) = halves_mut(self.d_gate);
        let (d_up, d_up_after) = halves_mut(self.d_up);
        let rate = self.rate;
        (
            Self {
                rate,
                mask,
                gate,
                up,
                dy,
                d_gate,
                d_up,
            },
            Self {
                rate,
                mask: mask_after,
                gate: gate_after,
                up: up_after,
                dy: dy_after,
                d_gate: d_gate_after,
                d_up: d_up_after,
            },
        )
    }

    /// Does the job with passes over a chunk at a time: `apply_wide` in the type computed in, where the product
    /// of gradient and up is not rounded to 16 bits, in which it may overflow; `apply` over elements.
    pub(crate) fn compose(
        self,
        mut apply_wide: impl FnMut(Apply<'_, T::Scale>),
        mut apply: impl FnMut(Apply<'_, T>),
    ) {
        let derivative = Pass::map(Function::SiluDerivative, self.rate);
        let value = Pass::map(Function::Silu, self.rate);
        let mut rest = self;
        while !rest.gate.is_empty() {
            let n = rest.gate.len().min(CHUNK);
            let (now, later) = rest.split_at(n);
            rest = later;
            if let Some(d_gate) = now.d_gate {
                let [mut gate, mut factors] = [[T::Scale::ZERO; CHUNK]; 2];
                for (wide, gate) in gate.iter_mut().zip(now.gate) {
                    *wide = gate.widened();
                }
                for (factor, (dy, up)) in factors.iter_mut().zip(now.dy.iter().zip(now.up)) {
                    *factor = dy.widened() * up.widened();
                }
                let buffers = Buffers::in_place(&mut gate[..n]);
                apply_wide(by_bits(derivative, now.mask, buffers, &factors[..n]));
                for (d_gate, wide) in d_gate.iter_mut().zip(gate) {
                    *d_gate = T::narrow(wide);
                }
            }
            if let Some(d_up) = now.d_up {
                let buffers = Buffers::new(now.gate, d_up).expect("they are as long as the mask");
                apply(by_bits(value, now.mask, buffers, now.dy));
            }
        }
    }
}

/// A pass with factors beside its input, all as long as the mask.
fn by_bits<'a, T: Element>(
    pass: Pass<T>,
    mask: BitSlice<'a>,
    buffers: Buffers<'a, T>,
    factors: &'a [T],
) -> Apply<'a, T> {
    let buffers = buffers.with_elements(factors);
    let update = buffers.and_then(|buffers| Update::new(pass, buffers));
    let job = update.and_then(|update| Apply::new(mask, update));
    job.expect("all are as long as the mask")
}
