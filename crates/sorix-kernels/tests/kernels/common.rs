//! What several of the files need.

use sorix_kernels::{DropRate, Engine, dispatch};

pub(crate) fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

/// Runs `check` for every backend, the oracle included, saying which.
pub(crate) fn for_each_backend(mut check: impl FnMut(Engine<'static>)) {
    for &backend in dispatch::available() {
        println!("backend {}", backend.name());
        check(Engine::new(backend));
    }
}

/// Fails unless `run` returns the same on this thread alone as in pools of one, two and seven threads.
#[cfg(feature = "parallel")]
pub(crate) fn one_two_and_seven_threads_agree<'b, R: PartialEq + Send>(
    engine: Engine<'b>,
    what: &str,
    run: impl Fn(Engine<'b>) -> R + Sync,
) {
    let alone = run(engine.sequential());
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let shared = pool.install(|| run(engine));
        assert!(
            shared == alone,
            "{what}: {threads} threads with {}",
            engine.backend().name()
        );
    }
}
