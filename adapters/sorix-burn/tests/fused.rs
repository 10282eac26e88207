//! Operations that are one with dropout: those of sorix, bit for bit, and burn's one after the other.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::nn::{LayerNormConfig, RmsNormConfig};
use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData, activation};
use sorix_burn::{
    DropPath, DropRate, Dropout, DropoutAddNorm, DropoutLayer, Error, Form, GeluDropout, Generator,
    MaskKey, ReluDropout, Result, SaveMask, SiluDropout, forms,
};

const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 0,
};
const SHAPE: [usize; 2] = [35, 123];
const DTYPES: [(DType, sorix::DType); 4] = [
    (DType::F32, sorix::DType::F32),
    (DType::F64, sorix::DType::F64),
    (DType::F16, sorix::DType::F16),
    (DType::BF16, sorix::DType::BF16),
];
const RATES: [f64; 4] = [0.0, 0.1, 0.5, 1.0];

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

/// Numbers on both sides of 0 that begin at `first`, in steps that are exact in every dtype.
fn numbers(count: usize, first: f64) -> Vec<f64> {
    (0..count).map(|i| first + (i % 61) as f64 * 0.25).collect()
}

fn tensor<const D: usize>(
    shape: [usize; D],
    first: f64,
    dtype: DType,
    device: &Device,
) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product(), first), shape);
    Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
}

fn own(shape: &[usize], first: f64, dtype: sorix::DType) -> sorix::Tensor {
    let numbers = numbers(shape.iter().product(), first);
    let own = sorix::Tensor::from_vec(numbers, shape).unwrap();
    own.to_dtype(dtype).unwrap()
}

/// The elements as doubles, as bits, so that -0.0 and NaN are told apart.
fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u64> {
    let data = tensor.into_data().convert_dtype(DType::F64);
    let numbers = data.try_to_vec::<f64>().unwrap();
    numbers.into_iter().map(f64::to_bits).collect()
}

fn bits_of_sorix(tensor: &sorix::Tensor) -> Vec<u64> {
    let wide = tensor.to_dtype(sorix::DType::F64).unwrap();
    let numbers = wide.to_vec::<f64>().unwrap();
    numbers.into_iter().map(f64::to_bits).collect()
}

#[track_caller]
fn assert_equal(got: &[u64], expected: &[u64], what: &str) {
    let first = got.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((first, got.len()), (None, expected.len()), "{what}");
}

/// Three inputs of an operation, of which it may leave out the last two.
type Inputs = (Tensor<2>, Tensor<1>, Tensor<2>);

/// Output and gradients are those of sorix' own operation on the same x, bias and other tensor: in each dtype, with
/// and without gradient checkpointing, and with inputs that are held and that are not.
fn agree(
    what: &str,
    burn: impl Fn(Inputs) -> Result<Tensor<2>>,
    sorix: impl Fn(&[sorix::Tensor; 3]) -> sorix::nn::Result<sorix::Tensor>,
) {
    const FIRST: [f64; 3] = [-6.0, -7.0, 3.5];
    let [_, last] = SHAPE;
    for (dtype, own_dtype) in DTYPES {
        let shapes: [&[usize]; 3] = [&SHAPE, &[last], &SHAPE];
        let own_inputs = [0, 1, 2].map(|i| own(shapes[i], FIRST[i], own_dtype).requires_grad(true));
        let expected = sorix(&own_inputs).unwrap();
        let upstream = own(&SHAPE, -5.125, own_dtype);
        expected.backward_with(&upstream).unwrap();
        let output = bits_of_sorix(&expected);

        let plain = Device::flex();
        let fresh = |device: &Device| {
            let [x, bias, other] = FIRST;
            (
                tensor(SHAPE, x, dtype, device),
                tensor([last], bias, dtype, device),
                tensor(SHAPE, other, dtype, device),
            )
        };
        let held = fresh(&plain);
        for inputs in [fresh(&plain), held.clone(), held.clone()] {
            assert_equal(&bits(burn(inputs).unwrap()), &output, what);
        }
        for device in [
            plain.clone().autodiff(),
            plain.clone().autodiff().gradient_checkpointing(),
        ] {
            let what = format!("{what} {dtype:?} on {device:?}");
            // Nobody asks for a gradient here.
            assert_equal(&bits(burn(fresh(&device)).unwrap()), &output, &what);
            let upstream = || tensor(SHAPE, -5.125, dtype, &device);
            // As leaves, then behind another operation, so that nobody but the graph holds them.
            for behind in [false, true] {
                let (x, bias, other) = fresh(&device);
                let leaves = (x.require_grad(), bias.require_grad(), other.require_grad());
                let (x, bias, other) = leaves.clone();
                let inputs = if behind {
                    (x * 1.0, bias * 1.0, other * 1.0)
                } else {
                    (x, bias, other)
                };
                let y = burn(inputs).unwrap();
                assert_eq!((y.dtype(), y.dims()), (dtype, SHAPE));
                assert_equal(&bits(y.clone()), &output, &what);
                let gradients = (y * upstream()).backward();
                let got = [
                    leaves.0.grad(&gradients).map(bits),
                    leaves.1.grad(&gradients).map(bits),
                    leaves.2.grad(&gradients).map(bits),
                ];
                for (i, (got, own)) in got.into_iter().zip(&own_inputs).enumerate() {
                    let what = format!("{what}: gradient {i}");
                    let expected = own.grad().map(|gradient| bits_of_sorix(&gradient));
                    assert_equal(
                        &got.unwrap_or_default(),
                        &expected.unwrap_or_default(),
                        &what,
                    );
                }
            }
        }
    }
}

#[test]
fn activations_are_sorix_own() {
    fn pair<F: Form>(form: F) {
        for (p, save) in [
            (0.0, SaveMask::Bits),
            (0.4, SaveMask::Replay),
            (1.0, SaveMask::Bits),
        ] {
            let burn = DropoutLayer::with_form(form.clone(), p)
                .unwrap()
                .save_mask(save);
            let mut own = sorix::nn::dropout::DropoutLayer::with_form(form.clone(), p).unwrap();
            agree(
                &format!("{own:?}"),
                |(x, ..)| burn.forward_with_key(x, KEY),
                |[x, ..]| own.forward_with_key(x, KEY),
            );
            if p != 0.4 {
                continue;
            }
            // With a residual after it.
            agree(
                &format!("add {own:?}"),
                |(x, _, other)| burn.forward_add_with_key(x, other, KEY),
                |[x, _, other]| Ok(other.add(&own.forward_with_key(x, KEY)?)?),
            );
            sorix::nn::Module::eval(&mut own);
            agree(
                &format!("eval {own:?}"),
                |(x, ..)| burn.forward_if(false, x),
                |[x, ..]| sorix::nn::Module::forward(&own, x),
            );
        }
    }
    pair(forms::Rectified);
    pair(forms::GeluElements::default());
    pair(forms::GeluElements::with_tanh());
    pair(forms::SiluElements);
}

#[test]
fn swiglu_is_sorix_own() {
    for (p, save) in RATES
        .into_iter()
        .zip([SaveMask::Bits, SaveMask::Replay].repeat(2))
    {
        let layer = Dropout::new(p).unwrap().save_mask(save);
        agree(
            &format!("p = {p} {save:?}"),
            |(gate, _, up)| layer.forward_swiglu_with_key(gate, up, KEY),
            |[gate, _, up]| Ok(gate.swiglu_dropout(up, rate(p), KEY, save)?),
        );
    }
}

#[test]
fn a_bias_and_a_residual_are_added_as_sorix_own_adds_them() {
    for (p, save) in RATES
        .into_iter()
        .zip([SaveMask::Bits, SaveMask::Replay].repeat(2))
    {
        let layer = Dropout::new(p).unwrap().save_mask(save);
        agree(
            &format!("p = {p} {save:?}"),
            |(x, bias, residual)| layer.forward_bias_add_with_key(x, bias, residual, KEY),
            |[x, bias, residual]| Ok(x.bias_dropout_add(bias, residual, rate(p), KEY, save)?),
        );
        let paths = DropPath::new(p).unwrap().save_mask(save);
        let shape = [SHAPE[0], 1];
        agree(
            &format!("paths p = {p} {save:?}"),
            |(x, _, residual)| paths.forward_add_with_key(x, residual, KEY),
            |[x, _, residual]| Ok(x.dropout_add_broadcast(residual, rate(p), KEY, &shape, save)?),
        );
    }
}

/// Every form takes a bias and a residual: as three operations give it.
#[test]
fn every_layer_adds_a_bias_and_a_residual() {
    fn check<F: Form>(form: F) {
        let layer = DropoutLayer::with_form(form, 0.4).unwrap();
        let device = Device::flex().autodiff();
        let leaf = |first| tensor(SHAPE, first, DType::F32, &device).require_grad();
        let (x, residual) = (leaf(-6.0), leaf(3.5));
        let bias = tensor([SHAPE[1]], -7.0, DType::F32, &device).require_grad();
        for train in [true, false] {
            let seeded = || layer.clone().generator(Generator::new(7));
            let fused =
                seeded().forward_bias_add_if(train, x.clone(), bias.clone(), residual.clone());
            let apart = seeded().forward_if(train, x.clone() + bias.clone().unsqueeze());
            let (fused, apart) = (fused.unwrap(), residual.clone() + apart.unwrap());
            assert_equal(
                &bits(fused.clone()),
                &bits(apart.clone()),
                &format!("{layer:?}"),
            );
            let (fused, apart) = (fused.backward(), apart.backward());
            assert_eq!(bits(x.grad(&fused).unwrap()), bits(x.grad(&apart).unwrap()));
            let of_bias = bias.grad(&fused).unwrap() - bias.grad(&apart).unwrap();
            assert!(of_bias.abs().max().into_scalar::<f32>() < 1e-3);
            assert_eq!(
                bits(residual.grad(&fused).unwrap()),
                bits(residual.grad(&apart).unwrap())
            );
        }
    }
    check(forms::Elements);
    check(forms::Paths::default());
    check(forms::Alpha);
    check(forms::Gaussian);
    check(forms::Rectified);
    check(forms::SiluElements);
}

/// Gradients for 300 rows of 67: each has all the bits that the type has, of which a sum in 16 bits loses some at every
/// step. The first column is the same in all rows, and in every second the signs alternate.
fn rows_of_many_bits(fractions: usize) -> Vec<f64> {
    let number = |row: usize, column: usize| {
        if column == 0 {
            return 1.0 + 1.0 / fractions as f64;
        }
        let fraction = (37 * row + 11 * column) % fractions;
        let size = (1.0 + fraction as f64 / fractions as f64)
            * f64::powi(2.0, ((row + column) % 4) as i32);
        if row * column % 2 == 1 { -size } else { size }
    };
    (0..300 * 67).map(|i| number(i / 67, i % 67)).collect()
}

/// The gradient of the bias in 16 bits, which is that of x summed over rows and rounded once, in a call on 300 rows of 67.
fn bias_gradient_in(
    (dtype, fractions): (DType, usize),
    what: &str,
    call: impl Fn(Inputs) -> Result<Tensor<2>>,
) -> Vec<f64> {
    let device = Device::flex().autodiff();
    let to_doubles = |data: TensorData| data.convert_dtype(DType::F64).try_to_vec::<f64>().unwrap();
    let of = |numbers: Vec<f64>, rows: usize| {
        let data = TensorData::new(numbers, [rows, 67]).convert_dtype(DType::F32);
        Tensor::<2>::from_data(data.convert_dtype(dtype), (&device, dtype))
    };
    let [x, residual] = [-6.0, 3.5].map(|first| tensor([300, 67], first, dtype, &device));
    let bias = tensor([67], -7.0, dtype, &device).require_grad();
    let x = x.require_grad();
    let y = call((x.clone(), bias.clone(), residual)).unwrap();
    let gradients = (y * of(rows_of_many_bits(fractions), 300)).backward();
    let dx = to_doubles(x.grad(&gradients).unwrap().into_data());
    let (mut sums, mut narrow) = (vec![0.0; 67], of(vec![0.0; 67], 1));
    for row in dx.chunks_exact(67) {
        for (sum, dx) in sums.iter_mut().zip(row) {
            *sum += dx;
        }
        narrow = narrow + of(row.to_vec(), 1);
    }
    let expected = bits(of(sums, 1));
    let got = bias.grad(&gradients).unwrap();
    assert_eq!(got.dtype(), dtype);
    assert_equal(&bits(got.clone()), &expected, what);
    // Otherwise the numbers would not show it.
    assert_ne!(bits(narrow), expected, "{what}");
    to_doubles(got.into_data())
}

#[test]
fn the_gradient_of_a_bias_is_summed_in_more_than_16_bits() {
    const KINDS: [(DType, usize); 2] = [(DType::F16, 1024), (DType::BF16, 128)];
    fn check<F: Form>(form: F) {
        for kind in KINDS {
            for (p, train) in [(0.0, true), (0.1, true), (0.5, true), (0.5, false)] {
                let layer = DropoutLayer::with_form(form.clone(), p).unwrap();
                let layer = layer.generator(Generator::new(7));
                let what = format!("{layer:?} {kind:?} {train}");
                bias_gradient_in(kind, &what, |(x, bias, residual)| {
                    layer.forward_bias_add_if(train, x, bias, residual)
                });
            }
        }
    }
    check(forms::Elements);
    check(forms::Paths::default());
    check(forms::Alpha);
    check(forms::Gaussian);
    check(forms::Rectified);
    check(forms::GeluElements::default());
    check(forms::SiluElements);
    // 300 * (1 + 2^-10) = 300.29… and 300 * (1 + 2^-7) = 302.34…, with steps of 1/4 and of 2 there.
    for (kind, expected) in KINDS.into_iter().zip([300.25, 302.0]) {
        let layer = Dropout::new(0.0).unwrap();
        let got = bias_gradient_in(kind, "p = 0", |(x, bias, residual)| {
            layer.forward_bias_add_with_key(x, bias, residual, KEY)
        });
        assert_eq!(got[0], expected, "{kind:?}");
    }
}

/// The layer with parameters of this dtype.
fn add_norm(rms: bool, p: f64, dtype: DType, device: &Device) -> DropoutAddNorm {
    let [_, last] = SHAPE;
    let dropout = Dropout::new(p).unwrap();
    let made = if rms {
        let config = RmsNormConfig::new(last).with_epsilon(1e-3);
        DropoutAddNorm::rms(&config, dropout, device)
    } else {
        let config = LayerNormConfig::new(last).with_epsilon(1e-3);
        DropoutAddNorm::layer(&config, dropout, device)
    };
    let mut layer = made.unwrap();
    let row = |first| Param::from_tensor(tensor([last], first, dtype, device));
    layer.gamma = row(0.5);
    layer.beta = layer.beta.map(|_| row(1.25));
    layer
}

#[test]
fn normalised_rows_are_sorix_own() {
    let own_norm = |rms: bool| match rms {
        true => sorix::NormOptions::rms(1e-3),
        false => sorix::NormOptions::layer(1e-3),
    };
    let [_, last] = SHAPE;
    for p in RATES {
        for (rms, biased, prenorm) in [
            (false, false, false),
            (false, true, true),
            (true, true, false),
            (true, false, true),
        ] {
            agree(
                &format!("rms {rms}, bias {biased}, prenorm {prenorm}, p = {p}"),
                |(x, bias, residual)| {
                    let dtype = x.dtype();
                    let layer = add_norm(rms, p, dtype, &x.device());
                    let (z, sum) = if biased {
                        layer.forward_bias_with_key(x, bias, residual, KEY)
                    } else {
                        layer.forward_with_key(x, residual, KEY)
                    }?;
                    Ok(if prenorm {
                        let wide = FloatDType::from(sum.dtype());
                        (z.cast(wide) + sum).cast(FloatDType::from(dtype))
                    } else {
                        z
                    })
                },
                |[x, bias, residual]| {
                    let dtype = x.dtype();
                    let [gamma, beta] = [0.5, 1.25].map(|first| own(&[last], first, dtype));
                    let mut norm = own_norm(rms).weight(&gamma);
                    if !rms {
                        norm = norm.shift(&beta);
                    }
                    if biased {
                        norm = norm.bias(bias);
                    }
                    let save = SaveMask::Replay;
                    let (z, sum) = x.dropout_add_norm(residual, norm, rate(p), KEY, save)?;
                    Ok(if prenorm {
                        z.to_dtype(sum.dtype())?.add(&sum)?.to_dtype(dtype)?
                    } else {
                        z
                    })
                },
            );
        }
    }
    // The gradients of the parameters.
    for (dtype, own_dtype) in DTYPES {
        let device = Device::flex().autodiff();
        let layer = add_norm(false, 0.3, dtype, &device);
        let [x, residual] = [-6.0, 3.5].map(|first| tensor(SHAPE, first, dtype, &device));
        let (z, _) = layer.forward_with_key(x, residual, KEY).unwrap();
        let gradients = (z * tensor(SHAPE, -5.125, dtype, &device)).backward();
        let [gamma, beta] =
            [0.5, 1.25].map(|first| own(&[last], first, own_dtype).requires_grad(true));
        let [x, residual] = [-6.0, 3.5].map(|first| own(&SHAPE, first, own_dtype));
        let norm = own_norm(false).weight(&gamma).shift(&beta);
        let made = x.dropout_add_norm(&residual, norm, rate(0.3), KEY, SaveMask::Bits);
        let upstream = own(&SHAPE, -5.125, own_dtype);
        made.unwrap().0.backward_with(&upstream).unwrap();
        let beta_of_burn = layer.beta.as_ref().unwrap().val();
        for (burn, own) in [(layer.gamma.val(), gamma), (beta_of_burn, beta)] {
            let gradient = burn.grad(&gradients).unwrap();
            assert_eq!(gradient.dtype(), dtype);
            let expected = bits_of_sorix(&own.grad().unwrap());
            assert_equal(&bits(gradient), &expected, &format!("{dtype:?}"));
        }
    }
}

#[test]
fn a_layer_normalises_as_burns_own_after_dropout() {
    let [_, last] = SHAPE;
    let device = Device::flex().autodiff();
    let dropout = || Dropout::new(0.4).unwrap().generator(Generator::new(7));
    let layer_norm = LayerNormConfig::new(last).init(&device);
    let rms_norm = RmsNormConfig::new(last).init(&device);
    for rms in [false, true] {
        for training in [true, false] {
            let leaf = |first| tensor(SHAPE, first, DType::F32, &device).require_grad();
            let (x, residual) = (leaf(-6.0), leaf(3.5));
            let layer = if rms {
                let config = RmsNormConfig::new(last);
                DropoutAddNorm::rms(&config, dropout(), &device)
            } else {
                DropoutAddNorm::layer(&LayerNormConfig::new(last), dropout(), &device)
            };
            let made = layer
                .unwrap()
                .forward_if(training, x.clone(), residual.clone());
            let (z, sum) = made.unwrap();
            let apart = dropout().forward_add_if(training, x.clone(), residual.clone());
            let apart = apart.unwrap();
            assert_equal(&bits(sum), &bits(apart.clone()), "the sum");
            let apart = if rms {
                rms_norm.forward(apart)
            } else {
                layer_norm.forward(apart)
            };
            let all = |z: Tensor<2>| {
                let gradients = (z.clone() * z.clone() * z.clone()).backward();
                [
                    z.inner(),
                    x.grad(&gradients).unwrap(),
                    residual.grad(&gradients).unwrap(),
                ]
            };
            for (ours, theirs) in all(z).into_iter().zip(all(apart)) {
                let error = (ours - theirs).abs().max().into_scalar::<f32>();
                assert!(error < 1e-3, "{error}");
            }
        }
    }
}

#[test]
fn a_layer_that_normalises_trains_as_its_dropout_and_loads_what_burns_norm_saved() {
    let (generator, device) = (Arc::new(Generator::new(1)), Device::flex().autodiff());
    let dropout = Dropout::new(0.5).unwrap().generator(generator.clone());
    let config = LayerNormConfig::new(6);
    let layer = DropoutAddNorm::layer(&config, dropout.clone(), &device).unwrap();
    let x = || Tensor::<2>::ones([4, 6], &device);
    let (_, sum) = layer.forward(x(), x());
    assert!(bits(sum).iter().any(|&sum| sum != 2.0_f64.to_bits()));
    assert_eq!(generator.state().offset, 1);
    let eval = layer.clone().valid();
    let (_, sum) = eval.forward(x().inner(), x().inner());
    assert_eq!(bits(sum), [2.0_f64.to_bits(); 24]);
    assert_eq!(generator.state().offset, 1);

    let mut norm = config.init(&device);
    norm.gamma = Param::from_tensor(Tensor::full([6], 3.0, &device));
    let loaded = layer.clone().load_record(norm.clone().into_record());
    assert_eq!(loaded.gamma.val().into_data(), norm.gamma.val().into_data());
    let back = config.init(&device).load_record(loaded.into_record());
    assert_eq!(back.gamma.val().into_data(), norm.gamma.val().into_data());

    // What does not fit takes no key.
    let bias = Tensor::<1>::ones([4], &device);
    for (error, expected) in [
        (
            layer.try_forward(x(), Tensor::ones([6, 4], &device)),
            "dropout_add_norm: expected a residual of shape [4, 6] for the input, F32 of shape [4, 6]",
        ),
        (
            layer.try_forward(x(), tensor([4, 6], 1.0, DType::F64, &device)),
            "got F64 of shape [4, 6]",
        ),
        (
            layer.try_forward(x(), Tensor::ones([4, 6], &Device::flex())),
            "expected a residual",
        ),
        (
            layer.try_forward_bias(x(), bias, x()),
            "expected a bias of shape [6] for the input, F32 of shape [4, 6]",
        ),
        (
            layer.try_forward(Tensor::ones([6, 4], &device), Tensor::ones([6, 4], &device)),
            "expected gamma of shape [4] for the input, F32 of shape [6, 4]",
        ),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(generator.state().offset, 1);
    let error = DropoutAddNorm::layer(&config.with_epsilon(-1.0), dropout, &device).unwrap_err();
    let expected = "epsilon must be a finite number, at least 0, got -1";
    assert_eq!(error.to_string(), expected);
}

/// Of 16 bits the residual and the parameters may be f32; and what others hold is not written over.
#[test]
fn a_residual_of_sixteen_bits_may_be_f32() {
    for dtype in [DType::F16, DType::BF16] {
        let device = Device::flex().autodiff();
        let x = tensor(SHAPE, -6.0, dtype, &device).require_grad();
        let residual = tensor(SHAPE, 3.5, DType::F32, &device).require_grad();
        let layer = add_norm(true, 0.3, DType::F32, &device);
        let before = bits(residual.clone());
        let (z, sum) = layer
            .forward_with_key(x.clone(), residual.clone(), KEY)
            .unwrap();
        assert_eq!((z.dtype(), sum.dtype()), (dtype, DType::F32));
        assert_eq!(bits(residual.clone()), before);
        let halves = residual.clone().cast(FloatDType::from(dtype));
        let (same, _) = layer.forward_with_key(x.clone(), halves, KEY).unwrap();
        assert_equal(&bits(z.clone()), &bits(same), "exact in 16 bits");
        let gradients = z.backward();
        assert_eq!(x.grad(&gradients).unwrap().dtype(), dtype);
        assert_eq!(residual.grad(&gradients).unwrap().dtype(), DType::F32);
        let strided = || (x.clone().transpose(), residual.clone().transpose());
        let layer = {
            let config = RmsNormConfig::new(SHAPE[0]);
            DropoutAddNorm::rms(&config, Dropout::new(0.3).unwrap(), &device).unwrap()
        };
        let (x, residual) = strided();
        let made = layer.forward_with_key(x.clone(), residual.clone(), KEY);
        let laid_out = |x: Tensor<2>| {
            let (data, dtype) = (x.to_data(), x.dtype());
            Tensor::<2>::from_data(data, (&device, dtype))
        };
        let copied = layer.forward_with_key(laid_out(x), laid_out(residual), KEY);
        assert_equal(&bits(made.unwrap().0), &bits(copied.unwrap().0), "strides");
    }
}

#[test]
fn burns_own_operations_one_after_the_other_are_the_same() {
    let device = Device::flex().autodiff();
    let close = |fused: Tensor<2>, apart: Tensor<2>, leaves: &[&Tensor<2>], what: &str| {
        let all = |y: Tensor<2>| {
            let upstream = tensor(SHAPE, -5.125, DType::F64, &device);
            let gradients = (y.clone() * upstream).backward();
            let of_leaves = leaves.iter().map(|leaf| leaf.grad(&gradients).unwrap());
            of_leaves.chain([y.inner()]).collect::<Vec<_>>()
        };
        for (fused, apart) in all(fused).into_iter().zip(all(apart)) {
            let error = (fused - apart).abs().max().into_scalar::<f64>();
            assert!(error < 1e-4, "{what}: {error}");
        }
    };
    let leaf = |first| tensor(SHAPE, first, DType::F64, &device).require_grad();
    let (x, other) = (leaf(-6.1), leaf(2.3));
    for p in [0.0, 0.4, 1.0] {
        let dropout = Dropout::new(p).unwrap();
        let apart = |y| dropout.forward_with_key(y, KEY).unwrap();
        let relu = ReluDropout::new(p)
            .unwrap()
            .forward_with_key(x.clone(), KEY);
        close(
            relu.unwrap(),
            apart(activation::relu(x.clone())),
            &[&x],
            "relu",
        );
        let gelu = GeluDropout::new(p).unwrap();
        let tanh = gelu.clone().with_tanh().forward_with_key(x.clone(), KEY);
        let gelu = gelu.forward_with_key(x.clone(), KEY);
        close(
            gelu.unwrap(),
            apart(activation::gelu(x.clone())),
            &[&x],
            "gelu",
        );
        let approximate = activation::gelu_approximate(x.clone());
        close(tanh.unwrap(), apart(approximate), &[&x], "gelu by tanh");
        let silu = SiluDropout::new(p)
            .unwrap()
            .forward_with_key(x.clone(), KEY);
        close(
            silu.unwrap(),
            apart(activation::silu(x.clone())),
            &[&x],
            "silu",
        );
        let swiglu = dropout.forward_swiglu_with_key(x.clone(), other.clone(), KEY);
        let product = activation::silu(x.clone()) * other.clone();
        close(swiglu.unwrap(), apart(product), &[&x, &other], "swiglu");
    }
}

/// What is dropped is +0.0 in output and gradients, if all inputs are NaN, and for gradients that are.
#[test]
fn what_is_dropped_does_not_leak_forward_or_backward() {
    let device = Device::flex().autodiff();
    let full = |x: f32| Tensor::<1>::full([1000], x, &device);
    let dropout = Dropout::new(0.5).unwrap();
    let keep = dropout.forward_with_key(full(1.0).inner(), KEY).unwrap();
    let keep: Vec<bool> = bits(keep).into_iter().map(|y| y != 0).collect();
    let [relu, gelu, silu, swiglu, added] = [0, 1, 2, 3, 4];
    for operation in [relu, gelu, silu, swiglu, added] {
        for (x, upstream) in [
            (f32::NAN, 1.0),
            (f32::INFINITY, f32::INFINITY),
            (2.0, f32::NAN),
        ] {
            let x = full(x).require_grad();
            let y = match operation {
                0 => ReluDropout::new(0.5)
                    .unwrap()
                    .forward_with_key(x.clone(), KEY),
                1 => GeluDropout::new(0.5)
                    .unwrap()
                    .forward_with_key(x.clone(), KEY),
                2 => SiluDropout::new(0.5)
                    .unwrap()
                    .forward_with_key(x.clone(), KEY),
                3 => dropout.forward_swiglu_with_key(x.clone(), x.clone(), KEY),
                _ => {
                    let (bias, residual) = (full(1.0), full(0.0));
                    dropout.forward_bias_add_with_key(x.clone(), bias, residual, KEY)
                }
            };
            let y = y.unwrap();
            let dx = x.grad(&(y.clone() * full(upstream)).backward()).unwrap();
            for ((y, dx), keep) in bits(y).into_iter().zip(bits(dx)).zip(&keep) {
                assert_eq!(y != 0, *keep, "{operation}");
                assert!(*keep || dx == 0, "{operation}: {}", f64::from_bits(dx));
                let finite = f64::from_bits(dx).is_finite();
                assert!(!keep || upstream == 1.0 || !finite, "{operation}");
            }
        }
    }
}

#[test]
fn strides_do_not_show_and_what_others_hold_is_not_written_over() {
    let dropout = Dropout::new(0.4).unwrap();
    let (relu, silu) = (
        ReluDropout::new(0.4).unwrap(),
        SiluDropout::new(0.4).unwrap(),
    );
    for device in [Device::flex(), Device::flex().autodiff()] {
        let x = tensor([21, 10], -6.0, DType::F32, &device);
        let before = bits(x.clone());
        for view in [
            x.clone().swap_dims(0, 1),
            x.clone().narrow(1, 3, 5),
            x.clone().narrow(0, 2, 1).expand([21, 10]),
            x.clone().flip([1]),
        ] {
            let copy = || Tensor::<2>::from_data(view.to_data(), &device);
            let last = view.dims()[1];
            let biases = tensor([last, 2], 1.0, DType::F32, &device);
            let strided: Tensor<1> = biases.narrow(1, 1, 1).squeeze_dim(1);
            let bias = Tensor::<1>::from_data(strided.to_data(), &device);
            let all = |x: &dyn Fn() -> Tensor<2>, bias: &Tensor<1>| {
                [
                    relu.forward_with_key(x(), KEY),
                    silu.forward_with_key(x(), KEY),
                    dropout.forward_swiglu_with_key(x(), copy(), KEY),
                    dropout.forward_swiglu_with_key(copy(), x(), KEY),
                    dropout.forward_bias_add_with_key(x(), bias.clone(), copy(), KEY),
                    dropout.forward_bias_add_with_key(copy(), bias.clone(), x(), KEY),
                ]
                .map(|y| bits(y.unwrap()))
            };
            let of_view = || view.clone();
            assert_eq!(all(&of_view, &strided), all(&copy, &bias));
        }
        assert_eq!(bits(x), before);
    }
}

#[test]
fn a_call_takes_one_key_and_one_that_drops_nothing_none() {
    let generator = Arc::new(Generator::new(1));
    let dropout = Dropout::new(0.5).unwrap().generator(generator.clone());
    let relu = ReluDropout::new(0.5).unwrap().generator(generator.clone());
    let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
    let run = |relu: &ReluDropout, dropout: &Dropout, device: &Device| {
        let x = || tensor(SHAPE, -6.0, DType::F32, device);
        let bias = tensor([SHAPE[1]], 1.0, DType::F32, device);
        [
            relu.forward(x()),
            relu.forward_add(x(), x()),
            dropout.forward_swiglu(x(), x()),
            dropout.forward_bias_add(x(), bias, x()),
        ]
        .map(bits)
    };
    let evaluated = run(&relu, &dropout, &plain);
    assert_eq!(run(&relu.valid(), &dropout.valid(), &autodiff), evaluated);
    let x = tensor(SHAPE, -6.0, DType::F32, &plain);
    let bias: Tensor<2> = tensor([SHAPE[1]], 1.0, DType::F32, &plain).unsqueeze();
    assert_eq!(evaluated[0], bits(activation::relu(x.clone())));
    assert_eq!(evaluated[1], bits(x.clone() + activation::relu(x.clone())));
    assert_eq!(evaluated[3], bits(x.clone() + bias + x));
    assert_eq!(generator.state().offset, 0);
    assert_ne!(run(&relu, &dropout, &autodiff), evaluated);
    assert_eq!(generator.state().offset, 4);
}

#[test]
fn what_does_not_fit_is_refused_and_takes_no_key() {
    let generator = Arc::new(Generator::new(1));
    let layer = Dropout::new(0.5).unwrap().generator(generator.clone());
    let paths = DropPath::new(0.5).unwrap().generator(generator.clone());
    let device = Device::flex().autodiff();
    let x = || Tensor::<2>::ones([20, 30], &device);
    for bias in [
        Tensor::<1>::ones([20], &device),
        tensor([30], 1.0, DType::F64, &device),
        Tensor::<1>::ones([30], &Device::flex()),
    ] {
        for train in [true, false] {
            for error in [
                layer.forward_bias_add_if(train, x(), bias.clone(), x()),
                paths.forward_bias_add_if(train, x(), bias.clone(), x()),
                layer.forward_bias_add_with_key(x(), bias.clone(), x(), KEY),
            ] {
                let text = error.unwrap_err().to_string();
                let expected = "bias_dropout_add: expected a bias as long as the last axis of the \
                                input, F32 of shape [20, 30]";
                assert!(text.starts_with(expected), "{text}");
                let got = format!("got {:?} of shape {:?}", bias.dtype(), bias.dims());
                assert!(text.contains(&got), "{text}");
            }
        }
    }
    for other in [
        Tensor::<2>::ones([30, 20], &device),
        Tensor::<2>::ones([1, 30], &device),
        tensor([20, 30], 1.0, DType::F64, &device),
    ] {
        let bias = Tensor::<1>::ones([30], &device);
        for (begin, error) in [
            (
                "swiglu_dropout: expected up as the input, F32 of shape [20, 30]",
                layer.forward_swiglu_if(true, x(), other.clone()),
            ),
            (
                "swiglu_dropout: expected up as the input, F32 of shape [20, 30]",
                layer.forward_swiglu_with_key(x(), other.clone(), KEY),
            ),
            (
                "bias_dropout_add: expected a residual as the input, F32 of shape [20, 30]",
                layer.forward_bias_add_if(false, x(), bias, other.clone()),
            ),
        ] {
            let error = error.unwrap_err();
            assert!(matches!(error, Error::Operand { .. }));
            let text = error.to_string();
            let got = format!("got {:?} of shape {:?}", other.dtype(), other.dims());
            assert!(text.starts_with(begin) && text.contains(&got), "{text}");
        }
    }
    assert_eq!(generator.state().offset, 0);
    layer.forward_swiglu_if(true, x(), x()).unwrap();
    assert_eq!(generator.state().offset, 1);
}
