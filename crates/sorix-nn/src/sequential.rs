//! [`Sequential`]: one module after another.

use std::sync::Arc;

use sorix_core::Tensor;

use crate::error::Result;
use crate::generator::Generator;
use crate::module::Module;
use crate::visit::Visit;

/// Modules in a row: each takes the output of the one before. Without any it is the identity.
///
/// Children are named by their position: `"0"`, `"1"`, and so on.
///
/// # Generators of one seed
///
/// Two generators of one seed give the same masks, which is hardly meant. If a module is added with a
/// generator of the seed of another one in here, it becomes the fork of itself that
/// [`fork_generators`](Module::fork_generators) would give the module. A generator that is
/// shared, in one [`Arc`], stays as it is.
///
/// ```
/// use sorix_nn::{Dropout, Generator, Module, Sequential};
///
/// let dropout = || Dropout::new(0.5).map(|dropout| dropout.generator(Generator::new(42)));
/// let net = Sequential::new().with(dropout()?).with(dropout()?);
/// let seeds: Vec<_> = net.named_generators().iter().map(|(_, it)| it.seed()).collect();
/// assert_eq!(seeds, [42, Generator::new(42).fork("1").fork("generator").seed()]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
///
/// # Example
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Dropout, Module, Sequential};
///
/// let mut net = Sequential::new().with(Dropout::new(0.1)?).with(Dropout::new(0.2)?);
/// net.eval();
/// assert_eq!(net.forward(&tensor([1.0, 2.0]))?.to_vec::<f64>()?, [1.0, 2.0]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Sequential {
    modules: Vec<Box<dyn Module>>,
}

impl Sequential {
    /// The identity, to add modules to.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With `module` at the end.
    #[must_use]
    pub fn with(mut self, module: impl Module + 'static) -> Self {
        self.push(module);
        self
    }

    /// Adds `module` at the end. It keeps the mode it is in, and its generators unless they have a
    /// [seed](Self#generators-of-one-seed) that is in use here.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Module, ReLU, Sequential, Sigmoid};
    ///
    /// let mut net = Sequential::new();
    /// assert!(net.is_empty());
    /// net.push(ReLU);
    /// net.push(Sigmoid);
    /// assert_eq!(net.len(), 2);
    /// assert_eq!(net.forward(&tensor([-3.0]))?.to_vec::<f64>()?, [0.5]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn push(&mut self, module: impl Module + 'static) {
        self.push_boxed(Box::new(module));
    }

    fn push_boxed(&mut self, module: Box<dyn Module>) {
        let position = self.modules.len();
        let mut before = self.named_generators();
        for (name, generator) in module.named_generators() {
            let same_masks = |(_, other): &(String, Arc<Generator>)| {
                other.seed() == generator.seed() && !Arc::ptr_eq(other, &generator)
            };
            if before.iter().any(same_masks) {
                let fork = generator.fork_path(&format!("{position}.{name}"));
                generator.set_state(fork.state());
            }
            before.push((name, generator));
        }
        self.modules.push(module);
    }

    /// The number of modules.
    #[must_use]
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether there are no modules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// The module at this position, from 0.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Module, ReLU, Sequential, Sigmoid};
    ///
    /// let net = Sequential::new().with(ReLU).with(Sigmoid);
    /// let sigmoid = net.get(1).unwrap();
    /// assert_eq!(sigmoid.forward(&tensor([0.0]))?.to_vec::<f64>()?, [0.5]);
    /// assert!(net.get(2).is_none());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn get(&self, position: usize) -> Option<&dyn Module> {
        self.modules.get(position).map(|module| &**module)
    }

    /// The modules in their order.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::{Module, ReLU, Sequential, Sigmoid};
    ///
    /// // The output of each.
    /// let net = Sequential::new().with(ReLU).with(Sigmoid);
    /// let (mut x, mut outputs) = (tensor([-3.0]), Vec::new());
    /// for module in net.iter() {
    ///     x = module.forward(&x)?;
    ///     outputs.push(x.item::<f64>()?);
    /// }
    /// assert_eq!(outputs, [0.0, 0.5]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &dyn Module> {
        self.modules.iter().map(|module| &**module)
    }
}

impl FromIterator<Box<dyn Module>> for Sequential {
    fn from_iter<I: IntoIterator<Item = Box<dyn Module>>>(modules: I) -> Self {
        let mut sequential = Self::new();
        for module in modules {
            sequential.push_boxed(module);
        }
        sequential
    }
}

impl Visit for Sequential {
    fn boxed_clone(&self) -> Option<Box<dyn Module>> {
        let modules = self.modules.iter().map(Visit::boxed_clone);
        let modules = modules.collect::<Option<_>>()?;
        Some(Box::new(Self { modules }))
    }

    fn visit_children(&self, visit: &mut dyn FnMut(&str, &dyn Module)) {
        for (i, module) in self.modules.iter().enumerate() {
            visit(&i.to_string(), module);
        }
    }

    fn visit_children_mut(&mut self, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        for (i, module) in self.modules.iter_mut().enumerate() {
            visit(&i.to_string(), module);
        }
    }
}

impl Module for Sequential {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.modules
            .iter()
            .try_fold(x.clone(), |x, module| module.forward(&x))
    }
}
