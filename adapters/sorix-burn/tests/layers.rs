//! sorix's layers in burn: the masks of sorix, the meaning of training that burn has.

use std::sync::Arc;

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor, TensorData};
use sorix_burn::{
    AlphaDropout, BroadcastDropout, DropPath, Dropout, Dropout1d, Dropout2d, Dropout3d,
    DropoutConfig, DropoutLayer, Error, FeatureAlphaDropout, Form, GaussianDropout, Generator,
    LockedDropout, MaskKey, SaveMask, forms,
};

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

/// Numbers exact in every dtype, some of them not positive.
fn numbers(count: usize) -> Vec<f64> {
    (0..count).map(|i| (i % 200) as f64 * 0.25 - 12.5).collect()
}

fn tensor<const D: usize>(shape: [usize; D], dtype: DType, device: &Device) -> Tensor<D> {
    let data = TensorData::new(numbers(shape.iter().product()), shape);
    Tensor::from_data(data.convert_dtype(dtype), (device, dtype))
}

/// The elements as doubles, as bits, so that -0.0 and NaN are told apart.
fn bits<const D: usize>(tensor: Tensor<D>) -> Vec<u64> {
    let data = tensor.into_data().convert_dtype(DType::F64);
    let numbers = data.try_to_vec::<f64>().unwrap();
    numbers.into_iter().map(f64::to_bits).collect()
}

fn bits_of_sorix(tensor: &sorix::Tensor) -> Vec<u64> {
    let all = tensor
        .to_dtype(sorix::DType::F64)
        .unwrap()
        .to_vec::<f64>()
        .unwrap();
    all.into_iter().map(f64::to_bits).collect()
}

/// Output and gradient of a layer in burn and of sorix' own one for the same key, in each dtype, with
/// and without gradient checkpointing.
fn agree<const D: usize>(
    what: &str,
    shape: [usize; D],
    burn: impl Fn(Tensor<D>) -> sorix_burn::Result<Tensor<D>>,
    own: impl Fn(&sorix::Tensor) -> sorix::nn::Result<sorix::Tensor>,
) {
    for (dtype, own_dtype) in DTYPES {
        let x = sorix::Tensor::from_vec(numbers(shape.iter().product()), shape).unwrap();
        let x = x.to_dtype(own_dtype).unwrap();
        let upstream = x.clone();
        let x = x.requires_grad(true);
        let y = own(&x).unwrap();
        y.backward_with(&upstream).unwrap();
        let (output, gradient) = (bits_of_sorix(&y), bits_of_sorix(&x.grad().unwrap()));

        let plain = Device::flex();
        assert_eq!(
            bits(burn(tensor(shape, dtype, &plain)).unwrap()),
            output,
            "{what} {dtype:?}"
        );
        for device in [
            plain.clone().autodiff(),
            plain.clone().autodiff().gradient_checkpointing(),
        ] {
            let x = tensor(shape, dtype, &device).require_grad();
            let y = burn(x.clone()).unwrap();
            assert_eq!(bits(y.clone()), output, "{what} {dtype:?}");
            // Of a product, so that the gradient of the output is not all ones.
            let gradients = (y * tensor(shape, dtype, &device)).backward();
            let got = x.grad(&gradients).unwrap();
            assert_eq!(bits(got), gradient, "{what} {dtype:?}: gradient");
            // Nobody asks for a gradient here.
            assert_eq!(bits(burn(tensor(shape, dtype, &device)).unwrap()), output);
        }
    }
}

macro_rules! same_as_sorix {
    ($layer:ident, $shape:expr $(, $option:ident($($value:expr)?))*) => {
        for p in [0.0, 0.1, 0.5, 1.0] {
            for save in [SaveMask::Bits, SaveMask::Replay] {
                let burn = $layer::new(p).unwrap().save_mask(save)$(.$option($($value)?))*;
                let own = sorix::nn::$layer::new(p).unwrap().save_mask(save)$(.$option($($value)?))*;
                agree(
                    &format!("{} p = {p} {save:?}", stringify!($layer)),
                    $shape,
                    |x| burn.forward_with_key(x, KEY),
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
    let burn = BroadcastDropout::with_form(forms::NoiseShape::shared_along([1]), 0.3).unwrap();
    let own = sorix::nn::BroadcastDropout::shared_along(0.3, [1]).unwrap();
    agree(
        "shared",
        [4, 6, 50],
        |x| burn.forward_with_key(x, KEY),
        |x| own.forward_with_key(x, KEY),
    );
}

/// Output and both gradients are those of sorix' own operation, in each dtype.
#[test]
fn a_residual_is_added_as_sorix_own_adds_it() {
    const SHAPE: [usize; 3] = [5, 7, 123];
    let count = SHAPE.iter().product::<usize>();
    let reversed: Vec<f64> = numbers(count).into_iter().rev().map(|x| x + 0.5).collect();
    for (dtype, own_dtype) in DTYPES {
        let own = |numbers: Vec<f64>| {
            let own = sorix::Tensor::from_vec(numbers, SHAPE).unwrap();
            own.to_dtype(own_dtype).unwrap()
        };
        let given = |numbers: &[f64], device: &Device| {
            let data = TensorData::new(numbers.to_vec(), SHAPE).convert_dtype(dtype);
            Tensor::<3>::from_data(data, (device, dtype))
        };
        for (p, save) in [
            (0.0, SaveMask::Bits),
            (0.1, SaveMask::Replay),
            (0.5, SaveMask::Bits),
        ] {
            let layer = Dropout::new(p).unwrap().save_mask(save);
            let own_x = own(numbers(count)).requires_grad(true);
            let own_residual = own(reversed.clone()).requires_grad(true);
            let rate = sorix_burn::DropRate::new(p).unwrap();
            let expected = own_x.dropout_add(&own_residual, rate, KEY, save).unwrap();
            expected.backward_with(&own(numbers(count))).unwrap();
            let of_x = bits_of_sorix(&own_x.grad().unwrap());
            let expected = bits_of_sorix(&expected);

            let plain = Device::flex();
            for device in [
                plain.clone(),
                plain.clone().autodiff(),
                plain.clone().autodiff().gradient_checkpointing(),
            ] {
                let (x, residual) = (given(&numbers(count), &device), given(&reversed, &device));
                let what = format!("{dtype:?} p = {p} {save:?} on {device:?}");
                // Held by nobody else, it becomes the sum; held here, it stays as it is.
                let over = layer.forward_add_with_key(x.clone(), given(&reversed, &device), KEY);
                assert_eq!(bits(over.unwrap()), expected, "{what}");
                let held = layer.forward_add_with_key(x.clone(), residual.clone(), KEY);
                assert_eq!(bits(held.unwrap()), expected, "{what}");
                assert_eq!(
                    bits(residual.clone()),
                    bits(given(&reversed, &plain)),
                    "{what}"
                );
                if !device.is_autodiff() {
                    continue;
                }
                let (x, residual) = (x.require_grad(), residual.require_grad());
                let upstream = given(&numbers(count), &device);
                for (x, residual) in [
                    (x.clone(), residual.clone()),
                    (x.clone(), residual.clone().detach()),
                    (x.detach(), residual),
                ] {
                    let y = layer.forward_add_with_key(x.clone(), residual.clone(), KEY);
                    let gradients = (y.unwrap() * upstream.clone()).backward();
                    if let Some(gradient) = x.grad(&gradients) {
                        assert_eq!(bits(gradient), of_x, "{what}: gradient of x");
                    } else {
                        assert!(!x.is_require_grad());
                    }
                    if let Some(gradient) = residual.grad(&gradients) {
                        assert_eq!(bits(gradient), bits(upstream.clone()), "{what}: residual");
                    } else {
                        assert!(!residual.is_require_grad());
                    }
                }
            }
        }
    }
}

/// The sum of every form is that of the two operations apart, by the same key.
fn adds_to_a_residual<F: Form, const D: usize>(layer: DropoutLayer<F>, shape: [usize; D]) {
    let device = Device::flex().autodiff();
    let x = tensor(shape, DType::F32, &device).require_grad();
    let residual = tensor(shape, DType::F32, &device) * 0.3 + 0.7;
    let apart = layer.forward_with_key(x.clone(), KEY).unwrap();
    let dx = x.grad(&apart.clone().backward()).unwrap();
    let apart = residual.clone() + apart;
    let sum = layer
        .forward_add_with_key(x.clone(), residual, KEY)
        .unwrap();
    assert_eq!(bits(sum.clone()), bits(apart));
    assert_eq!(bits(x.grad(&sum.backward()).unwrap()), bits(dx));
}

#[test]
fn every_layer_adds_to_a_residual() {
    adds_to_a_residual(Dropout::new(0.4).unwrap(), [5, 7, 123]);
    adds_to_a_residual(Dropout2d::new(0.4).unwrap(), [3, 8, 5, 7]);
    adds_to_a_residual(DropPath::new(0.4).unwrap(), [50, 3, 7]);
    adds_to_a_residual(AlphaDropout::new(0.4).unwrap(), [9, 111]);
    adds_to_a_residual(GaussianDropout::new(0.4).unwrap(), [9, 111]);
}

#[test]
fn a_residual_is_added_in_validation_too_and_takes_no_key() {
    let generator = Arc::new(Generator::new(1));
    let layer = Dropout::new(0.5).unwrap().generator(generator.clone());
    let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
    let ones = |device: &Device| Tensor::<2>::ones([20, 30], device);
    let sum = |layer: &Dropout, device: &Device| {
        bits(layer.forward_add(ones(device), ones(device) * 10.0))
    };
    let eleven = bits(ones(&plain) * 11.0);
    assert_eq!(sum(&layer, &plain), eleven);
    assert_eq!(sum(&layer.valid(), &autodiff), eleven);
    for residual in [
        Tensor::<2>::ones([30, 20], &autodiff),
        Tensor::<2>::ones([1, 30], &autodiff),
        tensor([20, 30], DType::F64, &autodiff),
        ones(&plain),
    ] {
        for train in [true, false] {
            let error = layer.forward_add_if(train, ones(&autodiff), residual.clone());
            let text = error.unwrap_err().to_string();
            let expected = "dropout_add: expected a residual as the input, F32 of shape [20, 30]";
            assert!(text.starts_with(expected), "{text}");
            let got = format!("got {:?} of shape {:?}", residual.dtype(), residual.dims());
            assert!(text.contains(&got), "{text}");
            let (of_input, of_residual) = text.rsplit_once(", got ").unwrap();
            assert!(!of_input.ends_with(of_residual), "{text}");
        }
        let error = layer.forward_add_with_key(ones(&autodiff), residual, KEY);
        assert!(matches!(error, Err(Error::Operand { .. })));
    }
    assert_eq!(generator.state().offset, 0);
    assert_ne!(sum(&layer, &autodiff), eleven);
    assert_eq!(generator.state().offset, 1);
}

#[test]
fn strides_do_not_show_and_what_others_hold_is_not_written_over() {
    let dropout = Dropout::new(0.4).unwrap();
    for device in [Device::flex(), Device::flex().autodiff()] {
        let x = tensor([6, 10, 21], DType::F32, &device);
        let before = bits(x.clone());
        for view in [
            x.clone().swap_dims(0, 2),
            x.clone().narrow(1, 3, 5),
            x.clone().narrow(0, 2, 1).expand([6, 10, 21]),
            x.clone().flip([1]),
        ] {
            let shape = view.dims();
            let copy = Tensor::<3>::from_data(view.to_data(), &device);
            let expected = bits(dropout.forward_with_key(copy, KEY).unwrap());
            let y = dropout.forward_with_key(view.clone(), KEY).unwrap();
            assert_eq!(y.dims(), shape);
            assert_eq!(bits(y), expected);
            let copy = Tensor::<3>::from_data(view.to_data(), &device);
            let add = |x: &Tensor<3>, residual: &Tensor<3>| {
                let sum = dropout.forward_add_with_key(x.clone(), residual.clone(), KEY);
                bits(sum.unwrap())
            };
            assert_eq!(add(&view, &copy), add(&copy, &copy));
            assert_eq!(add(&copy, &view), add(&copy, &copy));
        }
        dropout.forward_with_key(x.clone(), KEY).unwrap();
        assert_eq!(bits(x), before);
    }
}

#[test]
fn training_and_validation_are_as_in_burn() {
    let generator = Arc::new(Generator::new(1));
    let ours = Dropout::new(0.5).unwrap().generator(generator.clone());
    let burns = burn::nn::DropoutConfig::new(0.5).init();
    let drops = |ours: &Dropout, burns: &burn::nn::Dropout, device: &Device| {
        let x = Tensor::<1>::ones([1000], device);
        let zeros = |y: Tensor<1>| bits(y).contains(&0);
        let (ours, burns) = (zeros(ours.forward(x.clone())), zeros(burns.forward(x)));
        assert_eq!(ours, burns);
        ours
    };
    let (plain, autodiff) = (Device::flex(), Device::flex().autodiff());
    assert!(drops(&ours, &burns, &autodiff));
    assert_eq!(generator.state().offset, 1);
    assert!(!drops(&ours, &burns, &plain));
    assert!(!drops(&ours.valid(), &burns.valid(), &autodiff));
    assert!(!drops(
        &ours.clone().freeze(),
        &burns.clone().freeze(),
        &autodiff
    ));
    assert_eq!(
        generator.state().offset,
        1,
        "what does not drop takes no key"
    );
    assert!(drops(
        &ours.valid().train(),
        &burns.valid().train(),
        &autodiff
    ));
    assert_eq!(generator.state().offset, 2);
}

/// burn's issues 2941, 2652 and 3639: masks by a seed, layer by layer, in an explicit mode.
#[test]
fn layers_are_seeded_each_by_itself_and_the_mode_can_be_explicit() {
    let run = |seed: u64, extra_calls: usize| {
        let root = Generator::new(seed);
        let encoder = Dropout::new(0.2).unwrap().generator(root.fork("encoder"));
        let decoder = Dropout::new(0.2).unwrap().generator(root.fork("decoder"));
        let x = Tensor::<2>::ones([40, 50], &Device::flex());
        for _ in 0..extra_calls {
            encoder.forward_if(true, x.clone()).unwrap();
        }
        assert_eq!(
            bits(decoder.forward_if(false, x.clone()).unwrap()),
            bits(x.clone())
        );
        bits(decoder.forward_if(true, x).unwrap())
    };
    assert_eq!(run(7, 0), run(7, 3), "another layer's calls do not show");
    assert_ne!(run(7, 0), run(8, 0));
}

#[test]
fn what_is_dropped_does_not_leak_forward_or_backward() {
    let device = Device::flex().autodiff();
    let dropout = Dropout::new(0.5).unwrap();
    let nan = Tensor::<1>::full([1000], f32::NAN, &device);
    let y = dropout.forward_with_key(nan.clone(), KEY).unwrap();
    let y = y.into_data().try_to_vec::<f32>().unwrap();
    let kept = y.iter().filter(|y| y.is_nan()).count();
    assert!(y.iter().all(|y| y.is_nan() || y.to_bits() == 0) && (400..600).contains(&kept));
    // burn's own leaks: it multiplies by zero.
    let leaks = burn::nn::DropoutConfig::new(0.5)
        .init()
        .forward(nan.clone());
    assert!(
        leaks
            .into_data()
            .try_to_vec::<f32>()
            .unwrap()
            .iter()
            .all(|y| y.is_nan())
    );

    let x = Tensor::<1>::ones([1000], &device).require_grad();
    let y = dropout.forward_with_key(x.clone(), KEY).unwrap();
    let dx = x
        .grad(&(y * nan).backward())
        .unwrap()
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    assert!(dx.iter().all(|dx| dx.is_nan() || dx.to_bits() == 0));
    assert_eq!(dx.iter().filter(|dx| dx.is_nan()).count(), kept);
}

#[test]
fn errors_name_what_came_and_take_no_key() {
    for p in [-0.5, 1.5, f64::NAN] {
        let error = Dropout::new(p).unwrap_err();
        assert!(matches!(error, Error::Layer(sorix::Error::Rate(_))));
        assert!(
            error.to_string().contains(&format!("got p = {p}")),
            "{error}"
        );
    }
    let generator = Arc::new(Generator::new(1));
    let mut layer = Dropout2d::new(0.5).unwrap().generator(generator.clone());
    let device = Device::flex().autodiff();
    let error = layer
        .try_forward(Tensor::<2>::ones([4, 4], &device))
        .unwrap_err();
    assert!(error.to_string().contains("got shape [4, 4]"), "{error}");
    layer.prob = 7.0;
    let error = layer
        .try_forward(Tensor::<4>::ones([1, 2, 3, 4], &device))
        .unwrap_err();
    assert!(error.to_string().contains("got p = 7"), "{error}");
    assert_eq!(generator.state().offset, 0);
}

#[test]
#[should_panic(expected = "drop probability must be a number in [0, 1], got p = 1.5")]
fn init_panics_as_burns_does() {
    let _ = DropoutConfig::new(1.5).init();
}

/// Mean, zeros and gradient of burn's own dropout, within six standard deviations.
#[test]
fn statistics_are_those_of_burns_own() {
    const N: usize = 100_000;
    for p in [0.1, 0.5, 0.9] {
        let x = Tensor::<1>::ones([N], &Device::flex().autodiff()).require_grad();
        let sigma = (p * (1.0 - p) / N as f64).sqrt();
        let ours = Dropout::new(p).unwrap().forward(x.clone());
        let burns = burn::nn::DropoutConfig::new(p).init().forward(x.clone());
        for y in [ours, burns] {
            let values = y.to_data().try_to_vec::<f32>().unwrap();
            let zeros = values.iter().filter(|&&y| y == 0.0).count() as f64 / N as f64;
            assert!((zeros - p).abs() < 6.0 * sigma, "p = {p}: {zeros}");
            let scale = 1.0 / (1.0 - p) as f32;
            assert!(
                values
                    .iter()
                    .all(|&y| y == 0.0 || (y - scale).abs() < 1e-5 * scale)
            );
            // Of an input of ones the gradient is the output.
            let gradient = x.grad(&y.backward()).unwrap();
            assert_eq!(gradient.into_data().try_to_vec::<f32>().unwrap(), values);
        }
    }
}

#[derive(Module, Debug)]
struct Burns {
    linear: Linear,
    dropout: burn::nn::Dropout,
}

#[derive(Module, Debug)]
struct Ours {
    linear: Linear,
    dropout: Dropout,
}

#[test]
fn records_of_burns_dropout_load_and_the_reverse() {
    let device = Device::flex();
    let burns = || Burns {
        linear: LinearConfig::new(3, 4).init(&device),
        dropout: burn::nn::DropoutConfig::new(0.5).init(),
    };
    let ours = || Ours {
        linear: LinearConfig::new(3, 4).init(&device),
        dropout: Dropout::new(0.5).unwrap(),
    };
    let saved = burns();
    let weight = saved.linear.weight.val().into_data();
    let loaded = ours().load_record(saved.into_record());
    assert_eq!(loaded.linear.weight.val().into_data(), weight);
    let back = burns().load_record(loaded.into_record());
    assert_eq!(back.linear.weight.val().into_data(), weight);
}

#[test]
fn it_shows_itself() {
    let dropout = Dropout::new(0.5).unwrap();
    assert_eq!(
        format!("{dropout}"),
        "DropoutLayer {form: Elements, prob: 0.5}"
    );
    let frozen = format!("{}", dropout.freeze());
    assert_eq!(
        frozen,
        "DropoutLayer {form: Elements, prob: 0.5, training: disabled}"
    );
}
