//! A run: the cases one after another, with a progress bar.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::{Context, Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::{ThreadPool, ThreadPoolBuilder};
use sorix::nn::{Dropout, Module};
use sorix::{Generator, Tensor};
use sorix_kernels::{BitMask, DropRate};

use crate::case::{Case, Dtype, Shape};
use crate::kernel::{check_case, engine};
use crate::layers::Layer;
use crate::op::{Op, Roof, call};
use crate::peers::{Peer, Setting};
use crate::report::Row;
use crate::rows::RowOperands;
use crate::sample::{Measured, Sampling, in_turn};
use crate::tensors::{Operands, Tensors, Value, copy};
use crate::with_dtype;

/// A call of another library, f32.
#[derive(Debug)]
pub struct PeerCase<'p> {
    /// The library.
    pub peer: &'p dyn Peer,
    /// What is called: one of its [`ops`](Peer::ops).
    pub op: Op,
    /// The tensor's shape.
    pub shape: Shape,
    /// The number of threads.
    pub threads: usize,
    /// The drop probability.
    pub p: f64,
}

/// A layer of the dropout family.
#[derive(Clone, Copy, Debug)]
pub struct LayerCase {
    /// The layer.
    pub layer: Layer,
    /// The backend, which is the active one.
    pub backend: &'static str,
    /// The number of threads.
    pub threads: usize,
}

/// What a run measures, and how.
#[derive(Debug)]
pub struct Plan<'p> {
    /// The rows of sorix.
    pub cases: Vec<Case>,
    /// The rows of layers.
    pub layers: Vec<LayerCase>,
    /// The rows of other libraries.
    pub peers: Vec<PeerCase<'p>>,
    /// How long each row is sampled.
    pub sampling: Sampling,
    /// The bytes that tensors may take together; rows that need more are left out.
    pub memory: u64,
}

impl Plan<'_> {
    /// Leaves out what does not fit in memory, and says in a line each what that is.
    pub fn fit_memory(&mut self) -> Vec<String> {
        let memory = self.memory;
        let mut left_out: Vec<String> = Vec::new();
        let mut keep = |bytes: u64, what: String| {
            let fits = bytes <= memory;
            if !fits {
                let line = format!("{what} needs {} MiB", bytes >> 20);
                if !left_out.contains(&line) {
                    left_out.push(line);
                }
            }
            fits
        };
        let tensor = |dtype: Dtype, shape: Shape| (shape.elements() * dtype.size()) as u64;
        self.cases.retain(|case| {
            let tensors = if case.op == Op::TensorForwardBackward {
                6
            } else {
                2
            };
            let bytes = tensor(case.dtype, case.shape) * tensors + case.shape.elements() as u64 / 8;
            keep(
                bytes,
                format!("{} elements of {}", case.shape.size(), case.dtype.name()),
            )
        });
        self.layers.retain(|case| {
            // Those that keep noise need the most.
            let bytes = (case.layer.elements() * Dtype::F32.size() * 9) as u64;
            keep(bytes, case.layer.id(case.backend))
        });
        self.peers.retain(|case| {
            let bytes = tensor(Dtype::F32, case.shape) * (2 + case.peer.temporaries());
            keep(
                bytes,
                format!(
                    "{} elements of f32 in {}",
                    case.shape.size(),
                    case.peer.backend()
                ),
            )
        });
        left_out
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cases.len() + self.layers.len() + self.peers.len()
    }

    /// Whether there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Measures all rows.
    ///
    /// # Errors
    ///
    /// If a kernel or a peer gives a wrong result, or a thread pool cannot be made.
    pub fn run(&self) -> Result<Vec<Row>> {
        let largest = self
            .cases
            .iter()
            .map(|case| case.shape.elements() * case.dtype.size())
            .chain(
                self.layers
                    .iter()
                    .map(|case| case.layer.elements() * Dtype::F32.size()),
            )
            .chain(
                self.peers
                    .iter()
                    .map(|case| case.shape.elements() * Dtype::F32.size()),
            )
            .max();
        let mut bench = Bench {
            sampling: self.sampling,
            tensors: Tensors::new(largest.unwrap_or(0)),
            mask: BitMask::new(0),
            pools: HashMap::new(),
            checked: Vec::new(),
        };
        let progress = progress_bar(self.len())?;
        let mut rows = Vec::with_capacity(self.len());
        for case in &self.cases {
            progress.set_message(format!("{} p={} x{}", case.id(), case.p, case.threads));
            rows.push(bench.measure(case)?);
            progress.inc(1);
        }
        for case in &self.layers {
            let &LayerCase {
                layer,
                backend,
                threads,
            } = case;
            progress.set_message(format!("{} x{threads}", layer.id(backend)));
            let (module, x) = (layer.make)(Layer::P)?;
            rows.push(bench.measure_module(&Subject {
                op: layer.name,
                module: &*module,
                x,
                elements: layer.elements(),
                backend,
                threads,
                p: Layer::P,
            })?);
            progress.inc(1);
        }
        for case in &self.peers {
            let name = case.peer.backend();
            progress.set_message(format!(
                "{} {name} {} p={} x{}",
                case.op.name(),
                case.shape,
                case.p,
                case.threads
            ));
            let row = bench.measure_peer(case);
            rows.push(row.with_context(|| format!("{name} could not be measured"))?);
            progress.inc(1);
        }
        progress.finish_and_clear();
        Ok(rows)
    }
}

/// A bar on standard error, which shows nothing where that is no terminal.
fn progress_bar(rows: usize) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template(
        "{elapsed_precise} [{bar:30}] {pos}/{len} rows, {eta} left  {wide_msg}",
    )?;
    Ok(ProgressBar::new(rows as u64).with_style(style.progress_chars("=> ")))
}

/// A module to measure, and the input it is measured on.
struct Subject<'a> {
    op: &'a str,
    module: &'a dyn Module,
    x: Tensor,
    /// What is dropped from, and what a copy of is the unit.
    elements: usize,
    backend: &'a str,
    threads: usize,
    p: f64,
}

/// What the rows of a run share.
struct Bench {
    sampling: Sampling,
    tensors: Tensors,
    mask: BitMask,
    pools: HashMap<usize, ThreadPool>,
    checked: Vec<(Op, Dtype, &'static str, usize, u64)>,
}

impl Bench {
    fn measure(&mut self, case: &Case) -> Result<Row> {
        if case.op == Op::TensorForwardBackward {
            let dropout = Dropout::new(case.p)?.generator(Generator::new(42));
            let (input, _) = self.tensors.of::<f32>(case.shape.elements());
            let x = Tensor::from_slice(input, case.shape.0)?;
            return self.measure_module(&Subject {
                op: case.op.name(),
                module: &dropout,
                x,
                elements: case.shape.elements(),
                backend: case.backend.name(),
                threads: case.threads,
                p: case.p,
            });
        }
        with_dtype!(case.dtype, T => self.measure_typed::<T>(case))
    }

    fn measure_typed<T: Value>(&mut self, case: &Case) -> Result<Row> {
        let pool = pool(&mut self.pools, case.threads)?;
        let kernel = (
            case.op,
            case.dtype,
            case.backend.name(),
            case.threads,
            case.p.to_bits(),
        );
        if !self.checked.contains(&kernel) {
            check_case(case, pool)?;
            self.checked.push(kernel);
        }

        let elements = case.shape.elements();
        let (rate, without) = (DropRate::new(case.p)?, DropRate::new(0.0)?);
        let engine = engine(case.backend, case.threads)?;
        if self.mask.len() != elements {
            self.mask = BitMask::new(elements);
        }
        let (input, second, output) = self.tensors.with_second::<T>(elements);
        let mut operands = Operands {
            input,
            second,
            output,
            rows: RowOperands::default(),
            mask: &mut self.mask,
            calls: 0,
        };
        let sampling = self.sampling;
        let measured = pool.install(|| -> Result<Measured> {
            // Touches the mask's pages, and makes the mask that backward reads.
            call(Op::FillMask, engine, rate, &mut operands)?;
            if case.op.roof() == Roof::WithoutDropout {
                // Makes what rows have beside the tensors, and touches its pages.
                call(case.op, engine, without, &mut operands)?;
            }
            let failed = RefCell::new(None);
            let measured = in_turn(
                sampling,
                &mut operands,
                |operands| {
                    let outcome = call(case.op, engine, rate, operands);
                    failed.replace_with(|failed| outcome.err().or(failed.take()));
                },
                |operands| match case.op.roof() {
                    Roof::Copy => copy(operands.input, operands.output, case.threads),
                    Roof::WithoutDropout => {
                        let outcome = call(case.op, engine, without, operands);
                        failed.replace_with(|failed| outcome.err().or(failed.take()));
                    }
                },
            );
            failed
                .take()
                .map_or(Ok(measured), |error| Err(error.into()))
        })?;
        Ok(Row {
            roof: case.op.roof().name().into(),
            ..row(
                case.op.name(),
                case.dtype,
                case.backend.name(),
                case.threads,
                elements,
                case.p,
                measured,
            )
        })
    }

    /// A module on a tensor of f32, forward and backward.
    fn measure_module(&mut self, subject: &Subject<'_>) -> Result<Row> {
        let &Subject {
            op,
            module,
            ref x,
            elements,
            backend,
            threads,
            p,
        } = subject;
        let pool = pool(&mut self.pools, threads)?;
        let (input, output) = self.tensors.of::<f32>(elements);
        let x = x.requires_grad(true);
        let gradient = Tensor::ones(module.forward(&x)?.shape(), x.dtype())?;
        let mut leaves = module.parameters();
        leaves.push(x.clone());
        let step = || -> Result<()> {
            leaves.iter().for_each(Tensor::zero_grad);
            Ok(module.forward(&x)?.backward_with(&gradient)?)
        };
        let measured = pool.install(|| -> Result<Measured> {
            // The first step takes new memory from the system, which would use up the time to
            // sample; later ones recycle it.
            step()?;
            let mut failed = None;
            let measured = in_turn(
                self.sampling,
                output,
                |_| failed = step().err().or(failed.take()),
                |output| copy(input, output, threads),
            );
            failed.map_or(Ok(measured), Err)
        })?;
        Ok(row(op, Dtype::F32, backend, threads, elements, p, measured))
    }

    fn measure_peer(&mut self, case: &PeerCase<'_>) -> Result<Row> {
        let pool = pool(&mut self.pools, case.threads)?;
        let elements = case.shape.elements();
        let (input, output) = self.tensors.of::<f32>(elements);
        let &PeerCase {
            peer,
            op,
            shape,
            threads,
            p,
        } = case;
        let setting = Setting {
            op,
            input,
            output,
            shape,
            p,
            threads,
            sampling: self.sampling,
        };
        let measured = pool.install(|| peer.measure(setting))?;
        Ok(row(
            op.name(),
            Dtype::F32,
            peer.backend(),
            threads,
            elements,
            p,
            measured,
        ))
    }
}

fn pool(pools: &mut HashMap<usize, ThreadPool>, threads: usize) -> Result<&ThreadPool> {
    Ok(match pools.entry(threads) {
        Entry::Occupied(pool) => pool.into_mut(),
        Entry::Vacant(vacant) => vacant.insert(
            ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .map_err(|error| anyhow!("cannot start {threads} threads: {error}"))?,
        ),
    })
}

/// The row of what was measured against a copy.
pub(crate) fn row(
    op: &str,
    dtype: Dtype,
    backend: &str,
    threads: usize,
    elements: usize,
    p: f64,
    measured: Measured,
) -> Row {
    let per_element = 1e9 / elements as f64;
    Row {
        op: op.into(),
        dtype: dtype.name().into(),
        backend: backend.into(),
        threads,
        elements,
        p,
        ns_per_element: measured.subject * per_element,
        copy_ns_per_element: measured.copy * per_element,
        ratio: measured.ratio,
        roof: Roof::Copy.name().into(),
        copy_strays: None,
    }
}
