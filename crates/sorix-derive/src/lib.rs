//! `#[derive(Module)]` of sorix: shows the fields of a struct to the visitors of a module.
//!
//! Use it from `sorix::nn` or `sorix_nn`, where it stands beside the trait of its name and is
//! documented with it.
#![forbid(unsafe_code)]

mod expand;
mod field;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input, parse_quote};

/// Implements `sorix_nn::visit::Visit` by the fields of a struct. For the attributes and an example
/// see the trait `Module`.
#[proc_macro_derive(Module, attributes(module))]
pub fn module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::visit(&input, parse_quote!(::sorix_nn))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// The same for crates that depend on `sorix`, which shows it under the name `Module`.
#[doc(hidden)]
#[proc_macro_derive(FacadeModule, attributes(module))]
pub fn facade_module(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand::visit(&input, parse_quote!(::sorix::nn))
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}
