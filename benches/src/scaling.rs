//! `--scaling`: what several threads make of a call, as a ratio to the same call on one.
//!
//! Called from inside a pool its threads are awake, and take back what nobody has begun. From outside, the
//! threads of rayon's global pool have to be woken: their number is that of `RAYON_NUM_THREADS`.

use anyhow::{Result, anyhow};
use rayon::ThreadPoolBuilder;
use sorix_kernels::backend::Backend;
use sorix_kernels::{BitMask, DropRate, Error};

use crate::case::{Dtype, Shape, selected};
use crate::kernel::engine;
use crate::op::{Op, call};
use crate::report::Row;
use crate::rows::RowOperands;
use crate::runner::row;
use crate::sample::{Sampling, in_turn};
use crate::tensors::{Operands, Tensors};

/// Every row of `backends` that `filter` selects.
///
/// # Errors
///
/// If threads cannot be started, or a kernel fails.
pub fn rows(
    backends: &[&'static dyn Backend],
    threads: &[usize],
    filter: Option<&str>,
    sampling: Sampling,
) -> Result<Vec<Row>> {
    let largest = Shape::ALL.iter().map(|shape| shape.elements()).max();
    let mut tensors = Tensors::new(largest.unwrap_or(0) * Dtype::F32.size());
    let mut rows = Vec::new();
    let mut measure_all = |place: &str, threads: usize| -> Result<()> {
        for &backend in backends {
            for op in [Op::Forward, Op::Backward] {
                for shape in Shape::ALL {
                    if selected(filter, op, Dtype::F32, backend.name(), shape) {
                        let what = (op, backend, shape);
                        rows.push(measure(&mut tensors, what, place, threads, sampling)?);
                    }
                }
            }
        }
        Ok(())
    };
    for &threads in threads {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.map_err(|error| anyhow!("cannot start {threads} threads: {error}"))?;
        pool.install(|| measure_all("1 thread, inside", threads))?;
    }
    measure_all("1 thread, outside", rayon::current_num_threads())?;
    Ok(rows)
}

fn measure(
    tensors: &mut Tensors,
    (op, backend, shape): (Op, &dyn Backend, Shape),
    place: &str,
    threads: usize,
    sampling: Sampling,
) -> Result<Row> {
    let p = 0.1;
    let rate = DropRate::new(p)?;
    let elements = shape.elements();
    let engine = engine(backend, threads)?;
    let mut mask = BitMask::new(elements);
    let (input, second, output) = tensors.with_second::<f32>(elements);
    let mut operands = Operands {
        input,
        second,
        output,
        rows: RowOperands::default(),
        mask: &mut mask,
        calls: 0,
    };
    // What can go wrong goes wrong here.
    call(Op::FillMask, engine, rate, &mut operands)?;
    call(op, engine, rate, &mut operands)?;
    let ignore = |_: Result<(), Error>| ();
    let measured = in_turn(
        sampling,
        &mut operands,
        |operands| ignore(call(op, engine, rate, operands)),
        |operands| ignore(call(op, engine.sequential(), rate, operands)),
    );
    Ok(Row {
        roof: place.into(),
        ..row(
            op.name(),
            Dtype::F32,
            backend.name(),
            threads,
            elements,
            p,
            measured,
        )
    })
}
