//! The backend of the process, chosen once. A test binary of its own, since it is.

use sorix_kernels::backend::reference;
use sorix_kernels::{BackendError, BitMask, DropRate, MaskKey, dispatch, dropout};

#[test]
fn the_backend_of_the_process_is_chosen_once() {
    dispatch::set_active(&reference::Reference).unwrap();
    assert_eq!(dispatch::active().unwrap().name(), "reference");
    let mut mask = BitMask::new(64);
    dropout::fill_mask(DropRate::new(0.5).unwrap(), MaskKey::new(1, 2), &mut mask).unwrap();

    let portable = dispatch::by_name("portable").unwrap();
    let error = dispatch::set_active(portable).unwrap_err();
    let chosen = "reference".to_owned();
    assert_eq!(error, BackendError::AlreadyChosen { chosen });
    assert!(error.to_string().contains("reference"), "{error}");
    assert_eq!(dispatch::active().unwrap().name(), "reference");
}
