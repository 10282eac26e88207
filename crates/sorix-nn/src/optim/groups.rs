//! [`Groups`]: what every optimiser here is made of, groups of parameters with numbers of their own.

use core::fmt::Debug;

use sorix_core::Tensor;
use sorix_core::autograd::no_grad_guard;

use super::slots::{Slot, Slots};
use super::{Optimizer, OptimizerState, ParameterState};
use crate::error::{Error, Result};
use crate::hyperparameter::{in_order, non_negative};

/// The numbers of a group beside the learning rate, and what a step does with them.
pub(super) trait Numbers: Copy + Debug + Send + Sync + 'static {
    /// The optimiser, for errors.
    const OPTIMIZER: &'static str;

    /// The names of the numbers, after that of the learning rate.
    const NAMES: &'static [&'static str];

    /// The numbers, in the order of their names; a yes is 1, a no is 0.
    fn numbers(self) -> Vec<f64>;

    /// From as many numbers as there are names, if they are in range.
    fn from_numbers(numbers: &[f64]) -> Result<Self>;

    /// The names of what is kept for each parameter.
    fn kept(self) -> &'static [&'static str];

    /// Changes a parameter.
    fn update(self, learning_rate: f64, slot: &mut Slot, gradient: &Tensor) -> Result<()>;
}

#[derive(Clone, Copy, Debug)]
struct Group<N> {
    /// What the learning rate is multiplied with.
    scale: f64,
    numbers: N,
}

/// An optimiser, but for its builder.
#[derive(Debug)]
pub(super) struct Groups<N> {
    learning_rate: f64,
    /// At least one; the scale of the first is 1.
    groups: Vec<Group<N>>,
    slots: Slots,
}

impl<N: Numbers> Groups<N> {
    pub(super) fn new(
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        learning_rate: f64,
        numbers: N,
    ) -> Result<Self> {
        non_negative(N::OPTIMIZER, "learning rate", learning_rate)?;
        let mut slots = Slots::new(N::OPTIMIZER);
        slots.add(0, parameters)?;
        Ok(Self {
            learning_rate,
            groups: vec![Group {
                scale: 1.0,
                numbers,
            }],
            slots,
        })
    }

    /// Begins a group with the numbers of the one before.
    pub(super) fn begin(
        &mut self,
        parameters: impl IntoIterator<Item = (String, Tensor)>,
        scale: f64,
    ) -> Result<()> {
        non_negative(N::OPTIMIZER, SCALE, scale)?;
        self.slots.add(self.groups.len(), parameters)?;
        let numbers = self.last();
        self.groups.push(Group { scale, numbers });
        Ok(())
    }

    pub(super) fn keep_masters(&mut self) {
        self.slots.keep_masters();
    }

    /// The numbers of the last group.
    pub(super) fn last(&self) -> N {
        self.groups[self.groups.len() - 1].numbers
    }

    /// Sets those, if they are in range.
    pub(super) fn set_last(&mut self, numbers: N) -> Result<()> {
        let numbers = N::from_numbers(&numbers.numbers())?;
        let last = self.groups.len() - 1;
        self.slots.keep(last, numbers.kept().len())?;
        self.groups[last].numbers = numbers;
        Ok(())
    }

    /// The name of a hyperparameter of a group.
    fn name(group: usize, name: &str) -> String {
        match group {
            0 => name.to_owned(),
            _ => format!("groups.{group}.{name}"),
        }
    }

    fn hyperparameters(&self) -> Vec<(String, f64)> {
        let mut all = Vec::new();
        for (k, group) in self.groups.iter().enumerate() {
            let first = match k {
                0 => (LEARNING_RATE, self.learning_rate),
                _ => (SCALE_NAME, group.scale),
            };
            let names = N::NAMES.iter().copied().zip(group.numbers.numbers());
            let names = core::iter::once(first).chain(names);
            all.extend(names.map(|(name, number)| (Self::name(k, name), number)));
        }
        if self.slots.has_masters() {
            all.push((MASTERS.to_owned(), 1.0));
        }
        all
    }

    /// The learning rate and the groups that hyperparameters of these names say, if they are those of this
    /// optimiser and in range.
    fn read(&self, given: &[(String, f64)]) -> Result<(f64, Vec<Group<N>>)> {
        let names: Vec<String> = self.hyperparameters().into_iter().map(|it| it.0).collect();
        let numbers = in_order(N::OPTIMIZER, &names, given)?;
        let mut groups = Vec::new();
        let each = numbers.chunks_exact(1 + N::NAMES.len());
        for numbers in each.take(self.groups.len()) {
            let scale = if groups.is_empty() { 1.0 } else { numbers[0] };
            non_negative(N::OPTIMIZER, SCALE, scale)?;
            groups.push(Group {
                scale,
                numbers: N::from_numbers(&numbers[1..])?,
            });
        }
        non_negative(N::OPTIMIZER, "learning rate", numbers[0])?;
        if self.slots.has_masters() && numbers[numbers.len() - 1] != 1.0 {
            return Err(Error::Hyperparameter {
                op: N::OPTIMIZER,
                what: MASTERS,
                expected: "1",
                got: numbers[numbers.len() - 1],
            });
        }
        Ok((numbers[0], groups))
    }
}

const LEARNING_RATE: &str = "learning_rate";
/// The name of a group's share of the learning rate, in a checkpoint and in errors.
const SCALE_NAME: &str = "learning_rate_scale";
const SCALE: &str = "learning rate scale";
const MASTERS: &str = "master_weights";

impl<N: Numbers> Optimizer for Groups<N> {
    fn step(&mut self) -> Result<()> {
        let _guard = no_grad_guard();
        let groups = &self.groups;
        let due = self.slots.due(|group| groups[group].numbers.kept().len())?;
        for (at, gradient) in due {
            let slot = self.slots.slot(at);
            let Group { scale, numbers } = self.groups[slot.group];
            numbers.update(self.learning_rate * scale, slot, &gradient)?;
        }
        Ok(())
    }

    fn zero_grad(&self) {
        self.slots.zero_grad();
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        non_negative(N::OPTIMIZER, "learning rate", learning_rate)?;
        self.learning_rate = learning_rate;
        Ok(())
    }

    fn named_parameters(&self) -> Vec<(String, Tensor)> {
        self.slots.named_parameters()
    }

    fn state_names(&self, hyperparameters: &[(String, f64)]) -> Result<&'static [&'static str]> {
        Ok(self.read(hyperparameters)?.1[0].numbers.kept())
    }

    fn state_names_of(
        &self,
        parameter: &str,
        hyperparameters: &[(String, f64)],
    ) -> Result<Vec<&'static str>> {
        let (_, groups) = self.read(hyperparameters)?;
        let names = self
            .slots
            .names(parameter, |group| groups[group].numbers.kept());
        names.ok_or_else(|| Error::OptimizerState {
            optimizer: N::OPTIMIZER,
            parameter: parameter.to_owned(),
            reason: "there is no such parameter".to_owned(),
        })
    }

    fn state(&self) -> OptimizerState {
        OptimizerState {
            hyperparameters: self.hyperparameters(),
            parameters: self.parameters(),
        }
    }

    fn set_state(&mut self, state: OptimizerState) -> Result<()> {
        let (learning_rate, groups) = self.read(&state.hyperparameters)?;
        let kept = |group: usize| groups[group].numbers.kept();
        self.slots.set_state(kept, state.parameters)?;
        (self.learning_rate, self.groups) = (learning_rate, groups);
        Ok(())
    }
}

impl<N: Numbers> Groups<N> {
    fn parameters(&self) -> Vec<ParameterState> {
        self.slots.state(|group| self.groups[group].numbers.kept())
    }
}

/// The [`Optimizer`] of a type that has `groups`.
macro_rules! by_groups {
    ([$($parameters:tt)*] $optimizer:ty) => {
        impl $($parameters)* $optimizer {
            /// Begins a group of more parameters, whose learning rate is that of the optimiser times
            /// `learning_rate_scale`. The methods that choose other numbers choose those of the group that
            /// was begun last; it begins with the numbers of the one before. PyTorch's `add_param_group`.
            ///
            /// # Errors
            ///
            /// If the scale is negative or not finite; if there is no parameter, one was computed by an
            /// operation or is [expanded](Tensor::is_expanded), a name is there already, or a parameter
            /// is in another group.
            ///
            /// ```
            /// use sorix_nn::{AdamW, Generator, Linear, Module, Optimizer};
            ///
            /// // No decay of biases.
            /// let net = Linear::new(3, 2, &Generator::new(42))?;
            /// let (biases, weights): (Vec<_>, Vec<_>) =
            ///     net.named_parameters().into_iter().partition(|(name, _)| name.ends_with("bias"));
            /// let adamw = AdamW::new(weights, 1e-3)?
            ///     .weight_decay(0.1)?
            ///     .param_group(biases, 1.0)?
            ///     .weight_decay(0.0)?;
            /// let decays: Vec<_> = adamw.state().hyperparameters.into_iter()
            ///     .filter(|(name, _)| name.ends_with("weight_decay"))
            ///     .collect();
            /// let expected = [("decoupled_weight_decay", 0.1), ("groups.1.decoupled_weight_decay", 0.0)];
            /// assert_eq!(decays, expected.map(|(name, decay)| (name.to_owned(), decay)));
            /// # Ok::<(), sorix_nn::Error>(())
            /// ```
            pub fn param_group(
                mut self,
                parameters: impl IntoIterator<Item = (String, Tensor)>,
                learning_rate_scale: f64,
            ) -> Result<Self> {
                self.groups.begin(parameters, learning_rate_scale)?;
                Ok(self)
            }

            /// Keeps the parameters of f16 and bf16 in f32 too, from their next step on. Steps change those
            /// master numbers, and the parameters are what they round to: in bf16 alone, a step of less than
            /// 0.2 % of a weight is lost. Checkpoints keep them. What is written to a parameter by other
            /// means counts, and the master numbers follow it.
            ///
            /// Gradients of f32 are chosen by [`widen_gradients`](crate::widen_gradients).
            ///
            /// Source: Micikevicius et al., *Mixed precision training*, ICLR 2018.
            ///
            /// ```
            /// use sorix_core::{DType, tensor};
            /// use sorix_nn::{Optimizer, Sgd};
            ///
            /// let w = tensor([1.0]).to_dtype(DType::BF16)?.requires_grad(true);
            /// let mut sgd = Sgd::new([("w".to_owned(), w.clone())], 1e-3)?.master_weights();
            /// for _ in 0..100 {
            ///     sgd.zero_grad();
            ///     w.sum()?.backward()?; // a gradient of 1
            ///     sgd.step()?;
            /// }
            /// assert!((w.to_dtype(DType::F64)?.item::<f64>()? - 0.9).abs() < 0.002);
            /// # Ok::<(), sorix_nn::Error>(())
            /// ```
            #[must_use]
            pub fn master_weights(mut self) -> Self {
                self.groups.keep_masters();
                self
            }
        }

        impl $($parameters)* Optimizer for $optimizer {
            fn step(&mut self) -> Result<()> {
                self.groups.step()
            }

            fn zero_grad(&self) {
                self.groups.zero_grad();
            }

            fn learning_rate(&self) -> f64 {
                self.groups.learning_rate()
            }

            fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
                self.groups.set_learning_rate(learning_rate)
            }

            fn named_parameters(&self) -> Vec<(String, Tensor)> {
                self.groups.named_parameters()
            }

            fn state_names(
                &self,
                hyperparameters: &[(String, f64)],
            ) -> Result<&'static [&'static str]> {
                self.groups.state_names(hyperparameters)
            }

            fn state_names_of(
                &self,
                parameter: &str,
                hyperparameters: &[(String, f64)],
            ) -> Result<Vec<&'static str>> {
                self.groups.state_names_of(parameter, hyperparameters)
            }

            fn state(&self) -> OptimizerState {
                self.groups.state()
            }

            fn set_state(&mut self, state: OptimizerState) -> Result<()> {
                self.groups.set_state(state)
            }
        }
    };
}
pub(super) use by_groups;
