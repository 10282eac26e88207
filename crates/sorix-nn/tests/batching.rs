//! What a request gets does not depend on who else is in its batch.

use sorix_core::{DType, MaskKey, Tensor};
use sorix_nn::{
    AlphaDropout, DropPath, Dropout, Embedding, EmbeddingDropout, Error, GELU, GaussianDropout,
    Generator, LayerNorm, Linear, LockedDropout, Module, MonteCarlo, Result, Sequential, Softmax,
    WeightDropout, dropout::DropoutLayer, dropout::Rows, monte_carlo_rows, take_key,
};

fn bytes(x: &Tensor) -> Vec<u8> {
    x.to_le_bytes().unwrap()
}

fn random(shape: &[usize], dtype: DType, seed: u64) -> Tensor {
    Tensor::randn(shape, dtype, MaskKey { seed, offset: 0 }).unwrap()
}

fn network(dtype: DType) -> Sequential {
    let generator = Generator::new(1);
    let linear = |inputs, outputs| Linear::with_dtype(inputs, outputs, dtype, &generator).unwrap();
    let mut net = Sequential::new()
        .with(linear(20, 70))
        .with(LayerNorm::with_dtype([70], dtype).unwrap())
        .with(GELU::default())
        .with(Dropout::new(0.3).unwrap())
        .with(linear(70, 30))
        .with(DropPath::new(0.2).unwrap())
        .with(AlphaDropout::new(0.1).unwrap())
        .with(GaussianDropout::new(0.1).unwrap())
        .with(linear(30, 3))
        .with(Softmax::new(-1));
    net.eval();
    net
}

/// Numbers that look random, for sizes of batches and an order of requests.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let draws = random(&[count], DType::F64, seed).to_vec::<f64>().unwrap();
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| draws[a].total_cmp(&draws[b]));
    order
}

/// That each of so many requests gets the same bits alone and in random batches; the bytes of all.
fn requests_in_random_batches(dtype: DType, requests: usize) -> Vec<Vec<u8>> {
    let net = network(dtype);
    let inputs = random(&[requests, 20], dtype, 3);
    let input = |request: usize| inputs.slice(0, request..request + 1).unwrap();
    let seed = |request: usize| request as u64 * 31 + 7;
    let alone: Vec<_> = (0..requests)
        .map(|request| {
            let passes =
                MonteCarlo::of_rows(&[seed(request)][..]).samples(&net, &input(request), 2);
            bytes(&passes.unwrap().samples()[1])
        })
        .collect();
    assert_ne!(alone[0], alone[1]);
    let order = shuffled(requests, 4);
    let (mut rest, mut size) = (&*order, 1);
    while !rest.is_empty() {
        let (batch, more) = rest.split_at(size.min(rest.len()));
        let parts: Vec<_> = batch.iter().map(|&request| input(request)).collect();
        let x = Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0).unwrap();
        let seeds: Vec<_> = batch.iter().map(|&request| seed(request)).collect();
        let passes = MonteCarlo::of_rows(&seeds).samples(&net, &x, 2).unwrap();
        let y = &passes.samples()[1];
        for (row, &request) in batch.iter().enumerate() {
            let y = y.slice(0, row..row + 1).unwrap();
            assert!(
                bytes(&y) == alone[request],
                "{dtype}: request {request} in a batch of {}",
                batch.len()
            );
        }
        rest = more;
        size = size * 7 % 65 + 1;
    }
    alone
}

#[test]
fn a_thousand_requests_in_random_batches() {
    for (dtype, requests) in [(DType::F32, 1000), (DType::F64, 200), (DType::BF16, 200)] {
        requests_in_random_batches(dtype, requests);
    }
}

/// What [`on_each_backend_and_on_several_threads`] runs for a backend: on 1, 2 and 7 threads.
#[test]
fn the_child() {
    let Some(backend) = sorix_testing::backend_of_child() else {
        return;
    };
    assert_eq!(sorix_kernels::dispatch::active().unwrap().name(), backend);
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        pool.install(|| requests_in_random_batches(DType::F32, 1000))
    };
    let expected = on(1);
    assert!(on(2) == expected && on(7) == expected);
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&expected, &mut hash);
    sorix_testing::answer(&format!("{:x}", std::hash::Hasher::finish(&hash)));
}

/// The answers are the same on all of them too: they share the products of matrices.
#[test]
fn on_each_backend_and_on_several_threads() {
    let here = sorix_kernels::dispatch::available();
    let here: Vec<_> = here.iter().map(|backend| backend.name()).collect();
    let answers = sorix_testing::answers_on_each_backend(&here, "the_child");
    let (_, first) = &answers[0];
    assert!(answers.iter().all(|(_, hash)| hash == first), "{answers:?}");
}

/// Rows behind the first axis belong to the request.
#[test]
fn an_axis_folded_into_that_of_the_batch() {
    #[derive(Debug, Module)]
    struct Folds(Dropout, LockedDropout);
    impl Module for Folds {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            let &[batch, steps, width] = x.shape() else {
                unreachable!("as the test calls it")
            };
            let x = self.1.forward(x)?.reshape([batch * steps, width])?;
            Ok(self.0.forward(&x)?.reshape([batch, steps, width])?)
        }
    }
    let net = Folds(Dropout::new(0.5).unwrap(), LockedDropout::new(0.5).unwrap());
    let x = random(&[3, 5, 7], DType::F32, 1);
    let together = monte_carlo_rows(&[4, 5, 6], 9, || net.forward(&x)).unwrap();
    for (row, seed) in [4, 5, 6].into_iter().enumerate() {
        let one = x.slice(0, row..row + 1).unwrap();
        let alone = monte_carlo_rows(&[seed], 9, || net.forward(&one)).unwrap();
        let part = together.slice(0, row..row + 1).unwrap();
        assert_eq!(bytes(&alone), bytes(&part));
    }
}

#[test]
fn the_keys_are_those_of_each_request_alone() {
    let dropout = Dropout::new(0.5).unwrap();
    let x = Tensor::ones([2, 100], DType::F64).unwrap();
    let keys = [8, 9].map(|seed| Generator::new(seed).fork("monte carlo sample 3").next_key());
    let expected = dropout.forward_with_keys(&x, &keys).unwrap();
    let got = monte_carlo_rows(&[8, 9], 3, || dropout.forward(&x)).unwrap();
    assert_eq!(bytes(&got), bytes(&expected));
    for (row, key) in keys.into_iter().enumerate() {
        let one = x.slice(0, row..row + 1).unwrap();
        let alone = dropout.forward_with_key(&one, key).unwrap();
        assert_eq!(
            bytes(&alone),
            bytes(&expected.slice(0, row..row + 1).unwrap())
        );
    }
}

#[test]
fn what_cannot_be_told_apart_is_an_error() {
    let generator = Generator::new(1);
    let x = Tensor::ones([4, 6], DType::F32).unwrap();
    let rows = |seeds: &[u64], model: &dyn Module, x: &Tensor| {
        monte_carlo_rows(seeds, 0, || model.forward(x)).unwrap_err()
    };
    let dropout = Dropout::new(0.5).unwrap();
    for seeds in [&[1, 2, 3][..], &[]] {
        assert_eq!(
            rows(seeds, &dropout, &x).to_string(),
            format!(
                "dropout by rows: expected a first axis of {} equal parts, one for each key, got shape [4, 6]",
                seeds.len()
            )
        );
    }
    let none = Tensor::ones([], DType::F32).unwrap();
    assert!(matches!(rows(&[1], &dropout, &none), Error::Shape { .. }));
    let steps_first = LockedDropout::new(0.5).unwrap().time_axis(0);
    assert!(matches!(
        rows(&[1, 2], &steps_first, &x),
        Error::Shape { .. }
    ));

    // Masks of weights are for all rows.
    let linear = Linear::new(6, 4, &generator).unwrap();
    let weight = WeightDropout::new(linear, Dropout::new(0.5).unwrap());
    assert_eq!(rows(&[1, 2], &weight, &x), Error::SharedKey);
    let table = Embedding::new(4, 2, &generator).unwrap();
    let embedding = EmbeddingDropout::new(table, DropoutLayer::with_form(Rows, 0.5).unwrap());
    assert_eq!(rows(&[1, 2], &embedding, &x), Error::SharedKey);
    let before = generator.state();
    let own = monte_carlo_rows(&[1, 2], 0, || {
        Ok(take_key(sorix_nn::Mode::Eval, &generator))
    });
    assert_eq!(own.unwrap_err(), Error::SharedKey);
    assert_eq!(generator.state(), before);
}
