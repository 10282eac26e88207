//! What one writes without a library: a loop over a good generator, a byte of mask per element.

use anyhow::Result;
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::{Pass, Peer, Setting, measure_in_process};
use crate::sample::Measured;

#[derive(Debug)]
pub(super) struct Scalar;

impl Peer for Scalar {
    fn backend(&self) -> &'static str {
        "peer:scalar-loop"
    }

    fn threaded(&self) -> bool {
        false
    }

    fn temporaries(&self) -> u64 {
        2
    }

    fn measure(&self, setting: Setting<'_>) -> Result<Measured> {
        let input = setting.input;
        let forward = Loop {
            input,
            output: vec![1.0; input.len()],
            mask: vec![1; input.len()],
            p: setting.p as f32,
            generator: Xoshiro256PlusPlus::seed_from_u64(42),
        };
        measure_in_process(setting, forward)
    }
}

struct Loop<'a> {
    input: &'a [f32],
    output: Vec<f32>,
    mask: Vec<u8>,
    p: f32,
    generator: Xoshiro256PlusPlus,
}

impl Pass for Loop<'_> {
    fn call(&mut self) -> Result<()> {
        let scale = 1.0 / (1.0 - self.p);
        for ((x, y), mask) in self.input.iter().zip(&mut self.output).zip(&mut self.mask) {
            // 24 bits make a uniform f32 in [0, 1).
            let uniform = (self.generator.next_u32() >> 8) as f32 / (1 << 24) as f32;
            let keep = uniform >= self.p;
            *mask = keep.into();
            *y = if keep { x * scale } else { 0.0 };
        }
        Ok(())
    }

    fn output(&self) -> Result<Vec<f32>> {
        Ok(self.output.clone())
    }
}
