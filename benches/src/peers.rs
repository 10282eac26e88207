//! Other libraries' dropout, measured in the same run: a forward pass in training mode, f32.

use std::fmt::Debug;

use anyhow::{Result, ensure};

use crate::case::Shape;
use crate::sample::{Measured, Sampling, in_turn};
use crate::step::Step;
use crate::tensors::copy;

#[cfg(feature = "peers")]
mod burn;
#[cfg(feature = "peers")]
mod candle;
#[cfg(feature = "peers")]
mod candle_step;
mod scalar;
mod torch;

/// A library with a dropout of its own.
pub trait Peer: Debug + Sync {
    /// The name in `"backend": "peer:NAME"`.
    fn name(&self) -> &'static str;

    /// Whether more threads could make it faster.
    fn threaded(&self) -> bool {
        true
    }

    /// About how many tensors of the input's size one call allocates.
    fn temporaries(&self) -> u64 {
        6
    }

    /// Checks a forward pass and samples it in turn with a copy, on the threads of the current
    /// rayon pool.
    ///
    /// # Errors
    ///
    /// Those of the library; and a result that is no dropout.
    fn measure(&self, setting: Setting<'_>) -> Result<Measured>;
}

/// What a peer is measured on.
#[derive(Debug)]
pub struct Setting<'a> {
    /// The input.
    pub input: &'a [f32],
    /// Where the copy goes.
    pub output: &'a mut [f32],
    /// The input's shape.
    pub shape: Shape,
    /// The drop probability.
    pub p: f64,
    /// The number of threads.
    pub threads: usize,
    /// How long to sample.
    pub sampling: Sampling,
}

/// The peers there are: the scalar loop always, frameworks in Rust with the feature `peers`, PyTorch
/// where a Python that has it is on PATH. Also says, in a line each, what is left out and why.
#[must_use]
pub fn available() -> (Vec<Box<dyn Peer>>, Vec<String>) {
    let mut peers: Vec<Box<dyn Peer>> = vec![
        Box::new(scalar::Scalar),
        #[cfg(feature = "peers")]
        Box::new(candle::Candle),
        #[cfg(feature = "peers")]
        Box::new(burn::Burn),
    ];
    let mut left_out = Vec::new();
    match torch::Torch::start() {
        Ok(torch) => peers.push(Box::new(torch)),
        Err(why) => left_out.push(format!("peer:torch is left out: {why}")),
    }
    (peers, left_out)
}

/// The training steps of other libraries, of the network of [`step`](crate::step), each with the
/// library's name: none without the feature `peers`.
///
/// # Errors
///
/// Those of the libraries.
pub fn training_steps() -> Result<Vec<(&'static str, Step)>> {
    Ok(vec![
        #[cfg(feature = "peers")]
        ("candle", candle_step::step()?),
    ])
}

/// A forward pass of a library in this process, ready to be called.
trait Forward: Send {
    /// Calls it once and keeps what it returns.
    fn call(&mut self) -> Result<()>;

    /// What the last call returned.
    fn output(&self) -> Result<Vec<f32>>;
}

fn measure_in_process(setting: Setting<'_>, mut forward: impl Forward) -> Result<Measured> {
    let Setting {
        input,
        output,
        p,
        threads,
        sampling,
        ..
    } = setting;
    forward.call()?;
    check(input, &forward.output()?, p)?;
    let mut failed = None;
    let measured = in_turn(
        sampling,
        &mut (forward, output),
        |(forward, _)| failed = forward.call().err().or(failed.take()),
        |(_, output)| copy(input, output, threads),
    );
    failed.map_or(Ok(measured), Err)
}

/// Makes sure that `output` is a dropout of `input`, so that nothing else is timed: every element is
/// zero or scaled, and as many are dropped as p says, within six standard deviations.
fn check(input: &[f32], output: &[f32], p: f64) -> Result<()> {
    ensure!(
        input.len() == output.len(),
        "{} elements became {}",
        input.len(),
        output.len()
    );
    let scale = (1.0 / (1.0 - p)) as f32;
    let (mut elements, mut dropped) = (0_u64, 0_u64);
    for (&x, &y) in input.iter().zip(output).filter(|(x, _)| **x != 0.0) {
        elements += 1;
        if y == 0.0 {
            dropped += 1;
        } else {
            ensure!(
                (y - x * scale).abs() <= 1e-5 * x.abs(),
                "{x} became {y}, not {}",
                x * scale
            );
        }
    }
    let (n, expected) = (elements as f64, elements as f64 * p);
    ensure!(
        (dropped as f64 - expected).abs() <= 6.0 * (n * p * (1.0 - p)).sqrt(),
        "{dropped} of {elements} elements dropped at p = {p}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_dropout_is_found_out() {
        let input = vec![1.0; 10_000];
        assert!(check(&input, &input, 0.5).is_err(), "nothing scaled");
        assert!(
            check(&input, &vec![2.0; 10_000], 0.5).is_err(),
            "nothing dropped"
        );
        assert!(check(&input, &[2.0], 0.5).is_err(), "another length");
        let mut output = vec![2.0; 10_000];
        output[..5_000].fill(0.0);
        check(&input, &output, 0.5).unwrap();
    }

    #[test]
    fn every_peer_there_is_can_be_measured() {
        let shape = Shape(&[64, 1024]);
        let input: Vec<f32> = (1..=shape.elements()).map(|i| i as f32 / 1024.0).collect();
        for peer in available().0 {
            for p in [0.1, 0.5] {
                let mut output = vec![0.0; input.len()];
                let setting = Setting {
                    input: &input,
                    output: &mut output,
                    shape,
                    p,
                    threads: 1,
                    sampling: Sampling::QUICK,
                };
                let measured = peer.measure(setting).unwrap();
                assert!(measured.ratio > 0.0, "{}: {measured:?}", peer.name());
            }
        }
    }
}
