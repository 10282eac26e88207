//! The conformance kit finds what is wrong with a backend, and says it in the smallest case.

use half::bf16;
use sorix_kernels::conformance::{Difference, Failure, Kernel, check_backend};
use sorix_kernels::job::{Dropout, FillMask, MaskAffine, MaskScale};
use sorix_kernels::{Backend, BitSliceMut, Element, MaskKey, reference};

/// A backend that is the reference but for the methods given.
macro_rules! broken {
    ($backend:ident, $($method:item)+) => {
        #[derive(Debug)]
        struct $backend;

        impl Backend for $backend {
            fn name(&self) -> &'static str {
                stringify!($backend)
            }

            $($method)+
        }
    };
}

fn failure(backend: &dyn Backend) -> Failure {
    let failure = check_backend(backend).expect_err("a broken backend");
    println!("{failure}");
    assert_eq!(failure.backend, backend.name());
    failure
}

#[test]
fn a_tail_that_is_one_short_is_caught() {
    broken!(
        ShortTail,
        fn mask_scale_f32(&self, job: MaskScale<'_, f32>) {
            let (mask, scale, len) = (job.mask(), job.scale(), job.len());
            let (vectors, mut keep) = (len / 16 * 16, mask.iter());
            let (x, y) = job.into_buffers().into_slices();
            for i in 0..len {
                let value = x.map_or(y[i], |x| x[i]);
                let kept = keep.next() == Some(true);
                if i < vectors || i + 1 < len {
                    y[i] = if kept { value * scale } else { 0.0 };
                }
            }
        }
    );
    let failure = failure(&ShortTail);
    assert_eq!(failure.case.kernel, Kernel::MaskScale);
    assert_eq!((failure.case.dtype, failure.case.len), ("float32", 1));
    assert!(matches!(
        failure.difference,
        Difference::Element { index: 0, .. }
    ));
}

#[test]
fn an_affine_map_that_forgets_the_shift_is_caught() {
    broken!(
        Shiftless,
        fn mask_affine_f64(&self, job: MaskAffine<'_, f64>) {
            let (mask, scale, dropped) = (job.mask(), job.scale(), job.dropped());
            job.into_buffers().update(|i, x| {
                if mask.get(i) == Some(true) {
                    x * scale
                } else {
                    dropped
                }
            });
        }
    );
    let failure = failure(&Shiftless);
    assert_eq!(failure.case.kernel, Kernel::MaskAffine);
    assert_eq!((failure.case.dtype, failure.case.len), ("float64", 1));
}

#[test]
fn swapped_bit_order_is_caught() {
    broken!(
        Swapped,
        fn fill_mask(&self, job: FillMask<'_>) {
            let (window, threshold) = (job.window(), job.threshold());
            let mut out = job.into_out();
            reference::fill_mask(FillMask::new(window, threshold, out.reborrow()).unwrap());
            for word in out.words_mut() {
                *word = u64::from_le_bytes(word.to_le_bytes().map(u8::reverse_bits));
            }
        }
    );
    let failure = failure(&Swapped);
    assert_eq!(failure.case.kernel, Kernel::FillMask);
    assert!(failure.case.len <= 4, "{failure}");
    assert!(matches!(failure.difference, Difference::Bit { .. }));
}

#[test]
fn a_scale_rounded_to_the_element_type_is_caught() {
    broken!(
        RoundedScale,
        fn mask_scale_bf16(&self, job: MaskScale<'_, bf16>) {
            let (mask, scale) = (job.mask(), bf16::from_f32(job.scale()).to_f32());
            let mut keep = mask.iter();
            job.into_buffers().update(|_, x| {
                if keep.next() == Some(true) {
                    x.times(scale)
                } else {
                    bf16::ZERO
                }
            });
        }
    );
    let failure = failure(&RoundedScale);
    assert_eq!(
        (failure.case.kernel, failure.case.dtype),
        (Kernel::MaskScale, "bfloat16")
    );
    let Difference::Element { expected, got, .. } = failure.difference else {
        panic!("{failure}")
    };
    assert!(expected.abs_diff(got) <= 2, "{failure}");
}

#[test]
fn a_nan_that_leaks_is_caught() {
    broken!(
        Leaking,
        fn dropout_f64(&self, job: Dropout<'_, f64>) {
            let (window, threshold, scale) = (job.window(), job.threshold(), job.scale());
            let (buffers, out) = job.into_parts();
            let len = buffers.len();
            let mut words = vec![0; len.div_ceil(64)];
            let bits = BitSliceMut::new(&mut words, len).unwrap();
            reference::fill_mask(FillMask::new(window, threshold, bits).unwrap());
            if let Some(mut out) = out {
                out.words_mut().copy_from_slice(&words);
            }
            // Wrong for NaN and infinity alone: the sign of the zero is put right.
            buffers.update(|i, x| match words[i / 64] >> (i % 64) & 1 {
                1 => x * scale,
                _ => x * 0.0 + 0.0,
            });
        }
    );
    let failure = failure(&Leaking);
    assert_eq!(
        (failure.case.kernel, failure.case.dtype),
        (Kernel::Forward, "float64")
    );
    let Difference::Element {
        expected: 0, got, ..
    } = failure.difference
    else {
        panic!("{failure}")
    };
    assert!(f64::from_bits(got).is_nan(), "{failure}");
}

#[test]
fn a_mask_read_one_bit_late_after_a_word_is_caught() {
    broken!(
        LateBit,
        fn mask_scale_f32(&self, job: MaskScale<'_, f32>) {
            let (mask, scale) = (job.mask(), job.scale());
            let late = mask.len() > 64;
            job.into_buffers().update(|i, x| {
                let at = if late && i >= 64 { i - 1 } else { i };
                if mask.get(at) == Some(true) {
                    x * scale
                } else {
                    0.0
                }
            });
        }
    );
    let failure = failure(&LateBit);
    assert_eq!(failure.case.kernel, Kernel::MaskScale);
    assert!((65..70).contains(&failure.case.len), "{failure}");
}

#[test]
fn a_mask_that_ignores_the_offset_of_its_key_is_caught() {
    broken!(
        IgnoresOffset,
        fn fill_mask(&self, job: FillMask<'_>) {
            let (mut window, threshold) = (job.window(), job.threshold());
            window.key = MaskKey::new(window.key.seed, 0);
            reference::fill_mask(FillMask::new(window, threshold, job.into_out()).unwrap());
        }
    );
    assert!(failure(&IgnoresOffset).case.len < 10);
}

#[test]
fn a_mask_that_ignores_where_its_window_begins_is_caught() {
    broken!(
        IgnoresFirst,
        fn fill_mask(&self, job: FillMask<'_>) {
            let (window, threshold) = (job.window().key.window(0), job.threshold());
            reference::fill_mask(FillMask::new(window, threshold, job.into_out()).unwrap());
        }
    );
    let failure = failure(&IgnoresFirst);
    assert!(
        failure.case.window.first > 0 && failure.case.len < 20,
        "{failure}"
    );
}

#[test]
fn a_panic_is_reported_with_its_case() {
    broken!(
        Panicking,
        fn dropout_f32(&self, job: Dropout<'_, f32>) {
            assert!(job.len() < 100, "too long");
            reference::dropout(job);
        }
    );
    let failure = failure(&Panicking);
    assert_eq!(
        (failure.case.len, failure.difference),
        (100, Difference::Panic)
    );
}
