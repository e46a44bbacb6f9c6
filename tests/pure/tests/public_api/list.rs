//! What a program can name of the crate: one line each, in the order of the alphabet.

use std::collections::BTreeMap;

use proc_macro2::{Ident, TokenStream, TokenTree};
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Attribute, Fields, ImplItem, Item, Path, Signature, Token, TraitItem, Type};

use crate::source::{Names, Source, is_left_out, is_pub, name_of};
use crate::text;

pub(crate) fn list(source: &Source) -> Vec<String> {
    let mut list = List { source, public: public(source), lines: Vec::new() };
    list.list();
    list.lines.sort();
    list.lines.dedup();
    list.lines
}

/// What programs can name, by where it is defined: by its shortest name, and by others.
fn public(source: &Source) -> BTreeMap<Names, Vec<String>> {
    let mut public: BTreeMap<Names, Vec<String>> = BTreeMap::new();
    for (names, module) in source.modules.iter().filter(|(_, module)| module.is_public) {
        let own = module.items.iter().filter(|item| is_public(item)).filter_map(name_of).map(|name| (name.clone(), vec![name]));
        let others = module.uses.iter().filter(|(.., is_public)| *is_public).map(|(name, path, _)| (name.clone(), path.clone()));
        for (name, path) in own.chain(others) {
            let prefix = names.iter().map(|name| format!("{name}::")).collect::<String>();
            public.entry(source.meaning(names, &path)).or_default().push(format!("pollflip::{prefix}{name}"));
        }
    }
    for names in public.values_mut() {
        names.sort_by_key(|name| (name.matches("::").count(), name.clone()));
    }
    public
}

struct List<'a> {
    source: &'a Source,
    public: BTreeMap<Names, Vec<String>>,
    lines: Vec<String>,
}

impl List<'_> {
    fn list(&mut self) {
        let source = self.source;
        for names in self.public.values() {
            self.lines.extend(names[1..].iter().map(|name| format!("use {name} = {}", names[0])));
        }
        for (module, found) in &source.modules {
            for item in &found.items {
                let full = name_of(item).map(|name| [&["crate".to_owned()], &module[..], &[name]].concat());
                match full.and_then(|full| self.public.get(&full)) {
                    Some(names) => self.item(module, &names[0].clone(), item),
                    None => self.implementation(module, item),
                }
            }
        }
    }

    /// What is defined, under the name that programs have for it.
    fn item(&mut self, module: &[String], name: &str, item: &Item) {
        match item {
            Item::Struct(item) => {
                self.line(format!("struct {name}{}{}", self.text(module, &item.generics), grows(&item.attrs)));
                self.derives(name, &item.attrs);
                for (index, field) in item.fields.iter().enumerate().filter(|(_, field)| is_pub(&field.vis)) {
                    let field_name = field.ident.as_ref().map_or(index.to_string(), Ident::to_string);
                    self.line(format!("{name}.{field_name}: {}", self.text(module, &field.ty)));
                }
            }
            Item::Enum(item) => {
                self.line(format!("enum {name}{}{}", self.text(module, &item.generics), grows(&item.attrs)));
                self.derives(name, &item.attrs);
                for variant in &item.variants {
                    let fields = match &variant.fields {
                        Fields::Named(fields) => {
                            let fields = fields
                                .named
                                .iter()
                                .map(|field| format!("{}: {}", field.ident.as_ref().expect("a name"), self.text(module, &field.ty)));
                            format!(" {{ {} }}", fields.collect::<Vec<_>>().join(", "))
                        }
                        Fields::Unnamed(fields) => {
                            let fields = fields.unnamed.iter().map(|field| self.text(module, &field.ty));
                            format!("({})", fields.collect::<Vec<_>>().join(", "))
                        }
                        Fields::Unit => String::new(),
                    };
                    self.line(format!("{name}::{}{fields}{}", variant.ident, grows(&variant.attrs)));
                }
            }
            Item::Trait(item) => {
                let above = self.text(module, &item.supertraits);
                let above = if above.is_empty() { above } else { format!(": {above}") };
                self.line(format!("trait {name}{}{above}", self.text(module, &item.generics)));
                for item in &item.items {
                    match item {
                        TraitItem::Fn(item) => {
                            let default = if item.default.is_some() { " { … }" } else { "" };
                            let signature = self.signature(module, name, &item.sig);
                            self.line(signature + default);
                        }
                        TraitItem::Type(item) => {
                            let bounds = self.text(module, &item.bounds);
                            let bounds = if bounds.is_empty() { bounds } else { format!(": {bounds}") };
                            self.line(format!("{name}::{} (a type){bounds}", item.ident));
                        }
                        other => self.line(format!("{name}: {}", self.text(module, other))),
                    }
                }
            }
            Item::Fn(item) => {
                let (above, _) = name.rsplit_once("::").expect("a crate");
                let signature = self.signature(module, above, &item.sig);
                self.line(format!("fn {signature}"));
            }
            Item::Type(item) => self.line(format!("type {name}{} = {}", self.text(module, &item.generics), self.text(module, &item.ty))),
            Item::Const(item) => self.line(format!("const {name}: {}", self.text(module, &item.ty))),
            other => self.line(format!("{name}: {}", text::of(other))),
        }
    }

    /// What a type that programs can name can do.
    fn implementation(&mut self, module: &[String], item: &Item) {
        let Item::Impl(item) = item else { return };
        if is_left_out(&item.attrs) {
            return;
        }
        let of = match &*item.self_ty {
            Type::Path(path) => self.named(module, &path.path),
            _ => None,
        };
        match (&item.trait_, of) {
            (None, Some(name)) => {
                for item in &item.items {
                    match item {
                        ImplItem::Fn(item) if is_pub(&item.vis) && !is_left_out(&item.attrs) => {
                            let signature = self.signature(module, &name, &item.sig);
                            self.line(signature);
                        }
                        ImplItem::Const(item) if is_pub(&item.vis) => {
                            self.line(format!("{name}::{}: {}", item.ident, self.text(module, &item.ty)));
                        }
                        _ => {}
                    }
                }
            }
            (Some(implemented), of) => {
                let path = implemented.0.clone();
                let is_private =
                    of.is_none() && matches!(&*item.self_ty, Type::Path(path) if self.meaning(module, &path.path)[0] == "crate");
                let is_of_another = || arguments(&path).iter().any(|argument| self.named(module, argument).is_some());
                if of.is_some() || !is_private && is_of_another() {
                    let of = of.unwrap_or_else(|| self.text(module, &item.self_ty));
                    let mut path = path;
                    if self.meaning(module, &path)[0] == "std" {
                        path.segments = path.segments.into_iter().next_back().into_iter().collect();
                    }
                    self.line(format!("impl{} {} for {of}", self.text(module, &item.generics), self.text(module, &path)));
                }
            }
            _ => {}
        }
    }

    fn derives(&mut self, name: &str, attributes: &[Attribute]) {
        for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("derive")) {
            let derived = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated).expect("derives");
            for path in derived {
                match text::of(&path).as_str() {
                    "thiserror::Error" => {
                        self.line(format!("impl Display for {name}"));
                        self.line(format!("impl Error for {name}"));
                    }
                    path => self.line(format!("impl {path} for {name}")),
                }
            }
        }
    }

    fn line(&mut self, line: String) {
        self.lines.push(line);
    }

    /// The name that programs have for what a path leads to.
    fn named(&self, module: &[String], path: &Path) -> Option<String> {
        Some(self.public.get(&self.meaning(module, path))?[0].clone())
    }

    fn meaning(&self, module: &[String], path: &Path) -> Names {
        let names: Names = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.source.meaning(module, &names)
    }

    fn signature(&self, module: &[String], above: &str, signature: &Signature) -> String {
        let text = self.text(module, signature);
        let (before, rest) = text.split_once("fn ").expect("a function");
        // Whether a function changes its own copy is nobody else's concern.
        let rest = rest.replace("(mut ", "(").replace(", mut ", ", ");
        format!("{before}{above}::{rest}")
    }

    /// As text, with the crate's name before what is of neither this crate nor the standard library.
    fn text(&self, module: &[String], what: &impl ToTokens) -> String {
        text::of_tokens(self.with_crates(module, what.to_token_stream(), &mut false))
    }

    fn with_crates(&self, module: &[String], tokens: TokenStream, is_within_path: &mut bool) -> TokenStream {
        let mut out = TokenStream::new();
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    let meaning = self.source.meaning(module, &[ident.to_string()]);
                    let is_keyword = ["self", "super", "crate"].iter().any(|word| ident == word);
                    let is_foreign =
                        !*is_within_path && !is_keyword && meaning.len() > 1 && !["crate", "std"].contains(&meaning[0].as_str());
                    if is_foreign {
                        let path: TokenStream = meaning.join("::").parse().expect("a path");
                        out.extend(path);
                    } else {
                        out.extend([TokenTree::Ident(ident)]);
                    }
                    *is_within_path = false;
                }
                TokenTree::Group(group) => {
                    let inside = self.with_crates(module, group.stream(), &mut false);
                    out.extend([TokenTree::Group(proc_macro2::Group::new(group.delimiter(), inside))]);
                    *is_within_path = false;
                }
                token => {
                    *is_within_path = matches!(&token, TokenTree::Punct(punct) if punct.as_char() == ':' && punct.spacing() == proc_macro2::Spacing::Alone)
                        && ends_path(&out);
                    out.extend([token]);
                }
            }
        }
        out
    }
}

/// Whether the second half of `::` comes next.
fn ends_path(tokens: &TokenStream) -> bool {
    let last = tokens.clone().into_iter().last();
    matches!(last, Some(TokenTree::Punct(punct)) if punct.as_char() == ':' && punct.spacing() == proc_macro2::Spacing::Joint)
}

fn is_public(item: &Item) -> bool {
    let (visibility, attributes) = match item {
        Item::Const(item) => (&item.vis, &item.attrs),
        Item::Enum(item) => (&item.vis, &item.attrs),
        Item::Fn(item) => (&item.vis, &item.attrs),
        Item::Static(item) => (&item.vis, &item.attrs),
        Item::Struct(item) => (&item.vis, &item.attrs),
        Item::Trait(item) => (&item.vis, &item.attrs),
        Item::Type(item) => (&item.vis, &item.attrs),
        _ => return false,
    };
    is_pub(visibility) && !is_left_out(attributes)
}

/// What may be added later without breaking a program.
fn grows(attributes: &[Attribute]) -> &'static str {
    if attributes.iter().any(|attribute| attribute.path().is_ident("non_exhaustive")) { " #[non_exhaustive]" } else { "" }
}

/// The types that a trait is implemented for, such as that of `From<…>`.
fn arguments(path: &Path) -> Vec<Path> {
    let last = path.segments.last().map(|segment| &segment.arguments);
    let Some(syn::PathArguments::AngleBracketed(arguments)) = last else { return Vec::new() };
    let of = |argument: &syn::GenericArgument| match argument {
        syn::GenericArgument::Type(Type::Path(path)) => Some(path.path.clone()),
        _ => None,
    };
    arguments.args.iter().filter_map(of).collect()
}
