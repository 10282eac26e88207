//! [`BitMask::drop_blocks`]: whole blocks in place of single elements.

use crate::error::LengthError;
use crate::mask::{BitMask, WORD};

impl BitMask {
    /// Drops a block for each element that is dropped: that element, the seed, is the upper left
    /// corner of its block. All other elements are kept.
    ///
    /// The mask is a number of planes of `[rows, columns]` elements, one after another, and a block
    /// has `[rows, columns]` elements of one plane. A seed whose block would reach beyond its plane
    /// drops nothing, not even itself. In the terms of image processing this dilates the dropped
    /// elements by a rectangle.
    ///
    /// # Errors
    ///
    /// [`LengthError`] if the mask does not consist of whole planes. The mask is as it was then.
    ///
    /// ```
    /// use sorix_kernels::BitMask;
    ///
    /// let (o, i) = (false, true);
    /// #[rustfmt::skip]
    /// let mut mask = BitMask::from_bools(&[
    ///     i, o, i, i, // a block of 2 by 3 fits here
    ///     i, i, o, i, // and not here
    ///     i, i, i, i,
    /// ]);
    /// mask.drop_blocks([3, 4], [2, 3])?;
    /// #[rustfmt::skip]
    /// assert_eq!(mask.to_bools(), [
    ///     i, o, o, o,
    ///     i, o, o, o,
    ///     i, i, i, i,
    /// ]);
    /// assert!(mask.drop_blocks([5, 2], [2, 2]).is_err()); // 12 elements are no planes of 10
    /// # Ok::<(), sorix_kernels::LengthError>(())
    /// ```
    pub fn drop_blocks(&mut self, plane: [usize; 2], block: [usize; 2]) -> Result<(), LengthError> {
        let in_plane = plane[0].saturating_mul(plane[1]);
        let beyond = self.len.checked_rem(in_plane).unwrap_or(self.len);
        LengthError::check("mask, in whole planes", self.len - beyond, self.len)?;
        if (0..2).any(|axis| block[axis] == 0 || block[axis] > plane[axis]) {
            self.fill(true);
            return Ok(());
        }
        // From here on 1 is dropped.
        invert(&mut self.words);
        clear_misfits(&mut self.words, plane, block);
        // No block that is left reaches into the next row or plane, so the rows of all planes are
        // shifted at once, as one long string of bits.
        repeat(&mut self.words, block[1], 1);
        repeat(&mut self.words, block[0], plane[1]);
        invert(&mut self.words);
        self.as_slice_mut().clear_surplus();
        Ok(())
    }
}

fn invert(words: &mut [u64]) {
    for word in words {
        *word = !*word;
    }
}

/// Clears the seeds whose block reaches beyond the plane. They are looked at one by one, as they are
/// few unless nearly everything is dropped.
fn clear_misfits(seeds: &mut [u64], [rows, columns]: [usize; 2], block: [usize; 2]) {
    for (i, word) in seeds.iter_mut().enumerate() {
        let mut left = *word;
        while left != 0 {
            let bit = left & left.wrapping_neg();
            left ^= bit;
            let at = i * WORD + bit.trailing_zeros() as usize;
            let (row, column) = (at / columns % rows, at % columns);
            if row > rows - block[0] || column > columns - block[1] {
                *word ^= bit;
            }
        }
    }
}

/// After each bit that is set, sets the next `times - 1` at distances of `step`.
fn repeat(words: &mut [u64], times: usize, step: usize) {
    let mut done = 1;
    while done < times {
        // Twice as many each time.
        let more = done.min(times - done);
        or_shifted(words, more * step);
        done += more;
    }
}

/// `bits |= bits << by`, for a long string of bits.
fn or_shifted(words: &mut [u64], by: usize) {
    let (skip, shift) = (by / WORD, by % WORD);
    for i in (skip..words.len()).rev() {
        let mut moved = words[i - skip] << shift;
        if shift > 0 && i > skip {
            moved |= words[i - skip - 1] >> (WORD - shift);
        }
        words[i] |= moved;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DropRate, MaskKey, dropout};

    /// Position by position, from the definition.
    fn naive(seeds: &BitMask, [rows, columns]: [usize; 2], block: [usize; 2]) -> Vec<bool> {
        let mut keep = vec![true; seeds.len()];
        for (at, kept) in seeds.iter().enumerate() {
            let (row, column) = (at / columns % rows, at % columns);
            if !kept && row + block[0] <= rows && column + block[1] <= columns {
                for down in 0..block[0] {
                    for right in 0..block[1] {
                        keep[at + down * columns + right] = false;
                    }
                }
            }
        }
        keep
    }

    #[test]
    fn blocks_are_those_of_the_definition() {
        for plane in [[1, 1], [7, 7], [5, 70], [70, 5], [13, 64], [9, 130]] {
            for block in [
                [1, 1],
                [2, 2],
                [3, 1],
                [1, 5],
                [7, 64],
                [5, 5],
                [0, 3],
                [71, 1],
            ] {
                for p in [0.0, 0.01, 0.2, 0.7, 1.0] {
                    let mut mask = BitMask::new(6 * plane[0] * plane[1]);
                    let (rate, key) = (DropRate::new(p).unwrap(), MaskKey::new(3, 9));
                    dropout::fill_mask(rate, key, &mut mask).unwrap();
                    let expected = naive(&mask, plane, block);
                    mask.drop_blocks(plane, block).unwrap();
                    // As words, so that a surplus bit shows too.
                    let expected = BitMask::from_bools(&expected);
                    assert_eq!(mask.words(), expected.words(), "{plane:?} {block:?} {p}");
                }
            }
        }
    }

    #[test]
    fn planes_that_do_not_divide_the_mask_change_nothing() {
        let before = BitMask::from_bools(&[true, false, true, false, true, true]);
        for plane in [[4, 1], [0, 6], [usize::MAX, 2], [7, 1]] {
            let mut mask = before.clone();
            let error = mask.drop_blocks(plane, [1, 1]).unwrap_err();
            assert_eq!(error.got, 6);
            assert_eq!(mask, before);
        }
        let error = before.clone().drop_blocks([2, 2], [1, 1]).unwrap_err();
        let expected = "length of mask, in whole planes: expected 4, got 6";
        assert_eq!(error.to_string(), expected);
        assert_eq!(BitMask::new(0).drop_blocks([0, 6], [1, 1]), Ok(()));
    }
}
