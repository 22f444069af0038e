//! `weir migrate FILE`, and `weir run --skip-unsupported`.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{
    FAILED, WRONG,
    arguments::MigrateArgs,
    run::say,
    start::{self, TABLES, show},
};
use crate::{
    config::{Input, Level, Loaded, Machine, load, load_unexpanded},
    pipeline::file::{self, LeftOut},
};

/// Prints what runs here of some Collector files; 1 where whole pipelines are missing from that, 2 where it would have to be changed by hand.
pub(super) fn migrate(args: &MigrateArgs) -> ExitCode {
    let inputs: Vec<Input> = args.file.iter().cloned().map(Input::Uri).collect();
    let mut full = load(&inputs, &Machine);
    if full.found.has_errors() {
        show(&full.found, &full);
        return ExitCode::from(WRONG);
    }
    let migrated = file::migrate(&full, &load_unexpanded(&inputs, &Machine), &TABLES);
    let text = migrated.text(&args.file.join(", "));
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format!("weir: stdout: {error}"));
            return ExitCode::from(FAILED);
        }
        _ => {}
    }
    if let Some(nothing) = &migrated.nothing {
        show(&full.found, &full);
        say(&format!("weir: {nothing}"));
        return ExitCode::from(WRONG);
    }
    full.found.found.extend(migrated.found.found.iter().cloned());
    show(&full.found, &full);
    say(&match migrated.left_out.len() {
        0 => "weir: all of it runs".to_owned(),
        1 => "weir: 1 thing was left out; the first lines of the output say what".to_owned(),
        many => format!("weir: {many} things were left out; the first lines of the output say which"),
    });
    let pipelines: Vec<&LeftOut> = migrated.left_out.iter().filter(|left| left.is_pipeline()).collect();
    for LeftOut { what, change, .. } in &pipelines {
        say(&format!("weir: the pipeline `{}` was left out: {change}", what.rsplit("::").next().unwrap_or(what)));
    }
    let is_wrong = migrated.found.has_errors() || !validates(&migrated.yaml);
    if is_wrong {
        say(
            "weir: what was printed does not validate as it stands: change it by hand where it is wrong, then `weir validate` it",
        );
        return ExitCode::from(WRONG);
    }
    if pipelines.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// Whether what is printed would start; shows what is wrong with it.
pub(super) fn validates(yaml: &str) -> bool {
    let printed = Input::Text { name: "what is printed".to_owned(), text: yaml.to_owned() };
    match start::check(load(&[printed], &Machine)) {
        Ok(_) => true,
        Err(loaded) => {
            let mut found = loaded.found.clone();
            found.found.retain(|found| found.level == Level::Error);
            show(&found, &loaded);
            false
        }
    }
}

/// What `run` starts of a file that weir does not have all components of: a warning for each thing left out. `Err` says which components
/// have to be named first, because without them data would leave that they remove or mask.
pub(super) fn skip(mut loaded: Loaded, named: &[String]) -> Result<Loaded, String> {
    if loaded.found.has_errors() {
        // It cannot be read; that is told first.
        return Ok(loaded);
    }
    let named: Vec<String> = named.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
    if let Some((name, near)) = file::unknown_names(&loaded.node, &named).first() {
        let near = near.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Err(format!(
            "--skip-unsupported names `{name}`, which is neither in the file nor a component of the Collector{near}"
        ));
    }
    let (rest, left_out) = file::strip(&loaded.node, &TABLES, &named);
    let unnamed: Vec<&str> = left_out.iter().filter_map(|left| left.protects.as_deref()).collect();
    if !unnamed.is_empty() {
        return Err(format!(
            "{} would be left out, and the data that it removes, masks or samples away would pass; if that may be, say so: --skip-unsupported={}",
            unnamed.join(", "),
            named.iter().map(String::as_str).chain(unnamed.iter().copied()).collect::<Vec<_>>().join(",")
        ));
    }
    if let Some(nothing) = file::nothing_left(&rest, &left_out) {
        return Err(nothing);
    }
    for left in left_out {
        loaded.found.warning(left.origin, format!("`{}` is left out", left.what), Some(left.change));
    }
    loaded.node = rest;
    Ok(loaded)
}
