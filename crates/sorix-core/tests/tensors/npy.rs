//! `.npy` files: those that NumPy wrote, those that are written here, and those nobody should write.

use std::io::{self, Write};

use crate::common::values;
use half::f16;
use sorix_core::{DType, NpyError, Tensor, tensor};

/// A file of version 1 with this header text and these bytes.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    file.extend((padded as u16).to_le_bytes());
    file.extend(format!("{header:width$}\n", width = padded - 1).bytes());
    file.extend(data);
    file
}

fn header(descr: &str, fortran: &str, shape: &str) -> String {
    format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}")
}

fn bytes<const N: usize>(numbers: &[f64], bytes: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    numbers.iter().flat_map(|&number| bytes(number)).collect()
}

const NUMBERS: [f64; 6] = [0.5, -1.0, 2.0, 3.25, -0.0, 65504.0];

#[test]
fn files_of_numpy_are_read() {
    let files = [
        ("'<f8'", bytes(&NUMBERS, f64::to_le_bytes), DType::F64),
        ("'>f8'", bytes(&NUMBERS, f64::to_be_bytes), DType::F64),
        (
            "'<f4'",
            bytes(&NUMBERS, |x| (x as f32).to_le_bytes()),
            DType::F32,
        ),
        (
            "'>f4'",
            bytes(&NUMBERS, |x| (x as f32).to_be_bytes()),
            DType::F32,
        ),
        (
            "'<f2'",
            bytes(&NUMBERS, |x| f16::from_f64(x).to_le_bytes()),
            DType::F16,
        ),
        (
            "'>f2'",
            bytes(&NUMBERS, |x| f16::from_f64(x).to_be_bytes()),
            DType::F16,
        ),
    ];
    for (descr, data, dtype) in files {
        let rows = Tensor::read_npy(&*file(&header(descr, "False", "(2, 3)"), &data)).unwrap();
        assert_eq!(
            (rows.shape(), rows.dtype()),
            (&[2, 3][..], dtype),
            "{descr}"
        );
        assert_eq!(values(&rows), NUMBERS, "{descr}");
        // The first index runs fastest.
        let columns = Tensor::read_npy(&*file(&header(descr, "True", "(2, 3)"), &data)).unwrap();
        assert_eq!(
            (columns.shape(), columns.strides()),
            (&[2, 3][..], &[1, 2][..])
        );
        assert_eq!(
            values(&columns),
            [0, 2, 4, 1, 3, 5].map(|i: usize| NUMBERS[i])
        );
    }
    let scalar = Tensor::read_npy(&*file(
        &header("'<f8'", "False", "()"),
        &1.5_f64.to_le_bytes(),
    ));
    assert_eq!(scalar.unwrap().item::<f64>().unwrap(), 1.5);
    let empty = Tensor::read_npy(&*file(&header("'<f4'", "False", "(0, 3)"), &[])).unwrap();
    assert_eq!(empty.shape(), [0, 3]);
}

#[test]
fn what_is_written_is_row_major_and_is_read_back() {
    let mut written = Vec::new();
    let x = tensor([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    x.transpose(0, 1).unwrap().write_npy(&mut written).unwrap();
    let data = bytes(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0], |x| {
        (x as f32).to_le_bytes()
    });
    let end = written.len() - data.len();
    assert_eq!((written.len() % 64, &written[end..]), (24, &data[..]));
    let text = std::str::from_utf8(&written[10..end]).unwrap();
    assert!(
        text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2, ), }"),
        "{text}"
    );

    for shape in [&[][..], &[0], &[5], &[2, 3, 2]] {
        for dtype in [DType::F16, DType::F32, DType::F64] {
            let x = crate::common::random(shape, 1).to_dtype(dtype).unwrap();
            let mut written = Vec::new();
            x.write_npy(&mut written).unwrap();
            let y = Tensor::read_npy(written.as_slice()).unwrap();
            assert_eq!(
                (y.shape(), y.dtype(), values(&y)),
                (x.shape(), dtype, values(&x))
            );
        }
    }
    let error = tensor(half::bf16::ONE).write_npy(Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "write_npy(bfloat16[]): the format has no sorix.bfloat16; convert with to_dtype"
    );
}

/// More than is read and written at once, and not a multiple of it.
#[test]
fn long_files_are_whole() {
    let x = crate::common::random(&[3, 70_001], 1);
    for x in [x.clone(), x.transpose(0, 1).unwrap()] {
        let mut written = Vec::new();
        x.write_npy(&mut written).unwrap();
        let y = Tensor::read_npy(written.as_slice()).unwrap();
        assert_eq!((y.shape(), values(&y)), (x.shape(), values(&x)));
    }
    let numbers = values(&x);
    let data = bytes(&numbers, f64::to_be_bytes);
    let y = Tensor::read_npy(&*file(&header("'>f8'", "False", "(210003,)"), &data)).unwrap();
    assert_eq!(values(&y), numbers);
}

/// Takes so many bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        match taken {
            0 => Err(io::Error::from(io::ErrorKind::StorageFull)),
            taken => Ok(taken),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_is_full() {
    for x in [
        crate::common::random(&[2, 3], 1),
        crate::common::random(&[3, 2], 1).transpose(0, 1).unwrap(),
    ] {
        let mut file = Vec::new();
        x.write_npy(&mut file).unwrap();
        x.write_npy(Disk(file.len())).unwrap();
        for room in 0..file.len() {
            assert_eq!(
                x.write_npy(Disk(room)).unwrap_err().to_string(),
                "write_npy(float64[2, 3]): no storage space"
            );
        }
    }
}

#[test]
fn a_file_that_lies_is_an_error() {
    let nested = format!("{}{}", "[".repeat(4000), "]".repeat(4000));
    let deep = format!("[('a', '<f4', ({}))]", "1, ".repeat(2000));
    let shapes = [
        // Promises more than any memory has, or than an index can count, or than there is.
        "(1000000000000,)",
        "(18446744073709551615,)",
        "(184467440737095516160,)",
        "(9223372036854775808, 4, 0)",
        "(0, 9223372036854775808, 4)",
        "(4294967296, 4294967296)",
        "(-1,)",
        "(2.5,)",
        "('a',)",
        "3",
        "(4,)",
    ];
    let descrs = [
        "'<i8'",
        "'|O'",
        "'<c16'",
        "'<f3'",
        "'f'",
        "''",
        "3",
        "[('a', '<f4')]",
        &nested,
        &deep,
    ];
    let headers = shapes
        .map(|shape| header("'<f8'", "False", shape))
        .into_iter()
        .chain(descrs.map(|descr| header(descr, "False", "(3,)")))
        .chain(["", "{}", "{'descr': '<f8'}", "()", "\u{fffd}"].map(str::to_owned))
        .chain([header("'<f8'", "3", "(3,)")]);
    for header in headers {
        // Only the last of the shapes is one that data falls short of.
        let result = Tensor::read_npy(&*file(&header, &[0; 24]));
        assert!(result.is_err(), "{header:.80}: {result:?}");
    }
}

#[test]
fn a_file_that_ends_too_soon_is_an_error_wherever_it_ends() {
    let whole = file(&header("'<f8'", "False", "(3,)"), &[0; 24]);
    assert!(Tensor::read_npy(&*whole).is_ok());
    for end in 0..whole.len() {
        let error = Tensor::read_npy(&whole[..end]).unwrap_err();
        assert!(
            matches!(error, NpyError::Io { op: "read_npy", .. }),
            "{end}: {error}"
        );
        let header = whole.len() - 24 - 10;
        let got = |count: usize| match count {
            0 => "the end of the stream".to_owned(),
            count => format!("{count} bytes and the end of the stream"),
        };
        let message = if end < 10 {
            let got = got(end);
            format!("read_npy: expected the 10 bytes of the beginning of an .npy file, got {got}")
        } else if end < 10 + header {
            let got = got(end - 10);
            format!("read_npy: expected the {header} bytes of its header, got {got}")
        } else {
            "read_npy(float64[3]): the file ends before its elements do".to_owned()
        };
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn errors_say_what_was_wrong() {
    let mut long = b"\x93NUMPY\x02\x00".to_vec();
    long.extend(u32::MAX.to_le_bytes());
    let rows = [
        (
            long,
            "read_npy: expected a header of at most 10000 bytes, got 4294967295",
        ),
        (
            file(&header("'<i8'", "False", "(3,)"), &[0; 24]),
            "read_npy: expected elements of type f2, f4 or f8, got '<i8'",
        ),
        (
            file("{'descr': [('a', '<f4')]}", &[]),
            "read_npy: expected the header of a plain array, got {'descr': [('a', '<f4')]}",
        ),
        (
            file(&header("'<f4'", "False", "(4294967296, 4294967296)"), &[]),
            "read_npy(float32[4294967296, 4294967296]): a tensor of shape [4294967296, 4294967296] \
             and dtype sorix.float32 is too large to address",
        ),
        (
            b"not an npy file, but long enough".to_vec(),
            r"read_npy: expected a file that begins with \x93NUMPY, got not an",
        ),
        (
            b"\x93NUMPY\x04\x00\x10\x00".to_vec(),
            "read_npy: expected version 1, 2 or 3 of the format, got 4",
        ),
        (
            file("{'descr': '<f8', 'shape': (1,)}", &[0; 8]),
            "read_npy: expected the header of a plain array, got {'descr': '<f8', 'shape': (1,)}",
        ),
    ];
    for (file, message) in rows {
        assert_eq!(
            Tensor::read_npy(file.as_slice()).unwrap_err().to_string(),
            message
        );
    }
}

/// `L` after integers and `u` before strings are Python 2's; `=`, `|` and nothing are the machine's order.
#[test]
fn headers_of_python_2_and_native_orders_are_read() {
    let native = bytes(&NUMBERS, f64::to_ne_bytes);
    let little = bytes(&NUMBERS, f64::to_le_bytes);
    let big = bytes(&NUMBERS, f64::to_be_bytes);
    let rows = [
        (
            "{'descr': '<f8', 'fortran_order': False, 'shape': (6L,), }",
            &little,
            &[6][..],
        ),
        (
            "{'descr': '>f8', 'fortran_order': False, 'shape': (2L, 3L), }",
            &big,
            &[2, 3],
        ),
        (
            "{'shape': (3l,2), u'descr': u'<f8', U'fortran_order': False}",
            &little,
            &[3, 2],
        ),
        (
            "{u\"descr\": u\"<f8\", \"fortran_order\": False, \"shape\": [6]}",
            &little,
            &[6],
        ),
        (
            "{'descr': '=f8', 'fortran_order': False, 'shape': (6,), }",
            &native,
            &[6],
        ),
        (
            "{'descr': '|f8', 'fortran_order': False, 'shape': (6,), }",
            &native,
            &[6],
        ),
        (
            "{'descr': 'f8', 'fortran_order': False, 'shape': (6,), }",
            &native,
            &[6],
        ),
    ];
    for (header, data, shape) in rows {
        let x = Tensor::read_npy(&*file(header, data)).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (x.shape(), values(&x)),
            (shape, NUMBERS.to_vec()),
            "{header}"
        );
    }
    for header in [
        "{'descr': '<f8L', 'fortran_order': False, 'shape': (6,), }",
        "{'descr': '<<f8', 'fortran_order': False, 'shape': (6,), }",
        "{'descr': 'uf8', 'fortran_order': False, 'shape': (6,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (L6,), }",
    ] {
        let result = Tensor::read_npy(&*file(header, &little));
        assert!(result.is_err(), "{header}");
    }
}

/// As several calls of `numpy.save` write them, also in a reader that gives a byte at a time.
#[test]
fn arrays_one_after_another_are_read_one_by_one() {
    struct Slow<'a>(&'a [u8]);

    impl io::Read for Slow<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let count = bytes.len().min(1);
            self.0.read(&mut bytes[..count])
        }
    }

    let arrays = [
        tensor([1.0, 2.0]),
        tensor(3.0),
        Tensor::zeros([0, 2], DType::F64).unwrap(),
        crate::common::random(&[300, 200], 2),
        tensor([4.0]),
    ];
    let mut file = Vec::new();
    for x in &arrays {
        x.write_npy(&mut file).unwrap();
    }
    let (mut stream, mut slow) = (file.as_slice(), Slow(&file));
    for x in &arrays {
        for y in [Tensor::read_npy(&mut stream), Tensor::read_npy(&mut slow)] {
            let y = y.unwrap();
            assert_eq!((y.shape(), values(&y)), (x.shape(), values(x)));
        }
    }
    assert_eq!(
        Tensor::read_npy(&mut stream).unwrap_err().to_string(),
        "read_npy: expected the 10 bytes of the beginning of an .npy file, got the end of the stream"
    );
}
