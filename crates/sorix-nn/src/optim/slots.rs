//! [`Slots`]: the parameters of an optimiser and what it keeps for each.

use std::collections::HashMap;

use sorix_core::autograd::no_grad_guard;
use sorix_core::{Tensor, UpdateRule};

use super::ParameterState;
use crate::error::{Error, Result};

/// The parameters of an optimiser, each with tensors of state that are zero at first.
#[derive(Debug)]
pub(super) struct Slots {
    /// For errors.
    optimizer: &'static str,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    name: String,
    parameter: Tensor,
    steps: u64,
    /// As many as the rule keeps; before the first step there may be none.
    state: Vec<Tensor>,
}

impl Slots {
    pub(super) fn new(
        optimizer: &'static str,
        parameters: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<Self> {
        let mut slots: Vec<Slot> = Vec::new();
        for (name, parameter) in parameters {
            if !parameter.is_leaf() {
                return Err(Error::NotALeaf { optimizer, name });
            }
            // A step would stop there, with the parameters before it changed.
            if parameter.is_expanded() {
                return Err(Error::ExpandedParameter { optimizer, name });
            }
            if slots.iter().any(|slot| slot.name == name) {
                return Err(Error::RepeatedName { optimizer, name });
            }
            // Tied parameters: one tensor under two names.
            if slots.iter().all(|slot| !slot.parameter.is_same(&parameter)) {
                slots.push(Slot {
                    name,
                    parameter,
                    steps: 0,
                    state: Vec::new(),
                });
            }
        }
        if slots.is_empty() {
            return Err(Error::NoParameters { optimizer });
        }
        Ok(Self { optimizer, slots })
    }

    /// Changes each parameter that has a gradient by the rule of its step, which counts from 1.
    pub(super) fn step<const N: usize, R: UpdateRule<N>>(
        &mut self,
        rule: impl Fn(u64) -> R,
    ) -> Result<()> {
        let _guard = no_grad_guard();
        // Asked for once: the backward of another thread may bring the first gradient meanwhile.
        let with_gradient = self.slots.iter_mut().filter_map(|slot| {
            let gradient = slot.parameter.grad()?;
            Some((slot, gradient))
        });
        let mut due: Vec<(&mut Slot, Tensor)> = with_gradient.collect();
        // State is made for all before the first is changed.
        for (slot, _) in &mut due {
            slot.keep(N)?;
        }
        for (slot, gradient) in due {
            let state: &mut [Tensor; N] = (&mut *slot.state)
                .try_into()
                .expect("it was made of this length above");
            let rule = rule(slot.steps.saturating_add(1));
            slot.parameter.update(&gradient, state, &rule)?;
            slot.steps = slot.steps.saturating_add(1);
        }
        Ok(())
    }

    /// Gives each parameter that was changed as many tensors of state as steps will keep from now on.
    pub(super) fn keep(&mut self, tensors: usize) -> Result<()> {
        let mut changed = self.slots.iter_mut().filter(|slot| slot.steps > 0);
        changed.try_for_each(|slot| slot.keep(tensors))
    }

    pub(super) fn zero_grad(&self) {
        for slot in &self.slots {
            slot.parameter.zero_grad();
        }
    }

    pub(super) fn named_parameters(&self) -> Vec<(String, Tensor)> {
        self.slots
            .iter()
            .map(|slot| (slot.name.clone(), slot.parameter.clone()))
            .collect()
    }

    /// The state of the parameters that were changed; `names` are those of its tensors.
    pub(super) fn state(&self, names: &[&str]) -> Vec<ParameterState> {
        let changed = self.slots.iter().filter(|slot| slot.steps > 0);
        changed
            .map(|slot| ParameterState {
                name: slot.name.clone(),
                steps: slot.steps,
                tensors: names
                    .iter()
                    .zip(&slot.state)
                    .map(|(&name, tensor)| (name.to_owned(), tensor.clone()))
                    .collect(),
            })
            .collect()
    }

    /// Becomes `state`, or changes nothing; `names` are those of its tensors.
    pub(super) fn set_state(
        &mut self,
        names: &[&'static str],
        state: Vec<ParameterState>,
    ) -> Result<()> {
        let mut given: HashMap<String, (u64, Vec<Tensor>)> = HashMap::new();
        for ParameterState {
            name,
            steps,
            tensors,
        } in state
        {
            let Some(slot) = self.slots.iter().find(|slot| slot.name == name) else {
                return Err(self.mismatch(name, "there is no such parameter".to_owned()));
            };
            // Before the first step there is nothing to keep.
            let names = if steps == 0 { &[] } else { names };
            match slot.check(names, tensors) {
                Err(reason) => return Err(self.mismatch(name, reason)),
                Ok(_) if given.contains_key(&name) => {
                    return Err(self.mismatch(name, "it is given twice".to_owned()));
                }
                Ok(tensors) => given.insert(name, (steps, tensors)),
            };
        }
        for slot in &mut self.slots {
            (slot.steps, slot.state) = given.remove(&slot.name).unwrap_or_default();
        }
        Ok(())
    }

    fn mismatch(&self, parameter: String, reason: String) -> Error {
        Error::OptimizerState {
            optimizer: self.optimizer,
            parameter,
            reason,
        }
    }
}

impl Slot {
    /// Makes sure of this many tensors of state: zeros, if there was another number of them.
    fn keep(&mut self, tensors: usize) -> Result<()> {
        if self.state.len() != tensors {
            let (shape, dtype) = (self.parameter.shape(), self.parameter.dtype().arithmetic());
            let zeros = (0..tensors).map(|_| Tensor::zeros(shape, dtype));
            self.state = zeros.collect::<sorix_core::Result<_>>()?;
        }
        Ok(())
    }

    /// The tensors in the order of `names`, if they are as this parameter needs them; otherwise
    /// what is wrong.
    fn check(&self, names: &[&str], tensors: Vec<(String, Tensor)>) -> Result<Vec<Tensor>, String> {
        let got: Vec<&str> = tensors.iter().map(|(name, _)| &**name).collect();
        if !(names.len() == got.len() && names.iter().all(|name| got.contains(name))) {
            return Err(format!("expected the tensors {names:?}, got {got:?}"));
        }
        let (shape, dtype) = (self.parameter.shape(), self.parameter.dtype().arithmetic());
        for (name, tensor) in &tensors {
            if (tensor.shape(), tensor.dtype()) != (shape, dtype) {
                return Err(format!(
                    "expected {name} of shape {shape:?} and dtype {dtype}, got {:?} and {}",
                    tensor.shape(),
                    tensor.dtype()
                ));
            }
        }
        let mut tensors: HashMap<String, Tensor> = tensors.into_iter().collect();
        Ok(names
            .iter()
            .filter_map(|&name| tensors.remove(name))
            .collect())
    }
}
