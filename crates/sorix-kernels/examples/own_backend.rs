//! A foreign backend, in safe scalar Rust, held to the conformance kit and then used.
//!
//! It brings one kernel, inverted dropout of f32 by a mask, and leaves the others to the reference.
//!
//! ```text
//! cargo run -p sorix-kernels --features conformance --example own_backend
//! ```

use std::error::Error;

use half::{bf16, f16};
use sorix_kernels::backend::conformance::check_backend;
use sorix_kernels::backend::job::Apply;
use sorix_kernels::backend::{Backend, Kernels, MakeMasks, Pass, reference};
use sorix_kernels::{BitMask, Buffers, DropRate, Engine};

#[derive(Debug)]
struct WordByWord;

impl Backend for WordByWord {
    fn name(&self) -> &'static str {
        "word-by-word"
    }
}

impl MakeMasks for WordByWord {}
impl Kernels<f64> for WordByWord {}
impl Kernels<bf16> for WordByWord {}
impl Kernels<f16> for WordByWord {}

impl Kernels<f32> for WordByWord {
    fn apply(&self, job: Apply<'_, f32>) {
        let mask = job.mask();
        let Pass::Scale { scale } = job.update().pass() else {
            return reference::apply(job);
        };
        // `word` knows at which bit the mask begins.
        let mut word = 0;
        job.into_update().into_buffers().update(|i, x| {
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
    let x = [1.0, f32::NAN, 3.0];
    engine.apply(rate, &mask, Buffers::new(&x, &mut y)?)?;
    assert_eq!(y, [2.0, 0.0, 6.0]);
    println!("{y:?}");
    Ok(())
}
