//! Other libraries' dropout, measured in the same run as sorix's, in f32: a forward pass in training
//! mode, and forward and backward.
//!
//! What needs no framework is here: a scalar loop, sorix's kernels into new vectors, and PyTorch in a process
//! of its own. Frameworks in
//! Rust are hundreds of crates, so the program that brings them, `adapters/peers`, is in another
//! workspace; it hands them over as [`Frameworks`].

use std::fmt::{self, Debug};

use anyhow::{Context, Result, ensure};

use crate::case::Shape;
use crate::op::Op;
use crate::rest::rest;
use crate::sample::{Measured, Sampling, in_turn_rested};
use crate::step::Step;
use crate::tensors::copy;

mod scalar;
mod torch;
mod vectors;

/// A library with a dropout.
pub trait Peer: Debug + Sync {
    /// What its rows have as their backend: `peer:NAME`, or `sorix-NAME` for sorix's layer in a
    /// framework.
    fn backend(&self) -> &'static str;

    /// What it can be measured at: [`Op::Forward`], [`Op::TensorForwardBackward`].
    fn ops(&self) -> &'static [Op] {
        &[Op::Forward]
    }

    /// Whether more threads could make it faster.
    fn threaded(&self) -> bool {
        true
    }

    /// About how many tensors of the input's size one call allocates.
    fn temporaries(&self) -> u64 {
        6
    }

    /// Checks a call and samples it in turn with a copy, on the threads of the current rayon pool.
    ///
    /// # Errors
    ///
    /// Those of the library; and a result that is no dropout.
    fn measure(&self, setting: Setting<'_>) -> Result<Measured>;
}

/// What a peer is measured on.
#[derive(Debug)]
pub struct Setting<'a> {
    /// What is called: one of the peer's [`ops`](Peer::ops).
    pub op: Op,
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

/// What a program brings along that was built with frameworks.
#[derive(Default)]
pub struct Frameworks {
    /// Their dropouts.
    pub peers: Vec<Box<dyn Peer>>,
    /// Their training steps of the network of [`step`](crate::step), each with the name of its row.
    pub steps: Vec<(&'static str, MakeStep)>,
    /// Their attention, forward and backward, of the tensors that [`attention`](crate::attention) says.
    pub attention: Vec<(&'static str, MakeStep)>,
}

/// Makes a network, and a step of it; or tensors, and a call with them.
pub type MakeStep = fn() -> Result<Step>;

impl Debug for Frameworks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |made: &[(&'static str, MakeStep)]| -> Vec<_> {
            made.iter().map(|&(name, _)| name).collect()
        };
        f.debug_struct("Frameworks")
            .field("peers", &self.peers)
            .field("steps", &names(&self.steps))
            .field("attention", &names(&self.attention))
            .finish()
    }
}

/// The peers there are: the scalar loop and the kernels into new vectors always, PyTorch where a Python that
/// has it is on PATH, and those of `frameworks`. Also says, in a line each, what is left out and why.
#[must_use]
pub fn available(frameworks: Vec<Box<dyn Peer>>) -> (Vec<Box<dyn Peer>>, Vec<String>) {
    let mut peers: Vec<Box<dyn Peer>> = vec![Box::new(scalar::Scalar), Box::new(vectors::Vectors)];
    peers.extend(frameworks);
    let mut left_out = Vec::new();
    match torch::Torch::start() {
        Ok(torch) => peers.push(Box::new(torch)),
        Err(why) => left_out.push(format!("peer:torch is left out: {why}")),
    }
    (peers, left_out)
}

/// A call of a library in this process, ready to be made.
pub trait Pass: Send {
    /// Makes it once and keeps what it returns.
    ///
    /// # Errors
    ///
    /// Those of the library.
    fn call(&mut self) -> Result<()>;

    /// What the forward pass of the last call returned.
    ///
    /// # Errors
    ///
    /// Those of the library; and that there was no call.
    fn output(&self) -> Result<Vec<f32>>;

    /// Of [`Op::TensorForwardBackward`], the gradient of the input for a gradient of the output of
    /// ones.
    ///
    /// # Errors
    ///
    /// Those of the library; and that there was no backward pass.
    fn gradient(&self) -> Result<Option<Vec<f32>>> {
        Ok(None)
    }
}

/// Measures a library in this process: its threads are at rest, and the caches as the copy leaves
/// them, whenever the copy is timed.
///
/// # Errors
///
/// Those of the library; and a result that is no dropout.
pub fn measure_in_process(setting: Setting<'_>, mut pass: impl Pass) -> Result<Measured> {
    let Setting {
        op,
        input,
        output,
        p,
        threads,
        sampling,
        ..
    } = setting;
    settle_allocator();
    pass.call()?;
    let forward = pass.output()?;
    check(input, &forward, p)?;
    let gradient = pass.gradient()?;
    if op == Op::TensorForwardBackward {
        let gradient = gradient.context("no gradient")?;
        check_gradient(input, &forward, &gradient, p)?;
    }
    let mut failed = None;
    let measured = in_turn_rested(
        sampling,
        &mut (pass, output),
        |(pass, _)| failed = pass.call().err().or(failed.take()),
        |(_, output)| {
            rest();
            // The library read and wrote other memory than the copy does.
            copy(input, output, threads);
        },
        |(_, output)| copy(input, output, threads),
    );
    failed.map_or(Ok(measured), Err)
}

/// Lets the allocator keep memory that is freed, as it comes to do in a program that trains.
///
/// glibc gives the system back what is freed at the end of its heap, if it is twice as large as the largest
/// block (up to 32 MiB) that it has seen freed of those it maps by themselves. Without this the rows measured
/// before would decide whether a call of a few MiB pays for new pages, which is a factor of four.
fn settle_allocator() {
    drop(std::hint::black_box(vec![0_u8; 31 << 20]));
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

/// Makes sure that `gradient` is ones dropped by the mask that made `output` of `input`.
fn check_gradient(input: &[f32], output: &[f32], gradient: &[f32], p: f64) -> Result<()> {
    check(&vec![1.0; input.len()], gradient, p)?;
    let by_other_masks = input
        .iter()
        .zip(output)
        .zip(gradient)
        .filter(|((x, y), dx)| **x != 0.0 && (**y == 0.0) != (**dx == 0.0))
        .count();
    ensure!(
        by_other_masks == 0,
        "{by_other_masks} elements were kept forward and dropped backward, or the reverse"
    );
    Ok(())
}

/// Measures a peer at all its ops in a few milliseconds each, for tests that it can be measured.
///
/// # Errors
///
/// Those of [`Peer::measure`], and a ratio that is none.
pub fn measure_in_short(peer: &dyn Peer) -> Result<()> {
    let shape = Shape::ALL[0];
    let input: Vec<f32> = (1..=shape.elements()).map(|i| i as f32 / 1024.0).collect();
    for &op in peer.ops() {
        for p in [0.1, 0.5] {
            let mut output = vec![0.0; input.len()];
            let setting = Setting {
                op,
                input: &input,
                output: &mut output,
                shape,
                p,
                threads: 1,
                sampling: Sampling::QUICK,
            };
            let measured = peer.measure(setting)?;
            ensure!(measured.ratio > 0.0, "{}: {measured:?}", peer.backend());
        }
    }
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

        check_gradient(&input, &output, &output, 0.5).unwrap();
        let mut gradient = output.clone();
        gradient.reverse();
        assert!(
            check_gradient(&input, &output, &gradient, 0.5).is_err(),
            "another mask"
        );
    }

    #[test]
    fn every_peer_there_is_can_be_measured() {
        for peer in available(Vec::new()).0 {
            measure_in_short(&*peer).unwrap();
        }
    }
}
