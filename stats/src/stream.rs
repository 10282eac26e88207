//! [`Stream`]: the bits of masks one after the other, along elements or from mask to mask.

use std::fmt;

use sorix_kernels::{BitMask, DropRate, Error, MaskKey, MaskWindow, dropout, stream};

/// Elements that a mask decides together; a stream is made of whole blocks.
pub const BLOCK: u64 = stream::BLOCK as u64;

/// Elements of a tile, which has a generator of its own.
pub const TILE: u64 = stream::TILE as u64;

/// What makes masks: sorix, or in a test something that is deliberately wrong.
pub trait Source: fmt::Debug + Sync {
    /// Writes the mask of a window, whole blocks of it.
    ///
    /// # Errors
    ///
    /// If this machine does not have the backend, or the window reaches beyond the last index.
    fn fill(&self, rate: DropRate, at: MaskWindow, mask: &mut BitMask) -> Result<(), Error>;
}

/// The masks of sorix, made by the active backend.
#[derive(Clone, Copy, Debug)]
pub struct Sorix;

impl Source for Sorix {
    fn fill(&self, rate: DropRate, at: MaskWindow, mask: &mut BitMask) -> Result<(), Error> {
        dropout::fill_mask(rate, at, mask)
    }
}

/// From which masks the successive blocks of a stream are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Along {
    /// All of one mask, in order.
    Elements,
    /// The first block of every tile of one mask.
    Tiles,
    /// The first block of the mask of every offset.
    Offsets,
    /// The first block of the mask of every seed.
    Seeds,
}

impl Along {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Elements, Self::Tiles, Self::Offsets, Self::Seeds];

    /// The block number `index` of the stream that begins at `key`.
    fn block(self, key: MaskKey, index: u64) -> MaskWindow {
        let MaskKey { seed, offset } = key;
        match self {
            Self::Elements => key.window(index * BLOCK),
            Self::Tiles => key.window(index * TILE),
            Self::Offsets => MaskKey::new(seed, offset.wrapping_add(index)).into(),
            Self::Seeds => MaskKey::new(seed.wrapping_add(index), offset).into(),
        }
    }
}

impl fmt::Display for Along {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Elements => "elements",
            Self::Tiles => "tiles",
            Self::Offsets => "offsets",
            Self::Seeds => "seeds",
        })
    }
}

/// Bits of masks, block after block.
#[derive(Clone, Copy, Debug)]
pub struct Stream<'s> {
    /// Where the bits come from.
    pub source: &'s dyn Source,
    /// The probability of dropping.
    pub rate: DropRate,
    /// The first mask.
    pub key: MaskKey,
    /// How to go on from there.
    pub along: Along,
}

impl Stream<'_> {
    /// Writes as many words as asked for, from block number `first` of the stream on.
    ///
    /// # Errors
    ///
    /// As [`Source::fill`].
    pub fn fill(&self, first: u64, mask: &mut BitMask) -> Result<(), Error> {
        if self.along == Along::Elements {
            let at = self.along.block(self.key, first);
            return self.source.fill(self.rate, at, mask);
        }
        let len = mask.len();
        let mut words = std::mem::take(mask).into_words();
        let mut block = BitMask::new(BLOCK as usize);
        for (index, words) in (first..).zip(words.chunks_mut(stream::LANES)) {
            let at = self.along.block(self.key, index);
            self.source.fill(self.rate, at, &mut block)?;
            words.copy_from_slice(&block.words()[..words.len()]);
        }
        *mask = BitMask::from_words(words, len).expect("whole words");
        Ok(())
    }

    /// Calls `visit` with the words of the stream's first `elements` elements, in order, in chunks
    /// of whole blocks.
    ///
    /// # Errors
    ///
    /// As [`Source::fill`].
    pub fn for_each_chunk(
        &self,
        elements: u64,
        mut visit: impl FnMut(&[u64]),
    ) -> Result<(), Error> {
        let mut mask = BitMask::new(CHUNK.min(elements) as usize);
        for chunk in 0..elements.div_ceil(CHUNK) {
            let left = elements - chunk * CHUNK;
            if left < CHUNK {
                mask = BitMask::new(left as usize);
            }
            self.fill(chunk * (CHUNK / BLOCK), &mut mask)?;
            visit(mask.words());
        }
        Ok(())
    }
}

/// Elements that are made and looked at in one go: their words fit a core's cache.
pub const CHUNK: u64 = 1 << 20;
