//! The gradients of activations with dropout, by any backend, against one element after another.
//!
//! Forward and what is made from a key is in [`kernels`](crate::kernels). A call that must be refused must leave its
//! outputs alone.

use arbitrary::Arbitrary;
use half::{bf16, f16};
use sorix::kernels::{Activation, BitMask, Buffers, DropRate, Element, Engine, Error, Function};

use crate::inputs::{AnyBackend, Length, Rate};
use crate::kernels::{Canaries, DType, Wrong, mapped};

#[derive(Arbitrary, Debug)]
struct Case {
    dtype: DType,
    backend: AnyBackend,
    rate: Rate,
    len: Length,
    what: What,
    misaligned: [u8; 2],
    streaming: bool,
    /// How many bits lie before the mask, and the mask, over and over.
    mask_start: u8,
    mask: u64,
    elements: u64,
    /// Which length is too long or too short; mostly by nothing.
    which: u8,
    wrong: Wrong,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum What {
    /// An activation, which one; a bias, a row of one element more than this; and whether over x.
    Activation(u8, Option<u8>, bool),
    /// Gate and up, and which of their gradients are wanted.
    Swiglu([bool; 2]),
}

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |case: Case| match case.dtype {
        DType::F32 => check::<f32>(&case),
        DType::F64 => check::<f64>(&case),
        DType::Bf16 => check::<bf16>(&case),
        DType::F16 => check::<f16>(&case),
    });
}

fn check<T: Element>(case: &Case) {
    let Length(right) = case.len;
    let len = |which: u8| match case.which % 6 == which {
        true => case.wrong.len(right),
        false => right,
    };
    let numbers = |which: u8, misaligned: u8| {
        let seed = case.elements.rotate_left(which.into());
        Canaries::<T>::new(len(which), misaligned, seed)
    };
    let start = usize::from(case.mask_start);
    let longer: BitMask = (0..start + len(0))
        .map(|i| case.mask >> (i % 64) & 1 == 1)
        .collect();
    let inputs = [1, 2, 3].map(|which| numbers(which, case.misaligned[0]));
    let mut outs = [4, 5].map(|which| numbers(which, case.misaligned[1]));
    let mut engine = Engine::new(case.backend.0);
    if case.streaming {
        engine = engine.streaming_above(0);
    }
    match case.what {
        What::Activation(which, bias, in_place) => {
            activation(
                case, engine, &longer, which, bias, in_place, &inputs, &mut outs,
            );
        }
        What::Swiglu(wanted) => swiglu(case, engine, &longer, wanted, &inputs, &mut outs),
    }
}

#[allow(clippy::too_many_arguments, reason = "what a case is made of")]
fn activation<T: Element>(
    case: &Case,
    engine: Engine<'_>,
    longer: &BitMask,
    which: u8,
    bias: Option<u8>,
    in_place: bool,
    [x, dy, _]: &[Canaries<T>; 3],
    [out, _]: &mut [Canaries<T>; 2],
) {
    let Rate(rate) = case.rate;
    let mask = longer.slice(usize::from(case.mask_start)..);
    let mask = mask.expect("the mask is as long");
    let activation = Activation::ALL[usize::from(which) % Activation::ALL.len()];
    let bias = bias.map(|bias| Canaries::<T>::new(1 + usize::from(bias), 0, !case.elements));
    if in_place {
        *out = x.clone();
    }
    let before = out.clone();
    let mut run = || -> Result<(), Error> {
        let mut buffers = match in_place {
            true => Buffers::in_place(out.inside_mut()),
            false => Buffers::new(x.inside(), out.inside_mut())?,
        };
        buffers = buffers.with_elements(dy.inside())?;
        if let Some(bias) = &bias {
            buffers = buffers.with_row(bias.inside())?;
        }
        engine.map_apply(activation.derivative(), rate, mask, buffers)
    };
    let result = run();
    let len = x.inside().len();
    let right = [dy.inside().len(), before.inside().len(), mask.len()] == [len; 3];
    assert_eq!(result.is_ok(), right, "{case:?}: {result:?}");
    let mut want = before;
    if right {
        for (i, want) in want.inside_mut().iter_mut().enumerate() {
            let keep = keeps(rate, mask.get(i));
            let bias = bias.as_ref().map(|bias| {
                let row = bias.inside();
                row[i % row.len()]
            });
            let (x, dy) = (x.inside()[i], Some(dy.inside()[i]));
            *want = mapped(activation.derivative(), rate, keep, x, bias, dy);
        }
    }
    assert!(out.same_but_nan(&want), "{case:?}: dx");
}

fn swiglu<T: Element>(
    case: &Case,
    engine: Engine<'_>,
    longer: &BitMask,
    wanted: [bool; 2],
    [gate, up, dy]: &[Canaries<T>; 3],
    outs: &mut [Canaries<T>; 2],
) {
    let Rate(rate) = case.rate;
    let mask = longer.slice(usize::from(case.mask_start)..);
    let mask = mask.expect("the mask is as long");
    let mut want = outs.clone();
    let [d_gate, d_up] = outs;
    let result = engine.swiglu_dropout_backward(
        rate,
        mask,
        gate.inside(),
        up.inside(),
        dy.inside(),
        wanted[0].then(|| d_gate.inside_mut()),
        wanted[1].then(|| d_up.inside_mut()),
    );
    let len = gate.inside().len();
    let outs_fit = (0..2).all(|i| !wanted[i] || want[i].inside().len() == len);
    let right = outs_fit && [up.inside().len(), dy.inside().len(), mask.len()] == [len; 3];
    assert_eq!(result.is_ok(), right, "{case:?}: {result:?}");
    let [want_gate, want_up] = &mut want;
    for i in 0..if right { len } else { 0 } {
        let keep = keeps(rate, mask.get(i));
        let (gate, up, dy) = (gate.inside()[i], up.inside()[i], dy.inside()[i]);
        if wanted[0] {
            // Rounded to 16 bits at the end alone: the product of gradient and up may overflow there.
            let factor = dy.widened() * up.widened();
            let (function, x) = (Function::SiluDerivative, gate.widened());
            let wide = mapped(function, rate, keep, x, None, Some(factor));
            want_gate.inside_mut()[i] = T::narrow(wide);
        }
        if wanted[1] {
            want_up.inside_mut()[i] = mapped(Function::Silu, rate, keep, gate, None, Some(dy));
        }
    }
    assert!(d_gate.same_but_nan(want_gate), "{case:?}: d_gate");
    assert!(d_up.same_but_nan(want_up), "{case:?}: d_up");
}

/// Whether a bit that is there keeps its element: at p = 1 none does.
fn keeps(rate: DropRate, bit: Option<bool>) -> bool {
    bit == Some(true) && rate.p() < 1.0
}
