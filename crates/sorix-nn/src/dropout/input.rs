//! [`Input`]: what a call of a dropout is given.

use core::ops::Range;

use sorix_core::{DropRate, ErrorKind, MaskKey, SaveMask, Tensor};

use crate::dropout::{Draw, Form};
use crate::error::{Error, Result};

/// What a call drops from, and what it adds to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Input<'a> {
    pub(crate) x: &'a Tensor,
    added: Option<Added<'a>>,
}

/// What is added before a dropout and after it.
#[derive(Clone, Copy, Debug)]
struct Added<'a> {
    bias: Option<&'a Tensor>,
    residual: &'a Tensor,
}

impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(x: &'a Tensor) -> Self {
        Self { x, added: None }
    }
}

impl<'a> Input<'a> {
    /// `x` and a bias, to be dropped from and added to `residual`, if they fit.
    pub(crate) fn added(
        layer: &'static str,
        x: &'a Tensor,
        bias: Option<&'a Tensor>,
        residual: &'a Tensor,
    ) -> Result<Self> {
        if residual.shape() != x.shape() {
            let expected = format!("a residual of shape {:?}, as the input's", x.shape());
            return Err(Error::shape(layer, expected, residual.shape()));
        }
        let last = &x.shape()[x.ndim().saturating_sub(1)..];
        if let Some(bias) = bias.filter(|bias| bias.shape() != last) {
            let expected = format!("a bias of shape {last:?}, as the input's last axis");
            return Err(Error::shape(layer, expected, bias.shape()));
        }
        for other in [Some(residual), bias].into_iter().flatten() {
            if other.dtype() != x.dtype() {
                let kind = ErrorKind::MixedDTypes;
                return Err(sorix_core::Error::new(layer, &[x, other], kind).into());
            }
        }
        let added = Some(Added { bias, residual });
        Ok(Self { x, added })
    }

    /// Drops by the mask of one call.
    pub(crate) fn apply(&self, form: &impl Form, draw: &Draw) -> Result<Tensor> {
        match self.added {
            None => form.apply(self.x, draw),
            Some(Added { bias, residual }) => form.apply_add(self.x, bias, residual, draw),
        }
    }

    /// Drops nothing.
    pub(crate) fn pass(&self, form: &impl Form) -> Result<Tensor> {
        let Some(Added { bias, residual }) = self.added else {
            return form.pass(self.x);
        };
        let x = form.pass(self.x)?;
        Ok(match bias {
            None => residual.add(&x)?,
            // An activation is one of the sum.
            Some(bias) if !x.same_storage(self.x) => {
                residual.add(&form.pass(&self.x.add(bias)?)?)?
            }
            // As at p = 0, so that 16 bits are rounded once here, too.
            Some(bias) => {
                let (rate, key) = (DropRate::new(0.0)?, MaskKey::default());
                x.bias_dropout_add(bias, residual, rate, key, SaveMask::Replay)?
            }
        })
    }

    /// Runs `f` with the indices `range` of the first axis of what has one.
    pub(crate) fn with_rows(
        &self,
        range: Range<usize>,
        f: impl FnOnce(Input<'_>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let x = self.x.slice(0, range.clone())?;
        let Some(Added { bias, residual }) = self.added else {
            return f((&x).into());
        };
        let residual = residual.slice(0, range.clone())?;
        // Of an input of one axis, that is the one of the bias.
        let cut = bias.filter(|_| self.x.ndim() == 1);
        let cut = cut.map(|bias| bias.slice(0, range)).transpose()?;
        let added = Added {
            bias: cut.as_ref().or(bias),
            residual: &residual,
        };
        f(Input {
            x: &x,
            added: Some(added),
        })
    }
}
