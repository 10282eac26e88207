//! Criterion benches of the kernels, for work on one of them: on one thread, at p = 0.1, with ids
//! `op/dtype/backend/size`, so that `cargo bench -p sorix-benches -- forward/f32/avx2` picks a few.
//!
//! Throughput counts every byte a call must read or write. `copy/DTYPE/memory/SIZE` is the roof.

#![forbid(unsafe_code)]
#![allow(
    missing_docs,
    reason = "criterion_group! makes a public function without documentation"
)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::ThreadPoolBuilder;
use sorix_benches::case::{Case, Dtype, Shape};
use sorix_benches::kernel::{check_case, engine};
use sorix_benches::op::{Op, call};
use sorix_benches::rows::RowOperands;
use sorix_benches::tensors::{Operands, Tensors, copy};
use sorix_benches::with_dtype;
use sorix_kernels::backend::Backend;
use sorix_kernels::{BitMask, DropRate, dispatch};

const P: f64 = 0.1;

fn kernels(criterion: &mut Criterion) {
    let pool = ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .expect("a thread can be started");
    let rate = DropRate::new(P).expect("a probability");
    let backends: Vec<&dyn Backend> = dispatch::available()
        .iter()
        .copied()
        .filter(|backend| backend.name() != "reference")
        .collect();
    for case in Case::all(&backends, &[1], None)
        .into_iter()
        .filter(|case| case.p == P)
    {
        let elements = case.shape.elements();
        let mut group = criterion.benchmark_group(format!(
            "{}/{}/{}",
            case.op.name(),
            case.dtype.name(),
            case.backend.name()
        ));
        group.throughput(Throughput::Bytes(case.op.bytes(case.dtype, elements)));
        group.bench_function(case.shape.size(), |bencher| {
            check_case(&case, &pool).expect("the kernel agrees with the reference");
            let engine = engine(case.backend, case.threads).expect("a number of bytes");
            let mut mask = BitMask::new(elements);
            let mut tensors = Tensors::new(elements * case.dtype.size());
            with_dtype!(case.dtype, T => {
                let (input, second, output) = tensors.with_second::<T>(elements);
                let rows = RowOperands::default();
                let mut operands =
                    Operands { input, second, output, rows, mask: &mut mask, calls: 0 };
                call(Op::FillMask, engine, rate, &mut operands).expect("lengths agree");
                bencher.iter(|| call(case.op, engine, rate, &mut operands));
            });
        });
        group.finish();
    }
}

fn copies(criterion: &mut Criterion) {
    for dtype in Dtype::ALL {
        let mut group = criterion.benchmark_group(format!("copy/{}/memory", dtype.name()));
        for shape in Shape::ALL {
            let bytes = shape.elements() * dtype.size();
            group.throughput(Throughput::Bytes(2 * bytes as u64));
            group.bench_function(shape.size(), |bencher| {
                let mut tensors = Tensors::new(bytes);
                with_dtype!(dtype, T => {
                    let (input, output) = tensors.of::<T>(shape.elements());
                    bencher.iter(|| copy(input, output, 1));
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, copies, kernels);
criterion_main!(benches);
