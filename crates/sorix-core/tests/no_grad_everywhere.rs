//! What holds for the whole process, in a process of its own.

use rayon::prelude::*;
use sorix_core::autograd::{checkpoint, enable_grad, is_grad_enabled, no_grad, no_grad_everywhere};
use sorix_core::{ErrorKind, Tensor, tensor};

fn recorded(w: &Tensor) -> bool {
    w.neg().unwrap().needs_grad()
}

#[test]
fn it_holds_in_every_task_until_the_last_guard_goes() {
    let w = tensor([2.0]).requires_grad(true);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3);
    let pool = pool.build().unwrap();
    let in_tasks = || {
        let tasks = (0..1000).into_par_iter();
        pool.install(|| tasks.filter(|_| recorded(&w)).count())
    };
    // What a scope of one thread cannot do.
    assert_eq!(no_grad(in_tasks), 1000);

    let (first, second) = (no_grad_everywhere(), no_grad_everywhere());
    assert_eq!(in_tasks(), 0);
    assert!(!is_grad_enabled() && enable_grad(|| recorded(&w)));
    let alone = std::thread::scope(|scope| scope.spawn(|| recorded(&w)).join().unwrap());
    assert!(!alone);
    assert_eq!(enable_grad(in_tasks), 0, "a scope of one thread again");
    let y = checkpoint(|x| x[0].neg(), &[&w]).unwrap();
    assert_eq!(y.backward().unwrap_err().kind(), &ErrorKind::NoGradient);
    // Whoever drops it, and in any order.
    std::thread::scope(|scope| {
        scope.spawn(move || drop(first));
    });
    assert_eq!(in_tasks(), 0);
    drop(second);
    assert_eq!(in_tasks(), 1000);

    // A graph from before is gone through, also the part that records itself in backward.
    let y = checkpoint(|x| x[0].mul(&x[0])?.sum(), &[&w]).unwrap();
    let guard = no_grad_everywhere();
    y.backward().unwrap();
    assert_eq!(w.grad().unwrap().item::<f64>().unwrap(), 4.0);
    drop(guard);
}
