//! One job: run by a backend, and compared with the reference.

use core::num::NonZeroU64;
use std::panic::{AssertUnwindSafe, catch_unwind};

use half::{bf16, f16};

use crate::affine::Affine;
use crate::backend::Backend;
use crate::buffers::Buffers;
use crate::conformance::guarded::{Guarded, GuardedBits, Sample};
use crate::conformance::{Case, Difference, Kernel};
use crate::element::Element;
use crate::job::{Dropout, FillMask, MaskAffine, MaskScale};
use crate::mask::{BitMask, BitSlice};
use crate::rate::{DropRate, KeepThreshold};
use crate::reference;

/// The bits of a window, from the reference.
pub(super) struct Expected {
    rate: DropRate,
    threshold: NonZeroU64,
    keep: BitMask,
}

impl Expected {
    pub(super) fn new(case: Case) -> Self {
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
pub(super) fn run(
    backend: &dyn Backend,
    case: Case,
    expected: &Expected,
) -> Result<(), Difference> {
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
