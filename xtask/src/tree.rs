//! The files of the repository, read once and shared by all tidy rules.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::tidy::source::Source;

/// Directories that are not ours: what cargo and a demo make, and git's own.
const SKIPPED: [&str; 3] = ["target", ".git", ".malle-demo"];
/// A text file above this is generated or misplaced; rules do not read it.
const TEXT_MAX_BYTES: usize = 4 * 1024 * 1024;

/// One text file.
#[derive(Debug, Clone)]
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// Every text file of the repository, sorted by path, and the Rust ones taken apart.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Where it was read from; relative links are looked up there.
    pub root: PathBuf,
    /// All text files.
    pub files: Vec<File>,
    /// The Rust files among them.
    pub sources: Vec<Source>,
}

impl Tree {
    /// Reads the tree below `root`.
    ///
    /// # Errors
    /// When a directory or file cannot be read.
    pub fn read(root: &Path) -> anyhow::Result<Tree> {
        let mut files = Vec::new();
        collect(root, root, &mut files)?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Tree::new(root.into(), files))
    }

    /// A tree of these files.
    pub fn new(root: PathBuf, files: Vec<File>) -> Tree {
        let mut sources: Vec<Source> = files
            .iter()
            .filter(|file| file.path.ends_with(".rs"))
            .map(|file| Source::new(&file.path, &file.text))
            .collect();
        Source::mark_test_modules(&mut sources);
        Tree { root, files, sources }
    }

    /// The file of this path.
    pub fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// A tree of one file, for the rules' own tests.
    #[cfg(test)]
    pub fn of(path: &str, text: &str) -> Tree {
        Tree::new(
            PathBuf::new(),
            vec![File {
                path: path.into(),
                text: text.into(),
            }],
        )
    }
}

fn collect(root: &Path, directory: &Path, files: &mut Vec<File>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if SKIPPED.contains(&name) {
            continue;
        }
        if path.is_dir() {
            collect(root, &path, files)?;
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        if bytes.len() > TEXT_MAX_BYTES {
            continue;
        }
        // What is not UTF-8 is no text: golden bytes, regressions of a fuzzer.
        if let Ok(text) = String::from_utf8(bytes) {
            let relative = path.strip_prefix(root).expect("the walk began at the root");
            files.push(File {
                path: relative.to_string_lossy().into_owned(),
                text,
            });
        }
    }
    Ok(())
}

/// The root of the repository: the directory above this crate.
///
/// # Errors
/// When cargo did not run us and the working directory is not the root either.
pub fn root() -> anyhow::Result<PathBuf> {
    let root = match std::env::var_os("CARGO_MANIFEST_DIR") {
        Some(manifest) => PathBuf::from(manifest).join(".."),
        None => std::env::current_dir()?,
    };
    let root = root
        .canonicalize()
        .with_context(|| format!("finding {}", root.display()))?;
    if !root.join("xtask/Cargo.toml").is_file() {
        bail!(
            "{} is not the root of the repository: run this as `cargo xtask`",
            root.display()
        );
    }
    Ok(root)
}
