//! [`Engine`]: a backend and how to run it.

use crate::affine::Affine;
use crate::backend::Backend;
use crate::broadcast::Broadcast;
use crate::buffers::Buffers;
use crate::cache::last_level_bytes;
use crate::dispatch;
use crate::element::Element;
use crate::error::{BackendError, Error, LengthError};
use crate::job::{
    Covered, Dropout, DropoutRegion, FillMask, FillRegion, MaskAffine, MaskBroadcast, MaskScale,
};
use crate::mask::{BitMask, BitSlice, WORD};
use crate::parallel::{self, Split};
use crate::rate::{DropRate, KeepThreshold};
use crate::region::MaskRegion;

/// A backend and how to run it: on the rayon thread pool where that pays, or on this thread alone.
///
/// The functions in [`dropout`](crate::dropout) are these methods on [`Engine::active`]; what they
/// mean is said there. Make an engine of your own to name the backend or to rule out threads.
///
/// ```
/// use sorix_kernels::{BitMask, DropRate, Engine, MaskKey, dispatch};
///
/// let engine = Engine::new(dispatch::by_name("portable")?).sequential();
/// let mut mask = BitMask::new(4);
/// let mut y = [0.0_f32; 4];
/// engine.forward(DropRate::new(1.0)?, MaskKey::new(1, 0), &[1.0; 4], &mut y, &mut mask)?;
/// assert_eq!(y, [0.0; 4]);
/// # Ok::<(), sorix_kernels::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Engine<'b> {
    backend: &'b dyn Backend,
    sequential: bool,
    /// Outputs larger than this are written around the cache.
    streaming_above: usize,
}

impl Engine<'static> {
    /// The [active](dispatch::active) backend, with threads where they pay, and streaming stores
    /// for outputs of more bytes than the environment variable `SORIX_STREAMING_ABOVE` says, by
    /// default as many as the last-level cache has.
    ///
    /// # Errors
    ///
    /// [`BackendError`] where `SORIX_BACKEND` names a backend that is unknown or not supported, or
    /// `SORIX_STREAMING_ABOVE` is not a number.
    pub fn active() -> Result<Self, BackendError> {
        let engine = Self::new(dispatch::active()?);
        Ok(match dispatch::streaming_above()? {
            Some(bytes) => engine.streaming_above(bytes),
            None => engine,
        })
    }
}

impl<'b> Engine<'b> {
    /// Runs `backend`, with threads where they pay.
    #[must_use]
    pub fn new(backend: &'b dyn Backend) -> Self {
        Self {
            backend,
            sequential: false,
            streaming_above: last_level_bytes(),
        }
    }

    /// Writes outputs of more than `bytes` bytes with stores that go around the cache, others with
    /// ordinary ones.
    ///
    /// The default is the size of the last-level cache as the system reports it. Around the cache
    /// saves reading the old content of the output, but leaves nothing there for the next reader.
    #[must_use]
    pub fn streaming_above(self, bytes: usize) -> Self {
        Self {
            streaming_above: bytes,
            ..self
        }
    }

    /// Runs on the calling thread alone.
    #[must_use]
    pub fn sequential(self) -> Self {
        Self {
            sequential: true,
            ..self
        }
    }

    /// The backend.
    #[must_use]
    pub fn backend(self) -> &'b dyn Backend {
        self.backend
    }

    /// See [`dropout::fill_mask`](crate::dropout::fill_mask).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn fill_mask(
        self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        mask: &mut BitMask,
    ) -> Result<(), Error> {
        let region = at.into();
        region.check_len(mask.len())?;
        match rate.keep_threshold() {
            KeepThreshold::Nothing => mask.fill(false),
            KeepThreshold::Everything => mask.fill(true),
            KeepThreshold::Below(threshold) => {
                // Words of a mask cost about as much to make as this many times their bytes to
                // copy, which is what the threshold for threads is measured in.
                const BYTES_PER_ELEMENT: usize = 2;
                let bytes = mask.len().saturating_mul(BYTES_PER_ELEMENT);
                let out = mask.as_slice_mut();
                let fill = |job: FillMask<'_>| self.backend.fill_mask(job);
                match region.as_window() {
                    Some(window) => self.run(FillMask::new(window, threshold, out)?, bytes, fill),
                    None => self.run(FillRegion::new(region, threshold, out), bytes, |job| {
                        job.compose(fill);
                    }),
                }
                mask.as_slice_mut().clear_surplus();
            }
        }
        Ok(())
    }

    /// See [`dropout::forward`](crate::dropout::forward).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn forward<T: Element>(
        self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        x: &[T],
        y: &mut [T],
        mask: &mut BitMask,
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Buffers::new(x, y)?, Some(mask))
    }

    /// See [`dropout::forward_in_place`](crate::dropout::forward_in_place).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn forward_in_place<T: Element>(
        self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        x: &mut [T],
        mask: &mut BitMask,
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Buffers::in_place(x), Some(mask))
    }

    /// See [`dropout::replay`](crate::dropout::replay).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn replay<T: Element>(
        self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        dy: &[T],
        dx: &mut [T],
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Buffers::new(dy, dx)?, None)
    }

    /// See [`dropout::replay_in_place`](crate::dropout::replay_in_place).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn replay_in_place<T: Element>(
        self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        dy: &mut [T],
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Buffers::in_place(dy), None)
    }

    /// See [`dropout::apply`](crate::dropout::apply).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        x: &[T],
        y: &mut [T],
    ) -> Result<(), Error> {
        self.apply_mask(rate, mask.into(), Buffers::new(x, y)?)
    }

    /// See [`dropout::apply_in_place`](crate::dropout::apply_in_place).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_in_place<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        x: &mut [T],
    ) -> Result<(), Error> {
        self.apply_mask(rate, mask.into(), Buffers::in_place(x))
    }

    /// See [`dropout::backward`](crate::dropout::backward).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn backward<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        dy: &[T],
        dx: &mut [T],
    ) -> Result<(), Error> {
        self.apply(rate, mask, dy, dx)
    }

    /// See [`dropout::backward_in_place`](crate::dropout::backward_in_place).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn backward_in_place<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        dy: &mut [T],
    ) -> Result<(), Error> {
        self.apply_in_place(rate, mask, dy)
    }

    /// See [`dropout::apply_broadcast`](crate::dropout::apply_broadcast).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_broadcast<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        shape: &Broadcast,
        x: &[T],
        y: &mut [T],
    ) -> Result<(), Error> {
        self.cover_by_rate(rate, mask.into(), shape, Buffers::new(x, y)?)
    }

    /// See [`dropout::apply_broadcast_in_place`](crate::dropout::apply_broadcast_in_place).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_broadcast_in_place<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        shape: &Broadcast,
        x: &mut [T],
    ) -> Result<(), Error> {
        self.cover_by_rate(rate, mask.into(), shape, Buffers::in_place(x))
    }

    /// See [`dropout::apply_affine`](crate::dropout::apply_affine).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_affine<'m, T: Element>(
        self,
        affine: Affine,
        mask: impl Into<BitSlice<'m>>,
        shape: &Broadcast,
        x: &[T],
        y: &mut [T],
    ) -> Result<(), Error> {
        let buffers = Buffers::new(x, y)?;
        check_cover(mask.into(), shape, &buffers)
            .map(|mask| self.cover(affine, mask, shape, buffers))
    }

    /// See [`dropout::apply_affine_in_place`](crate::dropout::apply_affine_in_place).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_affine_in_place<'m, T: Element>(
        self,
        affine: Affine,
        mask: impl Into<BitSlice<'m>>,
        shape: &Broadcast,
        x: &mut [T],
    ) -> Result<(), Error> {
        let buffers = Buffers::in_place(x);
        check_cover(mask.into(), shape, &buffers)
            .map(|mask| self.cover(affine, mask, shape, buffers))
    }

    fn cover_by_rate<T: Element>(
        self,
        rate: DropRate,
        mask: BitSlice<'_>,
        shape: &Broadcast,
        mut buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        let mask = check_cover(mask, shape, &buffers)?;
        match rate.keep_threshold() {
            KeepThreshold::Nothing => buffers.output().fill(T::ZERO),
            // As in `apply_mask`: kept means unchanged.
            KeepThreshold::Everything if mask.count_kept() == mask.len() => buffers.copy(),
            KeepThreshold::Everything => buffers.update(|i, x| match mask.get(shape.bit_of(i)) {
                Some(true) => x,
                _ => T::ZERO,
            }),
            KeepThreshold::Below(_) => {
                self.cover(Affine::scale(rate.scale()), mask, shape, buffers);
            }
        }
        Ok(())
    }

    fn cover<T: Element>(
        self,
        affine: Affine,
        mask: BitSlice<'_>,
        shape: &Broadcast,
        mut buffers: Buffers<'_, T>,
    ) {
        let bytes = bytes_moved(&buffers);
        let streaming = self.streaming(&mut buffers);
        let dropped = T::narrow(T::factor(affine.dropped));
        let apply = |mask: BitSlice<'_>, buffers: Buffers<'_, T>| {
            if affine.is_scale() {
                let job = MaskScale::of(mask, T::factor(affine.scale), buffers);
                T::mask_scale(self.backend, job.streaming(streaming));
            } else {
                T::mask_affine(self.backend, MaskAffine::of(mask, affine, buffers));
            }
        };
        let job = MaskBroadcast::new(mask, shape, buffers);
        self.run(job, bytes, |job| {
            job.compose(|covered, mut buffers| match covered {
                Covered::Bits(mask) => apply(mask, buffers),
                // A constant is filled in by the system's fast path.
                Covered::Dropped if affine.is_scale() => buffers.output().fill(T::ZERO),
                Covered::Dropped => buffers.output().fill(dropped),
                Covered::Kept => {
                    let mut buffers = Some(buffers);
                    while let Some(rest) = buffers.take().filter(|rest| !rest.is_empty()) {
                        let n = rest.len().min(ONES.len() * WORD);
                        let (now, later) = rest.split_at(n);
                        apply(BitSlice::of_words(&ONES, 0, n), now);
                        buffers = Some(later);
                    }
                }
            });
        });
    }

    fn make_and_apply<T: Element>(
        self,
        rate: DropRate,
        region: MaskRegion,
        mut buffers: Buffers<'_, T>,
        mut mask: Option<&mut BitMask>,
    ) -> Result<(), Error> {
        if let Some(mask) = &mask {
            LengthError::check("mask", buffers.len(), mask.len())?;
        }
        region.check_len(buffers.len())?;
        match rate.keep_threshold() {
            KeepThreshold::Nothing => {
                buffers.output().fill(T::ZERO);
                if let Some(mask) = mask {
                    mask.fill(false);
                }
            }
            KeepThreshold::Everything => {
                // The scale of such a p rounds to 1.
                buffers.copy();
                if let Some(mask) = mask {
                    mask.fill(true);
                }
            }
            KeepThreshold::Below(threshold) => {
                let bytes = bytes_moved(&buffers);
                let streaming = self.streaming(&mut buffers);
                let out = mask.as_deref_mut().map(BitMask::as_slice_mut);
                let scale = T::scale(rate);
                match region.as_window() {
                    Some(window) => {
                        let job = Dropout::new(window, threshold, scale, buffers, out)?;
                        self.run(job.streaming(streaming), bytes, |job| {
                            T::dropout(self.backend, job)
                        });
                    }
                    None => {
                        let job = DropoutRegion::new(region, threshold, scale, buffers, out);
                        self.run(job.streaming(streaming), bytes, |job| {
                            job.compose(
                                |fill| self.backend.fill_mask(fill),
                                |scale| T::mask_scale(self.backend, scale),
                            );
                        });
                    }
                }
                if let Some(mask) = mask {
                    mask.as_slice_mut().clear_surplus();
                }
            }
        }
        Ok(())
    }

    fn apply_mask<T: Element>(
        self,
        rate: DropRate,
        mask: BitSlice<'_>,
        mut buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        LengthError::check("mask", buffers.len(), mask.len())?;
        match rate.keep_threshold() {
            KeepThreshold::Nothing => {
                buffers.output().fill(T::ZERO);
                return Ok(());
            }
            // The scale is 1, and kept means unchanged, down to the bits of a signalling NaN, which
            // a multiplication would change.
            KeepThreshold::Everything if mask.count_kept() == mask.len() => {
                buffers.copy();
                return Ok(());
            }
            KeepThreshold::Everything => {
                let mut keep = mask.iter();
                buffers.update(|_, x| {
                    if keep.next() == Some(true) {
                        x
                    } else {
                        T::ZERO
                    }
                });
                return Ok(());
            }
            KeepThreshold::Below(_) => {}
        }
        let bytes = bytes_moved(&buffers);
        let streaming = self.streaming(&mut buffers);
        let job = MaskScale::new(mask, T::scale(rate), buffers)?;
        self.run(job.streaming(streaming), bytes, |job| {
            T::mask_scale(self.backend, job)
        });
        Ok(())
    }

    fn streaming<T: Element>(self, buffers: &mut Buffers<'_, T>) -> bool {
        size_of_val(buffers.output()) > self.streaming_above
    }

    fn run<J: Split>(self, job: J, bytes: usize, kernel: impl Fn(J) + Sync) {
        if self.sequential {
            kernel(job);
        } else {
            parallel::run(job, bytes, &kernel);
        }
    }
}

/// The bits of a run of kept elements.
static ONES: [u64; 256] = [u64::MAX; 256];

fn check_cover<'m, T: Element>(
    mask: BitSlice<'m>,
    shape: &Broadcast,
    buffers: &Buffers<'_, T>,
) -> Result<BitSlice<'m>, Error> {
    LengthError::check("input", shape.len(), buffers.len())?;
    LengthError::check("mask", shape.mask_len(), mask.len())?;
    Ok(mask)
}

/// Bytes read and written.
fn bytes_moved<T: Element>(buffers: &Buffers<'_, T>) -> usize {
    2 * size_of::<T>() * buffers.len()
}
