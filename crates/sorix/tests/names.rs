//! That names can be taken by `*` from the crate, from `nn` and from the prelude, all in one program.

use sorix::nn::*;
use sorix::prelude::*;
use sorix::*;

/// `Result` and `Error` are one thing in all of them, and a tensor's error becomes it.
fn half_of(x: &Tensor) -> Result<Tensor> {
    let y: TensorResult<Tensor> = x.mul_scalar(0.5);
    Dropout::new(0.0)?.forward(&y?)
}

fn is_of_a_module(error: &Error) -> bool {
    !matches!(error, Error::Tensor(_))
}

/// The trait and the derive, under one name.
#[derive(Debug, Module)]
struct Twice(Dropout, #[module(parameter)] Tensor);

impl Module for Twice {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(&self.0.forward(&x.mul(&self.1)?)?)
    }
}

#[test]
fn a_module_of_a_crate_that_has_sorix_alone() {
    let mut twice = Twice(Dropout::new(0.5).unwrap(), tensor([3.0]));
    twice.eval();
    assert_eq!(twice.0.mode(), Some(Mode::Eval));
    let y = twice.forward(&tensor([2.0])).unwrap();
    assert_eq!(y.item::<f64>().unwrap(), 6.0);
    assert_eq!(twice.named_parameters()[0].0, "1");
}

#[test]
fn names_of_the_crate_and_of_nn_are_not_ambiguous() {
    let y = half_of(&tensor([2.0, 4.0])).unwrap();
    assert_eq!(y.to_vec::<f64>().unwrap(), [1.0, 2.0]);
    assert!(is_of_a_module(&Dropout::new(2.0).unwrap_err()));
    let error: TensorError = y.reshape([3]).unwrap_err();
    assert!(!is_of_a_module(&error.into()));

    // The names that more than one of the three has.
    let (key, rate, save) = (MaskKey::new(42, 0), DropRate::new(0.5), SaveMask::Bits);
    let dropped = y.dropout(rate.unwrap(), key, save).unwrap();
    assert_eq!((dropped.dtype(), dropped.shape()), (DType::F64, &[2][..]));
    manual_seed(7);
    let state: GeneratorState = default_generator().unwrap().state();
    assert_eq!(Generator::from_state(state).seed(), 7);
    assert_eq!(
        loss::mse_loss(&y, &y, Reduction::Sum)
            .unwrap()
            .item::<f64>()
            .unwrap(),
        0.0
    );
    // A module and a function of one name.
    init::zeros(&y).unwrap();
    assert!(init().unwrap().threads >= 1);
    assert_eq!(waiting(|| 1), 1);
    let z = no_grad(|| functional::dropout(&y, 0.5, Mode::Eval, &Generator::new(1))).unwrap();
    assert_eq!(z.to_vec::<f64>().unwrap(), [0.0, 0.0]);
}
