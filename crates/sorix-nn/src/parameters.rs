//! The parameters of a module, all at once.

use std::collections::BTreeMap;

use sorix_core::Tensor;
use sorix_core::autograd::no_grad;

use crate::error::{Error, Result};
use crate::init::check_writable;
use crate::module::Module;

/// Freezes all parameters of a module: operations take them for constants, on every thread, so that a
/// service records no graph whoever calls the model, and without `no_grad` in each task. A part of a model
/// is frozen in the same way, before an optimiser is given the rest.
///
/// The modules stay as they are, and so does what loads into them or copies from them.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, Linear, Module, freeze, unfreeze};
///
/// let linear = Linear::new(2, 3, &Generator::new(1))?;
/// freeze(&linear);
/// let x = Tensor::ones([1, 2], DType::F32)?;
/// let y = std::thread::scope(|scope| scope.spawn(|| linear.forward(&x)).join().unwrap())?;
/// assert!(!y.needs_grad());
/// unfreeze(&linear);
/// assert!(linear.forward(&x)?.needs_grad());
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn freeze(module: &dyn Module) {
    module.parameters().iter().for_each(Tensor::freeze);
}

/// Ends what [`freeze`] began.
pub fn unfreeze(module: &dyn Module) {
    module.parameters().iter().for_each(Tensor::unfreeze);
}

/// Keeps the gradients of all parameters of f16 and bf16 of a module in f32, by
/// [`Tensor::set_grad_dtype`]; those that are there are forgotten. With an optimiser that keeps
/// [master weights](crate::Sgd::master_weights) a training rounds nothing to 16 bits but what goes forward
/// and back between layers.
///
/// # Errors
///
/// If a parameter is not a leaf that requires a gradient.
///
/// ```
/// use sorix_core::{DType, Tensor};
/// use sorix_nn::{Generator, Linear, Module, widen_gradients};
///
/// let linear = Linear::with_dtype(2, 3, DType::BF16, &Generator::new(1))?;
/// widen_gradients(&linear)?;
/// linear.forward(&Tensor::ones([1, 2], DType::BF16)?)?.sum()?.backward()?;
/// assert_eq!(linear.weight().grad().unwrap().dtype(), DType::F32);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn widen_gradients(module: &dyn Module) -> Result<()> {
    for parameter in module.parameters() {
        parameter.set_grad_dtype(parameter.dtype().arithmetic())?;
    }
    Ok(())
}

/// The module once more, with parameters of its own: the same numbers in other memory, tied and frozen as
/// they are, and without gradients. PyTorch's `copy.deepcopy`.
///
/// The copy takes its keys from the same generators, as a clone does, so the two draw different masks;
/// [`Module::fork_generators`] gives it others. Fields with `#[module(skip)]` are as their `Clone` makes
/// them.
///
/// # Errors
///
/// If allocation fails. If the module, or one below it, cannot be cloned: its struct has `#[derive(Module)]`
/// and is not `Clone`, or is generic; or it implements [`Visit`](crate::visit::Visit) by hand without
/// [`boxed_clone`](crate::visit::Visit::boxed_clone) and
/// [`visit_own_parameters_mut`](crate::visit::Visit::visit_own_parameters_mut).
///
/// ```
/// use std::sync::Arc;
/// use sorix_core::autograd::no_grad;
/// use sorix_core::{DType, Tensor, tensor};
/// use sorix_nn::{Dropout, Generator, Linear, Module, Sequential, deep_copy};
///
/// let net = Sequential::new()
///     .with(Linear::from_tensors(tensor([[2.0]]), None)?)
///     .with(Dropout::new(0.5)?);
/// let mut copy = deep_copy(&net)?;
/// copy.eval();
/// let served: Arc<dyn Module> = copy.into();
/// // What training does does not reach it.
/// no_grad(|| net.parameters()[0].assign(&tensor([[7.0]])))?;
/// assert_eq!(served.forward(&tensor([3.0]))?.item::<f64>()?, 6.0);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
pub fn deep_copy(module: &dyn Module) -> Result<Box<dyn Module>> {
    let Some(mut copy) = module.boxed_clone() else {
        return Err(Error::NoCopy {
            module: without_clone("", module),
            reason: "it is not `Clone`, or its `Visit` does not show a clone",
        });
    };
    no_grad(|| replace_parameters("", &mut *copy, &mut Vec::new()))?;
    Ok(copy)
}

/// The path of the first module that has no clone, of those below one that has none.
fn without_clone(path: &str, module: &dyn Module) -> String {
    let mut found = None;
    module.visit_children(&mut |name, child| {
        if found.is_none() && child.boxed_clone().is_none() {
            let below = if path.is_empty() { "" } else { "." };
            found = Some(without_clone(&format!("{path}{below}{name}"), child));
        }
    });
    found.unwrap_or_else(|| match path {
        "" => "the module".to_owned(),
        path => format!("module {path:?}"),
    })
}

/// Gives a module copies of its parameters; of those that are one tensor, one. `known` are the parameters
/// that were met, and their copies.
fn replace_parameters(
    path: &str,
    module: &mut dyn Module,
    known: &mut Vec<(Tensor, Tensor)>,
) -> Result<()> {
    let (mut shown, mut replaced, mut outcome) = (Vec::new(), Vec::new(), Ok(()));
    module.visit_own_parameters(&mut |name, _| shown.push(name.to_owned()));
    module.visit_own_parameters_mut(&mut |name, parameter| {
        replaced.push(name.to_owned());
        if let Some((_, copy)) = known.iter().find(|(own, _)| own.is_same(parameter)) {
            *parameter = copy.clone();
            return;
        }
        match copied(parameter) {
            Ok(copy) => {
                known.push((parameter.clone(), copy.clone()));
                *parameter = copy;
            }
            Err(error) => outcome = Err(error),
        }
    });
    outcome?;
    if shown != replaced {
        return Err(Error::NoCopy {
            module: match path {
                "" => "the module".to_owned(),
                path => format!("module {path:?}"),
            },
            reason: "`visit_own_parameters_mut` does not show what `visit_own_parameters` does",
        });
    }
    let mut outcome = Ok(());
    module.visit_children_mut(&mut |name, child| {
        if outcome.is_ok() {
            let below = if path.is_empty() { "" } else { "." };
            outcome = replace_parameters(&format!("{path}{below}{name}"), child, known);
        }
    });
    outcome
}

/// A leaf or a constant as the parameter is.
fn copied(parameter: &Tensor) -> Result<Tensor> {
    let constant = parameter.detach();
    let copy = constant.copy()?;
    if constant.is_same(parameter) {
        return Ok(copy);
    }
    let copy = copy.requires_grad(true);
    copy.set_grad_dtype(parameter.grad_dtype())?;
    if !parameter.needs_grad() {
        copy.freeze();
    }
    Ok(copy)
}

/// Sets the parameters of one module to those of another, by their names. For a second module like the
/// first see [`deep_copy`].
///
/// ```
/// use sorix_nn::{Generator, Linear, copy_parameters};
///
/// let trained = Linear::new(2, 3, &Generator::new(1))?;
/// let served = Linear::new(2, 3, &Generator::new(2))?;
/// copy_parameters(&trained, &served)?;
/// assert_eq!(served.weight().to_vec::<f32>()?, trained.weight().to_vec::<f32>()?);
/// assert!(!served.weight().same_storage(trained.weight()));
/// # Ok::<(), sorix_nn::Error>(())
/// ```
///
/// # Errors
///
/// If the two have not the same names with the same shapes and dtypes, each once: nothing has changed
/// then. If memory is allocated for a parameter that another thread holds as it was, and that fails: those
/// before it are copied.
pub fn copy_parameters(from: &dyn Module, to: &dyn Module) -> Result<()> {
    let [sources, targets] = [from.named_parameters(), to.named_parameters()];
    let by_name: BTreeMap<&str, &Tensor> = sources.iter().map(|(name, x)| (&**name, x)).collect();
    let different = |name: &str, expected: &str| Error::OtherParameters {
        op: "copy_parameters",
        name: name.to_owned(),
        expected: expected.to_owned(),
    };
    let mut pairs = BTreeMap::new();
    for (name, target) in &targets {
        let source = by_name.get(&**name);
        let source = source.ok_or_else(|| different(name, "to be in both modules"))?;
        if source.shape() != target.shape() || source.dtype() != target.dtype() {
            let (dtype, shape) = (target.dtype(), target.shape());
            return Err(different(
                name,
                &format!("to be {dtype} of shape {shape:?}"),
            ));
        }
        check_writable("copy_parameters", target)?;
        if pairs.insert(&**name, (*source, target)).is_some() {
            return Err(different(name, "once"));
        }
    }
    if let Some((name, _)) = sources
        .iter()
        .find(|(name, _)| !pairs.contains_key(&**name))
    {
        return Err(different(name, "to be in both modules"));
    }
    if pairs.len() != sources.len() {
        return Err(different(&sources[0].0, "and each other name once"));
    }
    // Parameters of both that are one tensor, as they are now and not as half of this left them.
    let snapshots = pairs
        .into_values()
        .map(|(source, target)| (source.snapshot(), target));
    let snapshots: Vec<_> = snapshots.collect();
    no_grad(|| {
        let mut all = snapshots.iter();
        all.try_for_each(|(source, target)| target.assign(source))
    })?;
    Ok(())
}
