//! The layers of which dropout is one pass with what stands beside it: modes, keys, scopes and parts.

use std::sync::Arc;

use sorix_core::{DType, MaskKey, Tensor};
use sorix_nn::{
    DropPath, Dropout, GELU, GELUDropout, GaussianDropout, Generator, Module, ReLU, ReLUDropout,
    Residual, Result, Sequential, Shard, SiLU, SiLUDropout, SwiGLU, SwiGLUDropout, monte_carlo,
    monte_carlo_rows,
};

const KEY: MaskKey = MaskKey { seed: 1, offset: 2 };
const DTYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

fn randn(shape: &[usize], seed: u64) -> Tensor {
    Tensor::randn(shape, DType::F64, MaskKey { seed, offset: 0 }).unwrap()
}

fn bits(x: &Tensor) -> Vec<u64> {
    let x = x.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
    x.into_iter().map(f64::to_bits).collect()
}

/// What a layer makes of an input, by its bits, and the gradient of that, in which a zero has no sign: of two layers it
/// is a product with a slope of either sign.
fn call(layer: &dyn Module) -> (Vec<u64>, Vec<f64>) {
    let x = randn(&[30, 40], 1).requires_grad(true);
    let y = layer.forward(&x).unwrap();
    y.backward_with(&randn(y.shape(), 2)).unwrap();
    (bits(&y), x.grad().unwrap().to_vec().unwrap())
}

#[test]
fn an_activation_with_dropout_is_the_two_layers_in_one() {
    // The scale is a power of two, so that no product with it is rounded, in whatever order.
    for p in [0.0, 0.5, 1.0] {
        macro_rules! check {
            ($($fused:expr, $activation:expr;)*) => {$({
                let generators = [(); 2].map(|()| Arc::new(Generator::new(42)));
                let mut fused = $fused.unwrap().generator(Arc::clone(&generators[0]));
                let dropout = Dropout::new(p).unwrap().generator(Arc::clone(&generators[1]));
                let mut apart = Sequential::new().with($activation).with(dropout);
                for _ in 0..3 {
                    assert_eq!(call(&fused), call(&apart), "{fused:?}");
                }
                assert_eq!(generators[0].state(), generators[1].state());
                fused.eval();
                apart.eval();
                assert_eq!(call(&fused), call(&apart), "{fused:?}");
            })*};
        }
        check! {
            ReLUDropout::new(p), ReLU;
            GELUDropout::new(p), GELU::new();
            GELUDropout::with_tanh(p), GELU::with_tanh();
            SiLUDropout::new(p), SiLU;
            SwiGLUDropout::new(p), SwiGLU;
        }
    }
}

#[test]
fn in_eval_and_at_p_0_each_is_the_same_without_dropout_bit_for_bit() {
    for dtype in DTYPES {
        let of = |shape: &[usize], seed| randn(shape, seed).to_dtype(dtype).unwrap();
        let (x, bias, residual) = (of(&[20, 30], 1), of(&[30], 2), of(&[20, 30], 3));
        let generator = Arc::new(Generator::new(1));
        let mut all: Vec<Vec<Vec<u64>>> = Vec::new();
        for (p, is_eval) in [(0.0, false), (0.5, true)] {
            let mut relu = ReLUDropout::new(p).unwrap().generator(generator.clone());
            let mut dropout = Dropout::new(p).unwrap().generator(generator.clone());
            let mut path = DropPath::new(p).unwrap().generator(generator.clone());
            if is_eval {
                relu.eval();
                dropout.eval();
                path.eval();
            }
            all.push(vec![
                bits(&relu.forward(&x).unwrap()),
                bits(&dropout.forward_add(&x, &residual).unwrap()),
                bits(&path.forward_add(&x, &residual).unwrap()),
                bits(&dropout.forward_bias_add(&x, &bias, &residual).unwrap()),
            ]);
        }
        assert_eq!(all[0], all[1], "{dtype}");
        let sum = bits(&residual.add(&x).unwrap());
        assert_eq!(all[0][..3], [bits(&x.relu().unwrap()), sum.clone(), sum]);
        // In eval none takes a key.
        assert_eq!(generator.state().offset, 4);
    }
}

/// The activation is one of the sum of input and bias, in training and in eval.
#[test]
fn a_bias_is_added_before_an_activation() {
    let (x, bias, residual) = (randn(&[16, 50], 1), randn(&[50], 2), randn(&[16, 50], 3));
    let mut layer = SiLUDropout::new(0.0).unwrap();
    let expected = residual.add(&x.add(&bias).unwrap().silu().unwrap());
    let expected = bits(&expected.unwrap());
    for _ in 0..2 {
        let y = layer.forward_bias_add(&x, &bias, &residual).unwrap();
        assert_eq!(bits(&y), expected);
        layer.eval();
    }
}

#[test]
fn a_residual_is_added_by_every_form() {
    let (x, residual) = (randn(&[16, 50], 1), randn(&[16, 50], 2));
    let check = |of: &dyn Fn(bool) -> Result<Tensor>| {
        assert_eq!(bits(&of(true).unwrap()), bits(&of(false).unwrap()));
    };
    macro_rules! check {
        ($($layer:expr),*) => {$(
            check(&|fused| {
                let layer = $layer?.generator(Generator::new(5));
                if fused {
                    layer.forward_add(&x, &residual)
                } else {
                    Ok(residual.add(&layer.forward(&x)?)?)
                }
            });
        )*};
    }
    check!(
        Dropout::new(0.3),
        DropPath::new(0.3),
        DropPath::new(0.3).map(DropPath::per_batch),
        DropPath::new(0.3).map(|path| path.scale_by_keep(false)),
        GaussianDropout::new(0.3),
        ReLUDropout::new(0.3),
        GELUDropout::new(0.3),
        SiLUDropout::new(0.3)
    );
}

#[test]
fn a_residual_block_shows_what_it_has() {
    let mut block = Residual::new(
        sorix_nn::Linear::new(8, 8, &Generator::new(1)).unwrap(),
        Dropout::new(0.5).unwrap().generator(Generator::new(2)),
    );
    let names: Vec<_> = block
        .named_parameters()
        .into_iter()
        .map(|it| it.0)
        .collect();
    assert_eq!(names, ["block.weight", "block.bias"]);
    assert_eq!(block.named_generators()[0].0, "dropout.generator");
    let x = randn(&[4, 8], 3).to_dtype(DType::F32).unwrap();
    block.eval();
    let want = x.add(&block.block().forward(&x).unwrap()).unwrap();
    assert_eq!(bits(&block.forward(&x).unwrap()), bits(&want));
}

#[test]
fn monte_carlo_scopes_drop_in_eval_and_rows_apart() {
    let mut relu = ReLUDropout::new(0.5).unwrap();
    let mut dropout = Dropout::new(0.5).unwrap();
    let mut path = DropPath::new(0.5).unwrap();
    relu.eval();
    dropout.eval();
    path.eval();
    let bias = randn(&[40], 4);
    let net = |x: &Tensor| {
        let y = relu.forward(x)?;
        let y = dropout.forward_bias_add(&y, &bias, x)?;
        path.forward_add(&y, x)
    };
    let x = randn(&[3, 40], 3);
    let sample = |i| bits(&monte_carlo(7, i, || net(&x)).unwrap());
    assert_eq!(sample(0), sample(0));
    assert_ne!(sample(0), sample(1));
    assert_ne!(sample(0), bits(&net(&x).unwrap()));

    let batch = monte_carlo_rows(&[70, 71, 72], 0, || net(&x)).unwrap();
    for (row, seed) in [70, 71, 72].into_iter().enumerate() {
        let alone = x.slice(0, row..row + 1).unwrap();
        let alone = monte_carlo_rows(&[seed], 0, || net(&alone)).unwrap();
        assert_eq!(bits(&alone), bits(&batch.slice(0, row..row + 1).unwrap()));
    }
}

#[test]
fn a_part_gets_its_part() {
    let x = randn(&[12, 30], 1);
    let whole = ReLUDropout::new(0.5).unwrap().generator(Generator::new(3));
    let whole = whole.forward(&x).unwrap();
    for (axis, range) in [(0, 3..9), (1, 10..17)] {
        let shard = Shard::new([12, 30], axis, range.clone()).unwrap();
        let part = x.slice(axis as isize, range.clone()).unwrap();
        let layer = ReLUDropout::new(0.5).unwrap().generator(Generator::new(3));
        let part = layer.forward_sharded(&part, &shard).unwrap();
        assert_eq!(
            bits(&part),
            bits(&whole.slice(axis as isize, range).unwrap())
        );
    }
}

#[test]
fn what_does_not_fit_takes_no_key() {
    let generator = Arc::new(Generator::new(1));
    let dropout = Dropout::new(0.5).unwrap().generator(Arc::clone(&generator));
    let x = randn(&[4, 3], 1);
    let message = |y: Result<Tensor>| y.unwrap_err().to_string();
    assert_eq!(
        message(dropout.forward_add(&x, &randn(&[3, 4], 2))),
        "Dropout: expected a residual of shape [4, 3], as the input's, got shape [3, 4]"
    );
    assert_eq!(
        message(dropout.forward_bias_add(&x, &randn(&[4], 2), &x)),
        "Dropout: expected a bias of shape [3], as the input's last axis, got shape [4]"
    );
    let narrow = x.to_dtype(DType::F32).unwrap();
    assert!(dropout.forward_add(&x, &narrow).is_err());
    let swiglu = SwiGLUDropout::new(0.5)
        .unwrap()
        .generator(Arc::clone(&generator));
    assert_eq!(
        message(swiglu.forward(&x)),
        "SwiGLUDropout: expected a last axis of even length, got shape [4, 3]"
    );
    assert_eq!(generator.state().offset, 0);
    let y = dropout.forward_with_key(&x, KEY).unwrap();
    assert_eq!(y.shape(), [4, 3]);
}
