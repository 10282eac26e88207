//! Comparisons, elementwise: 1 if they hold, 0 if not.

use crate::dtype::dispatch;
use crate::error::{Call, Result};
use crate::ops::elementwise::{self, Cost};
use crate::tensor::Tensor;

/// A method for each comparison.
macro_rules! comparisons {
    ($($name:ident, $op:tt, $words:literal, $expected:literal;)*) => {
        /// Comparisons.
        ///
        /// A truth value is a number of the dtype compared: 1 for true, 0 for false. So it can be
        /// summed, and multiplied with, and is what [`where_cond`](Tensor::where_cond) and
        /// [`masked_fill`](Tensor::masked_fill) take; there is no dtype of its own for it. What is NaN
        /// is unequal to everything, and neither less nor greater. A comparison has no gradient: its
        /// result is a constant.
        impl Tensor {
            $(
                #[doc = concat!("1 where the elements are ", $words, " those of another tensor, 0 elsewhere;")]
                /// shapes broadcast as NumPy's. A number is compared with as `tensor(2.0)`.
                ///
                /// # Errors
                ///
                /// If dtypes differ, or shapes do not broadcast.
                ///
                /// ```
                /// use sorix_core::tensor;
                /// let x = tensor([1.0, 2.0, 3.0, f64::NAN]);
                #[doc = concat!("let y = x.", stringify!($name), "(&tensor(2.0))?;")]
                #[doc = concat!("assert_eq!(y.to_vec::<f64>()?, ", $expected, ");")]
                /// # Ok::<(), sorix_core::Error>(())
                /// ```
                pub fn $name(&self, other: &Self) -> Result<Self> {
                    let call = Call::on_two(stringify!($name), self, other);
                    dispatch!(self.common_dtype(call, other)?, T => {
                        elementwise::zip::<T>(call, self, other, Cost::Move, |x, y| {
                            if x $op y { 1.0 } else { 0.0 }
                        })
                    })
                }
            )*
        }
    };
}

comparisons! {
    eq, ==, "equal to", "[0.0, 1.0, 0.0, 0.0]";
    ne, !=, "not equal to", "[1.0, 0.0, 1.0, 1.0]";
    lt, <, "less than", "[1.0, 0.0, 0.0, 0.0]";
    le, <=, "less than or equal to", "[1.0, 1.0, 0.0, 0.0]";
    gt, >, "greater than", "[0.0, 0.0, 1.0, 0.0]";
    ge, >=, "greater than or equal to", "[0.0, 1.0, 1.0, 0.0]";
}
