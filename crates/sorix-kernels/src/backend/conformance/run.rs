//! One job: run by a backend, and compared with the reference.

use std::panic::{AssertUnwindSafe, catch_unwind};

use half::{bf16, f16};

use super::guarded::{Guarded, GuardedBits, Sample};
use super::rows::{add_norm, norm_backward};
use super::{Case, Difference, Dtype, Job};
use crate::backend::Backend;
use crate::backend::reference;
use crate::buffers::Buffers;
use crate::function::Function;
use crate::job::{Apply, Dropout, FillMask, Map, Update};
use crate::keep::KeepRule;
use crate::mask::{BitMask, BitSlice};
use crate::pass::{Pass, PassKind, Reads};
use crate::rate::{DropRate, Keep};

pub(super) const LENGTHS: &str = "all buffers have the length of the case";

/// The bits of a window, from the reference.
pub(super) struct Expected {
    pub(super) rate: DropRate,
    pub(super) rule: KeepRule,
    pub(super) keep: BitMask,
}

impl Expected {
    pub(super) fn new(case: Case) -> Self {
        let rate = DropRate::new(case.p).expect("the rates of the cases are in (0, 1)");
        let Keep::By(rule) = rate.keep() else {
            unreachable!("the rates of the cases keep some and drop some")
        };
        let mut keep = BitMask::new(case.len);
        let job = FillMask::new(case.window, &rule, keep.as_slice_mut());
        reference::fill_mask(job.expect("the windows of the cases end at 2^64 - 1 at the latest"));
        Self { rate, rule, keep }
    }

    /// The mask with other bits before and after it: one that is read from a wrong bit shows.
    pub(super) fn longer(&self, case: Case) -> BitMask {
        let before = (0..case.mask_bit).map(|i| i % 2 == 0);
        before.chain(&self.keep).chain([true; 70]).collect()
    }
}

/// The mask of a case in a [longer](Expected::longer) one.
pub(super) fn view(longer: &BitMask, case: Case) -> BitSlice<'_> {
    let range = case.mask_bit..case.mask_bit + case.len;
    longer.slice(range).expect("the range is inside")
}

/// Runs one job and compares.
pub(super) fn run(
    backend: &dyn Backend,
    case: Case,
    expected: &Expected,
) -> Result<(), Difference> {
    let (what, dtype) = match case.job {
        Job::FillMask => {
            let mut out = GuardedBits::new(case.len);
            let job = FillMask::new(case.window, &expected.rule, out.slice());
            let job = job.expect("the window was checked for the expected mask");
            guard_panic(|| backend.fill_mask(job))?;
            return out.compare(&expected.keep);
        }
        Job::Apply(kind, dtype) | Job::Forward(kind, dtype) | Job::Replay(kind, dtype) => {
            (What::Update(kind), dtype)
        }
        Job::AddNorm(mask, dtype) => {
            return match dtype {
                Dtype::F32 => add_norm::<f32>(backend, case, mask, expected),
                Dtype::F64 => add_norm::<f64>(backend, case, mask, expected),
                Dtype::Bf16 => add_norm::<bf16>(backend, case, mask, expected),
                Dtype::F16 => add_norm::<f16>(backend, case, mask, expected),
            };
        }
        Job::NormBackward(dtype) => {
            return match dtype {
                Dtype::F32 => norm_backward::<f32>(backend, case),
                Dtype::F64 => norm_backward::<f64>(backend, case),
                Dtype::Bf16 => norm_backward::<bf16>(backend, case),
                Dtype::F16 => norm_backward::<f16>(backend, case),
            };
        }
        Job::Map(function, dtype) => (What::Map(function, false), dtype),
        Job::MapTimes(function, dtype) => (What::Map(function, true), dtype),
    };
    match dtype {
        Dtype::F32 => of_type::<f32>(backend, case, what, expected),
        Dtype::F64 => of_type::<f64>(backend, case, what, expected),
        Dtype::Bf16 => of_type::<bf16>(backend, case, what, expected),
        Dtype::F16 => of_type::<f16>(backend, case, what, expected),
    }
}

/// A job without its element type.
enum What {
    Update(PassKind),
    /// The function, and whether there are factors.
    Map(Function, bool),
}

fn of_type<T: Sample>(
    backend: &dyn Backend,
    case: Case,
    what: What,
    expected: &Expected,
) -> Result<(), Difference> {
    match what {
        What::Update(kind) => update::<T>(backend, case, kind, expected),
        What::Map(function, times) => map::<T>(backend, case, function, times),
    }
}

fn map<T: Sample>(
    backend: &dyn Backend,
    case: Case,
    function: Function,
    times: bool,
) -> Result<(), Difference> {
    // Every other number is one for which the functions are neither flat nor at a limit.
    let samples: Vec<T> = (0..case.len)
        .map(|i| match i % 4 {
            1 => T::from_f64(((i * 7919 + case.len) % 20_011) as f64 / 1000.0 - 10.0),
            3 => T::from_f64(((i * 7919 + case.len) % 22_003) as f64 / 100.0 - 110.0),
            _ => T::sample(i + case.len),
        })
        .collect();
    let factors: Vec<T> = (0..case.len).map(|i| T::sample(i + 7)).collect();
    let mut want = samples.clone();
    reference::map(map_of(
        function,
        times,
        Buffers::in_place(&mut want),
        &factors,
    ));

    let mut y = Guarded::<T>::new(case.len, case.misaligned);
    let mut x = Guarded::<T>::new(case.len, misaligned_input::<T>(case));
    x.slice().copy_from_slice(&samples);
    let buffers = if case.in_place {
        y.slice().copy_from_slice(&samples);
        Buffers::in_place(y.slice())
    } else {
        Buffers::new(x.slice(), y.slice()).expect(LENGTHS)
    };
    let job = map_of(function, times, buffers, &factors).streaming(case.streaming);
    let kernels = T::kernels(backend);
    guard_panic(|| kernels.map(job))?;
    // Nothing is said of which NaN a function gives.
    y.compare(&want, true)
}

fn map_of<'a, T: Sample>(
    function: Function,
    times: bool,
    buffers: Buffers<'a, T>,
    factors: &'a [T],
) -> Map<'a, T> {
    let buffers = if times {
        buffers.with_elements(factors).expect(LENGTHS)
    } else {
        buffers
    };
    Map::new(function, buffers)
}

/// Not aligned like the output, but for the aligned one.
fn misaligned_input<T>(case: Case) -> usize {
    case.misaligned / 2 / size_of::<T>() * size_of::<T>()
}

fn update<T: Sample>(
    backend: &dyn Backend,
    case: Case,
    kind: PassKind,
    expected: &Expected,
) -> Result<(), Difference> {
    let pass = Pass::<T>::sample(kind, expected.rate);
    let samples: Vec<T> = (0..case.len).map(|i| T::sample(i + case.len)).collect();
    let beside: Vec<T> = (0..case.len).map(|i| T::sample(i + 7)).collect();
    // Neither a divisor nor a multiple of a group.
    let row: Vec<T> = (0..37).map(|i| T::sample(i + 7)).collect();
    let make = Make {
        pass,
        beside: &beside,
        row: case.with_row.then_some(&row[..]),
        streaming: case.streaming,
    };

    let (mut want, mut want_bits) = (samples.clone(), BitMask::new(case.len));
    let job = Apply::new(
        expected.keep.as_slice(),
        make.of(Buffers::in_place(&mut want)),
    );
    let job = job.and_then(|job| job.leaving(want_bits.as_slice_mut()));
    reference::apply(job.expect(LENGTHS));

    let mut y = Guarded::<T>::new(case.len, case.misaligned);
    let mut x = Guarded::<T>::new(case.len, misaligned_input::<T>(case));
    x.slice().copy_from_slice(&samples);
    let mut bits = GuardedBits::new(case.len);
    let update = make.of(if case.in_place {
        y.slice().copy_from_slice(&samples);
        Buffers::in_place(y.slice())
    } else {
        Buffers::new(x.slice(), y.slice()).expect(LENGTHS)
    });
    let kernels = T::kernels(backend);
    if let Job::Apply(..) = case.job {
        let longer = expected.longer(case);
        let mut job = Apply::new(view(&longer, case), update).expect(LENGTHS);
        if pass.decides() {
            job = job.leaving(bits.slice()).expect(LENGTHS);
        }
        guard_panic(|| kernels.apply(job))?;
    } else {
        let out = matches!(case.job, Job::Forward(..)).then(|| bits.slice());
        let job = Dropout::new(case.window, &expected.rule, update, out).expect(LENGTHS);
        guard_panic(|| kernels.dropout(job))?;
    }
    match case.job {
        Job::Forward(..) => bits.compare(&want_bits)?,
        Job::Apply(..) if pass.decides() => bits.compare(&want_bits)?,
        _ => {}
    }
    // Of two NaNs that meet, the compiler may let either one through.
    let meet = case.with_row || matches!(kind.reads(), Reads::ElementsAndRow | Reads::Any);
    y.compare(&want, meet)
}

/// Makes the update of a case.
struct Make<'a, T: Sample> {
    pass: Pass<T>,
    beside: &'a [T],
    row: Option<&'a [T]>,
    streaming: bool,
}

impl<'a, T: Sample> Make<'a, T> {
    fn of(&self, mut buffers: Buffers<'a, T>) -> Update<'a, T> {
        buffers = match self.pass.kind().reads() {
            Reads::Nothing | Reads::Row => buffers,
            // There may be none: of an even number there are.
            Reads::Any if !self.beside.len().is_multiple_of(2) => buffers,
            Reads::Any | Reads::ElementsAndRow => {
                buffers.with_elements(self.beside).expect(LENGTHS)
            }
        };
        if let Some(row) = self.row {
            buffers = buffers.with_row(row).expect(LENGTHS);
        }
        let update = Update::new(self.pass, buffers).expect("the buffers are those of the pass");
        update.streaming(self.streaming)
    }
}

pub(super) fn guard_panic(job: impl FnOnce()) -> Result<(), Difference> {
    catch_unwind(AssertUnwindSafe(job)).map_err(|_| Difference::Panic)
}
