//! Rows: what some axes hold for each place of the others, and what becomes of them.

use super::{Array, Dual, place, resolve};

impl Array {
    /// `f` of each row, without those axes or with them at length 1; `None` where `f` has no value,
    /// also for an empty row that is not there.
    pub(crate) fn reduce(
        &self,
        axes: &[isize],
        keepdim: bool,
        f: impl Fn(&[Dual]) -> Option<Dual>,
    ) -> Option<Self> {
        let axes = resolve(axes, self.shape.len())?;
        if axes.iter().any(|&axis| self.shape[axis] == 0) {
            f(&[])?;
        }
        let (mut shape, rows) = self.rows(&axes);
        let elements = rows.iter().map(|places| f(&self.row(places)));
        let elements = elements.collect::<Option<_>>()?;
        if !keepdim {
            let left = (0..shape.len()).filter(|axis| !axes.contains(axis));
            shape = left.map(|axis| shape[axis]).collect();
        }
        Some(Self { shape, elements })
    }

    /// Each row as `f` makes it.
    pub(crate) fn along(&self, axes: &[isize], f: impl Fn(&[Dual]) -> Vec<Dual>) -> Option<Self> {
        let (_, rows) = self.rows(&resolve(axes, self.shape.len())?);
        let mut result = self.clone();
        for places in rows {
            for (place, x) in places.iter().zip(f(&self.row(&places))) {
                result.elements[*place] = x;
            }
        }
        Some(result)
    }

    /// The shape with `axes` at length 1, and for each of its elements the places of a row, in
    /// row-major order.
    fn rows(&self, axes: &[usize]) -> (Vec<usize>, Vec<Vec<usize>>) {
        let mut shape = self.shape.clone();
        axes.iter().for_each(|&axis| shape[axis] = 1);
        let mut rows = vec![Vec::new(); shape.iter().product()];
        let mut next = 0;
        Self::from_fn(&self.shape, |index| {
            rows[place(&shape, index)].push(next);
            next += 1;
            Dual::default()
        });
        (shape, rows)
    }

    fn row(&self, places: &[usize]) -> Vec<Dual> {
        places.iter().map(|&place| self.elements[place]).collect()
    }
}

pub(crate) fn sum(row: &[Dual]) -> Dual {
    row.iter().fold(Dual::default(), |sum, &x| sum + x)
}

pub(crate) fn mean(row: &[Dual]) -> Dual {
    match row.len() {
        0 => Dual::constant(f64::NAN),
        n => sum(row) * Dual::constant(1.0 / n as f64),
    }
}

/// The largest; those that are equally large share its derivative.
pub(crate) fn largest(row: &[Dual]) -> Option<Dual> {
    let value = row.iter().map(|x| x.value).reduce(f64::max)?;
    let chosen: Vec<Dual> = row.iter().copied().filter(|x| x.value == value).collect();
    let tangent = mean(&chosen).tangent;
    Some(Dual { value, tangent })
}

pub(crate) fn smallest(row: &[Dual]) -> Option<Dual> {
    let opposite: Vec<Dual> = row.iter().map(|&x| -x).collect();
    largest(&opposite).map(|x| -x)
}

/// The place of the largest, of the first where several are.
pub(crate) fn first_largest(row: &[Dual]) -> Option<Dual> {
    let largest = largest(row)?.value;
    let place = row.iter().position(|x| x.value == largest)?;
    Some(Dual::constant(place as f64))
}

/// The exponentials, and by how much smaller than the largest element their arguments were taken.
fn exponentials(row: &[Dual]) -> (Vec<Dual>, Dual) {
    let values = row.iter().map(|x| x.value);
    let shift = Dual::constant(values.fold(f64::NEG_INFINITY, f64::max));
    (row.iter().map(|&x| (x - shift).exp()).collect(), shift)
}

pub(crate) fn logsumexp(row: &[Dual]) -> Dual {
    let (exponentials, shift) = exponentials(row);
    match row {
        [] => shift,
        _ => sum(&exponentials).ln() + shift,
    }
}

pub(crate) fn softmax(row: &[Dual]) -> Vec<Dual> {
    let (exponentials, _) = exponentials(row);
    let sum = sum(&exponentials);
    exponentials.into_iter().map(|x| x / sum).collect()
}

pub(crate) fn log_softmax(row: &[Dual]) -> Vec<Dual> {
    let all = logsumexp(row);
    row.iter().map(|&x| x - all).collect()
}

fn centred(row: &[Dual]) -> Vec<Dual> {
    let mean = mean(row);
    row.iter().map(|&x| x - mean).collect()
}

/// The sum of the squared distances from the mean, by the number of elements less `correction`.
pub(crate) fn variance(row: &[Dual], correction: usize) -> Dual {
    let squares: Vec<Dual> = centred(row).iter().map(|&x| x * x).collect();
    match row.len().saturating_sub(correction) {
        0 => Dual::constant(f64::NAN),
        n => sum(&squares) * Dual::constant(1.0 / n as f64),
    }
}

/// The root of the variance. Its derivative at 0 is a matter of definition, and near 0 of rounding.
pub(crate) fn deviation(row: &[Dual], correction: usize) -> Dual {
    let size = row.iter().fold(1.0, |size, x| x.value.abs().max(size));
    let root = variance(row, correction).sqrt();
    root.unless(root.value < 1e-5 * size)
}

pub(crate) fn standardize(row: &[Dual], epsilon: f64) -> Vec<Dual> {
    let scale = (variance(row, 0) + Dual::constant(epsilon)).sqrt();
    centred(row).iter().map(|&x| x / scale).collect()
}

pub(crate) fn by_mean_square(row: &[Dual], epsilon: f64) -> Vec<Dual> {
    let squares: Vec<Dual> = row.iter().map(|&x| x * x).collect();
    let scale = (mean(&squares) + Dual::constant(epsilon)).sqrt();
    row.iter().map(|&x| x / scale).collect()
}
