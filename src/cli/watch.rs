//! `--watch`: sees when a file of the configuration changes.
//!
//! By looking once a second at what each name leads to, and not by inotify: that follows files and not names, so that an editor's rename, the
//! change of `..data` in a volume of Kubernetes, and a link anywhere on the way each need a watch of their own, set again after each change, and it
//! says nothing of what another machine writes to a shared disk. A configuration is a handful of files; looking at them costs a few system calls.

use std::time::Duration;

use tokio::time::sleep;

use crate::config::Stamp;

/// How often the files are looked at. A change counts when it is the same at two looks: whoever writes is done.
const LOOK: Duration = Duration::from_secs(1);

/// The files of a configuration, each as it was when it was last read. `None`: it was not there.
#[derive(Debug, Default)]
pub(super) struct Watch {
    read: Vec<(String, Option<Stamp>)>,
    /// As they were at the last look.
    seen: Vec<Option<Stamp>>,
}

impl Watch {
    /// Watches these from now on.
    pub(super) fn follow(&mut self, files: Vec<(String, Option<Stamp>)>) {
        self.seen = files.iter().map(|(_, stamp)| *stamp).collect();
        self.read = files;
    }

    /// The files that are watched.
    pub(super) fn files(&self) -> impl Iterator<Item = &(String, Option<Stamp>)> {
        self.read.iter()
    }

    /// Resolves with the name of a file when it has changed.
    pub(super) async fn changed(&mut self) -> String {
        loop {
            sleep(LOOK).await;
            if let Some(file) = self.look(Stamp::of) {
                return file;
            }
        }
    }

    fn look(&mut self, stamp: impl Fn(&str) -> Option<Stamp>) -> Option<String> {
        let now: Vec<_> = self.read.iter().map(|(path, _)| stamp(path)).collect();
        let is_settled = now == self.seen;
        self.seen = now;
        let mut all = self.read.iter().zip(&self.seen);
        let changed = all.find(|((_, read), now)| read != *now).map(|((path, _), _)| path.clone());
        changed.filter(|_| is_settled)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;

    fn watch(path: &Path) -> Watch {
        let path = path.display().to_string();
        let mut watch = Watch::default();
        watch.follow(vec![(path.clone(), Stamp::of(&path))]);
        watch
    }

    #[test]
    fn a_change_counts_once_nobody_writes_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.yaml");
        fs::write(&path, "a").unwrap();
        let mut watch = watch(&path);
        assert_eq!(watch.look(Stamp::of), None);
        fs::write(&path, "ab").unwrap();
        assert_eq!(watch.look(Stamp::of), None, "somebody may be writing");
        fs::write(&path, "abc").unwrap();
        assert_eq!(watch.look(Stamp::of), None);
        assert!(watch.look(Stamp::of).is_some_and(|file| file.ends_with("weir.yaml")));
        let files = watch.files().map(|(path, _)| (path.clone(), Stamp::of(path))).collect();
        watch.follow(files);
        assert_eq!(watch.look(Stamp::of), None, "it was read");
    }

    #[test]
    fn a_file_that_was_replaced_by_another_of_the_same_size_has_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, new) = (directory.path().join("weir.yaml"), directory.path().join(".weir.yaml.swp"));
        fs::write(&path, "a").unwrap();
        let mut watch = watch(&path);
        fs::write(&new, "b").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(watch.look(Stamp::of), None);
        assert!(watch.look(Stamp::of).is_some());
    }

    #[test]
    fn a_link_that_leads_elsewhere_is_a_change() {
        // As a ConfigMap is mounted.
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["..1", "..2"] {
            fs::create_dir(at(name)).unwrap();
            fs::write(at(name).join("weir.yaml"), "a").unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/weir.yaml", at("weir.yaml")).unwrap();
        let mut watch = watch(&at("weir.yaml"));
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(watch.look(Stamp::of), None);
        assert!(watch.look(Stamp::of).is_some());
    }

    #[test]
    fn a_file_that_is_gone_has_changed_and_so_has_one_that_appears() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.yaml");
        let mut watch = watch(&path);
        fs::write(&path, "a").unwrap();
        assert_eq!((watch.look(Stamp::of), watch.look(Stamp::of).is_some()), (None, true));
        watch.follow(vec![(path.display().to_string(), Stamp::of(&path.display().to_string()))]);
        fs::remove_file(&path).unwrap();
        assert_eq!((watch.look(Stamp::of), watch.look(Stamp::of).is_some()), (None, true));
    }
}
