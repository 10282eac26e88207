//! `{}` for tensors: what NumPy prints for an array of the same elements, with the dtype.
//!
//! Numbers get at most eight decimals and as few as tell them apart, columns are aligned, very large
//! and very small ones switch the whole tensor to scientific notation, lines wrap at 75 characters,
//! and of more than 1000 elements only three at each end of each axis are shown. Of a tensor with more
//! than 64 axes, which NumPy does not have, nothing is shown but their number.

use core::fmt;

use ndarray::{ArrayViewD, Axis, Slice};

use crate::dtype::{DType, Scalar, dispatch};
use crate::tensor::Tensor;

const LINE_WIDTH: usize = 75;
const PRECISION: usize = 8;
const SUMMARISE_ABOVE: usize = 1000;
const EDGE_ITEMS: usize = 3;
const PREFIX: &str = "tensor(";
/// More than NumPy has; brackets within brackets say nothing then, and are written by recursion.
const MOST_AXES: usize = 64;

/// Prints what NumPy prints for such an array.
///
/// ```
/// use sorix_core::tensor;
/// let x = tensor([[0.5, 10.0], [-1.25, f64::NAN]]);
/// assert_eq!(x.to_string(), "\
/// tensor([[ 0.5 , 10.  ],
///         [-1.25,   nan]], dtype=sorix.float64)");
/// ```
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = if self.numel() == 0 {
            "[]".to_owned()
        } else if self.ndim() > MOST_AXES {
            format!("[...], ndim={}", self.ndim())
        } else {
            let snapshot = self.read();
            dispatch!(self.dtype(), T => body(snapshot.view::<T>()))
        };
        write!(f, "{PREFIX}{body},")?;

        let mut extras = format!("dtype={})", self.dtype());
        if self.numel() == 0 && self.ndim() > 1 {
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

fn body<T: Scalar>(elements: ArrayViewD<'_, T>) -> String {
    let summarise = elements.len() > SUMMARISE_ABOVE;
    let mut shown = Vec::new();
    collect_shown(elements.view(), summarise, &mut shown);
    let format = NumberFormat::for_numbers(&shown);
    // The closing parenthesis belongs to the width.
    render(
        elements,
        &format,
        summarise,
        &" ".repeat(PREFIX.len()),
        LINE_WIDTH - 1,
    )
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
}

impl NumberFormat {
    fn for_numbers<T: Scalar>(numbers: &[T]) -> Self {
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
        };
        if scientific {
            let parts = || finite.iter().map(|&x| Scientific::shortest(x));
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
                let text = positional(x);
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
            let text = positional(x);
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

/// As few decimals as identify the number, but at most eight; a point, but no zeros at the end.
fn positional<T: Scalar>(x: T) -> String {
    let mut text = shortest(x);
    match text.split_once('.') {
        None => text.push('.'),
        Some((_, fraction)) if fraction.len() > PRECISION => {
            text = format!("{:.PRECISION$}", x.to_f64());
            text.truncate(text.trim_end_matches('0').len());
        }
        Some(_) => {}
    }
    text
}

/// The decimal number of fewest digits that rounds to this one, in positional notation.
fn shortest<T: Scalar>(x: T) -> String {
    if T::DTYPE == T::Acc::DTYPE {
        return x.to_string();
    }
    // f16 and bf16 print the digits of an f32, more than identify them.
    (0..)
        .map(|decimals| format!("{:.decimals$e}", x.to_f64()))
        .filter_map(|text| text.parse::<f64>().ok())
        .find(|&candidate| T::nearest(candidate) == x)
        .map_or_else(String::new, |candidate| candidate.to_string())
}

/// A number as `digits e exponent`.
struct Scientific {
    digits: String,
    sign: char,
    exponent: u32,
}

impl Scientific {
    /// As few decimals as identify the number, but at most eight.
    fn shortest<T: Scalar>(x: T) -> Self {
        let text = shortest(x);
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let significant = digits.trim_matches('0').len();
        let mut number = Self::rounded(x, PRECISION.min(significant.saturating_sub(1)));
        if number.digits.contains('.') {
            number
                .digits
                .truncate(number.digits.trim_end_matches('0').len());
        }
        number
    }

    fn rounded<T: Scalar>(x: T, decimals: usize) -> Self {
        let text = format!("{:.decimals$e}", x.to_f64());
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
