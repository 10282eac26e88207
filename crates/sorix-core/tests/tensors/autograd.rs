//! The graph: accumulation, freeing, modes, errors, depth, threads.

use core::cell::RefCell;
use core::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Weak};

use crate::common::{random, values};
use sorix_core::autograd::{
    Function, Gradients, SavedTensor, checkpoint, enable_grad, is_grad_enabled, no_grad,
    no_grad_guard, record,
};
use sorix_core::{DType, Error, ErrorKind, Result, Tensor, tensor};

fn grad(x: &Tensor) -> Vec<f64> {
    values(&x.grad().unwrap())
}

/// Passes its gradient on, and keeps something alive until it is freed.
#[derive(Debug)]
struct Holds<T>(T);

impl<T: Debug + Send + Sync + 'static> Function for Holds<T> {
    fn name(&self) -> &'static str {
        "Holds"
    }

    fn backward(&self, grad: Tensor) -> Result<Gradients> {
        Ok(vec![Some(grad)])
    }
}

#[test]
fn gradients_add_up_over_uses_and_over_calls() {
    let x = tensor([2.0, 3.0]).requires_grad(true);
    // d(x^2 + 3x)/dx, with x used three times.
    let y = || {
        x.mul(&x)
            .unwrap()
            .add(&x.mul_scalar(3.0).unwrap())
            .unwrap()
            .sum()
            .unwrap()
    };
    y().backward().unwrap();
    assert_eq!(grad(&x), [7.0, 9.0]);
    let first = x.grad().unwrap();
    y().backward().unwrap();
    assert_eq!(grad(&x), [14.0, 18.0]);
    assert_eq!(
        values(&first),
        [7.0, 9.0],
        "a gradient handed out does not change"
    );
    x.zero_grad();
    assert!(x.grad().is_none());
    y().backward().unwrap();
    assert_eq!(grad(&x), [7.0, 9.0]);
}

#[test]
fn a_diamond_is_run_once_per_node() {
    // Were the shared part run once per path, these 40 levels would need 2^40 steps.
    let x = tensor([1.0]).requires_grad(true);
    let mut y = x.clone();
    for _ in 0..40 {
        y = y.add(&y).unwrap().mul_scalar(0.5).unwrap();
    }
    y.backward().unwrap();
    assert_eq!(grad(&x), [1.0]);
}

/// A node that a short and a long path lead to has to wait for both.
#[test]
fn a_node_waits_for_all_its_uses() {
    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>);
    impl Function for Counted {
        fn name(&self) -> &'static str {
            "Counted"
        }
        fn backward(&self, grad: Tensor) -> Result<Gradients> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(vec![Some(grad)])
        }
    }
    for long_path_first in [true, false] {
        for retain in [true, false] {
            let (x, runs) = (
                tensor([3.0]).requires_grad(true),
                Arc::new(AtomicUsize::new(0)),
            );
            let shared = record(x.detach(), &[&x], || Counted(Arc::clone(&runs)));
            let mut long = shared.clone();
            for _ in 0..5 {
                long = long.mul_scalar(2.0).unwrap();
            }
            let y = if long_path_first {
                long.add(&shared)
            } else {
                shared.add(&long)
            }
            .unwrap();
            if retain {
                y.backward_retain_graph(None)
            } else {
                y.backward()
            }
            .unwrap();
            assert_eq!(grad(&x), [33.0]);
            assert_eq!(runs.load(Ordering::Relaxed), 1);
        }
    }
}

#[test]
fn several_outputs_share_leaves() {
    let x = tensor([1.0, 2.0]).requires_grad(true);
    let (a, b) = (x.mul_scalar(2.0).unwrap(), x.mul_scalar(10.0).unwrap());
    a.sum().unwrap().backward().unwrap();
    b.sum().unwrap().backward().unwrap();
    assert_eq!(grad(&x), [12.0, 12.0]);
}

#[test]
fn only_what_requires_a_gradient_gets_one() {
    let x = tensor([2.0]).requires_grad(true);
    let c = tensor([5.0]);
    let y = x.mul(&c).unwrap();
    assert!(y.needs_grad() && !y.is_leaf());
    assert!(!c.mul(&c).unwrap().needs_grad());
    y.backward().unwrap();
    assert_eq!(grad(&x), [5.0]);
    assert!(c.grad().is_none() && y.grad().is_none());
}

#[test]
fn a_leaf_of_one_element_is_its_own_derivative() {
    let x = tensor([[4.0]]).requires_grad(true);
    x.backward().unwrap();
    x.backward().unwrap();
    assert_eq!(
        (grad(&x), x.grad().unwrap().shape()),
        (vec![2.0], &[1, 1][..])
    );
}

#[test]
fn detach_and_no_grad_cut_the_graph() {
    let x = tensor([3.0]).requires_grad(true);
    assert!(x.detach().same_storage(&x) && !x.detach().needs_grad());
    x.mul(&x.detach()).unwrap().backward().unwrap();
    assert_eq!(grad(&x), [3.0]);

    let y = no_grad(|| {
        assert!(!is_grad_enabled());
        let inner = enable_grad(|| x.neg().unwrap());
        assert!(inner.needs_grad());
        x.neg().unwrap()
    });
    assert!(!y.needs_grad() && is_grad_enabled());
    {
        let _outer = no_grad_guard();
        drop(no_grad_guard());
        assert!(
            !x.neg().unwrap().needs_grad(),
            "an inner guard does not end the outer one"
        );
    }
    assert!(x.neg().unwrap().needs_grad());
    // The mode is the thread's own.
    no_grad(|| {
        std::thread::scope(|scope| scope.spawn(|| assert!(is_grad_enabled())).join().unwrap())
    });
    // And survives a panic.
    std::panic::catch_unwind(|| no_grad(|| panic!("on purpose"))).unwrap_err();
    assert!(is_grad_enabled());
}

#[test]
fn guards_may_be_dropped_in_any_order() {
    let (first, second) = (no_grad_guard(), no_grad_guard());
    drop(first);
    assert!(!is_grad_enabled());
    enable_grad(|| {
        assert!(is_grad_enabled());
        drop(second);
        assert!(is_grad_enabled());
    });
    assert!(is_grad_enabled());
    // The fields of a struct are dropped in the order they are declared.
    drop([no_grad_guard(), no_grad_guard()]);
    assert!(is_grad_enabled());
    // One that outlives the scope it was made in.
    let guard = enable_grad(no_grad_guard);
    assert!(!is_grad_enabled());
    drop(guard);
    assert!(is_grad_enabled());
}

#[test]
fn wrong_calls_are_errors_that_change_nothing() {
    let x = tensor([1.0, 2.0]).requires_grad(true);
    let y = x.mul(&x).unwrap();
    assert_eq!(
        y.backward().unwrap_err().to_string(),
        "backward without a gradient(float64[2]): expected a tensor of one element"
    );
    let message = |result: Result<()>| result.unwrap_err().to_string();
    assert_eq!(
        message(tensor([1.0]).backward()),
        "backward(float64[1]): the tensor does not require a gradient"
    );
    assert_eq!(
        message(y.backward_with(&tensor([1.0]))),
        "backward_with(float64[1]): expected shape [2], got [1]"
    );
    assert_eq!(
        message(y.backward_with(&tensor([1.0_f32, 1.0]))),
        "backward_with(float32[2]): expected dtype sorix.float64, got sorix.float32"
    );
    assert!(x.grad().is_none());
    y.backward_with(&tensor([1.0, 1.0])).unwrap();
    assert_eq!(grad(&x), [2.0, 4.0]);
}

#[test]
fn the_graph_is_freed_unless_retained() {
    let x = tensor([3.0]).requires_grad(true);
    let shared = x.mul(&x).unwrap();
    let (a, b) = (shared.neg().unwrap(), shared.add_scalar(1.0).unwrap());
    a.backward_retain_graph(None).unwrap();
    a.backward_retain_graph(Some(&tensor([10.0]))).unwrap();
    assert_eq!(grad(&x), [-66.0]);
    a.backward().unwrap();
    let freed = |result: Result<()>| result.unwrap_err().kind().clone();
    let function = "NegBackward";
    assert_eq!(freed(a.backward()), ErrorKind::GraphFreed { function });
    // The other output leads to the part that is gone; no gradient changes on the way.
    assert_eq!(
        b.backward().unwrap_err().to_string(),
        "backward(float64[1]): the graph at MulBackward was freed by an earlier backward; \
         to go through it twice, use backward_retain_graph the first time"
    );
    assert_eq!(grad(&x), [-72.0]);
}

#[test]
fn a_failing_backward_leaves_every_gradient_as_it_was() {
    type Backward = fn(Tensor) -> Result<Gradients>;
    #[derive(Debug)]
    struct Wrong(Backward);
    impl Function for Wrong {
        fn name(&self) -> &'static str {
            "Wrong"
        }
        fn backward(&self, grad: Tensor) -> Result<Gradients> {
            (self.0)(grad)
        }
    }
    let (x, early) = (
        tensor([1.0, 2.0]).requires_grad(true),
        tensor([1.0, 2.0]).requires_grad(true),
    );
    let cases: [(Backward, &str); 4] = [
        (
            |_| Ok(vec![]),
            "Wrong(float64[2]): expected a gradient slot for each of 1 inputs, got 0",
        ),
        (
            |grad| Ok(vec![Some(grad.sum()?)]),
            "Wrong(float64[]): expected shape [2], got []",
        ),
        (
            |grad| Ok(vec![Some(grad.to_dtype(DType::F32)?)]),
            "Wrong(float32[2]): expected dtype sorix.float64, got sorix.float32",
        ),
        (
            |grad| grad.reshape([3]).map(|_| vec![]),
            "reshape(float64[2]): shape [3] has 3 elements, got 2",
        ),
    ];
    for (backward, message) in cases {
        let y = record(x.detach(), &[&x], || Wrong(backward));
        // `early` gets its gradient before Wrong is run.
        let y = y.add(&early).unwrap().sum().unwrap();
        assert_eq!(y.backward().unwrap_err().to_string(), message);
        assert!(x.grad().is_none() && early.grad().is_none());
    }
}

#[test]
fn functions_may_leave_inputs_without_a_gradient() {
    #[derive(Debug)]
    struct OnlySecond;
    impl Function for OnlySecond {
        fn name(&self) -> &'static str {
            "OnlySecond"
        }
        fn backward(&self, grad: Tensor) -> Result<Gradients> {
            assert!(!is_grad_enabled());
            Ok(vec![None, Some(grad)])
        }
    }
    let (a, b) = (
        tensor([1.0]).requires_grad(true),
        tensor([1.0]).requires_grad(true),
    );
    record(tensor([0.0]), &[&a, &b], || OnlySecond)
        .backward()
        .unwrap();
    assert!(a.grad().is_none());
    assert_eq!(grad(&b), [1.0]);
}

#[test]
fn a_written_tensor_is_noticed_only_where_it_was_saved() {
    let x = tensor([2.0, 3.0]).requires_grad(true);
    let w = tensor([5.0, 7.0]).requires_grad(true);
    let (product, sum) = (x.mul(&w).unwrap(), x.add(&w).unwrap());
    no_grad(|| w.assign(&tensor([50.0, 70.0]))).unwrap();
    assert_eq!(
        values(&product),
        [10.0, 21.0],
        "what was computed keeps its elements"
    );
    let kind = ErrorKind::SavedTensorWritten {
        saved: 0,
        current: 1,
    };
    assert_eq!(
        product.sum().unwrap().backward(),
        Err(Error::new("MulBackward", &[&w], kind))
    );
    sum.sum().unwrap().backward().unwrap();
    assert_eq!((grad(&x), grad(&w)), (vec![1.0; 2], vec![1.0; 2]));
    x.mul(&w).unwrap().sum().unwrap().backward().unwrap();
    assert_eq!(grad(&x), [51.0, 71.0]);
}

#[test]
fn assigning_reaches_views_and_checks_its_arguments() {
    let x = tensor([[1.0, 2.0], [3.0, 4.0]]);
    let t = x.transpose(0, 1).unwrap();
    t.assign(&tensor([[5.0, 6.0], [7.0, 8.0]])).unwrap();
    assert_eq!(values(&x), [5.0, 7.0, 6.0, 8.0]);
    x.assign(&t).unwrap();
    assert_eq!(
        values(&x),
        [5.0, 6.0, 7.0, 8.0],
        "source and target may be one"
    );

    let leaf = tensor([1.0]).requires_grad(true);
    let message = |result: Result<()>| result.unwrap_err().to_string();
    let needs = "assign(float64[1], float64[1]): with a tensor that requires a gradient it can be \
                 used only within no_grad";
    assert_eq!(message(leaf.assign(&tensor([2.0]))), needs);
    assert_eq!(message(tensor([2.0]).assign(&leaf)), needs);
    assert_eq!(
        message(x.assign(&tensor([1.0]))),
        "assign(float64[2, 2], float64[1]): expected shape [2, 2], got [1]"
    );
    assert_eq!(
        message(leaf.detach().assign(&tensor([1.0_f32]))),
        "assign(float64[1], float32[1]): expected dtype sorix.float64, got sorix.float32"
    );
    let expanded = tensor([1.0]).expand([2]).unwrap();
    assert_eq!(
        message(expanded.assign(&tensor([1.0, 2.0]))),
        "assign(float64[2], float64[2]): an expanded tensor (strides [0]) cannot be written: its elements share memory"
    );
}

#[test]
fn the_gradient_at_a_leaf_has_memory_of_its_own() {
    let (a, b) = (
        tensor([1.0, 2.0]).requires_grad(true),
        tensor([1.0, 2.0]).requires_grad(true),
    );
    let given = tensor([3.0, 4.0]);
    a.add(&b).unwrap().backward_with(&given).unwrap();
    let (da, db) = (a.grad().unwrap(), b.grad().unwrap());
    assert!(!da.same_storage(&db) && !da.same_storage(&given) && !db.same_storage(&given));
    da.assign(&tensor([0.0, 0.0])).unwrap();
    assert_eq!(
        (values(&db), values(&given)),
        (vec![3.0, 4.0], vec![3.0, 4.0])
    );
    // The gradient of a sum is an expanded view until it gets here.
    a.zero_grad();
    a.sum().unwrap().backward().unwrap();
    assert!(a.grad().unwrap().is_contiguous());
}

/// Two functions read it, and it is written after the first.
#[test]
fn the_gradient_that_was_given_is_read_once() {
    #[derive(Debug)]
    struct Writes(Tensor);
    impl Function for Writes {
        fn name(&self) -> &'static str {
            "Writes"
        }
        fn backward(&self, grad: Tensor) -> Result<Gradients> {
            self.0.assign(&tensor([50.0]))?;
            Ok(vec![Some(grad)])
        }
    }
    let given = tensor([5.0]);
    let (a, b) = (
        tensor([1.0]).requires_grad(true),
        tensor([1.0]).requires_grad(true),
    );
    let second = a.mul_scalar(2.0).unwrap();
    // The newest is run first.
    let first = record(b.detach(), &[&b], || Writes(given.clone()));
    second.add(&first).unwrap().backward_with(&given).unwrap();
    assert_eq!((grad(&a), grad(&b)), (vec![10.0], vec![5.0]));
    assert_eq!(values(&given), [50.0]);
}

#[test]
fn backward_frees_the_graph_as_it_goes() {
    /// Notes whether something is alive when this is run.
    #[derive(Debug)]
    struct Looks(Weak<()>, Arc<AtomicUsize>);
    impl Function for Looks {
        fn name(&self) -> &'static str {
            "Looks"
        }
        fn backward(&self, grad: Tensor) -> Result<Gradients> {
            self.1.fetch_add(self.0.strong_count(), Ordering::Relaxed);
            Ok(vec![Some(grad)])
        }
    }
    let x = tensor([1.0]).requires_grad(true);
    let (held, alive) = (Arc::new(()), Arc::new(AtomicUsize::new(0)));
    let weak = Arc::downgrade(&held);
    let early = record(x.detach(), &[&x], || Looks(weak, Arc::clone(&alive)));
    let late = record(early.detach(), &[&early], || Holds(held));
    late.backward_retain_graph(None).unwrap();
    assert_eq!(alive.swap(0, Ordering::Relaxed), 1, "kept");
    late.backward().unwrap();
    assert_eq!(alive.load(Ordering::Relaxed), 0, "freed before");
}

/// With `backward` the part that was passed is gone, and another try says so.
#[test]
fn a_failing_backward_frees_what_it_passed_unless_retained() {
    let x = tensor([3.0]).requires_grad(true);
    for retain in [false, true] {
        let w = tensor([1.0]);
        let y = x.mul(&w).unwrap().neg().unwrap();
        w.assign(&tensor([2.0])).unwrap();
        let backward = || match retain {
            true => y.backward_retain_graph(None),
            false => y.backward(),
        };
        let written = ErrorKind::SavedTensorWritten {
            saved: 0,
            current: 1,
        };
        assert_eq!(backward().unwrap_err().kind(), &written);
        let function = "NegBackward";
        let expected = match retain {
            true => written,
            false => ErrorKind::GraphFreed { function },
        };
        assert_eq!(backward().unwrap_err().kind(), &expected);
        assert!(x.grad().is_none());
    }
}

fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(run);
    thread.unwrap().join().unwrap();
}

#[test]
fn a_million_nodes_need_no_stack() {
    const NODES: usize = 1_000_000;
    let run = || {
        let x = tensor([0.0]).requires_grad(true);
        let chain = || {
            let mut y = x.clone();
            for _ in 0..NODES {
                y = y.add_scalar(1.0).unwrap();
            }
            y
        };
        let y = chain();
        assert_eq!(y.item::<f64>().unwrap(), NODES as f64);
        y.backward_retain_graph(None).unwrap();
        y.backward().unwrap();
        assert_eq!(grad(&x), [2.0]);
        // Dropped whole, never run.
        drop(chain());
        // And a chain that saves its inputs.
        let mut y = x.clone();
        for _ in 0..NODES / 10 {
            y = y.mul(&x).unwrap();
        }
        drop(y);
    };
    on_a_small_stack(run);
}

/// However a node holds the one before it.
#[test]
fn long_chains_of_any_kind_need_no_stack() {
    const NODES: usize = 100_000;
    thread_local! {
        static LAST: RefCell<Option<Tensor>> = const { RefCell::new(None) };
    }
    type Link = fn(&Tensor, &Tensor) -> Tensor;
    let links: [(&str, Link); 3] = [
        ("an edge", |_, y| y.neg().unwrap()),
        ("a function", |x, y| {
            record(y.detach(), &[x], || Holds(y.clone()))
        }),
        ("a closure", |x, y| {
            let y = y.clone();
            checkpoint(move |x: &[Tensor]| x[0].add(&y), &[x]).unwrap()
        }),
    ];
    let run = move || {
        let x = tensor([1.0]).requires_grad(true);
        for (name, link) in links {
            let chain = || (0..NODES).fold(x.clone(), |y, _| link(&x, &y));
            drop(chain());
            x.zero_grad();
            chain().backward().unwrap();
            let expected = match name {
                "a closure" => NODES as f64 + 1.0,
                _ => 1.0,
            };
            assert_eq!(grad(&x), [expected], "{name}");
            // The first part of a chain outlives the rest.
            let first = chain();
            drop((0..NODES).fold(first.clone(), |y, _| link(&x, &y)));
            x.zero_grad();
            first.backward().unwrap();
            assert_eq!(grad(&x), [expected], "{name}");
            LAST.set(Some(chain()));
            // The next one, and the end of the thread, free it.
        }
    };
    on_a_small_stack(run);
}

#[test]
fn intermediate_results_live_only_as_long_as_somebody_needs_them() {
    let x = tensor([1.0]).requires_grad(true);
    let node = || -> (Tensor, Weak<()>) {
        let life = Arc::new(());
        let weak = Arc::downgrade(&life);
        (record(x.detach(), &[&x], || Holds(life)), weak)
    };
    let (y, life) = node();
    let z = y.neg().unwrap();
    drop(y);
    assert!(life.upgrade().is_some(), "the graph of z needs it");
    z.backward().unwrap();
    assert!(
        life.upgrade().is_none(),
        "backward freed it, though z is still there"
    );
    let (y, life) = node();
    drop(y);
    assert!(life.upgrade().is_none());
}

#[test]
fn threads_share_parameters() {
    const THREADS: usize = 4;
    const STEPS: usize = 200;
    let w = random(&[64], 1).requires_grad(true);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..STEPS {
                    w.mul_scalar(2.0)
                        .unwrap()
                        .sum()
                        .unwrap()
                        .backward()
                        .unwrap();
                }
            });
        }
    });
    assert_eq!(grad(&w), vec![2.0 * (THREADS * STEPS) as f64; 64]);
}

#[test]
fn threads_share_a_graph() {
    let x = random(&[64], 1).requires_grad(true);
    let y = x.mul(&x).unwrap().sum().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| y.backward_retain_graph(None).unwrap());
        }
    });
    let expected: Vec<f64> = values(&x).iter().map(|x| 8.0 * x).collect();
    assert_eq!(grad(&x), expected);
    // Of several that free it exactly one comes through.
    let succeeded: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| y.backward().is_ok()))
            .collect();
        threads
            .into_iter()
            .map(|thread| usize::from(thread.join().unwrap()))
            .sum()
    });
    assert_eq!(succeeded, 1);
}

/// The strides of shape [3, 0] are 0 and 1, which is not yet sharing memory.
#[test]
fn a_leaf_without_elements_accumulates_and_is_assigned() {
    for shape in [[3, 0], [0, 3], [0, 0]] {
        let x = Tensor::zeros(shape, DType::F64)
            .unwrap()
            .requires_grad(true);
        for _ in 0..2 {
            x.sum().unwrap().backward().unwrap();
            assert_eq!(x.grad().unwrap().shape(), shape);
        }
        no_grad(|| x.assign(&x.detach())).unwrap();
    }
}

#[test]
fn a_saved_tensor_stays_as_it_was_found() {
    let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    let row = x.slice(0, 1..).unwrap();
    let saved = SavedTensor::new(&row);
    let found = saved.get(&Holds(())).unwrap();
    assert!(!found.needs_grad());
    no_grad(|| x.assign(&tensor([[5.0, 6.0], [7.0, 8.0]]))).unwrap();
    assert_eq!(
        values(&found),
        [3.0, 4.0],
        "a later write does not reach it"
    );
    assert_eq!(
        saved.get(&Holds(())).unwrap_err().to_string(),
        "Holds(float64[1, 2]): a tensor it saved for backward was written since \
         (at version 0 then, 1 now), as by an optimiser's step after forward"
    );
}

/// Another thread writes to the parameter at any moment of forward and backward. Then backward is
/// refused, or value and gradient are those of the same elements.
#[test]
fn a_write_meanwhile_is_noticed_or_not_seen_at_all() {
    type Op = fn(&Tensor) -> Result<Tensor>;
    /// An operation on a matrix whose elements are all c, and whether its value and its gradient
    /// belong to one c.
    type Row = (&'static str, Op, fn(f64, f64) -> bool);
    let rows: [Row; 5] = [
        ("mul", |x| x.mul(x), |y, dx| dx * dx == 4.0 * y),
        ("div", |x| tensor(1.0).div(x), |y, dx| dx == -y * y),
        ("powf", |x| x.powf(3.0), |y, dx| (dx / 3.0).powi(3) == y * y),
        ("log", |x| x.log(), |y, dx| (y + dx.ln()).abs() < 1e-12),
        (
            "matmul",
            |x| x.matmul(&x.detach()),
            |y, dx| dx * dx == 128.0 * y,
        ),
    ];
    for (name, op, belong) in rows {
        let ones = Tensor::ones([128, 128], DType::F64).unwrap();
        let x = ones.mul_scalar(2.0).unwrap().requires_grad(true);
        for round in 0..40 {
            let twice = x.detach().mul_scalar(2.0).unwrap();
            let start = Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    (0..round * 1000).for_each(|_| std::hint::spin_loop());
                    no_grad(|| x.assign(&twice)).unwrap();
                });
                start.wait();
                x.zero_grad();
                let y = op(&x).unwrap();
                match y.backward_with(&ones) {
                    Err(error) => {
                        let noticed = matches!(error.kind(), ErrorKind::SavedTensorWritten { .. });
                        assert!(noticed, "{name}: {error}");
                    }
                    Ok(()) => {
                        let (y, dx) = (values(&y), grad(&x));
                        let all_belong = y.iter().zip(&dx).all(|(&y, &dx)| belong(y, dx));
                        assert!(all_belong, "{name}: {} with {}", y[0], dx[0]);
                    }
                }
            });
        }
    }
}
