//! What a training needs around its layers: groups of parameters, master weights, schedules, averages,
//! copies, and batches in an order that a checkpoint continues.

use sorix_core::autograd::no_grad;
use sorix_core::{DType, MaskKey, Tensor, tensor};
use sorix_nn::visit::Visit;
use sorix_nn::{
    AdamW, Batches, Dropout, Embedding, Error, Generator, LayerNorm, Linear, LrSchedule, Module,
    Optimizer, ParameterAverage, Result, Sequential, Sgd, WeightDropout, deep_copy, freeze,
    permutation,
};

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

fn leaf(numbers: &[f64], dtype: DType) -> Tensor {
    tensor(numbers).to_dtype(dtype).unwrap().requires_grad(true)
}

fn named(name: &str, w: &Tensor) -> [(String, Tensor); 1] {
    [(name.to_owned(), w.clone())]
}

/// Gives `w` a gradient of `gradient` in each element.
fn give(w: &Tensor, gradient: f64) {
    w.zero_grad();
    let y = w.mul_scalar(gradient).unwrap().sum().unwrap();
    y.backward().unwrap();
}

#[test]
fn groups_have_numbers_and_a_share_of_the_rate_of_their_own() {
    let [a, b, c] = [1.0, 1.0, 1.0].map(|w| leaf(&[w], DType::F64));
    let mut sgd = Sgd::new(named("a", &a), 0.5)
        .unwrap()
        .weight_decay(0.5)
        .unwrap()
        .param_group(named("b", &b), 0.25)
        .unwrap()
        .momentum(0.5)
        .unwrap()
        .param_group(named("c", &c), 1.0)
        .unwrap()
        .weight_decay(0.0)
        .unwrap();
    for w in [&a, &b, &c] {
        give(w, 1.0);
    }
    sgd.step().unwrap();
    // b and c have the decay and the momentum of the group before, as long as they say nothing else.
    let after = [&a, &b, &c].map(|w| values(w)[0]);
    assert_eq!(after, [1.0 - 0.5 * 1.5, 1.0 - 0.125 * 1.5, 1.0 - 0.5]);
    sgd.step().unwrap();
    let expected_c = 0.5 - 0.5 * (0.5 + 1.0);
    assert_eq!(values(&c), [expected_c]);
    sgd.set_learning_rate(0.0).unwrap();
    sgd.step().unwrap();
    assert_eq!(
        values(&c),
        [expected_c],
        "a rate of 0 is that of all groups"
    );
    let state = sgd.state();
    let names: Vec<_> = state.hyperparameters.iter().map(|it| &*it.0).collect();
    assert_eq!(
        names[..6],
        [
            "learning_rate",
            "momentum",
            "weight_decay",
            "nesterov",
            "groups.1.learning_rate_scale",
            "groups.1.momentum"
        ]
    );
    assert_eq!(
        state
            .parameters
            .iter()
            .map(|it| it.tensors.len())
            .collect::<Vec<_>>(),
        [0, 1, 1]
    );
    sgd.set_learning_rate(0.5).unwrap();
    sgd.set_state(state).unwrap();
    assert_eq!(sgd.learning_rate(), 0.0);
    assert_eq!(sgd.named_parameters().len(), 3);

    let errors = [
        sgd.param_group(named("d", &a), 1.0).map(drop),
        Sgd::new(named("a", &a), 1.0)
            .unwrap()
            .param_group(named("a", &b), 1.0)
            .map(drop),
        Sgd::new(named("a", &a), 1.0)
            .unwrap()
            .param_group([], 1.0)
            .map(drop),
        Sgd::new(named("a", &a), 1.0)
            .unwrap()
            .param_group(named("b", &b), -1.0)
            .map(drop),
    ]
    .map(|result| result.unwrap_err().to_string());
    assert_eq!(
        errors,
        [
            "Sgd: parameter \"d\" is given twice",
            "Sgd: parameter \"a\" is given twice",
            "Sgd: expected at least one parameter, got none",
            "Sgd: learning rate scale: expected a finite number, at least 0, got -1",
        ]
    );
}

#[test]
fn master_weights_follow_an_optimiser_in_f32() {
    for dtype in [DType::F16, DType::BF16] {
        let (half, full) = (leaf(&[1.0, -2.0], dtype), leaf(&[1.0, -2.0], DType::F32));
        let other = leaf(&[1.0], DType::F64);
        let mut ours = AdamW::new(named("w", &half), 1e-3)
            .unwrap()
            .master_weights()
            .param_group(named("other", &other), 1.0)
            .unwrap();
        let mut theirs = AdamW::new(named("w", &full), 1e-3).unwrap();
        for step in 0..50 {
            let gradient = [0.5, -1.0, 2.0][step % 3];
            give(&half, gradient);
            give(&full, gradient);
            give(&other, gradient);
            ours.step().unwrap();
            theirs.step().unwrap();
        }
        assert_eq!(
            values(&half),
            values(&full.to_dtype(dtype).unwrap()),
            "{dtype}"
        );
        let state = ours.state();
        let kept: Vec<Vec<&str>> = state
            .parameters
            .iter()
            .map(|it| it.tensors.iter().map(|(name, _)| &**name).collect())
            .collect();
        assert_eq!(
            kept,
            [
                vec!["exp_avg", "exp_avg_sq", "master"],
                vec!["exp_avg", "exp_avg_sq"]
            ]
        );
        assert_eq!(values(&state.parameters[0].tensors[2].1), values(&full));
        // Into one that has made no step.
        let mut again = AdamW::new(named("w", &half), 1e-3)
            .unwrap()
            .master_weights()
            .param_group(named("other", &other), 1.0)
            .unwrap();
        again.set_state(state.clone()).unwrap();
        assert_eq!(
            values(&again.state().parameters[0].tensors[2].1),
            values(&full)
        );
        let mut without = AdamW::new(named("w", &half), 1e-3).unwrap();
        assert!(without.set_state(state).is_err());
    }
}

#[cfg(feature = "safetensors")]
#[test]
fn a_checkpoint_continues_groups_masters_averages_and_batches_bit_for_bit() {
    use sorix_nn::{Adam, Checkpoint, widen_gradients};

    struct Run {
        net: Linear,
        adam: Adam,
        average: ParameterAverage,
        batches: Batches,
        x: Tensor,
    }
    impl Run {
        fn new(seed: u64) -> Self {
            let net = Linear::with_dtype(3, 2, DType::BF16, &Generator::new(seed)).unwrap();
            widen_gradients(&net).unwrap();
            let (bias, weight): (Vec<_>, Vec<_>) = net
                .named_parameters()
                .into_iter()
                .partition(|(name, _)| name == "bias");
            let adam = Adam::new(weight, 0.01).unwrap().master_weights();
            let adam = adam
                .param_group(bias, 0.5)
                .unwrap()
                .weight_decay(0.1)
                .unwrap();
            let key = MaskKey { seed: 5, offset: 0 };
            Self {
                average: ParameterAverage::exponential(net.named_parameters(), 0.9).unwrap(),
                adam,
                batches: Batches::new(11, 4).unwrap().shuffle(seed),
                x: Tensor::randn([11, 3], DType::BF16, key).unwrap(),
                net,
            }
        }

        fn steps(&mut self, count: usize) {
            for _ in 0..count {
                let Some(batch) = self.batches.next() else {
                    continue;
                };
                self.adam.zero_grad();
                let y = self
                    .net
                    .forward(&self.x.index_select(0, &batch).unwrap())
                    .unwrap();
                y.mul(&y).unwrap().sum().unwrap().backward().unwrap();
                self.adam.step().unwrap();
                self.average.update().unwrap();
            }
        }

        fn checkpoint(&mut self) -> Checkpoint<'_> {
            Checkpoint::new()
                .parameters("model", &self.net)
                .optimizer("adam", &mut self.adam)
                .tensors("ema", self.average.named_tensors())
                .batches("data", &mut self.batches)
        }
    }

    let mut run = Run::new(1);
    run.steps(6);
    let bytes = run.checkpoint().to_bytes().unwrap();
    run.steps(9);
    let expected = run.checkpoint().to_bytes().unwrap();
    let mut again = Run::new(2);
    again.checkpoint().load_bytes(&bytes).unwrap();
    again.steps(9);
    assert_eq!(again.checkpoint().to_bytes().unwrap(), expected);

    // Of another number of examples: nothing changes.
    let mut other = Run::new(3);
    other.batches = Batches::new(12, 4).unwrap().shuffle(1);
    let before = other.checkpoint().to_bytes().unwrap();
    let error = other.checkpoint().load_bytes(&bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Batches: expected a state within 12 examples, got position 8 of 11"
    );
    assert_eq!(other.checkpoint().to_bytes().unwrap(), before);
}

#[test]
fn schedules() {
    let all = |schedule: LrSchedule, steps: &[u64]| -> Vec<f64> {
        steps.iter().map(|&step| schedule.at(step)).collect()
    };
    let step = LrSchedule::step(2.0, 3, 0.5).unwrap();
    assert_eq!(
        all(step, &[0, 2, 3, 5, 6, u64::MAX]),
        [2.0, 2.0, 1.0, 1.0, 0.5, 0.0]
    );
    let growing = LrSchedule::step(1.0, 1, 2.0).unwrap();
    assert_eq!(all(growing, &[10]), [1024.0]);
    // PyTorch 2: CosineAnnealingLR(SGD(lr=1.0), T_max=4, eta_min=0.2).
    let cosine = LrSchedule::cosine(1.0, 0.2, 4).unwrap();
    let expected = [
        1.0,
        0.882_842_712_474_619,
        0.6,
        0.317_157_287_525_381,
        0.2,
        0.2,
    ];
    for (got, expected) in all(cosine, &[0, 1, 2, 3, 4, 9]).into_iter().zip(expected) {
        assert!((got - expected).abs() < 1e-15, "{got}");
    }
    let warm = cosine.warm_up(2);
    assert_eq!(all(warm, &[0, 1, 2, 6]), [0.5, 1.0, 1.0, 0.2]);
    assert_eq!(all(LrSchedule::cosine(1.0, 0.5, 0).unwrap(), &[0]), [0.5]);
    for wrong in [
        LrSchedule::constant(-1.0),
        LrSchedule::constant(f64::NAN),
        LrSchedule::step(1.0, 0, 0.5),
        LrSchedule::step(1.0, 1, f64::INFINITY),
        LrSchedule::cosine(1.0, -0.1, 5),
    ] {
        assert!(matches!(
            wrong,
            Err(Error::Hyperparameter {
                op: "LrSchedule",
                ..
            })
        ));
    }
}

#[test]
fn averages_of_sixteen_bits_move() {
    let w = leaf(&[1.0], DType::BF16);
    let mut average = ParameterAverage::exponential(named("w", &w), 0.999).unwrap();
    let error = average.copy_to(&named("w", &w)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ParameterAverage: expected parameter \"w\" to have been averaged"
    );
    average.update().unwrap();
    no_grad(|| w.assign(&leaf(&[2.0], DType::BF16).detach())).unwrap();
    for _ in 0..1000 {
        average.update().unwrap();
    }
    let expected = 2.0 - 0.999_f64.powi(1000);
    let got = values(&average.named_tensors()[0].1)[0];
    assert!((got - expected).abs() < 1e-4, "{got}");
    average.copy_to(&named("w", &w)).unwrap();
    assert_eq!(values(&w), [f64::from(half::bf16::from_f64(expected))]);
    assert_eq!(values(&average.named_tensors()[1].1), [1001.0]);

    for wrong in [
        named("v", &w),
        named("w", &leaf(&[1.0, 2.0], DType::BF16)),
        named("w", &leaf(&[1.0], DType::F32)),
    ] {
        assert!(matches!(
            average.copy_to(&wrong),
            Err(Error::OtherParameters { .. })
        ));
    }
}

#[derive(Clone, Debug, Module)]
struct Tied {
    embed: Embedding,
    head: Linear,
    norm: LayerNorm,
    inner: Sequential2,
    heads: Vec<Option<Linear>>,
    #[module(parameter)]
    scale: Option<Tensor>,
}

#[derive(Clone, Debug, Module)]
struct Sequential2(WeightDropout, Dropout);

impl Module for Sequential2 {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.1.forward(&self.0.forward(x)?)
    }
}

impl Module for Tied {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.inner.forward(x)?.mul(self.scale.as_ref().unwrap())?)
    }
}

fn tied() -> Tied {
    let generator = Generator::new(1);
    let linear = || Linear::new(2, 2, &generator).unwrap();
    let embed = Embedding::new(3, 2, &generator).unwrap();
    Tied {
        head: Linear::from_tensors(embed.weight().clone(), None).unwrap(),
        embed,
        norm: LayerNorm::new([2]).unwrap(),
        inner: Sequential2(
            WeightDropout::new(linear(), Dropout::new(0.1).unwrap()),
            Dropout::new(0.2).unwrap().generator(Generator::new(3)),
        ),
        heads: vec![None, Some(linear())],
        scale: Some(Tensor::ones([2], DType::F32).unwrap()),
    }
}

#[test]
fn a_deep_copy_shares_no_parameter() {
    let net = Sequential::new()
        .with(tied())
        .with(Linear::new(2, 2, &Generator::new(4)).unwrap());
    freeze(net.get(1).unwrap());
    let copy = deep_copy(&net).unwrap();
    let (ours, theirs) = (net.named_parameters(), copy.named_parameters());
    let names: Vec<_> = ours.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "0.scale",
            "0.embed.weight",
            "0.head.weight",
            "0.norm.weight",
            "0.norm.bias",
            "0.inner.0.weight",
            "0.inner.0.bias",
            "0.heads.1.weight",
            "0.heads.1.bias",
            "1.weight",
            "1.bias"
        ]
    );
    assert_eq!(ours.len(), theirs.len());
    for ((name, own), (other, copy)) in ours.iter().zip(&theirs) {
        assert_eq!((name, values(own)), (other, values(copy)));
        assert!(!own.same_storage(copy));
        assert_eq!(own.needs_grad(), copy.needs_grad(), "{name}");
        assert_eq!(
            own.detach().is_same(own),
            copy.detach().is_same(copy),
            "{name}"
        );
    }
    // Tied as they were; frozen, and to be thawed.
    assert!(theirs[1].1.is_same(&theirs[2].1));
    theirs[9].1.unfreeze();
    assert!(theirs[9].1.needs_grad() && !ours[9].1.needs_grad());
    // The generators are the same, and modes are kept apart.
    let mut copy = copy;
    copy.eval();
    assert_eq!(net.mode(), Some(sorix_nn::Mode::Train));
    assert!(std::sync::Arc::ptr_eq(
        &net.named_generators()[0].1,
        &copy.named_generators()[0].1
    ));
    let boxed: Box<dyn Module> = Box::new(deep_copy(&net).unwrap());
    assert_eq!(
        deep_copy(&boxed).unwrap().named_parameters().len(),
        ours.len()
    );
}

#[test]
fn what_cannot_be_copied_says_where() {
    #[derive(Debug, Module)]
    struct NotClone(Linear);
    impl Module for NotClone {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            self.0.forward(x)
        }
    }
    /// Forgets what a copy needs.
    #[derive(Clone, Debug)]
    struct ByHand(Tensor);
    impl Visit for ByHand {
        fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
            visit("w", &self.0);
        }
        fn boxed_clone(&self) -> Option<Box<dyn Module>> {
            Some(Box::new(self.clone()))
        }
    }
    impl Module for ByHand {
        fn forward(&self, x: &Tensor) -> Result<Tensor> {
            Ok(x.mul(&self.0)?)
        }
    }
    let linear = Linear::new(2, 2, &Generator::new(1)).unwrap();
    let inner = Sequential::new().with(NotClone(linear.clone()));
    let net = Sequential::new().with(linear.clone()).with(inner);
    assert_eq!(
        deep_copy(&net).unwrap_err().to_string(),
        "deep_copy: module \"1.0\" cannot be copied: it is not `Clone`, or its `Visit` does not show a clone"
    );
    assert!(
        deep_copy(&NotClone(linear))
            .unwrap_err()
            .to_string()
            .contains("the module")
    );
    let net = Sequential::new().with(ByHand(tensor([1.0])));
    assert_eq!(
        deep_copy(&net).unwrap_err().to_string(),
        "deep_copy: module \"0\" cannot be copied: `visit_own_parameters_mut` does not show what \
         `visit_own_parameters` does"
    );
}

#[test]
fn permutations_are_fair_and_the_same_everywhere() {
    let key = |offset| MaskKey { seed: 7, offset };
    for count in [0, 1, 2, 1000] {
        let mut order = permutation(count, key(0)).unwrap();
        order.sort_unstable();
        assert!(order.into_iter().eq(0..count));
    }
    // Each of the 24 orders of four 500 times in 12,000: chi-squared of 23 degrees of freedom, whose mean is
    // 23 and standard deviation 6.8.
    let mut counts = std::collections::BTreeMap::new();
    for offset in 0..12_000 {
        *counts
            .entry(permutation(4, key(offset)).unwrap())
            .or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 24);
    let chi: f64 = counts
        .values()
        .map(|&n| f64::powi(f64::from(n) - 500.0, 2) / 500.0)
        .sum();
    assert!(chi < 23.0 + 4.0 * 6.8, "{chi}");
    assert!(permutation(usize::MAX, key(0)).is_err());
}

#[test]
fn batches_of_an_epoch_and_the_next() {
    let mut batches = Batches::new(7, 3).unwrap().shuffle(1).drop_last();
    let epochs: Vec<Vec<Vec<usize>>> = (0..3).map(|_| batches.by_ref().collect()).collect();
    assert!(
        epochs
            .iter()
            .all(|epoch| epoch.iter().all(|batch| batch.len() == 3))
    );
    assert!(epochs.iter().all(|epoch| epoch.len() == 2));
    assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    assert_eq!(batches.epoch(), 3);
    let key = MaskKey { seed: 1, offset: 1 };
    assert_eq!(epochs[1].concat(), permutation(7, key).unwrap()[..6]);
    let mut none = Batches::new(0, 3).unwrap();
    assert_eq!((none.next(), none.next(), none.epoch()), (None, None, 2));
    assert_eq!(
        Batches::new(3, usize::MAX).unwrap().next(),
        Some(vec![0, 1, 2])
    );
    assert_eq!(
        Batches::new(3, 0).unwrap_err().to_string(),
        "Batches: batch size: expected at least 1, got 0"
    );
    let mut state = batches.state();
    state.position = 8;
    assert!(batches.set_state(state).is_err());
}
