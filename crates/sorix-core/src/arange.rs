//! Numbers at equal distances.

use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, ErrorKind, Operands, Result};
use crate::tensor::Tensor;

impl Tensor {
    /// The numbers `start`, `start + step`, `start + 2 step` and so on, each computed in f64 and
    /// rounded once; there are `ceil((end - start) / step)`, also computed in f64. So they end before
    /// `end`, unless rounding makes one more of them, as in NumPy: from 1 to 1.3 in steps of 0.1 there
    /// are four.
    ///
    /// # Errors
    ///
    /// If one of the three is not finite, `step` is 0, or it leads away from `end`; if there are
    /// too many for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// let x = Tensor::arange(0.0, 1.0, 0.25, DType::F32)?;
    /// assert_eq!(x.to_vec::<f32>()?, [0.0, 0.25, 0.5, 0.75]);
    /// let x = Tensor::arange(3.0, 0.0, -1.0, DType::F32)?;
    /// assert_eq!(x.to_vec::<f32>()?, [3.0, 2.0, 1.0]);
    /// assert_eq!(Tensor::arange(1.0, 1.3, 0.1, DType::F32)?.to_vec::<f32>()?, [1.0, 1.1, 1.2, 1.3]);
    ///
    /// let error = Tensor::arange(0.0, 1.0, -0.5, DType::F32).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "arange: steps of -0.5 do not lead from 0.0 to 1.0 (dtype sorix.float32)"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn arange(start: f64, end: f64, step: f64, dtype: DType) -> Result<Self> {
        let steps = (end - start) / step;
        // NaN, as 0 steps of length 0 are, is not at least 0. Rounded up, half a step away would be.
        if !(steps >= 0.0 && step != 0.0 && [start, end, step].iter().all(|x| x.is_finite())) {
            // Of no shape.
            let call = Call::new("arange", Operands::Several(&[]));
            return Err(call.error(ErrorKind::Step {
                start,
                end,
                step,
                dtype,
            }));
        }
        // A count beyond usize is the largest, which is refused as too large.
        let shape = [steps.ceil() as usize];
        let call = Call::making("arange", &shape, dtype);
        dispatch!(dtype, T => Self::filled(call, &shape, |out: &mut [T]| {
            for (i, out) in out.iter_mut().enumerate() {
                *out = T::nearest(start + i as f64 * step);
            }
        }))
    }
}
