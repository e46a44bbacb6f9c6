//! The crate as it is written: its modules, what stands in them, and what a name means there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item, ItemUse, UseTree, Visibility};

/// The names from the crate's root to an item.
pub(crate) type Names = Vec<String>;

pub(crate) struct Source {
    pub modules: BTreeMap<Names, Module>,
}

#[derive(Default)]
pub(crate) struct Module {
    pub items: Vec<Item>,
    /// Whether programs can name it.
    pub is_public: bool,
    /// What is named here and stands elsewhere: its name here, the path to it, whether programs can name it.
    pub uses: Vec<(String, Names, bool)>,
}

impl Source {
    /// The crate whose root is that file.
    pub(crate) fn read(root: &Path) -> Source {
        let mut source = Source { modules: BTreeMap::new() };
        let directory = root.parent().expect("a directory").to_owned();
        source.add(vec![], parsed(root), directory, true);
        source
    }

    fn add(&mut self, names: Names, items: Vec<Item>, directory: PathBuf, is_public: bool) {
        let mut module = Module { is_public, ..Module::default() };
        for item in items {
            match item {
                Item::Mod(inner) if is_left_out(&inner.attrs) => {}
                Item::Mod(inner) => {
                    let name = inner.ident.to_string();
                    let inside = directory.join(&name);
                    let items = inner.content.map(|(_, items)| items).unwrap_or_else(|| {
                        let beside = directory.join(format!("{name}.rs"));
                        parsed(&if beside.exists() { beside } else { inside.join("mod.rs") })
                    });
                    let is_public = is_public && is_pub(&inner.vis);
                    self.add([&names[..], &[name]].concat(), items, inside, is_public);
                }
                Item::Use(item) if !is_left_out(&item.attrs) => uses(&item, &mut module.uses),
                item => module.items.push(item),
            }
        }
        self.modules.insert(names, module);
    }

    /// What a path means in a module: an item of the crate, or something of another one.
    pub(crate) fn meaning(&self, module: &[String], path: &[String]) -> Names {
        let Some((first, rest)) = path.split_first() else { return module.to_vec() };
        match first.as_str() {
            "crate" => return self.found(&[], rest),
            "self" => return self.found(module, rest),
            "super" => return self.found(&module[..module.len() - 1], rest),
            _ => {}
        }
        let inside = [module, &path[..1]].concat();
        if self.modules.contains_key(&inside)
            || self.defines(module, first)
            || self.modules[module].uses.iter().any(|(name, ..)| name == first)
        {
            return self.found(module, path);
        }
        path.to_vec()
    }

    /// What a path means that begins in a module.
    fn found(&self, module: &[String], path: &[String]) -> Names {
        let Some((first, rest)) = path.split_first() else { return module.to_vec() };
        if first == "super" {
            return self.found(&module[..module.len() - 1], rest);
        }
        let inside = [module, &path[..1]].concat();
        if self.modules.contains_key(&inside) && !rest.is_empty() {
            return self.found(&inside, rest);
        }
        if !self.defines(module, first)
            && let Some((_, target, _)) = self.modules.get(module).and_then(|found| found.uses.iter().find(|(name, ..)| name == first))
        {
            let whole = [&target[..], rest].concat();
            // A crate may have the name by which it is used here.
            return if target[0] == *first { whole } else { self.meaning(module, &whole) };
        }
        let mut names = vec!["crate".into()];
        names.extend_from_slice(module);
        names.extend_from_slice(path);
        names
    }

    fn defines(&self, module: &[String], name: &str) -> bool {
        self.modules.get(module).is_some_and(|module| module.items.iter().any(|item| name_of(item).is_some_and(|own| own == name)))
    }
}

/// The name of what is defined.
pub(crate) fn name_of(item: &Item) -> Option<String> {
    Some(
        match item {
            Item::Const(item) => &item.ident,
            Item::Enum(item) => &item.ident,
            Item::Fn(item) => &item.sig.ident,
            Item::Static(item) => &item.ident,
            Item::Struct(item) => &item.ident,
            Item::Trait(item) => &item.ident,
            Item::Type(item) => &item.ident,
            _ => return None,
        }
        .to_string(),
    )
}

pub(crate) fn is_pub(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

/// What is there for tests alone, or is exempt from the promises of a version.
pub(crate) fn is_left_out(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let text = crate::text::of(&attribute.meta);
        text == "doc(hidden)" || text == "cfg(test)" || text == "cfg(doctest)"
    })
}

fn parsed(path: &Path) -> Vec<Item> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())).items
}

fn uses(item: &ItemUse, uses: &mut Vec<(String, Names, bool)>) {
    let mut flat = Vec::new();
    flatten(&item.tree, vec![], &mut flat);
    uses.extend(flat.into_iter().map(|(name, path)| (name, path, is_pub(&item.vis))));
}

fn flatten(tree: &UseTree, mut before: Names, flat: &mut Vec<(String, Names)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, flat);
        }
        UseTree::Name(name) if name.ident == "self" => {
            if let Some(last) = before.last() {
                flat.push((last.clone(), before));
            }
        }
        UseTree::Name(name) => {
            before.push(name.ident.to_string());
            flat.push((name.ident.to_string(), before));
        }
        UseTree::Rename(rename) => {
            before.push(rename.ident.to_string());
            flat.push((rename.rename.to_string(), before));
        }
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before.clone(), flat)),
        // Only what is left out has them.
        UseTree::Glob(_) => {}
    }
}
