//! Tensors from slices, `Vec`s and arrays of the `ndarray` crate, and back; with a copy, and without
//! one if the memory can be handed over.

use ndarray::{Array, ArrayBase, ArrayD, ArrayViewD, Data, Dimension};

use crate::dtype::{DType, Scalar};
use crate::error::{Call, ErrorKind, Result};
use crate::ops::elementwise::copy_into;
use crate::shape::{Layout, checked_numel, row_major};
use crate::storage::Buffer;
use crate::tensor::Tensor;

impl Tensor {
    /// A tensor of this shape with the elements in row-major order.
    ///
    /// # Errors
    ///
    /// If there are more or fewer elements than the shape has, and if allocation fails.
    ///
    /// ```
    /// use sorix_core::Tensor;
    /// let x = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], [3, 2])?;
    /// assert_eq!(x.transpose(0, 1)?.to_vec::<f32>()?, [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
    ///
    /// let error = Tensor::from_slice(&[1.0], [3, 2]).unwrap_err();
    /// assert_eq!(error.to_string(), "from_slice(float64[3, 2]): shape [3, 2] has 6 elements, got 1");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn from_slice<T: Scalar>(elements: &[T], shape: impl AsRef<[usize]>) -> Result<Self> {
        let shape = shape.as_ref();
        let call = check_length("from_slice", elements, shape)?;
        Self::filled(call, shape, |out: &mut [T]| out.copy_from_slice(elements))
    }

    /// A tensor of f64 of this shape with these whole numbers in row-major order: identifiers of tokens,
    /// labels.
    ///
    /// There is no dtype of integers: what takes indices takes them as `&[usize]`, and where they have to be a
    /// tensor, as for a module, f64 holds each whole number up to 2^53.
    /// [`to_indices`](Self::to_indices) is the way back.
    ///
    /// # Errors
    ///
    /// If there are more or fewer numbers than the shape has, if one is above 2^53, or if allocation fails.
    ///
    /// ```
    /// use sorix_core::Tensor;
    /// let labels = Tensor::from_indices(&[7, 0, 1 << 53], [3, 1])?;
    /// assert_eq!(labels.to_indices()?, [7, 0, 1 << 53]);
    /// assert!(Tensor::from_indices(&[(1 << 53) + 1], [1]).is_err());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn from_indices(indices: &[usize], shape: impl AsRef<[usize]>) -> Result<Self> {
        let shape = shape.as_ref();
        let call = check_count("from_indices", indices.len(), shape, DType::F64)?;
        let limit = exact_up_to(DType::F64);
        if let Some(position) = indices.iter().position(|&index| index as u64 > limit) {
            let got = indices[position].to_string();
            return Err(call.error(ErrorKind::NotAnIndex {
                position,
                limit,
                got,
            }));
        }
        Self::filled(call, shape, |out: &mut [f64]| {
            let numbers = out.iter_mut().zip(indices);
            numbers.for_each(|(out, &index)| *out = index as f64);
        })
    }

    /// The elements as whole numbers, in row-major order: for [`index_select`](Self::index_select), the
    /// classes of a cross entropy.
    ///
    /// # Errors
    ///
    /// If an element is negative, not whole, or above what its dtype counts to without a gap: 2^53 for f64,
    /// 2^24 for f32, 2^11 for f16, 2^8 for bf16.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// assert_eq!(tensor([2.0_f32, 0.0]).to_indices()?, [2, 0]);
    /// assert_eq!(
    ///     tensor([2.0, 0.5]).to_indices().unwrap_err().to_string(),
    ///     "to_indices(float64[2]): expected whole numbers in 0..=9007199254740992, got 0.5 at position 1"
    /// );
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn to_indices(&self) -> Result<Vec<usize>> {
        let call = Call::on("to_indices", self);
        let limit = exact_up_to(self.dtype());
        let numbers = self.to_dtype(DType::F64)?.to_vec::<f64>()?;
        let indices = numbers.into_iter().enumerate().map(|(position, number)| {
            if number >= 0.0 && number <= limit as f64 && number.fract() == 0.0 {
                return Ok(number as usize);
            }
            let got = format!("{number:?}");
            Err(call.error(ErrorKind::NotAnIndex {
                position,
                limit,
                got,
            }))
        });
        indices.collect()
    }

    /// A tensor of this shape that takes over the elements, in row-major order: nothing is copied.
    ///
    /// The memory is the `Vec`'s: aligned for its type only, where sorix's own is aligned to 64 bytes,
    /// and freed instead of going to the [pool](crate::pool).
    ///
    /// # Errors
    ///
    /// If there are more or fewer elements than the shape has.
    ///
    /// ```
    /// use sorix_core::Tensor;
    /// let elements = vec![1.0, 2.0, 3.0, 4.0];
    /// let address = elements.as_ptr();
    /// let x = Tensor::from_vec(elements, [2, 2])?;
    /// assert_eq!(x.sum_over(0)?.to_vec::<f64>()?, [4.0, 6.0]);
    /// assert_eq!(x.into_vec::<f64>()?.as_ptr(), address);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn from_vec<T: Scalar>(elements: Vec<T>, shape: impl AsRef<[usize]>) -> Result<Self> {
        let shape = shape.as_ref();
        check_length("from_vec", &elements, shape)?;
        Ok(Self::from_buffer(Buffer::of(elements), shape, T::DTYPE))
    }

    /// A tensor that takes over the elements of an array of the `ndarray` crate, of any dimension,
    /// with its strides: nothing is copied, unless the array was turned around, so that a stride is
    /// negative. The memory is as that of [`from_vec`](Self::from_vec).
    ///
    /// # Errors
    ///
    /// If allocation fails for the elements of an array that was turned around.
    ///
    /// ```
    /// use sorix_core::ndarray::array;
    /// use sorix_core::Tensor;
    /// let a = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].reversed_axes();
    /// let address = a.as_ptr();
    /// let x = Tensor::from_ndarray_owned(a)?;
    /// assert_eq!((x.shape(), x.strides()), (&[3, 2][..], &[1, 3][..]));
    /// assert_eq!(x.with_view(|a: ndarray::ArrayViewD<f64>| a.as_ptr())?, address);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn from_ndarray_owned<T: Scalar, D: Dimension>(array: Array<T, D>) -> Result<Self> {
        let (shape, strides) = (array.shape().to_vec(), array.strides().to_vec());
        if strides.iter().any(|&stride| stride < 0) {
            return Self::from_ndarray(&array);
        }
        let (elements, offset) = array.into_raw_vec_and_offset();
        // An array without elements has no offset, and strides that do not matter.
        let layout = offset.and_then(|offset| Layout::of_array(&shape, &strides, offset));
        let layout = layout.unwrap_or_else(|| Layout::contiguous(&shape));
        let flat = Self::from_buffer(Buffer::of(elements), &shape, T::DTYPE);
        Ok(flat.with_layout(layout))
    }

    /// A tensor with the elements of an array of the `ndarray` crate, of any dimension and layout,
    /// owned or a view, in one copy. An owned one that is no longer needed can be taken over by
    /// [`from_ndarray_owned`](Self::from_ndarray_owned).
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::ndarray::array;
    /// use sorix_core::Tensor;
    /// let a = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    /// assert_eq!(Tensor::from_ndarray(&a)?.shape(), [2, 3]);
    /// assert_eq!(Tensor::from_ndarray(&a.t())?.to_vec::<f64>()?, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn from_ndarray<T, S, D>(array: &ArrayBase<S, D>) -> Result<Self>
    where
        T: Scalar,
        S: Data<Elem = T>,
        D: Dimension,
    {
        let call = Call::making("from_ndarray", array.shape(), T::DTYPE);
        Self::filled(call, array.shape(), |out: &mut [T]| {
            row_major(out, array.shape()).assign(&array.view().into_dyn());
        })
    }

    /// The elements in row-major order.
    ///
    /// # Errors
    ///
    /// If `T` is not the tensor's dtype (convert with [`Tensor::to_dtype`]), and if allocation fails.
    ///
    /// ```
    /// let x = sorix_core::tensor([1.0, 2.0]);
    /// assert_eq!(x.to_vec::<f64>()?, [1.0, 2.0]);
    /// let error = x.to_vec::<f32>().unwrap_err();
    /// assert_eq!(error.to_string(), "to_vec(float64[2]): expected dtype sorix.float64, got sorix.float32");
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn to_vec<T: Scalar>(&self) -> Result<Vec<T>> {
        self.elements(Call::on("to_vec", self))
    }

    /// The only element of a tensor that has one, whatever its number of axes.
    ///
    /// # Errors
    ///
    /// If it has more or fewer, or if `T` is not its dtype.
    ///
    /// ```
    /// assert_eq!(sorix_core::tensor([[2.5]]).item::<f64>()?, 2.5);
    /// assert!(sorix_core::tensor([1.0, 2.0]).item::<f64>().is_err());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn item<T: Scalar>(&self) -> Result<T> {
        let call = Call::on("item", self);
        self.check_type::<T>(call)?;
        match self.read().slice() {
            Some(&[element]) => Ok(element),
            _ => Err(call.error(ErrorKind::NotOneElement)),
        }
    }

    /// Lends the elements to `read` as a view of the `ndarray` crate, where they lie: nothing is
    /// copied, whatever the layout. Writes to the tensor meanwhile do not reach the view.
    ///
    /// # Errors
    ///
    /// If `T` is not the tensor's dtype.
    ///
    /// ```
    /// let x = sorix_core::tensor([[1.0, 5.0], [3.0, 4.0]]);
    /// let largest = x.with_view(|a: ndarray::ArrayViewD<f64>| a.fold(0.0, |m: f64, &x| m.max(x)))?;
    /// assert_eq!(largest, 5.0);
    /// assert_eq!(x.transpose(0, 1)?.with_view(|a: ndarray::ArrayViewD<f64>| a[[0, 1]])?, 3.0);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn with_view<T: Scalar, R>(&self, read: impl FnOnce(ArrayViewD<'_, T>) -> R) -> Result<R> {
        self.check_type::<T>(Call::on("with_view", self))?;
        Ok(read(self.read().view()))
    }

    /// The elements in row-major order: the `Vec` itself that the tensor was made
    /// [of](Self::from_vec), if nothing else refers to it and the tensor begins with its first element; else as
    /// [`to_vec`](Self::to_vec).
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// ```
    /// use sorix_core::Tensor;
    /// let x = Tensor::from_vec(vec![1.0, 2.0], [2])?;
    /// let y = x.add_scalar(1.0)?;
    /// assert_eq!(x.into_vec::<f64>()?, [1.0, 2.0]);
    /// assert_eq!(y.into_vec::<f64>()?, [2.0, 3.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn into_vec<T: Scalar>(self) -> Result<Vec<T>> {
        const OP: &str = "into_vec";
        self.check_type::<T>(Call::on(OP, &self))?;
        if !self.is_contiguous() {
            return self.elements(Call::on(OP, &self));
        }
        match self.try_into_given() {
            Ok((mut elements, layout)) => {
                elements.truncate(layout.numel());
                Ok(elements)
            }
            Err(kept) => kept.elements(Call::on(OP, &kept)),
        }
    }

    /// The elements as an array of the `ndarray` crate: the memory itself that the tensor was made
    /// [of](Self::from_ndarray_owned), under the tensor's strides, if nothing else refers to it and
    /// the tensor begins with its first element and is not [expanded](Self::is_expanded); else as
    /// [`to_ndarray`](Self::to_ndarray).
    ///
    /// # Errors
    ///
    /// As [`to_ndarray`](Self::to_ndarray).
    ///
    /// ```
    /// use sorix_core::ndarray::array;
    /// use sorix_core::Tensor;
    /// let a = array![[1.0, 2.0], [3.0, 4.0]];
    /// let address = a.as_ptr();
    /// let x = Tensor::from_ndarray_owned(a)?.transpose(0, 1)?;
    /// let b = x.into_ndarray::<f64>()?;
    /// assert_eq!((b[[1, 0]], b.strides(), b.as_ptr()), (2.0, &[1, 2][..], address));
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn into_ndarray<T: Scalar>(self) -> Result<ArrayD<T>> {
        const OP: &str = "into_ndarray";
        self.check_type::<T>(Call::on(OP, &self))?;
        match self.try_into_given() {
            Ok((elements, layout)) => Ok(layout.array(elements)),
            Err(kept) => kept.array(Call::on(OP, &kept)),
        }
    }

    /// The elements as an array of the `ndarray` crate, in row-major order, in one copy. To read
    /// them without one, there is [`with_view`](Tensor::with_view).
    ///
    /// # Errors
    ///
    /// If `T` is not the tensor's dtype, and if allocation fails.
    ///
    /// ```
    /// let x = sorix_core::tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// assert_eq!(x.to_ndarray::<f64>()?, ndarray::array![[1.0, 2.0], [3.0, 4.0]].into_dyn());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn to_ndarray<T: Scalar>(&self) -> Result<ArrayD<T>> {
        self.array(Call::on("to_ndarray", self))
    }

    fn array<T: Scalar>(&self, call: Call<'_>) -> Result<ArrayD<T>> {
        let elements = self.elements(call)?;
        Ok(ArrayD::from_shape_vec(self.shape(), elements).expect("as many as the shape has"))
    }

    /// The elements in row-major order. A view may have more of them than memory can hold.
    pub(crate) fn elements<T: Scalar>(&self, call: Call<'_>) -> Result<Vec<T>> {
        self.check_type::<T>(call)?;
        let mut elements = Vec::new();
        let bytes = self.numel() * size_of::<T>();
        elements
            .try_reserve_exact(self.numel())
            .map_err(|_| call.error(ErrorKind::Allocation { bytes }))?;
        let snapshot = self.read();
        match snapshot.slice() {
            Some(slice) => elements.extend_from_slice(slice),
            None => {
                elements.resize(self.numel(), T::ZERO);
                copy_into(row_major(&mut elements, self.shape()), snapshot.view());
            }
        }
        Ok(elements)
    }

    /// The `Vec` that the tensor was made of, and where its elements lie there, from the first on, each
    /// in a place of its own; the tensor as it was if that is not so or something else refers to it.
    fn try_into_given<T: Scalar>(self) -> Result<(Vec<T>, Layout), Self> {
        if self.layout().offset() != 0 || self.is_expanded() {
            return Err(self);
        }
        let dtype = self.dtype();
        let (buffer, layout) = self.try_into_parts()?;
        match buffer.try_into_vec() {
            Ok(elements) => Ok((elements, layout)),
            Err(buffer) => {
                let flat = Self::from_buffer(buffer, layout.shape(), dtype);
                Err(flat.with_layout(layout))
            }
        }
    }

    fn check_type<T: Scalar>(&self, call: Call<'_>) -> Result<()> {
        if T::DTYPE == self.dtype() {
            Ok(())
        } else {
            Err(call.error(ErrorKind::DType {
                expected: self.dtype(),
                got: T::DTYPE,
            }))
        }
    }
}

/// That `elements` are as many as `shape` has; the call that then makes a tensor of both.
fn check_length<'s, T: Scalar>(
    op: &'static str,
    elements: &[T],
    shape: &'s [usize],
) -> Result<Call<'s>> {
    check_count(op, elements.len(), shape, T::DTYPE)
}

/// That so many elements fill `shape`.
fn check_count<'s>(
    op: &'static str,
    got: usize,
    shape: &'s [usize],
    dtype: DType,
) -> Result<Call<'s>> {
    let call = Call::making(op, shape, dtype);
    let expected = checked_numel(call, shape, dtype)?;
    if expected == got {
        return Ok(call);
    }
    let shape = shape.to_vec();
    Err(call.error(ErrorKind::Length {
        shape,
        expected,
        got,
    }))
}

/// The largest number up to which the dtype has all whole numbers.
fn exact_up_to(dtype: DType) -> u64 {
    match dtype {
        DType::F16 => 1 << 11,
        DType::BF16 => 1 << 8,
        DType::F32 => 1 << 24,
        DType::F64 => 1 << 53,
    }
}
