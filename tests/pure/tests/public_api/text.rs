//! Tokens as text, whatever the version of the library that prints them.

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use quote::ToTokens;

pub(crate) fn of(what: &impl ToTokens) -> String {
    of_tokens(what.to_token_stream())
}

pub(crate) fn of_tokens(tokens: TokenStream) -> String {
    let mut words = Vec::new();
    split(tokens, &mut words);
    let mut text = String::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", |before| &words[before]);
        if is_spaced(before, word) {
            text.push(' ');
        }
        text += word;
    }
    text
}

/// Signs that belong together are one word, and so is a lifetime.
fn split(tokens: TokenStream, words: &mut Vec<String>) {
    let mut sign = String::new();
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                words.push(open.into());
                split(group.stream(), words);
                if words.last().is_some_and(|word| word == ",") {
                    words.pop();
                }
                words.push(close.into());
            }
            TokenTree::Punct(punct) => {
                sign.push(punct.as_char());
                if punct.spacing() == Spacing::Alone {
                    words.push(std::mem::take(&mut sign));
                }
            }
            token => words.push(std::mem::take(&mut sign) + &token.to_string()),
        }
    }
}

fn is_spaced(before: &str, word: &str) -> bool {
    let glued_after = ["", "(", "[", "<", "&", "!", "#", "::", ".", "?"];
    let glued_before = [",", ";", ":", ")", "]", ">", "::", ".", "?", "", "<"];
    let is_open = word == "(" || word == "[";
    let is_name = before.chars().last().is_some_and(|last| last.is_alphanumeric() || last == '_' || last == '>');
    !(glued_after.contains(&before) || glued_before.contains(&word) || is_open && is_name && !["->", "mut"].contains(&before))
}
