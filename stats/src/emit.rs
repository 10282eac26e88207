//! Random bytes for outside batteries, made from masks.

use std::io::{self, Write};

use anyhow::Result;

use crate::stream::Stream;

/// Writes fair bits made from a stream's decisions, little-endian words, until `limit` bytes are
/// written or the reader goes away.
///
/// At p = 1/2 these are the decisions themselves. At another p they are von Neumann's: of elements
/// 2j and 2j + 1, where one is kept and the other dropped, whether the first is kept; nothing where
/// the two are alike.
///
/// # Errors
///
/// Where the masks cannot be made, or writing fails for another reason than a closed pipe.
pub fn emit(stream: &Stream<'_>, limit: Option<u64>, out: &mut impl Write) -> Result<()> {
    const ELEMENTS: u64 = crate::stream::CHUNK;
    let fair = stream.rate.p() == 0.5;
    let mut extractor = VonNeumann::default();
    let mut mask = sorix_kernels::BitMask::new(ELEMENTS as usize);
    let mut bytes = Vec::new();
    let mut left = limit.unwrap_or(u64::MAX);
    let mut first = 0;
    while left > 0 {
        stream.fill(first, &mut mask)?;
        first += ELEMENTS / crate::stream::BLOCK;
        bytes.clear();
        if fair {
            bytes.extend(mask.words().iter().flat_map(|word| word.to_le_bytes()));
        } else {
            extractor.extract(mask.words(), &mut bytes);
        }
        let some = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match out.write_all(&bytes[..some]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
        left -= some as u64;
    }
    out.flush().or_else(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error.into()),
    })
}

/// Bits that did not fill a word yet.
#[derive(Clone, Copy, Debug, Default)]
struct VonNeumann {
    word: u64,
    bits: u32,
}

impl VonNeumann {
    fn extract(&mut self, words: &[u64], out: &mut Vec<u8>) {
        const FIRST_OF_PAIR: u64 = 0x5555_5555_5555_5555;
        for &word in words {
            let mut unlike = (word ^ word >> 1) & FIRST_OF_PAIR;
            while unlike != 0 {
                let bit = word >> unlike.trailing_zeros() & 1;
                unlike &= unlike - 1;
                self.word |= bit << self.bits;
                self.bits += 1;
                if self.bits == u64::BITS {
                    out.extend(self.word.to_le_bytes());
                    *self = Self::default();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn von_neumann_takes_the_first_of_unlike_pairs() {
        let mut out = Vec::new();
        let mut extractor = VonNeumann::default();
        // The pairs of 0b01_10_11_00, lowest first: alike, alike, 0 then 1, 1 then 0.
        extractor.extract(&[0b01_10_11_00], &mut out);
        assert_eq!((extractor.word, extractor.bits), (0b10, 2));
        assert!(out.is_empty());
        // Thirty-one words of two bits fill the word.
        extractor.extract(&[0b01_10_11_00; 31], &mut out);
        assert_eq!(out, [0b1010_1010; 8]);
        assert_eq!(extractor.bits, 0);
    }
}
