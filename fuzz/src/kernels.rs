//! Any kernel, by any backend, against the oracle.
//!
//! What is expected comes from [`sorix::kernels::backend::reference`] and from the meaning of p = 0 and
//! p = 1 alone, not from the engine under test. Outputs lie among canaries. A call that must be
//! refused must leave them and the mask alone.

use arbitrary::Arbitrary;
use half::{bf16, f16};
use sorix::kernels::backend::job::FillMask;
use sorix::kernels::backend::{BitSliceMut, reference};
use sorix::kernels::{BitMask, Buffers, DropRate, Element, Engine, Error, Keep, MaskWindow};

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
enum DType {
    F32,
    F64,
    Bf16,
    F16,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Wrong {
    No,
    Not,
    Neither,
    By(i8),
}

impl Wrong {
    fn len(self, len: usize) -> usize {
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
            buffers
                .map_err(Error::from)
                .and_then(|buffers| match case.method {
                    Method::Forward => engine.forward(rate, window, buffers, mask),
                    Method::Replay => engine.replay(rate, window, buffers),
                    Method::FillMask | Method::Apply | Method::Backward => {
                        engine.apply(rate, given_mask, buffers)
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
    if !given && masked {
        assert_eq!(mask.words(), keep.words(), "{case:?}: mask");
    }
    let mut want = before.0;
    if elements {
        // In place and out of place the same elements come in.
        for (y, (&x, keep)) in want
            .inside_mut()
            .iter_mut()
            .zip(x.inside().iter().zip(&keep))
        {
            *y = expected(rate, keep, x);
        }
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
struct Canaries<T> {
    memory: Vec<T>,
    begin: usize,
    len: usize,
}

impl<T: Element> Canaries<T> {
    /// `len` elements that begin `misaligned` bytes after a multiple of 64, or as near as whole
    /// elements come.
    fn new(len: usize, misaligned: u8, seed: u64) -> Self {
        let line = 64 / size_of::<T>();
        let mut memory = vec![T::ZERO; len + 4 * line];
        let to_line = (64 - memory.as_ptr().addr() % 64) % 64;
        let begin = line + (to_line + usize::from(misaligned % 64)) / size_of::<T>();
        // Weyl's sequence in steps of the golden ratio, so that any bits occur.
        let mut state = seed;
        for x in &mut memory[begin..begin + len] {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15).rotate_left(7);
            *x = bytemuck::pod_read_unaligned(&state.to_le_bytes()[..size_of::<T>()]);
        }
        Self { memory, begin, len }
    }

    fn inside(&self) -> &[T] {
        &self.memory[self.begin..][..self.len]
    }

    fn inside_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.begin..][..self.len]
    }

    /// Equal by bits, canaries too.
    fn same_as(&self, other: &Self) -> bool {
        let bytes = bytemuck::cast_slice::<T, u8>;
        bytes(&self.memory) == bytes(&other.memory)
    }
}
