//! Any kernel, by any backend, against the oracle.
//!
//! What is expected comes from [`sorix::kernels::backend::reference`] and from the meaning of p = 0 and
//! p = 1 alone, not from the engine under test. Outputs lie among canaries. A call that must be
//! refused must leave them and the mask alone.

use arbitrary::Arbitrary;
use half::{bf16, f16};
use sorix::kernels::backend::job::FillMask;
use sorix::kernels::backend::{BitSliceMut, reference};
use sorix::kernels::{
    Activation, BitMask, Buffers, DropRate, Element, Engine, Error, Function, Keep, MaskWindow,
};

use crate::inputs::{AnyBackend, Length, Rate, Window};

/// One call.
#[derive(Arbitrary, Debug)]
struct Case {
    method: Method,
    dtype: DType,
    backend: AnyBackend,
    rate: Rate,
    window: Window,
    len: Length,
    /// Where input and output begin, in bytes after a multiple of 64.
    misaligned: [u8; 2],
    in_place: bool,
    streaming: bool,
    /// How many bits lie before the mask that `apply` is given.
    mask_start: u8,
    /// The mask that `apply` is given, over and over.
    mask: u64,
    /// By how much the mask, and then the output, is too long or too short; mostly by nothing.
    wrong: [Wrong; 2],
    /// Which elements.
    elements: u64,
    /// What stands beside dropout in `Forward` and `Replay`. Last, so that in seeds what comes before means what
    /// it meant.
    fused: Fused,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Fused {
    Nothing,
    /// A residual; and a bias, a row of one element more than this.
    Add(Option<u8>),
    /// The rectifier; and such a bias.
    Relu(Option<u8>),
    /// A function, which one; factors; and such a bias.
    Map(u8, bool, Option<u8>),
}

impl Fused {
    fn has_elements(self) -> bool {
        matches!(self, Self::Add(_) | Self::Map(_, true, _))
    }

    fn row(self) -> Option<usize> {
        match self {
            Self::Add(Some(row)) | Self::Relu(Some(row)) | Self::Map(_, _, Some(row)) => {
                Some(1 + usize::from(row))
            }
            _ => None,
        }
    }
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Method {
    FillMask,
    Forward,
    Replay,
    Apply,
    /// What `Apply` is, of a gradient; a method of its own so that the seeds mean what they meant.
    Backward,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum DType {
    F32,
    F64,
    Bf16,
    F16,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Wrong {
    No,
    Not,
    Neither,
    By(i8),
}

impl Wrong {
    pub(crate) fn len(self, len: usize) -> usize {
        match self {
            Self::By(by) => len.saturating_add_signed(by.into()),
            _ => len,
        }
    }
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
    let Case {
        backend: AnyBackend(backend),
        rate: Rate(rate),
        window: Window(window),
        len: Length(len),
        ..
    } = *case;
    let mut engine = Engine::new(backend);
    if case.streaming {
        engine = engine.streaming_above(0);
    }

    let mask_len = case.wrong[0].len(len);
    let given = matches!(case.method, Method::Apply | Method::Backward);
    let start = usize::from(case.mask_start);
    let longer: BitMask = (0..start + mask_len)
        .map(|i| case.mask >> (i % 64) & 1 == 1)
        .collect();
    let given_mask = longer.slice(start..).expect("the mask is as long");

    let x = Canaries::<T>::new(len, case.misaligned[0], case.elements);
    let out_len = if case.in_place {
        len
    } else {
        case.wrong[1].len(len)
    };
    let mut y = Canaries::<T>::new(out_len, case.misaligned[1], case.elements);
    let mut mask = longer.slice(start..).expect("as above").iter().collect();
    let before = (y.clone(), BitMask::clone(&mask));
    let makes = matches!(case.method, Method::Forward | Method::Replay);
    let fused = if makes { case.fused } else { Fused::Nothing };
    let second = Canaries::<T>::new(out_len, 0, !case.elements);
    let row = fused
        .row()
        .map(|len| Canaries::<T>::new(len, 0, case.elements / 3));

    let result = {
        let (x, y, mask) = (x.inside(), y.inside_mut(), &mut mask);
        if case.method == Method::FillMask {
            engine.fill_mask(rate, window, mask)
        } else {
            let buffers = if case.in_place {
                Ok(Buffers::in_place(y))
            } else {
                Buffers::new(x, y)
            };
            let buffers = buffers.and_then(|mut buffers| {
                if fused.has_elements() {
                    buffers = buffers.with_elements(second.inside())?;
                }
                match &row {
                    Some(row) => buffers.with_row(row.inside()),
                    None => Ok(buffers),
                }
            });
            buffers.map_err(Error::from).and_then(|buffers| {
                let written = (case.method == Method::Forward).then_some(&mut *mask);
                match (fused, written) {
                    _ if !makes => engine.apply(rate, given_mask, buffers),
                    (Fused::Add(_), mask) => engine.dropout_add(rate, window, buffers, mask),
                    (Fused::Relu(_), mask) => {
                        engine.act_dropout(Activation::Relu, rate, window, buffers, mask)
                    }
                    (Fused::Map(which, ..), mask) => {
                        engine.map_dropout(function(which), rate, window, buffers, mask)
                    }
                    (Fused::Nothing, Some(mask)) => engine.forward(rate, window, buffers, mask),
                    (Fused::Nothing, None) => engine.replay(rate, window, buffers),
                }
            })
        }
    };

    let elements = case.method != Method::FillMask;
    let masked = case.method != Method::Replay;
    let covered = if elements { len } else { mask_len };
    let fits = given || covered == 0 || window.first.checked_add(covered as u64 - 1).is_some();
    let right =
        fits && (!masked || mask_len == covered) && (!elements || case.in_place || out_len == len);
    assert_eq!(result.is_ok(), right, "{case:?}: {result:?}");
    if !right {
        assert!(y.same_as(&before.0), "{case:?} wrote before it refused");
        assert_eq!(mask, before.1, "{case:?} wrote its mask before it refused");
        return;
    }

    let keep = if given {
        given_mask.iter().collect()
    } else {
        keep_bits(rate, window, covered)
    };
    let mut want = before.0;
    let mut left = keep.clone();
    if elements {
        let bits = keep.iter().enumerate();
        let made = bits.zip(want.inside_mut()).zip(y.inside());
        let made = made.map(|(((i, keep), want), &y)| {
            // In place and out of place the same elements come in.
            let x = x.inside()[i];
            let bias = row.as_ref().map(|row| row.inside()[i % row.len]);
            let (element, is_left) = match fused {
                Fused::Nothing => (expected(rate, keep, x), keep),
                Fused::Add(_) => (added(rate, keep, second.inside()[i], bias, x), keep),
                Fused::Relu(_) => rectified(rate, keep, x, bias),
                Fused::Map(which, times, _) => {
                    let factor = times.then(|| second.inside()[i]);
                    (mapped(function(which), rate, keep, x, bias, factor), keep)
                }
            };
            #[allow(clippy::eq_op, reason = "a NaN is what is not equal to itself")]
            let both_nan = element != element && y != y;
            let adds = !matches!(fused, Fused::Nothing);
            // Of two NaNs that meet, the compiler may let either one through.
            *want = if adds && both_nan { y } else { element };
            is_left
        });
        left = made.collect();
    }
    if !given && masked {
        assert_eq!(mask.words(), left.words(), "{case:?}: mask");
    }
    assert!(y.same_as(&want), "{case:?}: output, or memory beside it");
}

/// What an element becomes.
fn expected<T: Element>(rate: DropRate, keep: bool, x: T) -> T {
    match rate.keep() {
        Keep::Nothing => T::ZERO,
        Keep::Everything if keep => x,
        Keep::By(_) if keep => x.times(T::scale(rate)),
        _ => T::ZERO,
    }
}

/// An element plus its bias.
fn biased<T: Element>(x: T, bias: Option<T>) -> T::Scale {
    bias.map_or(x.widened(), |bias| x.widened() + bias.widened())
}

/// What a residual becomes.
fn added<T: Element>(rate: DropRate, keep: bool, x: T, bias: Option<T>, residual: T) -> T {
    if keep {
        T::narrow(residual.widened() + biased(x, bias) * T::scale(rate))
    } else {
        residual
    }
}

/// What an element becomes by the rectifier, and whether its gradient is let through.
fn rectified<T: Element>(rate: DropRate, keep: bool, x: T, bias: Option<T>) -> (T, bool) {
    let sum = biased(x, bias);
    if !keep || sum <= T::factor(0.0) {
        (T::ZERO, false)
    } else {
        (T::narrow(sum * T::scale(rate)), true)
    }
}

fn function(which: u8) -> Function {
    Function::ALL[usize::from(which) % Function::ALL.len()]
}

/// What a function of an element becomes, times a factor.
pub(crate) fn mapped<T: Element>(
    function: Function,
    rate: DropRate,
    keep: bool,
    x: T,
    bias: Option<T>,
    factor: Option<T>,
) -> T {
    if !keep {
        return T::ZERO;
    }
    let value = T::value(function, biased(x, bias));
    let value = factor.map_or(value, |factor| value * factor.widened());
    T::narrow(value * T::scale(rate))
}

/// The bits of a window that was checked to end at 2^64 - 1 at the latest.
pub(crate) fn keep_bits(rate: DropRate, window: MaskWindow, len: usize) -> BitMask {
    let mut words = vec![0; len.div_ceil(64)];
    let mut out = BitSliceMut::new(&mut words, len).expect("as many words");
    match rate.keep() {
        Keep::Nothing => out.fill(false),
        Keep::Everything => out.fill(true),
        Keep::By(rule) => {
            reference::fill_mask(FillMask::new(window, &rule, out).expect("it was checked"));
        }
    }
    BitMask::from_words(words, len).expect("the oracle leaves surplus bits zero")
}

/// Elements with others before and after that must stay as they are.
#[derive(Clone)]
pub(crate) struct Canaries<T> {
    memory: Vec<T>,
    begin: usize,
    len: usize,
}

impl<T: Element> Canaries<T> {
    /// `len` elements that begin `misaligned` bytes after a multiple of 64, or as near as whole
    /// elements come.
    pub(crate) fn new(len: usize, misaligned: u8, seed: u64) -> Self {
        // Weyl's sequence in steps of the golden ratio, so that any bits occur.
        let mut state = seed;
        Self::from_fn(len, misaligned, || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15).rotate_left(7);
            bytemuck::pod_read_unaligned(&state.to_le_bytes()[..size_of::<T>()])
        })
    }

    /// [`new`](Self::new), of these elements.
    pub(crate) fn from_fn(len: usize, misaligned: u8, mut element: impl FnMut() -> T) -> Self {
        let line = 64 / size_of::<T>();
        let mut memory = vec![T::ZERO; len + 4 * line];
        let to_line = (64 - memory.as_ptr().addr() % 64) % 64;
        let begin = line + (to_line + usize::from(misaligned % 64)) / size_of::<T>();
        memory[begin..begin + len].fill_with(&mut element);
        Self { memory, begin, len }
    }

    pub(crate) fn inside(&self) -> &[T] {
        &self.memory[self.begin..][..self.len]
    }

    pub(crate) fn inside_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.begin..][..self.len]
    }

    /// Equal by bits, canaries too.
    pub(crate) fn same_as(&self, other: &Self) -> bool {
        let bytes = bytemuck::cast_slice::<T, u8>;
        bytes(&self.memory) == bytes(&other.memory)
    }

    /// [Equal](Self::same_as), but that one NaN is as good as another: of two that meet, the compiler may let
    /// either one through.
    pub(crate) fn same_but_nan(&self, other: &Self) -> bool {
        let is_nan = |x: &T| x.partial_cmp(x).is_none();
        let mut got = self.clone();
        for (got, want) in got.inside_mut().iter_mut().zip(other.inside()) {
            if is_nan(got) && is_nan(want) {
                *got = *want;
            }
        }
        got.same_as(other)
    }
}
