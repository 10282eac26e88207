//! The implementation that is written for a struct.

use std::collections::HashSet;

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Data, DeriveInput, Error, Generics, Ident, Path, Result, Type};

use crate::field::Shown;

/// `impl Visit for …`, which names sorix-nn by the path `nn` unless an attribute names another.
pub(crate) fn visit(input: &DeriveInput, nn: Path) -> Result<TokenStream> {
    let nn = crate_path(&input.attrs)?.unwrap_or(nn);
    let Data::Struct(data) = &input.data else {
        let message = "`Module` can be derived for structs; for others implement `Visit` by hand";
        return Err(Error::new(input.ident.span(), message));
    };
    let members = data.fields.members().zip(&data.fields);
    let mut shown = Vec::new();
    for (member, field) in members {
        shown.extend(Shown::new(member, field)?);
    }
    let mut names = HashSet::new();
    if let Some(second) = shown.iter().find(|field| !names.insert(&field.name)) {
        let message = format!("another field is shown as {:?}", second.name);
        return Err(Error::new(second.name_span, message));
    }

    // The trait by which each field is shown, spanned so that an error points at its type.
    let of = |field: &Shown<'_>| {
        let name = if field.is_parameter {
            "Parameter"
        } else {
            "Field"
        };
        let name = Ident::new(name, field.ty.span());
        quote_spanned!(field.ty.span()=> #nn::visit::#name)
    };
    let call = |field: &Shown<'_>, method: &str, reference: TokenStream, argument: &str| {
        let Shown {
            member, ty, name, ..
        } = field;
        let by = of(field);
        let method = Ident::new(method, ty.span());
        let argument = Ident::new(argument, proc_macro2::Span::mixed_site());
        quote_spanned!(ty.span()=> #by::#method(#reference self.#member, #name, #argument);)
    };
    let parameters = shown
        .iter()
        .filter(|field| field.is_parameter)
        .map(|field| call(field, "visit_parameters", quote!(&), "visit"));
    let parameters_mut = shown
        .iter()
        .filter(|field| field.is_parameter)
        .map(|field| call(field, "visit_parameters_mut", quote!(&mut), "visit"));
    let others = || shown.iter().filter(|field| !field.is_parameter);
    let generators = others().map(|field| call(field, "visit_generators", quote!(&), "visit"));
    let children = others().map(|field| call(field, "visit_children", quote!(&), "visit"));
    let children_mut =
        others().map(|field| call(field, "visit_children_mut", quote!(&mut), "visit"));
    let forks = others().map(|field| call(field, "fork_generators", quote!(&mut), "generator"));

    let ident = &input.ident;
    let (implemented, of_type, _) = input.generics.split_for_impl();
    let mut predicates: Vec<TokenStream> = input
        .generics
        .where_clause
        .iter()
        .flat_map(|clause| &clause.predicates)
        .map(|predicate| quote!(#predicate))
        .collect();
    for field in &shown {
        if mentions_parameter(field.ty, &input.generics) {
            let (ty, by) = (field.ty, of(field));
            predicates.push(quote!(#ty: #by));
        }
    }
    // Within a generic struct nobody can tell whether it is `Clone`.
    let cloned = input.generics.params.is_empty().then(|| {
        quote! {
            fn boxed_clone(
                &self,
            ) -> ::core::option::Option<::std::boxed::Box<dyn #nn::Module>> {
                #[allow(unused_imports, reason = "one of the two, as the struct is `Clone` or not")]
                use #nn::visit::cloning::{IsClone as _, IsNotClone as _};
                (&#nn::visit::cloning::Of(self)).boxed_clone()
            }
        }
    });
    let visit = Ident::new("visit", proc_macro2::Span::mixed_site());
    let generator = Ident::new("generator", proc_macro2::Span::mixed_site());
    Ok(quote! {
        #[automatically_derived]
        impl #implemented #nn::visit::Visit for #ident #of_type where #(#predicates,)* {
            fn visit_own_parameters(
                &self,
                #visit: &mut dyn ::core::ops::FnMut(&str, &#nn::visit::Tensor),
            ) {
                let _ = &#visit;
                #(#parameters)*
            }

            fn visit_own_parameters_mut(
                &mut self,
                #visit: &mut dyn ::core::ops::FnMut(&str, &mut #nn::visit::Tensor),
            ) {
                let _ = &#visit;
                #(#parameters_mut)*
            }

            #cloned

            fn visit_own_generators(
                &self,
                #visit: &mut dyn ::core::ops::FnMut(&str, &::std::sync::Arc<#nn::Generator>),
            ) {
                let _ = &#visit;
                #(#generators)*
            }

            fn visit_children(
                &self,
                #visit: &mut dyn ::core::ops::FnMut(&str, &dyn #nn::Module),
            ) {
                let _ = &#visit;
                #(#children)*
            }

            fn visit_children_mut(
                &mut self,
                #visit: &mut dyn ::core::ops::FnMut(&str, &mut dyn #nn::Module),
            ) {
                let _ = &#visit;
                #(#children_mut)*
            }

            fn fork_own_generators(&mut self, #generator: &#nn::Generator) {
                let _ = #generator;
                #(#forks)*
            }
        }
    })
}

/// The path of `#[module(crate = path)]` on the struct.
fn crate_path(attributes: &[Attribute]) -> Result<Option<Path>> {
    let mut path = None;
    for attribute in attributes.iter().filter(|it| it.path().is_ident("module")) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                let message =
                    "expected `crate = path::of::sorix_nn`; other attributes are for fields";
                return Err(Error::new(meta.path.span(), message));
            }
            path = Some(meta.value()?.call(Path::parse_mod_style)?);
            Ok(())
        })?;
    }
    Ok(path)
}

/// Whether a type parameter of the struct is part of the type.
fn mentions_parameter(ty: &Type, generics: &Generics) -> bool {
    struct Search<'a> {
        generics: &'a Generics,
        found: bool,
    }
    impl<'ast> Visit<'ast> for Search<'_> {
        fn visit_path(&mut self, path: &'ast Path) {
            let first = path.segments.first().map(|segment| &segment.ident);
            let mut parameters = self.generics.type_params();
            self.found |= parameters.any(|parameter| Some(&parameter.ident) == first);
            visit::visit_path(self, path);
        }
    }
    let mut search = Search {
        generics,
        found: false,
    };
    search.visit_type(ty);
    search.found
}

#[cfg(test)]
mod tests {
    use super::*;
    use quote::ToTokens;
    use syn::parse_quote;

    fn message(input: DeriveInput) -> String {
        visit(&input, parse_quote!(::sorix_nn))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_cannot_be_meant_is_an_error() {
        let cases: [(DeriveInput, &str); 9] = [
            (
                parse_quote!(
                    enum Either {
                        A(Linear),
                        B(ReLU),
                    }
                ),
                "`Module` can be derived for structs; for others implement `Visit` by hand",
            ),
            (
                parse_quote!(
                    struct Net {
                        #[module(paramter)]
                        weight: Tensor,
                    }
                ),
                "expected `parameter`, `skip` or `rename = \"…\"`",
            ),
            (
                parse_quote!(
                    struct Net {
                        #[module(skip, parameter)]
                        weight: Tensor,
                    }
                ),
                "a field that is skipped is not shown, so nothing else is said of it",
            ),
            (
                parse_quote!(
                    struct Net {
                        #[module(skip)]
                        #[module(rename = "a")]
                        b: Linear,
                    }
                ),
                "a field that is skipped is not shown, so nothing else is said of it",
            ),
            (
                parse_quote!(
                    struct Net {
                        #[module(parameter)]
                        #[module(parameter)]
                        w: Tensor,
                    }
                ),
                "said twice of this field",
            ),
            (
                parse_quote!(
                    struct Net {
                        #[module(rename = "a.b")]
                        linear: Linear,
                    }
                ),
                "expected a name that is not empty and has no dot, got \"a.b\"",
            ),
            (
                parse_quote!(
                    struct Net {
                        #[module(rename = "")]
                        linear: Linear,
                    }
                ),
                "expected a name that is not empty and has no dot, got \"\"",
            ),
            (
                parse_quote!(
                    struct Net {
                        a: Linear,
                        #[module(rename = "a")]
                        b: Linear,
                    }
                ),
                "another field is shown as \"a\"",
            ),
            (
                parse_quote!(
                    #[module(skip)]
                    struct Net {
                        a: Linear,
                    }
                ),
                "expected `crate = path::of::sorix_nn`; other attributes are for fields",
            ),
        ];
        for (input, expected) in cases {
            assert_eq!(message(input), expected);
        }
    }

    #[test]
    fn bounds_are_those_of_generic_fields() {
        let input = parse_quote! {
            struct Net<M, F: Form> where F: Clone {
                all: Vec<Option<M>>,
                last: Linear,
                #[module(skip)]
                form: F,
            }
        };
        let written = visit(&input, parse_quote!(nn)).unwrap();
        let written: syn::ItemImpl = syn::parse2(written).unwrap();
        let expected: syn::WhereClause = parse_quote! {
            where F: Clone, Vec<Option<M>>: nn::visit::Field,
        };
        assert_eq!(
            written.generics.where_clause.to_token_stream().to_string(),
            expected.to_token_stream().to_string()
        );
    }

    #[test]
    fn another_path_can_be_named() {
        let input = parse_quote!(
            #[module(crate = other::nn)]
            struct Net {}
        );
        let written = visit(&input, parse_quote!(::sorix_nn)).unwrap();
        let expected = quote!(impl other::nn::visit::Visit for Net).to_string();
        assert!(written.to_string().contains(&expected), "{written}");
    }
}
