//! The conformance kit finds what is wrong with a backend, and says it in the smallest case.

use half::{bf16, f16};
use sorix_kernels::backend::conformance::{
    Difference, Dtype, Failure, Job, MaskOfRows, check_backend,
};
use sorix_kernels::backend::job::{Apply, Dropout, DropoutAddNorm, FillMask, Map, NormBackward};
use sorix_kernels::backend::{Backend, BitSliceMut, Kernels, MakeMasks, Pass, PassKind, reference};
use sorix_kernels::{AddNorm, Element, Function, MaskKey, Norm};

/// A backend that is the reference but for the method given: of `fill_mask`, or of one element type.
macro_rules! broken {
    ($backend:ident, fn $($method:tt)+) => {
        broken!(@backend $backend);

        impl MakeMasks for $backend {
            fn $($method)+
        }

        broken!(@types $backend: f32 f64 bf16 f16);
    };
    ($backend:ident, f32: $method:item) => {
        broken!(@one $backend f32 $method: f64 bf16 f16);
    };
    ($backend:ident, f64: $method:item) => {
        broken!(@one $backend f64 $method: f32 bf16 f16);
    };
    ($backend:ident, bf16: $method:item) => {
        broken!(@one $backend bf16 $method: f32 f64 f16);
    };
    (@one $backend:ident $t:ident $method:item: $($other:ident)+) => {
        broken!(@backend $backend);

        impl MakeMasks for $backend {}

        impl Kernels<$t> for $backend {
            $method
        }

        broken!(@types $backend: $($other)+);
    };
    (@backend $backend:ident) => {
        #[derive(Debug)]
        struct $backend;

        impl Backend for $backend {
            fn name(&self) -> &'static str {
                stringify!($backend)
            }
        }
    };
    (@types $backend:ident: $($t:ident)+) => {
        $(impl Kernels<$t> for $backend {})+
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
        f32: fn apply(&self, job: Apply<'_, f32>) {
            let (mask, len) = (job.mask(), job.update().len());
            let Pass::Scale { scale } = job.update().pass() else {
                return reference::apply(job);
            };
            let (vectors, mut keep) = (len / 16 * 16, mask.iter());
            let (x, y) = job.into_update().into_buffers().into_slices();
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
    assert_eq!(failure.case.job, Job::Apply(PassKind::Scale, Dtype::F32));
    assert_eq!(failure.case.len, 1);
    assert!(matches!(
        failure.difference,
        Difference::Element { index: 0, .. }
    ));
}

#[test]
fn an_affine_map_that_forgets_the_shift_is_caught() {
    broken!(
        Shiftless,
        f64: fn apply(&self, job: Apply<'_, f64>) {
            let mask = job.mask();
            let Pass::Affine { scale, dropped, .. } = job.update().pass() else {
                return reference::apply(job);
            };
            job.into_update().into_buffers().update(|i, x| {
                if mask.get(i) == Some(true) {
                    x * scale
                } else {
                    dropped
                }
            });
        }
    );
    let failure = failure(&Shiftless);
    assert_eq!(failure.case.job, Job::Apply(PassKind::Affine, Dtype::F64));
    assert_eq!(failure.case.len, 1);
}

#[test]
fn a_normalisation_that_forgets_what_is_optional_is_caught() {
    broken!(
        Bare,
        bf16: fn dropout_add_norm(&self, job: DropoutAddNorm<'_, bf16>) {
            let scale = job.scale();
            let (mask, rows) = job.into_parts();
            let (norm, x) = (rows.norm(), rows.x());
            let (sum, z, moments) = rows.into_outputs();
            let norm = Norm::new(norm.kind(), norm.len(), norm.epsilon()).unwrap();
            let rows = AddNorm::new(norm, x, sum, z, moments).unwrap();
            reference::dropout_add_norm(DropoutAddNorm::new(scale, mask, rows).unwrap());
        }
    );
    let failure = failure(&Bare);
    let job = Job::AddNorm(MaskOfRows::Kept, Dtype::Bf16);
    assert_eq!(failure.case.job, job);
    assert!(failure.case.len <= 8, "{failure}");
}

#[test]
fn a_gradient_that_is_not_written_is_caught() {
    broken!(
        Lazy,
        f64: fn norm_backward(&self, _: NormBackward<'_, f64>) {}
    );
    let failure = failure(&Lazy);
    assert_eq!(failure.case.job, Job::NormBackward(Dtype::F64));
}

#[test]
fn a_function_of_another_library_is_caught() {
    broken!(
        OtherTanh,
        f32: fn map(&self, job: Map<'_, f32>) {
            if job.function() != Function::Tanh || job.beside().elements().is_some() {
                return reference::map(job);
            }
            job.into_buffers().update(|_, x| x.tanh());
        }
    );
    let failure = failure(&OtherTanh);
    assert_eq!(failure.case.job, Job::Map(Function::Tanh, Dtype::F32));
    assert!(failure.case.len < 16, "{failure}");
}

#[test]
fn factors_that_are_forgotten_are_caught() {
    broken!(
        Factorless,
        bf16: fn map(&self, job: Map<'_, bf16>) {
            let function = job.function();
            job.into_buffers().update(|_, x| {
                bf16::from_f32(bf16::value(function, x.to_f32()))
            });
        }
    );
    let failure = failure(&Factorless);
    assert!(matches!(failure.case.job, Job::MapTimes(_, Dtype::Bf16)));
    assert_eq!(failure.case.len, 1);
}

#[test]
fn swapped_bit_order_is_caught() {
    broken!(
        Swapped,
        fn fill_mask(&self, job: FillMask<'_>) {
            let (window, rule) = (job.window(), job.rule());
            let mut out = job.into_out();
            reference::fill_mask(FillMask::new(window, rule, out.reborrow()).unwrap());
            for word in out.words_mut() {
                *word = u64::from_le_bytes(word.to_le_bytes().map(u8::reverse_bits));
            }
        }
    );
    let failure = failure(&Swapped);
    assert_eq!(failure.case.job, Job::FillMask);
    assert!(failure.case.len <= 4, "{failure}");
    assert!(matches!(failure.difference, Difference::Bit { .. }));
}

#[test]
fn a_scale_rounded_to_the_element_type_is_caught() {
    broken!(
        RoundedScale,
        bf16: fn apply(&self, job: Apply<'_, bf16>) {
            let mask = job.mask();
            let Pass::Scale { scale } = job.update().pass() else {
                return reference::apply(job);
            };
            let scale = bf16::from_f32(scale).to_f32();
            let mut keep = mask.iter();
            job.into_update().into_buffers().update(|_, x| {
                if keep.next() == Some(true) {
                    x.times(scale)
                } else {
                    bf16::ZERO
                }
            });
        }
    );
    let failure = failure(&RoundedScale);
    assert_eq!(failure.case.job, Job::Apply(PassKind::Scale, Dtype::Bf16));
    let Difference::Element { expected, got, .. } = failure.difference else {
        panic!("{failure}")
    };
    assert!(expected.abs_diff(got) <= 2, "{failure}");
}

#[test]
fn a_nan_that_leaks_is_caught() {
    broken!(
        Leaking,
        f64: fn dropout(&self, job: Dropout<'_, f64>) {
            let (window, rule) = (job.window(), job.rule());
            let Pass::Scale { scale } = job.update().pass() else {
                return reference::dropout(job);
            };
            let (update, out) = job.into_parts();
            let buffers = update.into_buffers();
            let len = buffers.len();
            let mut words = vec![0; len.div_ceil(64)];
            let bits = BitSliceMut::new(&mut words, len).unwrap();
            reference::fill_mask(FillMask::new(window, rule, bits).unwrap());
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
    assert_eq!(failure.case.job, Job::Forward(PassKind::Scale, Dtype::F64));
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
        f32: fn apply(&self, job: Apply<'_, f32>) {
            let mask = job.mask();
            let Pass::Scale { scale } = job.update().pass() else {
                return reference::apply(job);
            };
            let late = mask.len() > 64;
            job.into_update().into_buffers().update(|i, x| {
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
    assert_eq!(failure.case.job, Job::Apply(PassKind::Scale, Dtype::F32));
    assert!((65..70).contains(&failure.case.len), "{failure}");
}

#[test]
fn a_mask_that_ignores_the_offset_of_its_key_is_caught() {
    broken!(
        IgnoresOffset,
        fn fill_mask(&self, job: FillMask<'_>) {
            let (mut window, rule) = (job.window(), job.rule());
            window.key = MaskKey::new(window.key.seed, 0);
            reference::fill_mask(FillMask::new(window, rule, job.into_out()).unwrap());
        }
    );
    assert!(failure(&IgnoresOffset).case.len < 10);
}

#[test]
fn a_mask_that_ignores_where_its_window_begins_is_caught() {
    broken!(
        IgnoresFirst,
        fn fill_mask(&self, job: FillMask<'_>) {
            let (window, rule) = (job.window().key.window(0), job.rule());
            reference::fill_mask(FillMask::new(window, rule, job.into_out()).unwrap());
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
        f32: fn dropout(&self, job: Dropout<'_, f32>) {
            assert!(job.update().len() < 100, "too long");
            reference::dropout(job);
        }
    );
    let failure = failure(&Panicking);
    assert_eq!(
        (failure.case.len, failure.difference),
        (100, Difference::Panic)
    );
}
