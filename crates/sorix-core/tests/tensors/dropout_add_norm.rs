//! A residual plus dropout, normalised, of tensors.

use crate::common::{DTYPES, check_gradients, numbers, pool, random, values};
use sorix_core::autograd::no_grad;
use sorix_core::{DType, DropRate, MaskKey, NormKind, NormOptions, SaveMask, Tensor, tensor};

const KEY: MaskKey = MaskKey {
    seed: 42,
    offset: 7,
};

const SAVES: [SaveMask; 2] = [SaveMask::Bits, SaveMask::Replay];

fn rate(p: f64) -> DropRate {
    DropRate::new(p).unwrap()
}

#[test]
fn gradients_of_all_inputs_are_those_of_differences() {
    // x, residual, weight, shift, bias, over one axis and over two.
    for (shape, axes, row) in [(&[3, 5][..], 1, &[5][..]), (&[2, 3, 4], 2, &[3, 4])] {
        let inputs: Vec<Tensor> = [shape, shape, row, row, row]
            .iter()
            .zip(1..)
            .map(|(shape, salt)| random(shape, salt))
            .collect();
        for kind in [NormKind::Layer, NormKind::Rms] {
            for (p, save) in [(0.4, SAVES[0]), (0.4, SAVES[1]), (0.0, SAVES[0])] {
                // The sum goes on, as in the prenorm form; and nowhere, as in the postnorm form.
                for prenorm in [true, false] {
                    check_gradients(&inputs, |t| {
                        let norm = NormOptions::new(kind, 0.1).axes(axes);
                        let norm = norm.weight(&t[2]).shift(&t[3]).bias(&t[4]);
                        let (z, sum) = t[0].dropout_add_norm(&t[1], norm, rate(p), KEY, save)?;
                        if prenorm {
                            z.add(&sum.mul(&sum)?)
                        } else {
                            Ok(z)
                        }
                    });
                }
            }
        }
    }
}

#[test]
fn gradients_go_to_whoever_needs_one() {
    let [x, residual] = [1, 2].map(|salt| random(&[4, 6], salt));
    let [weight, shift, bias] = [3, 4, 5].map(|salt| random(&[6], salt));
    let run = |needs: [bool; 5]| -> Vec<Option<Vec<f64>>> {
        let tensors = [&x, &residual, &weight, &shift, &bias];
        let leaves: Vec<Tensor> = tensors
            .iter()
            .zip(needs)
            .map(|(tensor, needs)| tensor.requires_grad(needs))
            .collect();
        let norm = NormOptions::layer(1e-3)
            .weight(&leaves[2])
            .shift(&leaves[3]);
        let norm = norm.bias(&leaves[4]);
        let (z, _) = leaves[0]
            .dropout_add_norm(&leaves[1], norm, rate(0.4), KEY, SaveMask::Bits)
            .unwrap();
        z.mul(&z).unwrap().sum().unwrap().backward().unwrap();
        let gradients = leaves.iter().map(|leaf| leaf.grad());
        gradients
            .map(|grad| grad.map(|grad| values(&grad)))
            .collect()
    };
    let all = run([true; 5]);
    for one in 0..5 {
        let alone = run(core::array::from_fn(|k| k == one));
        for k in 0..5 {
            let want = if k == one { all[k].clone() } else { None };
            assert_eq!(alone[k], want, "input {k}, gradient of {one}");
        }
    }
}

#[test]
fn a_view_gets_what_its_copy_gets() {
    let (x, residual) = (random(&[7, 9], 1), random(&[9, 7], 2));
    let x = x.transpose(0, 1).unwrap();
    let norm = NormOptions::rms(1e-5);
    let run = |x: &Tensor| {
        let pair = x.dropout_add_norm(&residual, norm, rate(0.5), KEY, SaveMask::Bits);
        let (z, sum) = pair.unwrap();
        (values(&z), values(&sum))
    };
    assert_eq!(run(&x), run(&x.contiguous().unwrap()));
}

#[test]
fn sixteen_bits_have_a_sum_of_f32() {
    for dtype in DTYPES {
        let wide = dtype.arithmetic();
        let [x, residual] = [1, 2].map(|salt| random(&[3, 70], salt).to_dtype(dtype).unwrap());
        let weight = random(&[70], 3).to_dtype(dtype).unwrap();
        let leaves = [&x, &residual, &weight].map(|tensor| tensor.requires_grad(true));
        let norm = NormOptions::layer(1e-5).weight(&leaves[2]);
        for save in SAVES {
            let (z, sum) = leaves[0]
                .dropout_add_norm(&leaves[1], norm, rate(0.3), KEY, save)
                .unwrap();
            assert_eq!((z.dtype(), sum.dtype()), (dtype, wide));

            // The same of tensors that were widened before: only z is rounded.
            let wide_leaves = [&x, &residual, &weight]
                .map(|tensor| tensor.to_dtype(wide).unwrap().requires_grad(true));
            let norm = NormOptions::layer(1e-5).weight(&wide_leaves[2]);
            let (wide_z, wide_sum) = wide_leaves[0]
                .dropout_add_norm(&wide_leaves[1], norm, rate(0.3), KEY, save)
                .unwrap();
            assert_eq!(values(&sum), values(&wide_sum));
            assert_eq!(values(&z), values(&wide_z.to_dtype(dtype).unwrap()));
            // And the residual may be either.
            let norm = NormOptions::layer(1e-5).weight(&leaves[2]);
            let (mixed, _) = leaves[0]
                .dropout_add_norm(&wide_leaves[1], norm, rate(0.3), KEY, save)
                .unwrap();
            assert_eq!(values(&mixed), values(&z));

            let dz = random(&[3, 70], 9).to_dtype(dtype).unwrap();
            z.backward_with(&dz).unwrap();
            wide_z.backward_with(&dz.to_dtype(wide).unwrap()).unwrap();
            for (leaf, wide_leaf) in leaves.iter().zip(&wide_leaves) {
                let want = wide_leaf.grad().unwrap().to_dtype(dtype).unwrap();
                assert_eq!(values(&leaf.grad().unwrap()), values(&want), "{dtype}");
                leaf.zero_grad();
                wide_leaf.zero_grad();
            }
        }
    }
}

#[test]
fn without_dropout_it_is_the_norm_of_the_sum() {
    let [x, residual] = [1, 2].map(|salt| random(&[5, 33], salt).to_dtype(DType::F32).unwrap());
    let norm = NormOptions::layer(1e-5);
    let run = |x: &Tensor, residual: &Tensor, p: f64| {
        let pair = x.dropout_add_norm(residual, norm, rate(p), KEY, SaveMask::Bits);
        let (z, sum) = pair.unwrap();
        (values(&z), values(&sum))
    };
    let zeros = Tensor::zeros([5, 33], DType::F32).unwrap();
    let sum = residual.add(&x).unwrap();
    assert_eq!(run(&x, &residual, 0.0), run(&zeros, &sum, 0.0));
    // All dropped, the residual alone is left.
    assert_eq!(run(&x, &residual, 1.0), run(&zeros, &residual, 0.0));
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let [x, residual] = [1, 2].map(|salt| {
        let numbers: Vec<f32> = numbers(997 * 307, salt).iter().map(|&x| x as f32).collect();
        Tensor::from_slice(&numbers, [997, 307]).unwrap()
    });
    let weight = random(&[307], 3).to_dtype(DType::F32).unwrap();
    let run = |threads: usize| {
        pool(threads).install(|| {
            let leaves = [&x, &residual, &weight].map(|tensor| tensor.requires_grad(true));
            let norm = NormOptions::layer(1e-5).weight(&leaves[2]).bias(&leaves[2]);
            let (z, _) = leaves[0]
                .dropout_add_norm(&leaves[1], norm, rate(0.1), KEY, SaveMask::Replay)
                .unwrap();
            z.backward_with(&x).unwrap();
            let grads = leaves.map(|leaf| leaf.grad().unwrap().to_vec::<f32>().unwrap());
            (z.to_vec::<f32>().unwrap(), grads)
        })
    };
    let one = run(1);
    assert!(run(2) == one && run(5) == one);
}

#[test]
fn a_weight_that_was_written_since_is_noticed() {
    let x = random(&[2, 3], 1).requires_grad(true);
    let weight = tensor([1.0, 2.0, 3.0]).requires_grad(true);
    let norm = NormOptions::layer(1e-5).weight(&weight);
    let pair = x.dropout_add_norm(&x, norm, rate(0.5), KEY, SaveMask::Bits);
    let (z, _) = pair.unwrap();
    no_grad(|| weight.assign(&tensor([0.0, 0.0, 0.0]))).unwrap();
    let message = z.sum().unwrap().backward().unwrap_err().to_string();
    assert!(message.contains("was written since"), "{message}");
}

#[test]
fn errors_name_what_came() {
    let (x, short) = (random(&[2, 3], 1), random(&[2], 2));
    let run = |x: &Tensor, residual: &Tensor, norm: NormOptions<'_>| {
        let pair = x.dropout_add_norm(residual, norm, rate(0.5), KEY, SaveMask::Bits);
        pair.map(|_| ()).unwrap_err().to_string()
    };
    let norm = NormOptions::layer(1e-5);
    let named = "dropout_add_norm(float64[2, 3], float64[2";
    let message = run(&x, &short, norm);
    assert_eq!(
        message,
        format!("{named}]): expected shape [2, 3], got [2]")
    );
    let message = run(&x, &x, norm.weight(&short));
    assert_eq!(
        message,
        format!("{named}, 3], float64[2]): expected shape [3], got [2]")
    );
    let message = run(&x, &x.to_dtype(DType::F32).unwrap(), norm);
    assert!(
        message.contains("expected dtype sorix.float64, got sorix.float32"),
        "{message}"
    );
    let message = run(&x, &x, norm.axes(3));
    assert!(message.ends_with("axis -3 is out of range"), "{message}");
    assert!(run(&x, &x, norm.axes(0)).ends_with("out of range"));
    assert!(run(&x, &x, NormOptions::rms(f64::NAN)).contains("epsilon"));
    let at = KEY.shard(&[9, 9], 0, 0..1).unwrap();
    assert!(
        x.dropout_add_norm(&x, norm, rate(0.5), at, SaveMask::Bits)
            .is_err()
    );
}

#[test]
fn nothing_is_made_of_nothing() {
    for shape in [[0, 3], [3, 0]] {
        let x = random(&shape, 1).requires_grad(true);
        let weight = random(&shape[1..], 1).requires_grad(true);
        let norm = NormOptions::layer(0.0).weight(&weight).bias(&weight);
        let pair = x.dropout_add_norm(&x, norm, rate(0.5), KEY, SaveMask::Bits);
        let (z, sum) = pair.unwrap();
        assert_eq!((z.shape(), sum.shape()), (&shape[..], &shape[..]));
        z.sum().unwrap().backward().unwrap();
        assert_eq!(
            weight.grad().unwrap().to_vec::<f64>().unwrap(),
            vec![0.0; shape[1]]
        );
    }
}
