//! The labels of one series or target while they are made: read, renamed, joined; sorted last.

use std::borrow::Cow;

use smallvec::SmallVec;

pub(super) type Text<'a> = Cow<'a, str>;

pub(super) const NAME: &str = "__name__";
pub(super) const JOB: &str = "job";
pub(super) const INSTANCE: &str = "instance";

/// Names and values in no order until [`Labels::finish`]; a name may be there twice until then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Labels<'a>(SmallVec<[(Text<'a>, Text<'a>); 8]>);

impl<'a> Labels<'a> {
    pub(super) fn push(&mut self, name: impl Into<Text<'a>>, value: impl Into<Text<'a>>) {
        self.0.push((name.into(), value.into()));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of all names and values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// The value, empty where there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Whether it is there, with a value or without.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// An empty value takes the label away.
    pub(super) fn set(&mut self, name: &str, value: impl Into<Text<'a>>) {
        let value = value.into();
        if value.is_empty() {
            self.0.retain(|(known, _)| known != name);
            return;
        }
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((Cow::Owned(name.to_owned()), value)),
        }
    }

    /// Sets many at once; of equal names the last counts.
    pub(super) fn set_all(&mut self, pairs: impl IntoIterator<Item = (Text<'a>, Text<'a>)>) {
        self.0.extend(pairs);
        self.0.sort_by(|one, other| one.0.cmp(&other.0));
        // `dedup_by` keeps the first of its group, and the last is wanted.
        self.0.reverse();
        self.0.dedup_by(|one, other| one.0 == other.0);
        self.0.retain(|(_, value)| !value.is_empty());
    }

    /// Gives the label `old` the name `exported_old`, with further `exported_` where that is taken.
    pub(super) fn step_aside(&mut self, old: &str) {
        let mut name = format!("exported_{old}");
        while self.has(&name) {
            name.insert_str(0, "exported_");
        }
        if let Some((known, _)) = self.0.iter_mut().find(|(known, _)| known == old) {
            *known = Cow::Owned(name);
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Sorts by name and leaves out what is empty. Fails with a name that is there twice.
    pub(super) fn finish(&mut self) -> Result<(), String> {
        self.0.retain(|(_, value)| !value.is_empty());
        self.0.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let twice = self.0.windows(2).find_map(|pair| match pair {
            [one, other] if one.0 == other.0 => Some(one.0.to_string()),
            _ => None,
        });
        twice.map_or(Ok(()), Err)
    }

    pub(super) fn into_owned(self) -> Labels<'static> {
        Labels(self.0.into_iter().map(|(name, value)| (Cow::Owned(name.into_owned()), Cow::Owned(value.into_owned()))).collect())
    }
}

impl<'a, N: Into<Text<'a>>, V: Into<Text<'a>>> FromIterator<(N, V)> for Labels<'a> {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_set_at_once_the_last_counts_and_an_empty_one_takes_away() {
        let mut labels: Labels<'_> = [("a", "1"), ("b", "2")].into_iter().collect();
        labels.set_all([("b", "3"), ("c", "4"), ("c", "5"), ("a", "")].map(|(name, value)| (name.into(), value.into())));
        labels.finish().unwrap();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("b", "3"), ("c", "5")]);
    }

    #[test]
    fn who_steps_aside_takes_a_name_that_is_free() {
        let mut labels: Labels<'_> = [("job", "1"), ("exported_job", "2")].into_iter().collect();
        labels.step_aside("job");
        assert_eq!(labels.get("exported_exported_job"), "1");
        assert_eq!(labels.finish(), Ok(()));
        labels.push("job", "x");
        labels.push("job", "y");
        assert_eq!(labels.finish(), Err("job".to_owned()));
    }
}
