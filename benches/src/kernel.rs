//! The calls that are measured, and the check that comes before.

use anyhow::{Context, Result, ensure};
use rayon::ThreadPool;
use sorix_kernels::backend::Backend;
use sorix_kernels::stream::TILE;
use sorix_kernels::{
    BitMask, BitSlice, Broadcast, Buffers, DropRate, Engine, Error, MaskKey, dispatch,
};

use crate::case::{Case, Op, Shape};
use crate::tensors::{Operands, Tensors, Value};
use crate::with_dtype;

/// The seed of every mask measured.
const SEED: u64 = 42;

/// Elements of the tensor that [`check`] compares: several tiles, and a tail that fills neither a
/// block nor a word of the mask.
const CHECKED: usize = 5 * TILE + 77;

/// The same where a tensor is one of 64 channels of 32 by 32, or cut in columns.
const CHECKED_SHAPED: usize = 64 * 1024;

/// Calls `op` once; of the tensor's forward and backward, the kernels that it calls.
///
/// # Errors
///
/// Those of the kernel.
pub fn call<T: Value>(
    op: Op,
    engine: Engine<'_>,
    rate: DropRate,
    operands: &mut Operands<'_, T>,
) -> Result<(), Error> {
    operands.calls += 1;
    let key = MaskKey {
        seed: SEED,
        offset: operands.calls,
    };
    let Operands {
        input,
        output,
        mask,
        ..
    } = operands;
    match op {
        Op::FillMask => engine.fill_mask(rate, key, mask),
        Op::Forward => engine.forward(rate, key, Buffers::new(input, output)?, mask),
        Op::Backward => engine.apply(rate, &**mask, Buffers::new(input, output)?),
        Op::Replay => engine.replay(rate, key, Buffers::new(input, output)?),
        Op::BroadcastChannelsFirst | Op::BroadcastChannelsLast | Op::BroadcastSamples => {
            let cover = cover(op, input.len())?;
            let bits = some_bits(mask, cover.mask_len(), operands.calls)?;
            engine.apply_broadcast(rate, bits, &cover, Buffers::new(input, output)?)
        }
        Op::ReplayShard => {
            let shard = key.shard(&[input.len() / 2048, 4096], 1, 2048..4096)?;
            engine.replay(rate, shard, Buffers::new(input, output)?)
        }
        Op::ForwardBackward | Op::TensorForwardBackward => {
            engine.forward(rate, key, Buffers::new(input, output)?, mask)?;
            engine.apply(rate, &**mask, Buffers::new(input, output)?)
        }
    }
}

/// How the small mask of `op` covers a tensor of so many elements.
fn cover(op: Op, elements: usize) -> Result<Broadcast, Error> {
    let samples = elements / (64 * 1024);
    Ok(match op {
        Op::BroadcastChannelsFirst => Broadcast::new(&[samples, 64, 1024], &[samples, 64, 1]),
        Op::BroadcastChannelsLast => Broadcast::new(&[samples, 1024, 64], &[samples, 1, 64]),
        _ => Broadcast::new(&[64, elements / 64], &[64, 1]),
    }?)
}

/// `len` bits of `mask`, other ones for each call, so that no branch predictor learns them.
fn some_bits(mask: &BitMask, len: usize, call: u64) -> Result<BitSlice<'_>, Error> {
    let begin = call as usize * 131 % (mask.len() - len + 1);
    Ok(mask.slice(begin..begin + len)?)
}

/// The engine a case runs on: one thread does not touch rayon.
#[must_use]
pub fn engine(backend: &dyn Backend, threads: usize) -> Engine<'_> {
    let engine = Engine::new(backend);
    if threads == 1 {
        engine.sequential()
    } else {
        engine
    }
}

/// Makes sure that the case's kernel gives what the reference gives, bit for bit, so that a wrong
/// kernel is never timed.
///
/// # Errors
///
/// If it gives something else.
pub fn check<T: Value>(case: &Case, pool: &ThreadPool) -> Result<()> {
    let rate = DropRate::new(case.p)?;
    let elements = if case.op.shapes().len() < Shape::ALL.len() {
        CHECKED_SHAPED
    } else {
        CHECKED
    };
    let outcome = |backend: &dyn Backend| -> Result<(Vec<u8>, BitMask)> {
        let mut tensors = Tensors::new(elements * size_of::<T>());
        let (input, output) = tensors.of::<T>(elements);
        let mut mask = BitMask::new(elements);
        let engine = engine(backend, case.threads);
        let mut operands = Operands {
            input,
            output,
            mask: &mut mask,
            calls: 0,
        };
        pool.install(|| -> Result<(), Error> {
            if case.op.reads_mask() {
                call(Op::FillMask, engine, rate, &mut operands)?;
            }
            call(case.op, engine, rate, &mut operands)
        })?;
        Ok((bytemuck::cast_slice(output).to_vec(), mask))
    };
    let reference = dispatch::by_name("reference")?;
    let (got, expected) = (outcome(case.backend)?, outcome(reference)?);
    ensure!(
        got.1 == expected.1,
        "the mask is not the one of the reference"
    );
    ensure!(
        got.0 == expected.0,
        "the output is not the one of the reference"
    );
    Ok(())
}

/// [`check`], naming the case in the error.
///
/// # Errors
///
/// If the case's kernel gives something else than the reference.
pub fn check_case(case: &Case, pool: &ThreadPool) -> Result<()> {
    with_dtype!(case.dtype, T => check::<T>(case, pool))
        .with_context(|| format!("{} at p = {} is wrong: not measured", case.id(), case.p))
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;
    use sorix_kernels::Element;
    use sorix_kernels::backend::job::{Apply, FillMask};
    use sorix_kernels::backend::{Kernels, MakeMasks};

    use super::*;
    use crate::case::Dtype;

    /// Forgets to write masks and outputs.
    #[derive(Debug)]
    struct Idle;

    impl Backend for Idle {
        fn name(&self) -> &'static str {
            "idle"
        }
    }

    impl MakeMasks for Idle {
        fn fill_mask(&self, _job: FillMask<'_>) {}
    }

    impl<T: Element> Kernels<T> for Idle {
        fn apply(&self, _job: Apply<'_, T>) {}
    }

    fn checked(op: Op, backend: &'static dyn Backend) -> Result<()> {
        let pool = ThreadPoolBuilder::new().num_threads(2).build()?;
        let (dtype, shape) = (Dtype::F32, Shape(&[64, 1024]));
        check_case(
            &Case {
                op,
                dtype,
                shape,
                backend,
                threads: 2,
                p: 0.1,
            },
            &pool,
        )
    }

    #[test]
    fn a_wrong_kernel_is_not_timed() {
        let error = checked(Op::FillMask, &Idle).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "fill_mask/f32/idle/64Ki at p = 0.1 is wrong: not measured: \
             the mask is not the one of the reference"
        );
        assert!(checked(Op::Backward, &Idle).is_err());
    }

    #[test]
    fn every_kernel_of_every_backend_passes() {
        for &backend in dispatch::available() {
            for op in Op::ALL {
                checked(op, backend).unwrap();
            }
        }
    }
}
