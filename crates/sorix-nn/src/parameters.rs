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

/// Sets the parameters of one module to those of another, by their names: a deep copy of a model is one
/// that is made anew and copied into.
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
