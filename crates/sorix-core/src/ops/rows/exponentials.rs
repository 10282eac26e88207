//! [`Exponentials`]: e to the power of the elements of a row, by the kernels.

use sorix_kernels::{Buffers, Engine, Function};

use crate::dtype::Real;
use crate::error::{Call, Result};

/// What makes them. It is asked for before any row is looked at, since it may not be there.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Exponentials(Engine<'static>);

impl Exponentials {
    /// # Errors
    ///
    /// If the environment names a backend that this machine does not have.
    pub(in crate::ops) fn new(call: Call<'_>) -> Result<Self> {
        let engine = Engine::active();
        Ok(Self(engine.map_err(|error| call.kernel_error(error))?))
    }

    /// e to the power of each element, in its place.
    pub(in crate::ops) fn of<A: Real>(self, row: &mut [A]) {
        self.0.map(Function::Exp, Buffers::in_place(row));
    }
}
