//! Operations that are one with dropout: those of sorix, bit for bit, and candle's one after the other.

use std::sync::Arc;

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::LayerNorm;
use sorix_candle::{
    Activation, AlphaDropout, DropPath, DropRate, Dropout, DropoutAddNorm, DropoutExt,
    DropoutLayer, GeluDropout, Generator, MaskKey, NormOptions, ReluDropout, SaveMask, SiluDropout,
    SliceForm,
};

const CPU: Device = Device::Cpu;
const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 0,
};
const SHAPE: [usize; 3] = [5, 7, 123];
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
fn leaf(shape: &[usize], dtype: DType, first: f64) -> Var {
    let count: usize = shape.iter().product();
    let numbers = (0..count).map(|i| first + (i % 61) as f64 * 0.25).collect();
    let numbers: Vec<f64> = numbers;
    let numbers = Tensor::from_vec(numbers, shape, &CPU).unwrap();
    Var::from_tensor(&numbers.to_dtype(dtype).unwrap()).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    let all = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    all.to_vec1().unwrap()
}

/// Of gradients -0.0 becomes 0.0: candle adds each to a tensor of zeros.
fn bits(numbers: Vec<f64>) -> Vec<u64> {
    numbers.into_iter().map(|x| (x + 0.0).to_bits()).collect()
}

#[track_caller]
fn assert_equal(got: Vec<f64>, expected: Vec<f64>, what: &str) {
    let (got, expected) = (bits(got), bits(expected));
    let first = got.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!((first, got.len()), (None, expected.len()), "{what}");
}

/// The tensor in sorix, as a leaf.
fn own(tensor: &Tensor, dtype: sorix::DType) -> sorix::Tensor {
    let own = sorix::Tensor::from_vec(numbers(tensor), tensor.dims()).unwrap();
    own.to_dtype(dtype).unwrap().requires_grad(true)
}

fn numbers_of_sorix(tensor: &sorix::Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(sorix::DType::F64).unwrap();
    wide.to_vec().unwrap()
}

/// Output and gradients are those of sorix' own operation on the same inputs, in each dtype.
fn agree(
    what: &str,
    inputs: impl Fn(DType) -> Vec<Var>,
    candle: impl Fn(&[Var]) -> Result<Tensor>,
    sorix: impl Fn(&[sorix::Tensor]) -> sorix::nn::Result<sorix::Tensor>,
) {
    for (dtype, own_dtype) in DTYPES {
        let inputs = inputs(dtype);
        let ys = candle(&inputs).unwrap();
        let upstream = leaf(ys.dims(), dtype, -5.125);
        let gradients = (&ys * upstream.as_tensor()).unwrap().backward().unwrap();

        let own_inputs: Vec<_> = inputs.iter().map(|xs| own(xs, own_dtype)).collect();
        let own_ys = sorix(&own_inputs).unwrap();
        own_ys
            .backward_with(&own(&upstream, own_dtype).detach())
            .unwrap();
        assert_eq!((ys.dtype(), ys.dims()), (dtype, own_ys.shape()), "{what}");
        assert_equal(
            numbers(&ys),
            numbers_of_sorix(&own_ys),
            &format!("{what} {dtype:?}"),
        );
        for (i, (xs, own_xs)) in inputs.iter().zip(&own_inputs).enumerate() {
            let gradient = gradients.get(xs).unwrap();
            assert_eq!(gradient.dtype(), dtype);
            assert_equal(
                numbers(gradient),
                numbers_of_sorix(&own_xs.grad().unwrap()),
                &format!("{what} {dtype:?}: gradient {i}"),
            );
        }
    }
}

#[test]
fn activations_are_sorix_own() {
    for activation in Activation::ALL.iter().copied() {
        for p in RATES {
            agree(
                &format!("{activation:?} p = {p}"),
                |dtype| vec![leaf(&SHAPE, dtype, -6.0)],
                |xs| xs[0].act_dropout(activation, rate(p), KEY),
                |xs| Ok(xs[0].act_dropout(activation, None, rate(p), KEY, SaveMask::Replay)?),
            );
        }
    }
}

#[test]
fn layers_of_activations_are_sorix_own() {
    fn pair<F: SliceForm + Clone + Default>() {
        for save in [SaveMask::Bits, SaveMask::Replay] {
            let candle = DropoutLayer::<F>::new(0.3).save_mask(save);
            let own = sorix::nn::dropout::DropoutLayer::<F>::new(0.3).unwrap();
            let own = own.save_mask(save);
            let input = |dtype| vec![leaf(&SHAPE, dtype, -6.0)];
            agree(
                &format!("{own:?}"),
                input,
                |xs| candle.forward_with_key(&xs[0], KEY),
                |xs| own.forward_with_key(&xs[0], KEY),
            );
            // In eval it is the activation, with its gradient.
            let mut own = own;
            sorix::nn::Module::eval(&mut own);
            agree(
                &format!("eval {own:?}"),
                input,
                |xs| candle.forward(&xs[0], false),
                |xs| sorix::nn::Module::forward(&own, &xs[0]),
            );
        }
    }
    pair::<sorix_candle::forms::Rectified>();
    pair::<sorix_candle::forms::GeluElements>();
    pair::<sorix_candle::forms::SiluElements>();
    let (candle, own) = (
        GeluDropout::new(0.3).with_tanh(),
        sorix::nn::GELUDropout::with_tanh(0.3),
    );
    let own = own.unwrap();
    agree(
        "tanh",
        |dtype| vec![leaf(&SHAPE, dtype, -6.0)],
        |xs| candle.forward_with_key(&xs[0], KEY),
        |xs| own.forward_with_key(&xs[0], KEY),
    );
}

#[test]
fn swiglu_is_sorix_own() {
    for p in RATES {
        for save in [SaveMask::Bits, SaveMask::Replay] {
            let layer = Dropout::new(p).save_mask(save).generator(Generator::new(7));
            let key = MaskKey::new(7, 0);
            let state = |layer: &Dropout| layer.clone().generator(Generator::new(7));
            agree(
                &format!("p = {p} {save:?}"),
                |dtype| vec![leaf(&SHAPE, dtype, -6.0), leaf(&SHAPE, dtype, 3.5)],
                |xs| state(&layer).forward_swiglu(&xs[0], &xs[1], true),
                |xs| Ok(xs[0].swiglu_dropout(&xs[1], rate(p), key, save)?),
            );
        }
    }
    agree(
        "by a key",
        |dtype| vec![leaf(&SHAPE, dtype, -6.0), leaf(&SHAPE, dtype, 3.5)],
        |xs| xs[0].swiglu_dropout(&xs[1], rate(0.3), KEY),
        |xs| Ok(xs[0].swiglu_dropout(&xs[1], rate(0.3), KEY, SaveMask::Bits)?),
    );
}

#[test]
fn a_bias_and_a_residual_are_added_as_sorix_own_adds_them() {
    // One row is a case of its own for the gradient of the bias.
    for shape in [&SHAPE[..], &[123], &[1, 123], &[300, 2]] {
        let last = &shape[shape.len() - 1..];
        for p in RATES {
            agree(
                &format!("{shape:?} p = {p}"),
                |dtype| {
                    let [xs, residual] = [-6.0, 3.5].map(|first| leaf(shape, dtype, first));
                    vec![xs, leaf(last, dtype, -7.0), residual]
                },
                |xs| xs[0].bias_dropout_add(&xs[1], &xs[2], rate(p), KEY),
                |xs| {
                    let save = SaveMask::Replay;
                    Ok(xs[0].bias_dropout_add(&xs[1], &xs[2], rate(p), KEY, save)?)
                },
            );
        }
    }
}

#[test]
fn paths_are_added_as_sorix_own_adds_them() {
    for p in RATES {
        for mask_shape in [[5, 1, 1], [1, 7, 123], [5, 7, 1], SHAPE] {
            agree(
                &format!("{mask_shape:?} p = {p}"),
                |dtype| vec![leaf(&SHAPE, dtype, -6.0), leaf(&SHAPE, dtype, 3.5)],
                |xs| xs[0].dropout_add_broadcast(&xs[1], rate(p), KEY, mask_shape.as_slice()),
                |xs| {
                    let save = SaveMask::Bits;
                    Ok(xs[0].dropout_add_broadcast(&xs[1], rate(p), KEY, &mask_shape, save)?)
                },
            );
        }
    }
}

#[test]
fn normalised_rows_are_sorix_own() {
    use sorix::NormOptions as Own;
    for shape in [&SHAPE[..], &[123], &[1, 123], &[300, 2]] {
        let last = &shape[shape.len() - 1..];
        for p in RATES {
            for case in 0..8 {
                // Which of bias, weight and shift there are; both kinds, and with the sum as a second output.
                let has = [0, 1, 2].map(|bit| case >> bit & 1 == 1);
                let (rms, prenorm) = (has[0] != has[1], has[1] != has[2]);
                let inputs = |dtype| {
                    let rows = [-7.0, 0.5, 1.25].into_iter().zip(has);
                    let rows = rows.filter(|(_, has)| *has);
                    let rows = rows.map(|(first, _)| leaf(last, dtype, first));
                    let both = [-6.0, 3.5].map(|first| leaf(shape, dtype, first));
                    both.into_iter().chain(rows).collect()
                };
                // The places of the rows behind x and residual.
                let at = |i: usize| 2 + has[..i].iter().filter(|has| **has).count();
                let candle = |xs: &[Var]| {
                    let kinds = [NormOptions::layer, NormOptions::rms];
                    let mut norm = kinds[usize::from(rms)](1e-3);
                    if has[0] {
                        norm = norm.bias(&xs[at(0)]);
                    }
                    if has[1] {
                        norm = norm.weight(&xs[at(1)]);
                    }
                    if has[2] {
                        norm = norm.shift(&xs[at(2)]);
                    }
                    let (z, sum) = xs[0].dropout_add_norm(&xs[1], norm, rate(p), KEY)?;
                    match prenorm {
                        true => (z.to_dtype(sum.dtype())? + sum)?.to_dtype(z.dtype()),
                        false => Ok(z),
                    }
                };
                let sorix = |xs: &[sorix::Tensor]| {
                    let kinds = [Own::layer, Own::rms];
                    let mut norm = kinds[usize::from(rms)](1e-3);
                    if has[0] {
                        norm = norm.bias(&xs[at(0)]);
                    }
                    if has[1] {
                        norm = norm.weight(&xs[at(1)]);
                    }
                    if has[2] {
                        norm = norm.shift(&xs[at(2)]);
                    }
                    let save = SaveMask::Replay;
                    let (z, sum) = xs[0].dropout_add_norm(&xs[1], norm, rate(p), KEY, save)?;
                    Ok(match prenorm {
                        true => z.to_dtype(sum.dtype())?.add(&sum)?.to_dtype(z.dtype())?,
                        false => z,
                    })
                };
                agree(&format!("{shape:?} p = {p} {has:?}"), inputs, candle, sorix);
            }
        }
    }
}

/// Of 16 bits the residual and the rows may be f32, which the sum is; and strides do not show.
#[test]
fn a_residual_of_sixteen_bits_may_be_f32() -> Result<()> {
    for dtype in [DType::F16, DType::BF16] {
        let (xs, residual) = (leaf(&SHAPE, dtype, -6.0), leaf(&SHAPE, DType::F32, 3.5));
        let weight = leaf(&SHAPE[2..], DType::F32, 0.5);
        let norm = NormOptions::rms(1e-5).weight(&weight);
        let (z, sum) = xs.dropout_add_norm(&residual, norm, rate(0.3), KEY)?;
        assert_eq!((z.dtype(), sum.dtype()), (dtype, DType::F32));
        let halves = residual.to_dtype(dtype)?;
        let (same, _) = xs.dropout_add_norm(&halves, norm, rate(0.3), KEY)?;
        assert_equal(numbers(&z), numbers(&same), "exact in 16 bits");
        let gradients = z.backward()?;
        for leaf in [&xs, &residual, &weight] {
            assert_eq!(gradients.get(leaf).unwrap().dtype(), leaf.dtype());
        }
        let (first, second) = (xs.transpose(0, 1)?, residual.transpose(0, 1)?);
        let strided = first.dropout_add_norm(&second, norm, rate(0.3), KEY)?.0;
        let (first, second) = (first.contiguous()?, second.contiguous()?);
        let laid_out = first.dropout_add_norm(&second, norm, rate(0.3), KEY)?.0;
        assert_equal(numbers(&strided), numbers(&laid_out), "strides");
    }
    Ok(())
}

#[test]
fn a_layer_normalises_as_candles_own_after_dropout() -> Result<()> {
    let dropout = Dropout::new(0.4);
    let seeded = || dropout.clone().generator(Generator::new(7));
    let (xs, residual) = (
        leaf(&SHAPE, DType::F64, -6.0),
        leaf(&SHAPE, DType::F64, 3.5),
    );
    let [weight, shift, bias] = [0.5, 1.25, -7.0].map(|first| leaf(&SHAPE[2..], DType::F64, first));
    let row = |row: &Var| row.as_tensor().clone();
    for norm in [
        LayerNorm::new(row(&weight), row(&shift), 1e-5),
        LayerNorm::new_no_bias(row(&weight), 1e-5),
        LayerNorm::rms_norm(row(&weight), 1e-5),
    ] {
        for train in [true, false] {
            let layer = DropoutAddNorm::new(norm.clone(), seeded());
            let (z, sum) = layer.forward_bias(&xs, &bias, &residual, train)?;
            let apart = seeded().forward_bias_add(&xs, &bias, &residual, train)?;
            assert_equal(numbers(&sum), numbers(&apart), "the sum");
            // candle's fused norm has no gradient, which a view avoids.
            let view = apart.transpose(0, 1)?;
            let apart_z = norm.forward(&view)?.transpose(0, 1)?;
            let [ours, theirs] = [&z, &apart_z].map(|z| (z * z)?.backward());
            let (ours, theirs) = (ours?, theirs?);
            let mut leaves = vec![&xs, &residual, &weight, &bias];
            if norm.bias().is_some() {
                leaves.push(&shift);
            }
            let gradients = leaves
                .into_iter()
                .map(|leaf| (ours.get(leaf).unwrap(), theirs.get(leaf).unwrap()));
            for (a, b) in gradients.chain([(&z, &apart_z)]) {
                let error = (a - b)?.abs()?.max_all()?.to_scalar::<f64>()?;
                assert!(error < 1e-8, "{error}");
            }
        }
    }
    // One key each, none in eval, and the same as by that key.
    let generator = Arc::new(Generator::new(1));
    let norm = LayerNorm::new_no_bias(row(&weight), 1e-5);
    let layer = DropoutAddNorm::new(norm, dropout.generator(generator.clone()));
    layer.forward(&xs, &residual, false)?;
    assert_eq!(generator.state().offset, 0);
    let (z, _) = layer.forward(&xs, &residual, true)?;
    assert_eq!(generator.state().offset, 1);
    let (again, _) = layer.forward_with_key(&xs, &residual, MaskKey::new(1, 0))?;
    assert_equal(numbers(&z), numbers(&again), "the key");
    // Without a gradient the values are the same.
    let (plain, _) =
        layer.forward_with_key(&xs.detach(), &residual.detach(), MaskKey::new(1, 0))?;
    assert_equal(numbers(&z), numbers(&plain), "no gradient");
    Ok(())
}

#[test]
fn what_cannot_be_normalised_is_refused_and_takes_no_key() -> Result<()> {
    let generator = Arc::new(Generator::new(1));
    let dropout = Dropout::new(0.5).generator(generator.clone());
    let xs = leaf(&[4, 6], DType::F32, 1.0);
    let ones = leaf(&[6], DType::F32, 1.0).as_tensor().clone();
    let layer = |weight: &Tensor, epsilon| {
        DropoutAddNorm::new(
            LayerNorm::new_no_bias(weight.clone(), epsilon),
            dropout.clone(),
        )
    };
    let of = |shape: &[usize], dtype| leaf(shape, dtype, 1.0).as_tensor().clone();
    let scalar = Tensor::new(1f32, &CPU)?;
    for (error, expected) in [
        (
            layer(&ones, 1e-5).forward(&xs, &of(&[6, 4], DType::F32), true),
            "a residual of the shape of the input, expected: [4, 6], got: [6, 4]",
        ),
        (
            layer(&ones, 1e-5).forward(&xs, &of(&[4, 6], DType::F64), true),
            "dtype mismatch in sorix-dropout-add-norm, lhs: F32, rhs: F64",
        ),
        (
            layer(&of(&[4], DType::F32), 1e-5).forward(&xs, &xs, true),
            "a weight as long as the last axis, expected: [6], got: [4]",
        ),
        (
            layer(&ones, 1e-5).forward_bias(&xs, &of(&[1, 6], DType::F32), &xs, true),
            "a bias as long as the last axis, expected: [6], got: [1, 6]",
        ),
        (
            layer(&ones, -1.0).forward(&xs, &xs, true),
            "epsilon must be a finite number, at least 0, got -1",
        ),
        (
            layer(&ones, 1e-5).forward(&scalar, &scalar, true),
            "unexpected rank",
        ),
        (
            layer(&ones, 1e-5).forward(&of(&[4, 6], DType::F32).to_dtype(DType::U8)?, &xs, true),
            "dtype U8",
        ),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(generator.state().offset, 0);
    let empty = Tensor::zeros((0, 6), DType::F32, &CPU)?;
    let (z, sum) = layer(&ones, 1e-5).forward(&empty, &empty, true)?;
    assert_eq!((z.dims(), sum.dims()), (&[0, 6][..], &[0, 6][..]));
    Ok(())
}

/// Every form takes a bias and a residual, as sorix' own layer does, and so do those of activations.
#[test]
fn every_layer_adds_a_bias_and_a_residual() {
    fn pair<F: SliceForm + Clone + Default>(p: f64) {
        let candle = DropoutLayer::<F>::new(p);
        let mut own = sorix::nn::dropout::DropoutLayer::<F>::new(p).unwrap();
        let what = format!("{own:?}");
        for train in [true, false] {
            if !train {
                sorix::nn::Module::eval(&mut own);
            }
            let xs = leaf(&SHAPE, DType::F32, -6.0);
            let (bias, residual) = (
                leaf(&SHAPE[2..], DType::F32, -7.0),
                leaf(&SHAPE, DType::F32, 3.5),
            );
            let seeded = candle.clone().generator(Generator::new(7));
            let sum = seeded
                .forward_bias_add(&xs, &bias, &residual, train)
                .unwrap();
            let own_inputs = [&xs, &bias, &residual].map(own_of_f32);
            let seeded = own.clone().generator(Generator::new(7));
            let expected = seeded
                .forward_bias_add(&own_inputs[0], &own_inputs[1], &own_inputs[2])
                .unwrap();
            assert_equal(
                numbers(&sum),
                numbers_of_sorix(&expected),
                &format!("{what} {train}"),
            );
            let gradients = sum.backward().unwrap();
            expected.sum().unwrap().backward().unwrap();
            for (xs, own) in [&xs, &bias, &residual].into_iter().zip(&own_inputs) {
                assert_equal(
                    numbers(gradients.get(xs).unwrap()),
                    numbers_of_sorix(&own.grad().unwrap()),
                    &format!("{what} {train}: gradient"),
                );
            }
        }
    }
    fn own_of_f32(xs: &Var) -> sorix::Tensor {
        own(xs, sorix::DType::F32)
    }
    pair::<sorix_candle::forms::Elements>(0.4);
    pair::<sorix_candle::forms::Paths>(0.4);
    pair::<sorix_candle::forms::Alpha>(0.4);
    pair::<sorix_candle::forms::Gaussian>(0.4);
    pair::<sorix_candle::forms::Rectified>(0.4);
    pair::<sorix_candle::forms::SiluElements>(0.4);
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

/// The gradient of the bias in 16 bits, which is that of `xs` summed over rows and rounded once, in a call on 300 rows of 67.
fn bias_gradient_in(
    (dtype, fractions): (DType, usize),
    what: &str,
    call: impl Fn(&Var, &Var, &Var) -> Result<Tensor>,
) -> Result<Vec<f64>> {
    let [xs, residual] = [-6.0, 3.5].map(|first| leaf(&[300, 67], dtype, first));
    let bias = leaf(&[67], dtype, -7.0);
    let upstream = Tensor::from_vec(rows_of_many_bits(fractions), (300, 67), &CPU)?;
    let ys = (call(&xs, &bias, &residual)? * upstream.to_dtype(dtype)?)?;
    let gradients = ys.backward()?;
    let dx = numbers(gradients.get(&xs).unwrap());
    let (mut sums, mut narrow) = (vec![0.0; 67], Tensor::zeros(67, dtype, &CPU)?);
    for row in dx.chunks_exact(67) {
        for (sum, dx) in sums.iter_mut().zip(row) {
            *sum += dx;
        }
        narrow = (narrow + Tensor::new(row, &CPU)?.to_dtype(dtype)?)?;
    }
    let expected = Tensor::new(sums, &CPU)?
        .to_dtype(DType::F32)?
        .to_dtype(dtype)?;
    let got = gradients.get(&bias).unwrap();
    assert_eq!(got.dtype(), dtype);
    assert_equal(numbers(got), numbers(&expected), what);
    // Otherwise the numbers would not show it.
    assert_ne!(numbers(&narrow), numbers(&expected), "{what}");
    Ok(numbers(got))
}

#[test]
fn the_gradient_of_a_bias_is_summed_in_more_than_16_bits() -> Result<()> {
    const KINDS: [(DType, usize); 2] = [(DType::F16, 1024), (DType::BF16, 128)];
    fn check<F: SliceForm + Clone + Default>() -> Result<()> {
        for kind in KINDS {
            for (p, train) in [(0.0, true), (0.1, true), (0.5, true), (0.5, false)] {
                let layer = || DropoutLayer::<F>::new(p).generator(Generator::new(7));
                let what = format!("{:?} {kind:?} {train}", layer());
                bias_gradient_in(kind, &what, |xs, bias, residual| {
                    layer().forward_bias_add(xs, bias, residual, train)
                })?;
            }
        }
        Ok(())
    }
    check::<sorix_candle::forms::Elements>()?;
    check::<sorix_candle::forms::Paths>()?;
    check::<sorix_candle::forms::Alpha>()?;
    check::<sorix_candle::forms::Gaussian>()?;
    check::<sorix_candle::forms::Rectified>()?;
    check::<sorix_candle::forms::GeluElements>()?;
    check::<sorix_candle::forms::SiluElements>()?;
    // 300 * (1 + 2^-10) = 300.29… and 300 * (1 + 2^-7) = 302.34…, with steps of 1/4 and of 2 there.
    for (kind, expected) in KINDS.into_iter().zip([300.25, 302.0]) {
        let got = bias_gradient_in(kind, "p = 0", |xs, bias, residual| {
            xs.bias_dropout_add(bias, residual, rate(0.0), KEY)
        })?;
        assert_eq!(got[0], expected, "{kind:?}");
    }
    Ok(())
}

/// Values and gradients of candle's own operations one after the other, to the digits that candle's have.
fn as_apart(
    inputs: &[Var],
    fused: impl Fn(&[Var], DropRate) -> Result<Tensor>,
    apart: impl Fn(&[Var], DropRate) -> Result<Tensor>,
) -> Result<()> {
    for p in [0.0, 0.4, 1.0] {
        let both = [fused(inputs, rate(p))?, apart(inputs, rate(p))?];
        let upstream = leaf(both[0].dims(), DType::F64, -5.125);
        let [fused, apart] = both.map(|ys| -> Result<_> {
            let gradients = (&ys * upstream.as_tensor())?.backward()?;
            let gradient = |xs: &Var| numbers(gradients.get(xs).unwrap());
            let all = inputs.iter().map(gradient).chain([numbers(&ys)]);
            Ok(all.collect::<Vec<_>>())
        });
        for (fused, apart) in fused?.into_iter().zip(apart?) {
            assert_eq!(fused.len(), apart.len());
            for (fused, apart) in fused.into_iter().zip(apart) {
                let error = (fused - apart).abs();
                assert!(
                    error <= 1e-4 * apart.abs().max(1.0),
                    "p = {p}: {fused} {apart}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn candles_own_operations_one_after_the_other_are_the_same() -> Result<()> {
    // None is 0, where candle's derivative of ReLU is 1.
    let xs = leaf(&SHAPE, DType::F64, -6.1);
    let [gate, up, residual] = [-6.1, 2.3, 0.7].map(|first| leaf(&SHAPE, DType::F64, first));
    let bias = leaf(&SHAPE[2..], DType::F64, -7.03);
    type Apart = fn(&Tensor) -> Result<Tensor>;
    let activations: [(Activation, Apart); 4] = [
        (Activation::Relu, Tensor::relu),
        (Activation::Gelu, Tensor::gelu_erf),
        (Activation::GeluTanh, Tensor::gelu),
        (Activation::Silu, Tensor::silu),
    ];
    for (activation, apart) in activations {
        as_apart(
            std::slice::from_ref(&xs),
            |xs, rate| xs[0].act_dropout(activation, rate, KEY),
            |xs, rate| apart(&xs[0])?.dropout(rate, KEY),
        )?;
    }
    as_apart(
        &[gate, up],
        |xs, rate| xs[0].swiglu_dropout(&xs[1], rate, KEY),
        |xs, rate| (xs[0].silu()? * xs[1].as_tensor())?.dropout(rate, KEY),
    )?;
    as_apart(
        &[xs.clone(), bias, residual.clone()],
        |xs, rate| xs[0].bias_dropout_add(&xs[1], &xs[2], rate, KEY),
        |xs, rate| xs[0].broadcast_add(&xs[1])?.dropout(rate, KEY)? + xs[2].as_tensor(),
    )?;
    as_apart(
        &[xs, residual],
        |xs, rate| xs[0].dropout_add_broadcast(&xs[1], rate, KEY, (5, 1, 1)),
        |xs, rate| xs[0].dropout_broadcast(rate, KEY, (5, 1, 1))? + xs[1].as_tensor(),
    )
}

/// What is dropped is +0.0 in output and gradients, if all inputs are NaN, and for gradients that are.
#[test]
fn what_is_dropped_does_not_leak_forward_or_backward() -> Result<()> {
    fn check(
        count: usize,
        operation: impl Fn(&[Var]) -> Result<Tensor>,
        of_residual: f32,
    ) -> Result<()> {
        let full = |x: f32| Var::from_tensor(&Tensor::full(x, 1000, &CPU).unwrap()).unwrap();
        let keep: Vec<bool> = Tensor::ones(1000, DType::F32, &CPU)?
            .dropout(rate(0.5), KEY)?
            .to_vec1::<f32>()?
            .into_iter()
            .map(|y| y != 0.0)
            .collect();
        for (x, upstream) in [
            (f32::NAN, 1.0),
            (f32::INFINITY, f32::INFINITY),
            (2.0, f32::NAN),
        ] {
            let inputs: Vec<Var> = (0..count).map(|_| full(x)).collect();
            let ys = operation(&inputs)?;
            let gradients = (&ys * full(upstream).as_tensor())?.backward()?;
            for (i, keep) in keep.iter().enumerate() {
                let y = ys.get(i)?.to_scalar::<f32>()?;
                let is_finite = y.is_finite();
                assert_eq!(is_finite, !keep || x == 2.0, "{i}: {y}");
                if !keep {
                    assert_eq!(y.to_bits(), of_residual.to_bits());
                }
            }
            for xs in &inputs {
                let dx = gradients.get(xs).unwrap().to_vec1::<f32>()?;
                for (dx, keep) in dx.into_iter().zip(&keep) {
                    assert!(*keep || dx.to_bits() == 0, "{dx}");
                    assert!(!keep || upstream == 1.0 || !dx.is_finite(), "{dx}");
                }
            }
        }
        Ok(())
    }
    for activation in Activation::ALL.iter().copied() {
        check(1, |xs| xs[0].act_dropout(activation, rate(0.5), KEY), 0.0)?;
    }
    check(2, |xs| xs[0].swiglu_dropout(&xs[1], rate(0.5), KEY), 0.0)?;
    let residual = Tensor::full(3f32, 1000, &CPU)?;
    let bias = Tensor::full(1f32, 1000, &CPU)?;
    let added = |xs: &[Var]| xs[0].bias_dropout_add(&bias, &residual, rate(0.5), KEY);
    check(1, added, 3.0)
}

#[test]
fn strides_do_not_show() -> Result<()> {
    let xs = leaf(&[6, 10, 21], DType::F32, -6.0);
    let repeated = xs.narrow(0, 2, 1)?.broadcast_as((6, 10, 21))?;
    for view in [xs.transpose(0, 2)?, xs.narrow(1, 3, 5)?, xs.t()?, repeated] {
        let copy = Var::from_tensor(&view.contiguous()?.copy()?)?;
        let last = copy.dim(2)?;
        let strided = leaf(&[last, 2], DType::F32, 1.0);
        let strided = strided.narrow(1, 1, 1)?.squeeze(1)?;
        let bias = strided.contiguous()?;
        assert!(!strided.is_contiguous());
        let all = |xs: &Tensor, bias: &Tensor| -> Result<Vec<Vec<u64>>> {
            let rate = rate(0.4);
            let all = [
                xs.act_dropout(Activation::Relu, rate, KEY)?,
                xs.act_dropout(Activation::Silu, rate, KEY)?,
                xs.swiglu_dropout(copy.as_tensor(), rate, KEY)?,
                copy.swiglu_dropout(xs, rate, KEY)?,
                xs.bias_dropout_add(bias, &copy, rate, KEY)?,
                copy.bias_dropout_add(bias, xs, rate, KEY)?,
            ];
            Ok(all.iter().map(|ys| bits(numbers(ys))).collect())
        };
        assert_eq!(all(&view, &strided)?, all(&copy, &bias)?);
    }
    // The gradient goes back through a view, and may itself be one.
    for activation in [Activation::Relu, Activation::Gelu] {
        let copy = Var::from_tensor(&xs.transpose(0, 2)?.contiguous()?)?;
        let upstream = leaf(&[6, 10, 21], DType::F32, -5.125);
        let there = xs
            .transpose(0, 2)?
            .act_dropout(activation, rate(0.4), KEY)?;
        let there = (there.transpose(0, 2)? * upstream.as_tensor())?.backward()?;
        let here = copy.act_dropout(activation, rate(0.4), KEY)?;
        let here = (here * upstream.transpose(0, 2)?)?.backward()?;
        let there = there.get(&xs).unwrap().transpose(0, 2)?;
        assert_eq!(
            bits(numbers(&there)),
            bits(numbers(here.get(&copy).unwrap()))
        );
    }
    Ok(())
}

#[test]
fn a_call_takes_one_key_and_eval_none() -> Result<()> {
    let generator = Arc::new(Generator::new(1));
    let dropout = Dropout::new(0.5).generator(generator.clone());
    let relu = ReluDropout::new(0.5).generator(generator.clone());
    let xs = leaf(&SHAPE, DType::F32, -6.0);
    let bias = leaf(&SHAPE[2..], DType::F32, 1.0);
    for (train, taken) in [(false, 0), (true, 4)] {
        relu.forward(&xs, train)?;
        relu.forward_add(&xs, &xs, train)?;
        dropout.forward_swiglu(&xs, &xs, train)?;
        dropout.forward_bias_add(&xs, &bias, &xs, train)?;
        assert_eq!(generator.state().offset, taken);
    }
    let sum = dropout.forward_bias_add(&xs, &bias, &xs, false)?;
    let expected = (xs.broadcast_add(&bias)? + xs.as_tensor())?;
    assert_eq!(bits(numbers(&sum)), bits(numbers(&expected)));
    // Without a gradient nothing is kept, and the values are the same.
    let silu = SiluDropout::new(0.5);
    let constant = silu.forward_with_key(&xs.detach(), KEY)?;
    assert_eq!(
        bits(numbers(&constant)),
        bits(numbers(&silu.forward_with_key(&xs, KEY)?))
    );
    assert!(constant.backward()?.get(&xs).is_none());
    // A residual after an activation.
    let sum = silu.forward_add(&xs, &xs, false)?;
    let expected = (silu.forward(&xs, false)? + xs.as_tensor())?;
    assert_eq!(bits(numbers(&sum)), bits(numbers(&expected)));
    let [sum, expected] = [sum, expected].map(|ys| ys.backward().unwrap());
    let [sum, expected] = [sum, expected].map(|all| bits(numbers(all.get(&xs).unwrap())));
    assert_eq!(sum, expected);
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_and_takes_no_key() -> Result<()> {
    let generator = Arc::new(Generator::new(1));
    let dropout = Dropout::new(0.5).generator(generator.clone());
    let relu = ReluDropout::new(0.5).generator(generator.clone());
    let path = DropPath::new(0.5).generator(generator.clone());
    let alpha = AlphaDropout::new(0.5).generator(generator.clone());
    let of = |shape: &[usize], dtype| leaf(shape, dtype, 1.0);
    let (xs, bias) = (of(&[4, 6], DType::F32), of(&[6], DType::F32));
    for (bias, expected) in [
        (
            of(&[4], DType::F32),
            "sorix-bias-dropout-add: a bias as long as the last axis, expected: [6], got: [4]",
        ),
        (of(&[1, 6], DType::F32), "expected: [6], got: [1, 6]"),
        (
            of(&[6], DType::F64),
            "dtype mismatch in sorix-bias-dropout-add, lhs: F32, rhs: F64",
        ),
    ] {
        for error in [
            dropout.forward_bias_add(&xs, &bias, &xs, true),
            alpha.forward_bias_add(&xs, &bias, &xs, true),
            path.forward_bias_add(&xs, &bias, &xs, false),
            xs.bias_dropout_add(&bias, &xs, rate(0.5), KEY),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
    for (other, expected) in [
        (of(&[6, 4], DType::F32), "lhs: [4, 6], rhs: [6, 4]"),
        (of(&[4, 6], DType::F64), "lhs: F32, rhs: F64"),
    ] {
        let broadcast = xs.dropout_add_broadcast(&other, rate(0.5), KEY, (4, 1));
        for (name, error) in [
            (
                "sorix-swiglu-dropout",
                dropout.forward_swiglu(&xs, &other, true),
            ),
            (
                "sorix-swiglu-dropout",
                dropout.forward_swiglu(&xs, &other, false),
            ),
            (
                "sorix-swiglu-dropout",
                xs.swiglu_dropout(&other, rate(0.5), KEY),
            ),
            (
                "sorix-bias-dropout-add",
                dropout.forward_bias_add(&xs, &bias, &other, true),
            ),
            ("sorix-dropout-add", broadcast),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(expected), "{error}");
        }
    }
    let integers = Tensor::zeros((4, 6), DType::U8, &CPU)?;
    for error in [
        relu.forward(&integers, true),
        relu.forward(&integers, false),
        integers.act_dropout(Activation::Gelu, rate(0.5), KEY),
        dropout.forward_swiglu(&integers, &integers, true),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains("dtype U8"), "{error}");
    }
    let error = ReluDropout::new(1.5).forward(&xs, true).unwrap_err();
    assert!(error.to_string().contains("got p = 1.5"), "{error}");
    assert_eq!(generator.state().offset, 0);
    relu.forward(&xs, true)?;
    assert_eq!(generator.state().offset, 1);
    Ok(())
}

#[test]
fn empty_tensors_and_scalars() -> Result<()> {
    let empty = Tensor::zeros((0, 4), DType::F32, &CPU)?;
    let bias = Var::from_tensor(&Tensor::ones(4, DType::F32, &CPU)?)?;
    let ys = empty.bias_dropout_add(&bias, &empty, rate(0.5), KEY)?;
    assert_eq!(ys.dims(), [0, 4]);
    assert_eq!(
        empty.act_dropout(Activation::Silu, rate(0.5), KEY)?.dims(),
        [0, 4]
    );
    assert_eq!(empty.swiglu_dropout(&empty, rate(0.5), KEY)?.dims(), [0, 4]);
    let scalar = Tensor::new(3f32, &CPU)?;
    let y = scalar.act_dropout(Activation::Relu, rate(0.0), KEY)?;
    assert_eq!(y.to_scalar::<f32>()?, 3.0);
    Ok(())
}
