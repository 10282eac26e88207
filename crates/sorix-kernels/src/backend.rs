//! [`Backend`]: what can carry out the kernels.

use core::fmt::Debug;

use half::{bf16, f16};

use crate::job::{Dropout, FillMask, MaskAffine, MaskScale};
use crate::reference;
use crate::simd::Simd;

/// Something that can carry out the kernels, over whole ranges of elements.
///
/// The built-in ones are listed by [`available`](crate::dispatch::available). A backend of your own
/// needs nothing but this trait, in safe code: jobs hand out slices whose lengths were checked, and
/// no memory safety depends on what is written into them. What is written does matter: it must be
/// bit for bit what the [reference](mod@crate::reference) writes. A kernel that is left out *is* the
/// reference's, so a backend can begin with the one that matters and grow; making a mask and applying
/// it in one call is, unless brought, [composed](Dropout::compose) of the two.
///
/// ```
/// use sorix_kernels::job::FillMask;
/// use sorix_kernels::{Backend, BitMask, DropRate, Engine, MaskKey};
///
/// #[derive(Debug)]
/// struct Loud;
///
/// impl Backend for Loud {
///     fn name(&self) -> &'static str {
///         "loud"
///     }
///
///     fn fill_mask(&self, job: FillMask<'_>) {
///         println!("{} bits of {:?}", job.len(), job.window());
///         sorix_kernels::reference::fill_mask(job);
///     }
/// }
///
/// let engine = Engine::new(&Loud);
/// let (mut mask, mut same) = (BitMask::new(100), BitMask::new(100));
/// let (rate, key) = (DropRate::new(0.5)?, MaskKey::new(1, 2));
/// engine.fill_mask(rate, key, &mut mask)?;
/// sorix_kernels::dropout::fill_mask(rate, key, &mut same)?;
/// assert_eq!(mask, same);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
pub trait Backend: Debug + Send + Sync {
    /// A short lower-case name, as in `SORIX_BACKEND`.
    fn name(&self) -> &'static str;

    /// Writes the bits of a window of a mask.
    fn fill_mask(&self, job: FillMask<'_>) {
        reference::fill_mask(job);
    }

    /// Applies a mask to f32.
    fn mask_scale_f32(&self, job: MaskScale<'_, f32>) {
        reference::mask_scale(job);
    }

    /// Applies a mask to f64.
    fn mask_scale_f64(&self, job: MaskScale<'_, f64>) {
        reference::mask_scale(job);
    }

    /// Applies a mask to bf16.
    fn mask_scale_bf16(&self, job: MaskScale<'_, bf16>) {
        reference::mask_scale(job);
    }

    /// Applies a mask to f16.
    fn mask_scale_f16(&self, job: MaskScale<'_, f16>) {
        reference::mask_scale(job);
    }

    /// Applies a mask and an affine map to f32.
    fn mask_affine_f32(&self, job: MaskAffine<'_, f32>) {
        reference::mask_affine(job);
    }

    /// Applies a mask and an affine map to f64.
    fn mask_affine_f64(&self, job: MaskAffine<'_, f64>) {
        reference::mask_affine(job);
    }

    /// Applies a mask and an affine map to bf16.
    fn mask_affine_bf16(&self, job: MaskAffine<'_, bf16>) {
        reference::mask_affine(job);
    }

    /// Applies a mask and an affine map to f16.
    fn mask_affine_f16(&self, job: MaskAffine<'_, f16>) {
        reference::mask_affine(job);
    }

    /// Makes a mask and applies it to f32.
    fn dropout_f32(&self, job: Dropout<'_, f32>) {
        job.compose(
            |fill| self.fill_mask(fill),
            |scale| self.mask_scale_f32(scale),
        );
    }

    /// Makes a mask and applies it to f64.
    fn dropout_f64(&self, job: Dropout<'_, f64>) {
        job.compose(
            |fill| self.fill_mask(fill),
            |scale| self.mask_scale_f64(scale),
        );
    }

    /// Makes a mask and applies it to bf16.
    fn dropout_bf16(&self, job: Dropout<'_, bf16>) {
        job.compose(
            |fill| self.fill_mask(fill),
            |scale| self.mask_scale_bf16(scale),
        );
    }

    /// Makes a mask and applies it to f16.
    fn dropout_f16(&self, job: Dropout<'_, f16>) {
        job.compose(
            |fill| self.fill_mask(fill),
            |scale| self.mask_scale_f16(scale),
        );
    }
}

/// The backend over an instruction set: hands each job to the kernel that is written once for all.
#[derive(Debug)]
pub(crate) struct SimdBackend<S>(S);

impl<S: Simd> SimdBackend<S> {
    pub(crate) fn new(simd: S) -> Self {
        Self(simd)
    }
}

impl<S: Simd> Backend for SimdBackend<S> {
    fn name(&self) -> &'static str {
        S::NAME
    }

    fn fill_mask(&self, job: FillMask<'_>) {
        self.0.vectorize(job);
    }

    fn mask_scale_f32(&self, job: MaskScale<'_, f32>) {
        self.0.vectorize(job);
    }

    fn mask_scale_f64(&self, job: MaskScale<'_, f64>) {
        self.0.vectorize(job);
    }

    fn mask_scale_bf16(&self, job: MaskScale<'_, bf16>) {
        self.0.vectorize(job);
    }

    fn mask_scale_f16(&self, job: MaskScale<'_, f16>) {
        self.0.vectorize(job);
    }

    fn mask_affine_f32(&self, job: MaskAffine<'_, f32>) {
        self.0.vectorize(job);
    }

    fn mask_affine_f64(&self, job: MaskAffine<'_, f64>) {
        self.0.vectorize(job);
    }

    fn mask_affine_bf16(&self, job: MaskAffine<'_, bf16>) {
        self.0.vectorize(job);
    }

    fn mask_affine_f16(&self, job: MaskAffine<'_, f16>) {
        self.0.vectorize(job);
    }

    fn dropout_f32(&self, job: Dropout<'_, f32>) {
        self.0.vectorize(job);
    }

    fn dropout_f64(&self, job: Dropout<'_, f64>) {
        self.0.vectorize(job);
    }

    fn dropout_bf16(&self, job: Dropout<'_, bf16>) {
        self.0.vectorize(job);
    }

    fn dropout_f16(&self, job: Dropout<'_, f16>) {
        self.0.vectorize(job);
    }
}
