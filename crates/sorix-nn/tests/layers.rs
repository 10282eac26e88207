//! Layers: values, shapes, gradients where they meet, modes at depth, and what they refuse.

#[path = "layers/transformer.rs"]
mod transformer;

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor, tensor};
use sorix_nn::dropout::{DropoutLayer, Rows};
use sorix_nn::{
    Dropout, DropoutAddNorm, Embedding, EmbeddingDropout, GELU, Generator, LayerNorm, Linear, Mode,
    Module, ReLU, Sequential, Sigmoid, Softmax, Tanh, functional,
};

const DTYPES: [DType; 4] = [DType::F16, DType::BF16, DType::F32, DType::F64];

fn values(x: &Tensor) -> Vec<f64> {
    x.to_dtype(DType::F64).unwrap().to_vec().unwrap()
}

fn message(result: sorix_nn::Result<Tensor>) -> String {
    result.unwrap_err().to_string()
}

fn linear() -> Linear {
    let weight = tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    Linear::from_tensors(weight, Some(tensor([0.5, 0.0, -0.5]))).unwrap()
}

#[test]
fn linear_multiplies_the_last_axis_whatever_the_others() {
    let x = tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [-1.0, 2.0]]]);
    let expected = [
        [1.5, 3.0, 4.5],
        [2.5, 4.0, 5.5],
        [3.5, 7.0, 10.5],
        [3.5, 5.0, 6.5],
    ];
    let y = linear().forward(&x).unwrap();
    assert_eq!((y.shape(), values(&y)), (&[2, 2, 3][..], expected.concat()));
    let row = linear().forward(&tensor([-1.0, 2.0])).unwrap();
    assert_eq!(
        (row.shape(), values(&row)),
        (&[3][..], expected[3].to_vec())
    );
    let none = Tensor::zeros([0, 4, 2], DType::F64).unwrap();
    assert_eq!(linear().forward(&none).unwrap().shape(), [0, 4, 3]);
    let bare = linear().without_bias();
    assert_eq!(
        values(&bare.forward(&tensor([1.0, 1.0])).unwrap()),
        [3.0, 7.0, 11.0]
    );
}

#[test]
fn linear_has_the_gradients_of_a_product() {
    let linear = linear();
    let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
    let upstream = tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]]);
    linear
        .forward(&x)
        .unwrap()
        .backward_with(&upstream)
        .unwrap();
    // dx = dy W, dW = dyᵀ x, db = the sum of dy over rows.
    assert_eq!(values(&x.grad().unwrap()), [11.0, 14.0, 3.0, 4.0]);
    assert_eq!(
        values(&linear.weight().grad().unwrap()),
        [1.0, 2.0, 3.0, 4.0, 2.0, 4.0]
    );
    assert_eq!(
        values(&linear.bias().unwrap().grad().unwrap()),
        [1.0, 1.0, 2.0]
    );
}

#[test]
fn linear_starts_uniform_within_the_bound_and_the_same_for_a_seed() {
    for dtype in DTYPES {
        let new = |seed| Linear::with_dtype(100, 50, dtype, &Generator::new(seed)).unwrap();
        let (linear, again, other) = (new(1), new(1), new(2));
        for ((_, a), (_, b)) in linear
            .named_parameters()
            .iter()
            .zip(again.named_parameters())
        {
            assert_eq!(values(a), values(&b));
            assert!(a.needs_grad());
        }
        let weight = values(linear.weight());
        assert_ne!(weight, values(other.weight()));
        // A bound of 0.1, rounded to the dtype; the standard deviation is 0.1 / √3.
        assert!(weight.iter().all(|w| w.abs() < 0.1002), "{dtype}");
        let variance = weight.iter().map(|w| w * w).sum::<f64>() / 5000.0;
        assert!((variance.sqrt() / 0.057735 - 1.0).abs() < 0.03, "{dtype}");
        let bias = values(linear.bias().unwrap());
        assert!(bias.iter().all(|b| b.abs() < 0.1002));
        assert_ne!(bias[..], weight[..50], "another key");
    }
    let generator = Generator::new(1);
    Linear::new(2, 3, &generator).unwrap();
    assert_eq!(generator.state().offset, 2);
    assert_eq!(
        Linear::new(2, 3, &generator).unwrap().weight().shape(),
        [3, 2]
    );
    assert!(Linear::new(0, 3, &generator).unwrap().bias().is_some());
}

#[test]
fn linear_names_what_does_not_fit() {
    for x in [tensor([[1.0; 3]]), tensor([[[1.0]]])] {
        assert_eq!(
            message(linear().forward(&x)),
            format!(
                "Linear: expected an input of shape [.., 2], got shape {:?}",
                x.shape()
            )
        );
    }
    assert_eq!(
        message(linear().forward(&tensor(1.0))),
        "Linear: expected an input of shape [.., 2], got shape []"
    );
    assert!(message(linear().forward(&tensor([1.0_f32, 2.0]))).contains("dtype"));
    let weight = tensor([[1.0, 2.0]]);
    let error = Linear::from_tensors(tensor([1.0]), None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Linear: expected a weight of shape [outputs, inputs], got shape [1]"
    );
    let error = Linear::from_tensors(weight, Some(tensor([1.0_f32]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "Linear(float64[1, 2], float32[1]): operands must have one dtype"
    );
    let other = tensor([[1.0], [1.0]]);
    assert!(functional::linear(&tensor([1.0, 2.0]), &other, None).is_err());
}

#[test]
fn activations_are_the_functions_of_their_names() {
    let x = tensor([[-2.0, -0.5, 0.0], [0.5, 1.0, 3.0]]);
    // Of Python's math module: tanh, 1 / (1 + exp(-x)), x erfc(-x / √2) / 2, and that with tanh.
    let cases: [(Box<dyn Module>, [f64; 6]); 5] = [
        (Box::new(ReLU), [0.0, 0.0, 0.0, 0.5, 1.0, 3.0]),
        (
            Box::new(Tanh),
            [
                -0.9640275800758169,
                -0.46211715726000973,
                0.0,
                0.46211715726000973,
                0.7615941559557649,
                0.9950547536867305,
            ],
        ),
        (
            Box::new(Sigmoid),
            [
                0.11920292202211755,
                0.3775406687981454,
                0.5,
                0.6224593312018546,
                0.7310585786300049,
                0.9525741268224334,
            ],
        ),
        (
            Box::new(GELU::new()),
            [
                -0.04550026389635844,
                -0.15426876936299344,
                0.0,
                0.34573123063700656,
                0.8413447460685429,
                2.99595030590511,
            ],
        ),
        (
            Box::new(GELU::with_tanh()),
            [
                -0.04540230591222494,
                -0.15428599017485606,
                0.0,
                0.34571400982514394,
                0.8411919906082768,
                2.996362607918227,
            ],
        ),
    ];
    for (module, expected) in cases {
        let y = module.forward(&x).unwrap();
        assert_eq!(y.shape(), [2, 3]);
        for (y, expected) in values(&y).into_iter().zip(expected) {
            assert!((y - expected).abs() < 1e-14, "{module:?}: {y}, {expected}");
        }
        assert_eq!(module.mode(), None);
    }
}

/// The exponentials are 1, 2, 5 and 3, 2, 1.
#[test]
fn softmax_gives_shares_along_its_axis() {
    let x = tensor([[1.0, 2.0, 5.0], [3.0, 2.0, 1.0]]).log().unwrap();
    let of_rows = [
        1.0 / 8.0,
        2.0 / 8.0,
        5.0 / 8.0,
        3.0 / 6.0,
        2.0 / 6.0,
        1.0 / 6.0,
    ];
    let of_columns = [
        1.0 / 4.0,
        2.0 / 4.0,
        5.0 / 6.0,
        3.0 / 4.0,
        2.0 / 4.0,
        1.0 / 6.0,
    ];
    for (axis, expected) in [
        (0, of_columns),
        (-2, of_columns),
        (1, of_rows),
        (-1, of_rows),
    ] {
        let y = Softmax::new(axis).forward(&x).unwrap();
        for (y, expected) in values(&y).into_iter().zip(expected) {
            assert!((y - expected).abs() < 1e-15, "axis {axis}: {y}, {expected}");
        }
    }
    assert!(Softmax::new(2).forward(&x).is_err());
}

#[test]
fn layer_norm_gives_mean_0_and_variance_1() {
    let x = tensor([[1.0, 2.0, 3.0, 6.0], [-1.0, -1.0, -1.0, -1.0]]);
    let norm = LayerNorm::with_dtype([4], DType::F64).unwrap();
    let y = values(&norm.forward(&x).unwrap());
    // The mean is 3 and the variance 3.5.
    let expected = [-2.0, -1.0, 0.0, 3.0].map(|x| x / (3.5_f64 + 1e-5).sqrt());
    for (y, expected) in y.iter().zip(expected) {
        assert!((y - expected).abs() < 1e-14);
    }
    assert_eq!(y[4..], [0.0; 4], "a constant row");

    let over_two = LayerNorm::with_dtype([2, 4], DType::F64).unwrap();
    let y = over_two.forward(&x.reshape([1, 2, 4]).unwrap()).unwrap();
    assert!(y.mean().unwrap().item::<f64>().unwrap().abs() < 1e-15);
    assert!((y.mul(&y).unwrap().mean().unwrap().item::<f64>().unwrap() - 1.0).abs() < 1e-4);
}

#[test]
fn layer_norm_scales_and_shifts_by_parameters_that_learn() {
    let norm = LayerNorm::with_dtype([2], DType::F64)
        .unwrap()
        .eps(1e-30)
        .unwrap();
    let names: Vec<String> = norm
        .named_parameters()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["weight", "bias"]);
    let x = tensor([[1.0, 3.0], [7.0, 5.0]]).requires_grad(true);
    let upstream = tensor([[1.0, 2.0], [3.0, 4.0]]);
    norm.forward(&x).unwrap().backward_with(&upstream).unwrap();
    let [weight, bias]: [Tensor; 2] = norm.parameters().try_into().unwrap();
    assert_eq!(values(&weight.grad().unwrap()), [-1.0 + 3.0, 2.0 - 4.0]);
    assert_eq!(values(&bias.grad().unwrap()), [4.0, 6.0]);
    // Two elements have values ±1 whatever x is.
    assert!(values(&x.grad().unwrap()).iter().all(|dx| dx.abs() < 1e-15));
    no_grad(|| {
        weight.assign(&tensor([2.0, 3.0])).unwrap();
        bias.assign(&tensor([10.0, 20.0])).unwrap();
    });
    assert_eq!(values(&norm.forward(&x).unwrap()), [8.0, 23.0, 12.0, 17.0]);
}

/// The square of the difference of these leaves the range of f16.
#[test]
fn layer_norm_of_half_precision_is_computed_in_single() {
    let norm = LayerNorm::with_dtype([2], DType::F16).unwrap();
    let x = tensor([1000.0, -1000.0]).to_dtype(DType::F16).unwrap();
    assert_eq!(values(&norm.forward(&x).unwrap()), [1.0, -1.0]);
}

/// What is rounded before it is scaled and shifted is rounded twice.
#[test]
fn layer_norm_of_half_precision_is_rounded_once() {
    let x = Tensor::arange(0.0, 64.0, 1.0, DType::F64).unwrap();
    let weight = Tensor::full([64], 1.125, DType::F64).unwrap();
    let bias = x.mul_scalar(0.0625).unwrap();
    let in_dtype = |dtype| {
        let norm = LayerNorm::with_dtype([64], dtype).unwrap();
        no_grad(|| {
            let to = |x: &Tensor| x.to_dtype(dtype).unwrap();
            norm.weight().unwrap().assign(&to(&weight)).unwrap();
            norm.bias().unwrap().assign(&to(&bias)).unwrap();
            norm.forward(&to(&x)).unwrap()
        })
    };
    let exact = in_dtype(DType::F64);
    for dtype in [DType::F16, DType::BF16] {
        let rounded = exact.to_dtype(dtype).unwrap();
        assert_eq!(values(&in_dtype(dtype)), values(&rounded), "{dtype}");
    }
}

#[test]
fn layer_norm_names_what_does_not_fit() {
    let norm = LayerNorm::new([2, 3]).unwrap();
    for shape in [&[3, 2][..], &[3], &[]] {
        let x = Tensor::zeros(shape, DType::F32).unwrap();
        assert_eq!(
            message(norm.forward(&x)),
            format!("LayerNorm: expected an input that ends in axes [2, 3], got shape {shape:?}")
        );
    }
    let x = Tensor::zeros([2, 3], DType::F64).unwrap();
    assert!(message(norm.forward(&x)).contains("one dtype"));
    assert!(LayerNorm::new([]).is_err());
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(
            LayerNorm::new([1])
                .unwrap()
                .eps(bad)
                .unwrap_err()
                .to_string(),
            format!("LayerNorm: eps: expected a finite number above 0, also in f32, got {bad}")
        );
    }
}

#[test]
fn embedding_looks_up_rows_and_adds_up_their_gradients() {
    let table = Embedding::from_tensor(tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])).unwrap();
    let y = table.lookup(&[2, 0, 2]).unwrap();
    assert_eq!(values(&y), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
    y.backward_with(&tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        .unwrap();
    assert_eq!(
        values(&table.weight().grad().unwrap()),
        [3.0, 4.0, 0.0, 0.0, 6.0, 8.0]
    );
    assert_eq!(table.lookup(&[]).unwrap().shape(), [0, 2]);
    for dtype in DTYPES {
        let rows = tensor([[2.0], [-0.0]]).to_dtype(dtype).unwrap();
        let y = table.forward(&rows).unwrap();
        assert_eq!(
            (y.shape(), values(&y)),
            (&[2, 1, 2][..], vec![5.0, 6.0, 1.0, 2.0])
        );
    }
    assert_eq!(table.forward(&tensor(1.0)).unwrap().shape(), [2]);
}

#[test]
fn embedding_refuses_what_is_no_row() {
    let table = Embedding::new(3, 2, &Generator::new(1)).unwrap();
    for (bad, printed) in [
        (3.0, "3"),
        (-1.0, "-1"),
        (0.5, "0.5"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "inf"),
        (1e300, "1e300"),
        (-1e-9, "-1e-9"),
    ] {
        assert_eq!(
            message(table.forward(&tensor([0.0, bad]))),
            format!("Embedding: expected whole numbers in 0..3, got {printed}")
        );
    }
    // Of which an f64 knows about 16 digits.
    for bad in [usize::MAX, usize::MAX - 1] {
        assert_eq!(
            message(table.lookup(&[bad])),
            format!("Embedding: expected whole numbers in 0..3, got {bad}")
        );
    }
    assert!(Embedding::from_tensor(tensor([1.0])).is_err());
}

/// 257 is not a number of bf16: rows up to 256 can be told apart, more cannot.
#[test]
fn embedding_refuses_a_dtype_that_does_not_tell_its_rows_apart() {
    let rows = |count| Embedding::new(count, 1, &Generator::new(1)).unwrap();
    let x = tensor([256.0]).to_dtype(DType::BF16).unwrap();
    assert_eq!(
        values(&rows(257).forward(&x).unwrap()),
        values(&rows(257).lookup(&[256]).unwrap())
    );
    for (dtype, last) in [
        (DType::BF16, 1 << 8),
        (DType::F16, 1 << 11),
        (DType::F32, 1 << 24),
    ] {
        // Rows of no elements take no memory.
        let rows = |count| {
            let table = Tensor::zeros([count, 0], DType::F32).unwrap();
            Embedding::from_tensor(table).unwrap()
        };
        let x = tensor([last as f64]).to_dtype(dtype).unwrap();
        assert_eq!(rows(last + 1).forward(&x).unwrap().shape(), [1, 0]);
        assert_eq!(
            message(rows(last + 2).forward(&x)),
            format!(
                "Embedding: expected indices of a dtype that holds all of 0..{}, got {dtype}",
                last + 2
            )
        );
    }
}

#[test]
fn embedding_starts_standard_normal() {
    let table = values(
        Embedding::new(100, 100, &Generator::new(7))
            .unwrap()
            .weight(),
    );
    let mean = table.iter().sum::<f64>() / 1e4;
    let variance = table.iter().map(|x| x * x).sum::<f64>() / 1e4;
    assert!(mean.abs() < 0.04 && (variance - 1.0).abs() < 0.06);
}

#[test]
fn a_mode_passes_layers_that_have_none() {
    let generator = Generator::new(1);
    let block = || {
        Sequential::new()
            .with(Linear::new(4, 4, &generator).unwrap())
            .with(LayerNorm::new([4]).unwrap())
            .with(ReLU)
            .with(Dropout::new(0.5).unwrap().generator(Generator::new(3)))
    };
    let mut net = Sequential::new()
        .with(Sequential::new().with(block()).with(GELU::new()))
        .with(block());
    let x = Tensor::ones([8, 4], DType::F32).unwrap();
    assert_eq!(net.mode(), Some(Mode::Train));
    assert_ne!(
        values(&net.forward(&x).unwrap()),
        values(&net.forward(&x).unwrap())
    );
    net.eval();
    assert_eq!(net.mode(), Some(Mode::Eval));
    assert_eq!(
        values(&net.forward(&x).unwrap()),
        values(&net.forward(&x).unwrap())
    );
    net.train();
    assert_ne!(
        values(&net.forward(&x).unwrap()),
        values(&net.forward(&x).unwrap())
    );
    assert_eq!(net.named_parameters()[0].0, "0.0.0.weight");
    assert_eq!(net.parameters().len(), 8);
}

#[test]
fn a_table_without_rows_has_none_to_look_up() {
    let table = Embedding::from_tensor(Tensor::zeros([0, 2], DType::F32).unwrap()).unwrap();
    assert_eq!(
        table.lookup(&[0]).unwrap_err().to_string(),
        "Embedding: expected whole numbers in 0..0, got 0"
    );
}

/// A row of equal elements has the variance 0.
#[test]
fn layer_norm_refuses_an_eps_of_0() {
    for eps in [0.0, -0.0, 1e-60, -1e-5, f64::NAN, f64::INFINITY] {
        let error = LayerNorm::new([2]).unwrap().eps(eps).unwrap_err();
        let message = error.to_string();
        assert!(
            message
                .starts_with("LayerNorm: eps: expected a finite number above 0, also in f32, got"),
            "{message}"
        );
    }
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let norm = LayerNorm::with_dtype([3], dtype)
            .unwrap()
            .eps(1e-30)
            .unwrap();
        let x = Tensor::full([2, 3], 7.0, dtype)
            .unwrap()
            .requires_grad(true);
        let y = norm.forward(&x).unwrap();
        y.sum().unwrap().backward().unwrap();
        for x in [y, x.grad().unwrap()] {
            assert_eq!(
                x.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap(),
                [0.0; 6]
            );
        }
    }
}

#[test]
fn a_row_of_padding_gets_no_gradient_in_any_dtype_or_layer() {
    for dtype in [DType::F16, DType::BF16, DType::F32, DType::F64] {
        let table = Tensor::ones([4, 3], dtype).unwrap();
        let table = Embedding::from_tensor(table)
            .unwrap()
            .padding_idx(3)
            .unwrap();
        let values = |x: &Tensor| x.to_dtype(DType::F64).unwrap().to_vec::<f64>().unwrap();
        let rows = DropoutLayer::<Rows>::new(0.5)
            .unwrap()
            .generator(Generator::new(1));
        let mut dropped = EmbeddingDropout::new(table.clone(), rows);
        dropped.eval();
        let ids = Tensor::from_indices(&[3, 1, 3, 3, 1, 0], [2, 3]).unwrap();
        for layer in [&table as &dyn Module, &dropped] {
            table.weight().zero_grad();
            let y = layer.forward(&ids).unwrap();
            assert_eq!(y.shape(), [2, 3, 3]);
            assert_eq!(values(&y)[..6], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
            y.backward_with(&Tensor::full(y.shape(), 2.0, dtype).unwrap())
                .unwrap();
            let grad = values(&table.weight().grad().unwrap());
            assert_eq!(
                grad,
                [[2.0; 3], [4.0; 3], [0.0; 3], [0.0; 3]].concat(),
                "{dtype}"
            );
        }
        // What is written to the row later is what comes out.
        let row = table.weight().detach().slice(0, 3..4).unwrap();
        row.assign(&Tensor::full([1, 3], 5.0, dtype).unwrap())
            .unwrap();
        assert_eq!(values(&table.lookup(&[3]).unwrap()), [5.0; 3]);
        assert_eq!(table.lookup(&[]).unwrap().shape(), [0, 3]);
    }
    let error = Embedding::new(3, 2, &Generator::new(1))
        .unwrap()
        .padding_idx(3)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "Embedding: expected whole numbers in 0..3, got 3"
    );
}

/// Rows of four, a residual beside them, and a layer with parameters that show.
fn rows_and_residual(dtype: DType) -> (Tensor, Tensor, LayerNorm) {
    let x: Vec<f64> = (0..24).map(|i| f64::from(i * i % 23) - 7.0).collect();
    let x = Tensor::from_slice(&x, [2, 3, 4]).unwrap();
    let residual = x.mul_scalar(0.3).unwrap().add_scalar(1.0).unwrap();
    let row = |scale: f64| tensor([1.0, 2.0, -1.0, 0.5]).mul_scalar(scale).unwrap();
    let [x, residual, weight, bias] =
        [&x, &residual, &row(1.0), &row(0.1)].map(|tensor| tensor.to_dtype(dtype).unwrap());
    let norm = LayerNorm::from_tensors(weight, bias).unwrap();
    (x, residual, norm)
}

#[test]
fn dropout_add_norm_is_the_three_layers_in_a_row() {
    let (x, residual, norm) = rows_and_residual(DType::F64);
    for p in [0.0, 0.4, 1.0] {
        let dropout = || Dropout::new(p).unwrap().generator(Generator::new(42));
        let mut fused = DropoutAddNorm::new(norm.clone(), dropout());
        let mut apart = dropout();
        for mode in [Mode::Train, Mode::Eval, Mode::Train] {
            apart.set_mode(mode);
            if mode == Mode::Eval {
                fused.eval();
            } else {
                fused.train();
            }
            let (z, sum) = fused.add(&x, &residual).unwrap();
            let want = residual.add(&apart.forward(&x).unwrap()).unwrap();
            assert_eq!(values(&sum), values(&want), "p = {p}, {mode:?}");
            let want = values(&norm.forward(&want).unwrap());
            for (z, want) in values(&z).iter().zip(want) {
                assert!((z - want).abs() < 1e-12, "p = {p}: {z} and {want}");
            }
        }
    }
}

#[test]
fn dropout_add_norm_has_the_parameters_of_its_norm_and_the_generator_of_its_dropout() {
    let (x, residual, norm) = rows_and_residual(DType::F32);
    let dropout = Dropout::new(0.5).unwrap().generator(Generator::new(42));
    let mut layer = DropoutAddNorm::new(norm, dropout);
    let names: Vec<String> = layer
        .named_parameters()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["weight", "bias"]);
    let (z, _) = layer.add(&x, &residual).unwrap();
    z.sum().unwrap().backward().unwrap();
    for (name, parameter) in layer.named_parameters() {
        assert!(parameter.grad().is_some(), "{name}");
    }
    // By the same key the same, as a module of one input too.
    let run = |layer: &DropoutAddNorm| values(&layer.forward(&x).unwrap());
    layer.fork_generators(&Generator::new(7));
    let first = run(&layer);
    layer.fork_generators(&Generator::new(7));
    assert_eq!(run(&layer), first);
    layer.eval();
    assert_ne!(run(&layer), first);
}

#[test]
fn dropout_add_norm_drops_by_the_keys_of_a_request() {
    let (x, residual, norm) = rows_and_residual(DType::F32);
    let mut layer = DropoutAddNorm::new(norm, Dropout::new(0.5).unwrap());
    layer.eval();
    let of = |x: &Tensor, residual: &Tensor| layer.add(x, residual).map(|(z, _)| values(&z));
    let seeds = [7, 8];
    let batch = sorix_nn::monte_carlo_rows(&seeds, 0, || of(&x, &residual)).unwrap();
    for (row, seed) in seeds.into_iter().enumerate() {
        let [x, residual] = [&x, &residual].map(|all| all.slice(0, row..row + 1).unwrap());
        let alone = sorix_nn::monte_carlo(seed, 0, || of(&x, &residual)).unwrap();
        assert_eq!(alone, batch[row * 12..][..12]);
    }
}

#[test]
fn dropout_add_norm_refuses_what_does_not_fit_before_a_key_is_taken() {
    let (x, residual, norm) = rows_and_residual(DType::F32);
    let generator = std::sync::Arc::new(Generator::new(42));
    let dropout = Dropout::new(0.5).unwrap();
    let dropout = dropout.generator(std::sync::Arc::clone(&generator));
    let layer = DropoutAddNorm::new(norm, dropout);
    let of = |x: &Tensor, residual: &Tensor| message(layer.add(x, residual).map(|(z, _)| z));
    assert_eq!(
        of(&tensor([1.0_f32, 2.0]), &residual),
        "DropoutAddNorm: expected an input that ends in axes [4], got shape [2]"
    );
    assert_eq!(
        of(&x, &residual.slice(0, 0..1).unwrap()),
        "DropoutAddNorm: expected a residual of shape [2, 3, 4], got shape [1, 3, 4]"
    );
    let wide = residual.to_dtype(DType::F64).unwrap();
    assert!(of(&x, &wide).ends_with("operands must have one dtype"));
    assert_eq!(generator.state().offset, 0);
    assert!(DropoutAddNorm::rms([], DType::F32, Dropout::new(0.5).unwrap()).is_err());
}

#[test]
fn dropout_add_norm_keeps_a_residual_stream_of_f32() {
    let (x, residual, norm) = rows_and_residual(DType::BF16);
    let layer = DropoutAddNorm::new(norm, Dropout::new(0.0).unwrap());
    let (_, sum) = layer.add(&x, &residual).unwrap();
    let (z, sum) = layer.add(&x, &sum).unwrap();
    assert_eq!((z.dtype(), sum.dtype()), (DType::BF16, DType::F32));
}
