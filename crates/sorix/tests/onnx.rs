//! The twelve Dropout cases of the ONNX backend suite (`onnx/backend/test/case/node/dropout.py`,
//! Apache-2.0): input, mask, ratio and output, in `data/onnx_dropout_cases.json`.

use serde_json::Value;
use sorix::Tensor;
use sorix::kernels::{BitMask, DropRate, dropout};
use sorix::nn::{Dropout, Module};

fn values<T>(of: &Value, value: fn(&Value) -> Option<T>) -> Vec<T> {
    let values = of["values"].as_array().unwrap();
    values.iter().map(|x| value(x).unwrap()).collect()
}

fn floats(of: &Value) -> Vec<f32> {
    assert_eq!(of["dtype"], "float32");
    values(of, |x| x.as_f64().map(|x| x as f32))
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Bit for bit, but for the sign of dropped elements: the suite multiplies by the mask, which makes
/// -0.0 of a negative number, and compares with a tolerance; sorix selects +0.0 always.
#[test]
fn the_cases_of_the_onnx_backend_suite_pass() {
    let cases: Value = serde_json::from_str(include_str!("data/onnx_dropout_cases.json")).unwrap();
    let cases = cases.as_array().unwrap();
    let (mut eval, mut training, mut dropped) = (0, 0, 0);
    for case in cases {
        let (name, ratio) = (&case["name"], case["ratio"].as_f64().unwrap());
        let (x, want) = (floats(&case["x"]), floats(&case["y"]));
        let keep = values(&case["mask"], Value::as_bool);
        if case["training"] == true {
            training += 1;
            let want: Vec<f32> = want
                .into_iter()
                .zip(&keep)
                .map(|(y, &keep)| {
                    assert!(keep || y == 0.0, "{name}");
                    dropped += usize::from(!keep);
                    if keep { y } else { 0.0 }
                })
                .collect();
            let (rate, mask) = (DropRate::new(ratio).unwrap(), BitMask::from_bools(&keep));
            let mut y = vec![f32::NAN; x.len()];
            dropout::apply(rate, &mask, &x, &mut y).unwrap();
            assert_eq!(bits(&y), bits(&want), "{name}");
            let mut y = x;
            dropout::apply_in_place(rate, &mask, &mut y).unwrap();
            assert_eq!(bits(&y), bits(&want), "{name}, in place");
        } else {
            eval += 1;
            let shape: Vec<usize> = case["x"]["shape"]
                .as_array()
                .unwrap()
                .iter()
                .map(|n| n.as_u64().unwrap() as usize)
                .collect();
            let x = Tensor::from_slice(&x, &shape).unwrap();
            let mut layer = Dropout::new(ratio).unwrap();
            layer.eval();
            let y = layer.forward(&x).unwrap();
            assert_eq!(y.shape(), shape, "{name}");
            assert_eq!(bits(&y.to_vec::<f32>().unwrap()), bits(&want), "{name}");
            assert!(keep.iter().all(|&keep| keep), "{name}");
        }
    }
    assert_eq!((eval, training, dropped), (6, 6, 146));
}
