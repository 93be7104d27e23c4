//! A Rust file taken apart just far enough for the rules: code without comments and text, which lines are tests, which paths it names.
//!
//! This is a lexer and a brace counter, not a compiler. It sees what the text says: a macro that builds a path is invisible to it.

use std::ops::Range;

/// One Rust file.
#[derive(Debug, Clone)]
pub struct Source {
    /// Path from the root.
    pub path: String,
    /// The text with comments, string and character literals blanked out; offsets and lines are those of the file.
    pub code: String,
    /// The whole file is test code: it lies in a `tests` directory or is named so.
    pub is_test: bool,
    test_ranges: Vec<Range<usize>>,
    test_modules: Vec<String>,
}

/// A path that the code names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// For example `std::time::Instant`; a glob ends with `*`.
    pub path: String,
    /// Offset into the file.
    pub offset: usize,
}

impl Source {
    /// Takes a file apart.
    pub fn new(path: &str, text: &str) -> Source {
        let code = blank(text);
        let mut source = Source {
            path: path.into(),
            is_test: path.ends_with("/tests.rs") || path.split('/').any(|part| part == "tests" || part == "benches"),
            test_ranges: Vec::new(),
            test_modules: Vec::new(),
            code,
        };
        source.find_test_items();
        source
    }

    /// Marks files that another file declares as `#[cfg(test)] mod name;`.
    pub fn mark_test_modules(sources: &mut [Source]) {
        let names: Vec<String> = sources.iter().flat_map(|source| source.test_modules.clone()).collect();
        for source in sources {
            source.is_test |= names.iter().any(|stem| {
                source.path == format!("{stem}.rs")
                    || source.path.strip_prefix(stem).is_some_and(|rest| rest.starts_with('/'))
            });
        }
    }

    /// The line of an offset, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.code.as_bytes()[..offset]
            .iter()
            .filter(|&&byte| byte == b'\n')
            .count()
            + 1
    }

    /// Whether test code stands at this offset.
    pub fn in_test(&self, offset: usize) -> bool {
        self.is_test || self.test_ranges.iter().any(|range| range.contains(&offset))
    }

    /// Lines of the file outside tests.
    pub fn lines_without_tests(&self) -> usize {
        if self.is_test {
            return 0;
        }
        let lines = |text: &str| text.bytes().filter(|&byte| byte == b'\n').count();
        lines(&self.code)
            - self
                .test_ranges
                .iter()
                .map(|range| lines(&self.code[range.clone()]))
                .sum::<usize>()
    }

    /// Offsets where `word` stands in code and is not part of a longer path or name.
    pub fn occurrences<'s>(&'s self, word: &'s str) -> impl Iterator<Item = usize> + 's {
        let free = |byte: Option<&u8>| byte.is_none_or(|&byte| !is_name(byte) && byte != b':');
        self.code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
            let bytes = self.code.as_bytes();
            let ends_in_name = word.as_bytes().last().is_some_and(|&byte| is_name(byte));
            let before = at.checked_sub(1).and_then(|at| bytes.get(at));
            let after = bytes.get(at + word.len());
            free(before) && (!ends_in_name || after.is_none_or(|&byte| !is_name(byte)))
        })
    }

    /// Every path of every `use`, with groups spelled out.
    pub fn uses(&self) -> Vec<Named> {
        let mut named = Vec::new();
        for at in self.occurrences("use") {
            let from = at + "use".len();
            // `use` also begins the captures of a return type: `impl Future + use<'a>`.
            if self.code[from..].trim_start().starts_with('<') {
                continue;
            }
            let Some(length) = self.code[from..].find(';') else {
                continue;
            };
            expand(&self.code, from..from + length, "", &mut named);
        }
        named
    }

    /// Functions with a body: name and the range from `fn` to the closing brace.
    pub fn functions(&self) -> Vec<(String, Range<usize>)> {
        let mut functions = Vec::new();
        for at in self.occurrences("fn") {
            let name: String = self.code[at + 2..]
                .trim_start()
                .chars()
                .take_while(|&c| is_name(c as u8) && c.is_ascii())
                .collect();
            if name.is_empty() {
                continue;
            }
            let end = item_end(&self.code, at);
            if self.code[..end].ends_with('}') {
                functions.push((name, at..end));
            }
        }
        functions
    }

    fn find_test_items(&mut self) {
        let mut ranges = Vec::new();
        let mut modules = Vec::new();
        for (at, _) in self.code.match_indices("#[cfg(") {
            let Some(length) = self.code[at..].find(']') else {
                continue;
            };
            let condition = &self.code[at..at + length];
            let names_test = condition.split(|c: char| !is_name(c as u8)).any(|word| word == "test");
            if !names_test || condition.contains("not(test") {
                continue;
            }
            let end = item_end(&self.code, at + length + 1);
            if let Some(name) = self.code[at + length + 1..end]
                .trim()
                .strip_suffix(';')
                .and_then(module_name)
            {
                modules.push(module_stem(&self.path, &name));
            }
            ranges.push(at..end);
        }
        self.test_ranges = merge(ranges);
        self.test_modules = modules;
    }
}

fn merge(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start < last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn module_name(declaration: &str) -> Option<String> {
    let mut words = declaration.split_whitespace().rev();
    let name = words.next()?;
    (words.next()? == "mod").then(|| name.into())
}

/// Where the module `name`, declared in the file `path`, has its file, without `.rs`.
fn module_stem(path: &str, name: &str) -> String {
    let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
    match file {
        "lib.rs" | "main.rs" | "mod.rs" => format!("{directory}/{name}"),
        _ => format!("{}/{name}", path.trim_end_matches(".rs")),
    }
}

/// The end of the item that begins after `from`: its `;` outside brackets, or its closing brace.
fn item_end(code: &str, from: usize) -> usize {
    let (mut round, mut braces) = (0_i32, 0_i32);
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round -= 1,
            b'{' => braces += 1,
            b'}' => {
                braces -= 1;
                if braces <= 0 && round <= 0 {
                    return offset + 1;
                }
            }
            b';' if round <= 0 && braces <= 0 => return offset + 1,
            _ => {}
        }
    }
    code.len()
}

/// Spells out the groups of a `use`.
fn expand(code: &str, range: Range<usize>, prefix: &str, named: &mut Vec<Named>) {
    let text = &code[range.clone()];
    if let Some(open) = text.find('{') {
        let head: String = text[..open].split_whitespace().collect();
        let prefix = format!("{prefix}{head}");
        let close = text.rfind('}').unwrap_or(text.len());
        let inner = range.start + open + 1..range.start + close;
        let mut depth = 0;
        let mut begin = inner.start;
        for offset in inner.clone() {
            match code.as_bytes()[offset] {
                b'{' => depth += 1,
                b'}' => depth -= 1,
                b',' if depth == 0 => {
                    expand(code, begin..offset, &prefix, named);
                    begin = offset + 1;
                }
                _ => {}
            }
        }
        expand(code, begin..inner.end, &prefix, named);
        return;
    }
    let original = text.split(" as ").next().unwrap_or_default();
    let leaf: String = original.split_whitespace().collect();
    if leaf.is_empty() {
        return;
    }
    let leading = text.len() - text.trim_start().len();
    let path = if leaf == "self" {
        prefix.trim_end_matches("::").into()
    } else {
        format!("{prefix}{leaf}")
    };
    let path = path.trim_start_matches("::").to_string();
    named.push(Named {
        path,
        offset: range.start + leading,
    });
}

/// Blanks comments and literals; keeps every line break and every offset.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'\'' => character_end(text, at).unwrap_or(at),
            b'r' | b'b' | b'c' if at == 0 || !is_name(bytes[at - 1]) => prefixed_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        out.extend(
            bytes[at..end]
                .iter()
                .map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }),
        );
        at = end;
    }
    String::from_utf8(out).expect("whole characters were kept or blanked byte by byte")
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..]
        .iter()
        .position(|&byte| byte == b'\n')
        .map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut here) = (0, at);
    while here < bytes.len() {
        match &bytes[here..bytes.len().min(here + 2)] {
            b"/*" => (depth, here) = (depth + 1, here + 2),
            b"*/" => (depth, here) = (depth - 1, here + 2),
            _ => here += 1,
        }
        if depth == 0 {
            return here;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut here = at + 1;
    while here < bytes.len() {
        match bytes[here] {
            b'\\' => here += 2,
            b'"' => return here + 1,
            _ => here += 1,
        }
    }
    bytes.len()
}

/// `'a'` and `'\n'` are characters, `'a` alone is a lifetime.
fn character_end(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at + 1..];
    let mut characters = rest.char_indices();
    let (_, first) = characters.next()?;
    if first == '\\' {
        // The character after the backslash may itself be a quote.
        return rest[2..].find('\'').map(|length| at + 1 + 2 + length + 1);
    }
    let (second_at, second) = characters.next()?;
    (second == '\'' && first != '\'').then_some(at + 1 + second_at + 1)
}

/// Raw, byte and C strings: `r"…"`, `r#"…"#`, `b"…"`, `br#"…"#`, `b'x'`.
fn prefixed_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut here = at + 1;
    let mut raw = bytes[at] == b'r';
    if !raw && bytes.get(here) == Some(&b'r') {
        raw = true;
        here += 1;
    }
    if !raw {
        return (bytes.get(here) == Some(&b'"')).then(|| string_end(bytes, here));
    }
    let hashes = bytes[here..].iter().take_while(|&&byte| byte == b'#').count();
    if bytes.get(here + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let body = here + hashes + 1;
    let found = bytes[body..].windows(end.len()).position(|window| window == end);
    Some(found.map_or(bytes.len(), |length| body + length + end.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        Source::new("a.rs", text)
            .uses()
            .into_iter()
            .map(|named| named.path)
            .collect()
    }

    #[test]
    fn comments_and_literals_are_blank_and_lines_stay() {
        let text = "let a = \"x { /* \\\" \"; // y {\n/* z /* { */ */ let c = '{'; let r = r#\"\"{\"#;\nlet l: &'a str = b\"{\";";
        let code = blank(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.matches('\n').count(), 2);
        assert!(!code.contains('{'), "{code}");
        assert!(code.contains("&'a str"));
    }

    #[test]
    fn an_escaped_quote_character_ends_where_it_ends() {
        assert_eq!(
            blank(r"let q = '\''; let b = '\\'; f()"),
            "let q =     ; let b =     ; f()"
        );
    }

    #[test]
    fn groups_of_a_use_are_spelled_out() {
        assert_eq!(
            paths("use tokio::{spawn, time::{self, Duration as D}};\nuse a::b::*;"),
            ["tokio::spawn", "tokio::time", "tokio::time::Duration", "a::b::*"]
        );
        assert_eq!(paths("fn f() -> impl Future + use<'a> { let x; }"), [""; 0]);
    }

    #[test]
    fn test_items_are_told_from_the_rest() {
        let source = Source::new(
            "a.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() {}\n}\nfn c() {}\n",
        );
        let at = |name: &str| source.code.find(name).unwrap();
        assert!(!source.in_test(at("a()")) && source.in_test(at("b()")) && !source.in_test(at("c()")));
        assert_eq!(source.lines_without_tests(), 3);
    }

    #[test]
    fn a_file_declared_as_a_test_module_is_a_test() {
        let mut sources = [
            Source::new("x/src/disk.rs", "#[cfg(test)]\nmod torn;\nfn f() {}"),
            Source::new("x/src/disk/torn.rs", "fn g() {}"),
            Source::new("x/src/torn.rs", "fn h() {}"),
        ];
        Source::mark_test_modules(&mut sources);
        assert!(!sources[0].is_test && sources[1].is_test && !sources[2].is_test);
    }

    #[test]
    fn a_function_ends_at_its_brace() {
        let source = Source::new(
            "a.rs",
            "trait T { fn none(&self) -> [u8; 2]; }\nfn one() {\n if a { b }\n}\nlet f: fn(u8) = g;",
        );
        let functions = source.functions();
        assert_eq!(functions.len(), 1);
        assert_eq!(functions[0].0, "one");
        assert!(source.code[functions[0].1.clone()].ends_with("}\n}"));
    }
}
