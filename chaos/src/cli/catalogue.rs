//! The files of the catalogue, by name.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use malle_chaos::scenario::{Engine, Scenario};

use super::Ending;

/// Every scenario of a directory, by file name.
pub fn all(directory: &Path) -> anyhow::Result<Vec<(PathBuf, Scenario)>> {
    let context = || format!("cannot read the catalogue {}", directory.display());
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    paths.sort();
    anyhow::ensure!(!paths.is_empty(), "{} holds no scenario", directory.display());
    let mut scenarios = Vec::new();
    for path in paths {
        let scenario = Scenario::read(&path)?;
        scenarios.push((path, scenario));
    }
    Ok(scenarios)
}

/// The scenario of this file, or of this name, or of the only name that begins with it.
pub fn find(directory: &Path, name: &str) -> anyhow::Result<(PathBuf, Scenario)> {
    let path = Path::new(name);
    if path.is_file() {
        return Ok((path.to_owned(), Scenario::read(path)?));
    }
    let named = all(directory)?
        .into_iter()
        .filter(|(_, scenario)| scenario.name.starts_with(name));
    let mut named: Vec<_> = named.collect();
    match named.len() {
        1 => Ok(named.remove(0)),
        0 => anyhow::bail!("no file and no scenario of {} is named {name}", directory.display()),
        _ => {
            let names: Vec<String> = named.into_iter().map(|(_, scenario)| scenario.name).collect();
            anyhow::bail!("{name} could be {}", names.join(", "))
        }
    }
}

/// The catalogue, a line each.
pub fn list(directory: &Path) -> anyhow::Result<Ending> {
    for (_, scenario) in all(directory)? {
        let engines: Vec<&str> = scenario.engines.iter().map(|engine: &Engine| engine.name()).collect();
        println!("{:<28} {:<9} {}", scenario.name, engines.join(","), scenario.summary);
        for (engine, controls) in &scenario.expect.controls {
            let controls: Vec<&str> = controls.keys().map(String::as_str).collect();
            println!(
                "{:<38} turns red on {} under {}",
                "",
                engine.name(),
                controls.join(", ")
            );
        }
    }
    Ok(Ending::Good)
}
