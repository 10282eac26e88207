//! [`check_backend`]: what the author of a backend runs to know that it is right.
//!
//! Every job a backend can be given is tried in every way that has been seen to go wrong, and what
//! it writes is compared by bits with the [reference](mod@crate::backend::reference): all lengths to 300 and
//! those around a block and a tile; outputs that begin at every alignment to 64 bytes; windows that
//! begin at any element; masks that begin at any bit; in place and out of place; with and without
//! streaming stores; every pass, function and element type, over NaN payloads, infinities, subnormals and negative
//! zeros; rates from the least to the greatest; rows of all lengths, with and without what is optional. Memory
//! around each output must stay as it was.
//!
//! ```
//! use sorix_kernels::backend::conformance::check_backend;
//! use sorix_kernels::dispatch;
//!
//! let report = check_backend(dispatch::by_name("portable")?).expect("portable is right");
//! assert!(report.jobs > 10_000);
//! # Ok::<(), sorix_kernels::Error>(())
//! ```

mod cases;
mod guarded;
mod rows;
mod run;

use core::fmt;

use crate::backend::Backend;
use crate::element::Element;
use crate::function::Function;
use crate::key::MaskWindow;
use crate::pass::PassKind;
use crate::stream::BLOCK;
use cases::{jobs, shapes};
use run::{Expected, run};

/// What was checked, and found right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
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

/// The type of the elements of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// `f32`.
    F32,
    /// `f64`.
    F64,
    /// [`half::bf16`].
    Bf16,
    /// [`half::f16`].
    F16,
}

impl Dtype {
    /// Every type there is.
    pub const ALL: [Self; 4] = [Self::F32, Self::F64, Self::Bf16, Self::F16];

    /// [`Element::NAME`] of the type.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => f32::NAME,
            Self::F64 => f64::NAME,
            Self::Bf16 => half::bf16::NAME,
            Self::F16 => half::f16::NAME,
        }
    }

    /// Bytes of an element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }
}

/// What a backend is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Job {
    /// [`MakeMasks::fill_mask`](crate::backend::MakeMasks::fill_mask).
    FillMask,
    /// [`Kernels::apply`](crate::backend::Kernels::apply).
    Apply(PassKind, Dtype),
    /// [`Kernels::dropout`](crate::backend::Kernels::dropout), with a mask to write.
    Forward(PassKind, Dtype),
    /// [`Kernels::dropout`](crate::backend::Kernels::dropout), without.
    Replay(PassKind, Dtype),
    /// [`Kernels::dropout_add_norm`](crate::backend::Kernels::dropout_add_norm).
    AddNorm(MaskOfRows, Dtype),
    /// [`Kernels::norm_backward`](crate::backend::Kernels::norm_backward).
    NormBackward(Dtype),
    /// [`Kernels::map`](crate::backend::Kernels::map).
    Map(Function, Dtype),
    /// The same, with factors beside the input.
    MapTimes(Function, Dtype),
}

/// Where the mask of a job over rows comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MaskOfRows {
    /// There is none: all elements are kept.
    Kept,
    /// There is none: all are dropped.
    Dropped,
    /// It is read.
    Read,
    /// It is made, and written.
    Written,
    /// It is made.
    Made,
}

impl MaskOfRows {
    /// Every source there is.
    pub const ALL: [Self; 5] = [
        Self::Kept,
        Self::Dropped,
        Self::Read,
        Self::Written,
        Self::Made,
    ];
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (job, pass, dtype) = match self {
            Self::FillMask => return f.write_str("fill_mask"),
            Self::Apply(pass, dtype) => ("apply", pass.name(), dtype),
            Self::Forward(pass, dtype) => ("dropout with a mask to write", pass.name(), dtype),
            Self::Replay(pass, dtype) => ("dropout without a mask to write", pass.name(), dtype),
            Self::AddNorm(mask, dtype) => {
                return write!(f, "dropout_add_norm of {}, mask {mask:?}", dtype.name());
            }
            Self::NormBackward(dtype) => return write!(f, "norm_backward of {}", dtype.name()),
            Self::Map(function, dtype) => ("map", function.name(), dtype),
            Self::MapTimes(function, dtype) => ("map with factors", function.name(), dtype),
        };
        write!(f, "{job}, {pass} of {}", dtype.name())
    }
}

/// One job that a backend is given.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Case {
    /// What is asked.
    pub job: Job,
    /// Probability of dropping.
    pub p: f64,
    /// Which part of which mask.
    pub window: MaskWindow,
    /// The number of elements.
    pub len: usize,
    /// Where the output begins, in bytes after a multiple of 64.
    pub misaligned: usize,
    /// The bit of its first word at which the mask of [`Job::Apply`] begins.
    pub mask_bit: usize,
    /// Whether a row is read beside the input, by a pass that may.
    pub with_row: bool,
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
            "{}: {} elements from element {first}, p = {:e}, seed {}, offset {}, output {} bytes \
             past alignment",
            self.job, self.len, self.p, key.seed, key.offset, self.misaligned
        )?;
        if matches!(self.job, Job::Apply(..) | Job::AddNorm(MaskOfRows::Read, _)) {
            write!(f, ", mask from bit {}", self.mask_bit)?;
        }
        f.write_str(if self.with_row { ", with a row" } else { "" })?;
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
#[non_exhaustive]
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
