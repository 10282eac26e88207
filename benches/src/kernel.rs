//! The check that comes before a kernel is measured, and the engine that it runs on.

use anyhow::{Context, Result, ensure};
use rayon::ThreadPool;
use sorix_kernels::backend::Backend;
use sorix_kernels::internal::streaming_above;
use sorix_kernels::stream::TILE;
use sorix_kernels::{BackendError, BitMask, DropRate, Engine, Error, dispatch};

use crate::case::{Case, Shape};
use crate::op::{Op, call};
use crate::rows::RowOperands;
use crate::tensors::{Operands, Tensors, Value};
use crate::with_dtype;

/// Elements of the tensor that [`check`] compares: several tiles, and a tail that fills neither a
/// block nor a word of the mask.
const CHECKED: usize = 5 * TILE + 77;

/// The same where a tensor is one of 64 channels of 32 by 32, or cut in columns.
const CHECKED_SHAPED: usize = 64 * 1024;

/// The engine a case runs on: one thread does not touch rayon, and stores go around the cache where
/// `SORIX_STREAMING_ABOVE` says so.
///
/// # Errors
///
/// If that variable is not a number.
pub fn engine(backend: &dyn Backend, threads: usize) -> Result<Engine<'_>, BackendError> {
    let mut engine = Engine::new(backend);
    if let Some(bytes) = streaming_above()? {
        engine = engine.streaming_above(bytes);
    }
    if threads == 1 {
        engine = engine.sequential();
    }
    Ok(engine)
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
        let (input, second, output) = tensors.with_second::<T>(elements);
        let mut mask = BitMask::new(elements);
        let engine = engine(backend, case.threads)?;
        let mut operands = Operands {
            input,
            second,
            output,
            rows: RowOperands::default(),
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
