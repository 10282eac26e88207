//! Files that are nearly right: a right one with some bytes replaced, and perhaps cut off. A file of
//! any bytes seldom gets past its first check.

use arbitrary::Arbitrary;

#[derive(Arbitrary, Debug)]
pub(crate) enum File {
    Any(Vec<u8>),
    Patched {
        patches: Vec<(u16, Vec<u8>)>,
        keep: Option<u16>,
    },
}

impl File {
    /// The bytes, from those of a file that is right.
    pub(crate) fn bytes(self, right: &[u8]) -> Vec<u8> {
        let (patches, keep) = match self {
            Self::Any(bytes) => return bytes,
            Self::Patched { patches, keep } => (patches, keep),
        };
        let mut bytes = right.to_vec();
        for (at, patch) in patches {
            let at = usize::from(at) % right.len();
            for (byte, new) in bytes[at..].iter_mut().zip(patch) {
                *byte = new;
            }
        }
        if let Some(keep) = keep {
            bytes.truncate(usize::from(keep));
        }
        bytes
    }
}
