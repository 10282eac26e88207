//! [`Tensor`]: the handle, what it tells of itself, and how it is made and read within the crate.

use core::fmt;
use std::sync::Arc;

use ndarray::ArrayViewD;

use crate::autograd::{Leaf, Node};
use crate::data::TensorData;
use crate::dtype::{DType, Scalar, dispatch};
use crate::error::{Call, Error, ErrorKind, Operand, Operands, Result, TensorSpec};
use crate::shape::{Layout, checked_numel};
use crate::storage::{Buffer, Storage};

/// An array of any number of dimensions that knows how it was computed.
///
/// A `Tensor` is a handle: cloning it copies a pointer, and it may be sent to and used by several
/// threads at once. Its [`dtype`](Tensor::dtype) is known at run time. Operations return new tensors;
/// if an input [needs a gradient](Tensor::needs_grad) they also record themselves, for
/// [`backward`](Tensor::backward).
///
/// `{}` prints the elements as NumPy does, `{:?}` the shape, the dtype and the place in the graph.
///
/// ```
/// use sorix_core::tensor;
///
/// let x = tensor([[1.0, 2.0], [3.0, 4.0]]).requires_grad(true);
/// let y = x.mul(&x)?.sum()?;
/// assert_eq!(y.item::<f64>()?, 30.0);
/// y.backward()?;
/// assert_eq!(x.grad().unwrap().to_string(), "\
/// tensor([[2., 4.],
///         [6., 8.]], dtype=sorix.float64)");
/// # Ok::<(), sorix_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor(Arc<Inner>);

struct Inner {
    storage: Arc<Storage>,
    layout: Layout,
    dtype: DType,
    origin: Origin,
}

/// Where the elements came from, as far as a gradient is concerned.
#[derive(Clone)]
pub(crate) enum Origin {
    /// From nowhere that wants a gradient.
    Constant,
    /// From the user, who wants one.
    Leaf(Arc<Leaf>),
    /// From an operation on such.
    Computed(Arc<Node>),
}

/// A tensor of one number, a nested array, a slice or a `Vec`; its dtype is that of the numbers.
///
/// ```
/// use sorix_core::{DType, tensor};
/// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
/// assert_eq!((x.shape(), x.dtype()), (&[2, 3][..], DType::F64));
/// assert_eq!(tensor(0.5_f32).dtype(), DType::F32);
/// ```
///
/// # Panics
///
/// If allocation fails, or the shape is too large to address though it has no elements, as of
/// `vec![[0.0; 0]; usize::MAX]`; [`Tensor::from_slice`] returns an error instead.
#[must_use]
pub fn tensor(data: impl TensorData) -> Tensor {
    match Tensor::from_slice(data.elements(), data.shape()) {
        Ok(tensor) => tensor,
        Err(error) => panic!("{error}"),
    }
}

impl Tensor {
    /// A tensor of zeros.
    ///
    /// # Errors
    ///
    /// If the shape is too large for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// assert_eq!(Tensor::zeros([2, 2], DType::F32)?.to_vec::<f32>()?, [0.0; 4]);
    /// assert!(Tensor::zeros([1 << 40, 1 << 40], DType::F32).is_err());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn zeros(shape: impl AsRef<[usize]>, dtype: DType) -> Result<Self> {
        let shape = shape.as_ref();
        let call = Call::making("zeros", shape, dtype);
        let bytes = checked_numel(call, shape, dtype)? * dtype.size();
        // Zero is the one value of every dtype whose bytes are all zero, and new memory is that.
        Ok(Self::from_buffer(
            Buffer::zeroed(call, bytes)?,
            shape,
            dtype,
        ))
    }

    /// A tensor of ones.
    ///
    /// # Errors
    ///
    /// If the shape is too large for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// assert_eq!(Tensor::ones([3], DType::F64)?.to_vec::<f64>()?, [1.0; 3]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn ones(shape: impl AsRef<[usize]>, dtype: DType) -> Result<Self> {
        Self::full_of("ones", shape.as_ref(), 1.0, dtype)
    }

    /// A tensor with every element `value`, rounded to `dtype`.
    ///
    /// # Errors
    ///
    /// If the shape is too large for the memory.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor};
    /// assert_eq!(Tensor::full([2], 0.1, DType::F32)?.to_vec::<f32>()?, [0.1; 2]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    pub fn full(shape: impl AsRef<[usize]>, value: f64, dtype: DType) -> Result<Self> {
        Self::full_of("full", shape.as_ref(), value, dtype)
    }

    fn full_of(op: &'static str, shape: &[usize], value: f64, dtype: DType) -> Result<Self> {
        let call = Call::making(op, shape, dtype);
        dispatch!(dtype, T => Self::filled(call, shape, |out: &mut [T]| out.fill(T::nearest(value))))
    }

    /// The element type.
    #[must_use]
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The length of each axis; empty for a tensor of one element without axes.
    ///
    /// ```
    /// assert_eq!(sorix_core::tensor([[1.0, 2.0, 3.0]]).shape(), [1, 3]);
    /// ```
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.0.layout.shape()
    }

    /// How many elements further in memory the next index of each axis is.
    ///
    /// ```
    /// let x = sorix_core::tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.strides(), [3, 1]);
    /// assert_eq!(x.transpose(0, 1)?.strides(), [1, 3]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn strides(&self) -> &[usize] {
        self.0.layout.strides()
    }

    /// The number of axes.
    #[must_use]
    pub fn ndim(&self) -> usize {
        self.shape().len()
    }

    /// The number of elements.
    #[must_use]
    pub fn numel(&self) -> usize {
        self.0.layout.numel()
    }

    /// Whether the elements lie in memory one after another in row-major order.
    ///
    /// ```
    /// let x = sorix_core::tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert!(x.is_contiguous());
    /// assert!(!x.transpose(0, 1)?.is_contiguous());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn is_contiguous(&self) -> bool {
        self.0.layout.is_contiguous()
    }

    /// Whether two elements may share memory, as after [`expand`](Self::expand): such a tensor cannot
    /// be written to.
    ///
    /// ```
    /// let x = sorix_core::tensor([[1.0], [2.0]]);
    /// assert!(!x.is_expanded());
    /// assert!(x.expand([2, 3])?.is_expanded());
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn is_expanded(&self) -> bool {
        self.0.layout.is_expanded()
    }

    /// Whether the two share memory: one is the other, or they are views of the same tensor.
    ///
    /// ```
    /// let x = sorix_core::tensor([1.0, 2.0]);
    /// assert!(x.same_storage(&x.reshape([2, 1])?));
    /// assert!(!x.same_storage(&sorix_core::tensor([1.0, 2.0])));
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn same_storage(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.storage, &other.0.storage)
    }

    /// Whether each element of this tensor is that of the other one at the same place in memory: the
    /// two are handles to one tensor, or views of one that show the same.
    ///
    /// ```
    /// let x = sorix_core::tensor([[1.0, 2.0], [3.0, 4.0]]);
    /// assert!(x.same_elements(&x.requires_grad(true)));
    /// assert!(!x.slice(0, 0..1)?.same_elements(&x.slice(0, 1..2)?));
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn same_elements(&self, other: &Self) -> bool {
        self.same_storage(other) && self.0.layout == other.0.layout
    }

    /// Whether the two are handles to one tensor, as a clone is; of a leaf, whether they share its
    /// gradient too.
    ///
    /// ```
    /// let x = sorix_core::tensor([1.0, 2.0]);
    /// assert!(x.is_same(&x.clone()));
    /// assert!(!x.is_same(&x.requires_grad(true)));
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// What the operations of this crate are made of.
impl Tensor {
    /// A new tensor that `fill` writes; `fill` has to write every element.
    pub(crate) fn filled<T: Scalar>(
        call: Call<'_>,
        shape: &[usize],
        fill: impl FnOnce(&mut [T]),
    ) -> Result<Self> {
        Self::try_filled(call, shape, |out| {
            fill(out);
            Ok(())
        })
    }

    /// A new tensor that `fill` writes by a kernel; `fill` has to write every element or return an
    /// error.
    pub(crate) fn try_filled<T: Scalar>(
        call: Call<'_>,
        shape: &[usize],
        fill: impl FnOnce(&mut [T]) -> Result<(), sorix_kernels::Error>,
    ) -> Result<Self> {
        let numel = checked_numel(call, shape, T::DTYPE)?;
        let mut buffer = Buffer::for_overwrite(call, numel * size_of::<T>())?;
        let filled = fill(&mut buffer.as_mut_slice()[..numel]);
        filled.map_err(|error| call.kernel_error(error))?;
        Ok(Self::from_buffer(buffer, shape, T::DTYPE))
    }

    /// A new tensor over the front of `buffer`, which is as long as the shape needs.
    pub(crate) fn from_buffer(buffer: Buffer, shape: &[usize], dtype: DType) -> Self {
        let storage = Arc::new(Storage::new(buffer));
        Self(Arc::new(Inner {
            storage,
            layout: Layout::contiguous(shape),
            dtype,
            origin: Origin::Constant,
        }))
    }

    /// The same storage under another layout, apart from the graph.
    pub(crate) fn with_layout(&self, layout: Layout) -> Self {
        Self(Arc::new(Inner {
            storage: Arc::clone(&self.0.storage),
            layout,
            dtype: self.0.dtype,
            origin: Origin::Constant,
        }))
    }

    /// The same elements with another origin.
    pub(crate) fn with_origin(mut self, origin: Origin) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.origin = origin;
            return self;
        }
        Self(Arc::new(Inner {
            storage: Arc::clone(&self.0.storage),
            layout: self.0.layout.clone(),
            dtype: self.0.dtype,
            origin,
        }))
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.0.layout
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.0.origin
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.0.storage
    }

    /// The tensor as it is now, in a storage of its own that no later write reaches: the buffer is
    /// shared until one comes, which then takes memory of its own. Apart from the graph.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// let x = tensor([1.0, 2.0]);
    /// let before = x.snapshot();
    /// x.assign(&tensor([3.0, 4.0]))?;
    /// assert_eq!(before.to_vec::<f64>()?, [1.0, 2.0]);
    /// # Ok::<(), sorix_core::Error>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self(Arc::new(Inner {
            storage: Arc::new(Storage::of(self.0.storage.snapshot())),
            layout: self.0.layout.clone(),
            dtype: self.0.dtype,
            origin: Origin::Constant,
        }))
    }

    /// The elements as they are now.
    pub(crate) fn read(&self) -> Snapshot<'_> {
        Snapshot {
            buffer: self.0.storage.snapshot(),
            layout: &self.0.layout,
        }
    }

    /// The elements of two tensors; of one moment, if they share memory.
    pub(crate) fn read_both<'t>(left: &'t Self, right: &'t Self) -> [Snapshot<'t>; 2] {
        Self::read_all([left, right])
    }

    /// The elements of several tensors; of one moment, those that share memory.
    pub(crate) fn read_all<const N: usize>(tensors: [&Self; N]) -> [Snapshot<'_>; N] {
        let mut buffers: [Option<Arc<Buffer>>; N] = [const { None }; N];
        for (i, tensor) in tensors.iter().enumerate() {
            let before = (0..i).find(|&k| tensors[k].same_storage(tensor));
            let buffer = before.and_then(|k| buffers[k].clone());
            buffers[i] = Some(buffer.unwrap_or_else(|| tensor.0.storage.snapshot()));
        }
        let mut buffers = buffers.into_iter().flatten();
        tensors.map(|tensor| Snapshot {
            buffer: buffers.next().expect("one for each tensor"),
            layout: &tensor.0.layout,
        })
    }

    /// The elements in row-major order, to write; `None` if something else refers to their
    /// memory or they do not lie so.
    pub(crate) fn unshared_mut<T: Scalar>(&mut self) -> Option<&mut [T]> {
        let inner = Arc::get_mut(&mut self.0)?;
        let (from, numel) = (inner.layout.offset(), inner.layout.numel());
        let buffer = Arc::get_mut(&mut inner.storage)?.unshared_mut()?;
        inner
            .layout
            .is_contiguous()
            .then(|| &mut buffer.as_mut_slice()[from..from + numel])
    }

    /// The buffer of a contiguous tensor that nothing else refers to, so that its memory can be
    /// written again; otherwise the tensor as it was.
    pub(crate) fn try_into_buffer(self) -> Result<Buffer, Self> {
        if !self.is_contiguous() || self.layout().offset() != 0 {
            return Err(self);
        }
        self.try_into_parts().map(|(buffer, _)| buffer)
    }

    /// The buffer of a tensor that nothing else refers to, and where its elements lie there; otherwise
    /// the tensor as it was.
    pub(crate) fn try_into_parts(self) -> Result<(Buffer, Layout), Self> {
        let Inner {
            storage,
            layout,
            dtype,
            origin,
        } = Arc::try_unwrap(self.0).map_err(Self)?;
        let storage = match Arc::try_unwrap(storage).map(Storage::try_into_buffer) {
            Ok(Ok(buffer)) => return Ok((buffer, layout)),
            Ok(Err(storage)) => Arc::new(storage),
            Err(shared) => shared,
        };
        Err(Self(Arc::new(Inner {
            storage,
            layout,
            dtype,
            origin,
        })))
    }
}

/// The shapes and dtypes that an error names, of tensors.
impl Tensor {
    pub(crate) fn operand(&self) -> Operand<'_> {
        (self.shape(), self.dtype())
    }
}

impl<'a> Call<'a> {
    pub(crate) fn on(op: &'static str, x: &'a Tensor) -> Self {
        Self::new(op, Operands::One(x.operand()))
    }

    pub(crate) fn on_two(op: &'static str, left: &'a Tensor, right: &'a Tensor) -> Self {
        Self::new(op, Operands::Two(left.operand(), right.operand()))
    }

    /// An error unless `x` has this shape and dtype.
    pub(crate) fn expect(self, x: &Tensor, shape: &[usize], dtype: DType) -> Result<()> {
        self.expect_operand(x.operand(), shape, dtype)
    }
}

/// Of each tensor, for a [`Call`] on [several](Operands::Several).
pub(crate) fn operands<'t>(tensors: &[&'t Tensor]) -> Vec<Operand<'t>> {
    tensors.iter().map(|tensor| tensor.operand()).collect()
}

impl Error {
    /// The error of an operation of your own on these tensors.
    ///
    /// ```
    /// use sorix_core::{Error, ErrorKind, tensor};
    /// let error = Error::new("last", &[&tensor(1.0_f32)], ErrorKind::Axis { axis: -1 });
    /// assert_eq!(error.to_string(), "last(float32[]): axis -1 is out of range");
    /// ```
    #[must_use]
    pub fn new(op: &'static str, operands: &[&Tensor], kind: ErrorKind) -> Self {
        Call::new(op, Operands::Several(&self::operands(operands))).error(kind)
    }
}

impl TensorSpec {
    /// The shape and dtype of `tensor`.
    #[must_use]
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(tensor.shape(), tensor.dtype())
    }
}

/// The elements of a tensor at one moment.
pub(crate) struct Snapshot<'t> {
    buffer: Arc<Buffer>,
    layout: &'t Layout,
}

impl Snapshot<'_> {
    /// What [`storage`](Self::storage) holds of the tensor.
    pub(crate) fn layout(&self) -> &Layout {
        self.layout
    }

    /// The whole storage, of which a view may have a part.
    pub(crate) fn storage<T: Scalar>(&self) -> &[T] {
        self.buffer.as_slice()
    }

    /// The elements, if they lie in row-major order.
    pub(crate) fn slice<T: Scalar>(&self) -> Option<&[T]> {
        let from = self.layout.offset();
        self.layout
            .is_contiguous()
            .then(|| &self.buffer.as_slice()[from..from + self.layout.numel()])
    }

    /// The elements of a tensor that is known to be contiguous.
    pub(crate) fn contiguous<T: Scalar>(&self) -> &[T] {
        self.slice().expect("the caller made the tensor contiguous")
    }

    pub(crate) fn view<T: Scalar>(&self) -> ArrayViewD<'_, T> {
        self.layout.view(self.buffer.as_slice())
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Tensor");
        fields
            .field("shape", &self.shape())
            .field("dtype", &format_args!("{}", self.dtype()))
            .field("needs_grad", &self.needs_grad());
        if let Origin::Computed(node) = self.origin() {
            fields.field("function", &node.function_name());
        }
        fields.finish()
    }
}
