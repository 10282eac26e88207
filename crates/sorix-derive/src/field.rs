//! What the attributes of a field say of it.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Field, LitStr, Member, Result, Type};

/// A field that the visitors show.
pub(crate) struct Shown<'a> {
    pub(crate) member: Member,
    pub(crate) ty: &'a Type,
    /// The name it is shown under, and where that comes from.
    pub(crate) name: String,
    pub(crate) name_span: Span,
    pub(crate) is_parameter: bool,
}

impl<'a> Shown<'a> {
    /// The field `member`; `None` if it is skipped.
    pub(crate) fn new(member: Member, field: &'a Field) -> Result<Option<Self>> {
        let attributes = Attributes::of(&field.attrs)?;
        if let Some(skip) = attributes.skip {
            if attributes.parameter.is_some() || attributes.rename.is_some() {
                let message = "a field that is skipped is not shown, so nothing else is said of it";
                return Err(Error::new(skip, message));
            }
            return Ok(None);
        }
        let (name, name_span) = match (&attributes.rename, &member) {
            (Some(rename), _) => (checked_name(rename)?, rename.span()),
            // Of `r#type` the name alone.
            (None, Member::Named(ident)) => {
                let name = ident.to_string();
                (name.trim_start_matches("r#").to_owned(), ident.span())
            }
            (None, Member::Unnamed(index)) => (index.index.to_string(), field.ty.span()),
        };
        Ok(Some(Self {
            member,
            ty: &field.ty,
            name,
            name_span,
            is_parameter: attributes.parameter.is_some(),
        }))
    }
}

/// Names are joined by dots, and those of checkpoints are not empty.
fn checked_name(name: &LitStr) -> Result<String> {
    let value = name.value();
    if value.is_empty() || value.contains('.') {
        let message = format!("expected a name that is not empty and has no dot, got {value:?}");
        return Err(Error::new(name.span(), message));
    }
    Ok(value)
}

/// `#[module(skip)]`, `#[module(parameter)]`, `#[module(rename = "…")]`.
#[derive(Default)]
struct Attributes {
    skip: Option<Span>,
    parameter: Option<Span>,
    rename: Option<LitStr>,
}

impl Attributes {
    fn of(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        for attribute in attributes.iter().filter(|it| it.path().is_ident("module")) {
            attribute.parse_nested_meta(|meta| {
                let span = meta.path.span();
                let twice = if meta.path.is_ident("skip") {
                    found.skip.replace(span).is_some()
                } else if meta.path.is_ident("parameter") {
                    found.parameter.replace(span).is_some()
                } else if meta.path.is_ident("rename") {
                    let name = meta.value()?.parse()?;
                    found.rename.replace(name).is_some()
                } else {
                    let message = "expected `parameter`, `skip` or `rename = \"…\"`";
                    return Err(Error::new(span, message));
                };
                if twice {
                    return Err(Error::new(span, "said twice of this field"));
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}
