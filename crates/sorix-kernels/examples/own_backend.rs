//! A backend of one's own, in safe scalar Rust, held to the conformance kit and then used.
//!
//! It brings one method, applying a mask to f32, and leaves the others to the reference.
//!
//! ```text
//! cargo run -p sorix-kernels --features conformance --example own_backend
//! ```

use std::error::Error;

use sorix_kernels::conformance::check_backend;
use sorix_kernels::job::MaskScale;
use sorix_kernels::{Backend, BitMask, DropRate, Engine};

#[derive(Debug)]
struct WordByWord;

impl Backend for WordByWord {
    fn name(&self) -> &'static str {
        "word-by-word"
    }

    fn mask_scale_f32(&self, job: MaskScale<'_, f32>) {
        let (mask, scale) = (job.mask(), job.scale());
        // `word` knows at which bit the mask begins.
        let mut word = 0;
        job.into_buffers().update(|i, x| {
            if i % 64 == 0 {
                word = mask.word(i / 64);
            }
            let keep = word >> (i % 64) & 1 == 1;
            // Selected, not multiplied by zero: a dropped NaN must become zero.
            if keep { x * scale } else { 0.0 }
        });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    println!("{}", check_backend(&WordByWord)?);

    let rate = DropRate::new(0.5)?;
    let mask = BitMask::from_bools(&[true, false, true]);
    let mut y = [0.0_f32; 3];
    let engine = Engine::new(&WordByWord);
    engine.apply(rate, &mask, &[1.0, f32::NAN, 3.0], &mut y)?;
    assert_eq!(y, [2.0, 0.0, 6.0]);
    println!("{y:?}");
    Ok(())
}
