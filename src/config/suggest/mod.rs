//! "Did you mean": the nearest of the words that would have been right.

/// The candidate nearest to `word`, if one is near enough to have been meant.
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > 100 {
        return None;
    }
    let folded = fold(word);
    let limit = (folded.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&folded, &fold(candidate)), candidate))
        .filter(|(far, _)| *far <= limit)
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Capitals, dashes and underscores do not make two words different.
fn fold(word: &str) -> String {
    word.chars().filter(|letter| !matches!(letter, '_' | '-')).flat_map(char::to_lowercase).collect()
}

/// Edits (insert, delete, replace, swap neighbours) between two words.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    let mut previous_letter = None;
    for (row, letter) in one.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, &wanted) in other.iter().enumerate() {
            let replaced = last.get(column).copied().unwrap_or(0) + usize::from(letter != wanted);
            let deleted = last.get(column + 1).copied().unwrap_or(0) + 1;
            let inserted = current.last().copied().unwrap_or(0) + 1;
            let mut best = replaced.min(deleted).min(inserted);
            if column > 0 && previous_letter == Some(wanted) && other.get(column - 1) == Some(&letter) {
                best = best.min(before_last.get(column - 1).copied().unwrap_or(usize::MAX - 1) + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous_letter = Some(letter);
    }
    last.last().copied().unwrap_or(0)
}

/// `a`, `b` and `c`, at most a dozen of them.
pub fn list<'c>(words: impl IntoIterator<Item = &'c str>) -> String {
    const SHOWN_MAX: usize = 16;
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    let more = words.len().saturating_sub(SHOWN_MAX);
    let shown = words.get(..words.len() - more).unwrap_or_default().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests;
