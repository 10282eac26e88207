//! `{}` for tensors: what NumPy prints for an array of the same elements, with the dtype.
//!
//! Numbers get at most eight decimals, or as many as `{:.2}` and the like ask for, and as few as tell
//! them apart, columns are aligned, very large and very small ones switch the whole tensor to
//! scientific notation, lines wrap at 75 characters, and of more than 1000 elements only three at each
//! end of each axis are shown. If these are more than 10,000, which NumPy prints, the shape is
//! shown alone; of a tensor with more than 64 axes, which NumPy does not have, their number.

use core::fmt;

use ndarray::{ArrayViewD, Axis, Slice};

use crate::dtype::{DType, Scalar, dispatch};
use crate::tensor::Tensor;

const LINE_WIDTH: usize = 75;
const MOST_DECIMALS: usize = 8;
const SUMMARISE_ABOVE: usize = 1000;
const EDGE_ITEMS: usize = 3;
/// Axes of up to twice [`EDGE_ITEMS`] are not shortened, and there may be many of them.
const MOST_SHOWN: usize = 10_000;
const PREFIX: &str = "tensor(";
/// More than NumPy has; brackets within brackets say nothing then, and are written by recursion.
const MOST_AXES: usize = 64;

/// Prints what NumPy prints for such an array. A precision is the most decimals of a number, as that
/// of NumPy's `printoptions` is; without one they are eight.
///
/// ```
/// use sorix_core::tensor;
/// let x = tensor([[0.5, 10.0], [-1.25, f64::NAN]]);
/// assert_eq!(x.to_string(), "\
/// tensor([[ 0.5 , 10.  ],
///         [-1.25,   nan]], dtype=sorix.float64)");
/// let thirds = tensor([1.0 / 3.0, 0.5]);
/// assert_eq!(format!("{thirds:.2}"), "tensor([0.33, 0.5 ], dtype=sorix.float64)");
/// ```
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(MOST_DECIMALS);
        let too_many = self.ndim() <= MOST_AXES && shown(self.shape()) > MOST_SHOWN;
        let body = if self.numel() == 0 {
            "[]".to_owned()
        } else if self.ndim() > MOST_AXES {
            format!("[...], ndim={}", self.ndim())
        } else if too_many {
            "[...]".to_owned()
        } else {
            let snapshot = self.read();
            dispatch!(self.dtype(), T => body(snapshot.view::<T>(), decimals))
        };
        write!(f, "{PREFIX}{body},")?;

        let mut extras = format!("dtype={})", self.dtype());
        if too_many || self.numel() == 0 && self.ndim() > 1 {
            extras.insert_str(0, &format!("shape={:?}, ", self.shape()));
        }
        // The first line begins after the prefix, the others are indented by as much.
        let last_line = match body.rsplit_once('\n') {
            Some((_, line)) => line.len(),
            None => PREFIX.len() + body.len(),
        };
        if last_line + ", ".len() + extras.len() > LINE_WIDTH {
            write!(f, "\n{:indent$}{extras}", "", indent = PREFIX.len())
        } else {
            write!(f, " {extras}")
        }
    }
}

fn body<T: Scalar>(elements: ArrayViewD<'_, T>, decimals: usize) -> String {
    let summarise = elements.len() > SUMMARISE_ABOVE;
    let mut shown = Vec::new();
    collect_shown(elements.view(), summarise, &mut shown);
    let format = NumberFormat::for_numbers(&shown, decimals);
    // The closing parenthesis belongs to the width.
    render(
        elements,
        &format,
        summarise,
        &" ".repeat(PREFIX.len()),
        LINE_WIDTH - 1,
    )
}

/// How many elements of a tensor of this shape to show.
fn shown(shape: &[usize]) -> usize {
    let summarise = shape.iter().product::<usize>() > SUMMARISE_ABOVE;
    let of_axis = |&length| edge(length, summarise).map_or(length, |edge| 2 * edge);
    shape.iter().map(of_axis).fold(1, usize::saturating_mul)
}

/// How many indices of an axis to show at each end: `None` for all of them.
fn edge(length: usize, summarise: bool) -> Option<usize> {
    (summarise && length > 2 * EDGE_ITEMS).then_some(EDGE_ITEMS)
}

fn collect_shown<T: Scalar>(elements: ArrayViewD<'_, T>, summarise: bool, shown: &mut Vec<T>) {
    let axis = Axis(0);
    let Some(&length) = elements.shape().first() else {
        shown.extend(elements.first());
        return;
    };
    let ends = match edge(length, summarise) {
        None => vec![elements.view()],
        Some(edge) => vec![
            elements.slice_axis(axis, Slice::from(..edge)),
            elements.slice_axis(axis, Slice::from(length - edge..)),
        ],
    };
    for end in &ends {
        for part in end.axis_iter(axis) {
            collect_shown(part, summarise, shown);
        }
    }
}

/// The text of an array whose opening bracket stands after `indent` on a line of `width`.
fn render<T: Scalar>(
    elements: ArrayViewD<'_, T>,
    format: &NumberFormat,
    summarise: bool,
    indent: &str,
    width: usize,
) -> String {
    let Some(&length) = elements.shape().first() else {
        return elements
            .first()
            .map_or_else(String::new, |&element| format.format(element));
    };
    let inner_indent = format!("{indent} ");
    // None stands for the ellipsis.
    let shown: Vec<Option<usize>> = match edge(length, summarise) {
        None => (0..length).map(Some).collect(),
        Some(edge) => {
            let (first, last) = (0..edge, length - edge..length);
            first
                .map(Some)
                .chain([None])
                .chain(last.map(Some))
                .collect()
        }
    };
    let items = shown.iter().map(|&index| match index {
        Some(index) => {
            let part = elements.index_axis(Axis(0), index);
            render(part, format, summarise, &inner_indent, width - "]".len())
        }
        None => "...".to_owned(),
    });
    let inside = if elements.ndim() == 1 {
        wrap(items, &inner_indent, width - "]".len())
    } else {
        let separator = format!(",{}{inner_indent}", "\n".repeat(elements.ndim() - 1));
        items.collect::<Vec<_>>().join(&separator)
    };
    format!("[{inside}]")
}

/// Words separated by `, `, on lines of at most `width` of which all but the first are indented.
fn wrap(words: impl Iterator<Item = String>, indent: &str, width: usize) -> String {
    let mut text = String::new();
    let mut column = indent.len();
    for (i, word) in words.enumerate() {
        if i > 0 {
            text.push(',');
            column += ", ".len();
            if column + word.len() > width && column > indent.len() {
                text.push('\n');
                text.push_str(indent);
                column = indent.len();
            } else {
                text.push(' ');
            }
        }
        text.push_str(&word);
        column += word.len();
    }
    text
}

/// How all numbers of one tensor are written.
struct NumberFormat {
    /// Digits after the point in scientific notation, or `None` for positional notation.
    scientific: Option<usize>,
    /// The widths left and right of the point; in scientific notation that on the right includes
    /// the exponent.
    left: usize,
    right: usize,
    /// Digits of the exponent.
    exponent: usize,
    /// The most digits after the point.
    decimals: usize,
}

impl NumberFormat {
    fn for_numbers<T: Scalar>(numbers: &[T], decimals: usize) -> Self {
        let finite: Vec<T> = numbers
            .iter()
            .copied()
            .filter(|x| x.to_f64().is_finite())
            .collect();
        let magnitudes = || {
            finite
                .iter()
                .map(|x| x.to_f64().abs())
                .filter(|&x| x != 0.0)
        };
        let largest = magnitudes().fold(0.0, f64::max);
        let smallest = magnitudes().fold(f64::INFINITY, f64::min);
        let scientific = largest >= integers_below::<T>()
            || smallest < 1e-4
            || (largest > 0.0 && largest / smallest > 1000.0);

        let mut format = Self {
            scientific: None,
            left: 0,
            right: 0,
            exponent: 0,
            decimals,
        };
        if scientific {
            let parts = || finite.iter().map(|&x| Scientific::shortest(x, decimals));
            let precision = parts().map(|p| p.fraction().len()).max().unwrap_or(0);
            format.scientific = Some(precision);
            format.exponent = parts()
                .map(|p| p.exponent_digits().len())
                .max()
                .unwrap_or(0);
            format.left = parts().map(|p| p.integer().len()).max().unwrap_or(0);
            format.right = precision + "e+".len() + format.exponent;
        } else {
            for &x in &finite {
                let text = positional(x, decimals);
                let (integer, fraction) = text.split_once('.').unwrap_or((&text, ""));
                format.left = format.left.max(integer.len());
                format.right = format.right.max(fraction.len());
            }
        }
        for x in numbers
            .iter()
            .map(|x| x.to_f64())
            .filter(|x| !x.is_finite())
        {
            let room = format.right + ".".len();
            format.left = format.left.max(non_finite(x).len().saturating_sub(room));
        }
        format
    }

    fn format<T: Scalar>(&self, x: T) -> String {
        let (left, right) = (self.left, self.right);
        if !x.to_f64().is_finite() {
            return format!(
                "{:>width$}",
                non_finite(x.to_f64()),
                width = left + 1 + right
            );
        }
        let Some(precision) = self.scientific else {
            let text = positional(x, self.decimals);
            let (integer, fraction) = text.split_once('.').unwrap_or((&text, ""));
            return format!("{integer:>left$}.{fraction:<right$}");
        };
        let number = Scientific::rounded(x, precision);
        format!(
            "{:>left$}.{}e{}{:0>exponent$}",
            number.integer(),
            number.fraction(),
            number.sign,
            number.exponent_digits(),
            exponent = self.exponent
        )
    }
}

/// Where positional notation would show digits that the dtype does not have.
fn integers_below<T: Scalar>() -> f64 {
    match T::DTYPE {
        DType::BF16 => 1e2,
        DType::F16 => 1e3,
        DType::F32 => 1e6,
        DType::F64 => 1e8,
    }
}

fn non_finite(x: f64) -> &'static str {
    if x.is_nan() {
        "nan"
    } else if x > 0.0 {
        "inf"
    } else {
        "-inf"
    }
}

/// As few decimals as identify the number, but at most so many; a point, but no zeros at the end.
fn positional<T: Scalar>(x: T, decimals: usize) -> String {
    let mut text = shortest(x);
    if text
        .split_once('.')
        .is_some_and(|(_, fraction)| fraction.len() > decimals)
    {
        text = format!("{:.decimals$}", x.to_f64());
    }
    match text.contains('.') {
        true => text.truncate(text.trim_end_matches('0').len()),
        false => text.push('.'),
    }
    text
}

/// The decimal number of fewest digits that rounds to this one, the nearest of those, in positional
/// notation.
fn shortest<T: Scalar>(x: T) -> String {
    if T::DTYPE == T::Acc::DTYPE {
        return x.to_string();
    }
    // f16 and bf16 print the digits of an f32, more than identify them.
    let mut candidates = (0..).flat_map(|decimals| neighbours(x.to_f64(), decimals));
    let found = candidates.find(|&candidate| T::nearest(candidate) == x);
    found.map_or_else(String::new, |candidate| candidate.to_string())
}

/// The numbers of so many digits after the first that lie around `x`, the nearest first. At a power of
/// two, below which numbers of a dtype lie closer together than above, the nearest may round to another
/// one where the next does not.
fn neighbours(x: f64, decimals: usize) -> impl Iterator<Item = f64> {
    let nearest = format!("{x:.decimals$e}");
    let (digits, exponent) = nearest.split_once('e').unwrap_or((&nearest, "0"));
    let digits: i64 = digits.replace('.', "").parse().unwrap_or(0);
    let exponent = exponent.parse().unwrap_or(0) - decimals as i32;
    let next = [1, -1].map(|step| format!("{}e{exponent}", digits + step));
    let texts = core::iter::once(nearest).chain(next);
    texts.filter_map(|text| text.parse().ok())
}

/// The number of digits of a number in positional notation, without zeros at either end.
fn significant(text: &str) -> usize {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    digits.trim_matches('0').len()
}

/// A number as `digits e exponent`.
struct Scientific {
    digits: String,
    sign: char,
    exponent: u32,
}

impl Scientific {
    /// As few decimals as identify the number, but at most so many.
    fn shortest<T: Scalar>(x: T, decimals: usize) -> Self {
        let significant = significant(&shortest(x));
        let mut number = Self::rounded(x, decimals.min(significant.saturating_sub(1)));
        if number.digits.contains('.') {
            number
                .digits
                .truncate(number.digits.trim_end_matches('0').len());
        }
        number
    }

    fn rounded<T: Scalar>(x: T, decimals: usize) -> Self {
        let shortest = shortest(x);
        // Of so many digits as identify the number, those that do may not be the nearest.
        let number = match significant(&shortest) == decimals + 1 {
            true => shortest.parse().unwrap_or(x.to_f64()),
            false => x.to_f64(),
        };
        let text = format!("{number:.decimals$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        Self {
            digits: digits.to_owned(),
            sign: if exponent < 0 { '-' } else { '+' },
            exponent: exponent.unsigned_abs(),
        }
    }

    fn integer(&self) -> &str {
        self.digits
            .split_once('.')
            .map_or(&self.digits, |(integer, _)| integer)
    }

    fn fraction(&self) -> &str {
        self.digits
            .split_once('.')
            .map_or("", |(_, fraction)| fraction)
    }

    fn exponent_digits(&self) -> String {
        format!("{:02}", self.exponent)
    }
}
