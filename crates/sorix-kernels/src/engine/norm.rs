//! The methods of [`Engine`] for normalised rows.

use crate::element::Element;
use crate::engine::Engine;
use crate::error::{AllocationError, Error, LengthError};
use crate::job::{DropoutAddNorm, NormBackward, ROWS_OF_BLOCK, RowMask};
use crate::mask::{BitMask, BitSlice};
use crate::norm::{AddNorm, NormGradient, RowMoments};
use crate::rate::{DropRate, Keep};
use crate::region::{MaskRegion, Part};

impl Engine<'_> {
    /// See [`dropout::dropout_add_norm`](crate::dropout::dropout_add_norm).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn dropout_add_norm<T: Element>(
        self,
        rate: DropRate,
        at: impl Into<MaskRegion>,
        rows: AddNorm<'_, T>,
        mask: Option<&mut BitMask>,
    ) -> Result<(), Error> {
        let region = at.into();
        if let Some(mask) = &mask {
            LengthError::check("mask", rows.len(), mask.len())?;
        }
        region.check_len(rows.len())?;
        let scale = T::scale(rate);
        match rate.keep() {
            Keep::Nothing => {
                if let Some(mask) = mask {
                    mask.fill(false);
                }
                self.add_norm(scale, RowMask::Dropped, rows)
            }
            Keep::Everything => {
                if let Some(mask) = mask {
                    mask.fill(true);
                }
                self.add_norm(scale, RowMask::Kept, rows)
            }
            Keep::By(rule) => match (region.part(), mask) {
                (Part::Window { window, .. }, mut mask) => {
                    let made = RowMask::Made {
                        window,
                        rule: &rule,
                        out: mask.as_deref_mut().map(BitMask::as_slice_mut),
                    };
                    self.add_norm(scale, made, rows)?;
                    if let Some(mask) = mask {
                        mask.as_slice_mut().clear_surplus();
                    }
                    Ok(())
                }
                // The bits of a strided region are put together first.
                (Part::Strided(_), Some(mask)) => {
                    self.fill_mask(rate, region, mask)?;
                    self.add_norm(scale, RowMask::Bits(mask.as_slice()), rows)
                }
                (Part::Strided(_), None) => {
                    let mut mask = BitMask::try_new(rows.len())?;
                    self.fill_mask(rate, region, &mut mask)?;
                    self.add_norm(scale, RowMask::Bits(mask.as_slice()), rows)
                }
            },
        }
    }

    /// See [`dropout::apply_add_norm`](crate::dropout::apply_add_norm).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_add_norm<'m, T: Element>(
        self,
        rate: DropRate,
        mask: impl Into<BitSlice<'m>>,
        rows: AddNorm<'_, T>,
    ) -> Result<(), Error> {
        let mask = mask.into();
        LengthError::check("mask", rows.len(), mask.len())?;
        let mask = match rate.keep() {
            Keep::Nothing => RowMask::Dropped,
            Keep::By(_) | Keep::Everything => RowMask::Bits(mask),
        };
        self.add_norm(T::scale(rate), mask, rows)
    }

    fn add_norm<T: Element>(
        self,
        scale: T::Scale,
        mask: RowMask<'_>,
        rows: AddNorm<'_, T>,
    ) -> Result<(), Error> {
        if rows.is_empty() {
            rows.moments.fill(RowMoments::default());
            return Ok(());
        }
        let bytes = rows.bytes();
        let job = DropoutAddNorm::new(scale, mask, rows)?;
        self.run(job, bytes, |job| {
            T::kernels(self.backend()).dropout_add_norm(job);
        });
        Ok(())
    }

    /// See [`dropout::norm_backward`](crate::dropout::norm_backward).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn norm_backward<T: Element>(self, rows: NormGradient<'_, T>) -> Result<(), Error> {
        let NormGradient {
            norm,
            dz,
            sum,
            moments,
            more,
            d_sum,
            d_weight,
            d_shift,
        } = rows;
        let mut columns = Vec::new();
        let wanted = (d_weight.is_some() || d_shift.is_some()) && !dz.is_empty();
        if wanted {
            let blocks = moments.len().div_ceil(ROWS_OF_BLOCK);
            let numbers = blocks.saturating_mul(2 * norm.len());
            let bytes = (numbers as u64).saturating_mul(size_of::<f64>() as u64);
            let reserved = columns.try_reserve_exact(numbers);
            reserved.map_err(|_| AllocationError::new(bytes))?;
            columns.resize(numbers, 0.0);
        }
        if !dz.is_empty() {
            let job = NormBackward {
                norm,
                dz,
                sum,
                moments,
                more,
                d_sum,
                columns: wanted.then_some(&mut columns[..]),
            };
            let bytes = job.bytes();
            self.run(job, bytes, |job| {
                T::kernels(self.backend()).norm_backward(job);
            });
        }
        for (first, out) in [(0, d_weight), (norm.len(), d_shift)] {
            for (i, out) in out.into_iter().flatten().enumerate() {
                let of_blocks = columns.chunks(2 * norm.len()).map(|block| block[first + i]);
                *out = T::Scale::factor(of_blocks.fold(0.0, |sum, block| sum + block));
            }
        }
        Ok(())
    }
}
