//! [`Embedding`]: a table of vectors, looked up by row.

use sorix_core::autograd::no_grad;
use sorix_core::{DType, Tensor};

use crate::error::{Error, Result, short};
use crate::generator::Generator;
use crate::init;
use crate::module::Module;

/// Rows of a table, `weight` of shape `[rows, width]`.
///
/// ```
/// use sorix_core::tensor;
/// use sorix_nn::{Embedding, Module};
///
/// let table = Embedding::from_tensor(tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))?;
/// assert_eq!(table.lookup(&[2, 0])?.to_vec::<f64>()?, [5.0, 6.0, 1.0, 2.0]);
/// // As a module: whole numbers of any shape, to vectors.
/// assert_eq!(table.forward(&tensor([[1.0], [0.0]]))?.shape(), [2, 1, 2]);
/// assert_eq!(
///     table.forward(&tensor([0.5])).unwrap_err().to_string(),
///     "Embedding: expected whole numbers in 0..3, got 0.5"
/// );
/// # Ok::<(), sorix_nn::Error>(())
/// ```
#[derive(Clone, Debug, Module)]
pub struct Embedding {
    #[module(parameter)]
    weight: Tensor,
    padding: Option<usize>,
}

impl Embedding {
    /// A table of f32, drawn from the standard normal distribution, as in PyTorch; the generator
    /// gives one key.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_nn::{Embedding, Generator};
    /// let table = Embedding::new(100, 50, &Generator::new(42))?;
    /// assert_eq!(table.weight().shape(), [100, 50]);
    /// assert!((table.weight().std(0)?.item::<f32>()? - 1.0).abs() < 0.05);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn new(rows: usize, width: usize, generator: &Generator) -> Result<Self> {
        Self::with_dtype(rows, width, DType::F32, generator)
    }

    /// [`new`](Self::new), of another dtype.
    ///
    /// # Errors
    ///
    /// If allocation fails.
    ///
    /// ```
    /// use sorix_core::DType;
    /// use sorix_nn::{Embedding, Generator};
    /// let table = Embedding::with_dtype(10, 5, DType::BF16, &Generator::new(42))?;
    /// assert_eq!(table.lookup(&[7])?.dtype(), DType::BF16);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn with_dtype(
        rows: usize,
        width: usize,
        dtype: DType,
        generator: &Generator,
    ) -> Result<Self> {
        let weight = Tensor::zeros([rows, width], dtype)?;
        init::normal(&weight, 0.0, 1.0, generator)?;
        Self::from_tensor(weight)
    }

    /// This table, of shape `[rows, width]`. It becomes a leaf that requires a gradient, if it is not
    /// one already.
    ///
    /// # Errors
    ///
    /// If it has more or fewer than two axes.
    ///
    /// ```
    /// use sorix_core::tensor;
    /// use sorix_nn::Embedding;
    /// let error = Embedding::from_tensor(tensor([1.0, 2.0])).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "Embedding: expected a table of shape [rows, width], got shape [2]"
    /// );
    /// ```
    pub fn from_tensor(weight: Tensor) -> Result<Self> {
        if weight.ndim() != 2 {
            return Err(Error::shape(
                "Embedding",
                "a table of shape [rows, width]",
                weight.shape(),
            ));
        }
        Ok(Self {
            weight: weight.requires_grad(true),
            padding: None,
        })
    }

    /// With a row that stands for padding: it gets no gradient, and so stays as it is. Its numbers are set to
    /// zeros now; what is loaded or assigned later counts. PyTorch's `padding_idx`.
    ///
    /// # Errors
    ///
    /// If the table has no such row or is [expanded](Tensor::is_expanded), or if allocation fails.
    ///
    /// ```
    /// use sorix_core::{DType, Tensor, tensor};
    /// use sorix_nn::Embedding;
    ///
    /// let table = Embedding::from_tensor(Tensor::ones([3, 2], DType::F64)?)?.padding_idx(0)?;
    /// let y = table.lookup(&[2, 0, 2])?;
    /// assert_eq!(y.to_vec::<f64>()?, [1.0, 1.0, 0.0, 0.0, 1.0, 1.0]);
    /// y.sum()?.backward()?;
    /// assert_eq!(table.weight().grad().unwrap().to_vec::<f64>()?, [0.0, 0.0, 0.0, 0.0, 2.0, 2.0]);
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn padding_idx(self, row: usize) -> Result<Self> {
        if row >= self.rows() {
            return Err(self.not_a_row(row.to_string()));
        }
        init::check_writable("Embedding", &self.weight)?;
        no_grad(|| {
            let row = self.weight.slice(0, row..row + 1)?;
            row.assign(&Tensor::zeros(row.shape(), row.dtype())?)
        })?;
        let padding = Some(row);
        Ok(Self { padding, ..self })
    }

    /// The table, of shape `[rows, width]`.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The rows of these numbers, `[rows.len(), width]`. A row may be named several times; its gradients
    /// add up.
    ///
    /// # Errors
    ///
    /// If the table has no such row.
    ///
    /// ```
    /// use sorix_nn::{Embedding, Generator};
    /// let table = Embedding::new(3, 2, &Generator::new(42))?;
    /// assert_eq!(
    ///     table.lookup(&[3]).unwrap_err().to_string(),
    ///     "Embedding: expected whole numbers in 0..3, got 3"
    /// );
    /// # Ok::<(), sorix_nn::Error>(())
    /// ```
    pub fn lookup(&self, rows: &[usize]) -> Result<Tensor> {
        if let Some(&row) = rows.iter().find(|&&row| row >= self.rows()) {
            return Err(self.not_a_row(row.to_string()));
        }
        self.vectors(&self.weight, rows, &[rows.len()])
    }

    /// These rows of the table, or of what dropout made of it, in the shape of the numbers that named them.
    pub(crate) fn vectors(
        &self,
        table: &Tensor,
        rows: &[usize],
        shape: &[usize],
    ) -> Result<Tensor> {
        let width = table.shape()[1];
        let mut vectors = table.index_select(0, rows)?;
        if rows.iter().any(|&row| Some(row) == self.padding) && vectors.needs_grad() {
            // Its own, without the way back to the table.
            let is_padding = rows
                .iter()
                .map(|&row| f64::from(u8::from(Some(row) == self.padding)));
            let is_padding: Vec<f64> = is_padding.collect();
            let is_padding = Tensor::from_vec(is_padding, [rows.len(), 1])?;
            let is_padding = is_padding.to_dtype(vectors.dtype())?;
            vectors = is_padding.where_cond(&vectors.detach(), &vectors)?;
        }
        Ok(vectors.reshape([shape, &[width]].concat())?)
    }

    fn rows(&self) -> usize {
        self.weight.shape()[0]
    }

    fn not_a_row(&self, got: String) -> Error {
        Error::Index {
            layer: "Embedding",
            count: self.rows(),
            got,
        }
    }

    /// The rows that `x` names.
    pub(crate) fn rows_of(&self, x: &Tensor) -> Result<Vec<usize>> {
        let exact: u64 = match x.dtype() {
            DType::F16 => 1 << 11,
            DType::BF16 => 1 << 8,
            DType::F32 => 1 << 24,
            _ => 1 << 53,
        };
        if self.rows() as u64 > exact + 1 {
            return Err(Error::IndexType {
                layer: "Embedding",
                count: self.rows(),
                dtype: x.dtype(),
            });
        }
        let values = x.to_dtype(DType::F64)?.to_vec::<f64>()?.into_iter();
        let rows = values.map(|value| {
            let row = value as usize;
            if row as f64 == value && row < self.rows() {
                Ok(row)
            } else {
                Err(self.not_a_row(short(value)))
            }
        });
        rows.collect()
    }
}

impl Module for Embedding {
    /// From whole numbers of shape `[…]` to `[…, width]`; no gradient flows to them. Their dtype has to
    /// hold the number of every row: f32 holds those up to 2^24, f16 up to 2^11, bf16 up to 2^8.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.vectors(&self.weight, &self.rows_of(x)?, x.shape())
    }
}
