//! [`Slots`]: the parameters of an optimiser and what it keeps for each.

use std::collections::HashMap;

use sorix_core::{Tensor, UpdateRule};

use super::ParameterState;
use crate::error::{Error, Result};

/// What the master numbers of a parameter are called in a checkpoint.
pub(super) const MASTER: &str = "master";

/// The parameters of an optimiser, each with tensors of state that are zero at first.
#[derive(Debug)]
pub(super) struct Slots {
    /// For errors.
    optimizer: &'static str,
    slots: Vec<Slot>,
    /// Whether parameters of 16 bits have master numbers.
    masters: bool,
}

#[derive(Debug)]
pub(super) struct Slot {
    name: String,
    parameter: Tensor,
    /// The number of its group.
    pub(super) group: usize,
    steps: u64,
    /// As many as the rule keeps; before the first step there may be none.
    state: Vec<Tensor>,
    /// The parameter in f32, if that is kept and a step was made.
    master: Option<Tensor>,
}

impl Slots {
    pub(super) fn new(optimizer: &'static str) -> Self {
        Self {
            optimizer,
            slots: Vec::new(),
            masters: false,
        }
    }

    /// Takes in the parameters of a group.
    pub(super) fn add(
        &mut self,
        group: usize,
        parameters: impl IntoIterator<Item = (String, Tensor)>,
    ) -> Result<()> {
        let optimizer = self.optimizer;
        let mut slots: Vec<Slot> = Vec::new();
        for (name, parameter) in parameters {
            if !parameter.is_leaf() {
                return Err(Error::NotALeaf { optimizer, name });
            }
            // A step would stop there, with the parameters before it changed.
            if parameter.is_expanded() {
                return Err(Error::ExpandedParameter { optimizer, name });
            }
            let mut others = self.slots.iter().chain(&slots);
            if others.any(|slot| slot.name == name) {
                return Err(Error::RepeatedName { optimizer, name });
            }
            // Tied parameters: one tensor under two names.
            let is_same = |slot: &&Slot| slot.parameter.is_same(&parameter);
            match self.slots.iter().chain(&slots).find(is_same) {
                Some(other) if other.group != group => {
                    return Err(Error::RepeatedName { optimizer, name });
                }
                Some(_) => {}
                None => slots.push(Slot {
                    name,
                    parameter,
                    group,
                    steps: 0,
                    state: Vec::new(),
                    master: None,
                }),
            }
        }
        if slots.is_empty() {
            return Err(Error::NoParameters { optimizer });
        }
        self.slots.extend(slots);
        Ok(())
    }

    /// Keeps master numbers of parameters of 16 bits from now on.
    pub(super) fn keep_masters(&mut self) {
        self.masters = true;
    }

    pub(super) fn has_masters(&self) -> bool {
        self.masters
    }

    /// The parameters that have a gradient, by their places, and the gradients. Each has room for what a
    /// step keeps, of which `kept` tells the number by the group.
    pub(super) fn due(&mut self, kept: impl Fn(usize) -> usize) -> Result<Vec<(usize, Tensor)>> {
        // Asked for once: the backward of another thread may bring the first gradient meanwhile.
        let with_gradient = self.slots.iter().enumerate();
        let due = with_gradient.filter_map(|(at, slot)| Some((at, slot.parameter.grad()?)));
        let due: Vec<_> = due.collect();
        // Room is made for all before the first is changed.
        for (at, _) in &due {
            let slot = &mut self.slots[*at];
            slot.keep(kept(slot.group))?;
            if self.masters && slot.is_rounded() && slot.master.is_none() {
                slot.master = Some(slot.parameter.detach().to_dtype(slot.wide())?);
            }
        }
        Ok(due)
    }

    pub(super) fn slot(&mut self, at: usize) -> &mut Slot {
        &mut self.slots[at]
    }

    /// Gives each parameter of a group that was changed as many tensors of state as steps will keep from
    /// now on.
    pub(super) fn keep(&mut self, group: usize, tensors: usize) -> Result<()> {
        let changed = self.slots.iter_mut();
        let mut changed = changed.filter(|slot| slot.group == group && slot.steps > 0);
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

    /// The names of what is kept for a parameter after its first step, of which `names` tells those of a
    /// group without the master numbers.
    pub(super) fn names(
        &self,
        parameter: &str,
        names: impl Fn(usize) -> &'static [&'static str],
    ) -> Option<Vec<&'static str>> {
        let slot = self.slots.iter().find(|slot| slot.name == parameter)?;
        Some(slot.names(names(slot.group), self.masters))
    }

    /// The state of the parameters that were changed.
    pub(super) fn state(
        &self,
        names: impl Fn(usize) -> &'static [&'static str],
    ) -> Vec<ParameterState> {
        let changed = self.slots.iter().filter(|slot| slot.steps > 0);
        changed
            .map(|slot| ParameterState {
                name: slot.name.clone(),
                steps: slot.steps,
                tensors: slot
                    .names(names(slot.group), self.masters)
                    .into_iter()
                    .zip(slot.state.iter().chain(&slot.master))
                    .map(|(name, tensor)| (name.to_owned(), tensor.clone()))
                    .collect(),
            })
            .collect()
    }

    /// Becomes `state`, or changes nothing.
    pub(super) fn set_state(
        &mut self,
        names: impl Fn(usize) -> &'static [&'static str],
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
            let names = match steps {
                0 => Vec::new(),
                _ => slot.names(names(slot.group), self.masters),
            };
            match slot.check(&names, tensors) {
                Err(reason) => return Err(self.mismatch(name, reason)),
                Ok(_) if given.contains_key(&name) => {
                    return Err(self.mismatch(name, "it is given twice".to_owned()));
                }
                Ok(tensors) => given.insert(name, (steps, tensors)),
            };
        }
        for slot in &mut self.slots {
            (slot.steps, slot.state) = given.remove(&slot.name).unwrap_or_default();
            slot.master = match slot.steps {
                0 => None,
                _ if self.masters && slot.is_rounded() => slot.state.pop(),
                _ => None,
            };
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
    /// Changes the parameter, for which [room was made](Slots::due), by the rule of its step, which counts
    /// from 1.
    pub(super) fn update<const N: usize, R: UpdateRule<N>>(
        &mut self,
        gradient: &Tensor,
        rule: impl FnOnce(u64) -> R,
    ) -> Result<()> {
        let state: &mut [Tensor; N] = (&mut *self.state)
            .try_into()
            .expect("it was made of this length before");
        let rule = rule(self.steps.saturating_add(1));
        match &mut self.master {
            Some(master) => {
                self.parameter
                    .update_master(master, gradient, state, &rule)?;
            }
            None => self.parameter.update(gradient, state, &rule)?,
        }
        self.steps = self.steps.saturating_add(1);
        Ok(())
    }

    fn wide(&self) -> sorix_core::DType {
        self.parameter.dtype().arithmetic()
    }

    /// Whether the parameter has fewer bits than it is computed with.
    fn is_rounded(&self) -> bool {
        self.parameter.dtype() != self.wide()
    }

    fn names(&self, names: &'static [&'static str], masters: bool) -> Vec<&'static str> {
        let master = (masters && self.is_rounded()).then_some(MASTER);
        names.iter().copied().chain(master).collect()
    }

    /// Makes sure of this many tensors of state: zeros, if there was another number of them.
    fn keep(&mut self, tensors: usize) -> Result<()> {
        if self.state.len() != tensors {
            let (shape, dtype) = (self.parameter.shape(), self.wide());
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
        let (shape, dtype) = (self.parameter.shape(), self.wide());
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
