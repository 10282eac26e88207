//! [`Module`]: what a layer is.

use core::fmt::Debug;
use std::sync::Arc;

use sorix_core::{DropRate, Tensor};
pub use sorix_derive::Module;

use crate::dropout::Shard;
use crate::error::Result;
use crate::generator::Generator;
use crate::mode::Mode;
use crate::visit::Visit;

/// A layer, or a network of layers.
///
/// [`forward`](Module::forward) takes `&self` and a module is `Send + Sync`, so that one may serve
/// several threads at once.
///
/// A module of your own is a struct with `#[derive(Module)]` and a `forward`:
///
/// ```
/// use sorix_core::{Tensor, tensor};
/// use sorix_nn::{Dropout, Linear, Mode, Module, Result};
///
/// /// `dropout(scale * x)`, and then the layers.
/// #[derive(Debug, Module)]
/// struct Net {
///     #[module(parameter)]
///     scale: Tensor,
///     dropout: Dropout,
///     layers: Vec<Linear>,
/// }
///
/// impl Module for Net {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         let x = self.dropout.forward(&x.mul(&self.scale)?)?;
///         self.layers.iter().try_fold(x, |x, layer| layer.forward(&x))
///     }
/// }
///
/// let layer = |weight| Linear::from_tensors(tensor([[weight]]), None);
/// let mut net = Net {
///     scale: tensor([3.0]).requires_grad(true),
///     dropout: Dropout::new(0.5)?,
///     layers: vec![layer(10.0)?, layer(2.0)?],
/// };
/// assert_eq!(net.mode(), Some(Mode::Train));
/// net.eval();
/// assert_eq!(net.dropout.mode(), Some(Mode::Eval));
/// assert_eq!(net.forward(&tensor([[1.0]]))?.item::<f64>()?, 60.0);
/// let names: Vec<_> = net.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["scale", "layers.0.weight", "layers.1.weight"]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
///
/// # Derive
///
/// The derive implements [`Visit`], which says what a module consists of; `Module` needs it, so a
/// module whose children are not shown does not compile. A field under its name, which is also that
/// in checkpoints, is
///
/// * a child, if its type is a module;
/// * a generator, if it is an `Arc<Generator>`;
/// * several of these, if it is an `Option`, a `Vec`, an array or a tuple: `"layers.0"`, `"layers.1"`;
/// * nothing, if it is a number, a `bool`, a `char`, a string or `PhantomData`.
///
/// A field of any other type has to say what it is:
///
/// * `#[module(parameter)]`: a `Tensor`, `Option<Tensor>` or `Vec<Tensor>` for an optimiser to change;
/// * `#[module(skip)]`: nothing to the module. A module that is skipped keeps its mode.
/// * `#[module(rename = "…")]`: another name, for instance that in an old checkpoint.
///
/// `#[module(crate = path)]` on the struct says where sorix-nn is, for crates that depend on it under
/// another name.
///
/// ```compile_fail
/// use sorix_core::Tensor;
/// use sorix_nn::Module;
///
/// #[derive(Debug, Module)]
/// struct Net {
///     weight: Tensor, // a parameter, or `#[module(skip)]`?
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module",
    note = "a module is a struct with `#[derive(Module)]` and an `impl Module` with its `forward`"
)]
pub trait Module: Visit + Debug + Send + Sync {
    /// What the module makes of `x`.
    ///
    /// # Errors
    ///
    /// Those of the operations it consists of.
    fn forward(&self, x: &Tensor) -> Result<Tensor>;

    /// [`forward`](Module::forward) of this worker's part of a tensor: each dropout on the way drops from its
    /// part what a single machine would drop there from the whole tensor.
    ///
    /// If the layers of all workers take their keys from generators of one state, the outputs and the
    /// gradients of the parts joined are those of the whole, bit for bit as far as dropout goes. Each worker
    /// makes its own part of each mask alone, in whole tiles. It works through [`Sequential`](crate::Sequential)
    /// and modules of your own, as long as the axis that is cut stays at its place: a dropout takes its input
    /// for the same range of that axis. Dropout of weights is the same for all workers.
    ///
    /// # Errors
    ///
    /// If `x` does not have the shape of the part. If a dropout on the way gets a tensor that is not as long
    /// along the cut axis, or [cannot](crate::dropout::Form::is_local) work on parts, or if its form does not
    /// fit; it takes no key then. If a layer of this crate needs all of the cut axis, as a
    /// [`Linear`](crate::Linear) does of the last one; what a module of your own does by the methods of
    /// tensors is not checked. Those of `forward`.
    ///
    /// ```
    /// use sorix_core::{DType, MaskKey, Tensor};
    /// use sorix_nn::{Dropout, Generator, Linear, Module, ReLU, Sequential, Shard};
    ///
    /// let net = || -> sorix_nn::Result<_> {
    ///     let mut net = Sequential::new()
    ///         .with(Dropout::new(0.5)?)
    ///         .with(Linear::new(8, 4, &Generator::new(1))?)
    ///         .with(ReLU)
    ///         .with(Dropout::new(0.5)?);
    ///     net.fork_generators(&Generator::new(42));
    ///     Ok(net)
    /// };
    /// let x = Tensor::ones([6, 8], DType::F32)?;
    /// let whole = net()?.forward(&x)?;
    ///
    /// // The second of two workers has rows 3 to 5.
    /// let shard = Shard::new([6, 8], 0, 3..6)?;
    /// let part = net()?.forward_sharded(&x.slice(0, 3..6)?, &shard)?;
    /// let expected = whole.slice(0, 3..6)?;
    /// assert!(part.sub(&expected)?.abs()?.max()?.item::<f32>()? < 1e-6);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    fn forward_sharded(&self, x: &Tensor, shard: &Shard) -> Result<Tensor> {
        shard.check(x)?;
        shard.within(|| self.forward(x))
    }

    /// The mode that [`forward`](Module::forward) runs in; `None` for a module that does the same
    /// in both. Modules made of others train while one of them does.
    fn mode(&self) -> Option<Mode> {
        let mut mode = None;
        self.visit_children(&mut |_, child| {
            mode = match (mode, child.mode()) {
                (Some(Mode::Train), _) | (_, Some(Mode::Train)) => Some(Mode::Train),
                (mode, child) => mode.or(child),
            };
        });
        mode
    }

    /// Puts the module and all below it into a mode. A module that does not do the same in both
    /// overrides this, and not [`train`](Module::train) and [`eval`](Module::eval), to keep the mode,
    /// and passes it on to its children if it has any: a module above calls this alone.
    ///
    /// # Panics
    ///
    /// If [`visit_children`](Visit::visit_children) and
    /// [`visit_children_mut`](Visit::visit_children_mut) do not show the same names: a child that
    /// one of them forgets would train on after `eval`.
    fn set_mode(&mut self, mode: Mode) {
        change_children(self, |child| child.set_mode(mode));
    }

    /// Puts the module and all below it into training, by [`set_mode`](Module::set_mode).
    fn train(&mut self) {
        self.set_mode(Mode::Train);
    }

    /// Puts the module and all below it into use, by [`set_mode`](Module::set_mode).
    fn eval(&mut self) {
        self.set_mode(Mode::Eval);
    }

    /// The drop probability of the module itself, not of its children; `None` for one that does not
    /// drop.
    fn drop_rate(&self) -> Option<DropRate> {
        None
    }

    /// Gives this drop probability to the module and to all below it that have one; for instance that
    /// of a [`Schedule`](crate::Schedule). A module that drops overrides this. For one layer and a
    /// number there is [`set_p`](crate::dropout::DropoutLayer::set_p).
    ///
    /// # Panics
    ///
    /// As [`set_mode`](Module::set_mode).
    ///
    /// ```
    /// use sorix_core::DropRate;
    /// use sorix_nn::{Dropout, Module, Sequential};
    /// let mut net = Sequential::new().with(Dropout::new(0.1)?).with(Dropout::new(0.2)?);
    /// net.set_drop_rate(DropRate::new(0.3)?);
    /// assert_eq!(net.named_drop_rates(), [0, 1].map(|i| (i.to_string(), DropRate::new(0.3).unwrap())));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    fn set_drop_rate(&mut self, rate: DropRate) {
        change_children(self, |child| child.set_drop_rate(rate));
    }

    /// Gives the module, and each below it that draws, a generator of its own: the fork of `generator`
    /// by each name on the way in turn, that of the generator last. So no two layers draw the same
    /// masks, and what a layer draws depends on the seed and on its place alone.
    ///
    /// # Panics
    ///
    /// As [`set_mode`](Module::set_mode).
    ///
    /// ```
    /// use sorix_nn::{Dropout, Generator, Module, Sequential};
    ///
    /// let mut net = Sequential::new().with(Dropout::new(0.5)?).with(Dropout::new(0.5)?);
    /// let generator = Generator::new(42);
    /// net.fork_generators(&generator);
    /// let (name, second) = &net.named_generators()[1];
    /// assert_eq!(name, "1.generator");
    /// assert_eq!(second.seed(), generator.fork("1").fork("generator").seed());
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    fn fork_generators(&mut self, generator: &Generator) {
        self.fork_own_generators(generator);
        change_named_children(self, |name, child| {
            child.fork_generators(&generator.fork_path(name));
        });
    }

    /// The drop probabilities, here and in all modules below, by the names of the modules on the
    /// way joined by dots; that of this module itself has an empty name.
    fn named_drop_rates(&self) -> Vec<(String, DropRate)> {
        let mut rates: Vec<_> = self
            .drop_rate()
            .map(|rate| (String::new(), rate))
            .into_iter()
            .collect();
        self.visit_children(&mut |child_name, child| {
            let below = child.named_drop_rates().into_iter();
            rates.extend(below.map(|(name, rate)| {
                let separator = if name.is_empty() { "" } else { "." };
                (format!("{child_name}{separator}{name}"), rate)
            }));
        });
        rates
    }

    /// The tensors, here and in all modules below, for an optimiser to change.
    fn parameters(&self) -> Vec<Tensor> {
        self.named_parameters()
            .into_iter()
            .map(|(_, parameter)| parameter)
            .collect()
    }

    /// The same with their names: the names of the modules on the way and that of the tensor,
    /// joined by dots.
    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        let mut parameters = Vec::new();
        self.visit_own_parameters(&mut |name, parameter| {
            parameters.push((name.to_owned(), parameter.clone()));
        });
        self.visit_children(&mut |child_name, child| {
            let below = child.named_parameters().into_iter();
            parameters
                .extend(below.map(|(name, parameter)| (format!("{child_name}.{name}"), parameter)));
        });
        parameters
    }

    /// The generators, here and in all modules below, by names made in the same way. One that
    /// several modules share appears once for each.
    ///
    /// ```
    /// use sorix_nn::{Dropout, Generator, Module, Sequential};
    ///
    /// let net = Sequential::new()
    ///     .with(Dropout::new(0.5)?) // the generator of the process
    ///     .with(Dropout::new(0.5)?.generator(Generator::new(42)));
    /// let generators = net.named_generators();
    /// assert_eq!(generators.len(), 1);
    /// assert_eq!((&*generators[0].0, generators[0].1.seed()), ("1.generator", 42));
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    fn named_generators(&self) -> Vec<(String, Arc<Generator>)> {
        let mut generators = Vec::new();
        self.visit_own_generators(&mut |name, generator| {
            generators.push((name.to_owned(), Arc::clone(generator)));
        });
        self.visit_children(&mut |child_name, child| {
            let below = child.named_generators().into_iter();
            generators
                .extend(below.map(|(name, generator)| (format!("{child_name}.{name}"), generator)));
        });
        generators
    }
}

/// Changes each child by `change`.
fn change_children<M: Module + ?Sized>(module: &mut M, change: impl Fn(&mut dyn Module)) {
    change_named_children(module, |_, child| change(child));
}

/// Changes each child, whose name here is given too, by `change`.
fn change_named_children<M: Module + ?Sized>(
    module: &mut M,
    change: impl Fn(&str, &mut dyn Module),
) {
    let (mut shown, mut changed) = (Vec::new(), Vec::new());
    module.visit_children(&mut |name, _| shown.push(name.to_owned()));
    module.visit_children_mut(&mut |name, child| {
        changed.push(name.to_owned());
        change(name, child);
    });
    assert!(
        shown == changed,
        "visit_children shows {shown:?} and visit_children_mut {changed:?} of {module:?}"
    );
}

/// A boxed module is that module.
impl<M: Visit + ?Sized> Visit for Box<M> {
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        (**self).visit_own_parameters(visit);
    }

    fn visit_own_parameters_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        (**self).visit_own_parameters_mut(visit);
    }

    fn boxed_clone(&self) -> Option<Box<dyn Module>> {
        (**self).boxed_clone()
    }

    fn visit_own_generators(&self, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        (**self).visit_own_generators(visit);
    }

    fn visit_children(&self, visit: &mut dyn FnMut(&str, &dyn Module)) {
        (**self).visit_children(visit);
    }

    fn visit_children_mut(&mut self, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        (**self).visit_children_mut(visit);
    }

    fn fork_own_generators(&mut self, generator: &Generator) {
        (**self).fork_own_generators(generator);
    }
}

/// A boxed module is that module.
impl<M: Module + ?Sized> Module for Box<M> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        (**self).forward(x)
    }

    fn forward_sharded(&self, x: &Tensor, shard: &Shard) -> Result<Tensor> {
        (**self).forward_sharded(x, shard)
    }

    fn mode(&self) -> Option<Mode> {
        (**self).mode()
    }

    fn set_mode(&mut self, mode: Mode) {
        (**self).set_mode(mode);
    }

    fn train(&mut self) {
        (**self).train();
    }

    fn eval(&mut self) {
        (**self).eval();
    }

    fn drop_rate(&self) -> Option<DropRate> {
        (**self).drop_rate()
    }

    fn set_drop_rate(&mut self, rate: DropRate) {
        (**self).set_drop_rate(rate);
    }

    fn fork_generators(&mut self, generator: &Generator) {
        (**self).fork_generators(generator);
    }

    fn named_drop_rates(&self) -> Vec<(String, DropRate)> {
        (**self).named_drop_rates()
    }

    fn parameters(&self) -> Vec<Tensor> {
        (**self).parameters()
    }

    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        (**self).named_parameters()
    }

    fn named_generators(&self) -> Vec<(String, Arc<Generator>)> {
        (**self).named_generators()
    }
}
