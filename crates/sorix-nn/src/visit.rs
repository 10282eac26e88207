//! What a module consists of: [`Visit`], which [`#[derive(Module)]`](derive@crate::Module) writes, and
//! what it asks of the [fields](Field) of a struct.

use core::marker::PhantomData;
use std::sync::Arc;

/// For what the derive macro writes.
#[doc(hidden)]
pub use sorix_core::Tensor;

use crate::generator::Generator;
use crate::module::Module;

/// Shows the parameters, the generators and the children of a module.
///
/// What concerns a whole tree of modules works by it: [`eval`](Module::eval),
/// [`parameters`](Module::parameters), checkpoints. Write `#[derive(Module)]` and not an
/// implementation, if the struct is one whose fields say it all; a child that an implementation
/// forgets keeps its mode, is not trained and not saved.
///
/// By hand, for a module that keeps its children in a map:
///
/// ```
/// use std::collections::BTreeMap;
/// use sorix_core::{Tensor, tensor};
/// use sorix_nn::visit::Visit;
/// use sorix_nn::{Generator, Linear, Module, Result};
///
/// /// The sum of what all of them make of the input.
/// #[derive(Debug)]
/// struct Heads(BTreeMap<String, Linear>);
///
/// impl Visit for Heads {
///     fn visit_children(&self, visit: &mut dyn FnMut(&str, &dyn Module)) {
///         self.0.iter().for_each(|(name, head)| visit(name, head));
///     }
///
///     fn visit_children_mut(&mut self, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
///         self.0.iter_mut().for_each(|(name, head)| visit(name, head));
///     }
/// }
///
/// impl Module for Heads {
///     fn forward(&self, x: &Tensor) -> Result<Tensor> {
///         let mut sum = Tensor::zeros([1], x.dtype())?;
///         for head in self.0.values() {
///             sum = sum.add(&head.forward(x)?)?;
///         }
///         Ok(sum)
///     }
/// }
///
/// let head = || Linear::from_tensors(tensor([[2.0]]), None);
/// let heads = ["left", "right"].map(|name| (name.to_owned(), head().unwrap()));
/// let heads = Heads(heads.into_iter().collect());
/// assert_eq!(heads.forward(&tensor([3.0]))?.item::<f64>()?, 12.0);
/// let names: Vec<_> = heads.named_parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["left.weight", "right.weight"]);
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not show what it consists of",
    label = "its parameters and children are not known",
    note = "write `#[derive(Module)]` on it, or implement `sorix_nn::visit::Visit` by hand"
)]
pub trait Visit {
    /// Calls `visit` with the name of each tensor that the module itself, not one of its children,
    /// has for an optimiser to change. By default there are none.
    fn visit_own_parameters(&self, visit: &mut dyn FnMut(&str, &Tensor)) {
        let _ = visit;
    }

    /// Calls `visit` with the name of each generator that the module itself, not one of its children,
    /// takes keys from: what a checkpoint has to keep beside the parameters. By default there are
    /// none; the [one of the process](crate::default_generator) belongs to no module.
    fn visit_own_generators(&self, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        let _ = visit;
    }

    /// Calls `visit` with each module this one consists of, under the name it has here. By default
    /// there are none.
    fn visit_children(&self, visit: &mut dyn FnMut(&str, &dyn Module)) {
        let _ = visit;
    }

    /// The same children as [`visit_children`](Visit::visit_children), under the same names in the
    /// same order, to be changed.
    fn visit_children_mut(&mut self, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        let _ = visit;
    }

    /// The same parameters as [`visit_own_parameters`](Visit::visit_own_parameters), under the same names in
    /// the same order, to be replaced: for [`deep_copy`](crate::deep_copy). A module that shows parameters has
    /// this, too. By default there are none.
    fn visit_own_parameters_mut(&mut self, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        let _ = visit;
    }

    /// A clone, which shares the parameters, for [`deep_copy`](crate::deep_copy); `None` for a module that
    /// has none. The derive macro returns one if the struct is `Clone` and not generic. By default there is
    /// none.
    fn boxed_clone(&self) -> Option<Box<dyn Module>> {
        None
    }

    /// Replaces each generator of the module itself by the [fork](Generator::fork) of `generator` by
    /// its name, for [`fork_generators`](Module::fork_generators). A module that shows generators
    /// has this, too. By default there are none.
    fn fork_own_generators(&mut self, generator: &Generator) {
        let _ = generator;
    }
}

/// What a field of a struct with `#[derive(Module)]` may be.
///
/// * A [`Module`] is a child under the name of the field.
/// * An `Arc<Generator>` is a generator of the module itself.
/// * `Option`, `Vec`, arrays and tuples show what is in them. The elements of a list and of
///   a tuple are numbered from 0: `"layers.0"`.
/// * Numbers, `bool`, `char`, strings and `PhantomData` show nothing.
///
/// Anything else, a [`Tensor`] among it, is an error that points at the field, which then has to say
/// what it is. There is no need to implement this.
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` has to say what it is to the module",
    label = "neither a module, a generator nor a plain number, nor a list of these",
    note = "a parameter: `#[module(parameter)]`, for `Tensor`, `Option<Tensor>` or `Vec<Tensor>`",
    note = "a module: derive or implement `Module` for the type",
    note = "anything else: `#[module(skip)]`"
)]
pub trait Field {
    /// The generators, under `name`.
    fn visit_generators(&self, name: &str, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        let _ = (name, visit);
    }

    /// The children, under `name`.
    fn visit_children(&self, name: &str, visit: &mut dyn FnMut(&str, &dyn Module)) {
        let _ = (name, visit);
    }

    /// The same, to be changed.
    fn visit_children_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        let _ = (name, visit);
    }

    /// Replaces the generators by forks of `generator`.
    fn fork_generators(&mut self, name: &str, generator: &Generator) {
        let _ = (name, generator);
    }
}

impl<M: Module> Field for M {
    fn visit_children(&self, name: &str, visit: &mut dyn FnMut(&str, &dyn Module)) {
        visit(name, self);
    }

    fn visit_children_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        visit(name, self);
    }
}

impl Field for Arc<Generator> {
    fn visit_generators(&self, name: &str, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        visit(name, self);
    }

    fn fork_generators(&mut self, name: &str, generator: &Generator) {
        *self = Arc::new(generator.fork_path(name));
    }
}

impl<F: Field> Field for Option<F> {
    fn visit_generators(&self, name: &str, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        if let Some(field) = self {
            field.visit_generators(name, visit);
        }
    }

    fn visit_children(&self, name: &str, visit: &mut dyn FnMut(&str, &dyn Module)) {
        if let Some(field) = self {
            field.visit_children(name, visit);
        }
    }

    fn visit_children_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        if let Some(field) = self {
            field.visit_children_mut(name, visit);
        }
    }

    fn fork_generators(&mut self, name: &str, generator: &Generator) {
        if let Some(field) = self {
            field.fork_generators(name, generator);
        }
    }
}

/// The name of element `i` of the field `name`.
fn element(name: &str, i: usize) -> String {
    format!("{name}.{i}")
}

impl<F: Field> Field for [F] {
    fn visit_generators(&self, name: &str, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
        for (i, field) in self.iter().enumerate() {
            field.visit_generators(&element(name, i), visit);
        }
    }

    fn visit_children(&self, name: &str, visit: &mut dyn FnMut(&str, &dyn Module)) {
        for (i, field) in self.iter().enumerate() {
            field.visit_children(&element(name, i), visit);
        }
    }

    fn visit_children_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut dyn Module)) {
        for (i, field) in self.iter_mut().enumerate() {
            field.visit_children_mut(&element(name, i), visit);
        }
    }

    fn fork_generators(&mut self, name: &str, generator: &Generator) {
        for (i, field) in self.iter_mut().enumerate() {
            field.fork_generators(&element(name, i), generator);
        }
    }
}

macro_rules! lists {
    ($([$($parameters:tt)*] $list:ty;)*) => {$(
        impl<$($parameters)*> Field for $list {
            fn visit_generators(&self, name: &str, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
                self[..].visit_generators(name, visit);
            }

            fn visit_children(&self, name: &str, visit: &mut dyn FnMut(&str, &dyn Module)) {
                self[..].visit_children(name, visit);
            }

            fn visit_children_mut(
                &mut self,
                name: &str,
                visit: &mut dyn FnMut(&str, &mut dyn Module),
            ) {
                self[..].visit_children_mut(name, visit);
            }

            fn fork_generators(&mut self, name: &str, generator: &Generator) {
                self[..].fork_generators(name, generator);
            }
        }
    )*};
}

lists! {
    [F: Field] Vec<F>;
    [F: Field, const N: usize] [F; N];
}

macro_rules! tuples {
    ($($($field:ident $i:tt)+;)*) => {$(
        impl<$($field: Field),+> Field for ($($field,)+) {
            fn visit_generators(&self, name: &str, visit: &mut dyn FnMut(&str, &Arc<Generator>)) {
                $(self.$i.visit_generators(&element(name, $i), visit);)+
            }

            fn visit_children(&self, name: &str, visit: &mut dyn FnMut(&str, &dyn Module)) {
                $(self.$i.visit_children(&element(name, $i), visit);)+
            }

            fn visit_children_mut(
                &mut self,
                name: &str,
                visit: &mut dyn FnMut(&str, &mut dyn Module),
            ) {
                $(self.$i.visit_children_mut(&element(name, $i), visit);)+
            }

            fn fork_generators(&mut self, name: &str, generator: &Generator) {
                $(self.$i.fork_generators(&element(name, $i), generator);)+
            }
        }
    )*};
}

tuples! {
    A 0;
    A 0 B 1;
    A 0 B 1 C 2;
    A 0 B 1 C 2 D 3;
    A 0 B 1 C 2 D 3 E 4;
    A 0 B 1 C 2 D 3 E 4 F 5;
}

macro_rules! plain {
    ($($ty:ty)*) => {$(
        impl Field for $ty {}
    )*};
}

plain! {
    u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char String &'static str
}

impl<T: ?Sized> Field for PhantomData<T> {}

/// What a field with `#[module(parameter)]` may be: a tensor, or an `Option`, a `Vec` or an array of
/// them, whose elements are numbered from 0. There is no need to implement this.
#[diagnostic::on_unimplemented(
    message = "a field of type `{Self}` cannot be a parameter",
    label = "expected `Tensor`, `Option<Tensor>`, `Vec<Tensor>` or `[Tensor; N]`"
)]
pub trait Parameter {
    /// The tensors, under `name`.
    fn visit_parameters(&self, name: &str, visit: &mut dyn FnMut(&str, &Tensor));

    /// The same, to be replaced.
    fn visit_parameters_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut Tensor));
}

impl Parameter for Tensor {
    fn visit_parameters(&self, name: &str, visit: &mut dyn FnMut(&str, &Tensor)) {
        visit(name, self);
    }

    fn visit_parameters_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        visit(name, self);
    }
}

impl<P: Parameter> Parameter for Option<P> {
    fn visit_parameters(&self, name: &str, visit: &mut dyn FnMut(&str, &Tensor)) {
        if let Some(parameter) = self {
            parameter.visit_parameters(name, visit);
        }
    }

    fn visit_parameters_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        if let Some(parameter) = self {
            parameter.visit_parameters_mut(name, visit);
        }
    }
}

impl<P: Parameter> Parameter for [P] {
    fn visit_parameters(&self, name: &str, visit: &mut dyn FnMut(&str, &Tensor)) {
        for (i, parameter) in self.iter().enumerate() {
            parameter.visit_parameters(&element(name, i), visit);
        }
    }

    fn visit_parameters_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        for (i, parameter) in self.iter_mut().enumerate() {
            parameter.visit_parameters_mut(&element(name, i), visit);
        }
    }
}

impl<P: Parameter> Parameter for Vec<P> {
    fn visit_parameters(&self, name: &str, visit: &mut dyn FnMut(&str, &Tensor)) {
        self[..].visit_parameters(name, visit);
    }

    fn visit_parameters_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        self[..].visit_parameters_mut(name, visit);
    }
}

impl<P: Parameter, const N: usize> Parameter for [P; N] {
    fn visit_parameters(&self, name: &str, visit: &mut dyn FnMut(&str, &Tensor)) {
        self[..].visit_parameters(name, visit);
    }

    fn visit_parameters_mut(&mut self, name: &str, visit: &mut dyn FnMut(&str, &mut Tensor)) {
        self[..].visit_parameters_mut(name, visit);
    }
}

/// For what the derive macro writes: whether a type is `Clone`, asked of the method that is found first.
#[doc(hidden)]
pub mod cloning {
    use crate::module::Module;

    #[derive(Debug)]
    pub struct Of<'a, T>(pub &'a T);

    pub trait IsClone {
        fn boxed_clone(&self) -> Option<Box<dyn Module>>;
    }

    impl<T: Module + Clone + 'static> IsClone for Of<'_, T> {
        fn boxed_clone(&self) -> Option<Box<dyn Module>> {
            Some(Box::new(self.0.clone()))
        }
    }

    pub trait IsNotClone {
        fn boxed_clone(&self) -> Option<Box<dyn Module>>;
    }

    impl<T> IsNotClone for &Of<'_, T> {
        fn boxed_clone(&self) -> Option<Box<dyn Module>> {
            None
        }
    }
}
