//! `.npy` files: read, or refused; what was read is written and read again.

use sorix::Tensor;

use crate::patches::File;

/// The target.
pub fn run(data: &[u8]) {
    crate::with_arbitrary(data, |file: File| {
        let mut right = Vec::new();
        let x = sorix::tensor([[1.0_f32, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        x.write_npy(&mut right).expect("f32 is written to memory");
        check(&file.bytes(&right));
    });
}

fn check(file: &[u8]) {
    let Ok(x) = Tensor::read_npy(file) else {
        return;
    };
    assert!(x.numel() * x.dtype().size() <= file.len(), "{x:?}");
    let mut written = Vec::new();
    x.write_npy(&mut written)
        .expect("what was read can be written");
    let again = Tensor::read_npy(written.as_slice()).expect("what was written can be read");
    assert_eq!((again.shape(), again.dtype()), (x.shape(), x.dtype()));
    // By bits, as NaN is not equal to itself.
    let mut rewritten = Vec::new();
    again.write_npy(&mut rewritten).expect("as above");
    assert_eq!(rewritten, written);
}
