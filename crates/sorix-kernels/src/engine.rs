//! [`Engine`]: a backend and how to run it.

mod activation;
mod norm;

use crate::affine::Affine;
use crate::backend::Backend;
use crate::broadcast::Broadcast;
use crate::buffers::Buffers;
use crate::cache::output_bytes;
use crate::dispatch;
use crate::element::Element;
use crate::environment;
use crate::error::{BackendError, Error, LengthError};
use crate::function::Function;
use crate::job::{
    Apply, ApplyBroadcast, Covered, Dropout, DropoutRegion, FillMask, FillRegion, Map, Settle,
    Update, map_work,
};
use crate::mask::{BitMask, BitSlice, BitSliceMut, WORD};
use crate::parallel::{self, Split};
use crate::pass::{Dropped, Pass};
use crate::rate::{DropRate, Keep};
use crate::region::{MaskRegion, Part};

/// A backend and how to run it: on the rayon thread pool if that pays, or on this thread alone.
///
/// The functions in [`dropout`](crate::dropout) are these methods on [`Engine::active`], and their docs say
/// what each computes. A method takes [`Buffers`], which are an input and an output, or one slice that is
/// rewritten in place. Make your own engine to name the backend or to rule out threads.
///
/// ```
/// use sorix_kernels::{BitMask, Buffers, DropRate, Engine, MaskKey, dispatch};
///
/// let engine = Engine::new(dispatch::by_name("portable")?).sequential();
/// let mut mask = BitMask::new(4);
/// let mut y = [0.0_f32; 4];
/// let (rate, key) = (DropRate::new(1.0)?, MaskKey::new(1, 0));
/// engine.forward(rate, key, Buffers::new(&[1.0; 4], &mut y)?, &mut mask)?;
/// assert_eq!(y, [0.0; 4]);
/// engine.forward(rate, key, Buffers::in_place(&mut y), &mut mask)?;
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
    /// The [active](dispatch::active) backend, with threads if they pay, and streaming stores
    /// for outputs of more bytes than the environment variable `SORIX_STREAMING_ABOVE` says, by
    /// default than a cache keeps for one program.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if `SORIX_BACKEND` names a backend that is unknown or not supported, or
    /// `SORIX_STREAMING_ABOVE` is not a number.
    pub fn active() -> Result<Self, BackendError> {
        let engine = Self::new(dispatch::active()?);
        Ok(match environment::streaming_above()? {
            Some(bytes) => engine.streaming_above(bytes),
            None => engine,
        })
    }
}

impl<'b> Engine<'b> {
    /// Runs `backend`, with threads if they pay.
    #[must_use]
    pub fn new(backend: &'b dyn Backend) -> Self {
        Self {
            backend,
            sequential: false,
            streaming_above: output_bytes(),
        }
    }

    /// Writes outputs of more than `bytes` bytes with stores that bypass the cache, smaller ones with
    /// ordinary stores. Outputs that are rewritten in place always get ordinary stores.
    ///
    /// The default is a quarter of the last-level cache as the system reports it, at most 32 MiB: a
    /// larger cache is shared with other programs. A store that bypasses the cache does not first read
    /// the old content of the output, but leaves nothing in the cache for the next reader.
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
        self.fill_part(rate, region, 0, mask)
    }

    /// The bits of a part of a region: as many as `mask` has elements, from the region's element `first` on.
    /// The region has so many; the caller has checked it.
    pub(crate) fn fill_part(
        self,
        rate: DropRate,
        region: MaskRegion,
        first: usize,
        mask: &mut BitMask,
    ) -> Result<(), Error> {
        match rate.keep() {
            Keep::Nothing => mask.fill(false),
            Keep::Everything => mask.fill(true),
            Keep::By(rule) => {
                // Words of a mask cost about as much to make as this many times their bytes to
                // copy, which is what the threshold for threads is measured in.
                const BYTES_PER_ELEMENT: usize = 2;
                let bytes = mask.len().saturating_mul(BYTES_PER_ELEMENT);
                let out = mask.as_slice_mut();
                let fill = |job: FillMask<'_>| self.backend.fill_mask(job);
                match region.part() {
                    Part::Window { window, .. } => {
                        // Of an empty part this may be beyond the last element, and is not used.
                        let begin = window.first.wrapping_add(first as u64);
                        let window = window.key.window(begin);
                        self.run(FillMask::new(window, &rule, out)?, bytes, fill);
                    }
                    Part::Strided(strided) => {
                        let job = FillRegion::new(strided, first, &rule, out);
                        self.run(job, bytes, |job| job.compose(fill));
                    }
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
        buffers: Buffers<'_, T>,
        mask: &mut BitMask,
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Pass::scale(rate), buffers, Some(mask))
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
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Pass::scale(rate), buffers, None)
    }

    /// See [`dropout::dropout_add`](crate::dropout::dropout_add) and
    /// [`dropout::bias_dropout_add`](crate::dropout::bias_dropout_add). The input of `buffers` is the
    /// residual, and beside it is x, [as many elements](Buffers::with_elements), and the bias, if there is
    /// one, as a [row](Buffers::with_row).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn dropout_add<T: Element>(
        self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        buffers: Buffers<'_, T>,
        mask: Option<&mut BitMask>,
    ) -> Result<(), Error> {
        self.make_and_apply(rate, at.into(), Pass::add_scaled(rate), buffers, mask)
    }

    /// See [`dropout::dropout_add_broadcast`](crate::dropout::dropout_add_broadcast). The input of
    /// `buffers` is the residual, and x is beside it, with or without the row of a bias.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn dropout_add_broadcast<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        shape: &Broadcast,
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        let mask = mask.into();
        check_cover(mask, shape, &buffers)?;
        let update = Update::new(Pass::add_scaled(rate), buffers)?;
        match rate.keep() {
            Keep::Nothing => self.settle(false, update, None),
            Keep::By(_) | Keep::Everything => self.cover(mask, shape, update),
        }
        Ok(())
    }

    /// See [`dropout::apply`](crate::dropout::apply), and [`dropout::backward`](crate::dropout::backward),
    /// which is the same of a gradient.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        let mask = mask.into();
        LengthError::check("mask", buffers.len(), mask.len())?;
        let update = Update::new(Pass::scale(rate), buffers)?;
        let bytes = update.bytes();
        match rate.keep() {
            Keep::Nothing => self.settle(false, update, None),
            // Kept means unchanged, down to the bits of a signalling NaN, which a multiplication by 1
            // would change.
            Keep::Everything if mask.count_kept() == mask.len() => self.settle(true, update, None),
            Keep::Everything => self.run(Apply::new(mask, update)?, bytes, |job| {
                let mut keep = job.mask().iter();
                let buffers = job.into_update().into_buffers();
                buffers.update(|_, x| {
                    if keep.next() == Some(true) {
                        x
                    } else {
                        T::ZERO
                    }
                });
            }),
            Keep::By(_) => self.run(Apply::new(mask, self.sized(update))?, bytes, |job| {
                T::kernels(self.backend).apply(job);
            }),
        }
        Ok(())
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
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        let mask = mask.into();
        check_cover(mask, shape, &buffers)?;
        let update = Update::new(Pass::scale(rate), buffers)?;
        match rate.keep() {
            Keep::Nothing => self.settle(false, update, None),
            // As in `apply`.
            Keep::Everything if mask.count_kept() == mask.len() => self.settle(true, update, None),
            Keep::Everything => {
                let buffers = update.into_buffers();
                buffers.update(|i, x| match mask.get(shape.bit_of(i)) {
                    Some(true) => x,
                    _ => T::ZERO,
                });
            }
            Keep::By(_) => self.cover(mask, shape, update),
        }
        Ok(())
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
        buffers: Buffers<'_, T>,
    ) -> Result<(), Error> {
        let mask = mask.into();
        check_cover(mask, shape, &buffers)?;
        self.cover(mask, shape, Update::new(Pass::affine(affine), buffers)?);
        Ok(())
    }

    /// See [`function::map`](crate::function::map); with elements beside the input of `buffers`, see
    /// [`function::map_times`](crate::function::map_times); with a row, it is added to the input first.
    ///
    /// ```
    /// use sorix_kernels::{Buffers, Engine, Function, dispatch};
    /// let engine = Engine::new(dispatch::by_name("portable")?).sequential();
    /// let mut x = [0.0_f32, f32::NEG_INFINITY];
    /// engine.map(Function::Sigmoid, Buffers::in_place(&mut x));
    /// assert_eq!(x, [0.5, 0.0]);
    /// # Ok::<(), sorix_kernels::Error>(())
    /// ```
    pub fn map<T: Element>(self, function: Function, buffers: Buffers<'_, T>) {
        let len = buffers.len();
        let job = Map::new(function, buffers).streaming(self.streams::<T>(len));
        self.run(job, map_work::<T>(len), |job| {
            T::kernels(self.backend).map(job);
        });
    }

    /// Applies a mask that covers the elements by repetition.
    fn cover<T: Element>(self, mask: BitSlice<'_>, shape: &Broadcast, update: Update<'_, T>) {
        let bytes = update.bytes();
        let job = ApplyBroadcast::new(mask, shape, self.sized(update));
        self.run(job, bytes, |job| {
            job.compose(|covered, update| match covered {
                Covered::Bits(mask) => self.apply_bits(mask, update, None),
                Covered::Kept => self.apply_one_bit(true, update, None),
                Covered::Dropped => self.apply_one_bit(false, update, None),
            });
        });
    }

    /// Applies as many bits as there are elements, of which those that are left go to `out`.
    fn apply_bits<T: Element>(
        self,
        mask: BitSlice<'_>,
        update: Update<'_, T>,
        out: Option<BitSliceMut<'_>>,
    ) {
        let job = Apply::new(mask, update);
        let job = job.and_then(|job| match out {
            Some(out) => job.leaving(out),
            None => Ok(job),
        });
        T::kernels(self.backend).apply(job.expect("the caller has a bit for each element"));
    }

    /// Keeps all elements, or drops all. If they are kept, the bits that are left go to `out`.
    fn apply_one_bit<T: Element>(
        self,
        kept: bool,
        update: Update<'_, T>,
        mut out: Option<BitSliceMut<'_>>,
    ) {
        /// The bits of a run of elements.
        static KEPT: [u64; 256] = [u64::MAX; 256];
        if !kept {
            // The system's fast paths. A second input is not read.
            return match update.pass().dropped() {
                Dropped::Constant(constant) => update.into_buffers().output().fill(constant),
                Dropped::Input => update.into_buffers().copy(),
            };
        }
        let mut rest = update;
        while !rest.is_empty() {
            let n = rest.len().min(KEPT.len() * WORD);
            let (now, later) = rest.split_at(n);
            let (out_now, out_later) = out.map(|out| out.split_at(n)).unzip();
            self.apply_bits(BitSlice::of_words(&KEPT, 0, n), now, out_now);
            (rest, out) = (later, out_later);
        }
    }

    /// Makes a mask and applies `pass` by it; the bits go to `mask` if there is one.
    pub(crate) fn make_and_apply<T: Element>(
        self,
        rate: DropRate,
        region: MaskRegion,
        pass: Pass<T>,
        buffers: Buffers<'_, T>,
        mut mask: Option<&mut BitMask>,
    ) -> Result<(), Error> {
        if let Some(mask) = &mask {
            LengthError::check("mask", buffers.len(), mask.len())?;
        }
        region.check_len(buffers.len())?;
        let update = Update::new(pass, buffers)?;
        match rate.keep() {
            Keep::Nothing => {
                self.settle(false, update, None);
                if let Some(mask) = mask {
                    mask.fill(false);
                }
            }
            Keep::Everything => {
                if let Some(mask) = &mut mask {
                    mask.fill(true);
                }
                let decides = pass.decides();
                let out = mask.as_deref_mut().filter(|_| decides);
                self.settle(true, update, out.map(BitMask::as_slice_mut));
                if let Some(mask) = mask {
                    mask.as_slice_mut().clear_surplus();
                }
            }
            Keep::By(rule) => {
                let (bytes, update) = (update.bytes(), self.sized(update));
                let out = mask.as_deref_mut().map(BitMask::as_slice_mut);
                let kernels = T::kernels(self.backend);
                match region.part() {
                    Part::Window { window, .. } => {
                        let job = Dropout::new(window, &rule, update, out)?;
                        self.run(job, bytes, |job| kernels.dropout(job));
                    }
                    Part::Strided(strided) => {
                        let job = DropoutRegion::new(strided, &rule, update, out);
                        self.run(job, bytes, |job| {
                            job.compose(
                                |fill| self.backend.fill_mask(fill),
                                |apply| kernels.apply(apply),
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

    /// Keeps or drops all elements, at a rate that is not worth a random bit. The bits that are left of kept
    /// ones go to `out`, if they are wanted.
    pub(crate) fn settle<T: Element>(
        self,
        kept: bool,
        update: Update<'_, T>,
        out: Option<BitSliceMut<'_>>,
    ) {
        let bytes = update.bytes();
        let update = self.sized(update);
        let job = Settle { kept, update, out };
        self.run(job, bytes, |Settle { kept, update, out }| {
            match update.pass() {
                // The scale of such a rate rounds to 1.
                Pass::Scale { .. } if kept => update.into_buffers().copy(),
                _ => self.apply_one_bit(kept, update, out),
            }
        });
    }

    /// Says whether the output is large enough to be written around the cache.
    pub(crate) fn sized<'a, T: Element>(self, update: Update<'a, T>) -> Update<'a, T> {
        let streaming = self.streams::<T>(update.len());
        update.streaming(streaming)
    }

    /// Whether an output of so many elements is large enough to be written around the cache.
    fn streams<T>(self, len: usize) -> bool {
        len * size_of::<T>() > self.streaming_above
    }

    pub(crate) fn run<J: Split>(self, job: J, bytes: usize, kernel: impl Fn(J) + Sync) {
        if self.sequential {
            kernel(job);
        } else {
            parallel::run(job, bytes, &kernel);
        }
    }
}

fn check_cover<T: Element>(
    mask: BitSlice<'_>,
    shape: &Broadcast,
    buffers: &Buffers<'_, T>,
) -> Result<(), LengthError> {
    LengthError::check("input", shape.len(), buffers.len())?;
    LengthError::check("mask", shape.mask_len(), mask.len())
}

/// The bits of elements `first..first + mask.len()` of a region, for an operation that makes them where it
/// needs them.
///
/// # Errors
///
/// If the region does not reach so far, as [`MaskRegion::check_len`].
pub fn fill_part(
    engine: Engine<'_>,
    rate: DropRate,
    region: MaskRegion,
    first: usize,
    mask: &mut BitMask,
) -> Result<(), Error> {
    let end = first.saturating_add(mask.len());
    match region.len() {
        Some(len) if end <= len => {}
        Some(len) => LengthError::check("shard (at least)", end, len)?,
        None => region.check_len(end)?,
    }
    engine.fill_part(rate, region, first, mask)
}
