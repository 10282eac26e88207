//! Backward from the key alone, for forms that no single operation of sorix-core is.

use core::fmt;

use sorix_core::Tensor;
use sorix_core::autograd::{Function, Gradients, no_grad, record};

type TensorResult = sorix_core::Result<Tensor>;

/// `f(x)` for an `f` that multiplies each element by a number that it makes from a key. The derivative
/// of such a map is the map itself, so backward calls it again, and nothing is kept but what `f` holds.
pub(crate) fn replayed<F>(name: &'static str, x: &Tensor, f: F) -> TensorResult
where
    F: Fn(&Tensor) -> TensorResult + Send + Sync + 'static,
{
    let y = no_grad(|| f(x))?;
    Ok(record(y, &[x], || Replayed { name, f }))
}

struct Replayed<F> {
    name: &'static str,
    f: F,
}

impl<F> fmt::Debug for Replayed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl<F: Fn(&Tensor) -> TensorResult + Send + Sync + 'static> Function for Replayed<F> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn backward(&self, grad: Tensor) -> sorix_core::Result<Gradients> {
        Ok(vec![Some((self.f)(&grad)?)])
    }
}
