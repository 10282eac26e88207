//! [`check_backend`]: what the author of a backend runs to know that it is right.
//!
//! Every job a backend can be given is tried in every way that has been seen to go wrong, and what
//! it writes is compared by bits with the [reference](mod@crate::reference): all lengths to 300 and
//! those around a block and a tile; outputs that begin at every alignment to 64 bytes; windows that
//! begin at any element; masks that begin at any bit; in place and out of place; with and without
//! streaming stores; every element type, over NaN payloads, infinities, subnormals and negative
//! zeros; rates from the least to the greatest. Memory around each output must stay as it was.
//!
//! ```
//! use sorix_kernels::{conformance::check_backend, dispatch};
//!
//! let report = check_backend(dispatch::by_name("portable")?).expect("portable is right");
//! assert!(report.jobs > 10_000);
//! # Ok::<(), sorix_kernels::Error>(())
//! ```

use core::fmt;
use core::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use half::{bf16, f16};

use crate::affine::Affine;
use crate::backend::Backend;
use crate::buffers::Buffers;
use crate::element::Element;
use crate::job::{Dropout, FillMask, MaskAffine, MaskScale};
use crate::key::{MaskKey, MaskWindow};
use crate::mask::{BitMask, BitSlice, BitSliceMut};
use crate::rate::{DropRate, KeepThreshold};
use crate::reference;
use crate::stream::{BLOCK, TILE};

/// What was checked, and found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The backend's name.
    pub backend: &'static str,
    /// How many jobs it was given.
    pub jobs: usize,
    /// How many elements they had together.
    pub elements: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            jobs,
            elements,
        } = self;
        write!(
            f,
            "backend {backend:?} is right in {jobs} jobs of {elements} elements"
        )
    }
}

/// The kernel that a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// `fill_mask`.
    FillMask,
    /// `mask_scale_*`.
    MaskScale,
    /// `mask_affine_*`.
    MaskAffine,
    /// `dropout_*`, with a mask to write: forward.
    Forward,
    /// `dropout_*`, without: replay.
    Replay,
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FillMask => "fill_mask",
            Self::MaskScale => "mask_scale",
            Self::MaskAffine => "mask_affine",
            Self::Forward => "dropout with a mask to write",
            Self::Replay => "dropout without a mask to write",
        })
    }
}

/// One job that a backend is given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// The kernel.
    pub kernel: Kernel,
    /// [`Element::NAME`] of the element type; `"bool"` for [`Kernel::FillMask`].
    pub dtype: &'static str,
    /// Probability of dropping.
    pub p: f64,
    /// Which part of which mask.
    pub window: MaskWindow,
    /// The number of elements.
    pub len: usize,
    /// Where the output begins, in bytes after a multiple of 64.
    pub misaligned: usize,
    /// The bit of its first word at which the mask of [`Kernel::MaskScale`] and
    /// [`Kernel::MaskAffine`] begins.
    pub mask_bit: usize,
    /// Whether the output is also the input.
    pub in_place: bool,
    /// Whether the job asks for stores that go around the cache.
    pub streaming: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MaskWindow { key, first } = self.window;
        write!(
            f,
            "{} of {} {} elements from element {first}, p = {:e}, seed {}, offset {}, output {} \
             bytes past alignment",
            self.kernel, self.len, self.dtype, self.p, key.seed, key.offset, self.misaligned
        )?;
        if matches!(self.kernel, Kernel::MaskScale | Kernel::MaskAffine) {
            write!(f, ", mask from bit {}", self.mask_bit)?;
        }
        f.write_str(if self.in_place { ", in place" } else { "" })?;
        f.write_str(if self.streaming { ", streaming" } else { "" })
    }
}

/// How a backend went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// An element of the output has other bits than it should.
    Element {
        /// Index of the first such element.
        index: usize,
        /// The bits it should have.
        expected: u64,
        /// The bits it has.
        got: u64,
    },
    /// A bit of the mask is wrong.
    Bit {
        /// Index of the first such element.
        index: usize,
        /// Whether it should be kept.
        expected: bool,
    },
    /// Memory before or after the output or the mask was written.
    OutOfBounds,
    /// The backend panicked.
    Panic,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Element {
                index,
                expected,
                got,
            } => write!(
                f,
                "element {index} should have the bits {expected:#x} and has {got:#x}"
            ),
            Self::Bit { index, expected } => write!(
                f,
                "bit {index} of the mask should be {} and is not",
                u8::from(*expected)
            ),
            Self::OutOfBounds => f.write_str("memory beside the output was written"),
            Self::Panic => f.write_str("the backend panicked"),
        }
    }
}

/// The smallest case found that a backend gets wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The backend's name.
    pub backend: &'static str,
    /// The job.
    pub case: Case,
    /// What is wrong with what it did.
    pub difference: Difference,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            backend,
            case,
            difference,
        } = self;
        write!(f, "backend {backend:?}: {difference}; {case}")
    }
}

impl core::error::Error for Failure {}

/// Gives `backend` every kind of job and compares what it writes with the reference, by bits.
///
/// Takes well under a second in an optimised build. The environment is not read and no thread is
/// started.
///
/// # Errors
///
/// [`Failure`], with the smallest case found: cases are tried from the shortest on, and the one that
/// fails is then made shorter and plainer for as long as it keeps failing.
#[allow(
    clippy::result_large_err,
    reason = "returned once, by a function that runs for a second"
)]
pub fn check_backend(backend: &dyn Backend) -> Result<Report, Failure> {
    let mut report = Report {
        backend: backend.name(),
        jobs: 0,
        elements: 0,
    };
    for shape in shapes() {
        let expected = Expected::new(shape);
        for case in jobs(shape) {
            if let Err(difference) = run(backend, case, &expected) {
                return Err(shrink(backend, case, difference));
            }
            report.jobs += 1;
            report.elements += case.len;
        }
    }
    Ok(report)
}

const KEY: MaskKey = MaskKey {
    seed: 0x0123_4567_89AB_CDEF,
    offset: 7,
};

/// Where thresholds are plain, long, at either end, and where the scale is no short fraction.
const RATES: [f64; 12] = [
    1e-10,
    0.1,
    0.25,
    0.3,
    0.5,
    0.75,
    0.9,
    0.999,
    1.0 - 1e-12,
    // 2^-64 and 1 - 2^-53: the least that drops anything, the greatest that keeps anything.
    5.421_010_862_427_522e-20,
    1.0 - f64::EPSILON / 2.0,
    1.0 / 3.0,
];

/// What the cases of all kernels and element types have in common, shortest first.
fn shapes() -> Vec<Case> {
    let plain = Case {
        kernel: Kernel::FillMask,
        dtype: "bool",
        p: 0.3,
        window: KEY.window(0),
        len: 0,
        misaligned: 0,
        mask_bit: 0,
        in_place: false,
        streaming: false,
    };
    let tile = TILE as u64;
    let mut shapes = Vec::new();
    for len in 0..=300 {
        let p = RATES[len % RATES.len()];
        shapes.push(Case { p, len, ..plain });
    }
    for p in RATES {
        for len in [BLOCK + 65, 2 * TILE + 577] {
            shapes.push(Case { p, len, ..plain });
        }
    }
    for len in [BLOCK, 2 * BLOCK, TILE].map(|edge| [edge - 1, edge, edge + 1]) {
        shapes.extend(len.map(|len| Case { len, ..plain }));
    }
    for misaligned in 0..64 {
        for len in [3, 65, 1100 + misaligned] {
            let streaming = len > 1000;
            shapes.extend([false, streaming].map(|streaming| Case {
                len,
                misaligned,
                streaming,
                ..plain
            }));
        }
    }
    for (len, first) in [
        (20_000, 0),
        (700, 0),
        (9000, tile - 256),
        (9000, 3),
        (5, 0),
        (2 * TILE, 8000),
        (2 * TILE, 64),
    ] {
        for (misaligned, streaming) in [(0, false), (0, true), (8, true), (40, true)] {
            shapes.push(Case {
                window: KEY.window(first),
                len,
                misaligned,
                streaming,
                ..plain
            });
        }
    }
    let blocks = [1, 63, 64, 65, 511, 512, 513];
    let tiles = [tile - 1, tile, tile + 1, 2 * tile - 100];
    let far = [
        (1 << 32) - 5,
        (1 << 45) + tile - 30,
        u64::MAX - 700,
        u64::MAX - 599,
    ];
    for first in blocks.into_iter().chain(tiles).chain(far) {
        for (p, len, misaligned) in [(0.1, 600, 0), (0.5, 65, 24), (0.25, 1, 8)] {
            let window = KEY.window(first);
            shapes.push(Case {
                p,
                window,
                len,
                misaligned,
                ..plain
            });
        }
    }
    // The last element there is.
    shapes.push(Case {
        window: KEY.window(u64::MAX),
        len: 1,
        ..plain
    });
    for mask_bit in 1..64 {
        for len in [1, 64, 130] {
            shapes.push(Case {
                len,
                mask_bit,
                ..plain
            });
        }
    }
    for (seed, offset) in [(0, 0), (0, 1), (1, 0), (u64::MAX, u64::MAX)] {
        shapes.push(Case {
            window: MaskKey { seed, offset }.into(),
            len: 130,
            ..plain
        });
    }
    shapes.sort_by_key(|shape| shape.len);
    shapes
}

/// The jobs of one shape: every kernel, in place and not, for every element type.
fn jobs(shape: Case) -> impl Iterator<Item = Case> {
    let dtypes = [
        (f32::NAME, size_of::<f32>()),
        (f64::NAME, size_of::<f64>()),
        (bf16::NAME, size_of::<bf16>()),
        (f16::NAME, size_of::<f16>()),
    ];
    let fitting = move |&(_, size): &(&str, usize)| shape.misaligned.is_multiple_of(size);
    let updates = dtypes
        .into_iter()
        .filter(fitting)
        .flat_map(move |(dtype, _)| {
            [
                Kernel::MaskScale,
                Kernel::MaskAffine,
                Kernel::Forward,
                Kernel::Replay,
            ]
            .into_iter()
            .flat_map(move |kernel| {
                [false, true].map(|in_place| Case {
                    kernel,
                    dtype,
                    in_place,
                    ..shape
                })
            })
        });
    // An affine job does not say whether to stream.
    let twice = |case: &Case| case.kernel == Kernel::MaskAffine && case.streaming;
    core::iter::once(shape).chain(updates.filter(move |case| !twice(case)))
}

/// The failing case made shorter and plainer, as far as it keeps failing.
fn shrink(backend: &dyn Backend, case: Case, difference: Difference) -> Failure {
    let mut failure = Failure {
        backend: backend.name(),
        case,
        difference,
    };
    let mut still_fails = |case: Case| match run(backend, case, &Expected::new(case)) {
        Ok(()) => false,
        Err(difference) => {
            failure.difference = difference;
            failure.case = case;
            true
        }
    };
    let mut case = case;
    let plainer: [fn(Case) -> Case; 5] = [
        |case| Case {
            streaming: false,
            ..case
        },
        |case| Case {
            in_place: false,
            ..case
        },
        |case| Case {
            misaligned: 0,
            ..case
        },
        |case| Case {
            mask_bit: 0,
            ..case
        },
        |case| Case {
            window: case.window.key.window(0),
            ..case
        },
    ];
    for step in plainer {
        if step(case) != case && still_fails(step(case)) {
            case = step(case);
        }
    }
    // A case this short is found by trying; beyond it, shorter ones have been tried as shapes.
    for len in 0..case.len.min(2 * BLOCK) {
        if still_fails(Case { len, ..case }) {
            break;
        }
    }
    failure
}

/// The bits of a window, from the reference.
struct Expected {
    rate: DropRate,
    threshold: NonZeroU64,
    keep: BitMask,
}

impl Expected {
    fn new(case: Case) -> Self {
        let rate = DropRate::new(case.p).expect("the rates above are in (0, 1)");
        let KeepThreshold::Below(threshold) = rate.keep_threshold() else {
            unreachable!("the rates above keep some and drop some")
        };
        let mut keep = BitMask::new(case.len);
        let job = FillMask::new(case.window, threshold, keep.as_slice_mut());
        reference::fill_mask(job.expect("the windows above end at 2^64 - 1 at the latest"));
        Self {
            rate,
            threshold,
            keep,
        }
    }
}

/// Runs one job and compares.
fn run(backend: &dyn Backend, case: Case, expected: &Expected) -> Result<(), Difference> {
    match case.dtype {
        f32::NAME => run_dtype::<f32>(backend, case, expected),
        f64::NAME => run_dtype::<f64>(backend, case, expected),
        bf16::NAME => run_dtype::<bf16>(backend, case, expected),
        f16::NAME => run_dtype::<f16>(backend, case, expected),
        _ => {
            let mut out = GuardedBits::new(case.len);
            let job = FillMask::new(case.window, expected.threshold, out.slice());
            let job = job.expect("the window was checked for the expected mask");
            guard_panic(|| backend.fill_mask(job))?;
            out.compare(&expected.keep)
        }
    }
}

fn run_dtype<T: Sample>(
    backend: &dyn Backend,
    case: Case,
    expected: &Expected,
) -> Result<(), Difference> {
    const LENGTHS: &str = "all buffers have the length of the case";
    let scale = T::scale(expected.rate);
    let samples: Vec<T> = (0..case.len).map(|i| T::sample(i + case.len)).collect();
    let mut want = samples.clone();
    let affine = Affine {
        scale: expected.rate.scale(),
        shift: -0.3,
        dropped: 0.1,
    };
    let (keep, output) = (expected.keep.as_slice(), Buffers::in_place(&mut want));
    if case.kernel == Kernel::MaskAffine {
        reference::mask_affine(MaskAffine::new(keep, affine, output).expect(LENGTHS));
    } else {
        reference::mask_scale(MaskScale::new(keep, scale, output).expect(LENGTHS));
    }

    let mut y = Guarded::<T>::new(case.len, case.misaligned);
    // Not aligned like the output, but for the aligned one.
    let mut x = Guarded::<T>::new(
        case.len,
        case.misaligned / 2 / size_of::<T>() * size_of::<T>(),
    );
    x.slice().copy_from_slice(&samples);
    let mut bits = GuardedBits::new(case.len);
    let buffers = if case.in_place {
        y.slice().copy_from_slice(&samples);
        Buffers::in_place(y.slice())
    } else {
        Buffers::new(x.slice(), y.slice()).expect(LENGTHS)
    };
    if matches!(case.kernel, Kernel::MaskScale | Kernel::MaskAffine) {
        // The opposite before and after: a mask read from a wrong bit shows.
        let before = (0..case.mask_bit).map(|i| i % 2 == 0);
        let longer: BitMask = before.chain(&expected.keep).chain([true; 70]).collect();
        let view: BitSlice<'_> = longer
            .slice(case.mask_bit..case.mask_bit + case.len)
            .expect("the range is inside");
        if case.kernel == Kernel::MaskAffine {
            let job = MaskAffine::new(view, affine, buffers).expect(LENGTHS);
            guard_panic(|| T::mask_affine(backend, job))?;
        } else {
            let job = MaskScale::new(view, scale, buffers).expect(LENGTHS);
            guard_panic(|| T::mask_scale(backend, job.streaming(case.streaming)))?;
        }
    } else {
        let out = (case.kernel == Kernel::Forward).then(|| bits.slice());
        let job = Dropout::new(case.window, expected.threshold, scale, buffers, out);
        let job = job.expect(LENGTHS).streaming(case.streaming);
        guard_panic(|| T::dropout(backend, job))?;
    }
    if case.kernel == Kernel::Forward {
        bits.compare(&expected.keep)?;
    }
    y.compare(&want)
}

fn guard_panic(job: impl FnOnce()) -> Result<(), Difference> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|_| Difference::Panic)
}

/// An output with memory around it that a kernel must leave alone.
struct Guarded<T> {
    memory: Vec<T>,
    begin: usize,
    len: usize,
}

impl<T: Sample> Guarded<T> {
    /// Elements that begin `misaligned` bytes after a multiple of 64.
    fn new(len: usize, misaligned: usize) -> Self {
        let line = 64 / size_of::<T>();
        let memory = vec![T::sample(1); len + 4 * line];
        let to_line = (64 - memory.as_ptr().addr() % 64) % 64;
        let begin = line + (to_line + misaligned) / size_of::<T>();
        Self { memory, begin, len }
    }

    fn slice(&mut self) -> &mut [T] {
        &mut self.memory[self.begin..][..self.len]
    }

    fn compare(mut self, want: &[T]) -> Result<(), Difference> {
        for (index, (got, want)) in self.slice().iter().zip(want).enumerate() {
            let (expected, got) = (want.bits(), got.bits());
            if got != expected {
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
struct GuardedBits {
    words: Vec<u64>,
    len: usize,
}

impl GuardedBits {
    const AROUND: usize = 8;
    const CANARY: u64 = 0xA5A5_5A5A_C3C3_3C3C;

    fn new(len: usize) -> Self {
        Self {
            words: vec![Self::CANARY; len.div_ceil(64) + 2 * Self::AROUND],
            len,
        }
    }

    fn slice(&mut self) -> BitSliceMut<'_> {
        let end = self.words.len() - Self::AROUND;
        BitSliceMut::new(&mut self.words[Self::AROUND..end], self.len)
            .expect("as many words as the bits need")
    }

    fn compare(mut self, want: &BitMask) -> Result<(), Difference> {
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
trait Sample: Element {
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
