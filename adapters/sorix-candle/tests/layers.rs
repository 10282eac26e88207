//! sorix's layers in candle: the masks of sorix, the interface of candle.

use std::sync::Arc;

use candle_core::{D, DType, Device, Module, ModuleT, Result, Tensor, Var};
use sorix::nn::Module as _;
use sorix_candle::{
    AlphaDropout, BroadcastDropout, DropPath, DropRate, Dropout, Dropout1d, Dropout2d, Dropout3d,
    DropoutExt, DropoutLayer, FeatureAlphaDropout, GaussianDropout, Generator, LockedDropout,
    MaskKey, SaveMask, SliceForm, forms,
};

const CPU: Device = Device::Cpu;
const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 0,
};
const DTYPES: [(DType, sorix::DType); 4] = [
    (DType::F32, sorix::DType::F32),
    (DType::F64, sorix::DType::F64),
    (DType::F16, sorix::DType::F16),
    (DType::BF16, sorix::DType::BF16),
];

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

/// Numbers of the shape's size, some of them not positive, exact in every dtype.
fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|i| (i % 200) as f64 * 0.25 - 12.5).collect()
}

fn tensor(shape: &[usize], dtype: DType) -> Tensor {
    let count = shape.iter().product();
    Tensor::from_vec(numbers(count), shape, &CPU)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

/// The elements as doubles, as bits, so that -0.0 and NaN are told apart.
fn bits(tensor: &Tensor) -> Vec<u64> {
    let all = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
    all.to_vec1::<f64>()
        .unwrap()
        .into_iter()
        .map(f64::to_bits)
        .collect()
}

fn bits_of_sorix(tensor: &sorix::Tensor) -> Vec<u64> {
    let all = tensor
        .to_dtype(sorix::DType::F64)
        .unwrap()
        .to_vec::<f64>()
        .unwrap();
    all.into_iter().map(f64::to_bits).collect()
}

/// Output and gradient of a layer of candle and of sorix' own one for the same key, in each dtype.
fn agree(
    what: &str,
    shape: &[usize],
    candle: impl Fn(&Tensor) -> Result<Tensor>,
    own: impl Fn(&sorix::Tensor) -> sorix::nn::Result<sorix::Tensor>,
) {
    for (dtype, own_dtype) in DTYPES {
        let xs = Var::from_tensor(&tensor(shape, dtype)).unwrap();
        let ys = candle(&xs).unwrap();
        let upstream = tensor(shape, dtype);
        // The gradient of a product with the upstream gradient, so that it is not all ones.
        let gradient = (&ys * &upstream)
            .unwrap()
            .backward()
            .unwrap()
            .remove(&xs)
            .unwrap();

        let x = sorix::Tensor::from_vec(numbers(xs.elem_count()), shape).unwrap();
        let x = x.to_dtype(own_dtype).unwrap();
        let upstream = x.clone();
        let x = x.requires_grad(true);
        let y = own(&x).unwrap();
        y.backward_with(&upstream).unwrap();
        assert_eq!(bits(&ys), bits_of_sorix(&y), "{what} {dtype:?}: forward");
        assert_eq!(
            bits(&gradient),
            bits_of_sorix(&x.grad().unwrap()),
            "{what} {dtype:?}: backward"
        );
        assert_eq!((ys.dtype(), ys.dims()), (dtype, shape));
    }
}

macro_rules! same_as_sorix {
    ($layer:ident, $shape:expr $(, $option:ident($($value:expr)?))*) => {
        for p in [0.0, 0.1, 0.5, 1.0] {
            for save in [SaveMask::Bits, SaveMask::Replay] {
                let candle = $layer::new(p).save_mask(save)$(.$option($($value)?))*;
                let own = sorix::nn::$layer::new(p).unwrap().save_mask(save)$(.$option($($value)?))*;
                agree(
                    &format!("{} p = {p} {save:?}", stringify!($layer)),
                    &$shape,
                    |xs| candle.forward_with_key(xs, KEY),
                    |x| own.forward_with_key(x, KEY),
                );
            }
        }
    };
}

#[test]
fn every_layer_makes_what_sorix_own_makes() {
    same_as_sorix!(Dropout, [5, 7, 123]);
    same_as_sorix!(Dropout1d, [6, 9, 31]);
    same_as_sorix!(Dropout2d, [3, 8, 5, 7]);
    same_as_sorix!(Dropout2d, [3, 5, 7, 8], channels_last());
    same_as_sorix!(Dropout3d, [2, 8, 3, 4, 5]);
    same_as_sorix!(LockedDropout, [3, 11, 40]);
    same_as_sorix!(LockedDropout, [3, 11, 40], time_axis(0));
    same_as_sorix!(DropPath, [50, 3, 7]);
    same_as_sorix!(DropPath, [50, 21], per_batch());
    same_as_sorix!(DropPath, [50, 21], scale_by_keep(false));
    same_as_sorix!(AlphaDropout, [9, 111]);
    same_as_sorix!(FeatureAlphaDropout, [9, 11, 13]);
    same_as_sorix!(GaussianDropout, [9, 111]);
}

#[test]
fn decisions_shared_along_axes() {
    let form = forms::NoiseShape::shared_along([1]);
    let candle = BroadcastDropout::with_form(form, 0.3);
    let own = sorix::nn::BroadcastDropout::shared_along(0.3, [1]).unwrap();
    agree(
        "BroadcastDropout",
        &[4, 6, 50],
        |xs| candle.forward_with_key(xs, KEY),
        |x| own.forward_with_key(x, KEY),
    );
    agree(
        "dropout_broadcast",
        &[4, 6, 50],
        |xs| xs.dropout_broadcast(rate(0.3), KEY, (4, 1, 50)),
        |x| own.forward_with_key(x, KEY),
    );
}

/// Output and both gradients are those of sorix' own operation, in each dtype.
#[test]
fn a_residual_is_added_as_sorix_own_adds_it() -> Result<()> {
    let shape = [5, 7, 123];
    for (dtype, own_dtype) in DTYPES {
        let xs = Var::from_tensor(&tensor(&shape, dtype))?;
        let residual = Var::from_tensor(&xs.flip(&[0, 2])?.affine(0.3, 0.7)?)?;
        let upstream = tensor(&shape, dtype).flip(&[1])?;
        for p in [0.0, 0.1, 0.5, 1.0] {
            let sum = xs.dropout_add(&residual, rate(p), KEY)?;
            assert_eq!((sum.dtype(), sum.dims()), (dtype, &shape[..]));
            let mut gradients = (&sum * &upstream)?.backward()?;
            let [dx, dr] = [&xs, &residual].map(|var| gradients.remove(var).unwrap());

            let own = |tensor: &Tensor| {
                let all = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
                let own = sorix::Tensor::from_vec(all.to_vec1::<f64>().unwrap(), shape).unwrap();
                own.to_dtype(own_dtype).unwrap()
            };
            let own_xs = own(&xs).requires_grad(true);
            let own_residual = own(&residual).requires_grad(true);
            let expected = own_xs.dropout_add(&own_residual, rate(p), KEY, SaveMask::Replay);
            let expected = expected.unwrap();
            expected.backward_with(&own(&upstream)).unwrap();
            assert_eq!(bits(&sum), bits_of_sorix(&expected), "{dtype:?} p = {p}");
            let expected = own_xs.grad().unwrap();
            assert_eq!(bits(&dx), bits_of_sorix(&expected), "{dtype:?} p = {p}: dx");
            assert_eq!(bits(&dr), bits(&upstream), "{dtype:?} p = {p}: residual");
        }
    }
    Ok(())
}

/// The sum of every form is that of the two operations apart, by the same key.
fn adds_to_a_residual<F: SliceForm + Clone>(layer: DropoutLayer<F>, shape: &[usize]) {
    for (p, save) in [
        (0.0, SaveMask::Bits),
        (0.4, SaveMask::Bits),
        (0.4, SaveMask::Replay),
    ] {
        let mut layer = layer.clone().save_mask(save);
        layer.set_p(p);
        let seeded = || layer.clone().generator(Generator::new(42));
        let xs = Var::from_tensor(&tensor(shape, DType::F32)).unwrap();
        let residual = Var::from_tensor(&xs.affine(0.3, 0.7).unwrap()).unwrap();
        let sum = seeded().forward_add(&xs, &residual, true).unwrap();
        let dropped = seeded().forward(&xs, true).unwrap();
        assert_eq!(
            bits(&sum),
            bits(&(residual.as_tensor() + &dropped).unwrap())
        );
        let gradient = |ys: &Tensor| ys.backward().unwrap().remove(&xs).unwrap();
        assert_eq!(bits(&gradient(&sum)), bits(&gradient(&dropped)));
        // Without a gradient of either there is nothing to keep.
        let constant = seeded().forward_add(&xs.detach(), &residual, true).unwrap();
        assert_eq!(bits(&constant), bits(&sum));
        assert!(constant.backward().unwrap().get(&xs).is_none());

        let eval = seeded().forward_add(&xs, &residual, false).unwrap();
        assert_eq!(
            bits(&eval),
            bits(&(residual.as_tensor() + xs.as_tensor()).unwrap())
        );
    }
}

#[test]
fn every_layer_adds_to_a_residual() {
    adds_to_a_residual(Dropout::new(0.0), &[5, 7, 123]);
    adds_to_a_residual(Dropout2d::new(0.0), &[3, 8, 5, 7]);
    adds_to_a_residual(DropPath::new(0.0), &[50, 3, 7]);
    adds_to_a_residual(DropPath::new(0.0).scale_by_keep(false), &[50, 21]);
    adds_to_a_residual(AlphaDropout::new(0.0), &[9, 111]);
    adds_to_a_residual(GaussianDropout::new(0.0), &[9, 111]);
}

#[test]
fn a_residual_that_does_not_fit_is_refused_and_takes_no_key() -> Result<()> {
    let generator = Arc::new(Generator::new(1));
    let layer = Dropout::new(0.5).generator(generator.clone());
    let xs = tensor(&[4, 6], DType::F32);
    for (residual, expected) in [
        (
            tensor(&[6, 4], DType::F32),
            "shape mismatch in sorix-dropout-add, lhs: [4, 6], rhs: [6, 4]",
        ),
        (tensor(&[1, 6], DType::F32), "lhs: [4, 6], rhs: [1, 6]"),
        (
            tensor(&[4, 6], DType::F64),
            "dtype mismatch in sorix-dropout-add, lhs: F32, rhs: F64",
        ),
    ] {
        for error in [
            layer.forward_add(&xs, &residual, true),
            layer.forward_add(&xs, &residual, false),
            xs.dropout_add(&residual, rate(0.5), KEY),
        ] {
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
    let integers = Tensor::zeros((4, 6), DType::U8, &CPU)?;
    let error = integers.dropout_add(&integers, rate(0.5), KEY).unwrap_err();
    assert!(error.to_string().contains("dtype U8"), "{error}");
    assert_eq!(generator.state().offset, 0);
    layer.forward_add(&xs, &xs, true)?;
    assert_eq!(generator.state().offset, 1);
    Ok(())
}

#[test]
fn strides_do_not_show() -> Result<()> {
    let xs = tensor(&[6, 10, 21], DType::F32);
    let repeated = xs.narrow(0, 2, 1)?.broadcast_as((6, 10, 21))?;
    for view in [xs.transpose(0, 2)?, xs.narrow(1, 3, 5)?, xs.t()?, repeated] {
        let copy = view.contiguous()?.copy()?;
        let expected = bits(&copy.dropout(rate(0.4), KEY)?);
        assert_eq!(bits(&view.dropout(rate(0.4), KEY)?), expected);
        assert_eq!(view.dropout(rate(0.4), KEY)?.dims(), view.dims());
        let expected = bits(&copy.dropout_add(&copy, rate(0.4), KEY)?);
        assert_eq!(bits(&view.dropout_add(&copy, rate(0.4), KEY)?), expected);
        assert_eq!(bits(&copy.dropout_add(&view, rate(0.4), KEY)?), expected);
    }
    // The gradient goes back through a view, and may itself be one.
    let xs = Var::from_tensor(&xs)?;
    let ys = xs
        .transpose(0, 2)?
        .dropout(rate(0.4), KEY)?
        .transpose(0, 2)?;
    let gradient = ys.backward()?.remove(&xs).unwrap();
    // As numbers: a zero times a negative number is -0.0.
    let product = (gradient * xs.as_tensor())?
        .flatten_all()?
        .to_vec1::<f32>()?;
    assert!(product == ys.flatten_all()?.to_vec1::<f32>()?);
    Ok(())
}

#[test]
fn what_is_dropped_does_not_leak_forward_or_backward() -> Result<()> {
    let xs = Var::from_tensor(&Tensor::full(f32::NAN, 1000, &CPU)?)?;
    let ys = xs.dropout(rate(0.5), KEY)?;
    let keep: Vec<bool> = ys.to_vec1::<f32>()?.iter().map(|y| y.is_nan()).collect();
    assert!(keep.contains(&true) && keep.contains(&false));
    let zero_or_nan = |tensor: &Tensor| -> Result<bool> {
        let elements = tensor.to_vec1::<f32>()?;
        let mut pairs = elements.iter().zip(&keep);
        Ok(pairs.all(|(y, &keep)| if keep { y.is_nan() } else { y.to_bits() == 0 }))
    };
    assert!(zero_or_nan(&ys)?);
    // candle's own leaks: it multiplies by zero.
    let leaks = candle_nn::ops::dropout(&xs, 0.5)?.to_vec1::<f32>()?;
    assert!(leaks.iter().all(|y| y.is_nan()));

    let upstream = Tensor::full(f32::INFINITY, 1000, &CPU)?;
    let xs = Var::from_tensor(&Tensor::ones(1000, DType::F32, &CPU)?)?;
    let ys = xs.dropout(rate(0.5), KEY)?;
    let gradient = (ys * upstream)?.backward()?.remove(&xs).unwrap();
    let elements = gradient.to_vec1::<f32>()?;
    assert!(
        elements
            .iter()
            .zip(&keep)
            .all(|(dx, &keep)| *dx == if keep { f32::INFINITY } else { 0.0 })
    );
    Ok(())
}

#[test]
fn edges_of_p() -> Result<()> {
    let xs = Var::from_tensor(&tensor(&[20, 30], DType::F32))?;
    let nothing = xs.dropout(rate(0.0), KEY)?;
    assert_eq!(bits(&nothing), bits(&xs));
    let everything = xs.dropout(rate(1.0), KEY)?;
    assert!(bits(&everything).iter().all(|&y| y == 0));
    assert!(
        bits(&everything.backward()?.remove(&xs).unwrap())
            .iter()
            .all(|&dx| dx == 0)
    );
    assert_eq!(
        Tensor::new(3f32, &CPU)?
            .dropout(rate(0.0), KEY)?
            .to_scalar::<f32>()?,
        3.0
    );
    assert_eq!(
        Tensor::zeros((0, 4), DType::F32, &CPU)?
            .dropout(rate(0.5), KEY)?
            .dims(),
        [0, 4]
    );
    for p in [-0.5, 1.5, f64::NAN] {
        let error = Dropout::new(p).forward(&xs, true).unwrap_err().to_string();
        assert!(error.contains(&format!("got p = {p}")), "{error}");
        // In eval nothing is dropped, whatever p.
        Dropout::new(p).forward(&xs, false)?;
    }
    Ok(())
}

#[test]
fn errors_name_what_came_and_take_no_key() -> Result<()> {
    let generator = Arc::new(Generator::new(1));
    let layer = Dropout2d::new(0.5).generator(generator.clone());
    let error = layer
        .forward(&tensor(&[4, 4], DType::F32), true)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("Dropout2d") && error.contains("[4, 4]"),
        "{error}"
    );
    let error = layer
        .forward(&Tensor::zeros((2, 2, 2, 2), DType::U8, &CPU)?, true)
        .unwrap_err();
    let error = error.to_string();
    assert!(error.contains("dtype U8"), "{error}");
    assert_eq!(generator.state().offset, 0);
    layer.forward(&tensor(&[4, 4, 2, 2], DType::F32), true)?;
    assert_eq!(generator.state().offset, 1);
    layer.forward(&tensor(&[4, 4, 2, 2], DType::F32), false)?;
    assert_eq!(generator.state().offset, 1);
    Ok(())
}

/// Generic code over candle's traits takes the layers as it takes candle's.
#[test]
fn the_interface_is_candles() -> Result<()> {
    fn eval<M: ModuleT>(layer: &M, xs: &Tensor) -> Result<Tensor> {
        layer.forward_t(xs, false)
    }
    let xs = tensor(&[3, 4], DType::F32);
    assert_eq!(bits(&eval(&Dropout::new(0.5f32), &xs)?), bits(&xs));
    assert_eq!(bits(&eval(&candle_nn::Dropout::new(0.5), &xs)?), bits(&xs));
    let linear = candle_nn::Linear::new(Tensor::ones((2, 4), DType::F32, &CPU)?, None);
    let dropout = Dropout::new(0.5).generator(Generator::new(3));
    let ys = linear.forward(&xs)?.apply_t(&dropout, true)?;
    let expected = linear
        .forward(&xs)?
        .dropout(rate(0.5), MaskKey::new(3, 0))?;
    assert_eq!(bits(&ys), bits(&expected));
    // A clone draws from the same stream, not the same masks.
    let ones = Tensor::ones(100, DType::F32, &CPU)?;
    let clone = dropout.clone();
    assert_ne!(
        bits(&clone.forward(&ones, true)?),
        bits(&dropout.forward(&ones, true)?)
    );
    Ok(())
}

/// candle's issues 2651 and 2600: on the CPU its dropout cannot be seeded.
#[test]
fn layers_are_seeded_each_by_itself() -> Result<()> {
    assert!(
        CPU.set_seed(42).is_err(),
        "candle can seed its CPU by now: say so in the README"
    );
    let root = Generator::new(7);
    let xs = Tensor::ones((40, 50), DType::F32, &CPU)?;
    let run = |root: &Generator, extra_calls: usize| -> Result<_> {
        let encoder = Dropout::new(0.2).generator(root.fork("encoder"));
        let decoder = Dropout::new(0.2).generator(root.fork("decoder"));
        for _ in 0..extra_calls {
            encoder.forward(&xs, true)?;
        }
        Ok(bits(&decoder.forward(&xs, true)?))
    };
    // Another layer's calls do not show.
    assert_eq!(run(&root, 0)?, run(&root, 3)?);
    assert_ne!(run(&root, 0)?, run(&Generator::new(8), 0)?);
    Ok(())
}

/// Mean, zeros and gradient of candle's own dropout, within six standard deviations.
#[test]
fn statistics_are_those_of_candles_own() -> Result<()> {
    const N: usize = 200_000;
    let xs = Var::from_tensor(&Tensor::ones(N, DType::F32, &CPU)?)?;
    for p in [0.1f32, 0.5, 0.9] {
        let sigma = (f64::from(p) * f64::from(1.0 - p) / N as f64).sqrt();
        for ys in [
            Dropout::new(p).forward(&xs, true)?,
            candle_nn::Dropout::new(p).forward(&xs, true)?,
        ] {
            let zeros = ys
                .eq(0f32)?
                .to_dtype(DType::F64)?
                .mean_all()?
                .to_scalar::<f64>()?;
            assert!(
                (zeros - f64::from(p)).abs() < 6.0 * sigma,
                "p = {p}: {zeros}"
            );
            let scale = ys.max(D::Minus1)?.to_scalar::<f32>()?;
            assert!(
                (scale - 1.0 / (1.0 - p)).abs() < 1e-5 * scale,
                "p = {p}: {scale}"
            );
            let gradient = ys.backward()?.remove(&xs).unwrap();
            // Of an input of ones the gradient is the output.
            assert_eq!(bits(&gradient), bits(&ys));
        }
    }
    Ok(())
}

#[test]
fn the_graph_goes_on_before_and_after() -> Result<()> {
    let xs = Var::from_tensor(&tensor(&[8, 9], DType::F64))?;
    let key = MaskKey::new(5, 5);
    let loss = |xs: &Tensor| xs.sqr()?.dropout(rate(0.25), key)?.sin()?.sum_all();
    let gradient = loss(&xs)?
        .backward()?
        .remove(&xs)
        .unwrap()
        .flatten_all()?
        .to_vec1::<f64>()?;
    let values = xs.flatten_all()?.to_vec1::<f64>()?;
    let h = 1e-6;
    for i in (0..values.len()).step_by(5) {
        let at = |shift: f64| -> Result<f64> {
            let mut values = values.clone();
            values[i] += shift;
            loss(&Tensor::from_vec(values, (8, 9), &CPU)?)?.to_scalar::<f64>()
        };
        let difference = (at(h)? - at(-h)?) / (2.0 * h);
        assert!(
            (difference - gradient[i]).abs() < 1e-4,
            "{i}: {difference} {}",
            gradient[i]
        );
    }
    Ok(())
}

#[test]
fn sorix_own_layer_in_training_takes_the_same_keys() -> Result<()> {
    let xs = tensor(&[10, 10], DType::F32);
    let x = sorix::Tensor::from_vec(xs.flatten_all()?.to_vec1::<f32>()?, [10, 10]).unwrap();
    let candle = Dropout::new(0.5).generator(Generator::new(11));
    let own = sorix::nn::Dropout::new(0.5)
        .unwrap()
        .generator(Generator::new(11));
    for _ in 0..3 {
        let y = own.forward(&x).unwrap();
        assert_eq!(bits(&candle.forward(&xs, true)?), bits_of_sorix(&y));
    }
    Ok(())
}
